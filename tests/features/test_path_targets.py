"""What came after a decision, as candle tables that can be worked by hand, and what holds of every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.barriers import EXPIRY, TradePlan, run
from features.path_targets import PathTargets, path_targets
from market import funding
from market.bars import Bars
from tests.features.candle_tables import DECIDED, FREE, MINUTE, candles
from tests.features.series import make_bars
from tests.features.steady import steady

PATH = """
    0  101 102  99 100
    1  100 103 100 102
    2  102 104  98 103
    3  103 110  90 105
"""
NAN = float("nan")

CASES = [
    ("three minutes from the open of the next", PATH, 3, (1.0, 1.5, 1.5, 3)),
    ("one minute: its own close, low and high", PATH, 1, (-0.5, 1.0, 0.5, 1)),
    ("the last minute counts whole", PATH, 4, (2.0, 5.5, 4.5, 4)),
    ("the bars do not reach the end", PATH, 5, (NAN, NAN, NAN, 0)),
    ("never below the entry", "0 100 101 100 101\n1 101 104 101 103", 2, (1.5, 0.0, 2.0, 2)),
    ("never above it", "0 100 100 99 99\n1 99 99 96 97", 2, (-1.5, 2.0, 0.0, 2)),
    ("the first minute is missing", "1 100 101 99 100\n2 100 101 99 100", 2, (NAN, NAN, NAN, 0)),
    ("a minute between is missing", "0 100 101 99 100\n2 100 101 99 100", 3, (NAN, NAN, NAN, 0)),
    ("a minute is missing after the end", "0 100 102 99 101\n2 100 101 99 100", 1, (0.5, 0.5, 1.0, 1)),
]


@pytest.mark.parametrize(("what", "table", "horizon", "expected"), CASES, ids=[case[0] for case in CASES])
def test_worked_by_hand(what: str, table: str, horizon: int, expected: tuple[float, float, float, int]) -> None:
    found = path_targets(candles(table), [DECIDED], 2.0, horizon)[0]
    *distances, minutes = expected
    assert [found[name] for name in ("return_ahead", "reach_below", "reach_above")] == pytest.approx(
        distances, nan_ok=True
    )
    assert found["known_at"] == (DECIDED + minutes * MINUTE if minutes else 0)


@pytest.mark.parametrize("atr", [NAN, 0.0, -1.0, np.inf])
def test_without_an_atr_nothing_is_known(atr: float) -> None:
    found = path_targets(candles(PATH), [DECIDED], atr, 2)[0]
    assert np.isnan(found["return_ahead"])
    assert found["known_at"] == 0


def test_decisions_before_after_and_without_bars() -> None:
    times = [DECIDED + 2 * MINUTE, DECIDED - 1, DECIDED + 99 * MINUTE, DECIDED]
    assert np.isfinite(path_targets(candles(PATH), times, 2.0, 2)["return_ahead"]).tolist() == [
        True,
        False,
        False,
        True,
    ]
    assert path_targets(candles(PATH)[:0], times, 2.0, 2)["known_at"].tolist() == [0] * 4
    assert path_targets(candles(PATH), np.empty(0, np.int64), 2.0, 2).size == 0


paths = st.builds(
    make_bars,
    st.integers(61, 90),
    st.integers(0, 10_000),
    interval=st.just("1m"),
    step=st.sampled_from([0.0005, 0.002, 0.01]),
    missing=st.lists(st.integers(3, 60), max_size=1),
)
horizons = st.integers(1, 30)
PRICES = ("open", "high", "low", "close")


def every_decision(bars: Bars, horizon: int) -> PathTargets:
    return path_targets(bars, bars["close_time"], 0.003 * bars["close"], horizon)


@steady
@given(paths, horizons)
def test_nothing_after_the_horizon_is_used(bars: Bars, horizon: int) -> None:
    whole = every_decision(bars, horizon)
    for at in np.flatnonzero(whole["known_at"])[::7]:
        poisoned = bars.copy()
        for name in PRICES:
            poisoned[name][bars["open_time"] > whole["known_at"][at]] *= 1000
            poisoned[name][bars["open_time"] <= bars["close_time"][at]] *= 1000
        assert path_targets(poisoned, bars["close_time"][[at]], 0.003 * bars["close"][at], horizon) == whole[[at]]


@steady
@given(paths, horizons)
def test_upside_down_below_is_above(bars: Bars, horizon: int) -> None:
    """Prices in whole 1/1024 turned over at 8192: exact."""
    rounded = bars.copy()
    for name in PRICES:
        rounded[name] = np.round(bars[name] * 1024) / 1024
    turned = rounded.copy()
    for name, other in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        turned[name] = 8192.0 - rounded[other]
    one, other_way = (path_targets(each, bars["close_time"], 0.5, horizon) for each in (rounded, turned))
    np.testing.assert_array_equal(one["return_ahead"], -other_way["return_ahead"])
    np.testing.assert_array_equal(one["reach_below"], other_way["reach_above"])
    np.testing.assert_array_equal(one["reach_above"], other_way["reach_below"])
    np.testing.assert_array_equal(one["known_at"], other_way["known_at"])


@steady
@given(paths, horizons)
def test_it_is_the_path_of_a_position_that_is_left_alone(bars: Bars, horizon: int) -> None:
    """A position with stop and target out of reach: the same end, excursions and entry, or the same gap."""
    plan = TradePlan(1000.0, 1000.0, horizon)
    atr = 0.003 * bars["close"]
    found = every_decision(bars, horizon)
    positions = plan.positions(0, 1, bars["close_time"], bars["close"], 1000 * atr)
    run(positions, bars, funding.empty(), FREE)
    ended = positions["outcome"] == EXPIRY
    assert np.array_equal(ended, found["known_at"] > 0)
    assert np.array_equal(positions["exit_time"][ended], found["known_at"][ended])
    moves = (positions["exit_price"] - positions["entry"]) / atr
    np.testing.assert_allclose(found["return_ahead"][ended], moves[ended], rtol=1e-9)
    excursion = positions["risk"] / atr
    np.testing.assert_allclose(found["reach_above"][ended], (positions["best"] * excursion)[ended], atol=1e-6)
    np.testing.assert_allclose(found["reach_below"][ended], -(positions["worst"] * excursion)[ended], atol=1e-6)


@steady
@given(paths, horizons)
def test_the_end_lies_within_the_reach(bars: Bars, horizon: int) -> None:
    found = every_decision(bars, horizon)
    known = found[found["known_at"] > 0]
    assert (known["reach_below"] >= 0).all()
    assert (known["reach_above"] >= 0).all()
    assert (known["return_ahead"] <= known["reach_above"]).all()
    assert (known["return_ahead"] >= -known["reach_below"]).all()
