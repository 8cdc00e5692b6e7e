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
    CostModel,
    Positions,
    TradePlan,
    advance,
    funding_at,
    lose_silent,
    run,
)
from features.errors import PositionsUnusable
from market import funding
from market.bars import Bars, from_columns

MINUTE = 60_000
DECIDED = 10 * MINUTE - 1
FREE = CostModel(0.0, 0.0, 0.0)
PLAN = TradePlan(stop_atr=1.5, target_atr=2.0, horizon_minutes=5)
"""Decided at 100 with an ATR of 2: a long has its stop at 97 and its target at 104, a short 103 and 96."""


def candles(text: str) -> Bars:
    """Bars from lines of `minute open high low close`; minute 0 is the first after the decision."""
    lines = [[float(cell) for cell in line.split()] for line in text.strip().splitlines()]
    minute, open_, high, low, close = (list(column) for column in zip(*lines, strict=True))
    opens = [DECIDED + 1 + int(at) * MINUTE for at in minute]
    return from_columns(
        {"open_time": opens, "open": open_, "high": high, "low": low, "close": close, "volume": [1.0] * len(opens)}
    )


def follow(direction: int, bars: Bars, costs: CostModel = FREE, rates: funding.Fundings | None = None) -> np.void:
    positions = PLAN.positions(0, direction, DECIDED, 100.0, 2.0)
    run(positions, bars, funding.empty() if rates is None else rates, costs)
    result: np.void = positions[0]
    return result


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


COSTLY = CostModel(fee_bps=10.0, spread_bps=20.0, slippage_bps=10.0)
"""Entry 0.2 % against us, stop 0.1 %, fee 0.1 % a side."""


def test_costs_of_a_long_that_wins() -> None:
    position = follow(1, candles("0  100 104 99 104"), COSTLY)
    assert position["entry"] == pytest.approx(100.2)
    assert position["risk"] == pytest.approx(3.2)
    # 104 - 100.2 = 3.8 gained, fees 0.1002 + 0.104.
    assert position["r"] == pytest.approx((3.8 - 0.2042) / 3.2)
    assert position["best"] == pytest.approx(3.8 / 3.2)
    assert position["worst"] == pytest.approx(-1.2 / 3.2)


def test_costs_of_a_short_that_is_stopped() -> None:
    position = follow(-1, candles("0  100 103 100 103"), COSTLY)
    assert position["entry"] == pytest.approx(99.8)
    assert position["risk"] == pytest.approx(3.2)
    assert position["exit_price"] == pytest.approx(103.103)
    # 3.303 lost, fees 0.0998 + 0.103103.
    assert position["r"] == pytest.approx(-(3.303 + 0.202903) / 3.2)
    assert position["worst"] == pytest.approx(-3.303 / 3.2)


def test_costs_of_a_long_that_expires() -> None:
    flat = "\n".join(f"{minute} 100 101 99 100" for minute in range(5))
    position = follow(1, candles(flat), COSTLY)
    assert position["exit_price"] == 100
    assert position["r"] == pytest.approx((-0.2 - 0.1002 - 0.1) / 3.2)


def test_an_open_that_costs_carry_beyond_the_target_is_void() -> None:
    assert follow(1, candles("0  103.9 104 103 104"), FREE)["outcome"] == TARGET
    assert follow(1, candles("0  103.9 104 103 104"), COSTLY)["outcome"] == VOID


class TestFunding:
    flat = "\n".join(f"{minute} 100 101 99 100" for minute in range(5))

    def rates(self, *minutes: int) -> funding.Fundings:
        return funding.from_columns([DECIDED + 1 + m * MINUTE + 7 for m in minutes], [0.003] * len(minutes))

    @pytest.mark.parametrize(("direction", "paid"), [(1, 0.3), (-1, -0.3)])
    def test_a_long_pays_what_a_short_receives(self, direction: int, paid: float) -> None:
        position = follow(direction, candles(self.flat), FREE, self.rates(2))
        assert position["funding"] == pytest.approx(paid)
        assert position["r"] == pytest.approx(-paid / 3)

    def test_it_is_not_charged_in_the_minute_of_entry(self) -> None:
        assert follow(1, candles(self.flat), FREE, self.rates(0))["funding"] == 0

    def test_it_is_charged_in_the_minute_of_the_exit_which_comes_later_in_it(self) -> None:
        stopped = "0 100 101 99 100\n1 100 100 96 98"
        assert follow(1, candles(stopped), FREE, self.rates(1))["r"] == pytest.approx(-1 - 0.1)

    def test_it_is_charged_on_the_price_at_which_its_minute_opens(self) -> None:
        moved = "0 100 101 99 100\n1 101 102 100 101\n2 101 102 100 101\n3 101 102 100 101\n4 101 101 101 101"
        assert follow(1, candles(moved), FREE, self.rates(1, 3))["funding"] == pytest.approx(0.606)

    def test_times_fall_into_their_minutes(self) -> None:
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
