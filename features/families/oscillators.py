"""Oscillators: how one-sided the recent movement was.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `rsi_14` | 100 G / (G + L), Wilder averages of gains and losses | points | 0..100 | 160 | Wilder (1978) |
| `cci_20` | (typical - mean20) / (0.015 mean absolute deviation20) | points | ±667 | 20 | Lambert (1980) |

Typical is (high + low + close) / 3. Where nothing has moved, RSI is 50 and CCI is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import NEGLIGIBLE, mean_of, wilder_next, wilder_warmup
from features.families.shared import HISTORY
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]

CCI_BARS = 20
CCI_CONSTANT = 0.015

# State of `rsi`.
GAIN, LOSS = range(2)


@njit
def rsi(state: Slice, out: Slice, close: float, previous_close: float, count: int, period: int) -> None:
    """Relative strength index."""
    if count > 1:
        change = close - previous_close
        state[GAIN] = wilder_next(max(change, 0.0), state[GAIN], period, count - 1)
        state[LOSS] = wilder_next(max(-change, 0.0), state[LOSS], period, count - 1)
    moved = state[GAIN] + state[LOSS]
    out[0] = 100.0 * state[GAIN] / moved if moved > 0.0 else 50.0


@njit
def cci(state: Slice, out: Slice, typicals: Slice) -> None:
    """Commodity channel index. No state of its own."""
    start = HISTORY - CCI_BARS
    mean = mean_of(typicals, start)
    spread = 0.0
    for i in range(start, HISTORY):
        spread += abs(typicals[i] - mean)
    spread /= CCI_BARS
    if spread <= NEGLIGIBLE * mean:
        out[0] = 0.0
    else:
        out[0] = (typicals[HISTORY - 1] - mean) / (CCI_CONSTANT * spread)


# The last of n values can differ from the mean by at most n/2 mean absolute deviations.
_CCI_BOUND = CCI_BARS / 2 / CCI_CONSTANT

RSI = Family(
    "rsi",
    (
        Feature(
            "rsi_14",
            wilder_warmup(14),
            "100 G / (G + L), Wilder14 of gains, losses",
            "points",
            0.0,
            100.0,
            50.0,
            source="Wilder (1978)",
        ),
    ),
    2,
    rsi,
    (("period", 14),),
)
CCI = Family(
    "cci",
    (
        Feature(
            "cci_20",
            CCI_BARS,
            "(typical - mean20) / (0.015 mean absolute deviation20)",
            "points",
            -_CCI_BOUND,
            _CCI_BOUND,
            100.0,
            source="Lambert (1980)",
        ),
    ),
    0,
    cci,
)
