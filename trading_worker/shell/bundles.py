"""Which bundle decides: watching the champion alias, the cache of bundles, and checking one before it is trusted.

The watcher asks the registry every few seconds which version the alias names, and compares versions. A new one
is downloaded into the cache, verified and loaded in a thread while the old one goes on deciding, and then offered
to the worker, which swaps between two waves. Whatever is wrong with it, the old one stays and the reason is told:
- an alias that is missing keeps the current champion;
- a refused version is not tried again until the alias has named another;
- a registry that is down, or whose answers are none of a registry, keeps it too; at the start the newest bundle that
  was good stands in, and that is said.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from market.whole_files import write_atomic
from models_registry import manifest as manifests
from models_registry.errors import BundleRejected
from models_registry.mlflow_rest import BUNDLE_MODEL, RegistryError
from trading_worker.errors import SwapRefused

if TYPE_CHECKING:
    from features import DecisionSpec
    from models_registry.runtime import Predictor

ALIAS = "champion"
LAST_GOOD = "last_good.json"


class RegistryLike(Protocol):
    """What the watcher asks of `models_registry.mlflow_rest.MlflowRest`."""

    async def alias_version(self, model: str, alias: str) -> str | None:
        """The version that the alias names."""

    async def download(self, model: str, version: str, folder: str | Path) -> Path:
        """The files of a version, all or none."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A bundle that was verified and can predict. `version` is the registry's; `name` the manifest's own."""

    version: str
    predictor: Predictor
    spec: DecisionSpec
    source: str
    prepare_s: float = 0.0

    @property
    def name(self) -> str:
        """What events call it."""
        return str(self.predictor.manifest.bundle_version)


class _LastGood(msgspec.Struct, frozen=True):
    version: str


class BundleCache:
    """Downloaded bundles, one folder a version, and which one was good last.

    `keep` bundles stay beside those in use; a bundle in use is never removed.
    """

    def __init__(self, folder: Path, keep: int = 4) -> None:
        self._folder = folder
        self._keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def folder(self, version: str) -> Path:
        """Where a version lies or would lie."""
        if not version or version.startswith(".") or "/" in version or "\\" in version:
            raise BundleRejected(version, "its version is not a plain name")
        return self._folder / version

    def has(self, version: str) -> bool:
        """Whether it is here, complete."""
        return (self.folder(version) / manifests.MANIFEST_FILE).is_file()

    def versions(self) -> list[str]:
        """Those that are here, the one used longest ago first."""
        found = [path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]

    def version_of(self, name: str) -> str | None:
        """The version whose manifest carries this name, if it is here."""
        for version in reversed(self.versions()):
            try:
                manifest = manifests.decode((self.folder(version) / manifests.MANIFEST_FILE).read_bytes())
            except (OSError, ValueError):
                continue
            if manifest.bundle_version == name:
                return version
        return None

    def discard(self, version: str) -> None:
        """Remove one that was refused."""
        shutil.rmtree(self.folder(version), ignore_errors=True)

    def last_good(self) -> str | None:
        """The version that decided last, if it is still here."""
        try:
            version = msgspec.json.decode((self._folder / LAST_GOOD).read_bytes(), type=_LastGood).version
        except (OSError, msgspec.MsgspecError):
            return None
        return version if self.has(version) else None

    def mark_good(self, version: str, in_use: frozenset[str] = frozenset()) -> None:
        """Note that `version` decides from now on, and remove old ones beyond `keep` that nobody uses."""
        self.folder(version).touch()
        write_atomic(self._folder / LAST_GOOD, msgspec.json.encode(_LastGood(version)))
        for old in self.versions()[: -self._keep]:
            if old != version and old not in in_use:
                self.discard(old)


def load_bundle(
    version: str, folder: Path, specs: Mapping[str, DecisionSpec], source: str, *, quantised: bool = True
) -> Loaded:
    """Verify the bundle in `folder`, load it, and let it predict once what this worker will ask it; blocking.

    Raises `BundleRejected` with the reason, and nothing else. `specs` holds the decision specifications that this
    worker can compute. It is verified as it was promoted, by its golden outputs. Not `quantised`
    (`ENABLE_QUANTIZATION`), the networks' fp32 files run then, which are pinned by their sha256 and have passed their
    own parity.
    """
    from models_registry.bundle import verify
    from models_registry.runtime import Predictor, read_manifest

    began = perf_counter()
    pinned = read_manifest(folder).decision_spec.id
    spec = specs.get(pinned)
    if spec is None:
        raise BundleRejected(folder, f"it needs DecisionSpec {pinned}; this worker computes {', '.join(specs)}")
    verify(folder, spec)
    predictor = Predictor.load(folder, quantised=quantised)
    _try_out(folder, predictor, spec)
    return Loaded(version, predictor, spec, source, perf_counter() - began)


def _try_out(folder: Path, predictor: Predictor, spec: DecisionSpec) -> None:
    """One row of this DecisionSpec's shapes: the golden inputs are the bundle's own, and may have others."""
    decision = np.zeros((1, len(spec.names)), dtype=np.float32)
    windows = np.zeros((1, spec.window, len(spec.window_names)), dtype=np.float32)
    index, direction = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int8)
    kind, quality = np.ones(1, dtype=np.uint8), np.ones(1, dtype=np.float32)
    try:
        predictor.predict(decision, windows, index, direction, kind=kind, quality=quality)
    except Exception as error:
        raise BundleRejected(folder, f"it cannot predict rows of DecisionSpec {spec.id}: {error}") from error


Load = Callable[[str, Path, Mapping[str, "DecisionSpec"], str], Loaded]
Accept = Callable[[Loaded], Awaitable[bool]]
Refuse = Callable[[str, str], Awaitable[None]]
Say = Callable[[str | None], None]


class BundleWatcher:
    """Follows the alias.

    Parameters
    ----------
    registry: the registry over REST.
    cache: where bundles are kept.
    specs: decision specifications that this worker can compute, by id.
    interval_s: wall seconds between two questions.
    refuse: told of a version that was not taken, and why.
    say: told what stands in the way now, or None when nothing does.
    """

    def __init__(
        self,
        registry: RegistryLike,
        cache: BundleCache,
        specs: Mapping[str, DecisionSpec],
        *,
        interval_s: float,
        refuse: Refuse,
        say: Say,
        load: Load = load_bundle,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._specs = specs
        self._interval_s = interval_s
        self._refuse = refuse
        self._say = say
        self._load = load
        self._current: str | None = None
        self._refused: str | None = None

    async def first(self) -> Loaded:
        """The bundle to start with: the champion, else the cached last good one, else wait until there is one."""
        while True:
            loaded = await self._champion() or await self._cached()
            if loaded is not None:
                self._current = loaded.version
                return loaded
            await asyncio.sleep(self._interval_s)

    async def run(self, accept: Accept) -> None:
        """Offer every new champion to `accept`, for ever.

        `accept` answers whether the bundle decides now; False means not yet, and it is offered again. `SwapRefused`
        from it is a refusal like any other.
        """
        while True:
            await asyncio.sleep(self._interval_s)
            await self.poll(accept)

    async def poll(self, accept: Accept) -> bool:
        """Ask once; whether a new bundle was accepted."""
        loaded = await self._champion()
        if loaded is None:
            return False
        try:
            taken = await accept(loaded)
        except SwapRefused as error:
            await self._refusal(loaded.version, error.reason)
            return False
        if taken:
            self._current = loaded.version
        return taken

    async def load_cached(self, version: str) -> Loaded:
        """One that is in the cache, verified again; `BundleRejected` if it no longer is what it was."""
        return await asyncio.to_thread(self._load, version, self._cache.folder(version), self._specs, "cache")

    async def _champion(self) -> Loaded | None:
        """What the alias names, loaded; None when that is what we have, was refused, or cannot be had."""
        try:
            version = await self._registry.alias_version(BUNDLE_MODEL, ALIAS)
            self._say(None if version else f"the registry names no {ALIAS}: keeping {self._current or 'none'}")
            if version == self._current:
                self._refused = None
            if version is None or version in (self._current, self._refused):
                return None
            return await self._obtain(version)
        except RegistryError as error:
            self._say(str(error))
        except OSError as error:
            self._say(f"the bundle that the registry names cannot be stored here: {error}")
        return None

    async def _obtain(self, version: str) -> Loaded | None:
        """From the cache if it is whole there, else freshly downloaded; None when it is refused."""
        began = perf_counter()
        try:
            if self._cache.has(version):
                try:
                    return await self.load_cached(version)
                except BundleRejected:
                    self._cache.discard(version)
            folder = await self._registry.download(BUNDLE_MODEL, version, self._cache.folder(version))
            loaded = await asyncio.to_thread(self._load, version, folder, self._specs, "registry")
        except BundleRejected as error:
            await self._refusal(version, error.reason)
            return None
        return replace(loaded, prepare_s=perf_counter() - began)

    async def _cached(self) -> Loaded | None:
        version = self._cache.last_good()
        if version is None:
            return None
        try:
            return await self.load_cached(version)
        except BundleRejected as error:
            await self._refusal(version, f"cached copy: {error.reason}")
            return None

    async def _refusal(self, version: str, reason: str) -> None:
        self._refused = version
        with suppress(BundleRejected):  # a version that is no plain name has no folder either
            self._cache.discard(version)
        await self._refuse(version, reason)
