"""Intermediates that several families need, computed once per bar.

| name | value |
|---|---|
| `previous_close` | the close before this bar; its own open at the origin |
| `atr` | Wilder's average true range over 14 bars; the first bar's range until there is a true range |
| `highs`, `lows`, `closes`, `volumes` | those of the last `HISTORY` bars, oldest first, this one last |
| `ranges`, `typicals` | high - low and (high + low + close) / 3 of the same bars |

A window is kept twice, one copy behind the other, so that its last `HISTORY` values always lie side
by side in order; before the origin they are 0. Sums over it are taken afresh each bar, in the same
order whatever the origin, and cannot drift.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import wilder_next
from features.kernels_cache import njit
from features.spec import Shared

HISTORY = 64
"""Bars that the windows hold."""
ATR_PERIOD = 14

Slice = NDArray[np.float64]


@njit
def previous_close(state: Slice, open_: float, close: float, count: int) -> float:
    """State: the last close."""
    before = open_ if count == 1 else state[0]
    state[0] = close
    return before


@njit
def atr(state: Slice, high: float, low: float, previous_close: float, count: int, period: int) -> float:
    """Average true range. State: its value. Source: Wilder (1978), seeded with the mean of the first `period`."""
    if count == 1:
        return high - low
    true_range = max(high, previous_close) - min(low, previous_close)
    average = wilder_next(true_range, state[0], period, count - 1)
    state[0] = average
    return average


@njit
def push(state: Slice, value: float, count: int) -> int:
    """Put `value` into the doubled ring `state`; returns where its last HISTORY values begin."""
    at = (count - 1) % HISTORY
    state[at] = value
    state[at + HISTORY] = value
    return at + 1


@njit
def highs(state: Slice, high: float, count: int) -> int:
    """The window of highs."""
    return push(state, high, count)


@njit
def lows(state: Slice, low: float, count: int) -> int:
    """The window of lows."""
    return push(state, low, count)


@njit
def closes(state: Slice, close: float, count: int) -> int:
    """The window of closes."""
    return push(state, close, count)


@njit
def ranges(state: Slice, high: float, low: float, count: int) -> int:
    """The window of high - low."""
    return push(state, high - low, count)


@njit
def typicals(state: Slice, high: float, low: float, close: float, count: int) -> int:
    """The window of typical prices."""
    return push(state, (high + low + close) / 3.0, count)


@njit
def volumes(state: Slice, volume: float, count: int) -> int:
    """The window of volumes."""
    return push(state, volume, count)


SHARED = (
    Shared("previous_close", 1, previous_close),
    Shared("atr", 1, atr, (("period", ATR_PERIOD),)),
    Shared("highs", 2 * HISTORY, highs, window=HISTORY),
    Shared("lows", 2 * HISTORY, lows, window=HISTORY),
    Shared("closes", 2 * HISTORY, closes, window=HISTORY),
    Shared("ranges", 2 * HISTORY, ranges, window=HISTORY),
    Shared("typicals", 2 * HISTORY, typicals, window=HISTORY),
    Shared("volumes", 2 * HISTORY, volumes, window=HISTORY),
)
"""What a specification offers its families."""
