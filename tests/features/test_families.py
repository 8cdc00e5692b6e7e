"""Each indicator against the textbook, written out plainly, and its declared value where there is nothing to divide."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features import compute
from market.bars import Bars
from tests.features.series import make_bars
from tests.features.series_kernels import KERNELS

Column = NDArray[np.float64]


@pytest.fixture(scope="module")
def bars() -> Bars:
    return make_bars(2400, seed=9)


@pytest.fixture(scope="module")
def rows(bars: Bars) -> NDArray[np.float32]:
    return compute(bars, KERNELS)


def column(rows: NDArray[np.float32], name: str) -> Column:
    return rows[:, KERNELS.index(name)].astype(np.float64)


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


@pytest.mark.parametrize(("span", "start"), [(9, 400), (21, 400), (50, 700), (200, 2000)])
def test_averages(bars: Bars, rows: NDArray[np.float32], span: int, start: int) -> None:
    average = ema(bars["close"], span)
    agrees(column(rows, f"ema_{span}_distance"), (bars["close"] - average) / atr(bars), start)
    slope = np.concatenate((np.full(5, np.nan), average[5:] - average[:-5])) / 5 / atr(bars)
    agrees(column(rows, f"ema_{span}_slope"), slope, start, scale=0.1)


def test_macd(bars: Bars, rows: NDArray[np.float32]) -> None:
    line = (ema(bars["close"], 12) - ema(bars["close"], 26))[25:]
    signal, unit = ema(line, 9), atr(bars)[25:]
    agrees(column(rows, "macd_line")[25:], line / unit, 450)
    agrees(column(rows, "macd_signal")[25:], signal / unit, 450)
    agrees(column(rows, "macd_histogram")[25:], (line - signal) / unit, 450, scale=0.1)


def test_rsi(bars: Bars, rows: NDArray[np.float32]) -> None:
    change = np.diff(bars["close"])
    gain, loss = wilder(np.maximum(change, 0)), wilder(np.maximum(-change, 0))
    index = 100 - 100 / (1 + gain / loss)
    agrees(column(rows, "rsi_14")[1:], index, 159)
    lowest, highest = rolling(index, 14, np.min), rolling(index, 14, np.max)
    stochastic = 100 * (index - lowest) / (highest - lowest)
    agrees(column(rows, "stochastic_rsi_14")[1:], stochastic, 279, scale=50)
    agrees(column(rows, "stochastic_rsi_signal_14")[1:], rolling(stochastic, 3, np.mean), 281, scale=50)


def test_adx(bars: Bars, rows: NDArray[np.float32]) -> None:
    up, down = np.diff(bars["high"]), -np.diff(bars["low"])
    plus = wilder(np.where((up > down) & (up > 0), up, 0.0)) / wilder(true_range(bars)) * 100
    minus = wilder(np.where((down > up) & (down > 0), down, 0.0)) / wilder(true_range(bars)) * 100
    dx = 100 * np.abs(plus - minus) / (plus + minus)
    agrees(column(rows, "plus_di_14")[1:], plus, 179)
    agrees(column(rows, "minus_di_14")[1:], minus, 179)
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


def test_mfi(bars: Bars, rows: NDArray[np.float32]) -> None:
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    flow, rose = typical[1:] * bars["volume"][1:], np.diff(typical)
    rising, falling = rolling(flow * (rose > 0), 14, np.sum), rolling(flow * (rose < 0), 14, np.sum)
    agrees(column(rows, "mfi_14")[1:], 100 * rising / (rising + falling), 14)


def test_volatility_estimators(bars: Bars, rows: NDArray[np.float32]) -> None:
    squares = (bars["close"][1:] / bars["close"][:-1] - 1) ** 2
    agrees(column(rows, "realised_volatility_20")[1:], np.sqrt(rolling(squares, 20, np.mean)), 20, scale=1e-3)
    reach, body = np.log(bars["high"] / bars["low"]) ** 2, np.log(bars["close"] / bars["open"]) ** 2
    parkinson = np.sqrt(rolling(reach, 20, np.mean) / (4 * np.log(2)))
    agrees(column(rows, "parkinson_volatility_20"), parkinson, 19, scale=1e-3)
    garman_klass = np.sqrt(rolling(0.5 * reach - (2 * np.log(2) - 1) * body, 20, np.mean))
    agrees(column(rows, "garman_klass_volatility_20"), garman_klass, 19, scale=1e-3)


def test_short_to_long(bars: Bars, rows: NDArray[np.float32]) -> None:
    squares = (bars["close"][1:] / bars["close"][:-1] - 1) ** 2
    expected = np.sqrt(rolling(squares, 8, np.mean) / rolling(squares, 48, np.mean))
    agrees(column(rows, "volatility_ratio")[1:], expected, 48)
    span = bars["high"] - bars["low"]
    agrees(column(rows, "range_ratio"), rolling(span, 8, np.mean) / rolling(span, 48, np.mean), 47)


def test_regression(bars: Bars, rows: NDArray[np.float32]) -> None:
    time = np.arange(20)
    slope = rolling(bars["close"], 20, lambda window: np.polyfit(time, window, 1)[0])
    fit = rolling(bars["close"], 20, lambda window: np.corrcoef(time, window)[0, 1] ** 2)
    agrees(column(rows, "linreg_slope_20"), slope / atr(bars), 159, scale=0.1)
    agrees(column(rows, "linreg_r2_20"), fit, 19)


@pytest.mark.parametrize("width", [1, 5, 10, 20, 60])
def test_returns(bars: Bars, rows: NDArray[np.float32], width: int) -> None:
    expected = np.concatenate((np.full(width, np.nan), bars["close"][width:] / bars["close"][:-width] - 1))
    agrees(column(rows, f"return_{width}"), expected, width, scale=0.01)


def test_volume(bars: Bars, rows: NDArray[np.float32]) -> None:
    volume = bars["volume"]
    for name in ("volume", "trades"):
        values = bars[name]
        zscore = (values - rolling(values, 48, np.mean)) / rolling(values, 48, np.std)
        agrees(column(rows, f"{name}_zscore"), zscore, 47)
    typical = (bars["high"] + bars["low"] + bars["close"]) / 3
    vwap = rolling(typical * volume, 48, np.sum) / rolling(volume, 48, np.sum)
    agrees(column(rows, "vwap_distance_48"), (bars["close"] - vwap) / atr(bars), 159)
    with np.errstate(invalid="ignore"):
        imbalance = np.where(volume > 0, 2 * bars["taker_buy_base"] / volume - 1, 0.0)
    agrees(column(rows, "taker_imbalance"), imbalance, 0)


def test_flow_of_twenty_bars(bars: Bars, rows: NDArray[np.float32]) -> None:
    volume, total = bars["volume"], rolling(bars["volume"], 20, np.sum)
    balance = np.cumsum(np.concatenate(([0.0], np.sign(np.diff(bars["close"])) * volume[1:])))
    agrees(column(rows, "obv_slope_20")[20:], (balance[20:] - balance[:-20]) / total[20:], 0)
    span = bars["high"] - bars["low"]
    place = np.where(span > 0, (2 * bars["close"] - bars["high"] - bars["low"]) / np.where(span > 0, span, 1.0), 0.0)
    agrees(column(rows, "chaikin_money_flow_20"), rolling(place * volume, 20, np.sum) / total, 19)
    taken = rolling(bars["taker_buy_base"], 20, np.sum)
    agrees(column(rows, "taker_imbalance_20"), 2 * taken / total - 1, 19)


def test_candle(bars: Bars, rows: NDArray[np.float32]) -> None:
    alive = bars["high"] > bars["low"]
    span = np.where(alive, bars["high"] - bars["low"], 1.0)
    body = np.where(alive, (bars["close"] - bars["open"]) / span, 0.0)
    agrees(column(rows, "body_fraction"), body, 0)
    parts = column(rows, "upper_wick_fraction") + column(rows, "lower_wick_fraction") + np.abs(body)
    agrees(parts, alive.astype(float), 0)
    before = np.concatenate(([np.nan], bars["close"][:-1]))
    reach = np.concatenate(([np.nan], true_range(bars)))
    gap = np.where(reach > 0, (bars["open"] - before) / np.where(reach > 0, reach, 1.0), 0.0)
    agrees(column(rows, "gap_fraction"), gap, 1)
    high, low = np.diff(bars["high"]), np.diff(bars["low"])
    agrees(column(rows, "inside_bar")[1:], ((high < 0) & (low > 0)).astype(float), 0)
    agrees(column(rows, "outside_bar")[1:], ((high > 0) & (low < 0)).astype(float), 0)
    for price in ("open", "high", "low", "close"):
        agrees(column(rows, f"bar_{price}_move"), (bars[price] - before) / atr(bars), 159)


def cusum_events(bars: Bars) -> NDArray[np.float64]:
    """The events as their module tells them, from the bar on at which the ATR counts."""
    moves = np.concatenate(([0.0], np.diff(bars["close"]))) / atr(bars)
    events, up, down, block = np.zeros(len(bars)), 0.0, 0.0, -1
    for i in range(160, len(bars)):
        if bars["open_time"][i] // 300_000 // 72 != block:
            block = bars["open_time"][i] // 300_000 // 72
            up = down = 0.0
        up, down = max(up + moves[i], 0.0), min(down + moves[i], 0.0)
        if up > 3.0 or down < -3.0:
            events[i] = 1.0 if up > 3.0 else -1.0
            up = down = 0.0
    return events


def test_cusum(bars: Bars, rows: NDArray[np.float32]) -> None:
    events = cusum_events(bars)
    agrees(column(rows, "cusum_event"), events, 231)
    assert 0.01 < np.abs(events[231:]).mean() < 0.1


def test_cusum_starts_again_with_the_clock_where_the_bar_of_that_time_is_missing() -> None:
    clock = make_bars(3000, seed=9)["open_time"] // 300_000 % 72
    bars = make_bars(3000, seed=9, missing=np.flatnonzero(clock < 2).tolist())
    events = cusum_events(bars)
    agrees(column(compute(bars, KERNELS), "cusum_event"), events, 231)
    never_again = bars.copy()
    never_again["open_time"] = bars["open_time"][0] + 300_000 * np.arange(len(bars))
    assert not np.array_equal(cusum_events(never_again), events)


FLAT = dict.fromkeys(KERNELS.names, 0.0) | dict.fromkeys(
    ("rsi_14", "stochastic_rsi_14", "stochastic_rsi_signal_14", "mfi_14"), 50.0
)
FLAT |= {"range_ratio": 1.0, "volatility_ratio": 1.0}
"""What every feature is declared to be where nothing moves and nothing is traded."""


def flatten(bars: Bars, start: int, price: float) -> None:
    """Nothing happens from `start` on."""
    for name in ("open", "high", "low", "close"):
        bars[name][start:] = price
    for name in ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote"):
        bars[name][start:] = 0.0


def test_a_flat_market_has_declared_values() -> None:
    bars = make_bars(1400, seed=3)
    flatten(bars, 0, 0.1)  # not a binary fraction, so sums of it round
    rows = compute(bars, KERNELS)
    assert dict(zip(KERNELS.names, rows[-1].tolist(), strict=True)) == FLAT
    assert len(np.unique(rows[KERNELS.warmup - 1 :], axis=0)) == 1


def test_a_market_that_dies_comes_to_the_declared_values() -> None:
    """What looks back a fixed way gets there exactly, whatever has been in its window before."""
    bars = make_bars(1600, seed=3)
    flatten(bars, 1400, bars["close"][1399] * 1.1)
    last = dict(zip(KERNELS.names, compute(bars, KERNELS)[-1].tolist(), strict=True))
    fading = {name for name in KERNELS.names if name.startswith(("ema", "macd", "adx", "plus", "minus", "atr"))}
    for name in set(KERNELS.names) - fading - {"rsi_14"}:
        assert last[name] == FLAT[name], name


def test_a_window_is_exact_after_a_jump_has_left_it() -> None:
    """A thousandfold price and back, then a hundredth of a tick of movement: no digits are lost to what was there."""
    bars = make_bars(1200, seed=4, step=2e-7)
    wild = bars.copy()
    for name in ("open", "high", "low", "close", "volume", "trades", "taker_buy_base"):
        wild[name][700:730] *= 1000
    names = [n for n in KERNELS.names if KERNELS.features[KERNELS.index(n)].warmup <= 61 or n == "cci_20"]
    columns = [KERNELS.index(name) for name in names]
    expected, found = compute(bars, KERNELS)[792:, columns], compute(wild, KERNELS)[792:, columns]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


def test_a_market_that_wakes_up_stays_within_bounds() -> None:
    bars = make_bars(16_000, seed=3)
    flatten(bars, 1400, bars["close"][1399])
    bars[-1:] = make_bars(1, seed=5, price=bars["close"][1399])
    bars["open_time"][-1] = bars["open_time"][-2] + 300_000
    bars["close_time"][-1] = bars["open_time"][-1] + 299_999
    rows = compute(bars, KERNELS)[KERNELS.warmup :]
    assert np.isfinite(rows).all()
    for feature, values in zip(KERNELS.features, rows.T, strict=True):
        assert feature.low <= values.min(), feature.name
        assert values.max() <= feature.high, feature.name


MISSING = {"taker_imbalance": 0, "taker_imbalance_20": 19, "trades_zscore": 47}
"""The features of what a source may not record, and for how many bars more they are NaN."""


def test_what_is_missing_is_nan_there_and_nowhere_else(bars: Bars) -> None:
    poor = bars.copy()
    # A bar without volume says no more of its takers than the others.
    poor["volume"][350:353] = 0.0
    expected = compute(poor, KERNELS)
    for name in ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote"):
        poor[name][300:400] = np.nan
    found = compute(poor, KERNELS)
    missing = np.isnan(found) & ~np.isnan(expected)
    for name, more in MISSING.items():
        assert np.flatnonzero(missing[:, KERNELS.index(name)]).tolist() == list(range(300, 400 + more)), name
        assert KERNELS.features[KERNELS.index(name)].nan
    assert set(np.argwhere(missing)[:, 1]) == {KERNELS.index(name) for name in MISSING}
    assert np.array_equal(np.where(missing, 0, expected), np.where(missing, 0, found), equal_nan=True)


def test_a_source_without_takers_has_no_imbalance_at_all(bars: Bars) -> None:
    poor = bars.copy()
    poor["taker_buy_base"] = np.nan
    assert (poor["volume"] == 0.0).any()
    rows = compute(poor, KERNELS)
    for name in ("taker_imbalance", "taker_imbalance_20"):
        assert np.isnan(column(rows, name)).all(), name


def test_each_feature_is_nan_exactly_until_its_warm_up(rows: NDArray[np.float32]) -> None:
    for feature, values in zip(KERNELS.features, rows.T, strict=True):
        assert np.isnan(values[: feature.warmup - 1]).all(), feature.name
        assert np.isfinite(values[feature.warmup - 1 :]).all(), feature.name
        assert feature.warmup <= 320 or feature.name.startswith("ema_200"), feature.name
