"""Where the trained models lie in the lake, each in a folder of its own, and the unfinished trainings of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from market.lake import Lake
from models_registry.checkpoints import FOLDER as CHECKPOINT_FOLDER
from models_registry.manifest import AUTOENCODER, DQN, DYNAMIC, FEATURE_NETWORK, LIQUIDITY, REGIME, WIN
from models_registry.training_config import TrainingConfig
from orchestration.artifacts import get_folder


def folder_of(model: str) -> str:
    """The lake's folder of a model.

    >>> folder_of("win_classifier")
    'models/win_classifier'
    """
    return f"models/{model}"


def models_of(config: TrainingConfig) -> tuple[str, ...]:
    """The models of the bundles that are trained by `config`, in the order in which they read each other."""
    wanted = {
        AUTOENCODER: True,
        FEATURE_NETWORK: config.feature_network is not None,
        LIQUIDITY: config.liquidity is not None,
        REGIME: config.regime is not None,
        DYNAMIC: config.dynamic is not None,
        WIN: True,
        DQN: config.dqn is not None,
    }
    return tuple(name for name, is_wanted in wanted.items() if is_wanted)


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


class KeptCheckpoint:
    """The checkpoint of a model's training, kept in the lake while the training goes on in `folder`.

    A run that was killed, on whatever machine, is so taken up by the next one that has the same data and settings; the
    checkpoint itself says whether it has.
    """

    def __init__(self, lake: Lake, model: str, folder: Path) -> None:
        self._lake = lake
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
        """Keep what has changed since the last call."""
        for file in sorted(self._folder.rglob("*.npz")) if self._folder.is_dir() else ():
            about = file.stat()
            name, stamp = str(file.relative_to(self._folder)), (about.st_mtime_ns, about.st_size)
            if not file.name.startswith(".") and self._kept.get(name) != stamp:
                self._lake.put_bytes(f"{self._at}/{name}", file.read_bytes())
                self._kept[name] = stamp

    def discard(self) -> None:
        """The training is done: leave nothing but empty files."""
        for path in self._lake.list(self._at):
            self._lake.put_bytes(path, b"")
