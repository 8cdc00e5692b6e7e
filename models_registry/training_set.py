"""The training set: candidates with their outcomes, and windows without labels, as plain arrays."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.regimes import STATES
from features.splits import holdout
from market.whole_files import write_atomic
from models_registry.errors import TrainingSetUnreadable

TARGET, STOP, EXPIRY = 1, 2, 3
"""Outcome codes, those of `features.barriers`."""
HISTORY, LIVE = 0, 1
"""Codes of `source`."""

TYPES: dict[str, Any] = {
    "decision": np.float32,
    "windows": np.float32,
    "direction": np.int8,
    "kind": np.uint8,
    "decided_at": np.int64,
    "known_at": np.int64,
    "outcome": np.int8,
    "r": np.float32,
    "weight": np.float32,
    "source": np.uint8,
    "quality": np.float32,
    "symbol": np.int32,
    "return_ahead": np.float32,
    "reach_below": np.float32,
    "reach_above": np.float32,
    "path_known_at": np.int64,
    "unlabelled_windows": np.float32,
    "unlabelled_at": np.int64,
    "unlabelled_states": np.float32,
    "unlabelled_ahead": np.int8,
    "unlabelled_return": np.float32,
    "unlabelled_below": np.float32,
    "unlabelled_above": np.float32,
    "unlabelled_known_at": np.int64,
}

PATHS = {
    "return_ahead": "unlabelled_return",
    "reach_below": "unlabelled_below",
    "reach_above": "unlabelled_above",
}
"""Path targets: of the labelled rows, and of the unlabelled ones."""


@dataclass(frozen=True, repr=False)
class TrainingSet:
    """`m` labelled candidates in order of (decided_at, symbol, direction), and `u` windows without labels.

    >>> import numpy as np
    >>> one = TrainingSet.of(
    ...     decision=np.zeros((1, 2)), windows=np.zeros((1, 32, 5)), direction=[1], kind=[1], decided_at=[0],
    ...     known_at=[60_000], outcome=[TARGET], r=[1.2], weight=[1.0], source=[HISTORY], quality=[0.5], symbol=[0],
    ...     symbols=("BTCUSDT",), decision_spec_id="d1", decision_names=("a", "b"),
    ... )
    >>> len(one), bool(one.won[0])
    (1, True)
    """

    decision: NDArray[np.float32]
    """`[m, D]` decision rows."""
    windows: NDArray[np.float32]
    """`[m, W, 5]` windows that end at the decision."""
    direction: NDArray[np.int8]
    """+1 long, -1 short."""
    kind: NDArray[np.uint8]
    """Why it is a candidate: 1 rule signal, 2 event, 3 hunt."""
    decided_at: NDArray[np.int64]
    """Close time of the decision's bar, ms."""
    known_at: NDArray[np.int64]
    """When the outcome was known, ms."""
    outcome: NDArray[np.int8]
    r: NDArray[np.float32]
    """Profit net of costs, in multiples of the initial risk."""
    weight: NDArray[np.float32]
    """Quality times uniqueness times recency (`features.labels.sample_weight`)."""
    source: NDArray[np.uint8]
    quality: NDArray[np.float32]
    symbol: NDArray[np.int32]
    """Index into `symbols`."""
    return_ahead: NDArray[np.float32]
    """Where the price went within the horizon, in ATR (`features.path_targets`), like `reach_below` and `reach_above`,
    how far it went in either direction; NaN where the path is not known."""
    reach_below: NDArray[np.float32]
    reach_above: NDArray[np.float32]
    path_known_at: NDArray[np.int64]
    """When the path was known, ms; 0 where it is not."""
    unlabelled_windows: NDArray[np.float32]
    unlabelled_at: NDArray[np.int64]
    unlabelled_states: NDArray[np.float32]
    """`[u, 8]` what `features.regime_inputs` reads of the decision rows that the windows end at; NaN where unknown."""
    unlabelled_ahead: NDArray[np.int8]
    """`[u]` the regime `HORIZON_MS` later; -1 where the bars do not tell."""
    unlabelled_return: NDArray[np.float32]
    """`[u]` `return_ahead` of the row that the window ends at; so are `unlabelled_below` and `unlabelled_above`."""
    unlabelled_below: NDArray[np.float32]
    unlabelled_above: NDArray[np.float32]
    unlabelled_known_at: NDArray[np.int64]
    """`[u]` `path_known_at` of that row."""
    symbols: tuple[str, ...]
    decision_spec_id: str
    decision_names: tuple[str, ...]

    @classmethod
    def of(cls, **values: Any) -> TrainingSet:
        """A training set from anything array-like, sorted; the unlabelled windows and the paths may be left out."""
        width = np.shape(values["windows"])[1:]
        values.setdefault("unlabelled_windows", np.empty((0, *width)))
        values.setdefault("unlabelled_at", [])
        count = len(values["unlabelled_at"])
        values.setdefault("unlabelled_states", np.full((count, len(STATES)), np.nan))
        values.setdefault("unlabelled_ahead", np.full(count, -1))
        for labelled, unlabelled in PATHS.items():
            values.setdefault(labelled, np.full(len(values["decided_at"]), np.nan))
            values.setdefault(unlabelled, np.full(count, np.nan))
        values.setdefault("path_known_at", np.zeros(len(values["decided_at"])))
        values.setdefault("unlabelled_known_at", np.zeros(count))
        arrays = {name: np.ascontiguousarray(values.pop(name), dtype=kind) for name, kind in TYPES.items()}
        result = cls(
            **arrays,
            symbols=tuple(values.pop("symbols")),
            decision_spec_id=values.pop("decision_spec_id"),
            decision_names=tuple(values.pop("decision_names")),
            **values,
        )
        order = np.lexsort((result.direction, result.symbol, result.decided_at))
        return result.select(order) if (np.diff(order) < 0).any() else result

    def __post_init__(self) -> None:
        rows = len(self.decided_at)
        for name in TYPES:
            expected = len(self.unlabelled_at) if name.startswith("unlabelled") else rows
            if len(getattr(self, name)) != expected:
                raise ValueError(f"{name} has {len(getattr(self, name))} rows, not {expected}")
        if self.decision.shape[1:] != (len(self.decision_names),):
            raise ValueError(f"decision rows are {self.decision.shape[1:]}, the names are {len(self.decision_names)}")
        if (self.known_at < self.decided_at).any():
            raise ValueError("an outcome is known before its decision")

    def __len__(self) -> int:
        return len(self.decided_at)

    def __repr__(self) -> str:
        windows = len(self.unlabelled_at)
        return f"TrainingSet({len(self)} rows, {windows} unlabelled windows, {len(self.symbols)} symbols)"

    @property
    def won(self) -> NDArray[np.bool_]:
        """Target before stop; an expiry counts as not won, whatever its R."""
        return np.asarray(self.outcome == TARGET)

    def select(self, rows: NDArray[Any]) -> TrainingSet:
        """The labelled rows of an index or mask, in its order; the unlabelled windows stay."""
        chosen = {name: getattr(self, name)[rows] for name in TYPES if not name.startswith("unlabelled")}
        return replace(self, **chosen)

    @cached_property
    def data_hash(self) -> str:
        """sha256 of the whole content: names, types, shapes and bytes."""
        digest = hashlib.sha256(repr((self.symbols, self.decision_spec_id, self.decision_names)).encode())
        for name in TYPES:
            values = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.view(np.uint8).data if values.size else b"")
        return digest.hexdigest()

    def to_bytes(self) -> bytes:
        """The set as a compressed npz archive; equal sets give equal bytes."""
        text = {
            "symbols": np.asarray(self.symbols, dtype=np.str_),
            "decision_spec_id": np.asarray(self.decision_spec_id),
            "decision_names": np.asarray(self.decision_names, dtype=np.str_),
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: getattr(self, name) for name in TYPES}, **text)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, what: object = "given") -> TrainingSet:
        """The set in `data`, or `TrainingSetUnreadable`; `what` names it in the message."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                values = {name: stored[name] for name in stored.files}
            for name in ("symbols", "decision_names"):
                values[name] = tuple(str(item) for item in values[name])
            values["decision_spec_id"] = str(values["decision_spec_id"])
            return cls.of(**values)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise TrainingSetUnreadable(what, str(error)) from error

    def save(self, path: str | Path) -> None:
        """Write to `path` atomically: a temporary file, flushed, then renamed."""
        write_atomic(Path(path), self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> TrainingSet:
        """The set stored at `path`, or `TrainingSetUnreadable`."""
        try:
            return cls.from_bytes(Path(path).read_bytes(), path)
        except OSError as error:
            raise TrainingSetUnreadable(path, str(error)) from error


def concatenate(parts: Sequence[TrainingSet]) -> TrainingSet:
    """One set of several of the same DecisionSpec, for example of history and live labels.

    A candidate (symbol, decided_at, direction) that occurs twice is kept once, as the last part has it, so live
    labels given last replace the same candidates found again in history. Unlabelled windows are joined in time.
    Raises `ValueError` when the specifications differ.
    """
    if len({(part.decision_spec_id, part.decision_names) for part in parts}) != 1:
        raise ValueError(f"DecisionSpecs differ: {', '.join(sorted({part.decision_spec_id for part in parts}))}")
    symbols = tuple(sorted({name for part in parts for name in part.symbols}))
    position = {name: index for index, name in enumerate(symbols)}
    joined: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in TYPES}
    joined["symbol"] = np.concatenate(
        [np.asarray([position[name] for name in part.symbols], dtype=np.int32)[part.symbol] for part in parts]
    )
    later_first = np.arange(len(joined["symbol"]))[::-1]
    keys = np.stack([joined[name][later_first] for name in ("decided_at", "symbol", "direction")], axis=1)
    keep = later_first[np.unique(keys, axis=0, return_index=True)[1]]
    in_time = np.argsort(joined["unlabelled_at"], kind="stable")
    for name in TYPES:
        joined[name] = joined[name][in_time if name.startswith("unlabelled") else keep]
    first = parts[0]
    return TrainingSet.of(
        **joined,
        symbols=symbols,
        decision_spec_id=first.decision_spec_id,
        decision_names=first.decision_names,
    )


@dataclass(frozen=True)
class Split:
    """Row numbers in order of time, purged: no outcome of an earlier part is known within a later one."""

    fit: NDArray[np.int64]
    validation: NDArray[np.int64]
    """Stops the training early and calibrates."""
    holdout: NDArray[np.int64]
    """Judges; nothing is fitted to it."""
    validation_start_ms: int
    holdout_start_ms: int


def split_in_time(
    decided_at: NDArray[np.int64],
    known_at: NDArray[np.int64],
    *,
    holdout_start_ms: int,
    validation_fraction: float,
    embargo_ms: int,
) -> Split:
    """Cut rows (ascending in `decided_at`) into fit, validation and holdout.

    The validation part is the last `validation_fraction` of the rows decided before the holdout. A row is
    dropped when its outcome was known later than `embargo_ms` before the next part begins, since windows and
    slow features of that part still look back on it.

    >>> hours = np.arange(100, dtype=np.int64) * 3_600_000
    >>> cut = split_in_time(hours, hours + 3_600_000, holdout_start_ms=80 * 3_600_000, validation_fraction=0.25,
    ...                     embargo_ms=4 * 3_600_000)
    >>> [(int(part[0]), int(part[-1])) for part in (cut.fit, cut.validation, cut.holdout)]
    [(0, 54), (60, 74), (80, 99)]
    """
    before = decided_at[decided_at < holdout_start_ms]
    first = int(len(before) * (1 - validation_fraction))
    validation_start_ms = int(before[first]) if first < len(before) else holdout_start_ms
    early, late = holdout(decided_at, known_at, holdout_start_ms, embargo_ms)
    fit, validation = holdout(decided_at[early], known_at[early], validation_start_ms, embargo_ms)
    return Split(
        fit=early[fit],
        validation=early[validation],
        holdout=late,
        validation_start_ms=validation_start_ms,
        holdout_start_ms=holdout_start_ms,
    )
