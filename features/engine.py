"""Runs a specification: through history with `compute`, one wave at a time with `FeatureEngine`.

Both call the same compiled step, so from the same start they agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.compiler import kernels
from features.default import SPEC
from features.errors import BarOutOfOrder, BarsUnusable, StateMismatch
from features.kernels_cache import njit
from features.spec import FeatureSpec
from market.bars import BAR, Bars


def as_bars(bars: Bars) -> Bars:
    """`bars` as the kernels take them (contiguous, writeable); `BarsUnusable` if they are no bars."""
    if not isinstance(bars, np.ndarray) or bars.dtype != BAR or bars.ndim != 1:
        found = getattr(bars, "dtype", type(bars).__name__)
        raise BarsUnusable(f"bars are a one-dimensional array of market.bars.BAR, this is {found}")
    return np.require(bars, requirements=["C", "W"])


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
    if times.size and state[0] > 0 and times[0] <= state[1]:
        raise BarOutOfOrder("this series", 0, int(times[0]), int(state[1]))
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
        if states[row, 0] > 0.0 and bars[i].open_time <= states[row, 1]:
            return i
        seen[row] = mark
    return -1


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
        return self.state[:, 0].astype(np.int64)

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

    def restore(self, state: NDArray[np.float64]) -> None:
        """Continue from a copy of another engine's `state`; `StateMismatch` if it has another shape."""
        if state.shape != self.state.shape or state.dtype != np.float64:
            raise StateMismatch("state", f"{state.dtype}{list(state.shape)}", f"float64{list(self.state.shape)}")
        self.state[:] = state

    def _raise(self, index: int, row: int, open_time: int) -> None:
        if not 0 <= row < len(self.names):
            raise BarsUnusable(f"row {row} is none of the {len(self.names)} series", index)
        if self.state[row, 0] > 0 and open_time <= self.state[row, 1]:
            raise BarOutOfOrder(self.names[row], index, open_time, int(self.state[row, 1]))
        raise BarsUnusable(f"{self.names[row]} has two bars in one wave", index)
