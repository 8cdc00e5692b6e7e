"""Events: bars at which enough has happened to look closer.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `cusum_event` | +1, -1 or 0: a cumulated move passes the threshold | – | -1, 0, 1 | 232 | Page; López de Prado 2.5.2 |

The upper sum takes each bar's move in ATR and never falls below 0, the lower mirrors it. The bar at
which one passes ±threshold is an event of that sign, and both start again at 0. Both also start again
with every 72 bars of the clock (6 hours of 5m bars, counted from midnight UTC of 1970), at the first bar
there is of them, so that series with different origins come to agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit, wilder_warmup
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

RESET_BARS = 72
THRESHOLD_ATR = 3.0

# State of `cusum`: the two sums, and the block of the clock in which they began.
UP, DOWN, BLOCK = range(3)


@njit_inlined
def cusum(
    state: Slice,
    out: Slice,
    clock: int,
    close: float,
    previous_close: float,
    per_atr: float,
    threshold: float,
) -> None:
    """The event of this bar."""
    block = clock // RESET_BARS
    if block != state[BLOCK]:
        state[BLOCK] = block
        state[UP] = 0.0
        state[DOWN] = 0.0
    move = in_unit(close - previous_close, per_atr)
    state[UP] = max(state[UP] + move, 0.0)
    state[DOWN] = min(state[DOWN] + move, 0.0)
    out[0] = 0.0
    if state[UP] > threshold:
        out[0] = 1.0
    elif state[DOWN] < -threshold:
        out[0] = -1.0
    if out[0] != 0.0:
        state[UP] = 0.0
        state[DOWN] = 0.0


CUSUM = Family(
    "cusum",
    (
        Feature(
            "cusum_event",
            wilder_warmup(14) + RESET_BARS,
            f"sign of the cumulated move that passes {THRESHOLD_ATR:g} ATR14",
            "",
            -1.0,
            1.0,
            version=3,
            source="Page (1954); López de Prado (2018), 2.5.2",
        ),
    ),
    3,
    cusum,
    (("threshold", THRESHOLD_ATR),),
)
