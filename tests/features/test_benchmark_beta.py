"""Beta and residual return against numpy over the pairs of the window, and what makes no pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from features.benchmark_beta import BetaWindow
from features.decision_spec import DECISION_SPEC
from market.bars import Bars
from tests.features.series import START_MS, make_bars, uniforms

SYMBOLS = ("AUSDT", "BTCUSDT", "CUSDT", "DUSDT")
BTC = 1
STEP = 300_000
COUNT = 300


def series(index: int, missing: list[int]) -> Bars:
    return make_bars(COUNT, 20 + index, price=10.0**index, missing=missing)


@pytest.fixture
def market() -> dict[str, Bars]:
    """The second symbol is the benchmark. Each has holes; the last begins late."""
    holes = [[], [100, 101, 180], [*range(60, 90), 180, 200], [*range(150)]]
    return {symbol: series(index, holes[index]) for index, symbol in enumerate(SYMBOLS)}


def live(market: Mapping[str, Bars], window: BetaWindow, start: int, stop: int) -> NDArray[np.float32]:
    """Both columns per wave and symbol, float32 [waves, 2, S]; NaN for absentees."""
    out = np.full((stop - start, 2, len(market)), np.nan, dtype=np.float32)
    for at in range(start, stop):
        time = START_MS + (at + 1) * STEP - 1
        found = [bars[bars["close_time"] == time] for bars in market.values()]
        rows = np.flatnonzero([bars.size for bars in found])
        betas = window.wave(time, rows, np.concatenate(found))
        out[at - start, 0, rows], out[at - start, 1, rows] = betas
    return out


def returns(bars: Bars) -> NDArray[np.float64]:
    """By place on the clock, from the bar right before, float64 [COUNT]; NaN for none."""
    close = np.full(COUNT, np.nan)
    close[(bars["open_time"] - START_MS) // STEP] = bars["close"]
    return np.concatenate(([np.nan], close[1:] / close[:-1] - 1))


def state(window: BetaWindow) -> list[bytes]:
    return [each.tobytes() for each in (window.returns, window.times, window.closes, window.closed)]


def test_it_is_the_slope_over_the_pairs_of_the_window(market: dict[str, Bars]) -> None:
    found = live(market, BetaWindow(SYMBOLS, DECISION_SPEC), 0, COUNT)
    benchmark = returns(market["BTCUSDT"])
    known = 0
    for index, bars in enumerate(market.values()):
        own = returns(bars)
        present = np.isin(np.arange(COUNT), (bars["open_time"] - START_MS) // STEP)
        for at in range(COUNT):
            window = slice(max(0, at - 95), at + 1)
            x, y = benchmark[window], own[window]
            paired = ~np.isnan(x) & ~np.isnan(y)
            if not present[at] or paired.sum() < 48:
                assert np.isnan(found[at, :, index]).all()
                continue
            beta = np.cov(x[paired], y[paired])[0, 1] / np.var(x[paired], ddof=1)
            assert found[at, 0, index] == pytest.approx(beta, rel=1e-5, abs=1e-6)
            residual = own[at] - beta * benchmark[at]
            assert found[at, 1, index] == pytest.approx(residual, rel=1e-4, abs=1e-8, nan_ok=True)
            known += 1
    assert known > 600
    assert np.isnan(found[[100, 102], 1, 0]).all()
    assert (found[60:100, 0, BTC] == 1.0).all()
    assert (found[60:100, 1, BTC] == 0.0).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_catching_up_leaves_what_waves_would_have_left(market: dict[str, Bars], seed: int) -> None:
    cuts = sorted({int(draw * COUNT) for draw in uniforms(seed, 6)})
    stepped, mixed = BetaWindow(SYMBOLS, DECISION_SPEC), BetaWindow(SYMBOLS, DECISION_SPEC)
    for turn, (start, stop) in enumerate(zip([0, *cuts], [*cuts, COUNT], strict=True)):
        expected = live(market, stepped, start, stop)
        if turn % 2:
            for row, bars in enumerate(market.values()):
                part = (bars["open_time"] >= START_MS + start * STEP) & (bars["open_time"] < START_MS + stop * STEP)
                mixed.catch_up(row, bars[part])
        else:
            assert live(market, mixed, start, stop).tobytes() == expected.tobytes()
        assert state(mixed) == state(stepped)


def test_history_gives_the_same_bits(market: dict[str, Bars]) -> None:
    expected = live(market, BetaWindow(SYMBOLS, DECISION_SPEC), 0, COUNT)
    window = BetaWindow(SYMBOLS, DECISION_SPEC)
    every = np.concatenate(list(market.values()))
    row = np.repeat(np.arange(len(SYMBOLS)), [bars.size for bars in market.values()])
    moves = np.concatenate([window.moves(index, bars) for index, bars in enumerate(market.values())])
    order = np.lexsort((row, every["close_time"]))
    times, starts = np.unique(every["close_time"][order], return_index=True)
    found = window.history(times, np.append(starts, row.size), row[order], moves[order])
    places = (every["open_time"][order] - START_MS) // STEP
    for column, values in enumerate(found):
        assert values.tobytes() == expected[places, column, row[order]].tobytes()


def test_without_a_benchmark_nothing_is_known() -> None:
    symbols = ("AUSDT", "CUSDT")
    found = live(
        {symbol: series(index, []) for index, symbol in enumerate(symbols)}, BetaWindow(symbols, DECISION_SPEC), 0, 120
    )
    assert np.isnan(found).all()


def test_a_benchmark_that_does_not_move_tells_nothing() -> None:
    flat = series(1, [])
    for name in ("open", "high", "low", "close"):
        flat[name] = 0.1
    found = live({"AUSDT": series(0, []), "BTCUSDT": flat}, BetaWindow(("AUSDT", "BTCUSDT"), DECISION_SPEC), 0, 120)
    assert np.isnan(found).all()


def test_an_impossible_bar_makes_no_pair(market: dict[str, Bars]) -> None:
    market["AUSDT"]["high"][120] = np.nan
    window = BetaWindow(SYMBOLS, DECISION_SPEC)
    found = live(market, window, 0, 124)
    assert np.isnan(found[[120, 121], 1, 0]).all()
    assert not np.isnan(found[[119, 122, 123], 1, 0]).any()
