"""Displacement: how forcefully price has moved over three bars.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `displacement` | B / ATR14 × abs(B) / R | ATR | ±100 | 160 |

B is the sum of the bodies (close - open) of the last three bars and R the sum of their ranges (high -
low): the net body of the move in ATR, times the part of the ground covered that it is. Three full
candles one way give about ±3 and more; wicks, or candles that answer each other, bring it towards 0.
Bars without range have 0.

Source: ICT's displacement (large bodies, small wicks, one direction), as a number.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit, ratio, wilder_warmup
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

# State: body and range of the bar before and of the one before that.
BODY_1, BODY_2, RANGE_1, RANGE_2 = range(4)


@njit_inlined
def displacement(state: Slice, out: Slice, open_: float, high: float, low: float, close: float, per_atr: float) -> None:
    """The one."""
    body, span = close - open_, high - low
    net = state[BODY_2] + state[BODY_1] + body
    ground = state[RANGE_2] + state[RANGE_1] + span
    out[0] = in_unit(net * ratio(abs(net), ground), per_atr)
    state[BODY_2], state[RANGE_2] = state[BODY_1], state[RANGE_1]
    state[BODY_1], state[RANGE_1] = body, span


DISPLACEMENT = Family(
    "displacement",
    (
        Feature(
            "displacement",
            wilder_warmup(14),
            "B / ATR14 * abs(B) / R, of the bodies and ranges of three bars",
            "ATR",
            -100.0,
            100.0,
            source="ICT",
        ),
    ),
    4,
    displacement,
)
