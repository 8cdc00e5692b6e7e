"""Candle: the shape of one bar, and its four prices as moves from the close before.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `body_fraction` | (close - open) / (high - low) | fraction of the range | ±1 | 1 |
| `upper_wick_fraction` | (high - max(open, close)) / (high - low) | fraction of the range | 0..1 | 1 |
| `lower_wick_fraction` | (min(open, close) - low) / (high - low) | fraction of the range | 0..1 | 1 |
| `bar_{open,high,low,close}_move` | (that price - previous close) / ATR14 | ATR | ±100 | 160 |

A bar without range has shape 0, 0, 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_atr, ratio, wilder_warmup
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]


@njit
def candle(
    state: Slice, out: Slice, open_: float, high: float, low: float, close: float, previous_close: float, atr: float
) -> None:
    """All seven. No state of its own."""
    span = high - low
    out[0] = ratio(close - open_, span)
    out[1] = ratio(high - max(open_, close), span)
    out[2] = ratio(min(open_, close) - low, span)
    out[3] = in_atr(open_ - previous_close, atr)
    out[4] = in_atr(high - previous_close, atr)
    out[5] = in_atr(low - previous_close, atr)
    out[6] = in_atr(close - previous_close, atr)


CANDLE = Family(
    "candle",
    (
        Feature("body_fraction", 1, "(close - open) / (high - low)", "fraction", -1.0, 1.0),
        Feature("upper_wick_fraction", 1, "(high - max(open, close)) / (high - low)", "fraction", 0.0, 1.0),
        Feature("lower_wick_fraction", 1, "(min(open, close) - low) / (high - low)", "fraction", 0.0, 1.0),
        *(
            Feature(f"bar_{price}_move", wilder_warmup(14), f"({price} - previous close) / ATR14", "ATR", -100.0, 100.0)
            for price in ("open", "high", "low", "close")
        ),
    ),
    0,
    candle,
)
