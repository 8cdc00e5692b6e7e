"""A cached kernel is never stale: an edit anywhere in what it calls or reads gives new numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from features import compiler, kernels_cache
from market import kernels_cache as market_cache

ROOT = Path(market_cache.__file__).parents[1]

KERNELS = {
    "left/__init__.py": "",
    "left/constants.py": "FACTOR = 2.0\n",
    "left/callee.py": (
        "from left.constants import FACTOR\nfrom market.kernels_cache import compiler\n"
        "njit = compiler('left')\n@njit\ndef inner(x):\n    return FACTOR * x\n"
    ),
    "right/__init__.py": "",
    "right/bystander.py": "NOTHING = 1\n",
    "right/caller.py": (
        "from left.callee import inner\nfrom market.kernels_cache import compiler\n"
        "njit = compiler('left', 'right', allocates=False)\n@njit\ndef outer(x):\n    return inner(x) + 1.0\n"
    ),
}
RUN = "from right.caller import outer\nprint(outer(10.0), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two small packages beside a copy of `market.kernels_cache`."""
    root = tmp_path / "project"
    for name, text in KERNELS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "market").mkdir()
    (root / "market/__init__.py").write_text("")
    shutil.copy(market_cache.__file__, root / "market/kernels_cache.py")
    return root


def outcome(project: Path, **environment: str) -> tuple[float, int]:
    """What `outer(10)` gives in a process of its own, and how many kernels it found compiled."""
    variables = {**os.environ, "PYTHONPATH": str(project), "PERPFORGE_CACHE_DIR": str(project / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=variables, cwd=project, capture_output=True, text=True, check=True
    )
    value, hits = done.stdout.split()
    return float(value), int(hits)


def edit(file: Path, old: str, new: str) -> None:
    """Change a file without its size or time telling."""
    text, status = file.read_text(), file.stat()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_edited_callee_or_constant_gives_new_numbers(project: Path) -> None:
    assert outcome(project) == (21.0, 0)
    assert outcome(project) == (21.0, 1)
    edit(project / "left/callee.py", "FACTOR * x", "FACTOR + x")
    assert outcome(project) == (13.0, 0)
    edit(project / "left/constants.py", "2.0", "5.0")
    assert outcome(project) == (16.0, 0)


def test_without_a_folder_to_write_kernels_are_compiled_each_time(project: Path) -> None:
    (project / "occupied").write_text("a file, not a folder")
    for _ in range(2):
        assert outcome(project, PERPFORGE_CACHE_DIR=str(project / "occupied/below")) == (21.0, 0)


def test_the_key_is_of_kernel_sources_and_what_they_import(project: Path) -> None:
    names = [file.relative_to(project).as_posix() for file in market_cache.kernel_sources(("left", "right"), project)]
    assert names == ["left/callee.py", "left/constants.py", "right/caller.py"]
    before = {packages: market_cache.key(packages, project) for packages in (("left",), ("left", "right"))}
    edit(project / "right/caller.py", "1.0", "2.0")
    assert market_cache.key(("left",), project) == before["left",]
    changed = market_cache.key(("left", "right"), project)
    assert changed != before["left", "right"]
    edit(project / "right/bystander.py", "1", "2")
    assert market_cache.key(("left", "right"), project) == changed


def test_every_kernel_of_features_is_part_of_its_key() -> None:
    names = {file.relative_to(ROOT).as_posix() for file in market_cache.kernel_sources(kernels_cache.PACKAGES)}
    assert {"market/bars.py", "features/barriers.py", "features/families/numeric.py", "features/fold.py"} <= names
    assert "features/splits.py" not in names
    for file in (ROOT / "features").rglob("*.py"):
        if "@njit" in file.read_text():
            assert file.relative_to(ROOT).as_posix() in names


def test_an_edited_family_gives_another_key(tmp_path: Path) -> None:
    for package in kernels_cache.PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = market_cache.key(kernels_cache.PACKAGES, tmp_path)
    assert before == market_cache.key(kernels_cache.PACKAGES)
    edit(tmp_path / "features/families/numeric.py", "LIMIT = 100.0", "LIMIT = 200.0")
    assert market_cache.key(kernels_cache.PACKAGES, tmp_path) != before


@pytest.mark.parametrize("first", ["market.bars", "features"])
def test_kernels_lie_in_their_folder_whichever_is_imported_first(first: str, tmp_path: Path) -> None:
    code = (
        f"import {first}, numba\nfrom features.fold import fold_wave\nfrom market.bars import _resample\n"
        "print(_resample._cache.cache_path, fold_wave._cache.cache_path, numba.config.CACHE_DIR)"
    )
    variables = {**os.environ, "PERPFORGE_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    market, features, *left = done.stdout.split()
    assert Path(market).relative_to(tmp_path).parts[0] == market_cache.key(("market",))
    assert Path(features).relative_to(tmp_path).parts[0] == market_cache.key(kernels_cache.PACKAGES)
    assert not left  # numba's own setting is as it was


def test_the_composed_step_lies_in_the_same_folder() -> None:
    from features import SPEC

    folder = kernels_cache.folder()
    assert folder is not None
    module = compiler.kernels(SPEC)
    assert Path(module.__file__).parent == folder / "composed"  # type: ignore[attr-defined]
    assert compiler.source(SPEC) == Path(module.__file__).read_text()  # type: ignore[attr-defined]


OWN_KERNEL = """import numpy as np
from features import compute
from features.families.shared import SHARED
from features.kernels_cache import njit
from features.spec import Family, Feature, FeatureSpec
from market.bars import BAR

@njit
def own(state, out, close):
    out[0] = close * 2.0

if __name__ == "__main__":
    import own_kernel
    bars = np.ones(1, dtype=BAR)
    bars["close_time"] = 60_000
    family = Family("own", (Feature("own", 1, "", "", 0.0, 9.0),), 0, own_kernel.own)
    print(compute(bars, FeatureSpec((family,), SHARED))[0, 0])
"""


@pytest.mark.deep
def test_an_edited_kernel_from_outside_the_packages_gives_new_numbers(tmp_path: Path) -> None:
    file = tmp_path / "own_kernel.py"
    file.write_text(OWN_KERNEL)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PERPFORGE_CACHE_DIR": str(tmp_path / "cache")}

    def value() -> float:
        command = [sys.executable, str(file)]
        return float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)

    assert value() == value() == 2.0
    edit(file, "close * 2.0", "close * 3.0")
    assert value() == 3.0


def test_a_kernel_of_the_packages_needs_no_more_than_their_key() -> None:
    from features.families.candle import candle

    assert market_cache.outside(candle, kernels_cache.PACKAGES) == ""
    assert market_cache.outside(candle, ("market",)) != ""


def test_old_keys_are_removed(tmp_path: Path) -> None:
    folders = [tmp_path / f"left-{index:02}" for index in range(market_cache.KEPT + 3)]
    for index, folder in enumerate(folders):
        folder.mkdir()
        os.utime(folder, (index, index))
    other = tmp_path / "right-00"
    other.mkdir()
    market_cache._prune(tmp_path, "left", folders[0])
    assert [folder.exists() for folder in folders] == [True, *[False] * 3, *[True] * (market_cache.KEPT - 1)]
    assert other.exists()
