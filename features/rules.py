"""The plain rule strategy: with the trend of the longer timeframe, after a pullback, when price turns back.

A signal needs all of these at the close of a 5m bar (long; short is the mirror image):

| condition | reading |
|---|---|
| `15m.ema_21_slope` > 0.06 and `15m.adx_14` > 20 | the quarter-hours trend up, and with some strength |
| `1h.ema_21_slope` not below -0.05 | the hours do not speak against it (unknown is allowed) |
| -1.5 < `5m.ema_21_distance` < 0.75 | price has come back to its average, not far below it |
| `5m.rsi_14` < 58 | the movement is not yet spent |
| `5m.bar_close_move` > 0.5 and `5m.body_fraction` > 0.5 | this bar turned, and closed near its end |

Where a reading is NaN there is no signal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec

VERSION = 1
"""Raised whenever the same decision rows would give other signals; part of the `DecisionSpec`'s `id`."""

SLOPE, ADX, AGAINST = 0.06, 20.0, 0.05
DEEPEST, HIGHEST = -1.5, 0.75
SPENT_RSI = 58.0
TURN, BODY = 0.5, 0.5


def _side(decision: NDArray[np.float32], side: float, spec: DecisionSpec) -> NDArray[np.bool_]:
    """Rows with a signal in direction `side`, 1 or -1."""

    def column(name: str) -> NDArray[np.float32]:
        return decision[:, spec.index(name)]

    distance = side * column("5m.ema_21_distance")
    return np.asarray(
        (side * column("15m.ema_21_slope") > SLOPE)
        & (column("15m.adx_14") > ADX)
        & ~(side * column("1h.ema_21_slope") < -AGAINST)
        & (distance > DEEPEST)
        & (distance < HIGHEST)
        & (side * (column("5m.rsi_14") - 50.0) < SPENT_RSI - 50.0)
        & (side * column("5m.bar_close_move") > TURN)
        & (side * column("5m.body_fraction") > BODY)
    )


def rule_signal(decision: NDArray[np.float32], spec: DecisionSpec = DECISION_SPEC) -> NDArray[np.int8]:
    """The direction that the rules propose for each decision row: 1 long, -1 short, 0 none; int8 [k]."""
    with np.errstate(invalid="ignore"):
        return _side(decision, 1.0, spec).astype(np.int8) - _side(decision, -1.0, spec).astype(np.int8)
