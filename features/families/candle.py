"""Candle: the shape of one bar, its place against the last one, and its four prices as moves from the close before.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `body_fraction` | (close - open) / (high - low) | fraction | ±1 | 1 | – |
| `upper_wick_fraction` | (high - max(open, close)) / (high - low) | fraction | 0..1 | 1 | – |
| `lower_wick_fraction` | (min(open, close) - low) / (high - low) | fraction | 0..1 | 1 | – |
| `gap_fraction` | (open - previous close) / true range | fraction | ±1 | 2 | – |
| `inside_bar` | 1 where the high is lower and the low higher than those before | – | 0, 1 | 2 | – |
| `outside_bar` | 1 where the high is higher and the low lower than those before | – | 0, 1 | 2 | – |
| `bar_{open,high,low,close}_move` | (that price - previous close) / ATR14 | ATR | ±100 | 160 | – |

The true range is the range widened to the previous close. A bar without range has shape 0, 0, 0, and
one without true range gap 0.

Source: the arithmetic of a candlestick; the moves are those of the window that models see.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit, ratio, wilder_warmup
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]


@njit_inlined
def candle(
    state: Slice,
    out: Slice,
    open_: float,
    high: float,
    low: float,
    close: float,
    previous_high: float,
    previous_low: float,
    previous_close: float,
    per_range: float,
    per_atr: float,
) -> None:
    """All ten. No state of its own."""
    out[0] = (close - open_) * per_range
    out[1] = (high - max(open_, close)) * per_range
    out[2] = (min(open_, close) - low) * per_range
    out[3] = ratio(open_ - previous_close, max(high, previous_close) - min(low, previous_close))
    out[4] = 1.0 if (high < previous_high) & (low > previous_low) else 0.0
    out[5] = 1.0 if (high > previous_high) & (low < previous_low) else 0.0
    out[6] = in_unit(open_ - previous_close, per_atr)
    out[7] = in_unit(high - previous_close, per_atr)
    out[8] = in_unit(low - previous_close, per_atr)
    out[9] = in_unit(close - previous_close, per_atr)


def _shape(name: str, warmup: int, formula: str, low: float, version: int, unit: str = "fraction") -> Feature:
    return Feature(name, warmup, formula, unit, low, 1.0, 1.0, version)


def _move(price: str) -> Feature:
    formula = f"({price} - previous close) / ATR14"
    return Feature(f"bar_{price}_move", wilder_warmup(14), formula, "ATR", -100.0, 100.0, 1.0, 2)


CANDLE = Family(
    "candle",
    (
        _shape("body_fraction", 1, "(close - open) / (high - low)", -1.0, 2),
        _shape("upper_wick_fraction", 1, "(high - max(open, close)) / (high - low)", 0.0, 2),
        _shape("lower_wick_fraction", 1, "(min(open, close) - low) / (high - low)", 0.0, 2),
        _shape("gap_fraction", 2, "(open - previous close) / true range", -1.0, 1),
        _shape("inside_bar", 2, "high < previous high and low > previous low", 0.0, 1, ""),
        _shape("outside_bar", 2, "high > previous high and low < previous low", 0.0, 1, ""),
        *(_move(price) for price in ("open", "high", "low", "close")),
    ),
    0,
    candle,
)
