"""Pools of liquidity: the levels beyond which stops rest, how good each looks, and when price comes for one.

`levels` gives the next pool below and above price. With `HuntSettings` it is read from structure and scored; without
them, or from rows that have no structure columns, it is the plain level of the price range.

**A pool of structure**, below (above is the mirror image), lies at the equal lows, or at the last swing low where there
are none or where it is nearer by more than half an ATR. Its score is the mean of the parts that are known:

| part | 1 means | 0 means | unknown |
|---|---|---|---|
| `touches` | four swings ended there; a quarter for each | – | never |
| `block` | the middle of a fresh bullish order block is there; half for a mitigated one | none within 2 ATR | never |
| `path` | no high-volume node between price and the pool: thin volume | a node right at price | no volume |
| `edge` | at or beyond the value area's lower edge, where little is traded | 2 ATR or more inside | no volume |
| `reach` | the liquidity model is sure that price gets there | sure that it does not | no model |

**A plain level** lies at the last swing low; its score is how near to the low of the last 48 bars price stands
(1 - `range_position_48`).

**A hunt** is a trade at a pool of structure that the close has within `tolerance` (a fraction of price) and whose score
is at least `threshold`. For a pool below (above is the mirror image):

- *About to be swept*: the bar came there from further away than that. Price is drawn to the stops, so the trade goes
  with it into them: short.
- *Swept*: the bar took that side's lows and closed back above them. The stops are gone, and whoever wanted them has
  bought: long, as ICT has it. A bar that is both counts as this.

Everything is plain arithmetic on each row by itself, so history and live agree and a batch can be split anyhow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.hunt_settings import HuntSettings as HuntSettings
from features.reach import Reach as Reach
from features.reach import chance_of_reaching

Column = NDArray[np.float32]

VERSION = 2
"""Raised whenever the same decision rows would give other pools, scores or hunts; bundles record it."""

NONE, RANGE, STRUCTURE = 0, 1, 2
"""`Pools.source`: no pool, a plain level of the price range, one of structure."""

SOURCE = {NONE: "none", RANGE: "range", STRUCTURE: "structure"}
"""Their names."""

FULL_TOUCHES = np.float32(4)
SAME_POOL_ATR = np.float32(0.5)
"""A swing that is nearer than the equal ones by no more than this is of their pool."""
BLOCK_ATR = np.float32(2)
MITIGATED = np.float32(0.5)
EDGE_ATR = np.float32(2)

_BELOW = ("equal_lows", "swing_low_distance", "bullish_order_block", "profile_node_below_distance", "profile_value_low")
_ABOVE = (
    "equal_highs",
    "swing_high_distance",
    "bearish_order_block",
    "profile_node_above_distance",
    "profile_value_high",
)


class Pools(NamedTuple):
    """The next pool on one side of price, for each of `k` rows."""

    distance: Column
    """[k] ATR from the close to it, >= 0; NaN where there is none."""
    score: Column
    """[k] 0 to 1; NaN where there is none."""
    source: NDArray[np.uint8]
    """[k] `NONE`, `RANGE` or `STRUCTURE`."""
    parts: Mapping[str, Column]
    """Each part of the score, [k], NaN where it is not known; empty for plain levels."""


class Levels(NamedTuple):
    """The pools on both sides."""

    below: Pools
    """Sell-side liquidity: the stops of those who are long."""
    above: Pools
    """Buy-side liquidity: the stops of those who are short."""


def levels(
    decision: NDArray[np.float32],
    spec: DecisionSpec = DECISION_SPEC,
    hunting: HuntSettings | None = None,
    reach: Reach | None = None,
) -> Levels:
    """The pools below and above, for decision rows [k, D]; of structure with `hunting`, else of the price range.

    `reach` is what the bundle's liquidity model says of the same rows, None without one: that part of the scores is
    then left out.
    """
    if hunting is None or not _has_structure(spec):
        return Levels(_plain(decision, spec, 1.0), _plain(decision, spec, -1.0))
    return Levels(_structural(decision, spec, 1.0, reach), _structural(decision, spec, -1.0, reach))


def hunts(
    decision: NDArray[np.float32], spec: DecisionSpec, hunting: HuntSettings, reach: Reach | None = None
) -> NDArray[np.bool_]:
    """Which rows [k, 2] have a pool to hunt, long and short."""
    if not _has_structure(spec):
        return np.zeros((len(decision), 2), dtype=np.bool_)
    found = levels(decision, spec, hunting, reach)
    coming_below, swept_below = _at_pool(decision, spec, hunting, found.below, 1.0)
    coming_above, swept_above = _at_pool(decision, spec, hunting, found.above, -1.0)
    return np.stack([coming_above | swept_below, coming_below | swept_above], axis=1)


def _at_pool(
    decision: NDArray[np.float32], spec: DecisionSpec, hunting: HuntSettings, pools: Pools, side: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that come for the pool of one side (`side` 1 below, -1 above), and rows that have swept it."""
    column = _reader(decision, spec)
    atr, move = column("atr_14_fraction"), np.float32(side) * column("bar_close_move")
    tolerance = np.float32(hunting.tolerance)
    with np.errstate(invalid="ignore"):
        near = (pools.distance * atr <= tolerance) & (pools.score >= np.float32(hunting.threshold))
        came = (pools.distance - move) * atr > tolerance
        swept = column("sweep") == np.float32(side)
    return np.asarray(near & came & ~swept), np.asarray(near & swept)


def _has_structure(spec: DecisionSpec) -> bool:
    names = set(spec.base.names)
    return {"equal_lows_touches", "bullish_order_block_mitigated", "profile_node_below_distance", "sweep"} <= names


def _reader(decision: NDArray[np.float32], spec: DecisionSpec) -> Callable[[str], Column]:
    """The columns of the deciding timeframe by name."""
    return lambda name: decision[:, spec.index(f"{spec.timeframes[0]}.{name}")]


def _plain(decision: NDArray[np.float32], spec: DecisionSpec, side: float) -> Pools:
    """The swing, scored by where price stands in its range."""
    column = _reader(decision, spec)
    distance = column("swing_low_distance" if side > 0 else "swing_high_distance")
    place = column("range_position_48")
    score = np.float32(1) - place if side > 0 else place.copy()
    with np.errstate(invalid="ignore"):
        known = (distance >= 0) & np.isfinite(score)
    return _pools(distance, score, known, RANGE, {})


def _structural(decision: NDArray[np.float32], spec: DecisionSpec, side: float, reach: Reach | None) -> Pools:
    """The equal lows or the swing low (highs above), with all parts of its score."""
    column = _reader(decision, spec)
    equal, swing_name, block, node_name, edge = _BELOW if side > 0 else _ABOVE
    equals, swing = column(f"{equal}_distance"), column(swing_name)
    with np.errstate(invalid="ignore"):
        ahead = swing >= 0
        joined = (equals >= 0) & ~(ahead & (swing < equals - SAME_POOL_ATR))
        distance = np.where(joined, equals, swing)
        known = joined | ahead
        parts = {
            "touches": np.where(
                joined, np.minimum(column(f"{equal}_touches") / FULL_TOUCHES, np.float32(1)), 1 / FULL_TOUCHES
            ),
            "block": _block(distance, column(f"{block}_distance"), column(f"{block}_mitigated")),
            # Profile distances are signed by where the level is, ours by the side.
            "path": _path(distance, np.float32(-side) * column(node_name), column("profile_poc_distance")),
            "edge": _unit(np.float32(1) - (np.float32(-side) * column(f"{edge}_distance") - distance) / EDGE_ATR),
        }
        if reach is not None:
            parts["reach"] = chance_of_reaching(distance, reach.quantiles, reach.below if side > 0 else reach.above)
    return _pools(distance, _mean(parts), known, STRUCTURE, parts)


def _pools(
    distance: Column, score: Column, known: NDArray[np.bool_], source: int, parts: Mapping[str, Column]
) -> Pools:
    """Pools where they are `known`, none elsewhere."""
    unknown = np.float32(np.nan)
    return Pools(
        np.where(known, distance, unknown),
        np.where(known, score, unknown),
        np.where(known, source, NONE).astype(np.uint8),
        {name: np.where(known, part, unknown) for name, part in parts.items()},
    )


def _unit(values: Column) -> Column:
    """Held within 0..1; NaN stays."""
    return np.asarray(np.clip(values, np.float32(0), np.float32(1)))


def _block(distance: Column, block: Column, mitigated: Column) -> Column:
    """How near the order block is to the pool; 0 without one."""
    near = _unit(np.float32(1) - np.abs(block - distance) / BLOCK_ATR)
    fresh = np.where(mitigated > 0, MITIGATED, np.float32(1))
    return np.where(np.isnan(near), np.float32(0), near * fresh)


def _path(distance: Column, node: Column, control: Column) -> Column:
    """The share of the way to the pool that is free of high-volume nodes; all of it when there is none."""
    share = _unit(np.asarray(node / np.maximum(distance, np.float32(1e-6)), dtype=np.float32))
    free = np.where(np.isnan(node), np.float32(1), share)
    # Without a point of control there was no volume at all.
    return np.where(np.isnan(control), np.float32(np.nan), free)


def _mean(parts: Mapping[str, Column]) -> Column:
    """The mean of what is known, row by row, in the parts' order."""
    size = len(next(iter(parts.values())))
    total, count = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    for part in parts.values():
        known = ~np.isnan(part)
        total += np.where(known, part, np.float32(0))
        count += known
    return np.asarray(total / np.maximum(count, np.float32(1)), dtype=np.float32)
