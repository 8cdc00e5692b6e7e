"""Structure: confirmed swing points and where price stands in its range.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `swing_high_distance` | (last confirmed swing high - close) / ATR14 | ATR | ±100 | 160 |
| `swing_low_distance` | (close - last confirmed swing low) / ATR14 | ATR | ±100 | 160 |
| `range_position_48` | (close - low48) / (high48 - low48) | fraction | 0..1 | 48 |

A swing high is a high above those of the three bars on either side of it (above, not equal, on the
older side; equal is allowed on the newer side, so that of equal highs the first counts). It is
reported at the bar that confirms it, three bars later, and it holds until the next one, at most 64
bars: after that the highest high of those 64 bars stands in for it. Lows mirror that. A range of
no height has position 0.5.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_atr, wilder_warmup
from features.families.shared import HISTORY
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]

SIDE = 3
"""Bars on either side of a swing point."""
RANGE_BARS = 48

# State of `structure`: each swing's price, and the count of the bar that confirmed it (0: none yet).
HIGH, HIGH_AT, LOW, LOW_AT = range(4)


@njit
def is_top(values: Slice, sign: float) -> bool:
    """Whether the bar `SIDE` bars ago is a swing high (sign 1) or low (sign -1)."""
    pivot = HISTORY - 1 - SIDE
    level = sign * values[pivot]
    top = True
    for i in range(1, SIDE + 1):
        top = top and sign * values[pivot - i] < level and sign * values[pivot + i] <= level
    return top


@njit
def structure(state: Slice, out: Slice, close: float, atr: float, highs: Slice, lows: Slice, count: int) -> None:
    """All three."""
    if count > 2 * SIDE:
        if is_top(highs, 1.0):
            state[HIGH] = highs[HISTORY - 1 - SIDE]
            state[HIGH_AT] = count
        if is_top(lows, -1.0):
            state[LOW] = lows[HISTORY - 1 - SIDE]
            state[LOW_AT] = count
    top = highs[HISTORY - 1]
    bottom = lows[HISTORY - 1]
    for i in range(HISTORY - RANGE_BARS, HISTORY):
        top = max(top, highs[i])
        bottom = min(bottom, lows[i])
    out[2] = (close - bottom) / (top - bottom) if top > bottom else 0.5
    for i in range(HISTORY - RANGE_BARS):
        top = max(top, highs[i])
        bottom = min(bottom, lows[i])
    swing_high = state[HIGH] if state[HIGH_AT] > 0.0 and count - state[HIGH_AT] < HISTORY else top
    swing_low = state[LOW] if state[LOW_AT] > 0.0 and count - state[LOW_AT] < HISTORY else bottom
    out[0] = in_atr(swing_high - close, atr)
    out[1] = in_atr(close - swing_low, atr)


STRUCTURE = Family(
    "structure",
    (
        Feature(
            "swing_high_distance",
            wilder_warmup(14),
            "(last confirmed swing high - close) / ATR14",
            "ATR",
            -100.0,
            100.0,
        ),
        Feature(
            "swing_low_distance", wilder_warmup(14), "(close - last confirmed swing low) / ATR14", "ATR", -100.0, 100.0
        ),
        Feature("range_position_48", RANGE_BARS, "(close - low48) / (high48 - low48)", "fraction", 0.0, 1.0),
    ),
    4,
    structure,
)
