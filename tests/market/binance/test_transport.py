"""One request and what comes of it: signed, counted, held back, sent once or again, and never showing a key."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from market.binance.breaker import Breaker, BreakerSettings, Kind, State
from market.binance.errors import (
    AccessRefused,
    AnswerInvalid,
    BinanceError,
    BudgetExhausted,
    CircuitOpen,
    ClockOff,
    IpBanned,
    KeyUnusable,
    LocationRefused,
    OutcomeUnknown,
    RateLimited,
    RequestInvalid,
    Unreachable,
    VenueUnavailable,
)
from market.binance.rate_limit import Cost, Priority, RateBudget
from market.binance.signing import Credentials
from market.binance.transport import Call, Security, Transport
from tests.market.binance.venue import KEY, SECRET, Answer, Asked, Venue, refusal, served

ORDER = "POST /fapi/v1/order"


def order(**changes: Any) -> Call:
    values: dict[str, Any] = {"symbol": "测试USDT", "quantity": Decimal("0.10"), "newClientOrderId": "a-1"}
    return Call(
        "POST",
        "/fapi/v1/order",
        values,
        **{
            "security": Security.SIGNED,
            "kind": Kind.ENTRY,
            "priority": Priority.ENTRIES,
            "cost": Cost(0, 1, 1),
            "changes": "order a-1",
            "in_body": True,
        }
        | changes,
    )


def read(path: str = "/fapi/v3/account") -> Call:
    return Call("GET", path, {"symbol": "测试USDT"}, Security.SIGNED, Kind.ACCOUNT, Priority.RECONCILE)


@pytest.mark.parametrize("in_body", [True, False])
async def test_the_venue_accepts_what_is_signed_in_query_and_body(in_body: bool) -> None:
    async with served() as (venue, transport, _):
        venue.answers[ORDER] = {"orderId": 7}
        assert await transport.ask(order(in_body=in_body), dict[str, int]) == {"orderId": 7}
        assert venue.of(ORDER) == [{"symbol": "测试USDT", "quantity": "0.10", "newClientOrderId": "a-1"}]
        sent = venue.raw[-1]
        assert "%E6%B5%8B" in sent
        assert ("? " in sent) == in_body


async def test_a_public_read_tells_nobody_who_asks() -> None:
    async with served() as (venue, transport, _):
        venue.answers["GET /fapi/v1/ping"] = lambda asked: {}
        await transport.ask(Call("GET", "/fapi/v1/ping"), dict[str, Any])
        assert not venue.asked[0].signed
        venue.answers["POST /fapi/v1/listenKey"] = {"listenKey": "k"}
        call = Call("POST", "/fapi/v1/listenKey", security=Security.KEY, changes="the listenKey")
        await transport.ask(call, dict[str, str])
        assert venue.asked[1].parameters == {}


async def test_without_a_key_nothing_is_sent_to_an_account() -> None:
    async with served(signed=False) as (venue, transport, _):
        with pytest.raises(KeyUnusable, match="/fapi/v3/account"):
            await transport.ask(read(), dict[str, Any])
        assert venue.asked == []


# --- the clock ---


@pytest.mark.parametrize("code", [-1021, -5028])
async def test_a_refused_timestamp_is_signed_anew_once(code: int) -> None:
    async with served() as (venue, transport, pauses):
        venue.answers[ORDER] = [{"orderId": 1}]
        await transport.ask(order(), dict[str, int])
        # The venue's clock leaps away: what was measured is of no use any more.
        venue.time_ms += 3_600_000
        pauses.then = None
        venue.answers[ORDER] = [{"orderId": 2}] if code == -1021 else [refusal(-5028), {"orderId": 2}]
        if code == -5028:
            transport.clock._samples.clear()
        assert await transport.ask(order(), dict[str, int]) == {"orderId": 2}
        assert venue.count(ORDER) == 3
        venue.answers[ORDER] = [refusal(code)]
        with pytest.raises(ClockOff):
            await transport.ask(order(), dict[str, int])
        assert venue.count(ORDER) == 5, "once, not for ever"


# --- sent once, or again ---


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(-1007, "Timeout waiting for response from backend server.", 408), OutcomeUnknown),
        (refusal(-1006), OutcomeUnknown),
        (
            Answer({"code": 0, "msg": "Unknown error, please check your request or try again later."}, 503),
            OutcomeUnknown,
        ),
        (Answer(b"<html>bad gateway</html>", 502), OutcomeUnknown),
        (Answer(b"not the venue's", 200), OutcomeUnknown),
        (Answer(cut=True), OutcomeUnknown),
        (refusal(0, "Service Unavailable.", 503), VenueUnavailable),
        (refusal(-1008, "Request throttled by system-level protection.", 503), RateLimited),
        (refusal(-1003, "Too many requests", 429), RateLimited),
        (refusal(-1121, "Invalid symbol."), RequestInvalid),
        (Answer({"code": 0, "msg": "restricted location"}, 451), LocationRefused),
    ],
)
async def test_what_changes_something_is_sent_once(answer: Answer, kind: type[BinanceError]) -> None:
    async with served() as (venue, transport, _):
        venue.answers[ORDER] = [answer]
        with pytest.raises(kind):
            await transport.ask(order(), dict[str, int])
        assert venue.count(ORDER) == 1


async def test_a_read_is_sent_again_while_that_can_help() -> None:
    async with served() as (venue, transport, pauses):
        venue.answers["GET /fapi/v3/account"] = [refusal(-1007, "", 503), refusal(-1001), {"a": 1}]
        assert await transport.ask(read(), dict[str, int]) == {"a": 1}
        assert pauses == [0.25, 0.5]
        venue.answers["GET /fapi/v3/account"] = [Answer(b"[")]
        with pytest.raises(AnswerInvalid):
            await transport.ask(read(), dict[str, int])
        assert len(pauses) == 2


@pytest.mark.parametrize(
    ("priority", "answer", "pauses_s"),
    [
        (Priority.ORDERS, refusal(-1003, "", 429, Retry_After="3600"), []),
        (Priority.ORDERS, refusal(-1003, "", 429), []),
        (Priority.ORDERS, refusal(-1003, "", 429, Retry_After="2"), [2.0, 2.0]),
        (Priority.LIVE_DATA, refusal(-1003, "", 429), [15.0, 30.0]),
        (Priority.BACKFILL, refusal(-1003, "", 429, Retry_After="600"), [600.0, 600.0]),
        (Priority.BACKFILL, refusal(-1003, "", 429, Retry_After="601"), []),
    ],
)
async def test_no_pause_is_longer_than_the_patience_of_what_waits(
    priority: Priority, answer: Answer, pauses_s: list[float]
) -> None:
    async with served() as (venue, transport, pauses):
        venue.answers["GET /fapi/v1/ping"] = answer
        with pytest.raises(RateLimited):
            await transport.ask(Call("GET", "/fapi/v1/ping", priority=priority), dict[str, Any])
        assert pauses == pauses_s


async def test_no_answer_in_time() -> None:
    async with served(timeout_s=0.05) as (venue, transport, _):
        venue.answers[ORDER] = venue.answers["GET /fapi/v3/account"] = Answer(hang=True)
        with pytest.raises(OutcomeUnknown, match=r"order a-1 was done: no answer within 0\.05 s"):
            await transport.ask(order(), dict[str, int])
        with pytest.raises(Unreachable, match="within"):
            await transport.ask(read(), dict[str, int])
        assert (venue.count(ORDER), venue.count("GET /fapi/v3/account")) == (1, 3)


async def test_what_was_not_sent_is_known_not_to_be_done(tmp_path: Path) -> None:
    budget = RateBudget(tmp_path, "http://127.0.0.1:9")
    async with aiohttp.ClientSession() as session:
        transport = Transport(
            "http://127.0.0.1:9", session, credentials=Credentials(KEY, SECRET), budget=budget, attempts=1
        )
        with pytest.raises(Unreachable):
            await transport.ask(order(security=Security.KEY), dict[str, int])
    assert (budget.orders_10s.count(), budget.orders_1m.count()) == (0, 0)


async def test_an_address_elsewhere_is_not_followed() -> None:
    async with served() as (venue, transport, _):
        venue.answers[ORDER] = Answer({}, 307, {"Location": "/fapi/v1/elsewhere"})
        with pytest.raises(BinanceError):
            await transport.ask(order(), dict[str, int])
        assert [str(each) for each in venue.asked] == [ORDER]


# --- budget and breaker ---


async def test_the_budget_is_told_of_every_answer(tmp_path: Path) -> None:
    budget = RateBudget(tmp_path, "http://x")
    async with served(budget=budget) as (venue, transport, _):
        told = {"x-mbx-used-weight-1m": "44", "x-mbx-order-count-10s": "3", "x-mbx-order-count-1m": "8"}
        venue.answers[ORDER] = [Answer({"orderId": 1}, headers=told), refusal(-1003, "slow", 429, Retry_After="3")]
        await transport.ask(order(), dict[str, int])
        assert (budget.weight.count(), budget.orders_10s.count(), budget.orders_1m.count()) == (44, 3, 8)
        assert transport.used_weight == 44
        with pytest.raises(RateLimited):
            await transport.ask(order(), dict[str, int])
        with pytest.raises(RateLimited, match="nothing was sent"):
            await transport.ask(order(), dict[str, int])
        assert venue.count(ORDER) == 2


async def test_a_ban_is_obeyed_by_all(tmp_path: Path) -> None:
    budget = RateBudget(tmp_path, "http://x")
    async with served(budget=budget) as (venue, transport, _):
        venue.answers[ORDER] = refusal(-1003, f"IP banned until {int(venue.time_ms) + 600_000}.", 418)
        for _ in range(3):
            with pytest.raises(IpBanned):
                await transport.ask(order(), dict[str, int])
        with pytest.raises(IpBanned):
            await transport.server_time()
        assert len(venue.asked) == 1
        block = budget.weight.blocked()
        assert block is not None
        assert block.until_s - budget._now_s() == pytest.approx(600, abs=5)


async def test_without_room_nothing_is_sent(tmp_path: Path) -> None:
    budget = RateBudget(tmp_path, "http://x", orders_10s=1)
    budget._sleep = lambda seconds: _nothing()
    async with served(budget=budget) as (venue, transport, _):
        venue.answers[ORDER] = {"orderId": 1}
        await transport.ask(order(priority=Priority.ORDERS), dict[str, int])
        with pytest.raises(BudgetExhausted):
            await transport.ask(order(priority=Priority.ORDERS), dict[str, int])
        assert venue.count(ORDER) == 1


async def _nothing() -> None:
    return None


async def test_an_open_circuit_holds_entries_and_lets_exits_through() -> None:
    breaker = Breaker(BreakerSettings(throttle_after=2, open_after=2))
    async with served(breaker=breaker) as (venue, transport, pauses):
        venue.answers[ORDER] = [refusal(-1121), refusal(-2019), Answer(cut=True), Answer(cut=True), {"orderId": 5}]
        for kind in (RequestInvalid, BinanceError, OutcomeUnknown, OutcomeUnknown):
            with pytest.raises(kind):
                await transport.ask(order(), dict[str, int])
        assert breaker.state(Kind.ENTRY, pauses.now_s) is State.OPEN
        for kind in (Kind.MARKET_DATA, Kind.ACCOUNT):
            for _ in range(2):
                breaker.record(breaker.permit(kind, pauses.now_s), ok=False, now_s=pauses.now_s)
        with pytest.raises(CircuitOpen):
            await transport.ask(order(), dict[str, int])
        assert venue.count(ORDER) == 4
        transport.clock._samples.clear()
        assert await transport.ask(order(kind=Kind.RISK_REDUCING), dict[str, int]) == {"orderId": 5}


@pytest.mark.parametrize("changes", [None, "order a-1"])
async def test_answers_that_cannot_be_read_open_the_circuit(changes: str | None) -> None:
    breaker = Breaker(BreakerSettings(throttle_after=2, open_after=2))
    async with served(breaker=breaker) as (venue, transport, pauses):
        venue.answers[ORDER] = Answer(b'{"orderId": []}')
        for _ in range(2):
            with pytest.raises((AnswerInvalid, OutcomeUnknown)):
                await transport.ask(order(changes=changes), dict[str, int])
        assert breaker.state(Kind.ENTRY, pauses.now_s) is State.OPEN


# --- keys ---


@pytest.mark.parametrize(
    "script",
    [
        lambda venue: Answer(cut=True),
        lambda venue: Answer(hang=True),
        lambda venue: Answer(b"\xff\xfe"),
        lambda venue: refusal(-2015, "Invalid API-key", 401),
        lambda venue: refusal(-1022, "Signature for this request is not valid."),
        lambda venue: Answer(b"<html>", 403),
        lambda venue: Answer({}, 302, {"Location": "http://[bad"}),
        lambda venue: Answer(b"x", 200, {"Content-Encoding": "gzip"}),
        lambda venue: Answer({"code": 0, "msg": "x"}, 503),
    ],
)
async def test_no_error_and_no_log_shows_a_key(
    script: Callable[[Venue], Answer], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with served(timeout_s=0.1) as (venue, transport, _):
            venue.answers[ORDER] = venue.answers["GET /fapi/v3/account"] = script(venue)
            for call in (order(), order(in_body=False), read()):
                with pytest.raises(BinanceError) as caught:
                    await transport.ask(call, dict[str, int])
                signatures = [each.parameters["signature"] for each in venue.asked if each.signed]
                error = caught.value
                shown = [repr(error), str(error), "".join(traceback.format_exception(error)), repr(vars(error))]
                shown += [repr(transport), repr(call), repr(vars(transport)), caplog.text]
                for text in shown:
                    for secret in (KEY, SECRET, *signatures):
                        assert secret not in text


async def test_a_wrong_secret_is_not_tried_again() -> None:
    async with served() as (venue, transport, _):
        transport._credentials = Credentials(KEY, "wrong")
        with pytest.raises(AccessRefused) as caught:
            await transport.ask(read(), dict[str, Any])
        assert caught.value.code == -1022
        assert [str(each) for each in venue.asked] == ["GET /fapi/v3/account"]
        assert isinstance(venue.asked[0], Asked)
