"""Which code it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models_registry
from models_registry.code_digest import LEARNING, code_digest, folders_digest

NAMES = st.sampled_from(["a.py", "b.py", "inner/a.py", "inner/b.py"])
FILES = st.dictionaries(NAMES, st.text(alphabet="ab\n", max_size=3), min_size=1)


def written(folder: Path, files: dict[str, str]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@settings(deadline=None)  # it writes files
@given(one=FILES, other=FILES)
def test_the_digests_of_two_folders_are_equal_exactly_when_their_modules_are(
    one: dict[str, str], other: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.getbasetemp() / "digests"
    digests = [folders_digest({"p": written(base / str(n), files)}) for n, files in enumerate((one, other))]
    assert (digests[0] == digests[1]) == (one == other)


def test_what_is_no_module_does_not_count(tmp_path: Path) -> None:
    folder = written(tmp_path / "p", {"a.py": "x"})
    before = folders_digest({"p": folder})
    (folder / "a.txt").write_text("note")
    assert folders_digest({"p": folder}) == before != folders_digest({"q": folder})


def test_it_is_of_the_code_that_runs(tmp_path: Path) -> None:
    root = Path(models_registry.__file__).parents[1]
    copies = {name: Path(shutil.copytree(root / name, tmp_path / name)) for name in LEARNING}
    assert folders_digest(copies) == code_digest()
    changed = tmp_path / "models_registry" / "win_trees.py"
    changed.write_text(changed.read_text() + "\n")
    assert folders_digest(copies) != code_digest()
