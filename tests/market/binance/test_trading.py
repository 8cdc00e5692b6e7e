"""Orders are placed once, cancelled for good, and never lost sight of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance.account import AccountClient
from market.binance.errors import (
    NeverArrived,
    OrderRefused,
    OrderUnknown,
    OutcomeUnknown,
    Overloaded,
    VenueUnavailable,
)
from market.binance.orders import Direction, Order, TimeInForce
from market.binance.position_mode import PositionSide
from market.binance.rate_limit import RateBudget
from market.binance.trading import ARRIVES_WITHIN_S, EXIT_ATTEMPTS, GIVE_UP_S
from tests.market.binance.spoken import (
    ALGO,
    LONG,
    ORDER,
    QUERY,
    QUERY_ALGO,
    D,
    algo,
    leaving,
    one_way,
    state,
    stop,
)
from tests.market.binance.venue import Answer, Asked, refusal, served


async def test_an_order_is_placed_and_its_answer_typed() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers[ORDER] = state()
        placed = await AccountClient(transport).orders.place(LONG)
        assert (placed.status, placed.avg_price, placed.open) == ("FILLED", D("60000.1"), False)
        assert venue.of(ORDER) == [
            {
                "symbol": "BTCUSDT",
                "side": "BUY",
                "type": "MARKET",
                "quantity": "0.002",
                "newClientOrderId": "a-1",
                "newOrderRespType": "RESULT",
            }
        ]


async def test_a_limit_order_and_a_conditional_one() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {ORDER: state("b", "NEW"), ALGO: algo()}
        orders = AccountClient(transport).orders
        limit = Order(
            symbol="BTCUSDT",
            direction=Direction.SHORT,
            client_id="b",
            quantity=D("1E-3"),
            price=D("61000.0"),
            time_in_force=TimeInForce.GTX,
        )
        assert (await orders.place(limit)).open
        sent = venue.of(ORDER)[0]
        assert [sent[name] for name in ("side", "quantity", "price", "timeInForce")] == [
            "SELL",
            "0.001",
            "61000.0",
            "GTX",
        ]
        placed = await orders.place_algo(stop())
        assert (placed.algo_id, placed.open, placed.trigger_price) == (1000000033225453, True, D("50000.10"))
        assert venue.of(ALGO) == [
            {
                "symbol": "BTCUSDT",
                "side": "SELL",
                "algoType": "CONDITIONAL",
                "type": "STOP_MARKET",
                "closePosition": "true",
                "triggerPrice": "50000.10",
                "workingType": "CONTRACT_PRICE",
                "clientAlgoId": "s-1",
            }
        ]


UNKNOWN = [
    refusal(-1007, "Timeout waiting for response from backend server.", 503),
    refusal(-1006),
    refusal(0, "Unknown error, please check your request or try again later.", 503),
    Answer(cut=True),
    Answer(b"{", 200),
]


@pytest.mark.parametrize("answer", UNKNOWN)
async def test_an_unknown_outcome_is_asked_for_and_never_sent_again(answer: Answer) -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {ORDER: answer, QUERY: [refusal(-2013), refusal(-1001), state()]}
        placed = await AccountClient(transport).orders.place(LONG)
        assert placed.status == "FILLED"
        assert venue.count(ORDER) == 1
        assert venue.of(QUERY)[0] == {"symbol": "BTCUSDT", "origClientOrderId": "a-1"}


async def test_an_order_that_is_not_there_counts_as_not_done_only_when_it_cannot_arrive_any_more() -> None:
    async with served() as (venue, transport, pauses):
        one_way(venue)
        venue.answers |= {ORDER: UNKNOWN[0], QUERY: refusal(-2013, "Order does not exist.")}
        orders = AccountClient(transport).orders
        begun = pauses.now_s
        with pytest.raises(NeverArrived, match="a-1"):
            await orders.place(LONG)
        assert pauses.now_s - begun > ARRIVES_WITHIN_S
        assert venue.count(ORDER) == 1
        # It appears at the last moment.
        due = pauses.now_s + ARRIVES_WITHIN_S
        venue.answers[QUERY] = lambda asked: state() if pauses.now_s >= due else refusal(-2013)
        assert (await orders.place(LONG)).status == "FILLED"


async def test_when_even_asking_fails_nothing_is_assumed() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {ORDER: UNKNOWN[0], QUERY: refusal(-1001, "", 503)}
        orders = AccountClient(transport).orders
        with pytest.raises(OutcomeUnknown, match="and asking failed"):
            await orders.place(LONG)
        venue.answers[QUERY] = refusal(-2015, "", 401)
        with pytest.raises(OutcomeUnknown, match="-2015"):
            await orders.place(LONG)
        assert venue.count(ORDER) == 2


async def test_a_repeated_id_means_that_the_order_has_landed() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {ORDER: refusal(-4116, "ClientOrderId is duplicated."), QUERY: state(status="NEW")}
        assert (await AccountClient(transport).orders.place(LONG)).open
        venue.answers |= {ALGO: refusal(-4116), QUERY_ALGO: algo()}
        assert (await AccountClient(transport).orders.place_algo(stop())).open


@pytest.mark.parametrize("sent", [refusal(-4116, "ClientOrderId is duplicated."), refusal(-1007, "", 503)])
@pytest.mark.parametrize("other", [{"side": "SELL"}, {"origQty": "7"}, {"symbol": "ETHUSDT"}])
async def test_another_order_under_the_same_id_is_not_taken_for_ours(sent: Answer, other: dict[str, str]) -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {ORDER: sent, QUERY: state(status="NEW", **other)}
        (value,) = other.values()
        with pytest.raises(OutcomeUnknown, match=f"is another: its .* is {value}"):
            await AccountClient(transport).orders.place(LONG)
        conditional = {"quantity": other["origQty"]} if "origQty" in other else other | {"quantity": "0.5"}
        conditional |= {"side": "BUY"} if "side" in other else {}
        venue.answers |= {ALGO: sent, QUERY_ALGO: algo(**conditional)}
        with pytest.raises(OutcomeUnknown, match="is another"):
            await AccountClient(transport).orders.place_algo(stop(quantity=D("0.5")))


async def test_a_repeated_id_that_nobody_shows_leaves_the_outcome_open() -> None:
    """The venue says that there is such an order, and that there is none: it may be under way, or another symbol's."""
    async with served() as (venue, transport, pauses):
        one_way(venue)
        venue.answers |= {ORDER: refusal(-4116, "ClientOrderId is duplicated."), QUERY: refusal(-2013)}
        begun = pauses.now_s
        with pytest.raises(OutcomeUnknown, match=r"-4116.*-2013"):
            await AccountClient(transport).orders.place(LONG)
        assert pauses.now_s - begun > ARRIVES_WITHIN_S


@pytest.mark.parametrize(
    ("answer", "most_s", "questions"),
    [
        (refusal(-1003, "Too many", 429, Retry_After="3600"), 0.0, 1),
        (refusal(-1003, "Too many", 429, Retry_After="20"), GIVE_UP_S, 4),
        (refusal(-1003, "Too many", 429), GIVE_UP_S, 5),
        (refusal(-1003, "banned", 418), 0.0, 1),
        (refusal(-1001, "", 503), GIVE_UP_S, 34),
        (Answer(b"{"), 0.0, 1),
    ],
)
async def test_nobody_asks_longer_for_an_outcome_than_for_a_minute(
    answer: Answer, most_s: float, questions: int
) -> None:
    async with served() as (venue, transport, pauses):
        one_way(venue)
        venue.answers |= {ORDER: UNKNOWN[0], QUERY: answer}
        with pytest.raises(OutcomeUnknown, match="asking failed"):
            await AccountClient(transport).orders.place(LONG)
        assert sum(pauses) <= most_s
        assert venue.count(QUERY) == questions, "each question is one request"
        venue.answers[QUERY] = [answer, state()]
        if most_s:
            assert (await AccountClient(transport).orders.place(LONG)).status == "FILLED"


async def test_a_spent_budget_does_not_end_the_asking(tmp_path: Path) -> None:
    budget = RateBudget(tmp_path, "http://x", weight=100)
    async with served(budget=budget) as (venue, transport, pauses):
        budget._now_s = budget.weight._now_s = budget.orders_10s._now_s = budget.orders_1m._now_s = pauses.seconds
        budget._sleep = pauses
        one_way(venue)
        venue.answers |= {ORDER: UNKNOWN[0], QUERY: state()}
        orders = AccountClient(transport).orders
        await orders.mode.refresh()
        budget.weight.observe(100)
        await pauses(25.0)
        begun = pauses.now_s
        assert (await orders.place(LONG)).status == "FILLED"
        assert 30.0 < pauses.now_s - begun < GIVE_UP_S


@pytest.mark.parametrize(
    "failed",
    [
        refusal(-1008, "Request throttled by system-level protection.", 503),
        refusal(-1001, "Internal error; unable to process your request. Please try again.", 503),
    ],
)
async def test_what_reduces_risk_is_tried_again_when_the_venue_says_that_it_failed(failed: Answer) -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        venue.answers |= {
            ORDER: [failed, state("x-1")],
            "DELETE /fapi/v1/order": [failed, state(status="CANCELED")],
        }
        orders = AccountClient(transport).orders
        assert (await orders.place(leaving(PositionSide.BOTH))).client_order_id == "x-1"
        assert (await orders.cancel("BTCUSDT", "a-1")).status == "CANCELED"
        assert venue.count(QUERY) == 0
        venue.answers[ORDER] = [failed]
        with pytest.raises((VenueUnavailable, Overloaded)):
            await orders.place(LONG)
        assert venue.count(ORDER) == 3


async def test_what_was_surely_not_done_is_sent_again_only_if_it_reduces() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        failed = refusal(0, "Service Unavailable.", 503)
        venue.answers[ORDER] = [failed, failed, state("x-1", side="SELL")]
        orders = AccountClient(transport).orders
        assert (await orders.place(leaving(PositionSide.BOTH))).client_order_id == "x-1"
        assert venue.count(ORDER) == EXIT_ATTEMPTS
        venue.answers[ORDER] = [failed]
        with pytest.raises(VenueUnavailable):
            await orders.place(LONG)
        assert venue.count(ORDER) == EXIT_ATTEMPTS + 1
        with pytest.raises(VenueUnavailable):
            await orders.place(leaving(PositionSide.BOTH))
        assert venue.count(ORDER) == 2 * EXIT_ATTEMPTS + 1


async def test_a_refusal_is_typed_and_final() -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        for code in (-2019, -2021, -4164, -5022):
            venue.answers[ORDER] = refusal(code)
            with pytest.raises(OrderRefused) as caught:
                await AccountClient(transport).orders.place(LONG)
            assert caught.value.code == code
        assert venue.count(ORDER) == 4


class Engine:
    """A venue's order book in which each request may go wrong before or after it is executed."""

    def __init__(self, plan: list[str], lag: int) -> None:
        self.plan, self.lag = plan, lag
        self.done: list[str] = []
        self.questions = 0

    def take(self, asked: Asked) -> Answer | dict[str, Any]:
        event = self.plan.pop(0) if self.plan else "ok"
        if event == "before":
            return refusal(-1007, "", 503)
        if event == "failed":
            return refusal(0, "Service Unavailable.", 503)
        if asked.parameters["newClientOrderId"] in self.done:
            return refusal(-4116)
        self.done.append(asked.parameters["newClientOrderId"])
        if event == "after":
            return refusal(-1006)
        if event == "cut":
            return Answer(cut=True)
        return state(asked.parameters["newClientOrderId"])

    def ask(self, asked: Asked) -> Answer | dict[str, Any]:
        self.questions += 1
        client_id = asked.parameters["origClientOrderId"]
        seen = client_id in self.done and self.questions > self.lag
        return state(client_id, side="BUY" if client_id == LONG.client_id else "SELL") if seen else refusal(-2013)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "before", "after", "cut", "failed"]), max_size=4),
    st.integers(0, 4),
    st.booleans(),
)
async def test_whatever_goes_wrong_an_order_is_done_once_or_said_not_to_be(
    plan: list[str], lag: int, reduces: bool
) -> None:
    async with served() as (venue, transport, _):
        one_way(venue)
        engine = Engine(list(plan), lag)
        venue.answers |= {ORDER: engine.take, QUERY: engine.ask}
        order = leaving(PositionSide.BOTH) if reduces else LONG
        try:
            placed = await AccountClient(transport).orders.place(order)
        except (NeverArrived, VenueUnavailable):
            assert engine.done == []
        else:
            assert engine.done == [placed.client_order_id]


# --- cancelling ---


async def test_cancelling_ends_in_the_final_state() -> None:
    async with served() as (venue, transport, _):
        delete, delete_algo = "DELETE /fapi/v1/order", "DELETE /fapi/v1/algoOrder"
        orders = AccountClient(transport).orders
        venue.answers |= {delete: state(status="CANCELED")}
        assert (await orders.cancel("BTCUSDT", "a-1")).status == "CANCELED"
        venue.answers |= {delete: refusal(-2011, "Unknown order sent."), QUERY: state(status="FILLED")}
        assert (await orders.cancel("BTCUSDT", "a-1")).status == "FILLED"
        venue.answers |= {delete: [refusal(-1007, "", 503), Answer(b"{"), refusal(-2011)]}
        assert (await orders.cancel("BTCUSDT", "a-1")).status == "FILLED"
        venue.answers |= {delete: refusal(-2011), QUERY: refusal(-2013)}
        with pytest.raises(OrderUnknown):
            await orders.cancel("BTCUSDT", "a-1")
        venue.answers |= {delete: refusal(-1007, "", 503)}
        with pytest.raises(OutcomeUnknown):
            await orders.cancel("BTCUSDT", "a-1")
        cancelled = {"algoId": 1, "clientAlgoId": "s-1", "code": "200", "msg": "success"}
        venue.answers |= {delete_algo: cancelled, QUERY_ALGO: algo(status="CANCELED")}
        assert (await orders.cancel_algo("BTCUSDT", "s-1")).algo_status == "CANCELED"
        triggered = algo(status="FINISHED", actualOrderId="88937381063")
        venue.answers |= {delete_algo: refusal(-2011), QUERY_ALGO: triggered}
        assert (await orders.cancel_algo("BTCUSDT", "s-1")).actual_order_id == "88937381063"
