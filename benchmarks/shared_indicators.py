"""The indicators that TA-Lib and talipp have too: which of ours they are, and the same numbers from the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import talib
from numpy.typing import NDArray
from talipp.indicators import ADX, ATR, BB, CCI, EMA, MACD, OBV, ROC, RSI, StochRSI
from talipp.ohlcv import OHLCV

from features import SPEC
from features.families import oscillators, trend, volatility, volume
from features.spec import FeatureSpec
from market.bars import Bars

Column = NDArray[np.float64]

SHARED_SPEC = FeatureSpec(
    (
        trend.AVERAGES,
        trend.MACD,
        trend.DIRECTIONAL,
        trend.REGRESSION,
        trend.RETURNS,
        volatility.BOLLINGER,
        oscillators.RSI,
        oscillators.CCI,
        oscillators.MFI,
        volume.FLOW,
    ),
    SPEC.shared,
)
"""Whole families, so ours also computes what they hold besides: taker imbalance, the slopes' rings."""
SPANS = (9, 21, 50, 200)
RETURNS = (1, 5, 10, 20, 60)
TICK = 1e-8
"""A part of every price step that there is here."""


def columns_of(bars: Bars) -> dict[str, Column]:
    """The columns as TA-Lib takes them, each by itself in memory.

    `*_ticks` are prices in whole ticks, since by rounding alone TA-Lib's MFI finds that an unchanged typical price rose
    or fell; `centred` is the close less its mean, since its correlation loses digits on large numbers.
    """
    of = {name: np.ascontiguousarray(bars[name]) for name in ("open", "high", "low", "close", "volume")}
    ticks = {f"{name}_ticks": np.rint(of[name] / TICK) for name in ("high", "low", "close")}
    return of | ticks | {"centred": of["close"] - of["close"].mean()}


def clock_of(bars: Bars) -> Column:
    """A number per bar, for the correlation with time; as small as can be, for the same reason."""
    return np.arange(len(bars), dtype=np.float64) - len(bars) / 2


def ta_lib(of: Mapping[str, Column], clock: Column) -> dict[str, Column]:
    """TA-Lib's calls and nothing else: what is timed."""
    high, low, close, traded = of["high"], of["low"], of["close"], of["volume"]
    found = {f"ema_{span}": talib.EMA(close, span) for span in SPANS}
    found |= {f"slope_{span}": talib.MOM(found[f"ema_{span}"], 5) for span in SPANS}
    found |= {f"return_{bars}": talib.ROCP(close, bars) for bars in RETURNS}
    found["line"], found["signal"], found["histogram"] = talib.MACD(close, 12, 26, 9)
    found["upper"], found["middle"], found["lower"] = talib.BBANDS(close, 20, 2.0, 2.0)
    found["stochastic"], found["stochastic_signal"] = talib.STOCHRSI(close, 14, 14, 3)
    found["atr"] = talib.ATR(high, low, close, 14)
    found["adx"] = talib.ADX(high, low, close, 14)
    found["plus_di"] = talib.PLUS_DI(high, low, close, 14)
    found["minus_di"] = talib.MINUS_DI(high, low, close, 14)
    found["linreg_slope"] = talib.LINEARREG_SLOPE(close, 20)
    found["correlation"] = talib.CORREL(of["centred"], clock, 20)
    found["rsi"] = talib.RSI(close, 14)
    found["cci"] = talib.CCI(high, low, close, 20)
    found["mfi"] = talib.MFI(of["high_ticks"], of["low_ticks"], of["close_ticks"], traded, 14)
    found["obv"] = talib.MOM(talib.OBV(close, traded), 20)
    found["ad"] = talib.MOM(talib.AD(high, low, close, traded), 20)
    found["traded"] = talib.SUM(traded, 20)
    return found


def as_features(found: Mapping[str, Column], close: Column) -> dict[str, Column]:
    """TA-Lib's numbers in the terms of ours: distances in ATR, flows as parts of the volume."""
    atr = found["atr"]
    rows = {f"ema_{span}_distance": (close - found[f"ema_{span}"]) / atr for span in SPANS}
    rows |= {f"ema_{span}_slope": found[f"slope_{span}"] / 5 / atr for span in SPANS}
    rows |= {f"return_{bars}": found[f"return_{bars}"] for bars in RETURNS}
    rows |= {f"macd_{part}": found[part] / atr for part in ("line", "signal", "histogram")}
    rows |= {f"{name}_14": found[name] for name in ("adx", "plus_di", "minus_di", "rsi", "mfi")}
    rows |= {"linreg_slope_20": found["linreg_slope"] / atr, "linreg_r2_20": found["correlation"] ** 2}
    rows |= {"stochastic_rsi_14": found["stochastic"], "stochastic_rsi_signal_14": found["stochastic_signal"]}
    rows |= {"cci_20": found["cci"], "atr_14_fraction": atr / close}
    half = found["upper"] - found["middle"]
    rows |= {"bollinger_position_20": (close - found["middle"]) / half}
    rows |= {"bollinger_width_20": 2 * half / found["middle"]}
    rows |= {"obv_slope_20": found["obv"] / found["traded"], "chaikin_money_flow_20": found["ad"] / found["traded"]}
    return rows


def assert_parity(ours: NDArray[np.float32], theirs: Mapping[str, Column], names: set[str], tolerance: float) -> None:
    """Every named column within the tolerance, relative to the larger of the value and the feature's scale."""
    assert names <= set(theirs)
    for name in names:
        column = SHARED_SPEC.index(name)
        expected = theirs[name]
        allowed = tolerance * np.maximum(np.abs(expected), SHARED_SPEC.features[column].scale)
        difference = np.abs(ours[:, column] - expected)
        assert (difference <= allowed).all(), (name, float(np.max(difference / allowed)) * tolerance)


class Talipp:
    """One series of talipp's indicators, fed one bar at a time."""

    def __init__(self) -> None:
        self.averages = {span: EMA(span) for span in SPANS}
        self.returns = {bars: ROC(bars) for bars in RETURNS}
        self.macd, self.bands, self.rsi = MACD(12, 26, 9), BB(20, 2.0), RSI(14)
        self.stochastic = StochRSI(14, 14, 1, 3)
        self.atr, self.adx, self.cci, self.obv = ATR(14), ADX(14, 14), CCI(20), OBV()
        self._of_close = [*self.averages.values(), *self.returns.values(), self.macd, self.bands, self.rsi]
        self._of_close.append(self.stochastic)
        self._of_bar = [self.atr, self.adx, self.cci, self.obv]

    def add(self, bar: OHLCV) -> None:
        """One closed bar."""
        for indicator in self._of_close:
            indicator.add(bar.close)
        for indicator in self._of_bar:
            indicator.add(bar)

    def features(self, close: float) -> dict[str, Column]:
        """Its last numbers in the terms of ours, one row; without OBV, which grows for ever."""
        unit, bands, macd, adx = self.atr[-1], self.bands[-1], self.macd[-1], self.adx[-1]
        row = {f"ema_{span}_distance": (close - average[-1]) / unit for span, average in self.averages.items()}
        row |= {f"return_{bars}": change[-1] / 100 for bars, change in self.returns.items()}
        row |= {"macd_line": macd.macd / unit, "macd_signal": macd.signal / unit}
        row |= {"macd_histogram": macd.histogram / unit, "atr_14_fraction": unit / close}
        row |= {"adx_14": adx.adx, "plus_di_14": adx.plus_di, "minus_di_14": adx.minus_di}
        row |= {"rsi_14": self.rsi[-1], "cci_20": self.cci[-1]}
        row |= {"stochastic_rsi_14": self.stochastic[-1].k, "stochastic_rsi_signal_14": self.stochastic[-1].d}
        row |= {"bollinger_position_20": (close - bands.cb) / (bands.ub - bands.cb)}
        row |= {"bollinger_width_20": (bands.ub - bands.lb) / bands.cb}
        return {name: np.array([value]) for name, value in row.items()}
