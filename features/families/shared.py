"""Intermediates that several families need, computed once per bar.

| name | value |
|---|---|
| `previous_close`, `previous_high`, `previous_low` | of the bar before; at the origin this bar's open, high, low |
| `clock` | bars of the clock since 1970 (UTC) at this one: open_time // interval |
| `typical` | (high + low + close) / 3 |
| `change` | close / previous close - 1 |
| `per_close` | 1 / close |
| `per_range` | 1 / (high - low); 0 for a bar without range |
| `wilder_14` | the weight of this bar in Wilder's averages over 14 bars: 1/14, more while there are fewer |
| `atr` | Wilder's average true range over 14 bars; the first bar's range until there is a true range |
| `per_atr` | 1 / atr; 0 while the ATR is no more than rounding (1e-12) of the close, so nothing is measured in it |
| `close_spread` | of the last 20 closes: mean, sum of squared deviations, sum of deviations times time |
| `highs`, `lows` | those of the last `HISTORY` bars, oldest first, this one last |

A window is kept twice, one copy behind the other, so that its last `HISTORY` values always lie side
by side in order; before the origin they are 0. What is asked of a window costs its length each bar:
sums, spreads and extremes come cheaper from `rolling`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families import rolling
from features.families.numeric import NEGLIGIBLE, RECIPROCALS, ratio
from features.families.rolling import SPREAD_IN_TIME, rolling_spread
from features.kernels_cache import njit_inlined
from features.spec import Shared

HISTORY = 64
"""Bars that the windows hold."""
WILDER_BARS = 14
SPREAD_BARS = 20
"""Bars of `close_spread`."""

Slice = NDArray[np.float64]


@njit_inlined
def previous_close(state: Slice, open_: float, close: float, count: int) -> float:
    """State: the last close."""
    before = open_ if count == 1 else state[0]
    state[0] = close
    return before


@njit_inlined
def previous_high(state: Slice, high: float, count: int) -> float:
    """State: the last high."""
    before = high if count == 1 else state[0]
    state[0] = high
    return before


@njit_inlined
def previous_low(state: Slice, low: float, count: int) -> float:
    """State: the last low."""
    before = low if count == 1 else state[0]
    state[0] = low
    return before


@njit_inlined
def clock(state: Slice, open_time: int, interval: int) -> int:
    """The number of this bar by the clock."""
    return open_time // interval


@njit_inlined
def typical(state: Slice, high: float, low: float, close: float) -> float:
    """The typical price of this bar."""
    return (high + low + close) * (1.0 / 3.0)


@njit_inlined
def change(state: Slice, close: float, previous_close: float) -> float:
    """The return of this bar, exactly 0 when the close has not moved."""
    return (close - previous_close) / previous_close


@njit_inlined
def per_close(state: Slice, close: float) -> float:
    """The reciprocal of this bar's close."""
    return 1.0 / close


@njit_inlined
def per_range(state: Slice, high: float, low: float) -> float:
    """The reciprocal of this bar's range."""
    return ratio(1.0, high - low)


@njit_inlined
def wilder_14(state: Slice, count: int) -> float:
    """The weight of this bar: a plain mean of the first 14 differences between bars, then 1/14."""
    return RECIPROCALS[min(max(count - 1, 1), WILDER_BARS)]


@njit_inlined
def atr(state: Slice, high: float, low: float, previous_close: float, wilder_14: float, count: int) -> float:
    """Average true range. State: its value. Source: Wilder (1978), seeded with the mean of the first 14."""
    if count == 1:
        return high - low
    true_range = max(high, previous_close) - min(low, previous_close)
    average: float = state[0] + (true_range - state[0]) * wilder_14
    state[0] = average
    return average


@njit_inlined
def per_atr(state: Slice, atr: float, close: float) -> float:
    """The reciprocal of the ATR: one division for all that is measured in it."""
    return 1.0 / atr if atr > NEGLIGIBLE * close else 0.0


@njit_inlined
def close_spread(state: Slice, close: float, count: int) -> int:
    """Mean and spread of 20 closes, and how they go with time. State: the three, then their window."""
    phase = (count - 1) % SPREAD_BARS
    rolling_spread(state[SPREAD_IN_TIME:], state[:SPREAD_IN_TIME], phase, SPREAD_BARS, SPREAD_IN_TIME, close)
    return 0


@njit_inlined
def push(state: Slice, value: float, count: int) -> int:
    """Put `value` into the doubled ring `state`; returns where its last HISTORY values begin."""
    at = (count - 1) % HISTORY
    state[at] = value
    state[at + HISTORY] = value
    return at + 1


@njit_inlined
def highs(state: Slice, high: float, count: int) -> int:
    """The window of highs."""
    return push(state, high, count)


@njit_inlined
def lows(state: Slice, low: float, count: int) -> int:
    """The window of lows."""
    return push(state, low, count)


SHARED = (
    Shared("previous_close", 1, previous_close),
    Shared("previous_high", 1, previous_high),
    Shared("previous_low", 1, previous_low),
    Shared("clock", 0, clock),
    Shared("typical", 0, typical),
    Shared("change", 0, change),
    Shared("per_close", 0, per_close),
    Shared("per_range", 0, per_range),
    Shared("wilder_14", 0, wilder_14),
    Shared("atr", 1, atr, version=2),
    Shared("per_atr", 0, per_atr),
    Shared(
        "close_spread",
        SPREAD_IN_TIME + rolling.state_size(SPREAD_BARS, SPREAD_IN_TIME),
        close_spread,
        window=SPREAD_IN_TIME,
    ),
    Shared("highs", 2 * HISTORY, highs, window=HISTORY),
    Shared("lows", 2 * HISTORY, lows, window=HISTORY),
)
"""What a specification offers its families."""
