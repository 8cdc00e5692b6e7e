"""Trend: where price stands against its averages, how they slope, and how directed the movement is.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `ema_9_distance`, `ema_21_distance` | (close - EMA) / ATR14 | ATR | ±100 | 160 | – |
| `ema_50_distance` | the same | ATR | ±100 | 320 | – |
| `ema_200_distance` | the same | ATR | ±100 | 1200 | – |
| `ema_9_slope`, `ema_21_slope` | (EMA - EMA five bars ago) / (5 ATR14) | ATR a bar | ±100 | 160 | – |
| `ema_50_slope` | the same | ATR a bar | ±100 | 320 | – |
| `ema_200_slope` | the same | ATR a bar | ±100 | 1200 | – |
| `macd_line` | (EMA12 - EMA26) / ATR14 | ATR | ±100 | 200 | Appel (1979) |
| `macd_signal` | EMA9 of (EMA12 - EMA26) / ATR14 | ATR | ±100 | 240 | Appel (1979) |
| `macd_histogram` | line - signal | ATR | ±100 | 240 | Appel (1979) |
| `adx_14` | Wilder14 of 100 |+DI - -DI| / (+DI + -DI) | points | 0..100 | 220 | Wilder (1978) |
| `plus_di_14`, `minus_di_14` | 100 Wilder14(directional movement) / ATR14 | points | 0..100 | 180 | Wilder (1978) |
| `linreg_slope_20` | slope of the least-squares line through 20 closes / ATR14 | ATR a bar | ±100 | 160 | – |
| `linreg_r2_20` | squared correlation of 20 closes with time | – | 0..1 | 20 | – |
| `return_{1,5,10,20,60}` | close / close n bars ago - 1 | fraction | >= -1 | n + 1 | – |

An exponential average starts as the first close: of all that is known at the origin that is nearest to
the average of a longer history, and what is forgotten is then only the distance between the two. A flat
market has no ATR: all distances and slopes are 0, and so are the directional figures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import NEGLIGIBLE, RECIPROCALS, ema_next, ema_warmup, in_unit, ratio, wilder_warmup
from features.families.shared import SPREAD_BARS
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

SLOPE_BARS = 5

# State of `averages`: the four averages, then those of the last bars by count modulo SLOPE_BARS.
AVERAGES_KEPT = 4


@njit_inlined
def averages(state: Slice, out: Slice, close: float, per_atr: float, count: int) -> None:
    """Distances to, and slopes of, the averages over 9, 21, 50 and 200 bars."""
    oldest = AVERAGES_KEPT * (1 + count % SLOPE_BARS)
    if count == 1:
        state[:] = close
    per_slope = per_atr * (1.0 / SLOPE_BARS)
    for i, span in ((0, 9), (1, 21), (2, 50), (3, 200)):
        average = ema_next(close, state[i], span)
        out[i] = in_unit(close - average, per_atr)
        out[AVERAGES_KEPT + i] = in_unit(average - state[oldest + i], per_slope)
        state[i] = average
        state[oldest + i] = average


# State of `macd`: the two averages and the signal line.
EMA_12, EMA_26, SIGNAL = range(3)


@njit_inlined
def macd(state: Slice, out: Slice, close: float, per_atr: float, count: int) -> None:
    """Moving average convergence and divergence."""
    if count == 1:
        state[EMA_12] = close
        state[EMA_26] = close
    state[EMA_12] = ema_next(close, state[EMA_12], 12)
    state[EMA_26] = ema_next(close, state[EMA_26], 26)
    line = state[EMA_12] - state[EMA_26]
    signal = ema_next(line, state[SIGNAL], 9)
    state[SIGNAL] = signal
    out[0] = in_unit(line, per_atr)
    out[1] = in_unit(signal, per_atr)
    out[2] = in_unit(line - signal, per_atr)


# State of `directional`: Wilder averages of the directional movements and of DX.
PLUS, MINUS, ADX = range(3)


@njit_inlined
def directional(
    state: Slice,
    out: Slice,
    high: float,
    low: float,
    previous_high: float,
    previous_low: float,
    per_atr: float,
    wilder_14: float,
    count: int,
    period: int,
) -> None:
    """ADX and the directional indicators."""
    up = high - previous_high
    down = previous_low - low
    state[PLUS] += ((up if (up > down) & (up > 0.0) else 0.0) - state[PLUS]) * wilder_14
    state[MINUS] += ((down if (down > up) & (down > 0.0) else 0.0) - state[MINUS]) * wilder_14
    # DX means something once its averages have their first `period` values.
    if count > period:
        dx = 100.0 * ratio(abs(state[PLUS] - state[MINUS]), state[PLUS] + state[MINUS])
        state[ADX] += (dx - state[ADX]) * RECIPROCALS[min(count - period, period)]
    out[0] = state[ADX]
    out[1] = min(100.0 * state[PLUS] * per_atr, 100.0)
    out[2] = min(100.0 * state[MINUS] * per_atr, 100.0)


TIME_SQUARES = SPREAD_BARS * (SPREAD_BARS * SPREAD_BARS - 1) / 12.0
"""Sum of squared deviations of the numbers of the bars."""


@njit_inlined
def regression(state: Slice, out: Slice, close_spread: Slice, per_atr: float) -> None:
    """Slope and R² of the straight line through the last 20 closes. No state of its own."""
    mean = close_spread[0]
    squares = close_spread[1]
    with_time = close_spread[2]
    out[0] = in_unit(with_time * (1.0 / TIME_SQUARES), per_atr)
    if squares <= SPREAD_BARS * (NEGLIGIBLE * mean) ** 2:
        out[1] = 0.0
    else:
        out[1] = min(with_time * with_time / (TIME_SQUARES * squares), 1.0)


CLOSES = 64
"""Closes that `returns` keeps, by count modulo this, each followed by its reciprocal."""


@njit_inlined
def returns(state: Slice, out: Slice, close: float, per_close: float, change: float, count: int) -> None:
    """Returns over several lengths. State: the last closes and their reciprocals."""
    out[0] = change
    for i, bars in ((1, 5), (2, 10), (3, 20), (4, 60)):
        before = 2 * ((count - bars) & (CLOSES - 1))
        out[i] = (close - state[before]) * state[before + 1]
    now = 2 * (count & (CLOSES - 1))
    state[now] = close
    state[now + 1] = per_close


ATR_WARMUP = wilder_warmup(14)
"""160: every distance in ATR needs the ATR warm; the averages up to 21 have forgotten sooner (145)."""
WAITED_FOR = 320
"""Bars of warm-up that a ready row waits for; what remembers longer it does without."""
SLOW_WARMUP = {50: WAITED_FOR, 200: 1200}
"""An average over n bars forgets as (1 - 2/(n+1))^bars what it began away from its place: 20 ATR and more."""
MACD_WARMUP = ema_warmup(26) + 20
"""200: as the slower average (180), which matters more the smaller their difference is."""
SIGNAL_WARMUP = MACD_WARMUP + 40
"""240: then its 9-bar signal."""
DI_WARMUP = wilder_warmup(14) + 20
"""180: directional movements are scarcer than true ranges, so that the first 14 tell less of their mean."""
ADX_WARMUP = wilder_warmup(14) + 60
"""220: an average of an average forgets as n (13/14)^n."""


def _in_atr(name: str, warmup: int, formula: str, unit: str, scale: float, version: int, source: str = "") -> Feature:
    return Feature(
        name, warmup, formula, unit, -100.0, 100.0, scale, version, required=warmup <= WAITED_FOR, source=source
    )


def _distance(span: int, scale: float, version: int) -> Feature:
    formula = f"(close - EMA{span}) / ATR14"
    return _in_atr(f"ema_{span}_distance", SLOW_WARMUP.get(span, ATR_WARMUP), formula, "ATR", scale, version)


def _slope(span: int, scale: float, version: int) -> Feature:
    formula = f"(EMA{span} - EMA{span} 5 ago) / (5 ATR14)"
    return _in_atr(f"ema_{span}_slope", SLOW_WARMUP.get(span, ATR_WARMUP), formula, "ATR a bar", scale, version)


def _macd(part: str, formula: str, warmup: int, scale: float, version: int) -> Feature:
    return _in_atr(f"macd_{part}", warmup, formula, "ATR", scale, version, "Appel (1979)")


def _points(name: str, warmup: int, formula: str, version: int) -> Feature:
    return Feature(name, warmup, formula, "points", 0.0, 100.0, 10.0, version, source="Wilder (1978)")


def _return(bars: int, version: int) -> Feature:
    formula = f"close / close {bars} ago - 1"
    return Feature(f"return_{bars}", bars + 1, formula, "fraction", -1.0, np.inf, 0.01, version)


AVERAGES = Family(
    "averages",
    (
        _distance(9, 1.0, 2),
        _distance(21, 1.0, 2),
        _distance(50, 2.0, 1),
        _distance(200, 5.0, 1),
        _slope(9, 0.1, 1),
        _slope(21, 0.1, 2),
        _slope(50, 0.1, 1),
        _slope(200, 0.1, 1),
    ),
    AVERAGES_KEPT * (1 + SLOPE_BARS),
    averages,
)
MACD = Family(
    "macd",
    (
        _macd("line", "(EMA12 - EMA26) / ATR14", MACD_WARMUP, 1.0, 1),
        _macd("signal", "EMA9(EMA12 - EMA26) / ATR14", SIGNAL_WARMUP, 1.0, 1),
        _macd("histogram", "(EMA12 - EMA26 - signal) / ATR14", SIGNAL_WARMUP, 0.1, 2),
    ),
    3,
    macd,
)
DIRECTIONAL = Family(
    "directional",
    (
        _points("adx_14", ADX_WARMUP, "Wilder14(100 |+DI - -DI| / (+DI + -DI))", 2),
        _points("plus_di_14", DI_WARMUP, "100 Wilder14(+DM) / ATR14", 1),
        _points("minus_di_14", DI_WARMUP, "100 Wilder14(-DM) / ATR14", 1),
    ),
    3,
    directional,
    (("period", 14),),
)
REGRESSION = Family(
    "regression",
    (
        _in_atr("linreg_slope_20", ATR_WARMUP, "least-squares slope of 20 closes / ATR14", "ATR a bar", 0.1, 2),
        Feature("linreg_r2_20", SPREAD_BARS, "squared correlation of 20 closes with time", "", 0.0, 1.0, version=2),
    ),
    0,
    regression,
)
RETURNS = Family(
    "returns",
    (_return(1, 2), _return(5, 1), _return(10, 1), _return(20, 1), _return(60, 1)),
    2 * CLOSES,
    returns,
)
