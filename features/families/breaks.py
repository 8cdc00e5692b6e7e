"""Breaks: which way structure was last broken, and whether that went on with the trend or against it.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `trend_state` | direction of the last break, 0 when there was none in the last 160 bars | – | -1, 0, 1 | 226 |
| `break_of_structure` | direction of a break at this bar that goes with the trend, else 0 | – | -1, 0, 1 | 227 |
| `change_of_character` | direction of a break at this bar that goes against the trend, else 0 | – | -1, 0, 1 | 227 |
| `bars_since_break` | bars since the last break; 160 when it is as old or there is none | bars | 0..160 | 226 |

A break upwards is a close above the last confirmed swing high (`features.families.swings`; one that
this very bar confirms already is the last), if that still stands and no close has broken it before:
a swing is broken once. A wick beyond it is no break, it is a sweep. Breaks downwards mirror that,
and no bar can break both ways, for price would have to close both above and below.

The trend is what it was at the bar before. A break without a trend begins one and counts as a break
of structure, as in the usual charting scripts.

Source: ICT's market structure, with closes, as smart-money-concepts scripts draw it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.swings import HIGH, HIGH_AT, LOW, LOW_AT, SWING_WARMUP, stands
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature, Shared

Slice = NDArray[np.float64]

TREND_BARS = 160
"""Bars for which a break makes the trend."""
TREND_WARMUP = SWING_WARMUP + TREND_BARS

# What `last_break` offers: the direction of a break at this bar (0: none), the trend before this bar and with
# it, and the count of the last break's bar (0: none yet). Behind that, the swings last broken, by their bar.
DIRECTION, BEFORE, TREND, BREAK_AT, BROKEN_HIGH, BROKEN_LOW = range(6)


@njit_inlined
def last_break(state: Slice, close: float, last_swings: Slice, count: int) -> int:
    """The break of this bar and the trend."""
    before = state[TREND]
    if count - 1 - state[BREAK_AT] >= TREND_BARS:
        before = 0.0
    direction = 0.0
    above, below = close > last_swings[HIGH], close < last_swings[LOW]
    if above & (last_swings[HIGH_AT] != state[BROKEN_HIGH]) & stands(last_swings[HIGH_AT], count):
        direction = 1.0
        state[BROKEN_HIGH] = last_swings[HIGH_AT]
    elif below & (last_swings[LOW_AT] != state[BROKEN_LOW]) & stands(last_swings[LOW_AT], count):
        direction = -1.0
        state[BROKEN_LOW] = last_swings[LOW_AT]
    if direction != 0.0:
        state[TREND] = direction
        state[BREAK_AT] = count
    elif count - state[BREAK_AT] >= TREND_BARS:
        state[TREND] = 0.0
    state[DIRECTION] = direction
    state[BEFORE] = before
    return 0


@njit_inlined
def break_features(state: Slice, out: Slice, last_break: Slice, count: int) -> None:
    """All four. No state of its own."""
    against = last_break[DIRECTION] * last_break[BEFORE] < 0.0
    out[0] = last_break[TREND]
    out[1] = 0.0 if against else last_break[DIRECTION]
    out[2] = last_break[DIRECTION] if against else 0.0
    out[3] = TREND_BARS if last_break[BREAK_AT] == 0.0 else min(count - last_break[BREAK_AT], TREND_BARS)


SHARED = (Shared("last_break", 6, last_break, window=6),)
"""What the families of structure share."""

BREAKS = Family(
    "breaks",
    (
        Feature("trend_state", TREND_WARMUP, "direction of the last break", "", -1.0, 1.0, source="ICT"),
        Feature("break_of_structure", TREND_WARMUP + 1, "a close beyond a swing with the trend", "", -1.0, 1.0),
        Feature("change_of_character", TREND_WARMUP + 1, "a close beyond a swing against the trend", "", -1.0, 1.0),
        Feature("bars_since_break", TREND_WARMUP, "bars since the last break", "bars", 0.0, TREND_BARS),
    ),
    0,
    break_features,
)
