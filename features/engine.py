"""Runs a specification: through history with `compute`, one wave at a time with `FeatureEngine`.

Both call the same compiled step, so from the same start they agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.compiler import kernels
from features.default import SPEC
from features.errors import BarOutOfOrder, BarsUnusable, StateMismatch
from features.kernels_cache import njit
from features.spec import COUNT, HEADER, LAST, ORIGIN, FeatureSpec
from market.bars import BAR, Bars
from market.errors import utc


def as_bars(bars: Bars) -> Bars:
    """`bars` as the kernels take them (contiguous, writeable); `BarsUnusable`, which says why, if they are no bars.

    A bar that does not close after it opens is no bar either. One whose prices cannot be is a missing bar.
    """
    if not isinstance(bars, np.ndarray) or bars.dtype != BAR or bars.ndim != 1:
        raise BarsUnusable(f"bars are a one-dimensional array of market.bars.BAR, but {_unlike_bars(bars)}")
    endless = np.flatnonzero(bars["close_time"] <= bars["open_time"])
    if endless.size:
        raise BarsUnusable("it does not close after it opens", int(endless[0]))
    return np.require(bars, requirements=["C", "W"])


def _unlike_bars(found: object) -> str:
    """What is wrong with something that is not an array of bars."""
    if not isinstance(found, np.ndarray):
        return f"this is a {type(found).__name__}"
    fields, expected = found.dtype.fields, BAR.fields
    if fields is None or expected is None or found.ndim != 1:
        return f"this is {found.dtype}{list(found.shape)}"
    wrong = [f"{name} is missing" for name in expected if name not in fields]
    wrong += [f"{name} is unknown" for name in fields if name not in expected]
    for name in expected:
        if name in fields and fields[name][0] != expected[name][0]:
            wrong.append(f"{name} is {fields[name][0]}, not {expected[name][0]}")
    return "; ".join(wrong) or "its columns are in another order"


def new_state(spec: FeatureSpec = SPEC) -> NDArray[np.float64]:
    """The state of one series before its first bar."""
    return np.zeros(spec.state_size)


def compute(bars: Bars, spec: FeatureSpec = SPEC, state: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """The features of one series through its history, float32 [n, F], each NaN until it is warm.

    `bars` ascend in time. With `state` (from `new_state` or an earlier call) it continues where that
    left off and moves it on, as if both stretches had been one. Raises `BarsUnusable`, which names
    the first bar that is not after the one before it.
    """
    bars = as_bars(bars)
    if state is None:
        state = new_state(spec)
    elif state.shape != (spec.state_size,) or state.dtype != np.float64:
        raise StateMismatch("state", f"{state.dtype}{list(state.shape)}", f"float64[{spec.state_size}]")
    times = bars["open_time"]
    late = np.flatnonzero(np.diff(times) <= 0)
    if late.size:
        at = int(late[0]) + 1
        raise BarOutOfOrder("this series", at, int(times[at]), int(times[at - 1]))
    if times.size and state[COUNT] > 0 and times[0] <= state[LAST]:
        raise BarOutOfOrder("this series", 0, int(times[0]), int(state[LAST]))
    out = np.empty((bars.size, len(spec.names)), dtype=np.float32)
    kernels(spec).run(state, bars, out, np.zeros(len(spec.names)))
    return out


@njit
def _first_late(
    states: NDArray[np.float64], rows: NDArray[np.int64], bars: Bars, seen: NDArray[np.int64], mark: int
) -> int:
    """The first bar whose series does not exist, has another bar in this wave or has a later one behind it; or -1."""
    for i in range(rows.size):
        row = rows[i]
        if row < 0 or row >= states.shape[0] or seen[row] == mark:
            return i
        if states[row, COUNT] > 0.0 and bars[i].open_time <= states[row, LAST]:
            return i
        seen[row] = mark
    return -1


@dataclass(frozen=True)
class NotWarm:
    """Why a series has no complete row yet: wait, or backfill."""

    series: str
    bars: int
    """Bars since its origin."""
    needed: int
    """Bars after which it is warm."""
    origin_ms: int | None
    """open_time of the first of them; None when there was no bar at all."""
    missing: int
    """Bars that were missing before that; 0 when the series had none before."""

    def __str__(self) -> str:
        if self.origin_ms is None:
            return f"{self.series} has had no bar"
        why = f", before which {self.missing} bars were missing" if self.missing else ""
        return f"{self.series} has {self.bars} of {self.needed} bars since {utc(self.origin_ms)}{why}"


class FeatureEngine:
    """The features of many series at once, live.

    `series` is their count or their names. `state` is one float64 matrix [S, spec.state_size]: all that
    the engine remembers, so a copy of it is a checkpoint.
    """

    def __init__(self, series: int | Sequence[str], spec: FeatureSpec = SPEC) -> None:
        if isinstance(series, int):
            series = [f"series {index}" for index in range(series)]
        self.names = tuple(series)
        self.spec = spec
        self.state = np.zeros((len(self.names), spec.state_size))
        self._kernels = kernels(spec)
        self._row = np.zeros(len(spec.names))
        self._seen = np.zeros(len(self.names), dtype=np.int64)
        self._mark = 0

    @property
    def counts(self) -> NDArray[np.int64]:
        """Bars since each series' origin, int64 [S]."""
        return self.state[:, COUNT].astype(np.int64)

    @property
    def origins(self) -> NDArray[np.int64]:
        """open_time of the first bar since each series' origin, int64 [S]; 0 for one that has had none."""
        return self.state[:, ORIGIN].astype(np.int64)

    @property
    def warm(self) -> NDArray[np.bool_]:
        """Which series have every column that a ready row waits for, bool [S]."""
        return np.asarray(self.state[:, COUNT] >= self.spec.ready_warmup)

    def not_warm(self) -> tuple[NotWarm, ...]:
        """Each series that is not `warm`, and why: too few bars since it began, or since it began anew after a gap."""
        found = []
        for row in np.flatnonzero(~self.warm).tolist():
            bars, _, origin, missing = (int(value) for value in self.state[row, :HEADER])
            known = origin if bars else None
            found.append(NotWarm(self.names[row], bars, self.spec.ready_warmup, known, missing))
        return tuple(found)

    def update(self, rows: NDArray[np.int64], bars: Bars) -> NDArray[np.float32]:
        """One closed bar for each of k series: `rows` int64 [k] says which. Returns float32 [k, F].

        Raises `BarsUnusable` or `BarOutOfOrder`, naming the first offender, before anything has changed.
        """
        bars = as_bars(bars)
        rows = np.require(rows, dtype=np.int64, requirements=["C", "W"])
        if rows.shape != bars.shape:
            raise BarsUnusable(f"{rows.size} rows for {bars.size} bars")
        self._mark += 1
        fault = _first_late(self.state, rows, bars, self._seen, self._mark)
        if fault >= 0:
            self._raise(fault, int(rows[fault]), int(bars["open_time"][fault]))
        out = np.empty((rows.size, self._row.size), dtype=np.float32)
        self._kernels.wave(self.state, rows, bars, out, self._row)
        return out

    def extend(self, row: int, bars: Bars, last: int) -> NDArray[np.float32]:
        """A stretch of bars of series `row`; returns the rows of the `last` of them, float32 [min(k, last), F]."""
        return compute(bars, self.spec, self.state[row])[-last:]

    def restore(self, state: NDArray[np.float64]) -> None:
        """Continue from a copy of another engine's `state`; `StateMismatch` if it has another shape."""
        if state.shape != self.state.shape or state.dtype != np.float64:
            raise StateMismatch("state", f"{state.dtype}{list(state.shape)}", f"float64{list(self.state.shape)}")
        self.state[:] = state

    def _raise(self, index: int, row: int, open_time: int) -> None:
        if not 0 <= row < len(self.names):
            raise BarsUnusable(f"row {row} is none of the {len(self.names)} series", index)
        if self.state[row, COUNT] > 0 and open_time <= self.state[row, LAST]:
            raise BarOutOfOrder(self.names[row], index, open_time, int(self.state[row, LAST]))
        raise BarsUnusable(f"{self.names[row]} has two bars in one wave", index)
