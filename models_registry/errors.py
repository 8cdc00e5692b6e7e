"""What can go wrong with models and bundles, and what the caller does about it."""

from __future__ import annotations

from pathlib import Path


class ModelsError(Exception):
    """Base of every error of `models_registry`."""


class BundleRejected(ModelsError):
    """A bundle that must not decide: keep the one in use, show the reason, wait for another.

    `folder` is where the bundle lies, `reason` what is wrong with it.
    """

    def __init__(self, folder: object, reason: str) -> None:
        super().__init__(f"bundle in {folder} rejected: {reason}")
        self.folder = str(folder)
        self.reason = reason


class InputRejected(ModelsError):
    """Arrays whose shape or columns are not the bundle's: the caller is wrong, nothing was predicted."""


class NotEnoughData(ModelsError):
    """Too few rows to fit or to judge a model: collect more history, or lower the configured minimum."""

    def __init__(self, what: str, have: int, need: int) -> None:
        super().__init__(f"not enough data for {what}: {have} rows, at least {need} are needed")
        self.what = what
        self.have = have
        self.need = need


def check_parts(model: str, **parts: tuple[int, int]) -> None:
    """Raises `NotEnoughData` for the first part of a split that has fewer rows than it needs.

    `parts` are (have, need) by name, of `fit`, `validation` and `holdout`.

    >>> check_parts("a_model", fit=(500, 500), holdout=(3, 50))
    Traceback (most recent call last):
    models_registry.errors.NotEnoughData: not enough data for a_model to be judged: 3 rows, at least 50 are needed
    """
    for part, (have, need) in parts.items():
        if have < need:
            raise NotEnoughData(f"{model} to {_USE_OF_PART[part]}", have, need)


def check_split(model: str, least: int, fit: int, validation: int, holdout: int) -> None:
    """Raises `NotEnoughData` when there are fewer than `least` rows to fit, or than a tenth of it in another part."""
    check_parts(model, fit=(fit, least), validation=(validation, least // 10), holdout=(holdout, least // 10))


_USE_OF_PART = {"fit": "fit", "validation": "be stopped early", "holdout": "be judged"}


class TrainingUnavailable(ModelsError):
    """A library that this training needs is not installed: the bundle names the model's fallback instead."""

    def __init__(self, model: str, library: str) -> None:
        super().__init__(f"{model} cannot be trained: {library} is not installed")
        self.model = model
        self.library = library


class ComponentsDiffer(ModelsError):
    """Trained components that do not belong in one bundle: materialise `asset` again, and what is built on it."""

    def __init__(self, asset: str, reason: str) -> None:
        super().__init__(f"{reason}: materialise {asset} again")
        self.asset = asset
        self.reason = reason


class TrainingSetUnreadable(ModelsError):
    """A stored training set that is not what its format promises: build it again from the labels."""

    def __init__(self, what: object, reason: str) -> None:
        super().__init__(f"cannot read the training set {what}: {reason}")
        self.reason = reason


class TrainingConfigUnreadable(ModelsError):
    """Recorded settings of a training that are not this version's: train by the code version that recorded them."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot read the training's settings: {reason}")
        self.reason = reason


class DataGone(ModelsError):
    """What a model was trained on is not in the lake: name the lake that has it. `data_hash` is of the data."""

    def __init__(self, model: str, data_hash: str, path: str) -> None:
        super().__init__(f"{model} was trained on the data {data_hash}, which the lake does not have: {path}")
        self.model = model
        self.data_hash = data_hash


class ReplayUnreadable(ModelsError):
    """A stored replay buffer that is not what its format promises: learn with an empty one."""

    def __init__(self, what: object, reason: str) -> None:
        super().__init__(f"cannot read the replay buffer {what}: {reason}")
        self.reason = reason


class WindowAlreadySeen(ModelsError):
    """An evaluation window that begins before the bundle's last known label: choose a later window."""

    def __init__(self, bundle: str, start_ms: int, last_known_at: int) -> None:
        super().__init__(
            f"bundle {bundle} has seen labels known at {last_known_at}, "
            f"so a window that begins at {start_ms} cannot judge it"
        )
        self.bundle = bundle
        self.start_ms = start_ms
        self.last_known_at = last_known_at


class RecordsDiffer(ModelsError):
    """Two evaluation records that are not of the same rows: evaluate both bundles on one window first."""


class LedgerBroken(ModelsError):
    """A line of the ledger, or of the log of trials, is not what was written: find out who changed it before anything
    is promoted.
    """

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path} is broken at line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason
