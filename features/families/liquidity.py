"""Liquidity: equal highs and lows, where stops gather, and the sweeps that take them.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `equal_highs_distance` | (level - close) / ATR14 of the nearest pool above, NaN without one | ATR | 0..100 | 208 |
| `equal_highs_touches` | swings in that pool; 0 when there is none | swings | 0, 2..8 | 208 |
| `equal_lows_distance` | (close - level) / ATR14 of the nearest pool below, NaN without one | ATR | 0..100 | 208 |
| `equal_lows_touches` | swings in that pool; 0 when there is none | swings | 0, 2..8 | 208 |
| `sweep` | +1 lows swept, -1 highs swept at this bar, 0 neither or both | – | -1, 0, 1 | 209 |
| `bars_since_sweep` | bars since a sweep of either side; 96 when it is as old or there is none | bars | 0..96 | 305 |

Each side remembers its last confirmed swings (`features.families.swings`), at most `SLOTS_A_SIDE`, the
oldest dropped first, each for `ZONE_BARS` bars and with a tolerance: `EQUAL_RANGE` of the mean range of
the 48 bars up to its confirmation. A swing high is *taken* by the first bar that trades above it, and
forgotten once one trades above it by more than its tolerance, so that a next high a touch above it still
makes equal highs with it.

A pool is a swing not yet taken with at least one other, taken or not, within its tolerance; its level is
its own, its touches are all of them. It is gone when it is traded beyond. The nearest is the lowest above
price (the highest below, for lows): price never closes beyond one, so distances are never negative.

A sweep of highs is a bar that takes a swing high, whether of a pool or alone, and closes back inside, not
above it; a close above would have been a break. Lows mirror all that.

Source: ICT's liquidity pools and sweeps; the tolerance is a tenth of the usual range as in the usual scripts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit
from features.families.slots import ZONE_BARS, remove
from features.families.swings import HIGH, HIGH_AT, LOW, LOW_AT, RANGE_BARS
from features.kernels_cache import njit, njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

SLOTS_A_SIDE = 8
"""Swings that each side remembers."""
EQUAL_RANGE = 0.1
"""How far apart equal highs may be, in usual ranges (`features.families.swings`)."""
SINCE_BARS = 96
POOL_WARMUP = RANGE_BARS + ZONE_BARS

# A swing: its price, its tolerance, the count of the bar that confirmed it, whether it was taken, and how many
# swings are within its tolerance, itself included.
LEVEL, TOLERANCE, BORN, TAKEN, NEAR, SIZE = range(6)

# State of a side: how many swings there are; the price beyond which, and the count from which on, one of them
# changes; the nearest pool (no touches: none); then the swings.
USED, TRIGGER, EXPIRY, POOL, TOUCHES, SLOTS = range(6)
SIDE_SIZE = SLOTS + SLOTS_A_SIDE * SIZE

# State of the family: the count of the last sweep's bar (0: none yet), then the two sides.
SWEEP_AT, SIDES = range(2)


@njit
def forget(slots: Slice, used: int, index: int) -> None:
    """Take a swing out, also from the pools that it was part of."""
    level = slots[index * SIZE + LEVEL]
    for at in range(0, used * SIZE, SIZE):
        if abs(slots[at + LEVEL] - level) <= slots[at + TOLERANCE]:
            slots[at + NEAR] -= 1.0
    remove(slots, SIZE, used, index)


@njit
def take(slots: Slice, used: int, high: float, close: float, count: int) -> tuple[int, bool]:
    """What this bar does to the swings there are: how many are left, and whether it sweeps one."""
    swept = False
    index = 0
    while index < used:
        at = index * SIZE
        level = slots[at + LEVEL]
        if high > level and slots[at + TAKEN] == 0.0:
            slots[at + TAKEN] = 1.0
            swept = swept or close <= level
        if high > level + slots[at + TOLERANCE] or count - slots[at + BORN] >= ZONE_BARS:
            forget(slots, used, index)
            used -= 1
            continue
        index += 1
    return used, swept


@njit
def add(slots: Slice, used: int, level: float, tolerance: float, count: int) -> int:
    """A new swing; when there is no slot left the oldest goes. How many there are then."""
    if used == SLOTS_A_SIDE:
        forget(slots, used, 0)
        used -= 1
    near = 1.0
    for at in range(0, used * SIZE, SIZE):
        apart = abs(slots[at + LEVEL] - level)
        if apart <= slots[at + TOLERANCE]:
            slots[at + NEAR] += 1.0
        if apart <= tolerance:
            near += 1.0
    at = used * SIZE
    slots[at + LEVEL] = level
    slots[at + TOLERANCE] = tolerance
    slots[at + BORN] = count
    slots[at + TAKEN] = 0.0
    slots[at + NEAR] = near
    return used + 1


@njit
def renew(side: Slice, high: float, close: float, confirmed: bool, level: float, tolerance: float, count: int) -> bool:
    """What this bar does to the swings there are, and the swing that it confirms, if it does; whether it sweeps."""
    slots = side[SLOTS:]
    used, swept = take(slots, int(side[USED]), high, close, count)
    if confirmed:
        used = add(slots, used, level, tolerance, count)
    side[USED] = used
    side[TRIGGER] = np.inf
    side[EXPIRY] = slots[BORN] + ZONE_BARS if used else np.inf
    side[TOUCHES] = 0.0
    for at in range(0, used * SIZE, SIZE):
        if slots[at + TAKEN] != 0.0:
            side[TRIGGER] = min(side[TRIGGER], slots[at + LEVEL] + slots[at + TOLERANCE])
        else:
            side[TRIGGER] = min(side[TRIGGER], slots[at + LEVEL])
            # Untaken highs descend from the oldest to the newest, so the last one found is the nearest.
            if slots[at + NEAR] > 1.0:
                side[POOL] = slots[at + LEVEL]
                side[TOUCHES] = slots[at + NEAR]
    return swept


@njit_inlined
def liquidity(
    state: Slice,
    out: Slice,
    high: float,
    low: float,
    close: float,
    per_atr: float,
    last_swings: Slice,
    usual_range: float,
    count: int,
) -> None:
    """All six. Lows are the highs of negative prices."""
    above, below = state[SIDES : SIDES + SIDE_SIZE], state[SIDES + SIDE_SIZE :]
    new_high, new_low = last_swings[HIGH_AT] == count, last_swings[LOW_AT] == count
    tolerance = EQUAL_RANGE * usual_range
    highs_swept = lows_swept = False
    if new_high | (high > above[TRIGGER]) | (count >= above[EXPIRY]):
        highs_swept = renew(above, high, close, new_high, last_swings[HIGH], tolerance, count)
    if new_low | (-low > below[TRIGGER]) | (count >= below[EXPIRY]):
        lows_swept = renew(below, -low, -close, new_low, -last_swings[LOW], tolerance, count)
    out[0] = in_unit(above[POOL] - close, per_atr) if above[TOUCHES] > 0.0 else np.nan
    out[1] = above[TOUCHES]
    out[2] = in_unit(close + below[POOL], per_atr) if below[TOUCHES] > 0.0 else np.nan
    out[3] = below[TOUCHES]
    out[4] = int(lows_swept) - int(highs_swept)
    if highs_swept or lows_swept:
        state[SWEEP_AT] = count
    out[5] = SINCE_BARS if state[SWEEP_AT] == 0.0 else min(count - state[SWEEP_AT], SINCE_BARS)


LIQUIDITY = Family(
    "liquidity",
    (
        *(
            feature
            for side, distance in (("highs", "(level - close)"), ("lows", "(close - level)"))
            for feature in (
                Feature(
                    f"equal_{side}_distance",
                    POOL_WARMUP,
                    f"{distance} / ATR14 of the nearest pool of equal {side}",
                    "ATR",
                    0.0,
                    100.0,
                    nan=True,
                    source="ICT",
                ),
                Feature(
                    f"equal_{side}_touches", POOL_WARMUP, "swings in that pool", "swings", 0.0, float(SLOTS_A_SIDE)
                ),
            )
        ),
        Feature("sweep", POOL_WARMUP + 1, "+1 lows swept, -1 highs swept", "", -1.0, 1.0, source="ICT"),
        Feature("bars_since_sweep", POOL_WARMUP + 1 + SINCE_BARS, "bars since a sweep", "bars", 0.0, float(SINCE_BARS)),
    ),
    1 + 2 * SIDE_SIZE,
    liquidity,
)
