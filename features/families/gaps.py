"""Fair-value gaps: prices that a move left behind without trading them on both sides.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `{bullish,bearish}_gap_distance` | (close - middle) / ATR14 of the nearest gap; bearish negated | ATR | ±100 | 268 |
| `{bullish,bearish}_gap_size` | (top - bottom) / ATR14 of that gap | ATR | 0..100 | 268 |
| `{bullish,bearish}_gap_filled` | the part of it that price has traded back through since | fraction | 0..1 | 268 |

All three are NaN while there is no open gap of that side.

A bullish gap is confirmed at the third of three bars, when its low is above the high of the first: the
gap lies between the two. It must be at least `GAP_RANGE` of the usual range (the mean range of 48 bars
when a swing was last confirmed); anything smaller is a tick. Its middle is what ICT calls consequent
encroachment. From the next bar on it is filled from its top as deep as the lowest low has reached;
wholly filled (price trades at its bottom) it is gone, as it is after `ZONE_BARS` bars. Each side keeps
its `GAPS_A_SIDE` newest, and the one whose middle is nearest to the close is reported
(`features.families.slots`). Bearish gaps mirror all that.

Source: ICT's fair-value gap. The middle candle's colour is not asked for: it nearly always follows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit
from features.families.shared import HISTORY
from features.families.slots import BORN, EXPIRY, MIDDLE, NEAREST, USED, ZONE_BARS, place, remove, strayed, survey
from features.families.swings import USUAL_WARMUP
from features.kernels_cache import njit, njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

GAPS_A_SIDE = 4
"""Open gaps that each side keeps."""
GAP_RANGE = 0.1
"""The least size of a gap, in usual ranges."""
GAP_WARMUP = USUAL_WARMUP + ZONE_BARS

# A gap, as `slots` has it: its edges, the lowest low since, the part filled.
BOTTOM, TOP, REACHED, FILLED, SIZE = range(2, 7)

# State of a side: the head of its list, the highest of the lows reached, then the gaps.
HIGHEST_REACHED, SLOTS = range(5, 7)
SIDE_SIZE = SLOTS + GAPS_A_SIDE * SIZE


@njit_inlined
def due(side: Slice, low: float, count: int) -> bool:
    """Whether this bar changes anything about the gaps there are. Always so before the first `renew`."""
    changes: bool = (low < side[HIGHEST_REACHED]) | (count >= side[EXPIRY])
    return changes


@njit
def renew(side: Slice, first_high: float, low: float, close: float, opens: bool, count: int) -> None:
    """What this bar does to the gaps there are, and the gap that it `opens` above `first_high`, if it does."""
    slots = side[SLOTS:]
    used = int(side[USED])
    index = 0
    while index < used:
        at = index * SIZE
        if low <= slots[at + BOTTOM] or count - slots[at + BORN] >= ZONE_BARS:
            remove(slots, SIZE, used, index)
            used -= 1
            continue
        if low < slots[at + REACHED]:
            slots[at + REACHED] = low
            slots[at + FILLED] = (slots[at + TOP] - low) / (slots[at + TOP] - slots[at + BOTTOM])
        index += 1
    if opens:
        used = place(slots, SIZE, used)
        at = used * SIZE
        slots[at + MIDDLE] = (first_high + low) / 2.0
        slots[at + BORN] = count
        slots[at + BOTTOM] = first_high
        slots[at + TOP] = low
        slots[at + REACHED] = low
        slots[at + FILLED] = 0.0
        used += 1
    side[USED] = used
    side[HIGHEST_REACHED] = -np.inf
    for at in range(0, used * SIZE, SIZE):
        side[HIGHEST_REACHED] = max(side[HIGHEST_REACHED], slots[at + REACHED])
    survey(side, slots, SIZE, close)


@njit_inlined
def report(side: Slice, out: Slice, close: float, per_atr: float) -> None:
    """The nearest gap's three values."""
    if side[USED] == 0.0:
        out[0] = out[1] = out[2] = np.nan
    else:
        at = SLOTS + int(side[NEAREST])
        out[0] = in_unit(close - side[at + MIDDLE], per_atr)
        out[1] = in_unit(side[at + TOP] - side[at + BOTTOM], per_atr)
        out[2] = side[at + FILLED]


@njit_inlined
def gaps(
    state: Slice, out: Slice, close: float, per_atr: float, highs: Slice, lows: Slice, usual_range: float, count: int
) -> None:
    """All six. The bearish side is the bullish one in negative prices."""
    last = HISTORY - 1
    high, low, first_high, first_low = highs[last], lows[last], highs[last - 2], lows[last - 2]
    least = GAP_RANGE * usual_range
    opens_up = (low > first_high) & (low - first_high >= least) & (count > 2)
    opens_down = (high < first_low) & (first_low - high >= least) & (count > 2)
    bullish, bearish = state[:SIDE_SIZE], state[SIDE_SIZE:]
    if opens_up | due(bullish, low, count):
        renew(bullish, first_high, low, close, opens_up, count)
    elif strayed(bullish, close):
        survey(bullish, bullish[SLOTS:], SIZE, close)
    if opens_down | due(bearish, -high, count):
        renew(bearish, -first_low, -high, -close, opens_down, count)
    elif strayed(bearish, -close):
        survey(bearish, bearish[SLOTS:], SIZE, -close)
    report(bullish, out[:3], close, per_atr)
    report(bearish, out[3:], -close, per_atr)


GAPS = Family(
    "gaps",
    tuple(
        feature
        for side, distance in (("bullish", "(close - middle)"), ("bearish", "(middle - close)"))
        for feature in (
            Feature(
                f"{side}_gap_distance",
                GAP_WARMUP,
                f"{distance} / ATR14 of the nearest open {side} gap",
                "ATR",
                -100.0,
                100.0,
                nan=True,
                source="ICT",
            ),
            Feature(f"{side}_gap_size", GAP_WARMUP, "(top - bottom) / ATR14", "ATR", 0.0, 100.0, nan=True),
            Feature(f"{side}_gap_filled", GAP_WARMUP, "the part traded back through", "fraction", 0.0, 1.0, nan=True),
        )
    ),
    2 * SIDE_SIZE,
    gaps,
)
