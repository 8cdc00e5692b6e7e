"""How trades end, as candle tables that can be worked by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from features.barriers import (
    EXPIRY,
    OPEN,
    OUTCOME,
    POSITION,
    STOP,
    TARGET,
    UNKNOWN,
    VOID,
    Positions,
    TradePlan,
    advance,
    funding_at,
    lose_silent,
    run,
)
from features.errors import PositionsUnusable
from market import funding
from market.bars import Bars
from tests.features.candle_tables import COSTLY, DECIDED, FREE, MINUTE, PLAN, candles, follow


@dataclass(frozen=True)
class Case:
    what: str
    candles: str
    long: tuple[int, float, float, float, float]
    """Outcome, exit price, R, best and worst excursion of a long; without costs."""


NAN = float("nan")

CASES = [
    Case(
        "entered at 100, up to the target in the third minute",
        """
        0  100 101  99 100
        1  100 102 100 102
        2  102 104 101 103
        """,
        (TARGET, 104, 4 / 3, 4 / 3, -1 / 3),
    ),
    Case(
        "the stop is touched, no more, and fills at the stop",
        """
        0  100 101  99 100
        1  100 100  97  99
        """,
        (STOP, 97, -1, 1 / 3, -1),
    ),
    Case(
        "a hair short of the stop is no touch, and the target follows",
        """
        0  100 101  97.01 100
        1  100 104  99    104
        """,
        (TARGET, 104, 4 / 3, 4 / 3, -2.99 / 3),
    ),
    Case(
        "one bar touches both: the stop comes first",
        """
        0  100 101 99 100
        1  100 105 96 104
        """,
        (STOP, 97, -1, 1 / 3, -1),
    ),
    Case(
        "the bar of entry touches both: the stop comes first there too",
        """
        0  100 104 97 100
        """,
        (STOP, 97, -1, 0, -1),
    ),
    Case(
        "it opens beyond the stop, and fills at that open",
        """
        0  100 101 99 99
        1   95  98 94 98
        """,
        (STOP, 95, -5 / 3, 1 / 3, -5 / 3),
    ),
    Case(
        "it opens beyond the target, and fills at the target all the same",
        """
        0  100 101  99 100
        1  106 107 105 106
        """,
        (TARGET, 104, 4 / 3, 4 / 3, -1 / 3),
    ),
    Case(
        "it opens beyond the target and falls to the stop in one bar: the stop, at its price",
        """
        0  100 101 99 100
        1  106 107 96 100
        """,
        (STOP, 97, -1, 1 / 3, -1),
    ),
    Case(
        "neither within five minutes: the close of the fifth",
        """
        0  100   101 99 100
        1  100   101 99 100
        2  100   103 99 100
        3  100   101 98 100
        4  100   101 99 100.6
        5  100.6 110 90 100
        """,
        (EXPIRY, 100.6, 0.2, 1, -2 / 3),
    ),
    Case(
        "the target in the minute of expiry still wins",
        """
        0  100 101 99 100
        1  100 101 99 100
        2  100 103 99 100
        3  100 101 98 100
        4  100 104 99 100
        """,
        (TARGET, 104, 4 / 3, 4 / 3, -2 / 3),
    ),
    Case("the next open is at the stop: never taken", "0  97 104 97 100", (VOID, 0, NAN, 0, 0)),
    Case("the next open is beyond the target: never taken", "0  104.5 105 90 100", (VOID, 0, NAN, 0, 0)),
    Case("the minute after the decision is missing", "1  100 104 99 104", (UNKNOWN, 0, NAN, 0, 0)),
    Case(
        "a minute is missing while it is open",
        """
        0  100 101 99 100
        2  100 104 99 104
        """,
        (UNKNOWN, 0, NAN, 1 / 3, -1 / 3),
    ),
    Case("the bars end before it does", "0  100 101 99 100", (OPEN, 0, NAN, 1 / 3, -1 / 3)),
    Case(
        "bars at and before the decision are not looked at",
        """
        -2  100 200   1 100
        -1  100 200   1 100
         0  100 104  99 104
        """,
        (TARGET, 104, 4 / 3, 4 / 3, -1 / 3),
    ),
]


def mirrored(bars: Bars) -> Bars:
    """The same path upside down around 100."""
    flipped = bars.copy()
    for name, other in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        flipped[name] = 200.0 - bars[other]
    return flipped


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_long(case: Case) -> None:
    position = follow(1, candles(case.candles))
    outcome, price, r, best, worst = case.long
    assert OUTCOME[int(position["outcome"])] == OUTCOME[outcome]
    assert position["exit_price"] == pytest.approx(price)
    assert position["r"] == pytest.approx(r, nan_ok=True)
    assert (position["best"], position["worst"]) == (pytest.approx(best), pytest.approx(worst))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_short_is_its_mirror_image(case: Case) -> None:
    position = follow(-1, mirrored(candles(case.candles)))
    outcome, price, r, best, worst = case.long
    assert OUTCOME[int(position["outcome"])] == OUTCOME[outcome]
    assert position["exit_price"] == pytest.approx(200 - price if price else 0)
    assert position["r"] == pytest.approx(r, nan_ok=True)
    assert (position["best"], position["worst"]) == (pytest.approx(best), pytest.approx(worst))


def test_times_of_a_trade() -> None:
    position = follow(1, candles(CASES[0].candles))
    assert position["decided_at"] == DECIDED
    assert position["opened_at"] == DECIDED + 1
    assert position["expiry_ms"] == DECIDED + 5 * MINUTE
    assert position["exit_time"] == position["last_time"] == DECIDED + 3 * MINUTE


def test_fundings_fall_into_their_minutes() -> None:
    bars = candles("0 100 101 99 100\n1 100 101 99 100\n3 100 101 99 100")
    start = DECIDED + 1
    times = [start - 1, start + MINUTE + 4, start + 2 * MINUTE + 4, start + 9 * MINUTE]
    found = funding_at(funding.from_columns(times, [1.0, 2.0, 3.0, 4.0]), bars)
    assert np.array_equal(found, [np.nan, 2.0, np.nan], equal_nan=True)


def waiting(*directions: int) -> Positions:
    return PLAN.positions(np.arange(len(directions)), directions, DECIDED, 100.0, 2.0)


def test_advance_looks_at_each_symbols_own_bar() -> None:
    positions = waiting(1, -1, 1)
    bars = candles("0 100 101 99 100\n0 200 201 199 200")
    advance(positions, np.array([0, 1, -1]), bars, np.full(3, np.nan), FREE)
    assert positions["entry"].tolist() == [100, 0, 0]
    assert positions["outcome"].tolist() == [OPEN, VOID, OPEN]


def test_a_symbol_that_never_comes_back_is_lost() -> None:
    positions = waiting(1, 1)
    expiry = int(positions["expiry_ms"][0])
    assert lose_silent(positions, expiry + 1000, 1000).size == 0
    positions["outcome"][0] = TARGET
    assert lose_silent(positions, expiry + 1001, 1000).tolist() == [1]
    assert positions["outcome"].tolist() == [TARGET, UNKNOWN]


def test_positions_that_cannot_be_changed_are_refused() -> None:
    bars = candles("0 100 101 99 100")
    fixed = waiting(1)
    fixed.flags.writeable = False
    for wrong in (fixed, waiting(1, 1, 1)[::2], np.zeros(1)):
        with pytest.raises(PositionsUnusable):
            run(wrong, bars, funding.empty(), FREE)


def test_a_dead_market_gives_no_trade() -> None:
    positions = PLAN.positions(0, [1, -1], DECIDED, 100.0, 0.0)
    run(positions, candles("0 100 100 100 100"), funding.empty(), FREE)
    assert positions["outcome"].tolist() == [VOID, VOID]
    assert positions.dtype == POSITION


class TestExtremes:
    """Numbers at the edges: each gives a trade by the same rules, or none."""

    @pytest.mark.parametrize("direction", [1, -1])
    def test_an_atr_that_is_not_known_gives_no_trade(self, direction: int) -> None:
        assert follow(direction, candles("0 100 101 99 100"), atr=np.nan)["outcome"] == VOID

    def test_a_barrier_below_zero_is_never_touched(self) -> None:
        """An ATR of 80: a long's stop at -20, a short's target at -60."""
        crash = "0 100 101 1e-9 1e-9\n" + "\n".join(f"{minute} 1e-9 1e-9 1e-9 1e-9" for minute in range(1, 5))
        long, short = (follow(side, candles(crash), atr=80.0) for side in (1, -1))
        assert (long["outcome"], short["outcome"]) == (EXPIRY, EXPIRY)
        assert long["r"] == pytest.approx(-100 / 120)
        assert short["r"] == pytest.approx(100 / 120)

    @pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
    def test_the_size_of_the_price_does_not_matter(self, scale: float) -> None:
        bars = candles("0 100 101 99 100\n1 100 100 96 98")
        for name in ("open", "high", "low", "close"):
            bars[name] *= scale
        position = follow(1, bars, COSTLY, close=100 * scale, atr=2 * scale)
        usual = follow(1, candles("0 100 101 99 100\n1 100 100 96 98"), COSTLY)
        for name in ("outcome", "r", "best", "worst"):
            assert position[name].tobytes() == usual[name].tobytes()

    def test_an_open_a_tick_from_the_stop_has_a_huge_r_that_is_finite(self) -> None:
        tick = np.spacing(97.0)
        bars = candles("0 100 104 98 104")
        bars["open"], bars["low"] = 97.0 + tick, 97.0 + tick
        position = follow(1, bars)
        assert position["outcome"] == TARGET
        assert 1e12 < position["r"] < np.inf

    @pytest.mark.parametrize("minutes", [0, 1])
    def test_a_horizon_of_a_minute_or_less_is_over_at_the_first_close(self, minutes: int) -> None:
        plan = TradePlan(horizon_minutes=minutes)
        position = follow(1, candles("0 100 101 99 100.3\n1 100 104 99 104"), plan=plan)
        assert (position["outcome"], position["exit_time"]) == (EXPIRY, DECIDED + MINUTE)
        assert position["r"] == pytest.approx(0.1)

    def test_a_position_has_no_place_in_time_beyond_its_end(self) -> None:
        """Run again over the same and later bars, an ended position stays as it is."""
        bars = candles("0 100 104 99 104\n1 104 105 90 91")
        positions = PLAN.positions(0, [1, -1], DECIDED, 100.0, 2.0)
        run(positions, bars, funding.empty(), COSTLY)
        before = positions.copy()
        run(positions, bars, funding.empty(), FREE)
        assert positions.tobytes() == before.tobytes()
