"""Every indicator that TA-Lib has, on recorded bars: the same numbers to 1e-6 once both are warm.

Where the two define another number, ours is derived from TA-Lib's output, and the line says so. Averages
are begun differently (TA-Lib takes the mean of the first span), so the rows say from which bar on that is
forgotten to 1e-6, which takes longer than the 1e-4 of a warm-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import talib
from numpy.typing import NDArray

from features import compute
from features.default import SPEC
from market import bars as market_bars
from market.bars import Bars, resample
from tests.features.series_kernels import KERNELS

Column = NDArray[np.float64]

TOLERANCE = 1e-6
"""Relative to the larger of the value and the feature's scale; a float32 alone is off by up to 6e-8."""


@dataclass(frozen=True)
class Market:
    """Bars and their columns as TA-Lib takes them."""

    bars: Bars

    def __getattr__(self, name: str) -> Column:
        return np.ascontiguousarray(self.bars[name])

    @property
    def ticks(self) -> tuple[Column, Column, Column]:
        """High, low and close as whole numbers of a thousandth."""
        return np.rint(self.high * 1000), np.rint(self.low * 1000), np.rint(self.close * 1000)

    @property
    def atr(self) -> Column:
        return talib.ATR(self.high, self.low, self.close, 14)

    @property
    def squares(self) -> Column:
        """Squared returns, 0 for the first bar, which has none."""
        return np.nan_to_num(talib.ROCP(self.close, 1)) ** 2


def lag(values: Column, bars: int) -> Column:
    return np.concatenate((np.full(bars, np.nan), values[:-bars]))


def correlation_with_time(close: Column, bars: int) -> Column:
    """CORREL of centred prices with a clock of 0 to 255: its sums of squares lose digits on large numbers."""
    clock = np.arange(close.size, dtype=float) % 256
    shifted = (np.arange(close.size) + 128.0) % 256
    centred = close - close.mean()
    first, second = talib.CORREL(centred, clock, bars), talib.CORREL(centred, shifted, bars)
    # A window in which one clock is set back is read on the other.
    return np.where(clock >= bars, first, second)


def macd(market: Market, part: int) -> Column:
    return talib.MACD(market.close, 12, 26, 9)[part] / market.atr


def bands(close: Column) -> tuple[Column, Column, Column]:
    return talib.BBANDS(close, 20, 2.0, 2.0)


def zscore(values: Column) -> Column:
    return (values - talib.SMA(values, 48)) / talib.STDDEV(values, 48)


def of_volume(part: Column, volume: Column) -> Column:
    return part / talib.SUM(volume, 20)


TABLE: dict[str, tuple[int, Callable[[Market], Column]]] = {
    # EMA and MACD, divided by ATR: what ours are measured in.
    "ema_9_distance": (300, lambda m: (m.close - talib.EMA(m.close, 9)) / m.atr),
    "ema_21_distance": (400, lambda m: (m.close - talib.EMA(m.close, 21)) / m.atr),
    "ema_50_distance": (700, lambda m: (m.close - talib.EMA(m.close, 50)) / m.atr),
    "ema_200_distance": (2000, lambda m: (m.close - talib.EMA(m.close, 200)) / m.atr),
    # The slope of an average is its momentum over five bars.
    "ema_9_slope": (300, lambda m: talib.MOM(talib.EMA(m.close, 9), 5) / 5 / m.atr),
    "ema_21_slope": (400, lambda m: talib.MOM(talib.EMA(m.close, 21), 5) / 5 / m.atr),
    "ema_50_slope": (700, lambda m: talib.MOM(talib.EMA(m.close, 50), 5) / 5 / m.atr),
    "ema_200_slope": (2000, lambda m: talib.MOM(talib.EMA(m.close, 200), 5) / 5 / m.atr),
    "macd_line": (400, lambda m: macd(m, 0)),
    "macd_signal": (400, lambda m: macd(m, 1)),
    "macd_histogram": (400, lambda m: macd(m, 2)),
    "adx_14": (400, lambda m: talib.ADX(m.high, m.low, m.close, 14)),
    "plus_di_14": (300, lambda m: talib.PLUS_DI(m.high, m.low, m.close, 14)),
    "minus_di_14": (300, lambda m: talib.MINUS_DI(m.high, m.low, m.close, 14)),
    "linreg_slope_20": (160, lambda m: talib.LINEARREG_SLOPE(m.close, 20) / m.atr),
    # R² is the square of the correlation with time.
    "linreg_r2_20": (20, lambda m: correlation_with_time(m.close, 20) ** 2),
    **{f"return_{n}": (n + 1, lambda m, n=n: talib.ROCP(m.close, n)) for n in (1, 5, 10, 20, 60)},
    "atr_14_fraction": (160, lambda m: talib.NATR(m.high, m.low, m.close, 14) / 100),
    # Position and width from the bands themselves.
    "bollinger_position_20": (20, lambda m: (m.close - bands(m.close)[1]) / (bands(m.close)[0] - bands(m.close)[1])),
    "bollinger_width_20": (20, lambda m: (bands(m.close)[0] - bands(m.close)[2]) / bands(m.close)[1]),
    # TA-Lib has no volatility of returns: the root of a mean of their squares.
    "realised_volatility_20": (21, lambda m: np.sqrt(talib.SMA(m.squares, 20))),
    "parkinson_volatility_20": (20, lambda m: np.sqrt(talib.SMA(talib.LN(m.high / m.low) ** 2, 20) / 4 / np.log(2))),
    "garman_klass_volatility_20": (
        20,
        lambda m: np.sqrt(
            talib.SMA(talib.LN(m.high / m.low) ** 2 / 2 - (2 * np.log(2) - 1) * talib.LN(m.close / m.open) ** 2, 20)
        ),
    ),
    "volatility_ratio": (49, lambda m: np.sqrt(talib.SMA(m.squares, 8) / talib.SMA(m.squares, 48))),
    "range_ratio": (48, lambda m: talib.SMA(m.high - m.low, 8) / talib.SMA(m.high - m.low, 48)),
    "rsi_14": (160, lambda m: talib.RSI(m.close, 14)),
    "stochastic_rsi_14": (280, lambda m: talib.STOCHRSI(m.close, 14, 14, 3, 0)[0]),
    "stochastic_rsi_signal_14": (282, lambda m: talib.STOCHRSI(m.close, 14, 14, 3, 0)[1]),
    "cci_20": (20, lambda m: talib.CCI(m.high, m.low, m.close, 20)),
    # In whole ticks, since TA-Lib decides by rounding whether an unchanged typical price rose or fell.
    "mfi_14": (15, lambda m: talib.MFI(*m.ticks, m.volume, 14)),
    "volume_zscore": (48, lambda m: zscore(m.volume)),
    "trades_zscore": (48, lambda m: zscore(m.trades)),
    # OBV and AD grow for ever: their momentum over 20 bars as a part of what was traded in them.
    "obv_slope_20": (21, lambda m: of_volume(talib.MOM(talib.OBV(m.close, m.volume), 20), m.volume)),
    "chaikin_money_flow_20": (
        21,
        lambda m: of_volume(talib.MOM(talib.AD(m.high, m.low, m.close, m.volume), 20), m.volume),
    ),
    "taker_imbalance_20": (20, lambda m: 2 * of_volume(talib.SUM(m.taker_buy_base, 20), m.volume) - 1),
    "vwap_distance_48": (
        160,
        lambda m: (
            (m.close - talib.SUM(talib.TYPPRICE(m.high, m.low, m.close) * m.volume, 48) / talib.SUM(m.volume, 48))
            / m.atr
        ),
    ),
    "body_fraction": (1, lambda m: talib.BOP(m.open, m.high, m.low, m.close)),
    "gap_fraction": (2, lambda m: (m.open - lag(m.close, 1)) / talib.TRANGE(m.high, m.low, m.close)),
    "bar_high_move": (160, lambda m: (m.high - lag(m.close, 1)) / m.atr),
}
"""Each feature: the bar from which on the two agree, and the same from TA-Lib."""

FILES = (
    "vision2026-02/LTCUSDT-1m-vision2026-02.parquet",
    "vision2026-02/AVAXUSDT-1m-vision2026-02.parquet",
    "um2025/BTCUSDT-1m-um2025.parquet",
)


@cache
def recorded(path: Path) -> tuple[Market, NDArray[np.float32]]:
    bars = resample(market_bars.read(path), "5m")
    return Market(bars), compute(bars, KERNELS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.partition("-")[0])
@pytest.mark.parametrize("name", TABLE)
def test_agrees_with_ta_lib(shared_data: Path, name: str, file: str) -> None:
    market, rows = recorded(shared_data / "klines" / file)
    start, of = TABLE[name]
    if np.isnan(market.trades).all() and name in ("trades_zscore", "taker_imbalance_20"):
        assert np.isnan(rows[:, KERNELS.index(name)]).all()
        return
    feature = KERNELS.features[KERNELS.index(name)]
    found = rows[start - 1 :, KERNELS.index(name)].astype(np.float64)
    expected = of(market)[start - 1 :]
    assert np.isfinite(found).all()
    assert np.isfinite(expected).all()
    error = np.abs(found - expected) / np.maximum(np.abs(expected), feature.scale)
    assert error.max() <= TOLERANCE, (int(error.argmax()) + start, found[error.argmax()], expected[error.argmax()])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.partition("-")[0])
def test_the_place_in_the_range_is_that_of_williams(shared_data: Path, file: str) -> None:
    bars = resample(market_bars.read(shared_data / "klines" / file), "5m")
    market = Market(bars)
    found = compute(bars, SPEC)[47:, SPEC.index("range_position_48")]
    expected = 1.0 + talib.WILLR(market.high, market.low, market.close, 48)[47:] / 100.0
    assert np.abs(found - expected).max() <= TOLERANCE


def test_only_what_ta_lib_lacks_is_missing_from_the_table() -> None:
    lacking = {"upper_wick_fraction", "lower_wick_fraction", "inside_bar", "outside_bar", "taker_imbalance"}
    lacking |= {"bar_open_move", "bar_low_move", "bar_close_move", "cusum_event"}
    assert set(KERNELS.names) - set(TABLE) == lacking
