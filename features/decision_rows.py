"""The parts of a decision row that are not one series' own, computed alike for a wave and for history.

Everything here is either integer arithmetic, a table, a copy, or a compiled function that takes one
wave at a time, so that the same numbers come out however many rows are computed together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.benchmark_beta import Betas
from features.decision_spec import BETA, CALENDAR, CROSS, CROSS_BASE, FUNDING, DecisionSpec
from features.kernels_cache import njit
from market.bars import DAY_MS, MINUTE_MS

Rows = NDArray[np.float32]
Times = NDArray[np.int64]

HOUR_MS = 60 * MINUTE_MS
MONDAY = 3
"""Days from the Monday before it to 1970-01-01, a Thursday."""


def _circle(size: int) -> Rows:
    """Sine and cosine of `size` equal steps around the circle, float32 [size, 2]."""
    angles = [2 * math.pi * step / size for step in range(size)]
    return np.array([(math.sin(angle), math.cos(angle)) for angle in angles], dtype=np.float32)


_MINUTES = _circle(DAY_MS // MINUTE_MS)
_WEEKDAYS = _circle(7)
SESSIONS = ((0, 9), (8, 17), (13, 22))
"""Hours in UTC from which and before which Asia, London and New York are at work."""
_SESSIONS = np.array([[start <= hour < stop for start, stop in SESSIONS] for hour in range(24)], dtype=np.float32)


def fill_calendar(out: Rows, time_ms: Times, spec: DecisionSpec) -> None:
    """Calendar columns of the moment after each close; `time_ms` int64 [n] or [1]."""
    now = time_ms + 1
    block = out[:, spec.block(CALENDAR[0], len(CALENDAR))]
    block[:, :2] = _MINUTES[now % DAY_MS // MINUTE_MS]
    block[:, 2:4] = _WEEKDAYS[(now // DAY_MS + MONDAY) % 7]
    block[:, 4:] = _SESSIONS[now % DAY_MS // HOUR_MS]


def fill_funding(out: Rows, time_ms: Times, rate: NDArray[np.float64], next_ms: Times, spec: DecisionSpec) -> None:
    """Funding columns; a `next_ms` before `time_ms` means that nothing is known of it."""
    block = out[:, spec.block(FUNDING[0], len(FUNDING))]
    block[:, 0] = np.where(next_ms > time_ms, (next_ms - (time_ms + 1)) / MINUTE_MS, np.nan)
    block[:, 1] = rate


def fill_longer(out: Rows, index: int, rows: Rows, close_time: Times, time_ms: Times, spec: DecisionSpec) -> None:
    """The block of timeframe `index`: its last closed rows and their ages; NaN where there is none or it is stale.

    `close_time` is that of `rows`, negative where there is none.
    """
    timeframe, step = spec.timeframes[index], spec.steps[index]
    age = time_ms - close_time
    known = (close_time >= 0) & (age < spec.stale_after * step)
    block = out[:, spec.timeframe_block(timeframe)]
    block[:] = rows
    block[~known] = np.nan
    out[:, spec.index(f"{timeframe}.age_bars")] = np.where(known, age // spec.steps[0], np.nan)


@njit
def _rank(values: Rows, start: int, stop: int, out: Rows) -> None:
    """Ranks of values[start:stop] among themselves, NaN left out."""
    for i in range(start, stop):
        value = values[i]
        below = 0
        equal = 0
        count = 0
        for j in range(start, stop):
            other = values[j]
            below += other < value
            equal += other == value
            count += other == other
        if np.isnan(value):
            out[i] = np.nan
        elif count == 1:
            out[i] = 0.5
        else:
            out[i] = (below + 0.5 * (equal - 1)) / (count - 1)


@njit
def _cross_section(values: Rows, starts: Times, out: Rows) -> None:
    """Ranks and breadth, [column, row], of the waves that begin at `starts`; its last entry is the number of rows."""
    last = values.shape[0] - 1
    for wave in range(starts.size - 1):
        start = starts[wave]
        stop = starts[wave + 1]
        for column in range(last):
            _rank(values[column], start, stop, out[column])
        above = 0
        count = 0
        for i in range(start, stop):
            above += values[last, i] > 0.0
            count += values[last, i] == values[last, i]
        breadth = above / count if count else np.nan
        for i in range(start, stop):
            out[last, i] = breadth


def fill_cross_section(out: Rows, starts: Times, betas: Betas, spec: DecisionSpec) -> None:
    """Cross-section columns of waves that follow each other in `out`, from its deciding timeframe's columns."""
    first = spec.timeframe_block(spec.timeframes[0]).start
    values = np.ascontiguousarray(out.T[[first + spec.base.index(name) for name in CROSS_BASE]])
    result = np.empty_like(values)
    _cross_section(values, np.require(starts, np.int64, ["C", "W"]), result)
    out[:, spec.block(CROSS[0], len(CROSS))] = result.T
    out[:, spec.block(BETA[0], len(BETA))] = np.stack(betas, axis=1)


def price_atr(rows: Rows, close: NDArray[np.float64], spec: DecisionSpec) -> NDArray[np.float64]:
    """ATR14 of the deciding timeframe in price, from its base `rows`; NaN until warm."""
    return rows[:, spec.base.index("atr_14_fraction")].astype(np.float64) * close


def complete(rows: Rows, spec: DecisionSpec) -> NDArray[np.bool_]:
    """Which base rows have every column that a ready row waits for."""
    return np.asarray(np.isfinite(rows[:, list(spec.required_columns)]).all(axis=1))
