"""The regime against its rule written out in numpy, hysteresis on candle tables, and that it forgets to the bit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import contract, proofs
from features.engine import compute
from features.families import regime
from features.families.shared import SHARED
from features.families.trend import DIRECTIONAL
from features.families.volatility import BOLLINGER
from features.spec import FeatureSpec
from market.bars import Bars, read, resample
from tests.features.series import make_bars

SPEC = FeatureSpec((regime.REGIME_FAMILY, DIRECTIONAL, BOLLINGER), SHARED)
WARMUP = 320
Rows = NDArray[np.float32]


def wilder(values: NDArray[np.float64]) -> float:
    """The last value of Wilder's average over 14."""
    average = float(values[:14].mean())
    for value in values[14:]:
        average += (float(value) - average) / 14
    return average


def index_of(plus: NDArray[np.float64], minus: NDArray[np.float64]) -> float:
    """The ADX of a stretch of directional movements."""
    dx = []
    for end in range(14, len(plus) + 1):
        up, down = wilder(plus[:end]), wilder(minus[:end])
        dx.append(100 * abs(up - down) / (up + down) if up + down else 0.0)
    return wilder(np.array(dx))


def indices(bars: Bars) -> NDArray[np.float64]:
    """The ADX of each bar, from the first bar of the block of the clock before its own."""
    up = np.diff(bars["high"], prepend=bars["high"][0])
    down = -np.diff(bars["low"], prepend=bars["low"][0])
    plus = np.where((up > down) & (up > 0), up, 0.0)
    minus = np.where((down > up) & (down > 0), down, 0.0)
    block = bars["open_time"] // 300_000 // 96
    found = np.full(len(bars), np.nan)
    for at in range(192, len(bars)):
        begin = int(np.argmax(block == block[at] - 1))
        found[at] = index_of(plus[begin : at + 1], minus[begin : at + 1])
    return found


def widths(bars: Bars) -> NDArray[np.float64]:
    """The Bollinger width in its own mean over 96 bars."""
    closes = np.lib.stride_tricks.sliding_window_view(bars["close"], 20)
    width = 4 * closes.std(axis=1) / closes.mean(axis=1)
    usual = np.lib.stride_tricks.sliding_window_view(width, 96).mean(axis=1)
    return np.concatenate((np.full(114, np.nan), width[95:] / usual))


def held(values: NDArray[np.float64], enter: float, leave: float) -> NDArray[np.bool_]:
    """Whether the last 32 values reach `enter` and none since has been below `leave`."""
    found = np.zeros(values.size, dtype=bool)
    for at in range(values.size):
        part = values[max(0, at - 31) : at + 1]
        reached = np.flatnonzero(part >= enter)
        found[at] = bool(reached.size) and not (part[reached[-1] :] < leave).any()
    return found


def textbook(bars: Bars) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Regime and time in it."""
    trend, wide = held(indices(bars), 25.0, 20.0), held(widths(bars), 1.6, 1.2)
    code = np.where(wide, 2, np.where(trend, 1, 0))
    time = np.ones(code.size, dtype=np.int64)
    for at in range(1, code.size):
        time[at] = min(time[at - 1] + 1, 96) if code[at] == code[at - 1] else 1
    return code, time


@pytest.mark.parametrize("seed", [1, 2])
def test_it_is_its_rule(seed: int) -> None:
    bars = make_bars(900, seed=seed, missing=[400, 401, 672, 673])
    rows = compute(bars, SPEC)[WARMUP - 1 :]
    code, time = textbook(bars)
    assert np.array_equal(rows[:, 0], code[WARMUP - 1 :])
    assert np.array_equal(rows[:, 1], time[WARMUP - 1 :])
    assert set(rows[:, 0].tolist()) == {0.0, 1.0, 2.0}


def test_its_adx_is_within_a_point_of_the_usual_one(shared_data: Path) -> None:
    minutes = read(shared_data / "klines/vision2026-02/ALGOUSDT-1m-vision2026-02.parquet")
    bars = resample(minutes[:5_000], "5m")
    difference = indices(bars) - compute(bars, SPEC)[:, SPEC.index("adx_14")]
    assert np.nanmax(np.abs(difference[WARMUP:])) < 1.0
    assert np.nanmedian(np.abs(difference[WARMUP:])) < 0.02


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # In at the first threshold, through the band, out below the second.
        ([24, 25, 24, 20, 19.9, 24], [0, 1, 1, 1, 0, 0]),
        # From below, the band is not enough.
        ([19, 24, 24.9], [0, 0, 0]),
        # 31 bars in the band are held, the 32nd is not; nor is what follows in the band.
        ([30, *[22] * 31, 22, 22], [*[1] * 32, 0, 0]),
        # The threshold reached again counts from there.
        ([30, *[22] * 20, 26, *[22] * 31, 22], [*[1] * 53, 0]),
    ],
)
def test_hysteresis(values: list[float], expected: list[int]) -> None:
    since, found = 32.0, []
    for value in values:
        since = regime.bars_since(since, value, 25.0, 20.0)
        found.append(int(since < 32))
    assert found == expected


def test_a_straight_rise_trends_and_a_burst_is_volatile() -> None:
    bars = make_bars(700, seed=4, step=0.0005)
    for name in ("open", "high", "low", "close"):
        bars[name][400:] *= np.cumprod(np.full(300, 1.002))
    rows = compute(bars, SPEC)
    # Wide at first: the bands open when the rise begins. Then that width is the usual one.
    assert rows[410, 0] == regime.VOLATILE
    assert (rows[600:, 0] == regime.TRENDING).all()
    assert rows[-1, 1] == regime.MOST_BARS


def test_a_flat_market_ranges() -> None:
    bars = make_bars(500, seed=3)
    for name in ("open", "high", "low", "close"):
        bars[name] = 0.1
    assert compute(bars, SPEC)[-1, :2].tolist() == [regime.RANGING, regime.MOST_BARS]


def test_names() -> None:
    assert [regime.regime_name(code) for code in (0.0, 1.0, 2.0)] == list(regime.REGIMES)
    assert regime.regime_name(math.nan) == "unknown"


def test_causality_and_the_contract(shared_data: Path) -> None:
    minutes = read(shared_data / "klines/vision2026-02/LTCUSDT-1m-vision2026-02.parquet")
    for bars in (resample(minutes, "5m")[:3000], make_bars(2500, seed=42, missing=[500, 501, *range(1200, 1212)])):
        cuts = proofs.cut_points(len(bars), 200)

        def rows_of(bars: Bars) -> Rows:
            return compute(bars, SPEC)

        assert proofs.prefix(rows_of, SPEC.names, bars, cuts) == []
        assert proofs.poison(rows_of, SPEC.names, bars, cuts[::8]) == []
        assert proofs.live(bars, cuts[::20], SPEC) == []
        assert proofs.forgetting(bars, range(1, len(bars) - WARMUP, 37), SPEC) == []
        assert contract.breaches(SPEC, bars) == []


def test_from_every_origin_it_is_the_same_after_its_warm_up() -> None:
    bars = make_bars(900, seed=11)
    whole = compute(bars, SPEC)[:, :2]
    for origin in range(0, 500, 3):
        assert np.array_equal(compute(bars[origin:], SPEC)[WARMUP - 1 :, :2], whole[origin + WARMUP - 1 :])
