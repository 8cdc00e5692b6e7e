"""Where the trained models lie in the lake, each in a folder of its own, and the unfinished trainings of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from market.lake import Lake
from models_registry.checkpoints import FOLDER as CHECKPOINT_FOLDER
from models_registry.continuing import StartingPoint
from models_registry.manifest import AUTOENCODER, DQN, DYNAMIC, FEATURE_NETWORK, LIQUIDITY, REGIME, WIN
from models_registry.training_config import TrainingConfig, models_of
from orchestration.artifacts import get_folder, put_folder


def folder_of(model: str) -> str:
    """The lake's folder of a model.

    >>> folder_of("win_classifier")
    'models/win_classifier'
    """
    return f"models/{model}"


NEEDS = {
    DYNAMIC: (REGIME,),
    WIN: (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, REGIME, DYNAMIC),
    DQN: (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, REGIME, DYNAMIC, WIN),
}
"""The models whose folders the training of a model is given, where there are such models. The strategy is compared with
the win model, which reads all others."""


def needed(model: str, config: TrainingConfig) -> tuple[str, ...]:
    """The models that `model` is trained on or compared with."""
    return tuple(name for name in models_of(config) if name in NEEDS.get(model, ()))


def fetch(lake: Lake, models: Iterable[str], into: Path) -> dict[str, Path]:
    """The current folders of `models`, copied; by name. `LakeMissing` where one was never trained."""
    folders = {name: into / name for name in models}
    for name, folder in folders.items():
        get_folder(lake, folder_of(name), folder)
    return folders


_STARTING_POINT = "starting_point"


class _Begin(msgspec.Struct, frozen=True):
    bundle: str | None
    models: list[str]


def keep_starting_point(lake: Lake, bundle: str | None, folders: Mapping[str, Path]) -> None:
    """Keep what the next trainings continue from: the models in `folders` of a registered bundle, or nothing."""
    for name, folder in folders.items():
        put_folder(lake, f"{_STARTING_POINT}/{name}", folder)
    lake.put_bytes(f"{_STARTING_POINT}/current.json", msgspec.json.encode(_Begin(bundle, sorted(folders))))


def starting_point(lake: Lake, model: str, into: Path) -> StartingPoint | None:
    """What the training of `model` may continue from, copied to `into`; None when it is to begin anew."""
    pointer = f"{_STARTING_POINT}/current.json"
    if not lake.exists(pointer):
        return None
    found = msgspec.json.decode(lake.get_bytes(pointer), type=_Begin)
    if found.bundle is None or model not in found.models:
        return None
    get_folder(lake, f"{_STARTING_POINT}/{model}", into)
    return StartingPoint(found.bundle, into)


class KeptCheckpoint:
    """The checkpoint of a model's training, kept in the lake while the training goes on in `folder`.

    A run that was killed, on whatever machine, is so taken up by the next one that has the same data and settings; the
    checkpoint itself says whether it has.
    """

    def __init__(self, lake: Lake, model: str, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._lake = lake
        self._clock = clock
        self._next_s = 0.0
        self._at = f"training/unfinished/{model}"
        self._folder = folder / CHECKPOINT_FOLDER
        self._kept: dict[str, tuple[int, int]] = {}

    def fetch(self) -> int:
        """Bring what was kept to the training's folder; how many files there were."""
        found = 0
        for path in self._lake.list(self._at):
            data = self._lake.get_bytes(path)
            if data:
                target = self._folder / path.removeprefix(f"{self._at}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                found += 1
        return found

    def keep(self) -> None:
        """Keep what has changed since the last call, unless that would take more than a twentieth of the time.

        What a kill costs is so at most twenty times what it takes to keep a checkpoint.
        """
        began = self._clock()
        if began < self._next_s:
            return
        for file in sorted(self._folder.rglob("*.npz")) if self._folder.is_dir() else ():
            about = file.stat()
            name, stamp = str(file.relative_to(self._folder)), (about.st_mtime_ns, about.st_size)
            if not file.name.startswith(".") and self._kept.get(name) != stamp:
                self._lake.put_bytes(f"{self._at}/{name}", file.read_bytes())
                self._kept[name] = stamp
        now = self._clock()
        self._next_s = now + 19 * (now - began)

    def discard(self) -> None:
        """The training is done: leave nothing but empty files."""
        for path in self._lake.list(self._at):
            self._lake.put_bytes(path, b"")
