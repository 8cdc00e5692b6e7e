"""The kernels of structure against the slow reading of the same bars, value by value, and what always holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import compute
from market.bars import Bars
from tests.features.recorded import recorded_bars
from tests.features.series import make_bars
from tests.features.steady import steady
from tests.features.structure_reference import STRUCTURE, Column, read


def disagreements(bars: Bars) -> list[str]:
    """Every feature whose warm values differ, with the first bar."""
    rows = compute(bars, STRUCTURE).astype(np.float64)
    expected = read(bars).columns
    found = []
    for feature, values in zip(STRUCTURE.features, rows.T, strict=True):
        reference = expected[feature.name]
        allowed = 1e-6 * np.maximum(np.abs(reference), 1.0)
        unlike = ~(np.abs(values - reference) <= allowed) & ~(np.isnan(values) & np.isnan(reference))
        unlike[: feature.warmup - 1] = False
        if unlike.any():
            at = int(np.argmax(unlike))
            found.append(f"{feature.name} at bar {at}: {values[at]} instead of {reference[at]}")
    return found


def in_ticks(bars: Bars, tick: float) -> Bars:
    """The same bars on a coarse grid of prices, so that highs and lows are equal now and then.

    With a power of two as `tick` all sums and middles are exact, so what is equally near is so for both.
    """
    bars = bars.copy()
    for name in ("open", "high", "low", "close"):
        bars[name] = np.round(bars[name] / tick) * tick
    return bars


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_bars(seed: int) -> None:
    assert disagreements(make_bars(2500, seed=seed)) == []


@pytest.mark.parametrize("tick", [1 / 16, 1 / 4, 1.0])
def test_bars_of_coarse_ticks(tick: float) -> None:
    assert disagreements(in_ticks(make_bars(2500, seed=8), tick)) == []


@pytest.mark.parametrize("drift", [2e-4, -2e-4])
def test_bars_that_trend(drift: float) -> None:
    bars = make_bars(2500, seed=6)
    for name in ("open", "high", "low", "close"):
        bars[name] *= np.exp(drift * np.arange(len(bars)))
    assert disagreements(bars) == []


def test_bars_with_a_dead_stretch() -> None:
    bars = make_bars(1500, seed=4)
    for name in ("open", "high", "low", "close"):
        bars[name][500:900] = bars["close"][499]
    assert disagreements(bars) == []


@pytest.mark.parametrize("symbol", ["BTCUSDT", "LTCUSDT"])
def test_recorded_bars(shared_data: Path, symbol: str) -> None:
    assert disagreements(recorded_bars(shared_data, symbol)[:4000]) == []


@st.composite
def markets(draw: st.DrawFn) -> Bars:
    bars = make_bars(700, seed=draw(st.integers(1, 10_000)), step=draw(st.sampled_from([0.0005, 0.002, 0.01])))
    return in_ticks(bars, draw(st.sampled_from([1 / 64, 1 / 8, 1 / 2])))


def column(rows: NDArray[np.float32], name: str) -> Column:
    return rows[STRUCTURE.warmup :, STRUCTURE.index(name)].astype(np.float64)


@steady
@given(markets())
def test_what_always_holds(bars: Bars) -> None:
    rows = compute(bars, STRUCTURE)
    for side in ("bullish", "bearish"):
        block = np.array([column(rows, f"{side}_order_block_{name}") for name in ("distance", "age", "mitigated")])
        gap = np.array([column(rows, f"{side}_gap_{name}") for name in ("distance", "size", "filled")])
        for zone in (block, gap):
            none = np.isnan(zone)
            assert (none.all(axis=0) == none.any(axis=0)).all()
        assert np.nanmin(gap[2], initial=0.0) >= 0
        assert np.nanmax(gap[2], initial=0.0) < 1
    for side in ("highs", "lows"):
        distance, touches = column(rows, f"equal_{side}_distance"), column(rows, f"equal_{side}_touches")
        assert (np.isnan(distance) == (touches == 0)).all()
        assert not (touches == 1).any()
        assert np.nanmin(distance, initial=0.0) >= 0
    breaks, changes = column(rows, "break_of_structure"), column(rows, "change_of_character")
    assert not (breaks * changes).any()
    happened = (breaks + changes) != 0
    assert (column(rows, "trend_state")[happened] == (breaks + changes)[happened]).all()
    for name, event in (("bars_since_break", happened), ("bars_since_sweep", column(rows, "sweep") != 0)):
        since = column(rows, name)
        assert (since[event] == 0).all()
        assert np.isin(np.diff(since)[since[1:] > 0], (0, 1)).all()


@steady
@given(markets(), st.sampled_from([2.0**10, 2.0**-3]))
def test_neither_the_scale_nor_the_side_matters(bars: Bars, scale: float) -> None:
    rows = compute(bars, STRUCTURE)
    dear = bars.copy()
    mirrored = bars.copy()
    for name, other in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        dear[name] *= scale
        mirrored[name] = 1024.0 - bars[other]
    assert compute(dear, STRUCTURE).tobytes() == rows.tobytes()
    swapped = compute(mirrored, STRUCTURE)
    for names in (("bullish_order_block_age", "bearish_order_block_age"), ("bearish_gap_filled", "bullish_gap_filled")):
        here, there = (column(table, name) for table, name in zip((rows, swapped), names, strict=True))
        assert np.allclose(here, there, atol=1e-5, equal_nan=True)
    assert np.array_equal(column(rows, "sweep"), -column(swapped, "sweep"))
    assert np.array_equal(column(rows, "trend_state"), -column(swapped, "trend_state"))
