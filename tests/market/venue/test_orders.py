"""Orders: filters and their codes, time in force, fills on the price's way, what only closes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.simulator.venue.execution import cancel
from market.simulator.venue.placing import amend, place
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import set_hedge
from tests.market.venue.made import BTC, XRP, D, kinds, move, order, quote, request, venue_at

BUY = ("BUY", "LIMIT")


@pytest.mark.parametrize(
    ("side", "kind", "quantity", "more", "expected"),
    [
        ("BUY", "LIMIT", 1, {"price": 0}, -4001),
        ("BUY", "LIMIT", 1, {"price": 2_000_000}, -4002),
        ("BUY", "LIMIT", 1, {"price": "0.01"}, -4013),
        ("BUY", "LIMIT", 1, {"price": "49000.05"}, -4014),
        ("BUY", "LIMIT", 1, {"price": "49000.005"}, -1111),
        ("BUY", "LIMIT", "0.0005", {"price": 49_000}, -1111),
        ("BUY", "LIMIT", 0, {"price": 49_000}, -4003),
        ("BUY", "LIMIT", 2_000, {"price": 49_000}, -4005),
        ("BUY", "LIMIT", 1, {"price": 56_000}, -4016),
        ("SELL", "LIMIT", 1, {"price": 44_000}, -4024),
        ("BUY", "LIMIT", "0.001", {"price": 48_000}, -4164),
        ("BUY", "MARKET", 1, {"price": 50_000}, -1106),
        ("BUY", "MARKET", 1, {"time_in_force": "GTC"}, -1106),
        ("BUY", "MARKET", None, {}, -1102),
        ("BUY", "LIMIT", 1, {}, -1102),
        ("BUY", "LIMIT", 1, {"price": 49_000, "time_in_force": "GTD"}, -1115),
        ("BUY", "LIMIT", 1, {"price": 49_000, "client_id": "a b"}, -4015),
        ("BUY", "LIMIT", 1, {"price": 50_000, "time_in_force": "GTX"}, -5022),
        ("BUY", "LIMIT", 1, {"price": 49_999, "time_in_force": "FOK"}, -5021),
        ("BUY", "MARKET", 1, {"symbol": "NOSUCHUSDT"}, -1121),
        ("BUY", "MARKET", 1, {"position_side": "LONG"}, -4061),
        ("BUY", "MARKET", 1, {"reduce_only": True}, -2022),
        ("BUY", "MARKET", 1, {"close_position": True}, -4136),
        ("BUY", "STOP_MARKET", 1, {"trigger_price": 51_000}, -4120),
        ("BUY", "LIMIT_MAKER", 1, {"price": 49_000}, -1116),
        ("BUY", "MARKET", 50, {}, -2019),
    ],
)
def test_a_refused_order_leaves_nothing(
    side: str, kind: str, quantity: Any, more: dict[str, Any], expected: int
) -> None:
    venue, account = venue_at()
    with pytest.raises(Refusal) as refused:
        place(venue, account, request(side, kind, quantity, **more))
    assert refused.value.code == expected
    assert not account.open_orders
    assert not account.past_orders
    assert kinds(venue) == []


def test_client_ids_are_unique_among_open_orders_only() -> None:
    venue, account = venue_at()
    first = order(venue, account, *BUY, 1, price=49_000, client_id="mine")
    with pytest.raises(Refusal) as refused:
        order(venue, account, *BUY, 1, price=48_000, client_id="mine")
    assert refused.value.code == -4116
    cancel(venue, account, first)
    assert order(venue, account, *BUY, 1, price=48_000, client_id="mine").working


def test_a_symbol_takes_200_open_orders() -> None:
    venue, account = venue_at(cash=1_000_000)
    for _ in range(200):
        order(venue, account, *BUY, "0.002", price=49_000)
    with pytest.raises(Refusal) as refused:
        order(venue, account, *BUY, "0.002", price=49_000)
    assert refused.value.code == -2025


def test_a_market_order_is_told_in_the_venues_order() -> None:
    venue, account = venue_at()
    acknowledged, done = place(venue, account, request("BUY", "MARKET", 1))
    assert (acknowledged.status, acknowledged.executed) == ("NEW", 0)
    assert (done.status, done.average_price) == ("FILLED", 50_000)
    assert kinds(venue) == [
        "ORDER_TRADE_UPDATE:NEW",
        "TRADE_LITE",
        "ACCOUNT_UPDATE:ORDER",
        "ORDER_TRADE_UPDATE:TRADE",
    ]
    assert account.trades[0].commission == 25
    assert not account.trades[0].maker


def test_a_limit_fills_where_and_when_the_price_comes_by() -> None:
    venue, account = venue_at()
    start = venue.now_ms
    low = order(venue, account, *BUY, "0.1", price=49_500)
    high = order(venue, account, "SELL", "LIMIT", "0.1", price=50_100)
    move(venue, 49_600, ms=1_000)
    assert (low.status, high.status) == ("NEW", "NEW")
    move(venue, 49_000, ms=6_000)
    assert low.status == "FILLED"
    assert low.updated_ms == start + 2_000  # a sixth of the way
    assert account.trades[0].price == 49_500
    assert account.trades[0].maker
    assert account.trades[0].commission == D("0.99")  # 4,950 × 0.02 %
    assert high.working


@given(
    prices=st.lists(st.integers(49_000, 51_000), min_size=1, max_size=8),
    limit=st.integers(49_000, 51_000),
    buys=st.booleans(),
)
def test_a_resting_order_fills_exactly_when_the_path_reaches_it(prices: list[int], limit: int, buys: bool) -> None:
    venue, account = venue_at(cash=1_000_000)
    resting = order(venue, account, "BUY" if buys else "SELL", "LIMIT", "0.1", price=limit)
    for price in prices:
        move(venue, price)
    path = [50_000, *prices]
    assert (resting.status == "FILLED") == (min(path) <= limit if buys else max(path) >= limit)
    for trade in account.trades:
        assert min(path) <= trade.price <= max(path)
        assert (trade.price <= limit) if buys else (trade.price >= limit)


def test_time_in_force() -> None:
    venue, account = venue_at()
    venue.liquidity = {BTC: D("0.3")}
    move(venue, 50_000)
    taken = order(venue, account, *BUY, 1, price=50_100, time_in_force="IOC")
    assert (taken.status, taken.executed, taken.expiry_reason, taken.average_price) == ("EXPIRED", D("0.3"), 2, 50_000)
    move(venue, 50_000)
    rest = order(venue, account, "BUY", "MARKET", 1)
    assert (rest.status, rest.executed, rest.expiry_reason) == ("EXPIRED", D("0.3"), 9)
    move(venue, 50_000)
    with pytest.raises(Refusal):
        order(venue, account, *BUY, 1, price=50_100, time_in_force="FOK")
    assert order(venue, account, *BUY, "0.3", price=50_100, time_in_force="FOK").status == "FILLED"
    missed = order(venue, account, *BUY, 1, price=49_000, time_in_force="IOC")
    assert (missed.status, missed.executed) == ("EXPIRED", 0)
    posted = order(venue, account, *BUY, 1, price="49999.9", time_in_force="GTX")
    for _ in range(4):
        assert posted.working
        move(venue, "49999.9")
    assert posted.status == "FILLED"
    assert len([trade for trade in account.trades if trade.order_id == posted.id]) == 4


def test_reduce_only_never_opens_and_dies_with_its_position() -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1)
    target = order(venue, account, "SELL", "LIMIT", 2, price=51_000, reduce_only=True)
    larger = order(venue, account, "SELL", "MARKET", "0.6", reduce_only=True)
    assert larger.status == "FILLED"
    move(venue, 51_100)
    assert (target.status, target.executed, target.expiry_reason) == ("EXPIRED", D("0.4"), 4)
    assert account.position(BTC, "BOTH").quantity == 0
    order(venue, account, "BUY", "MARKET", "0.1")
    waiting = order(venue, account, "SELL", "LIMIT", "0.1", price=52_000, reduce_only=True)
    assert order(venue, account, "SELL", "MARKET", "0.1").status == "FILLED"
    assert (waiting.status, waiting.expiry_reason) == ("EXPIRED", 4)


def test_closing_is_exempt_from_the_least_notional() -> None:
    venue, account = venue_at(xrp="2")
    order(venue, account, "BUY", "MARKET", 10, symbol=XRP)
    with pytest.raises(Refusal) as refused:
        order(venue, account, "SELL", "MARKET", 1, symbol=XRP)
    assert refused.value.code == -4164
    assert order(venue, account, "SELL", "MARKET", 1, symbol=XRP, reduce_only=True).status == "FILLED"


def test_a_gap_fills_resting_orders_at_their_limit() -> None:
    venue, account = venue_at()
    resting = order(venue, account, *BUY, "0.1", price=49_500)
    venue.jump({BTC: quote(48_000)})
    assert (resting.status, resting.average_price) == ("FILLED", 49_500)


def test_amending_keeps_the_id_and_can_cross() -> None:
    venue, account = venue_at()
    resting = order(venue, account, *BUY, "0.1", price=49_000)
    with pytest.raises(Refusal) as refused:
        amend(venue, account, resting, "BUY", D("0.1"), D(49_000))
    assert refused.value.code == -5027
    with pytest.raises(Refusal) as refused:
        amend(venue, account, resting, "BUY", D(90), D(49_000))
    assert refused.value.code == -2019
    assert account.open_orders[resting.id].quantity == D("0.1")
    changed = amend(venue, account, resting, "BUY", D("0.2"), D(50_000))
    assert (changed.id, changed.status) == (resting.id, "FILLED")
    assert "ORDER_TRADE_UPDATE:AMENDMENT" in kinds(venue)


def test_the_countdown_cancels_what_is_open() -> None:
    venue, account = venue_at()
    resting = order(venue, account, *BUY, "0.1", price=49_000)
    other = order(venue, account, *BUY, 100, price="1.9", symbol=XRP)
    account.countdowns[BTC] = venue.now_ms + 5_000
    move(venue, 49_900, ms=4_999)
    assert resting.working
    account.countdowns[BTC] = venue.now_ms + 5_000
    move(venue, 49_900, ms=4_999)
    assert resting.working
    move(venue, 48_000, ms=1_000)  # reaches 49,000 only after the countdown has run out
    assert (resting.status, other.status) == ("CANCELED", "NEW")
    assert account.countdowns == {}


def test_amending_cannot_close_more_than_there_is() -> None:
    venue, account = venue_at()
    set_hedge(account, True)
    order(venue, account, "BUY", "MARKET", "0.2", position_side="LONG")
    closing = order(venue, account, "SELL", "LIMIT", "0.1", price=51_000, position_side="LONG")
    with pytest.raises(Refusal) as refused:
        amend(venue, account, closing, "SELL", D("0.3"), D(50_000))
    assert refused.value.code == -2022
    assert amend(venue, account, closing, "SELL", D("0.2"), D(50_000)).status == "FILLED"
