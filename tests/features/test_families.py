"""Each indicator against the textbook, written out plainly, and its declared value where there is nothing to divide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features import SPEC, compute
from market.bars import Bars
from tests.features.series import make_bars

Column = NDArray[np.float64]


@pytest.fixture(scope="module")
def bars() -> Bars:
    return make_bars(1200, seed=9)


@pytest.fixture(scope="module")
def rows(bars: Bars) -> NDArray[np.float32]:
    return compute(bars)


def column(rows: NDArray[np.float32], name: str) -> Column:
    return rows[:, SPEC.index(name)].astype(np.float64)


def agrees(found: Column, expected: Column, start: int, tolerance: float = 1e-6, scale: float = 1.0) -> None:
    difference = np.abs(found[start:] - expected[start:])
    assert (difference <= tolerance * np.maximum(np.abs(expected[start:]), scale)).all(), difference.max()


def wilder(values: Column, period: int = 14) -> Column:
    """The mean of the first `period` values, then (period - 1) parts of the last average to one of the new value."""
    out = np.full(values.size, np.nan)
    out[period - 1] = values[:period].mean()
    for i in range(period, values.size):
        out[i] = (out[i - 1] * (period - 1) + values[i]) / period
    return out


def ema(values: Column, span: int) -> Column:
    """Seeded with the mean of the first `span` values, as charting packages do."""
    out = np.full(values.size, np.nan)
    out[span - 1] = values[:span].mean()
    for i in range(span, values.size):
        out[i] = out[i - 1] + 2 / (span + 1) * (values[i] - out[i - 1])
    return out


def true_range(bars: Bars) -> Column:
    """From the second bar on; the first has no close before it."""
    before = bars["close"][:-1]
    high, low = bars["high"][1:], bars["low"][1:]
    return np.max([high - low, np.abs(high - before), np.abs(low - before)], axis=0)


def atr(bars: Bars) -> Column:
    return np.concatenate(([np.nan], wilder(true_range(bars))))


def rolling(values: Column, width: int, function: object) -> Column:
    windows = np.lib.stride_tricks.sliding_window_view(values, width)
    return np.concatenate((np.full(width - 1, np.nan), [function(window) for window in windows]))  # type: ignore[operator]


def test_atr(bars: Bars, rows: NDArray[np.float32]) -> None:
    # Seeded as the textbook does, so it agrees as soon as it counts and would have before.
    agrees(column(rows, "atr_14_fraction"), atr(bars) / bars["close"], 159, scale=1e-3)


@pytest.mark.parametrize("span", [9, 21])
def test_ema_distance(bars: Bars, rows: NDArray[np.float32], span: int) -> None:
    agrees(column(rows, f"ema_{span}_distance"), (bars["close"] - ema(bars["close"], span)) / atr(bars), 400)


def test_ema_slope(bars: Bars, rows: NDArray[np.float32]) -> None:
    average = ema(bars["close"], 21)
    slope = np.concatenate((np.full(5, np.nan), average[5:] - average[:-5])) / 5 / atr(bars)
    agrees(column(rows, "ema_21_slope"), slope, 400, scale=0.1)


def test_macd(bars: Bars, rows: NDArray[np.float32]) -> None:
    macd = ema(bars["close"], 12) - ema(bars["close"], 26)
    histogram = macd[25:] - ema(macd[25:], 9)
    agrees(column(rows, "macd_histogram")[25:], histogram / atr(bars)[25:], 450, scale=0.1)


def test_rsi(bars: Bars, rows: NDArray[np.float32]) -> None:
    change = np.diff(bars["close"])
    gain, loss = wilder(np.maximum(change, 0)), wilder(np.maximum(-change, 0))
    agrees(column(rows, "rsi_14")[1:], 100 - 100 / (1 + gain / loss), 159)


def test_adx(bars: Bars, rows: NDArray[np.float32]) -> None:
    up, down = np.diff(bars["high"]), -np.diff(bars["low"])
    plus = wilder(np.where((up > down) & (up > 0), up, 0.0)) / wilder(true_range(bars)) * 100
    minus = wilder(np.where((down > up) & (down > 0), down, 0.0)) / wilder(true_range(bars)) * 100
    dx = 100 * np.abs(plus - minus) / (plus + minus)
    agrees(column(rows, "di_difference_14")[1:], plus - minus, 179)
    agrees(column(rows, "adx_14")[14:], wilder(dx[13:]), 220)


def test_cci(bars: Bars, rows: NDArray[np.float32]) -> None:
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    mean = rolling(typical, 20, np.mean)
    spread = rolling(typical, 20, lambda window: np.abs(window - window.mean()).mean())
    agrees(column(rows, "cci_20"), (typical - mean) / (0.015 * spread), 19)


def test_bollinger(bars: Bars, rows: NDArray[np.float32]) -> None:
    mean, deviation = rolling(bars["close"], 20, np.mean), rolling(bars["close"], 20, np.std)
    agrees(column(rows, "bollinger_position_20"), (bars["close"] - mean) / (2 * deviation), 19)
    agrees(column(rows, "bollinger_width_20"), 4 * deviation / mean, 19, scale=0.01)


def test_range_ratio(bars: Bars, rows: NDArray[np.float32]) -> None:
    span = bars["high"] - bars["low"]
    agrees(column(rows, "range_ratio"), rolling(span, 8, np.mean) / rolling(span, 48, np.mean), 47)


def test_regression(bars: Bars, rows: NDArray[np.float32]) -> None:
    time = np.arange(20)
    slope = rolling(bars["close"], 20, lambda window: np.polyfit(time, window, 1)[0])
    fit = rolling(bars["close"], 20, lambda window: np.corrcoef(time, window)[0, 1] ** 2)
    agrees(column(rows, "linreg_slope_20"), slope / atr(bars), 159, scale=0.1)
    agrees(column(rows, "linreg_r2_20"), fit, 19)


@pytest.mark.parametrize("width", [1, 12, 48])
def test_returns(bars: Bars, rows: NDArray[np.float32], width: int) -> None:
    expected = np.concatenate((np.full(width, np.nan), bars["close"][width:] / bars["close"][:-width] - 1))
    agrees(column(rows, f"return_{width}"), expected, width, scale=0.01)


def test_volume(bars: Bars, rows: NDArray[np.float32]) -> None:
    volume = bars["volume"]
    zscore = (volume - rolling(volume, 48, np.mean)) / rolling(volume, 48, np.std)
    agrees(column(rows, "volume_zscore"), zscore, 47)
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    vwap = rolling(typical * volume, 48, np.sum) / rolling(volume, 48, np.sum)
    agrees(column(rows, "vwap_distance_48"), (bars["close"] - vwap) / atr(bars), 159)
    with np.errstate(invalid="ignore"):
        imbalance = np.where(volume > 0, 2 * bars["taker_buy_base"] / volume - 1, 0.0)
    agrees(column(rows, "taker_imbalance"), imbalance, 0)


def test_candle(bars: Bars, rows: NDArray[np.float32]) -> None:
    alive = bars["high"] > bars["low"]
    span = np.where(alive, bars["high"] - bars["low"], 1.0)
    body = np.where(alive, (bars["close"] - bars["open"]) / span, 0.0)
    agrees(column(rows, "body_fraction"), body, 0)
    parts = column(rows, "upper_wick_fraction") + column(rows, "lower_wick_fraction") + np.abs(body)
    agrees(parts, alive.astype(float), 0)
    before = np.concatenate(([np.nan], bars["close"][:-1]))
    for price in ("open", "high", "low", "close"):
        agrees(column(rows, f"bar_{price}_move"), (bars[price] - before) / atr(bars), 159)


def test_swings(bars: Bars, rows: NDArray[np.float32]) -> None:
    high, low, close, unit = bars["high"], bars["low"], bars["close"], atr(bars)
    found = column(rows, "swing_high_distance"), column(rows, "swing_low_distance")
    for now in range(200, 700):
        # The newest bar with three on either side that do not reach it, confirmed within the last 64 bars.
        tops = [
            i
            for i in range(now - 3, now - 67, -1)
            if high[i] > high[i - 3 : i].max() and high[i] >= high[i + 1 : i + 4].max()
        ]
        bottoms = [
            i
            for i in range(now - 3, now - 67, -1)
            if low[i] < low[i - 3 : i].min() and low[i] <= low[i + 1 : i + 4].min()
        ]
        top = high[tops[0]] if tops else high[now - 63 : now + 1].max()
        bottom = low[bottoms[0]] if bottoms else low[now - 63 : now + 1].min()
        assert found[0][now] == pytest.approx((top - close[now]) / unit[now], rel=1e-5, abs=1e-6)
        assert found[1][now] == pytest.approx((close[now] - bottom) / unit[now], rel=1e-5, abs=1e-6)


def test_range_position(bars: Bars, rows: NDArray[np.float32]) -> None:
    top, bottom = rolling(bars["high"], 48, np.max), rolling(bars["low"], 48, np.min)
    agrees(column(rows, "range_position_48"), (bars["close"] - bottom) / (top - bottom), 47)


def test_cusum(bars: Bars, rows: NDArray[np.float32]) -> None:
    moves = np.concatenate(([0.0], np.diff(bars["close"]))) / atr(bars)
    events, up, down = np.zeros(len(bars)), 0.0, 0.0
    for i in range(160, len(bars)):
        if bars["open_time"][i] // 300_000 % 72 == 0:
            up = down = 0.0
        up, down = max(up + moves[i], 0.0), min(down + moves[i], 0.0)
        if up > 3.0 or down < -3.0:
            events[i] = 1.0 if up > 3.0 else -1.0
            up = down = 0.0
    agrees(column(rows, "cusum_event"), events, 231)
    assert 0.01 < np.abs(events[231:]).mean() < 0.1


def test_a_flat_market_has_declared_values() -> None:
    bars = make_bars(400, seed=3)
    for name in ("open", "high", "low", "close"):
        bars[name] = 0.1  # not a binary fraction, so sums of it round
    bars["volume"] = bars["taker_buy_base"] = 0.0
    last = dict(zip(SPEC.names, compute(bars)[-1].tolist(), strict=True))
    expected = dict.fromkeys(SPEC.names, 0.0) | {"rsi_14": 50.0, "range_ratio": 1.0, "range_position_48": 0.5}
    assert last == expected


def test_a_market_that_wakes_up_stays_within_bounds() -> None:
    bars = make_bars(3000, seed=3)
    for name in ("open", "high", "low", "close"):
        bars[name][300:-1] = bars["close"][299]
    rows = compute(bars)
    assert np.isfinite(rows[-1]).all()
    assert np.abs(rows[-1, SPEC.index("bar_close_move")]) <= 100


def test_missing_taker_flow_is_nan_there_and_nowhere_else(bars: Bars) -> None:
    poor = bars.copy()
    for name in ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote"):
        poor[name][300:400] = np.nan
    expected, found = compute(bars), compute(poor)
    missing = np.isnan(found) & ~np.isnan(expected)
    assert np.argwhere(missing)[:, 1].tolist() == [SPEC.index("taker_imbalance")] * 100
    assert np.array_equal(np.where(missing, 0, expected), np.where(missing, 0, found), equal_nan=True)


def test_each_feature_is_nan_exactly_until_its_warm_up(rows: NDArray[np.float32]) -> None:
    for feature, values in zip(SPEC.features, rows.T, strict=True):
        assert np.isnan(values[: feature.warmup - 1]).all(), feature.name
        assert np.isfinite(values[feature.warmup - 1 :]).all(), feature.name
    assert max(feature.warmup for feature in SPEC.features) == SPEC.warmup <= 240
