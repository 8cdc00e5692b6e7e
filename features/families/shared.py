"""Intermediates that several families need, computed once per bar.

| name | value |
|---|---|
| `previous_close` | the close before this bar; its own open at the origin |
| `atr` | Wilder's average true range over 14 bars; the first bar's range until there is a true range |
| `highs`, `lows`, `closes`, `volumes` | the last `HISTORY` bars, oldest first, this one last; 0 before the origin |

A window is kept twice, one copy behind the other, so that its last `HISTORY` values always lie side
by side in order. Sums over it are taken afresh each bar, in the same order whatever the origin, and
cannot drift.
"""

from __future__ import annotations

from typing import Any

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
def push(state: Slice, value: float, count: int) -> Any:
    """Put `value` into the doubled ring `state` and return its last HISTORY values, oldest first."""
    at = (count - 1) % HISTORY
    state[at] = value
    state[at + HISTORY] = value
    return state[at + 1 : at + 1 + HISTORY]


@njit
def highs(state: Slice, high: float, count: int) -> Any:
    """The window of highs."""
    return push(state, high, count)


@njit
def lows(state: Slice, low: float, count: int) -> Any:
    """The window of lows."""
    return push(state, low, count)


@njit
def closes(state: Slice, close: float, count: int) -> Any:
    """The window of closes."""
    return push(state, close, count)


@njit
def volumes(state: Slice, volume: float, count: int) -> Any:
    """The window of volumes."""
    return push(state, volume, count)


SHARED = (
    Shared("previous_close", 1, previous_close),
    Shared("atr", 1, atr, (("period", ATR_PERIOD),)),
    Shared("highs", 2 * HISTORY, highs),
    Shared("lows", 2 * HISTORY, lows),
    Shared("closes", 2 * HISTORY, closes),
    Shared("volumes", 2 * HISTORY, volumes),
)
"""What a specification offers its families."""
