"""The watch over the champion: what is taken, what is refused, what a registry that is down means."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features import DECISION_SPEC
from models_registry import bundle
from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import MANIFEST_FILE, SpecPin
from models_registry.mlflow_rest import RegistryAnswer, RegistryUnreachable
from models_registry.runtime import Predictor, read_manifest
from tests.trading_worker.shell.conftest import FakeRegistry, until, write_bundle
from trading_worker.errors import SwapRefused
from trading_worker.shell.bundles import BundleCache, BundleWatcher, Loaded, load_bundle

SPECS = {DECISION_SPEC.id: DECISION_SPEC}
DOWN = RegistryUnreachable("http://127.0.0.1:9", "refused")
STRANGE = RegistryAnswer("http://127.0.0.1:9", 200, "NOT_UNDERSTOOD", "please log in")
FULL = OSError(28, "No space left on device")


def forge_golden(folder: Path) -> None:
    """Golden outputs that these models do not give, pinned by their own hash."""
    path = folder / "golden.npz"
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "win_probability": arrays["win_probability"] + np.float32(0.1)})
    manifest = read_manifest(folder)
    assert manifest.golden is not None
    golden = msgspec.structs.replace(manifest.golden, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    bundle.rewrite_manifest(folder, msgspec.structs.replace(manifest, golden=golden))


class Watch:
    """A watcher with everything it says."""

    def __init__(self, folder: Path, registry: FakeRegistry) -> None:
        self.refused: list[tuple[str, str]] = []
        self.said: list[str | None] = []
        self.taken: list[Loaded] = []
        self.cache = BundleCache(folder / "cache", keep=2)
        self.watcher = BundleWatcher(
            registry, self.cache, SPECS, interval_s=0.001, refuse=self._refuse, say=self.said.append
        )

    async def _refuse(self, version: str, reason: str) -> None:
        self.refused.append((version, reason))

    async def accept(self, loaded: Loaded) -> bool:
        """Take everything."""
        self.taken.append(loaded)
        return True


@pytest.fixture
def registry(tmp_path: Path) -> FakeRegistry:
    """Two good bundles, the first being champion."""
    registry = FakeRegistry()
    for version in ("1", "2"):
        registry.folders[version] = write_bundle(tmp_path / f"bundle-{version}", f"b{version}")
    registry.alias = "1"
    return registry


@pytest.fixture
def watch(tmp_path: Path, registry: FakeRegistry) -> Watch:
    """A watch over it."""
    return Watch(tmp_path, registry)


async def test_the_champion_is_loaded_and_a_moved_alias_is_offered_once(watch: Watch, registry: FakeRegistry) -> None:
    first = await watch.watcher.first()
    assert (first.version, first.name, first.source) == ("1", "b1", "registry")
    assert not await watch.watcher.poll(watch.accept)
    registry.alias = "2"
    assert await watch.watcher.poll(watch.accept)
    assert not await watch.watcher.poll(watch.accept)
    assert [loaded.name for loaded in watch.taken] == ["b2"]
    assert registry.downloads == ["1", "2"]


async def test_a_rollback_needs_no_download(watch: Watch, registry: FakeRegistry) -> None:
    await watch.watcher.first()
    registry.alias = "2"
    await watch.watcher.poll(watch.accept)
    registry.alias = "1"
    assert await watch.watcher.poll(watch.accept)
    assert [(loaded.name, loaded.source) for loaded in watch.taken] == [("b2", "registry"), ("b1", "cache")]
    assert registry.downloads == ["1", "2"]


@pytest.mark.parametrize(
    ("down", "said"), [(DOWN, "does not answer"), (STRANGE, "please log in"), (FULL, "cannot be stored here")]
)
async def test_a_missing_alias_and_a_registry_that_is_down_keep_the_champion(
    watch: Watch, registry: FakeRegistry, down: Exception, said: str
) -> None:
    await watch.watcher.first()
    registry.alias = None
    assert not await watch.watcher.poll(watch.accept)
    assert watch.said[-1] == "the registry names no champion: keeping 1"
    registry.down = down
    assert not await watch.watcher.poll(watch.accept)
    assert said in str(watch.said[-1])
    registry.down, registry.alias = None, "1"
    await watch.watcher.poll(watch.accept)
    assert watch.said[-1] is None
    assert watch.taken == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("hash", "sha256"),
        ("spec", "it needs DecisionSpec"),
        ("golden", "golden win_probability differs"),
        ("plan", "its plan says"),
        ("manifest", "manifest.json cannot be read"),
    ],
)
async def test_a_bundle_that_is_not_what_it_should_be_is_refused_once_and_the_old_one_stays(
    tmp_path: Path, watch: Watch, registry: FakeRegistry, damage: str, reason: str
) -> None:
    await watch.watcher.first()
    bad = tmp_path / "bad"
    spec = SpecPin(id="decision-of-tomorrow", names=list(DECISION_SPEC.names))
    write_bundle(bad, "bad", **({"decision_spec": spec} if damage == "spec" else {}))
    if damage == "manifest":
        (bad / MANIFEST_FILE).write_bytes(b"{")
    elif damage == "hash":
        (bad / "golden.npz").write_bytes(b"other")
    elif damage == "golden":
        forge_golden(bad)
    elif damage == "plan":
        bundle.rewrite_manifest(bad, msgspec.structs.replace(read_manifest(bad), plan={"stop_atr": 1.0}))
    registry.folders["3"], registry.alias = bad, "3"
    for _ in range(3):
        assert not await watch.watcher.poll(watch.accept)
    [(version, why)] = watch.refused
    assert version == "3"
    assert reason in why
    assert registry.downloads == ["1", "3"], "a refused version is not tried again"
    assert not watch.cache.has("3")
    registry.alias = "1"
    await watch.watcher.poll(watch.accept)
    registry.alias = "3"
    await watch.watcher.poll(watch.accept)
    assert len(watch.refused) == 2, "until the alias has named another"


async def test_what_the_worker_cannot_swap_to_is_refused_and_what_it_puts_off_is_offered_again(
    watch: Watch, registry: FakeRegistry
) -> None:
    await watch.watcher.first()
    registry.alias = "2"
    answers = iter([False, True])

    async def later(loaded: Loaded) -> bool:
        return next(answers)

    assert not await watch.watcher.poll(later)
    assert await watch.watcher.poll(later)

    async def never(loaded: Loaded) -> bool:
        raise SwapRefused(loaded.name, "its features are of yesterday")

    registry.alias = "1"
    assert not await watch.watcher.poll(never)
    assert watch.refused == [("1", "its features are of yesterday")]


@pytest.mark.parametrize("down", [DOWN, STRANGE])
async def test_with_the_registry_down_the_last_good_bundle_starts_and_without_one_it_waits(
    watch: Watch, registry: FakeRegistry, down: Exception
) -> None:
    registry.down = down
    waiting = asyncio.create_task(watch.watcher.first())
    await until(lambda: bool(watch.said))
    assert not waiting.done()
    write_bundle(watch.cache.folder("1"), "b1")
    watch.cache.mark_good("1")
    loaded = await waiting
    assert (loaded.version, loaded.source) == ("1", "cache")
    registry.down = None
    assert not await watch.watcher.poll(watch.accept), "the registry names the same version"


async def test_a_version_that_is_no_plain_name_is_refused(watch: Watch, registry: FakeRegistry) -> None:
    await watch.watcher.first()
    registry.alias = "../1"
    assert not await watch.watcher.poll(watch.accept)
    assert watch.refused == [("../1", "its version is not a plain name")]
    assert registry.downloads == ["1"]


def test_a_bundle_that_cannot_predict_what_this_worker_asks_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_bundle(tmp_path / "b", "b")

    def narrow(self: Predictor, *_: object, **__: object) -> None:
        raise InputRejected("windows are (32, 5), the bundle's autoencoder takes (16, 5)")

    monkeypatch.setattr(Predictor, "predict", narrow)
    with pytest.raises(BundleRejected, match=r"it cannot predict rows of DecisionSpec .*takes \(16, 5\)"):
        load_bundle("1", folder, SPECS, "cache")


async def test_a_damaged_copy_in_the_cache_is_fetched_anew(watch: Watch, registry: FakeRegistry) -> None:
    write_bundle(watch.cache.folder("1"), "b1")
    (watch.cache.folder("1") / "golden.npz").write_bytes(b"")
    loaded = await watch.watcher.first()
    assert (loaded.source, registry.downloads, watch.refused) == ("registry", ["1"], [])


def test_the_cache_is_bounded_and_keeps_what_is_in_use(tmp_path: Path) -> None:
    cache = BundleCache(tmp_path / "cache", keep=2)
    for version in ("1", "2", "3", "4"):
        write_bundle(cache.folder(version), f"b{version}")
        cache.mark_good(version, in_use=frozenset({"1"}))
    assert set(cache.versions()) == {"1", "3", "4"}
    assert cache.last_good() == "4"
    assert (cache.version_of("b3"), cache.version_of("b2")) == ("3", None)
    for name in ("", "../x", ".hidden", "a/b"):
        with pytest.raises(BundleRejected):
            cache.folder(name)


def test_loading_names_the_specification_that_is_missing(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", "b")
    with pytest.raises(BundleRejected, match="it needs DecisionSpec"):
        load_bundle("1", folder, {}, "cache")
    assert load_bundle("1", folder, SPECS, "cache").prepare_s > 0
