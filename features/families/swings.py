"""Swings: confirmed turning points, and where price stands between them.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `swing_high_distance` | (last confirmed swing high - close) / ATR14 | ATR | ±100 | 160 |
| `swing_low_distance` | (close - last confirmed swing low) / ATR14 | ATR | ±100 | 160 |
| `dealing_range_position` | (close - swing low) / (swing high - swing low), held within 0..1 | fraction | 0..1 | 66 |
| `range_position_48` | (close - low48) / (high48 - low48) | fraction | 0..1 | 48 |

A swing high is a high above those of the three bars on either side of it (above, not equal, on the
older side; equal is allowed on the newer side, so that of equal highs the first counts). It is
reported at the bar that confirms it, three bars later, and it stands until the next one, at most
60 bars: after that the highest high of those bars stands in for it. Lows mirror that.

The dealing range lies between the two. Its lower half is discount, its upper half premium; price
beyond it counts as its edge. A range of no height, or whose high is not above its low (price has run
through both), has position 0.5.

Source: fractals of Williams (1995) with three bars a side; the ranges as ICT draws them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit, wilder_warmup
from features.families.shared import HISTORY
from features.kernels_cache import njit, njit_inlined
from features.spec import Family, Feature, Shared

Slice = NDArray[np.float64]

SIDE = 3
"""Bars on either side of a swing point."""
SWING_BARS = HISTORY - SIDE - 1
"""Bars that a swing stands for, from its confirmation on: all bars since its own are then in the windows."""
SWING_WARMUP = 2 * SIDE + SWING_BARS
"""Bars after which the swing that stands is the same whatever the origin."""
RANGE_BARS = 48
USUAL_WARMUP = RANGE_BARS + SWING_BARS
"""Bars after which `usual_range` is the same whatever the origin."""

# What `last_swings` offers: each last swing's price, and the count of the bar that confirmed it (0: none yet).
HIGH, HIGH_AT, LOW, LOW_AT = range(4)

# State of `extremes`: the extremes so far of the block that is being filled, then for each place in the
# block before it the highest high, and the lowest low, from there to its end.
BLOCK_HIGH, BLOCK_LOW = range(2)
HIGH_FROM = 2
LOW_FROM = HIGH_FROM + RANGE_BARS


@njit_inlined
def last_swings(state: Slice, highs: Slice, lows: Slice, count: int) -> int:
    """The last confirmed swings. One that this bar confirms has `count` as its bar."""
    pivot = HISTORY - 1 - SIDE
    if count > 2 * SIDE:
        high = highs[pivot]
        older = max(highs[pivot - 1], highs[pivot - 2], highs[pivot - 3])
        newer = max(highs[pivot + 1], highs[pivot + 2], highs[pivot + 3])
        if (high > older) & (high >= newer):
            state[HIGH] = high
            state[HIGH_AT] = count
        low = lows[pivot]
        older = min(lows[pivot - 1], lows[pivot - 2], lows[pivot - 3])
        newer = min(lows[pivot + 1], lows[pivot + 2], lows[pivot + 3])
        if (low < older) & (low <= newer):
            state[LOW] = low
            state[LOW_AT] = count
    return 0


@njit_inlined
def stands(confirmed_at: float, count: int) -> bool:
    """Whether a swing confirmed at bar `confirmed_at` (0: none) is still young enough."""
    young: bool = (confirmed_at > 0.0) & (count - confirmed_at < SWING_BARS)
    return young


@njit
def highest(highs: Slice) -> float:
    """The highest of the last SWING_BARS highs."""
    top: float = highs[HISTORY - 1]
    for i in range(HISTORY - SWING_BARS, HISTORY - 1):
        top = max(top, highs[i])
    return top


@njit
def lowest(lows: Slice) -> float:
    """The lowest of the last SWING_BARS lows."""
    bottom: float = lows[HISTORY - 1]
    for i in range(HISTORY - SWING_BARS, HISTORY - 1):
        bottom = min(bottom, lows[i])
    return bottom


@njit_inlined
def extremes(state: Slice, highs: Slice, lows: Slice, count: int) -> tuple[float, float]:
    """The highest high and lowest low of the last RANGE_BARS bars, without looking through them each time.

    Bars are taken in blocks as long as the window. A window is the rest of the block before and the
    start of this one, and the extremes of both are known: van Herk (1992), Gil and Werman (1993).
    """
    place = (count - 1) % RANGE_BARS
    high = highs[HISTORY - 1]
    low = lows[HISTORY - 1]
    if place == 0:
        # The window does not hold this bar yet where it is looked through: it ends one bar earlier.
        top, bottom = highs[HISTORY - 2], lows[HISTORY - 2]
        for i in range(RANGE_BARS):
            top = max(top, highs[HISTORY - 2 - i])
            bottom = min(bottom, lows[HISTORY - 2 - i])
            state[HIGH_FROM + RANGE_BARS - 1 - i] = top
            state[LOW_FROM + RANGE_BARS - 1 - i] = bottom
    else:
        high = max(high, state[BLOCK_HIGH])
        low = min(low, state[BLOCK_LOW])
    state[BLOCK_HIGH] = high
    state[BLOCK_LOW] = low
    if place < RANGE_BARS - 1:
        high = max(high, state[HIGH_FROM + place + 1])
        low = min(low, state[LOW_FROM + place + 1])
    return high, low


@njit_inlined
def swing_features(
    state: Slice, out: Slice, close: float, per_atr: float, last_swings: Slice, highs: Slice, lows: Slice, count: int
) -> None:
    """All four."""
    swing_high = last_swings[HIGH] if stands(last_swings[HIGH_AT], count) else highest(highs)
    swing_low = last_swings[LOW] if stands(last_swings[LOW_AT], count) else lowest(lows)
    out[0] = in_unit(swing_high - close, per_atr)
    out[1] = in_unit(close - swing_low, per_atr)
    out[2] = 0.5
    if swing_high > swing_low:
        out[2] = min(max((close - swing_low) / (swing_high - swing_low), 0.0), 1.0)
    top, bottom = extremes(state, highs, lows, count)
    out[3] = (close - bottom) / (top - bottom) if top > bottom else 0.5


@njit
def mean_range(highs: Slice, lows: Slice) -> float:
    """The mean high - low of the last RANGE_BARS bars: the same to the bit whatever the origin."""
    a = b = c = d = 0.0
    for i in range(HISTORY - RANGE_BARS, HISTORY, 4):
        a += highs[i] - lows[i]
        b += highs[i + 1] - lows[i + 1]
        c += highs[i + 2] - lows[i + 2]
        d += highs[i + 3] - lows[i + 3]
    return ((a + b) + (c + d)) / RANGE_BARS


@njit_inlined
def usual_range(state: Slice, highs: Slice, lows: Slice, last_swings: Slice, count: int) -> float:
    """The mean range when a swing was last confirmed, or of this bar if none of the last swings stands.

    What has to be large enough to count is measured against it. State: its value.
    """
    confirmed = max(last_swings[HIGH_AT], last_swings[LOW_AT])
    if confirmed == count or not stands(confirmed, count):
        state[0] = mean_range(highs, lows)
    usual: float = state[0]
    return usual


SHARED = (
    Shared("last_swings", 4, last_swings, window=4),
    Shared("usual_range", 1, usual_range),
)
"""What the families of structure share."""

SWINGS = Family(
    "swings",
    (
        Feature(
            "swing_high_distance",
            max(wilder_warmup(14), SWING_WARMUP),
            "(last confirmed swing high - close) / ATR14",
            "ATR",
            -100.0,
            100.0,
            version=2,
            source="Williams (1995)",
        ),
        Feature(
            "swing_low_distance",
            max(wilder_warmup(14), SWING_WARMUP),
            "(close - last confirmed swing low) / ATR14",
            "ATR",
            -100.0,
            100.0,
            version=2,
            source="Williams (1995)",
        ),
        Feature(
            "dealing_range_position",
            SWING_WARMUP,
            "(close - swing low) / (swing high - swing low) within 0..1",
            "fraction",
            0.0,
            1.0,
            source="ICT",
        ),
        Feature("range_position_48", RANGE_BARS, "(close - low48) / (high48 - low48)", "fraction", 0.0, 1.0),
    ),
    2 + 2 * RANGE_BARS,
    swing_features,
)
