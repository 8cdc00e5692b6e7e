"""Conditional orders: what is refused, when they trigger, what becomes of them and in which order it is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.simulator.venue.algo import cancel_algo, place_algo
from market.simulator.venue.execution import cancel_all
from market.simulator.venue.orders import AlgoOrder
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import set_hedge
from tests.market.venue.made import BTC, RULES, D, kinds, move, order, quote, request, venue_at


def stop(venue: Any, account: Any, side: str, kind: str, quantity: Any = None, **more: Any) -> AlgoOrder:
    more.setdefault("time_in_force", None)
    return place_algo(venue, account, request(side, kind, quantity, **more))


@pytest.mark.parametrize(
    ("side", "kind", "quantity", "more", "expected"),
    [
        ("SELL", "STOP_MARKET", 1, {"trigger_price": 50_000}, -2021),
        ("BUY", "STOP_MARKET", 1, {"trigger_price": 49_000}, -2021),
        ("SELL", "TAKE_PROFIT_MARKET", 1, {"trigger_price": 49_000}, -2021),
        ("BUY", "TAKE_PROFIT", 1, {"trigger_price": 51_000, "price": 51_000}, -2021),
        ("SELL", "STOP_MARKET", 1, {}, -1102),
        ("SELL", "STOP", 1, {"trigger_price": 49_000}, -1102),
        ("SELL", "STOP_MARKET", None, {"trigger_price": 49_000}, -1102),
        ("SELL", "STOP_MARKET", 1, {"trigger_price": 49_000, "close_position": True}, -4137),
        ("SELL", "STOP_MARKET", None, {"trigger_price": 49_000, "close_position": True, "reduce_only": True}, -4138),
        ("SELL", "STOP", None, {"trigger_price": 49_000, "price": 1, "close_position": True}, -4136),
        ("SELL", "TRAILING_STOP_MARKET", 1, {"trigger_price": 49_000, "callback_rate": 1}, -2021),
        ("SELL", "TRAILING_STOP_MARKET", 1, {"callback_rate": "0.05"}, -1130),
        ("SELL", "TRAILING_STOP_MARKET", 1, {"callback_rate": "20.1"}, -1130),
        ("SELL", "TRAILING_STOP_MARKET", 1, {}, -1102),
        ("SELL", "TRAILING_STOP_MARKET", 1, {"callback_rate": 1, "activate_price": 49_000}, -2021),
        ("SELL", "LIMIT", 1, {"trigger_price": 49_000, "price": 1, "time_in_force": "GTC"}, -1116),
        ("SELL", "STOP_MARKET", 1, {"trigger_price": "49000.05"}, -4014),
        ("SELL", "STOP_MARKET", 1, {"trigger_price": 49_000, "time_in_force": "GTE_GTC"}, -4509),
        ("SELL", "STOP_MARKET", 1, {"trigger_price": 49_000, "position_side": "LONG"}, -4061),
    ],
)
def test_a_refused_conditional_order_leaves_nothing(
    side: str, kind: str, quantity: Any, more: dict[str, Any], expected: int
) -> None:
    venue, account = venue_at()
    with pytest.raises(Refusal) as refused:
        stop(venue, account, side, kind, quantity, **more)
    assert refused.value.code == expected
    assert not account.open_algos
    assert kinds(venue) == []


def test_a_stop_triggers_and_its_child_is_told_first() -> None:
    venue, account = venue_at(algo_lag_ms=50)
    order(venue, account, "BUY", "MARKET", 1)
    placed = stop(venue, account, "SELL", "STOP_MARKET", trigger_price=49_500, close_position=True, client_id="guard")
    assert placed.id > 1_000_000_000_000_000
    venue.take_events()
    start = venue.now_ms
    move(venue, 49_000, ms=1_000)
    assert kinds(venue) == [
        "ALGO_UPDATE:TRIGGERING",
        "ORDER_TRADE_UPDATE:NEW",
        "TRADE_LITE",
        "ACCOUNT_UPDATE:ORDER",
        "ORDER_TRADE_UPDATE:TRADE",
        "ALGO_UPDATE:TRIGGERED",
        "ALGO_UPDATE:FINISHED",
    ]
    child = account.past_orders[placed.order_id]
    assert placed.trigger_ms == start + 500
    assert child.created_ms == start + 550
    assert child.average_price == 49_450  # the lag costs what the price does meanwhile
    assert (child.client_id, child.algo_type, child.close_position) == ("guard", "STOP_MARKET", True)
    assert account.position(BTC, "BOTH").quantity == 0


def test_the_lag_outlasts_a_step() -> None:
    venue, account = venue_at(algo_lag_ms=500)
    order(venue, account, "BUY", "MARKET", 1)
    placed = stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_500)
    move(venue, 49_500, ms=1_000)
    assert placed.status == "TRIGGERING"
    with pytest.raises(Refusal) as refused:
        cancel_algo(venue, account, placed)
    assert refused.value.code == -4117
    move(venue, 50_500, ms=1_000)
    assert placed.status == "FINISHED"
    assert account.past_orders[placed.order_id].average_price == 50_000


def test_margin_is_looked_at_only_when_it_triggers() -> None:
    venue, account = venue_at(cash=1_000)
    placed = stop(venue, account, "BUY", "STOP_MARKET", 100, trigger_price=50_100)
    venue.take_events()
    move(venue, 50_200)
    assert placed.status == "REJECTED"
    assert placed.reason.startswith("-2019")
    assert kinds(venue) == ["ALGO_UPDATE:TRIGGERING", "ALGO_UPDATE:REJECTED"]


def test_a_limit_child_rests_until_it_is_filled() -> None:
    venue, account = venue_at()
    placed = stop(venue, account, "BUY", "TAKE_PROFIT", "0.1", trigger_price=49_500, price=49_000, time_in_force="GTC")
    move(venue, 49_400)
    assert placed.status == "TRIGGERED"
    assert account.open_orders[placed.order_id].price == 49_000
    with pytest.raises(Refusal) as refused:
        cancel_algo(venue, account, placed)
    assert refused.value.code == -2011
    venue.take_events()
    move(venue, 48_900)
    assert kinds(venue)[-2:] == ["ORDER_TRADE_UPDATE:TRADE", "ALGO_UPDATE:FINISHED"]


def test_the_mark_price_triggers_what_works_on_it() -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1)
    by_mark = stop(venue, account, "SELL", "STOP_MARKET", "0.1", trigger_price=49_500, working_type="MARK_PRICE")
    by_last = stop(venue, account, "SELL", "STOP_MARKET", "0.1", trigger_price=49_500)
    move(venue, 49_800, 49_400)
    assert (by_mark.status, by_last.status) == ("FINISHED", "NEW")
    move(venue, 49_400, 49_800)
    assert by_last.status == "FINISHED"


def test_price_protection_waits_until_both_prices_are_near() -> None:
    venue, account = venue_at(algo_lag_ms=0)
    order(venue, account, "BUY", "MARKET", 1)
    placed = stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=47_500, price_protect=True)
    move(venue, 47_000, 50_000)
    assert placed.status == "NEW"
    move(venue, 47_000, 48_000)
    assert placed.status == "FINISHED"


@given(st.lists(st.integers(45_000, 55_000), min_size=1, max_size=12), st.booleans(), st.integers(1, 50))
def test_a_trailing_stop_follows_the_best_price(prices: list[int], sells: bool, tenths: int) -> None:
    venue, account = venue_at(cash=1_000_000)
    order(venue, account, "BUY" if sells else "SELL", "MARKET", 1)
    placed = stop(venue, account, "SELL" if sells else "BUY", "TRAILING_STOP_MARKET", 1, callback_rate=D(tenths) / 10)
    best = D(50_000)
    sign = -1 if sells else 1
    for price in prices:
        expected = RULES[BTC].on_tick(best * (1 + sign * D(tenths) / 1_000))
        triggers = (price - expected) * sign >= 0
        move(venue, price)
        assert (placed.status != "NEW") == triggers
        if triggers:
            assert placed.trigger_price == expected
            return
        best = max(best, D(price)) if sells else min(best, D(price))


def test_a_trailing_stop_waits_for_its_activation() -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1)
    placed = stop(venue, account, "SELL", "TRAILING_STOP_MARKET", 1, callback_rate=1, activate_price=51_000)
    move(venue, 49_000)
    assert placed.status == "NEW"
    assert not placed.active
    move(venue, 52_000)
    assert placed.trigger_price == 51_480
    move(venue, 51_500)
    assert placed.status == "NEW"
    move(venue, 51_400)
    assert placed.status == "FINISHED"


def test_ids_and_cancelling_are_of_a_space_of_their_own() -> None:
    venue, account = venue_at()
    placed = stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_000)
    cancel_all(venue, account, BTC)
    assert placed.status == "NEW"
    cancel_algo(venue, account, placed)
    assert placed.status == "CANCELED"
    assert account.past_algos == {placed.id: placed}


def test_close_position_once_a_direction_and_expires_without_one() -> None:
    venue, account = venue_at()
    placed = stop(venue, account, "SELL", "STOP_MARKET", trigger_price=49_000, close_position=True)
    with pytest.raises(Refusal) as refused:
        stop(venue, account, "SELL", "STOP_MARKET", trigger_price=48_000, close_position=True)
    assert refused.value.code == -4130
    stop(venue, account, "SELL", "TAKE_PROFIT_MARKET", trigger_price=52_000, close_position=True)
    move(venue, 48_900)
    assert placed.status == "EXPIRED"


def test_good_till_position_dies_with_it() -> None:
    venue, account = venue_at()
    set_hedge(account, True)
    order(venue, account, "BUY", "MARKET", 1, position_side="LONG")
    placed = stop(
        venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_000, position_side="LONG", time_in_force="GTE_GTC"
    )
    order(venue, account, "SELL", "MARKET", 1, position_side="LONG")
    assert placed.status == "EXPIRED"


def test_a_gap_triggers_beyond_the_stop() -> None:
    venue, account = venue_at(algo_lag_ms=0)
    order(venue, account, "BUY", "MARKET", 1)
    placed = stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_500)
    venue.jump({BTC: quote(48_000)})
    assert account.past_orders[placed.order_id].average_price == 48_000


def test_an_account_has_200_conditional_orders() -> None:
    venue, account = venue_at()
    for i in range(200):
        stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_000 - i)
    with pytest.raises(Refusal) as refused:
        stop(venue, account, "SELL", "STOP_MARKET", 1, trigger_price=49_000)
    assert refused.value.code == -4045
