"""The volume profile against the textbook in numpy, on candle tables, and where there is nothing to measure."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import contract, proofs
from features.engine import compute
from features.families import profile
from features.families.shared import SHARED
from features.families.volatility import BOLLINGER
from features.spec import FeatureSpec
from market.bars import Bars, read, resample
from tests.features.series import make_bars
from tests.features.steady import steady

SPEC = FeatureSpec((profile.PROFILE, BOLLINGER), SHARED)
WARMUP = 192
POC, VALUE_HIGH, VALUE_LOW, ABOVE, BELOW = range(5)
Rows = NDArray[np.float32]


def histogram(bars: Bars) -> tuple[float, int, NDArray[np.float64]]:
    """The width of the bins, the number of the first and the volume in each, of a window of bars."""
    top, bottom = bars["high"].max(), bars["low"].min()
    # The power of two of which 16 to 32 make the range.
    width = 2.0 ** (math.floor(math.log2(max(top - bottom, top * 2.0**-30))) - 4)
    first, last = math.floor(bottom / width), math.floor(top / width)
    edges = np.arange(first, last + 2) * width
    volume = np.zeros(last - first + 1)
    for bar in bars:
        if bar["high"] == bar["low"]:
            volume[math.floor(bar["low"] / width) - first] += bar["volume"]
        else:
            overlap = np.clip(np.minimum(edges[1:], bar["high"]) - np.maximum(edges[:-1], bar["low"]), 0, None)
            volume += bar["volume"] * overlap / (bar["high"] - bar["low"])
    # Of bins that are alike none is larger by rounding.
    return width, first, np.round(volume / max(volume.max(), 1e-300), 10) * volume.max()


def levels(bars: Bars) -> tuple[float, float, float]:
    """Point of control and the value area's edges."""
    width, first, volume = histogram(bars)
    poc = low = high = int(np.argmax(volume))
    while volume[low : high + 1].sum() < 0.7 * volume.sum() * (1 - 1e-9):
        above = volume[high + 1] if high + 1 < volume.size else -1.0
        below = volume[low - 1] if low else -1.0
        if above >= below:
            high += 1
        else:
            low -= 1
    return (first + poc + 0.5) * width, (first + high + 1) * width, (first + low) * width


def nodes(bars: Bars) -> tuple[float, float]:
    """The nearest high-volume nodes above and below the last close, NaN for none."""
    width, first, volume = histogram(bars)
    padded = np.concatenate(([0.0], volume, [0.0]))
    high = (volume >= padded[:-2]) & (volume >= padded[2:]) & (volume >= volume.mean())
    middles = (first + np.flatnonzero(high) + 0.5) * width
    close = bars["close"][-1]
    above, below = middles[middles > close], middles[middles < close]
    return above.min() if above.size else math.nan, below.max() if below.size else math.nan


def textbook(bars: Bars, atr: NDArray[np.float64]) -> NDArray[np.float64]:
    """All five from the warm-up on; the levels are those of the first bar of the current four of the clock."""
    rows = np.full((len(bars), 5), np.nan)
    clock = bars["open_time"] // 300_000 // 4
    for at in range(WARMUP - 1, len(bars)):
        begun = at
        while clock[begun - 1] == clock[at]:
            begun -= 1
        window = bars[at - 95 : at + 1]
        found = [*levels(bars[begun - 95 : begun + 1]), *nodes(window)]
        rows[at] = np.clip((np.array(found) - bars["close"][at]) / atr[at], -100, 100)
    return rows


def agrees(bars: Bars) -> None:
    rows = compute(bars, SPEC)
    atr = rows[:, SPEC.index("atr_14_fraction")].astype(np.float64) * bars["close"]
    expected = textbook(bars, atr)
    found = rows[:, :5]
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def candles(table: list[tuple[float, float, float, float, float]], count: int = 201) -> Bars:
    """Bars of (open, high, low, close, volume), the first line repeated so that there are `count`, the last of which
    is the first of four of the clock."""
    bars = make_bars(count)
    for at, line in enumerate([table[0]] * (count - len(table)) + table):
        for name, value in zip(("open", "high", "low", "close", "volume"), line, strict=True):
            bars[name][at] = value
    return bars


class TestAgainstTheTextbook:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_a_random_walk(self, seed: int) -> None:
        agrees(make_bars(900, seed=seed, missing=[250, 251, 400, *range(600, 605)]))

    def test_cheap_and_dear_prices(self) -> None:
        agrees(make_bars(500, seed=3, price=3.7e-5))
        agrees(make_bars(500, seed=4, price=98_765.0))

    def test_volatility_that_wakes_up_and_dies(self) -> None:
        bars = make_bars(700, seed=5)
        for name in ("open", "high", "low", "close"):
            bars[name][300:400] = bars["close"][299] + (bars[name][300:400] - bars["close"][299]) / 200
            bars[name][400:] = bars["close"][399] + (bars[name][400:] - bars["close"][399]) * 3
        bars["low"] = np.minimum(bars["low"], np.minimum(bars["open"], bars["close"]))
        bars["high"] = np.maximum(bars["high"], np.maximum(bars["open"], bars["close"]))
        assert (bars["low"] > 0).all()
        agrees(bars)

    def test_volumes_of_very_different_size(self) -> None:
        bars = make_bars(600, seed=6)
        bars["volume"][300:330] *= 1e7
        bars["volume"][450:] *= 1e-5
        agrees(bars)

    def test_recorded_bars(self, shared_data: Path) -> None:
        minutes = read(shared_data / "klines/vision2026-02/ALGOUSDT-1m-vision2026-02.parquet")
        agrees(resample(minutes[:4_000], "5m"))


class TestCandles:
    def test_one_price_with_most_of_the_volume(self) -> None:
        # Window 100..116, so bins of 1: volume in the bin from 107 on.
        bars = candles(
            [(100.0, 116.0, 100.0, 108.0, 1.0), (107.2, 107.8, 107.2, 107.5, 500.0), (108, 110, 106, 110, 1.0)]
        )
        row = compute(bars, SPEC)[-1]
        atr = float(row[SPEC.index("atr_14_fraction")]) * 110.0
        assert row[POC] * atr == pytest.approx(107.5 - 110.0, rel=1e-5)
        assert row[VALUE_HIGH] * atr == pytest.approx(108.0 - 110.0, rel=1e-5)
        assert row[VALUE_LOW] * atr == pytest.approx(107.0 - 110.0, rel=1e-5)
        assert row[BELOW] * atr == pytest.approx(107.5 - 110.0, rel=1e-5)
        assert np.isnan(row[ABOVE])

    def test_it_forgets_a_bar_after_96(self) -> None:
        table = [(100.0, 116.0, 100.0, 108.0, 1.0), (107.2, 107.8, 107.2, 107.5, 500.0)]
        for later, expected in ((95, 107.5), (96 + 3, 100.5)):
            row = compute(candles(table + [table[0]] * later, 321), SPEC)[-1]
            atr = float(row[SPEC.index("atr_14_fraction")]) * 108.0
            # Equal bins: the lowest is the point of control.
            assert row[POC] * atr + 108.0 == pytest.approx(expected, rel=1e-5), later

    def test_the_upper_of_equal_bins_comes_first(self) -> None:
        bars = candles([(100.0, 116.0, 100.0, 108.0, 16.0), (108.1, 108.9, 108.1, 108.5, 800.0)])
        row = compute(bars, SPEC)[-1]
        atr = float(row[SPEC.index("atr_14_fraction")]) * 108.5
        # 16 bins of 95, one of them with 800 more: 70 % of 2320 needs eight beside it, of which seven are above.
        assert row[VALUE_HIGH] * atr + 108.5 == pytest.approx(116.0, rel=1e-5)
        assert row[VALUE_LOW] * atr + 108.5 == pytest.approx(107.0, rel=1e-5)

    def test_a_flat_market_is_at_its_own_level(self) -> None:
        row = compute(candles([(0.1, 0.1, 0.1, 0.1, 5.0)], 400), SPEC)[-1]
        assert row[:3].tolist() == [0.0, 0.0, 0.0]
        assert np.isnan(row[[ABOVE, BELOW]]).sum() >= 1

    def test_without_volume_nothing_is_known(self) -> None:
        bars = make_bars(600, seed=7)
        bars["volume"][300:] = 0.0
        rows = compute(bars, SPEC)[:, :5]
        assert not np.isnan(rows[WARMUP:300, POC]).any()
        # The last volume may have come some bars before.
        left = 96 + int(np.flatnonzero(bars["volume"]).max())
        assert not np.isnan(rows[WARMUP:left, :3]).any()
        assert np.isnan(rows[left:]).all()


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


@steady
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20), st.integers(0, 1000)), min_size=200, max_size=260))
def test_the_ring_and_the_bins_are_always_the_window(bars: list[tuple[int, int, int]]) -> None:
    """On round prices, where bars end on the edges of bins: the bins hold the window's volume and nothing else."""
    state = np.zeros(profile.STATE_SIZE)
    for count, (low, height, volume) in enumerate(bars, 1):
        profile.take_in(state, count // 96, float(low + height), float(low), float(volume), count)
    lows, heights, volumes = np.array(bars[-96:], dtype=np.float64).T
    assert state[profile.TOP] == (lows + heights).max()
    assert state[profile.BOTTOM] == lows.min()
    units = state[profile.BINS : profile.BINS + profile.SLOTS]
    assert (units >= 0).all()
    assert units.sum() == state[profile.TOTAL]
    assert state[profile.TOTAL] / state[profile.PER_UNIT] == pytest.approx(volumes.sum(), rel=1e-9)
    made = np.zeros(len(volumes), dtype=make_bars(1).dtype)
    made["high"], made["low"], made["volume"] = lows + heights, lows, volumes
    width, first, expected = histogram(made)
    if volumes.any():
        assert width == 1.0 / state[profile.PER_WIDTH]
        found = units[np.arange(first, first + expected.size) % profile.SLOTS] / state[profile.PER_UNIT]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


def _searched(bins: NDArray[np.float64], start: int, step: int, count: int, total: float) -> int:
    """The first node from bin `start` on, bin by bin; beyond the 64 there is none."""
    for number in range(start, start + 64 * step, step):
        before, here, after = (bins[(number + side) % 64] for side in (-1, 0, 1))
        if here * count >= total and here >= before and here >= after:
            return number
    return start + 64 * step


@steady
@given(
    st.lists(st.integers(0, 3), min_size=17, max_size=33),
    st.integers(0, 200),
    st.integers(-1, 33),
)
def test_nodes_wherever_the_window_begins_among_the_slots(volumes: list[int], first: int, from_first: int) -> None:
    bins = np.zeros(64)
    bins[np.arange(first, first + len(volumes)) % 64] = volumes
    total = float(sum(volumes)) or 1.0
    # What lies beside the bins is no bin and must not count.
    around = np.concatenate(([1e9], bins, [1e9]))
    found = np.uint64(profile.nodes(around, len(volumes), total))
    start = first + from_first
    assert profile.node_from(found, start) == _searched(bins, start, 1, len(volumes), total)
    assert profile.node_down_from(found, start) == _searched(bins, start, -1, len(volumes), total)


@steady
@given(st.lists(st.integers(1, 2**20), min_size=250, max_size=330), st.integers(0, 95))
def test_a_profile_that_is_kept_is_the_one_made_afresh(volumes: list[int], offset: int) -> None:
    """Where the unit stays, a block of the clock begins without making the profile again."""
    state = np.zeros(profile.STATE_SIZE)
    for count, volume in enumerate(volumes, 1):
        low = 100.0 + volume % 7
        block = (count + offset) // 96
        profile.take_in(state, block, low + volume % 5, low, float(volume), count)
        if count > 1 and (count + offset) % 96 == 0:
            afresh = state.copy()
            span = max(state[profile.TOP] - state[profile.BOTTOM], profile.LEAST_RANGE * state[profile.TOP])
            profile.rebuild(afresh, min(count, 96), span)
            assert (afresh == state).all()
