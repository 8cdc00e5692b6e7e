"""priceMatch: the price of an order is taken from the book when the order comes."""

from __future__ import annotations

import pytest

from market.simulator.venue.algo import place_algo
from market.simulator.venue.placing import amend, place
from market.simulator.venue.price_match import LEVELS
from market.simulator.venue.refusals import Refusal
from tests.market.venue.made import XRP, D, move, order, request, venue_at


@pytest.mark.parametrize("mode", LEVELS)
@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_the_level_of_the_book(mode: str, side: str) -> None:
    venue, account = venue_at()
    found = order(venue, account, side, "LIMIT", "0.01", price_match=mode)
    side_of_book, level = mode.partition("_")[0], int(mode.partition("_")[2] or 1)
    away = (1 if side == "BUY" else -1) * (1 if side_of_book == "OPPONENT" else -1)
    assert found.price == 50_000 + away * level * D("0.1")
    assert found.price_match == mode
    assert found.status == ("FILLED" if side_of_book == "OPPONENT" else "NEW")


@pytest.mark.parametrize(
    ("kind", "more", "code"),
    [
        ("LIMIT", {"price_match": "BEST"}, -5037),
        ("LIMIT", {"price_match": "QUEUE", "price": 49_000}, -1106),
        ("MARKET", {"price_match": "QUEUE"}, -5038),
        ("LIMIT", {"price_match": "OPPONENT", "time_in_force": "GTX"}, -5022),
        ("LIMIT", {}, -1102),
    ],
)
def test_what_is_refused(kind: str, more: dict[str, object], code: int) -> None:
    venue, account = venue_at()
    with pytest.raises(Refusal) as refused:
        place(venue, account, request("BUY", kind, "0.01", **more))
    assert refused.value.code == code
    assert not account.open_orders


def test_a_level_that_is_not_there() -> None:
    venue, account = venue_at(xrp="0.0010")
    with pytest.raises(Refusal) as refused:
        order(venue, account, "BUY", "LIMIT", 50_000, symbol=XRP, price_match="QUEUE_20")
    assert refused.value.code == -5041


def test_a_conditional_order_takes_its_price_when_it_triggers() -> None:
    venue, account = venue_at(algo_lag_ms=0)
    order(venue, account, "BUY", "MARKET", "0.1")
    algo = place_algo(
        venue, account, request("SELL", "STOP", "0.1", trigger_price=49_500, price_match="QUEUE_5", reduce_only=True)
    )
    with pytest.raises(Refusal) as refused:
        place_algo(venue, account, request("SELL", "STOP_MARKET", "0.1", trigger_price=49_500, price_match="QUEUE"))
    assert refused.value.code == -5038
    move(venue, 49_500)
    (child,) = account.open_orders.values()
    assert (child.id, child.price, child.price_match) == (algo.order_id, D("49500.5"), "QUEUE_5")
    move(venue, 49_501)
    assert child.status == "FILLED"


def test_an_order_is_amended_to_the_book() -> None:
    venue, account = venue_at()
    resting = order(venue, account, "BUY", "LIMIT", "0.01", price=49_000)
    changed = amend(venue, account, resting, "BUY", D("0.01"), None, "QUEUE")
    assert (changed.price, changed.price_match, changed.status) == (D("49999.9"), "QUEUE", "NEW")
    with pytest.raises(Refusal) as refused:
        amend(venue, account, changed, "BUY", D("0.02"), D(49_000), "QUEUE")
    assert refused.value.code == -1106
