"""Liquidation by leverage brackets: as much as is needed goes, the rest is covered, and the books add up."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import BRACKETS, bracket_of, maintenance_margin
from market.simulator.venue.engine import Venue
from market.simulator.venue.margin import cross_cover, liquidation_price, maintenance_of
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import set_hedge, set_leverage, set_margin_type
from tests.market.venue.made import BTC, XRP, D, kinds, order, quote, venue_at

LADDER = BRACKETS[XRP]
FEE = D("0.02")


def large(isolated: bool, side: str = "BUY", quantity: int = 3_000_000, cash: int = 640_000) -> tuple[Venue, Account]:
    """Six million USDT in XRP: the bracket of 5 %, above two million."""
    venue, account = venue_at(cash=cash)
    set_leverage(venue, account, XRP, 10)
    if isolated:
        set_margin_type(venue, account, XRP, True)
    for _ in range(3):
        order(venue, account, side, "MARKET", quantity // 3, symbol=XRP)
    venue.take_events()
    return venue, account


def covered(venue: Venue, account: Account) -> bool:
    """Whether every position's margin lies above what it needs."""
    balance, needed = cross_cover(account, venue.market)
    alone = [each for each in account.held_positions() if account.is_isolated(each.symbol)]
    return (balance > needed or not needed) and all(
        each.isolated_wallet + each.unrealized(venue.market.mark(each.symbol)) > maintenance_of(each, venue.market)
        for each in alone
    )


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_large_position_is_reduced_to_the_bracket_that_its_margin_covers(isolated: bool, side: str) -> None:
    venue, account = large(isolated, side)
    position, sign = account.position(XRP, "BOTH"), 1 if side == "BUY" else -1
    resting = order(venue, account, side, "LIMIT", 100, symbol=XRP, price=D(2) * (1 - D("0.08") * sign))
    free = account.cross_wallet
    price = liquidation_price(account, position, venue.market)
    mark = round(price * (1 - D("0.0001") * sign), 4)
    venue.take_events()
    venue.jump({XRP: quote(mark)})
    kept = abs(position.quantity)
    below = bracket_of(LADDER, kept * mark)
    assert below.cap == 2_000_000
    assert (kept + 1) * mark >= below.cap > kept * mark  # no more than that had to go
    assert kept + 1 > below.cap / mark
    assert covered(venue, account)
    assert resting.status == "CANCELED"
    forced = account.past_orders[max(account.past_orders)]
    assert (forced.status, forced.quantity, forced.side) == ("FILLED", 3_000_000 - kept, "SELL" if sign > 0 else "BUY")
    assert venue.state.books.insurance == (forced.quantity * mark * FEE).quantize(D("1e-8"))
    if isolated:
        assert account.cross_wallet == free  # nothing but the position's own margin has paid
    told = kinds(venue)
    assert told == [
        "ORDER_TRADE_UPDATE:CANCELED",
        "ORDER_TRADE_UPDATE:NEW",
        "TRADE_LITE",
        "ACCOUNT_UPDATE:ORDER",
        "ORDER_TRADE_UPDATE:CALCULATED",
        "ACCOUNT_UPDATE:INSURANCE_CLEAR",
    ]
    assert [each.quantity for each in venue.take_forced()] == [forced.quantity]
    venue.jump({XRP: quote(mark)})
    assert abs(position.quantity) == kept
    venue.jump({XRP: quote(mark * (1 - D("0.3") * sign))})
    assert not position.quantity


def test_a_small_position_goes_whole() -> None:
    """In the lower brackets the fee is more than what a smaller position would need less."""
    venue, account = venue_at(cash=2_000)
    set_leverage(venue, account, XRP, 50)
    order(venue, account, "BUY", "MARKET", 40_000, symbol=XRP)
    price = liquidation_price(account, account.position(XRP, "BOTH"), venue.market)
    venue.jump({XRP: quote(round(price * D("0.9999"), 4))})
    assert not account.held_positions()


def test_the_deeper_the_gap_the_more_goes() -> None:
    """By trying every quantity of a coarse grid: what is kept is the cap of the largest bracket that is covered."""
    seen = []
    for thousandths in range(0, 80, 2):
        venue, account = large(isolated=False)
        position = account.position(XRP, "BOTH")
        price = liquidation_price(account, position, venue.market)
        mark = round(price * (1 - D(thousandths) / 1000) - D("0.0001"), 4)
        balance = account.wallet + position.unrealized(mark)
        possible = [
            quantity
            for cap in (each.cap for each in LADDER)
            if (quantity := (cap / mark).__ceil__() - 1) < position.quantity
            and balance - (position.quantity - quantity) * mark * FEE > maintenance_margin(LADDER, quantity * mark)
        ]
        venue.jump({XRP: quote(mark)})
        assert position.quantity == max(possible, default=0)
        seen.append(bracket_of(LADDER, position.quantity * mark).number if position.quantity else 0)
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 2


@given(
    size=st.integers(5, 90),
    long=st.booleans(),
    isolated=st.booleans(),
    hedge=st.booleans(),
    spare=st.integers(20, 300),
    other=st.integers(-150, 150),
    steps=st.lists(st.tuples(st.integers(0, 40), st.integers(-5, 5)), min_size=1, max_size=6),
)
@settings(derandomize=True)
def test_what_is_left_is_covered_and_only_by_brackets(
    size: int, long: bool, isolated: bool, hedge: bool, spare: int, other: int, steps: list[tuple[int, int]]
) -> None:
    """Prices go to and beyond where it hurts, mark and last price apart; the books are checked at every step.

    There is money for the fees, which are no part of the venue's margin check.
    """
    notional, sign = size * 100_000, 1 if long else -1
    venue, account = venue_at(cash=(notional + abs(other) * 5_000) * (1000 + spare) // 10_000)
    if isolated:
        set_margin_type(venue, account, XRP, True)
    if hedge:
        set_hedge(account, True)

    def trade(buys: bool, quantity: Decimal, symbol: str) -> None:
        set_leverage(venue, account, symbol, 10)
        held = ("LONG" if buys else "SHORT") if hedge else "BOTH"
        if quantity:
            order(venue, account, "BUY" if buys else "SELL", "MARKET", quantity, symbol=symbol, position_side=held)

    try:
        for _ in range(5):
            trade(long, D(notional) / 10, XRP)
        trade(other > 0, abs(D(other)) / 10, BTC)
        if hedge:
            trade(not long, D(size * 1_000), XRP)
    except Refusal:
        assume(account.held_positions())
    for step, basis in steps:
        position = account.position(XRP, ("LONG" if long else "SHORT") if hedge else "BOTH")
        price = liquidation_price(account, position, venue.market) or venue.market.mark(XRP)
        mark = round(price * (1 - D(step - 4) / 1000 * sign), 4)
        before = {id(each): abs(each.quantity) for each in account.held_positions()}
        venue.advance(venue.now_ms + 1_000, {XRP: quote(round(mark * (1000 + basis) / 1000, 4), mark)})
        assert covered(venue, account)
        assert account.wallet >= 0
        for held in account.held_positions():
            now, there = abs(held.quantity), venue.market.mark(held.symbol)
            rules = venue.market.rules[held.symbol]
            if now != before[id(held)]:
                PARTS.append(account.is_isolated(held.symbol))
                assert bracket_of(rules.brackets, now * there).cap <= (now + rules.lot.step) * there
    assert sum(each.amount for each in account.income if each.kind == "INSURANCE_CLEAR") == -venue.state.books.insurance


PARTS: list[bool] = []


def test_both_kinds_of_margin_were_met() -> None:
    PARTS.clear()
    test_what_is_left_is_covered_and_only_by_brackets()
    assert set(PARTS) == {True, False}
