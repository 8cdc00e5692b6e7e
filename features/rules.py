"""The plain rule strategy, as ICT reads a chart: with structure, from a discount, when price turns back.

A signal needs all of these at the close of a 5m bar (long; short is the mirror image):

| asks | reading |
|---|---|
| is the trend up? | `15m.trend_state` is 1: the quarter-hours last broke structure upwards |
| is the longer one against it? | `1h.trend_state` is not -1; none, or unknown, is allowed |
| has price come back? | it stands in the discount, `15m.dealing_range_position` < 0.5, or at a zone (below) |
| has it turned, at this bar? | one of the three confirmations below |
| does it pay? | `5m.atr_14_fraction` > 0.0016: the costs of a round trip are at most half of a stop of 1.5 ATR |

A zone is a bullish order block or a bullish gap of 5m whose middle is within 0.5 ATR of the close. A confirmation is

- a sweep: lows were taken and reclaimed (`5m.sweep` is 1);
- a change of character: structure of 5m broken upwards out of a downtrend (`5m.change_of_character` is 1);
- displacement: the move of three bars is a full ATR of bodies (`5m.displacement` >= 1), and this bar is of it, with
  `5m.bar_close_move` > 0.5 and `5m.body_fraction` > 0.5.

Where a reading that is asked for is NaN it does not hold. The limits are round numbers of the method and of the costs,
not fitted to anything: alone the rules are a proposal, and what they are worth the win model says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec

VERSION = 2
"""Raised whenever the same decision rows would give other signals; part of the `DecisionSpec`'s `id`."""

EQUILIBRIUM = 0.5
ZONE_ATR = 0.5
FORCE = 1.0
TURN, BODY = 0.5, 0.5
LEAST_ATR = 0.0016


def _side(decision: NDArray[np.float32], side: float, spec: DecisionSpec) -> NDArray[np.bool_]:
    """Rows with a signal in direction `side`, 1 or -1."""

    def column(name: str) -> NDArray[np.float32]:
        return decision[:, spec.index(name)]

    zones = "5m.bullish" if side > 0 else "5m.bearish"
    with_trend = (side * column("15m.trend_state") == 1) & ~(side * column("1h.trend_state") == -1)
    discount = side * (column("15m.dealing_range_position") - EQUILIBRIUM) < 0
    at_zone = (np.abs(column(f"{zones}_order_block_distance")) <= ZONE_ATR) | (
        np.abs(column(f"{zones}_gap_distance")) <= ZONE_ATR
    )
    forced = (
        (side * column("5m.displacement") >= FORCE)
        & (side * column("5m.bar_close_move") > TURN)
        & (side * column("5m.body_fraction") > BODY)
    )
    turned = (side * column("5m.sweep") == 1) | (side * column("5m.change_of_character") == 1) | forced
    return np.asarray(with_trend & (discount | at_zone) & turned & (column("5m.atr_14_fraction") > LEAST_ATR))


def rule_signal(decision: NDArray[np.float32], spec: DecisionSpec = DECISION_SPEC) -> NDArray[np.int8]:
    """The direction that the rules propose for each decision row: 1 long, -1 short, 0 none; int8 [k]."""
    with np.errstate(invalid="ignore"):
        return _side(decision, 1.0, spec).astype(np.int8) - _side(decision, -1.0, spec).astype(np.int8)
