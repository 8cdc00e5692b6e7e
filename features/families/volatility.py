"""Volatility: how far bars reach, and how wide closes spread.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `atr_14_fraction` | ATR14 / close | fraction | >= 0 | 160 | Wilder (1978) |
| `bollinger_position_20` | (close - mean20) / (2 deviation20) | – | ±2.2 | 20 | Bollinger (2001) |
| `bollinger_width_20` | 4 deviation20 / mean20 | fraction | >= 0 | 20 | Bollinger (2001) |
| `realised_volatility_20` | √(mean of 20 r²) | fraction | >= 0 | 21 | – |
| `parkinson_volatility_20` | √(mean of 20 h² / (4 ln 2)) | fraction | >= 0 | 20 | Parkinson (1980) |
| `garman_klass_volatility_20` | √(mean of 20 (h²/2 - (2 ln 2 - 1) c²)) | fraction | >= 0 | 20 | Garman, Klass |
| `volatility_ratio` | √(mean of 8 r² / mean of 48 r²) | – | 0..2.45 | 49 | – |
| `range_ratio` | mean range of 8 bars / mean range of 48 | – | 0..6 | 48 | – |

r is close / previous close - 1, h ln(high / low), c ln(close / open). Deviations are of the population.
A window of equal closes has width 0 and position 0; a window without any range or return has ratio 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.families import rolling
from features.families.numeric import NEGLIGIBLE, log_of_ratio, wilder_warmup
from features.families.rolling import fold_sums, rolling_sum
from features.families.shared import SPREAD_BARS
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BARS = 20
SHORT_BARS = 8
LONG_BARS = 48
PARKINSON = 1.0 / (4.0 * math.log(2.0))
GARMAN_KLASS = 2.0 * math.log(2.0) - 1.0


@njit_inlined
def bollinger(state: Slice, out: Slice, close: float, per_close: float, atr: float, close_spread: Slice) -> None:
    """ATR as a fraction, and the Bollinger bands. No state of its own."""
    mean = close_spread[0]
    variance = close_spread[1] * (1.0 / SPREAD_BARS)
    out[0] = atr * per_close
    if variance <= (NEGLIGIBLE * mean) ** 2:
        out[1] = 0.0
        out[2] = 0.0
    else:
        deviation = math.sqrt(variance)
        per_both = 1.0 / (deviation * mean)
        out[1] = 0.5 * (close - mean) * (mean * per_both)
        out[2] = 4.0 * variance * per_both


@njit_inlined
def estimators(
    state: Slice, out: Slice, open_: float, high: float, low: float, close: float, change: float, count: int
) -> None:
    """Three estimates of the same volatility. State: the window of their three squares."""
    reach = log_of_ratio(high, low)
    body = log_of_ratio(close, open_)
    reach *= reach
    phase = (count - 1) % BARS
    realised = rolling_sum(state, phase, 3, 0, change * change)
    parkinson = rolling_sum(state, phase, 3, 1, reach)
    garman_klass = rolling_sum(state, phase, 3, 2, 0.5 * reach - GARMAN_KLASS * body * body)
    fold_sums(state, phase, BARS, 3)
    out[0] = math.sqrt(realised * (1.0 / BARS))
    out[1] = math.sqrt(parkinson * (PARKINSON / BARS))
    # Of one bar it is never below 0, save by rounding: |c| <= h.
    out[2] = math.sqrt(max(garman_klass, 0.0) * (1.0 / BARS))


SHORT_STATE = rolling.state_size(SHORT_BARS, 2)
"""State of `ratios`: the short window of squared returns and ranges, then the long one."""


@njit_inlined
def ratios(state: Slice, out: Slice, high: float, low: float, change: float, count: int) -> None:
    """Short to long, of returns and of ranges."""
    square = change * change
    span = high - low
    short, long = state[:SHORT_STATE], state[SHORT_STATE:]
    phase = (count - 1) % SHORT_BARS
    short_squares = rolling_sum(short, phase, 2, 0, square)
    short_ranges = rolling_sum(short, phase, 2, 1, span)
    fold_sums(short, phase, SHORT_BARS, 2)
    phase = (count - 1) % LONG_BARS
    long_squares = rolling_sum(long, phase, 2, 0, square)
    long_ranges = rolling_sum(long, phase, 2, 1, span)
    fold_sums(long, phase, LONG_BARS, 2)
    longer = LONG_BARS / SHORT_BARS
    # The two sums can differ by rounding when all is within the last 8 bars.
    out[0] = math.sqrt(min(longer * short_squares / long_squares, longer)) if long_squares > 0.0 else 1.0
    out[1] = min(longer * short_ranges / long_ranges, longer) if long_ranges > 0.0 else 1.0


def _fraction(name: str, warmup: int, formula: str, scale: float, version: int, source: str = "") -> Feature:
    return Feature(name, warmup, formula, "fraction", 0.0, np.inf, scale, version, source=source)


_POSITION = 2.18
"""The last of n values differs from their mean by at most √(n - 1) deviations; half of that, rounded up."""

BOLLINGER = Family(
    "bollinger",
    (
        _fraction("atr_14_fraction", wilder_warmup(14), "ATR14 / close", 0.001, 2, "Wilder (1978)"),
        Feature(
            "bollinger_position_20",
            SPREAD_BARS,
            "(close - mean20) / (2 deviation20)",
            "",
            -_POSITION,
            _POSITION,
            version=2,
            source="Bollinger (2001)",
        ),
        _fraction("bollinger_width_20", SPREAD_BARS, "4 deviation20 / mean20", 0.01, 2, "Bollinger (2001)"),
    ),
    0,
    bollinger,
)
ESTIMATORS = Family(
    "estimators",
    (
        _fraction("realised_volatility_20", BARS + 1, "√(mean of 20 (close / previous close - 1)²)", 0.001, 1),
        _fraction(
            "parkinson_volatility_20", BARS, "√(mean of 20 ln²(high / low) / (4 ln 2))", 0.001, 1, "Parkinson (1980)"
        ),
        _fraction(
            "garman_klass_volatility_20",
            BARS,
            "√(mean of 20 (ln²(high / low) / 2 - (2 ln 2 - 1) ln²(close / open)))",
            0.001,
            1,
            "Garman, Klass (1980)",
        ),
    ),
    rolling.state_size(BARS, 3),
    estimators,
)
RATIOS = Family(
    "ratios",
    (
        Feature(
            "volatility_ratio",
            LONG_BARS + 1,
            "√(mean of 8 r² / mean of 48 r²), r = close / previous close - 1",
            "",
            0.0,
            2.45,
        ),
        Feature(
            "range_ratio",
            LONG_BARS,
            "mean range of 8 / mean range of 48",
            "",
            0.0,
            LONG_BARS / SHORT_BARS,
            version=2,
        ),
    ),
    SHORT_STATE + rolling.state_size(LONG_BARS, 2),
    ratios,
)
