"""What a learner remembers: the last transitions, drawn in proportion to how much they surprised it.

Prioritised experience replay, the proportional variant (Schaul, Quan, Antonoglou and Silver 2016, section 3.3): a
transition is drawn with a chance in proportion to (|error| + ε)^α, and weighs (N P)^-β in the loss, so that what is
drawn more often does not count for more. A new one has the largest priority seen so far, so that each is soon met.

Sums of ten thousand priorities take fifteen microseconds, less than a walk down a sum tree in Python: the tree's
gain is for a million.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.errors import ReplayUnreadable

CAPACITY = 10_000
SMALLEST_ERROR = 1e-3
"""ε, in the error's own unit: what is known perfectly is still drawn now and then."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Batch:
    """`k` transitions."""

    state: NDArray[np.float32]
    """`[k, S]`"""
    action: NDArray[np.int8]
    reward: NDArray[np.float32]
    next_state: NDArray[np.float32]
    """`[k, S]`; zeros where nothing follows."""
    next_mask: NDArray[np.bool_]
    """`[k, A]` which actions there are next; none where nothing follows."""
    discount: NDArray[np.float32]
    """By which the next state's value counts."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.action)


@dataclass(frozen=True)
class Drawn:
    """What was drawn: the batch, where it lies, and how much each counts."""

    batch: Batch
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    """`[k]` in (0, 1], the largest 1."""


class ReplayBuffer:
    """The newest `capacity` transitions of states of `width` columns and `actions` actions.

    States are kept in half precision: they are normalised and limited, so three digits are more than a network that
    is served in INT8 can tell apart, and the file is half as large.

    Draws come from a generator of its own. `arrays` holds everything, that generator too, so a buffer that was stored
    and read goes on bit for bit as the one that was not.
    """

    def __init__(
        self, width: int, actions: int, *, capacity: int = CAPACITY, alpha: float = 0.6, seed: int = 0
    ) -> None:
        self.capacity = capacity
        self.alpha = alpha
        self._kept: Arrays = {
            "state": np.zeros((capacity, width), dtype=np.float16),
            "action": np.zeros(capacity, dtype=np.int8),
            "reward": np.zeros(capacity, dtype=np.float32),
            "next_state": np.zeros((capacity, width), dtype=np.float16),
            "next_mask": np.zeros((capacity, actions), dtype=np.bool_),
            "discount": np.zeros(capacity, dtype=np.float32),
        }
        self._priority = np.zeros(capacity, dtype=np.float64)
        self._largest = 1.0
        self._added = 0
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        """How many it holds."""
        return min(self._added, self.capacity)

    @property
    def added(self) -> int:
        """How many were ever added, those that were forgotten since among them."""
        return self._added

    @property
    def width(self) -> int:
        """The columns of a state."""
        return int(self._kept["state"].shape[1])

    @property
    def priorities(self) -> NDArray[np.float64]:
        """Of those held, where they lie."""
        return self._priority[: len(self)].copy()

    def add(self, batch: Batch) -> None:
        """Take in a batch; the oldest go when there is no room."""
        rows = (self._added + np.arange(len(batch))) % self.capacity
        for name, kept in self._kept.items():
            kept[rows] = getattr(batch, name)
        self._priority[rows] = self._largest
        self._added += len(batch)

    def draw(self, count: int, beta: float) -> Drawn:
        """Draw `count` transitions, one from each of as many equal parts of the priorities' sum.

        `beta` from 0 (weights all 1) to 1 (unbiased).
        """
        held = len(self)
        if not held:
            raise ValueError("nothing to draw from: the buffer is empty")
        sums = np.cumsum(self._priority[:held])
        points = (np.arange(count) + self._random.random(count)) * (sums[-1] / count)
        index = np.minimum(np.searchsorted(sums, points, side="right"), held - 1)
        chance = self._priority[index] / sums[-1]
        weight = (held * chance) ** -beta
        batch = Batch(**{name: kept[index].astype(_SERVED.get(name, kept.dtype)) for name, kept in self._kept.items()})
        return Drawn(batch, index.astype(np.int64), (weight / weight.max()).astype(np.float32))

    def update(self, index: NDArray[np.int64], error: NDArray[np.floating[Any]]) -> None:
        """Set the priorities of what was drawn by how far the network was off. Of one drawn twice, the last counts."""
        priority = (np.abs(error.astype(np.float64)) + SMALLEST_ERROR) ** self.alpha
        self._priority[index] = priority
        self._largest = max(self._largest, float(priority.max(initial=0.0)))

    def arrays(self) -> Arrays:
        """Everything it is, as arrays: those that it holds alone, and its generator as text."""
        held = len(self)
        text = {
            "capacity": self.capacity,
            "alpha": self.alpha,
            "largest": self._largest,
            "added": self._added,
            "random": self._random.bit_generator.state,
        }
        kept = {name: values[:held].copy() for name, values in self._kept.items()}
        return kept | {
            "priority": self._priority[:held].copy(),
            "rest": np.frombuffer(json.dumps(text).encode(), dtype=np.uint8).copy(),
        }

    @classmethod
    def of_arrays(cls, arrays: Arrays, what: object = "given") -> ReplayBuffer:
        """The buffer that `arrays` came from; `ReplayUnreadable` when they are of none."""
        try:
            rest = json.loads(arrays["rest"].tobytes())
            width, actions = arrays["state"].shape[1], arrays["next_mask"].shape[1]
            found = cls(width, actions, capacity=rest["capacity"], alpha=rest["alpha"])
            found._largest, found._added = float(rest["largest"]), int(rest["added"])
            found._random.bit_generator.state = rest["random"]
            held = len(found)
            for name, kept in (*found._kept.items(), ("priority", found._priority)):
                if len(arrays[name]) != held:
                    raise ValueError(f"{name} has {len(arrays[name])} rows, not {held}")
                kept[:held] = arrays[name]
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ReplayUnreadable(what, str(error)) from error
        return found

    def save(self, path: Path) -> None:
        """Write to `path` atomically, compressed; equal buffers give equal bytes."""
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **self.arrays())  # type: ignore[arg-type]
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> ReplayBuffer:
        """The buffer stored at `path`, or `ReplayUnreadable`."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ReplayUnreadable(path, str(error)) from error
        return cls.of_arrays(arrays, path)


_SERVED: dict[str, Any] = {"state": np.float32, "next_state": np.float32}
"""What is handed out in another type than it is kept in."""
