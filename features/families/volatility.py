"""Volatility: how far bars reach, and how wide closes spread.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `atr_14_fraction` | ATR14 / close | fraction | >= 0 | 160 | Wilder (1978) |
| `bollinger_position_20` | (close - mean20) / (2 deviation20) | – | ±2.2 | 20 | Bollinger |
| `bollinger_width_20` | 4 deviation20 / mean20 | fraction | >= 0 | 20 | Bollinger |
| `range_ratio` | mean range of 8 bars / mean range of 48 | – | 0..6 | 48 | – |

Deviations are of the population. A window of equal closes has width 0 and position 0; a window
without any range has ratio 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import deviation_of, mean_of, ratio, wilder_warmup
from features.families.shared import HISTORY
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BOLLINGER_BARS = 20
SHORT_BARS = 8
LONG_BARS = 48


@njit
def volatility(state: Slice, out: Slice, close: float, atr: float, ranges: Slice, closes: Slice) -> None:
    """All four. No state of its own."""
    start = HISTORY - BOLLINGER_BARS
    mean = mean_of(closes, start)
    deviation = deviation_of(closes, start, mean)
    out[0] = ratio(atr, close)
    out[1] = ratio(close - mean, 2.0 * deviation)
    out[2] = ratio(4.0 * deviation, mean)
    long = mean_of(ranges, HISTORY - LONG_BARS)
    out[3] = mean_of(ranges, HISTORY - SHORT_BARS) / long if long > 0.0 else 1.0


VOLATILITY = Family(
    "volatility",
    (
        Feature(
            "atr_14_fraction",
            wilder_warmup(14),
            "ATR14 / close",
            "fraction",
            0.0,
            np.inf,
            0.001,
            source="Wilder (1978)",
        ),
        Feature(
            "bollinger_position_20",
            BOLLINGER_BARS,
            "(close - mean20) / (2 deviation20)",
            "",
            -math.sqrt(BOLLINGER_BARS - 1) / 2,
            math.sqrt(BOLLINGER_BARS - 1) / 2,
            source="Bollinger",
        ),
        Feature(
            "bollinger_width_20",
            BOLLINGER_BARS,
            "4 deviation20 / mean20",
            "fraction",
            0.0,
            np.inf,
            0.01,
            source="Bollinger",
        ),
        Feature("range_ratio", LONG_BARS, "mean range of 8 / mean range of 48", "", 0.0, LONG_BARS / SHORT_BARS),
    ),
    0,
    volatility,
)
