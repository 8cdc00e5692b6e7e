"""Trend: where price stands against its averages, how they slope, and how directed the movement is.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `ema_9_distance`, `ema_21_distance` | (close - EMA) / ATR14 | ATR | ±100 | 160 | – |
| `ema_21_slope` | (EMA21 - EMA21 five bars ago) / (5 ATR14) | ATR a bar | ±100 | 160 | – |
| `macd_histogram` | (EMA12 - EMA26 - EMA9 of that difference) / ATR14 | ATR | ±100 | 200 | Appel |
| `adx_14` | Wilder average of 100 |+DI - -DI| / (+DI + -DI) | 0..100 | 0..100 | 220 | Wilder (1978) |
| `di_difference_14` | +DI - -DI | points | ±100 | 180 | Wilder (1978) |
| `linreg_slope_20` | slope of the least-squares line through 20 closes / ATR14 | ATR a bar | ±100 | 160 | – |
| `linreg_r2_20` | squared correlation of 20 closes with time | – | 0..1 | 20 | – |
| `return_1`, `return_12`, `return_48` | close / close n bars ago - 1 | fraction | >= -1 | n + 1 | – |

An exponential average starts as the plain mean (see `numeric.ema_next`). A flat market has ATR 0: all
distances and slopes are 0, and so are the directional figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import (
    NEGLIGIBLE,
    ema_next,
    ema_warmup,
    in_atr,
    mean_of,
    ratio,
    wilder_next,
    wilder_warmup,
)
from features.families.shared import HISTORY
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]

SLOPE_BARS = 5
LINREG_BARS = 20

# State of `averages`: four averages, the signal line, and the last EMA21s by count modulo SLOPE_BARS.
EMA_9, EMA_21, EMA_12, EMA_26, SIGNAL, RING = range(6)


@njit
def averages(state: Slice, out: Slice, close: float, atr: float, count: int) -> None:
    """Distances, slope and the MACD histogram, from five exponential averages."""
    for slot, span in ((EMA_9, 9), (EMA_21, 21), (EMA_12, 12), (EMA_26, 26)):
        state[slot] = ema_next(close, state[slot], span, count)
    macd = state[EMA_12] - state[EMA_26]
    state[SIGNAL] = ema_next(macd, state[SIGNAL], 9, count)
    oldest = RING + count % SLOPE_BARS
    out[0] = in_atr(close - state[EMA_9], atr)
    out[1] = in_atr(close - state[EMA_21], atr)
    out[2] = in_atr((state[EMA_21] - state[oldest]) / SLOPE_BARS, atr)
    out[3] = in_atr(macd - state[SIGNAL], atr)
    state[oldest] = state[EMA_21]


# State of `directional`: Wilder averages of the directional movements and of DX.
PLUS, MINUS, ADX = range(3)


@njit
def directional(state: Slice, out: Slice, highs: Slice, lows: Slice, atr: float, count: int, period: int) -> None:
    """ADX and the difference of the directional indicators."""
    out[0] = 0.0
    out[1] = 0.0
    if count == 1:
        return
    up = highs[HISTORY - 1] - highs[HISTORY - 2]
    down = lows[HISTORY - 2] - lows[HISTORY - 1]
    plus = up if up > down and up > 0.0 else 0.0
    minus = down if down > up and down > 0.0 else 0.0
    state[PLUS] = wilder_next(plus, state[PLUS], period, count - 1)
    state[MINUS] = wilder_next(minus, state[MINUS], period, count - 1)
    dx = 100.0 * ratio(abs(state[PLUS] - state[MINUS]), state[PLUS] + state[MINUS])
    # DX means something once its averages have their first `period` values.
    if count > period:
        state[ADX] = wilder_next(dx, state[ADX], period, count - period)
    out[0] = state[ADX]
    out[1] = min(max(100.0 * ratio(state[PLUS] - state[MINUS], atr), -100.0), 100.0)


@njit
def regression(state: Slice, out: Slice, closes: Slice, atr: float) -> None:
    """Slope and R² of the straight line through the last 20 closes. No state of its own."""
    start = HISTORY - LINREG_BARS
    mean = mean_of(closes, start)
    middle = (LINREG_BARS - 1) / 2.0
    with_time = 0.0
    spread = 0.0
    for i in range(LINREG_BARS):
        deviation = closes[start + i] - mean
        with_time += (i - middle) * deviation
        spread += deviation * deviation
    time_spread = LINREG_BARS * (LINREG_BARS * LINREG_BARS - 1) / 12.0
    out[0] = in_atr(with_time / time_spread, atr)
    if spread <= LINREG_BARS * (NEGLIGIBLE * mean) ** 2:
        out[1] = 0.0
    else:
        out[1] = min(with_time * with_time / (time_spread * spread), 1.0)


@njit
def returns(state: Slice, out: Slice, closes: Slice) -> None:
    """Returns over 1, 12 and 48 bars. No state of its own."""
    close = closes[HISTORY - 1]
    out[0] = ratio(close, closes[HISTORY - 2]) - 1.0
    out[1] = ratio(close, closes[HISTORY - 13]) - 1.0
    out[2] = ratio(close, closes[HISTORY - 49]) - 1.0


ATR_WARMUP = wilder_warmup(14)
"""160: every distance in ATR needs the ATR warm; the averages up to 21 have forgotten sooner (145)."""
MACD_WARMUP = ema_warmup(26) + 20
"""200: the slower average (180), then its 9-bar signal."""
DI_WARMUP = wilder_warmup(14) + 20
"""180: directional movements are scarcer than true ranges, so that the first 14 tell less of their mean."""
ADX_WARMUP = wilder_warmup(14) + 60
"""220: an average of an average forgets as n (13/14)^n."""


def _distance(name: str, warmup: int, formula: str, unit: str = "ATR", scale: float = 1.0, source: str = "") -> Feature:
    return Feature(name, warmup, formula, unit, -100.0, 100.0, scale, source=source)


def _return(bars: int) -> Feature:
    return Feature(f"return_{bars}", bars + 1, f"close / close {bars} ago - 1", "fraction", -1.0, np.inf, 0.01)


AVERAGES = Family(
    "averages",
    (
        _distance("ema_9_distance", ATR_WARMUP, "(close - EMA9) / ATR14"),
        _distance("ema_21_distance", ATR_WARMUP, "(close - EMA21) / ATR14"),
        _distance("ema_21_slope", ATR_WARMUP, "(EMA21 - EMA21 5 ago) / (5 ATR14)", "ATR a bar", 0.1),
        _distance("macd_histogram", MACD_WARMUP, "(MACD(12,26) - signal(9)) / ATR14", "ATR", 0.1, source="Appel"),
    ),
    RING + SLOPE_BARS,
    averages,
)
DIRECTIONAL = Family(
    "directional",
    (
        Feature("adx_14", ADX_WARMUP, "Wilder14(DX)", "points", 0.0, 100.0, 10.0, source="Wilder (1978)"),
        Feature("di_difference_14", DI_WARMUP, "+DI - -DI", "points", -100.0, 100.0, 10.0, source="Wilder (1978)"),
    ),
    3,
    directional,
    (("period", 14),),
)
REGRESSION = Family(
    "regression",
    (
        _distance("linreg_slope_20", ATR_WARMUP, "least-squares slope of 20 closes / ATR14", "ATR a bar", 0.1),
        Feature("linreg_r2_20", LINREG_BARS, "squared correlation of 20 closes with time", "", 0.0, 1.0),
    ),
    0,
    regression,
)
RETURNS = Family("returns", (_return(1), _return(12), _return(48)), 0, returns)
