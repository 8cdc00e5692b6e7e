"""How good a candidate looks before any model has seen it: five numbers in [0, 1] and their mean.

| dimension | asks | 1 | 0 |
|---|---|---|---|
| `structure` | do the timeframes agree with the trade? | 5m, 15m and 1h all do | all are against it |
| `volume` | is there money behind it? | far more than usual, and flowing its way | little, and against it |
| `volatility` | does it pay, can it be traded? | ATR of four round trips' costs, as usual | dead, a burst, or wild |
| `liquidity` | what holds it, and what draws it on? | a fresh zone behind, a pool ahead | neither anywhere near |
| `reward` | is it worth its risk? | free way for twice the stop's distance | for half of it or less |

In detail, for a long (a short is the mirror image):

- **structure**: the mean over the timeframes of `trend_state` from -1 to 1 and of `ema_21_slope` from -0.1 to 0.1.
- **volume**: the mean of `volume_zscore` from -1 to 2 and of `chaikin_money_flow_20` from -0.2 to 0.2.
- **volatility**: the least of three: `atr_14_fraction` from 0.5 to 4 round trips (dead: costs dominate);
  `volatility_ratio` from 2.25 down to 1.5 (a burst: most of four hours' movement came in the last 40 minutes, and
  stops fill where they can); `atr_14_fraction` from 3 % down to 1 % (wild: the book is thin, slippage is not 1 bp).
- **liquidity**: the mean of what is behind and what is ahead. Behind: the nearer of the bullish order block and the
  bullish gap, from 3 ATR to 0.5 (price inside one counts as far as its middle), a mitigated block or a gap more than
  half filled counting half; without either, how near price stands to the low of its range (1 - `range_position_48`).
  Ahead: the nearest pool of equal highs, from 6 ATR to 2; without one the last swing high, which is a pool of one.
- **reward**: the nearest of the swing high, the equal highs, the bearish order block and the bearish gap, divided by
  the plan's stop distance, from 0.5 to 2. A swing that price has passed is not in the way, a zone that price is in
  leaves no room, and when nothing is in the way there is room.

A dimension does not know what is good about another: a pool a little ahead draws price (`liquidity`) and leaves little
to gain (`reward`). What is unknown (NaN, or a column that the specification does not have) counts as 0.5. Plain
arithmetic on each row by itself, so a batch can be split anyhow.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.barriers import TradePlan
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.errors import SpecInvalid

Column = NDArray[np.float32]
Reader = Callable[[str], Column]

VERSION = 2
"""Raised whenever the same decision rows would give other numbers; part of the `DecisionSpec`'s `id`."""

ROUND_TRIP = 0.0012
"""Fee, spread and slippage of a round trip as a fraction of the price, by which volatility is judged."""

NEUTRAL = np.float32(0.5)
PLAN = TradePlan()

_ONE, _NEVER = np.float32(1), np.float32(np.inf)
_USED = np.float32(0.5)
"""What a mitigated block or a filled gap is worth of a fresh one."""


def dimensions(
    decision: NDArray[np.float32],
    direction: NDArray[np.int8],
    spec: DecisionSpec = DECISION_SPEC,
    plan: TradePlan = PLAN,
) -> dict[str, Column]:
    """Each dimension by its name, float32 [k], for decision rows [k, D] and directions [k].

    `plan` is where stop and target lie: reward is measured against its stop.
    """
    side = np.asarray(direction).astype(np.float32)

    def read(timeframe: str) -> Reader:
        return lambda name: _column(decision, spec, f"{timeframe}.{name}")

    own = read(spec.timeframes[0])
    with np.errstate(invalid="ignore"):
        return {
            "structure": _structure([read(timeframe) for timeframe in spec.timeframes], side),
            "volume": _volume(own, side),
            "volatility": _volatility(own),
            "liquidity": _liquidity(own, side),
            "reward": _reward(own, side, plan),
        }


def quality(
    decision: NDArray[np.float32],
    direction: NDArray[np.int8],
    spec: DecisionSpec = DECISION_SPEC,
    plan: TradePlan = PLAN,
) -> NDArray[np.float32]:
    """The mean of the dimensions, float32 [k] in [0, 1]."""
    total = np.zeros(len(decision), dtype=np.float32)
    parts = dimensions(decision, direction, spec, plan)
    for part in parts.values():
        total += part
    return total / np.float32(len(parts))


def _column(decision: NDArray[np.float32], spec: DecisionSpec, name: str) -> Column:
    """A column, NaN throughout when the specification has none of that name."""
    try:
        return decision[:, spec.index(name)]
    except SpecInvalid:
        return np.full(len(decision), np.nan, dtype=np.float32)


def _scaled(value: Column, worst: float, best: float) -> Column:
    """`value` from [worst, best] to [0, 1], clipped; `best` may be the smaller. NaN becomes neutral."""
    scaled = np.clip((value - np.float32(worst)) / np.float32(best - worst), np.float32(0), _ONE)
    return np.where(np.isnan(scaled), NEUTRAL, scaled)


def _mean(*parts: Column) -> Column:
    total = np.zeros_like(parts[0])
    for part in parts:
        total = total + part
    return np.asarray(total / np.float32(len(parts)))


def _toward(read: Reader, side: Column, above: str, below: str) -> Column:
    """What lies the trade's way: the column `above` for longs, `below` for shorts."""
    return np.where(side > 0, read(above), read(below))


def _level(distance: Column) -> Column:
    """How far it is to a price that has not been passed; infinite when it has, or when there is none."""
    return np.where(distance >= 0, distance, _NEVER)


def _zone(distance: Column) -> Column:
    """How far it is to a zone that is still active, at most its middle; infinite when there is none."""
    return np.where(np.isnan(distance), _NEVER, np.maximum(distance, np.float32(0)))


def _structure(readers: list[Reader], side: Column) -> Column:
    """Agreement of the timeframes, by their last break of structure and by the slope of their average."""
    votes = [_scaled(side * read("trend_state"), -1.0, 1.0) for read in readers]
    slopes = [_scaled(side * read("ema_21_slope"), -0.1, 0.1) for read in readers]
    return _mean(*votes, *slopes)


def _volume(read: Reader, side: Column) -> Column:
    """More volume than usual, and money flowing the trade's way."""
    return _mean(
        _scaled(read("volume_zscore"), -1.0, 2.0),
        _scaled(side * read("chaikin_money_flow_20"), -0.2, 0.2),
    )


def _volatility(read: Reader) -> Column:
    """Neither dead nor in a burst nor wild: the least of the three."""
    atr = read("atr_14_fraction")
    dead = _scaled(atr, 0.5 * ROUND_TRIP, 4.0 * ROUND_TRIP)
    burst = _scaled(read("volatility_ratio"), 2.25, 1.5)
    wild = _scaled(atr, 0.03, 0.01)
    return np.minimum(np.minimum(dead, burst), wild)


def _liquidity(read: Reader, side: Column) -> Column:
    """What holds from behind, and what draws from ahead."""
    block = np.abs(_toward(read, side, "bullish_order_block_distance", "bearish_order_block_distance"))
    gap = np.abs(_toward(read, side, "bullish_gap_distance", "bearish_gap_distance"))
    mitigated = _toward(read, side, "bullish_order_block_mitigated", "bearish_order_block_mitigated")
    filled = _toward(read, side, "bullish_gap_filled", "bearish_gap_filled")
    held = np.maximum(
        np.where(np.isnan(block), 0, _scaled(block, 3.0, 0.5) * np.where(mitigated > 0, _USED, _ONE)),
        np.where(np.isnan(gap), 0, _scaled(gap, 3.0, 0.5) * np.where(filled > NEUTRAL, _USED, _ONE)),
    )
    place = read("range_position_48")
    plain = np.where(side > 0, _scaled(place, 1.0, 0.0), _scaled(place, 0.0, 1.0))
    behind = np.where(np.isnan(block) & np.isnan(gap), plain, held)
    equal = _toward(read, side, "equal_highs_distance", "equal_lows_distance")
    swing = _toward(read, side, "swing_high_distance", "swing_low_distance")
    # A swing that price has passed draws it no more; one that is not known is neutral.
    pool = np.where(equal >= 0, equal, np.where(swing < 0, _NEVER, swing))
    return _mean(behind, _scaled(pool, 6.0, 2.0))


def _reward(read: Reader, side: Column, plan: TradePlan) -> Column:
    """Room to the first level that stands in the way, in units of the plan's stop distance."""
    swing = _toward(read, side, "swing_high_distance", "swing_low_distance")
    equal = _toward(read, side, "equal_highs_distance", "equal_lows_distance")
    block = _toward(read, side, "bearish_order_block_distance", "bullish_order_block_distance")
    gap = _toward(read, side, "bearish_gap_distance", "bullish_gap_distance")
    room = np.minimum(np.minimum(_level(swing), _level(equal)), np.minimum(_zone(block), _zone(gap)))
    # Nothing in the way is room, as long as anything is known of the way.
    known = ~(np.isnan(swing) & np.isnan(equal) & np.isnan(block) & np.isnan(gap))
    risks = np.asarray(room / np.float32(plan.stop_atr), dtype=np.float32)
    return np.where(known, _scaled(risks, 0.5, 2.0), NEUTRAL)
