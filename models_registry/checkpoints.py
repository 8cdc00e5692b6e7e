"""Training that survives SIGKILL: its whole state in one file after every epoch, and taken up again from there.

`Checkpoint` keeps arrays and plain values under a key that says which training they are of. `fit` is the epoch loop of
every Keras network that is fitted to arrays; a learner with a loop of its own keeps `network_state` and what else it
needs in a `Checkpoint`. A resumed training gives bit for bit the network of an undisturbed one, because nothing that
decides the next epoch lies outside the file: weights, the state of dropout, optimizer, early stopping, curves; the
order of the rows follows from the seed and the epoch's number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models_registry.errors import ModelsError

T = TypeVar("T")
Arrays = dict[str, NDArray[Any]]

FOLDER = "checkpoint"
"""Of a component's folder, while it is trained."""
FILE = "state.npz"
RECORD = "record"
"""The archive's entry of plain values."""
VALIDATION_BATCH = 4096

_log = logging.getLogger(__name__)


class Refusal(Enum):
    """Why a checkpoint is not taken up."""

    SPOILT = "it is damaged"
    OTHER_TRAINING = "it is of other data or another configuration"
    OTHER_NETWORK = "its arrays do not fit the network"


class CheckpointRefused(ModelsError):
    """A checkpoint that must not be taken up: train anew. `refusal` says why, `detail` more of it."""

    def __init__(self, path: Path, refusal: Refusal, detail: str) -> None:
        super().__init__(f"checkpoint {path} refused, {refusal.value}: {detail}")
        self.refusal = refusal
        self.detail = detail


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds."""

    arrays: Arrays
    record: dict[str, Any]
    """Plain values: what JSON can say, integers of any size too (the state of a numpy generator)."""


class Checkpoint:
    """The state of one training, in `folder/checkpoint`; `key` says of which (`training_key`)."""

    def __init__(self, folder: str | Path, key: str) -> None:
        self.folder = Path(folder) / FOLDER
        self.path = self.folder / FILE
        self.key = key
        self.refused: CheckpointRefused | None = None
        """Why `resume` did not take up what was there."""

    def save(self, state: TrainingState) -> None:
        """Replace the stored state: a temporary file, flushed, then renamed, so that there is always a whole one."""
        if RECORD in state.arrays:
            raise ValueError(f"no array may be named {RECORD}")
        text = json.dumps({"key": self.key, "values": state.record})
        buffer = io.BytesIO()
        np.savez(buffer, **state.arrays, **{RECORD: np.frombuffer(text.encode(), dtype=np.uint8)})  # type: ignore[arg-type]
        content = buffer.getvalue()
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{FILE}.partial")
        with partial.open("wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def load(self) -> TrainingState | None:
        """The stored state, None when there is none; raises `CheckpointRefused` for one that must not be used."""
        try:
            stored = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, content = stored[:32], stored[32:]
        if hashlib.sha256(content).digest() != digest:
            raise CheckpointRefused(self.path, Refusal.SPOILT, f"the sum of its {len(stored)} bytes does not agree")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            record = json.loads(arrays.pop(RECORD).tobytes())
            key, values = record["key"], record["values"]
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise CheckpointRefused(self.path, Refusal.SPOILT, str(error)) from error
        if key != self.key:
            raise CheckpointRefused(self.path, Refusal.OTHER_TRAINING, f"its key is {key}, not {self.key}")
        return TrainingState(arrays, values)

    def resume(self, take_up: Callable[[TrainingState], T]) -> T | None:
        """What `take_up` makes of the stored state; None to begin anew, with a warning when there is one all the same.

        A refusal, also one that `take_up` raises, is never an error: what is lost is time.
        """
        try:
            state = self.load()
            return None if state is None else take_up(state)
        except CheckpointRefused as refused:
            self.refused = refused
            _log.warning("the training begins anew: %s", refused)
            return None

    def discard(self) -> None:
        """Remove it: the training is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def training_key(name: str, config: Any, arrays: Mapping[str, NDArray[Any] | None], *more: str) -> str:
    """What makes two trainings of the model `name` the same: a sha256 over configuration and data.

    `config` is a dataclass, `arrays` everything that is fitted to or validated on, `more` what else decides (the
    digest of the weights that it starts from).

    >>> training_key("a", None, {"x": np.zeros(2)}) == training_key("a", None, {"x": np.zeros(2)})
    True
    >>> training_key("a", None, {"x": np.zeros(2)}) == training_key("a", None, {"x": np.zeros((2, 1))})
    False
    """
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    digest = hashlib.sha256(repr((name, plain, more)).encode())
    for key in sorted(arrays):
        values = np.ascontiguousarray(arrays[key]) if arrays[key] is not None else np.empty(0)
        digest.update(f"{key} {values.dtype.str} {values.shape}".encode())
        digest.update(values.view(np.uint8).data if values.size else b"")
    return digest.hexdigest()


def network_state(prefix: str, network: Any, optimizer: Any = None) -> Arrays:
    """Every variable of a Keras network (dropout's state too) and of its optimizer, named after `prefix`."""
    return {name: np.asarray(variable) for name, variable in _variables(prefix, network, optimizer).items()}


def restore_network(arrays: Arrays, prefix: str, network: Any, optimizer: Any = None) -> None:
    """Set what `network_state` kept. Raises `ValueError`, and sets nothing, when it is of another network."""
    variables = _variables(prefix, network, optimizer)
    for name, variable in variables.items():
        if name not in arrays or arrays[name].shape != tuple(variable.shape):
            raise ValueError(f"{name} is {arrays[name].shape if name in arrays else 'missing'}, not {variable.shape}")
    for name, variable in variables.items():
        variable.assign(arrays[name])


def _variables(prefix: str, network: Any, optimizer: Any) -> dict[str, Any]:
    found = {f"{prefix}.{index}": variable for index, variable in enumerate(network.variables)}
    if optimizer is not None:
        if not optimizer.built:
            optimizer.build(network.trainable_variables)
        found |= {f"{prefix}.optimizer.{index}": variable for index, variable in enumerate(optimizer.variables)}
    return found


@dataclass(frozen=True)
class Rows:
    """Rows of one part: arrays, or structures of arrays as Keras takes them, `[n, ...]` each."""

    inputs: Any
    targets: Any
    weights: Any = None
    """Per row, or a structure like `targets`; None weighs all alike."""

    def __len__(self) -> int:
        import keras

        return len(keras.tree.flatten(self.inputs)[0])

    def ordered(self, order: NDArray[np.int64]) -> Rows:
        """The rows in another order."""
        import keras

        parts = (self.inputs, self.targets, self.weights)
        return Rows(*(None if part is None else keras.tree.map_structure(lambda a: a[order], part) for part in parts))


@dataclass(frozen=True)
class FitPlan:
    """How the epochs go."""

    epochs: int
    """At most."""
    patience: int
    """Epochs without a better validation loss after which it stops."""
    batch: int
    seed: int
    """Of the order of the rows."""


@dataclass
class Fitted:
    """How a fit went. The network has the weights of its best epoch."""

    curves: dict[str, list[float]] = field(default_factory=lambda: {"fit": [], "validation": []})
    """Losses, one an epoch."""
    best: float = math.inf
    best_epoch: int = -1
    resumed_from: int = 0
    """Epochs that were taken over from a checkpoint."""

    @property
    def epochs(self) -> int:
        """How many were fitted, those of the checkpoint among them."""
        return len(self.curves["fit"])


def fit(
    network: Any,
    rows: Rows,
    validation: Rows | None,
    plan: FitPlan,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int, Fitted], None] = lambda epoch, fitted: None,
) -> Fitted:
    """Fit the compiled `network` epoch by epoch, from its checkpoint where there is one, until it gets no better.

    `on_epoch(done, fitted)` is called when the epoch is on disk. The network ends with the weights of its best epoch;
    without validation rows it goes through all epochs, and the last is the best.
    The checkpoint stays: its owner discards it when everything that follows (the export) is done.
    """
    optimizer = network.optimizer
    best = network_state("best", network)
    fitted = Fitted()
    if checkpoint is not None:
        path = checkpoint.path
        fitted, best = checkpoint.resume(lambda state: _taken_up(path, state, network)) or (fitted, best)
    for epoch in range(fitted.epochs, plan.epochs):
        if epoch - fitted.best_epoch > max(plan.patience, 1):
            break
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(rows))
        part = rows.ordered(order)
        history = network.fit(
            part.inputs, part.targets, sample_weight=part.weights, batch_size=plan.batch, shuffle=False, verbose=0
        ).history
        fitted.curves["fit"].append(float(history["loss"][0]))
        loss = math.nan if validation is None else _loss(network, validation)
        if validation is not None:
            fitted.curves["validation"].append(loss)
        if validation is None or loss < fitted.best:
            fitted.best, fitted.best_epoch = loss, epoch
            best = network_state("best", network)
        if checkpoint is not None:
            record = {"curves": fitted.curves, "best": fitted.best, "best_epoch": fitted.best_epoch}
            checkpoint.save(TrainingState({**network_state("network", network, optimizer), **best}, record))
        on_epoch(epoch + 1, fitted)
    restore_network(best, "best", network)
    return fitted


def _loss(network: Any, rows: Rows) -> float:
    found = network.evaluate(
        rows.inputs,
        rows.targets,
        sample_weight=rows.weights,
        batch_size=VALIDATION_BATCH,
        verbose=0,
        return_dict=True,
    )
    return float(found["loss"])


def _taken_up(path: Path, state: TrainingState, network: Any) -> tuple[Fitted, Arrays]:
    best = {name: values for name, values in state.arrays.items() if name.startswith("best.")}
    try:
        if {name: values.shape for name, values in best.items()} != {
            name: values.shape for name, values in network_state("best", network).items()
        }:
            raise ValueError("the best epoch's weights are of another network")
        found = Fitted(state.record["curves"], float(state.record["best"]), int(state.record["best_epoch"]))
        found.resumed_from = found.epochs
        restore_network(state.arrays, "network", network, network.optimizer)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointRefused(path, Refusal.OTHER_NETWORK, str(error)) from error
    return found, best
