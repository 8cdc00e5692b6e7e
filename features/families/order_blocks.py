"""Order blocks: the last opposite candle before the impulse that broke structure.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `{bullish,bearish}_order_block_distance` | (close - midpoint) / ATR14; bearish negated | ATR | ±100 | 289 |
| `{bullish,bearish}_order_block_age` | bars since the break that confirmed it | bars | 0..159 | 289 |
| `{bullish,bearish}_order_block_mitigated` | 1 if price has come back into it since, else 0 | – | 0, 1 | 289 |

All three are NaN while there is no active block of that side.

A break upwards (`features.families.breaks`) of a swing high confirms a bullish block. Its impulse
starts at the lowest low between the swing's bar and the bar of the break, both left out, the last of
equal ones; the block is the last falling candle (close < open) at or before that low, and not before
the swing's bar. Without such a candle there is no block, and a candle that is the newest active block
already is not one again. The zone is the candle from low to high, its midpoint
`(zone_low + zone_high) / 2`. The distance is positive while price is on the side to which the block
sent it: above the midpoint of a bullish one.

From the next bar on price comes back into it when it trades at its near edge or deeper, and it dies
when a bar closes through its far edge, or after `ZONE_BARS` bars. Each side keeps its `BLOCKS_A_SIDE` newest,
and the one whose midpoint is nearest to the close is reported (`features.families.slots`). Bearish
blocks mirror all that.

Source: ICT's order block; the search from the extreme of the leg as in the usual charting scripts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.breaks import DIRECTION
from features.families.numeric import in_unit
from features.families.shared import HISTORY
from features.families.slots import BORN, EXPIRY, MIDDLE, NEAREST, USED, ZONE_BARS, place, remove, strayed, survey
from features.families.swings import HIGH_AT, LOW_AT, SIDE, SWING_BARS, SWING_WARMUP
from features.kernels_cache import njit, njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BLOCKS_A_SIDE = 4
"""Active blocks that each side keeps."""
# A swing that breaks late can name a candle again that a break before it has named: hence twice SWING_BARS.
BLOCK_WARMUP = SWING_WARMUP + SWING_BARS + SIDE + ZONE_BARS

# A block, as `slots` has it: its zone, the count of its candle's bar, whether price came back.
ZONE_LOW, ZONE_HIGH, CANDLE, MITIGATED, SIZE = range(2, 7)

# State of a side: the head of its list, the close below which a block dies, the low at which one is mitigated,
# then the blocks.
DEADLY, MITIGATING, SLOTS = range(5, 8)
SIDE_SIZE = SLOTS + BLOCKS_A_SIDE * SIZE


@njit
def candle_before(bodies: Slice, sign: float, near: Slice, back: int, count: int) -> int:
    """How many bars ago the impulse's last opposite candle was, `back` being the swing's bar; 0 for none.

    Prices times `sign` are those in which the break was upwards.
    """
    last = HISTORY - 1
    start = back - 1
    for i in range(back - 2, 0, -1):
        if sign * near[last - i] <= sign * near[last - start]:
            start = i
    for i in range(start, back + 1):
        if sign * bodies[(count - 1 - i) % HISTORY] < 0.0:
            return i
    return 0


@njit_inlined
def due(side: Slice, low: float, close: float, count: int) -> bool:
    """Whether this bar changes anything about the blocks there are. Always so before the first `renew`."""
    changes: bool = (low <= side[MITIGATING]) | (close < side[DEADLY]) | (count >= side[EXPIRY])
    return changes


@njit
def renew(side: Slice, low: float, close: float, count: int, zone_low: float, zone_high: float, candle: int) -> None:
    """What this bar does to the blocks there are, and the block that it confirms, if any (`candle` above 0)."""
    slots = side[SLOTS:]
    used = int(side[USED])
    index = 0
    while index < used:
        at = index * SIZE
        if close < slots[at + ZONE_LOW] or count - slots[at + BORN] >= ZONE_BARS:
            remove(slots, SIZE, used, index)
            used -= 1
            continue
        if low <= slots[at + ZONE_HIGH]:
            slots[at + MITIGATED] = 1.0
        index += 1
    if candle > 0 and (used == 0 or slots[(used - 1) * SIZE + CANDLE] != candle):
        used = place(slots, SIZE, used)
        at = used * SIZE
        slots[at + MIDDLE] = (zone_low + zone_high) / 2.0
        slots[at + BORN] = count
        slots[at + ZONE_LOW] = zone_low
        slots[at + ZONE_HIGH] = zone_high
        slots[at + CANDLE] = candle
        slots[at + MITIGATED] = 0.0
        used += 1
    side[USED] = used
    side[DEADLY] = side[MITIGATING] = -np.inf
    for at in range(0, used * SIZE, SIZE):
        side[DEADLY] = max(side[DEADLY], slots[at + ZONE_LOW])
        if slots[at + MITIGATED] == 0.0:
            side[MITIGATING] = max(side[MITIGATING], slots[at + ZONE_HIGH])
    survey(side, slots, SIZE, close)


@njit_inlined
def report(side: Slice, out: Slice, close: float, per_atr: float, count: int) -> None:
    """The nearest block's three values."""
    if side[USED] == 0.0:
        out[0] = out[1] = out[2] = np.nan
    else:
        at = SLOTS + int(side[NEAREST])
        out[0] = in_unit(close - side[at + MIDDLE], per_atr)
        out[1] = count - side[at + BORN]
        out[2] = side[at + MITIGATED]


@njit_inlined
def order_blocks(
    state: Slice,
    out: Slice,
    open_: float,
    close: float,
    per_atr: float,
    highs: Slice,
    lows: Slice,
    last_swings: Slice,
    last_break: Slice,
    count: int,
) -> None:
    """All six. State: the bodies (close - open) of the last bars in a ring, then the two sides.

    The bearish side is the bullish one in negative prices.
    """
    bodies = state[:HISTORY]
    bodies[(count - 1) % HISTORY] = close - open_
    last = HISTORY - 1
    high, low = highs[last], lows[last]
    bullish, bearish = state[HISTORY : HISTORY + SIDE_SIZE], state[HISTORY + SIDE_SIZE :]
    back = 0
    if last_break[DIRECTION] > 0.0:
        back = candle_before(bodies, 1.0, lows, count - int(last_swings[HIGH_AT]) + SIDE, count)
    if back > 0:
        renew(bullish, low, close, count, lows[last - back], highs[last - back], count - back)
    elif due(bullish, low, close, count):
        renew(bullish, low, close, count, 0.0, 0.0, 0)
    elif strayed(bullish, close):
        survey(bullish, bullish[SLOTS:], SIZE, close)
    report(bullish, out[:3], close, per_atr, count)
    back = 0
    if last_break[DIRECTION] < 0.0:
        back = candle_before(bodies, -1.0, highs, count - int(last_swings[LOW_AT]) + SIDE, count)
    if back > 0:
        renew(bearish, -high, -close, count, -highs[last - back], -lows[last - back], count - back)
    elif due(bearish, -high, -close, count):
        renew(bearish, -high, -close, count, 0.0, 0.0, 0)
    elif strayed(bearish, -close):
        survey(bearish, bearish[SLOTS:], SIZE, -close)
    report(bearish, out[3:], -close, per_atr, count)


ORDER_BLOCKS = Family(
    "order_blocks",
    tuple(
        feature
        for side, distance in (("bullish", "(close - midpoint)"), ("bearish", "(midpoint - close)"))
        for feature in (
            Feature(
                f"{side}_order_block_distance",
                BLOCK_WARMUP,
                f"{distance} / ATR14 of the nearest {side} order block",
                "ATR",
                -100.0,
                100.0,
                nan=True,
                source="ICT",
            ),
            Feature(
                f"{side}_order_block_age", BLOCK_WARMUP, "bars since its break", "bars", 0.0, ZONE_BARS - 1.0, nan=True
            ),
            Feature(
                f"{side}_order_block_mitigated", BLOCK_WARMUP, "1 if price came back into it", "", 0.0, 1.0, nan=True
            ),
        )
    ),
    HISTORY + 2 * SIDE_SIZE,
    order_blocks,
)
