"""A symbol that leaves: everything in it is closed at the settlement price, and nothing else is touched."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.simulator.venue.algo import place_algo
from market.simulator.venue.placing import amend
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import set_hedge, set_leverage, set_margin_type
from market.simulator.venue.settlement import settle_delisted
from tests.market.venue.made import BTC, XRP, D, kinds, move, order, quote, request, venue_at


def code(call: object) -> int:
    with pytest.raises(Refusal) as refused:
        call()  # type: ignore[operator]
    return refused.value.code


def test_orders_expire_and_the_position_is_settled() -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1_000, symbol=XRP)
    resting = order(venue, account, "BUY", "LIMIT", 100, symbol=XRP, price="1.9")
    stop = place_algo(
        venue, account, request("SELL", "STOP_MARKET", symbol=XRP, trigger_price="1.8", close_position=True)
    )
    order(venue, account, "BUY", "MARKET", "0.1")
    other = order(venue, account, "BUY", "LIMIT", "0.1", price=49_000)
    account.countdowns[XRP] = venue.now_ms + 1
    wallet = account.wallet
    venue.take_events()
    settle_delisted(venue, XRP, D("2.1"))
    events = venue.take_events()
    assert [event.body["e"] for event in events] == [
        "ORDER_TRADE_UPDATE",
        "ALGO_UPDATE",
        "TRADE_LITE",
        "ACCOUNT_UPDATE",
        "ORDER_TRADE_UPDATE",
    ]
    gone, filled = events[0].body["o"], events[-1].body["o"]
    assert (gone["i"], gone["x"], gone["X"], gone["er"]) == (resting.id, "EXPIRED", "EXPIRED", "7")
    assert filled["c"].startswith("settlement_autoclose-")
    assert len(filled["c"]) <= 36
    assert (filled["x"], filled["X"], filled["S"], filled["L"], filled["rp"]) == (
        "TRADE",
        "FILLED",
        "SELL",
        "2.1",
        "100",
    )
    assert stop.status == "EXPIRED"
    assert account.wallet == wallet + 100 - D("1.05")  # 1,000 × 0.1 USDT, and the taker fee on 2,100
    assert account.active_symbols() == {BTC}
    assert other.working
    assert not account.countdowns
    assert code(lambda: order(venue, account, "BUY", "MARKET", 10, symbol=XRP)) == -1122
    assert (
        code(lambda: place_algo(venue, account, request("BUY", "STOP_MARKET", 10, symbol=XRP, trigger_price=3)))
        == -1122
    )


def test_near_the_end_positions_are_closed_and_none_opened() -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1_000, symbol=XRP)
    resting = order(venue, account, "BUY", "LIMIT", 100, symbol=XRP, price="1.9")
    venue.closing = {XRP}
    assert code(lambda: order(venue, account, "BUY", "MARKET", 10, symbol=XRP)) == -4140
    assert code(lambda: amend(venue, account, resting, "BUY", D(200), D("1.9"))) == -4140
    stop = request("SELL", "STOP_MARKET", 10, symbol=XRP, trigger_price="1.8")
    assert code(lambda: place_algo(venue, account, stop)) == -4140
    place_algo(venue, account, request("SELL", "STOP_MARKET", symbol=XRP, trigger_price="1.8", close_position=True))
    order(venue, account, "SELL", "MARKET", 400, symbol=XRP, reduce_only=True)
    order(venue, account, "BUY", "MARKET", "0.01")
    move(venue, "1.7", symbol=XRP)
    assert not account.position(XRP, "BOTH").quantity or resting.status == "FILLED"


def test_a_conditional_order_that_would_open_is_rejected_near_the_end() -> None:
    venue, account = venue_at(algo_lag_ms=0)
    algo = place_algo(venue, account, request("BUY", "STOP_MARKET", 100, symbol=XRP, trigger_price="2.1"))
    venue.closing = {XRP}
    move(venue, "2.2", symbol=XRP)
    assert (algo.status, algo.reason[:5]) == ("REJECTED", "-4140")


def test_a_settlement_price_beyond_bankruptcy_is_a_liquidation() -> None:
    venue, account = venue_at(cash=1_100)
    set_leverage(venue, account, XRP, 50)
    order(venue, account, "BUY", "MARKET", 20_000, symbol=XRP)
    venue.take_events()
    settle_delisted(venue, XRP, D("1.5"))
    assert account.wallet == 0
    assert venue.state.books.insurance < 0
    assert "ORDER_TRADE_UPDATE:CALCULATED" in kinds(venue)


@given(
    hedge=st.booleans(),
    isolated=st.booleans(),
    trades=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, 50)), max_size=6),
    resting=st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=4),
    stops=st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=4),
    settle=st.integers(-150, 150),
)
def test_nothing_is_left_or_lost(
    hedge: bool,
    isolated: bool,
    trades: list[tuple[bool, bool, int]],
    resting: list[tuple[bool, int]],
    stops: list[tuple[bool, int]],
    settle: int,
) -> None:
    """Whatever accounts have in a symbol; the books are checked at every step."""
    venue, account = venue_at(cash=20_000)
    if isolated:
        set_margin_type(venue, account, XRP, True)
    if hedge:
        set_hedge(account, True)

    def side(buys: bool) -> dict[str, str]:
        return {"position_side": "LONG" if buys else "SHORT"} if hedge else {}

    for buys, xrp, size in trades:
        symbol, quantity = (XRP, D(size * 20)) if xrp else (BTC, D(size) / 1_000)
        order(venue, account, "BUY" if buys else "SELL", "MARKET", quantity, symbol=symbol, **side(buys))
    for buys, distance in resting:
        price = D(2) * (1000 - distance * (1 if buys else -1)) / 1000
        order(venue, account, "BUY" if buys else "SELL", "LIMIT", 10, symbol=XRP, price=price, **side(buys))
    for buys, distance in stops:
        trigger = D(2) * (1000 + distance * (1 if buys else -1)) / 1000
        stop = request("BUY" if buys else "SELL", "STOP_MARKET", 10, symbol=XRP, trigger_price=trigger, **side(buys))
        place_algo(venue, account, stop)
    price = D(2) * (1000 + settle) / 1000
    held = [each for each in account.held_positions() if each.symbol == XRP]
    profit = sum((each.unrealized(price) for each in held), Decimal(0))
    fees = sum((abs(each.quantity) * price * account.taker_fee for each in held), Decimal(0))
    before, elsewhere = account.wallet, {each.symbol: each.quantity for each in account.held_positions()}
    venue.take_events()
    venue.closing = {XRP}
    settle_delisted(venue, XRP, price)
    assert XRP not in account.active_symbols()
    assert not any(position.isolated_wallet for position in account.positions.values())
    liquidated = any(each.kind == "INSURANCE_CLEAR" for each in account.income)
    if not liquidated:
        assert abs(account.wallet - (before + profit - fees)) < D("0.0000001")
        assert {each.symbol: each.quantity for each in account.held_positions()} == {
            symbol: quantity for symbol, quantity in elsewhere.items() if symbol != XRP
        }
    ends = [event.body["o"] for event in venue.take_events() if event.body["e"] == "ORDER_TRADE_UPDATE"]
    assert {each["er"] for each in ends if each["x"] == "EXPIRED"} <= {"7"}
    assert sum(each["x"] == "EXPIRED" for each in ends) == len(resting)
    venue.advance(venue.now_ms + 1_000, {BTC: quote(50_000)})
