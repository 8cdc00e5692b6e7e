"""Positions, margin and liquidation against the venue's published formulas."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import BRACKETS, OTHER, bracket_of, maintenance_margin, most_notional
from market.simulator.venue.margin import liquidation_price, maintenance_of, margins
from market.simulator.venue.positions import Position
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import move_margin, set_hedge, set_leverage, set_margin_type
from tests.market.venue.made import BTC, XRP, D, kinds, move, order, quote, venue_at


@given(st.decimals(1, 10_000_000, places=2), st.sampled_from((*BRACKETS.values(), OTHER)))
def test_maintenance_margin_is_continuous_and_grows(notional: Decimal, brackets: tuple) -> None:
    here, more = maintenance_margin(brackets, notional), maintenance_margin(brackets, notional + D("0.01"))
    assert 0 < here < more <= here + D("0.01")
    assert most_notional(brackets, bracket_of(brackets, notional).leverage) >= min(notional, brackets[-1].cap)


@given(st.lists(st.tuples(st.integers(-50, 50).filter(bool), st.integers(1, 500)), min_size=1, max_size=30))
def test_profit_is_what_the_trades_earned(trades: list[tuple[int, int]]) -> None:
    position = Position(BTC, "BOTH")
    profit = sum(position.trade(D(quantity), D(price))[0] for quantity, price in trades)
    assert position.quantity == sum(quantity for quantity, _ in trades)
    # Closed at the last price, all that was ever paid has come back or is lost.
    final = profit + position.trade(-position.quantity, D(trades[-1][1]))[0] if position.quantity else profit
    paid = -sum(D(quantity) * price for quantity, price in trades)
    assert final == paid + sum(quantity for quantity, _ in trades) * D(trades[-1][1])
    assert position.cost == 0


def test_a_cross_account_in_numbers() -> None:
    venue, account = venue_at(cash=10_000)
    set_leverage(venue, account, BTC, 10)
    order(venue, account, "BUY", "MARKET", 1)
    assert account.wallet == 10_000 - D("25")  # 50,000 × 0.05 %
    move(venue, 50_500)
    found = margins(account, venue.market)
    assert found.unrealized == found.cross_unrealized == 500
    assert found.position_initial == D(5_050)
    assert found.maintenance == D("202.0")  # 50,500 × 0.4 %
    assert found.available == 9_975 + 500 - 5_050
    order(venue, account, "SELL", "LIMIT", "0.4", price=51_000)
    assert margins(account, venue.market).open_order_initial == 0  # it would only make the position smaller
    order(venue, account, "BUY", "LIMIT", "0.1", price=50_000)
    assert margins(account, venue.market).open_order_initial == 500
    order(venue, account, "SELL", "MARKET", 1)
    assert account.wallet == D(9_975) + 500 - D("25.25")


@given(
    quantity=st.integers(1, 400),
    long=st.booleans(),
    leverage=st.sampled_from((1, 5, 20, 50)),
    isolated=st.booleans(),
    other=st.integers(-1_000, 1_000),
)
def test_liquidation_comes_at_the_price_that_is_told(
    quantity: int, long: bool, leverage: int, isolated: bool, other: int
) -> None:
    venue, account = venue_at(cash=60_000)
    set_leverage(venue, account, BTC, leverage)
    if isolated:
        set_margin_type(venue, account, BTC, True)
    amount = D(quantity) / 100
    assume(amount * 50_000 / leverage < 50_000)
    if other:
        order(venue, account, "BUY" if other > 0 else "SELL", "MARKET", abs(other) * 10, symbol=XRP)
    order(venue, account, "BUY" if long else "SELL", "MARKET", amount)
    position = account.position(BTC, "BOTH")
    price = liquidation_price(account, position, venue.market)
    if not price:
        assert long  # a long that is backed in full; a short can always rise far enough
        return
    bracket = bracket_of(BRACKETS[BTC], amount * price)
    side = 1 if long else -1
    if isolated:
        backing = position.isolated_wallet
    else:
        elsewhere = account.position(XRP, "BOTH")
        backing = account.cross_wallet + elsewhere.unrealized(D(2)) - maintenance_of(elsewhere, venue.market)
    published = (backing + bracket.cum - side * amount * 50_000) / (amount * bracket.ratio - side * amount)
    assert abs(price - published) < D("0.000001")
    near, beyond = price * (1 + side * D("0.00001")), price * (1 - side * D("0.00001"))
    venue.jump({BTC: quote(round(near, 1), near)})
    assert position.quantity
    venue.jump({BTC: quote(round(beyond, 1), beyond)})
    assert not account.position(BTC, "BOTH").quantity


def test_liquidation_tells_in_the_venues_order_and_leaves_the_rest() -> None:
    venue, account = venue_at(cash=1_000)
    set_leverage(venue, account, BTC, 50)
    set_margin_type(venue, account, BTC, True)
    order(venue, account, "BUY", "MARKET", "0.4")
    order(venue, account, "BUY", "LIMIT", "0.01", price=45_500)
    left = account.cross_wallet
    venue.take_events()
    price = liquidation_price(account, account.position(BTC, "BOTH"), venue.market)
    venue.jump({BTC: quote(round(price * D("0.9999"), 1))})
    assert kinds(venue) == [
        "ORDER_TRADE_UPDATE:CANCELED",
        "ORDER_TRADE_UPDATE:NEW",
        "TRADE_LITE",
        "ACCOUNT_UPDATE:ORDER",
        "ORDER_TRADE_UPDATE:CALCULATED",
        "ACCOUNT_UPDATE:INSURANCE_CLEAR",
    ]
    assert account.wallet == account.cross_wallet == left  # the margin of the position is gone, and no more than that
    last = account.past_orders[max(account.past_orders)]
    assert (last.client_id[:10], last.status, last.type) == ("autoclose-", "FILLED", "LIQUIDATION")
    assert venue.state.books.insurance > 0


def test_a_gap_beyond_bankruptcy_is_paid_by_the_fund() -> None:
    venue, account = venue_at(cash=1_100)
    set_leverage(venue, account, BTC, 50)
    order(venue, account, "BUY", "MARKET", 1)
    venue.jump({BTC: quote(40_000)})
    assert account.wallet == 0
    assert not account.held_positions()
    assert venue.state.books.insurance < 0


def test_margin_is_called_once_before_liquidation() -> None:
    venue, account = venue_at(cash=1_000)
    set_leverage(venue, account, BTC, 100)
    order(venue, account, "BUY", "MARKET", "0.5")
    venue.take_events()
    move(venue, 48_250)
    move(venue, 48_245)
    assert kinds(venue) == ["MARGIN_CALL"]
    assert account.held_positions()


@pytest.mark.parametrize(
    ("rate", "side", "paid"), [("0.0001", "BUY", 5), ("0.0001", "SELL", -5), ("-0.0003", "BUY", -15)]
)
def test_funding_goes_from_one_side_to_the_other(rate: str, side: str, paid: int) -> None:
    venue, account = venue_at()
    order(venue, account, side, "MARKET", 1)
    before = account.wallet
    venue.settle_funding(BTC, D(rate))
    assert before - account.wallet == paid
    assert account.income[-1].kind == "FUNDING_FEE"
    assert kinds(venue)[-1] == "ACCOUNT_UPDATE:FUNDING_FEE"


def test_isolated_margin_moves_with_its_position() -> None:
    venue, account = venue_at(cash=10_000)
    set_margin_type(venue, account, BTC, True)
    order(venue, account, "SELL", "MARKET", "0.5")
    position = account.position(BTC, "BOTH")
    assert position.isolated_wallet == 1_250
    move_margin(venue, account, BTC, "BOTH", D(100))
    assert position.isolated_wallet == 1_350
    with pytest.raises(Refusal) as refused:
        move_margin(venue, account, BTC, "BOTH", D(-200))
    assert refused.value.code == -4051
    order(venue, account, "BUY", "MARKET", "0.1")
    assert position.isolated_wallet == 1_080
    order(venue, account, "BUY", "MARKET", "0.5")  # 0.4 close, 0.1 open the other way
    assert (position.quantity, position.isolated_wallet) == (D("0.1"), 250)


def code(call: object) -> int:
    with pytest.raises(Refusal) as refused:
        call()  # type: ignore[operator]
    return refused.value.code


def test_settings_are_refused_with_the_venues_codes() -> None:
    venue, account = venue_at(cash=3_000)
    assert code(lambda: set_hedge(account, False)) == -4059
    assert code(lambda: set_margin_type(venue, account, BTC, False)) == -4046
    assert code(lambda: set_leverage(venue, account, BTC, 151)) == -4028
    assert code(lambda: set_leverage(venue, account, XRP, 101)) == -4028
    assert code(lambda: set_leverage(venue, account, "NOSUCHUSDT", 5)) == -1121
    resting = order(venue, account, "BUY", "LIMIT", "0.01", price=49_000)
    assert code(lambda: set_hedge(account, True)) == -4067
    assert code(lambda: set_margin_type(venue, account, BTC, True)) == -4047
    move(venue, 48_900)
    assert resting.status == "FILLED"
    assert code(lambda: set_hedge(account, True)) == -4068
    assert code(lambda: set_margin_type(venue, account, BTC, True)) == -4048
    order(venue, account, "BUY", "MARKET", 1)
    assert code(lambda: set_leverage(venue, account, BTC, 2)) == -2028
    assert account.settings_of(BTC).leverage == 20
    assert set_leverage(venue, account, BTC, 75) == 3_000_000


def test_leverage_and_brackets_bound_a_position() -> None:
    venue, account = venue_at(cash=100_000)
    set_leverage(venue, account, BTC, 125)
    assert code(lambda: order(venue, account, "BUY", "MARKET", "6.1")) == -2027
    order(venue, account, "BUY", "MARKET", "5.9")
    assert code(lambda: set_leverage(venue, account, XRP, 200)) == -4028
    isolated, poor = venue_at(cash=1_000)
    set_leverage(isolated, poor, BTC, 10)
    assert code(lambda: order(isolated, poor, "BUY", "MARKET", "0.201")) == -2019
    order(isolated, poor, "BUY", "MARKET", "0.199")


def test_hedge_keeps_both_sides() -> None:
    venue, account = venue_at()
    set_hedge(account, True)
    order(venue, account, "BUY", "MARKET", 1, position_side="LONG")
    order(venue, account, "SELL", "MARKET", "0.4", position_side="SHORT")
    held: Account = account
    assert [side.quantity for side in held.sides(BTC)] == [1, D("-0.4")]
    assert margins(account, venue.market).position_initial == D(1.4).quantize(D("0.1")) * 50_000 / 20
    prices = {liquidation_price(account, side, venue.market) for side in account.sides(BTC)}
    assert len(prices) == 1  # in cross margin both go together
    assert code(lambda: order(venue, account, "BUY", "MARKET", 1)) == -4061
    assert code(lambda: order(venue, account, "BUY", "MARKET", 1, position_side="SHORT")) == -2022
    assert code(lambda: order(venue, account, "SELL", "MARKET", 1, position_side="LONG", reduce_only=True)) == -1106
    order(venue, account, "BUY", "MARKET", "0.4", position_side="SHORT")
    assert account.position(BTC, "SHORT").quantity == 0
