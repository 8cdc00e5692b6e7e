"""The user stream: a key that is kept, and the account reconciled after every gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from market.binance import user_stream
from market.binance.account import AccountClient
from market.binance.errors import StreamMessageInvalid, Unreachable
from market.binance.user_events import (
    EVENTS,
    OrderUpdate,
    UserEvent,
)
from market.binance.user_stream import KEEP_ALIVE_S, RETRY_S, Snapshot, UserStream, read_snapshot
from tests.market.binance.spoken import algo, state
from tests.market.binance.test_bar_stream import soon
from tests.market.binance.test_user_events import FILL, MONEY
from tests.market.binance.venue import Answer, Asked, Venue, refusal, served

HELD = {"symbol": "BTCUSDT", "positionSide": "BOTH", "positionAmt": "0.002"}


class Desk:
    def __init__(self) -> None:
        self.log: list[str] = []
        self.errors: list[StreamMessageInvalid] = []
        self.snapshots: list[Snapshot] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.fail = 0

    async def reconcile(self, snapshot: Snapshot, reason: str) -> None:
        await self.hold.wait()
        if self.fail:
            self.fail -= 1
            raise Unreachable("http://venue", "down")
        self.snapshots.append(snapshot)
        self.log.append(f"reconcile after {reason}")

    async def event(self, event: UserEvent) -> None:
        self.log.append(str(event.order.trade_id) if isinstance(event, OrderUpdate) else type(event).__name__)

    def rejected(self, error: StreamMessageInvalid) -> None:
        self.errors.append(error)


class Sockets:
    """The venue's `/private` route: every connection, with its key and what it asked for."""

    def __init__(self) -> None:
        self.open: list[tuple[str, str, web.WebSocketResponse]] = []
        self.ever = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        entry = (request.query["listenKey"], request.query["events"], socket)
        self.open.append(entry)
        self.ever += 1
        try:
            async for _ in socket:
                pass
        finally:
            self.open.remove(entry)
        return socket

    async def say(self, event: dict[str, Any] | str) -> None:
        for *_, socket in list(self.open):
            await socket.send_str(event if isinstance(event, str) else json.dumps(event))


def fill(trade: int) -> dict[str, Any]:
    return FILL | {"o": FILL["o"] | {"t": trade}}  # type: ignore[operator]


class Pauses:
    """The pauses of the stream, which end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._go = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if seconds >= RETRY_S:
            await self._go.acquire()

    def end(self) -> None:
        self._go.release()


@asynccontextmanager
async def running(desk: Desk, **changes: Any) -> AsyncIterator[tuple[Venue, Sockets, UserStream, Pauses]]:
    sockets, pauses = Sockets(), Pauses()
    application = web.Application()
    application.router.add_get("/private/ws", sockets.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    root = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    totals = dict.fromkeys(("totalWalletBalance", "totalUnrealizedProfit", "totalMarginBalance"), "1")
    async with served() as (venue, transport, _):
        venue.answers |= {
            "POST /fapi/v1/listenKey": {"listenKey": "thekey"},
            "PUT /fapi/v1/listenKey": {},
            "GET /fapi/v1/openOrders": Answer([]),
            "GET /fapi/v1/openAlgoOrders": Answer([]),
            "GET /fapi/v3/positionRisk": Answer([]),
            "GET /fapi/v3/account": totals | {"availableBalance": "1"},
        }
        async with aiohttp.ClientSession() as session:
            account = AccountClient(transport)
            values: dict[str, Any] = {"jitter": Random(4), "sleep": pauses, "first_pause_s": 0.001}
            stream = UserStream(root, session, account, desk, **(values | changes))
            task = asyncio.create_task(stream.run())
            try:
                yield venue, sockets, stream, pauses
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    await runner.cleanup()


async def test_the_account_is_reconciled_before_events_go_on() -> None:
    desk = Desk()
    desk.hold.clear()
    async with running(desk) as (venue, sockets, stream, _):
        await soon(lambda: bool(sockets.open))
        key, events, _socket = sockets.open[0]
        assert (key, events) == ("thekey", "/".join(EVENTS))
        await sockets.say(fill(1))
        await sockets.say(fill(2))
        await soon(lambda: len(stream._waiting) == 2)
        assert desk.log == []
        assert not stream.current
        desk.hold.set()
        await soon(lambda: len(desk.log) == 3)
        await sockets.say(MONEY)
        await soon(lambda: len(desk.log) == 4)
        assert desk.log == ["reconcile after the start", "1", "2", "AccountUpdate"]
        assert venue.count("GET /fapi/v3/positionRisk") == 1
        assert desk.snapshots[0].account.available_balance == 1


async def test_after_a_lost_connection_it_is_reconciled_again() -> None:
    desk = Desk()
    async with running(desk) as (venue, sockets, stream, _):
        await soon(lambda: stream.current)
        await sockets.say(fill(1))
        await soon(lambda: desk.log[-1:] == ["1"])
        sockets.open[0][2]._req.transport.abort()  # type: ignore[union-attr]
        await soon(lambda: len(desk.log) == 3)
        await sockets.say(fill(2))
        await soon(lambda: len(desk.log) == 4)
        assert desk.log == ["reconcile after the start", "1", "reconcile after connection lost", "2"]
        assert venue.count("POST /fapi/v1/listenKey") == 2


async def test_when_the_account_cannot_be_read_it_is_tried_until_it_can() -> None:
    desk = Desk()
    desk.fail = 2
    async with running(desk) as (venue, _, stream, pauses):
        venue.answers["GET /fapi/v1/openOrders"] = [refusal(-1003, "", 418), Answer([])]
        await soon(lambda: stream.current)
        assert desk.log == ["reconcile after the start"]
        assert len([pause for pause in pauses.asked if pause < RETRY_S]) == 3
        assert stream.failure is None


async def test_the_key_is_kept_and_made_anew_when_it_has_ended() -> None:
    desk = Desk()
    async with running(desk) as (venue, sockets, stream, pauses):
        await soon(lambda: stream.current)
        pauses.end()
        await soon(lambda: venue.count("PUT /fapi/v1/listenKey") == 1)
        venue.answers["PUT /fapi/v1/listenKey"] = [refusal(-1001, "", 503), refusal(-1125), {}]
        pauses.end()
        await soon(lambda: pauses.asked[-1] == RETRY_S)
        venue.answers["POST /fapi/v1/listenKey"] = {"listenKey": "another"}
        pauses.end()
        await soon(lambda: bool(sockets.open) and sockets.open[0][0] == "another")
        await soon(lambda: stream.current)
        assert desk.log[-1] == "reconcile after the listenKey has expired"
        assert [pause for pause in pauses.asked if pause >= RETRY_S][:2] == [KEEP_ALIVE_S, KEEP_ALIVE_S]
        venue.answers["POST /fapi/v1/listenKey"] = {"listenKey": "third"}
        await sockets.say({"e": "listenKeyExpired", "E": 1, "listenKey": "another"})
        await soon(lambda: bool(sockets.open) and sockets.open[0][0] == "third")
        await soon(lambda: stream.current)
        assert stream.dropped == {"the listenKey has expired": 2}


@pytest.mark.parametrize("by", ["keeping it", "renewing the connection"])
async def test_a_key_that_is_not_the_one_in_force_is_replaced_and_the_account_reconciled(by: str) -> None:
    """Another process has ended the key and made another: the connection's will never say anything again."""
    desk = Desk()
    async with running(desk) as (venue, sockets, stream, pauses):
        await soon(lambda: stream.current)
        venue.answers["PUT /fapi/v1/listenKey"] = {"listenKey": "thekey"}
        pauses.end()
        await soon(lambda: venue.count("PUT /fapi/v1/listenKey") == 1)
        for key in ("PUT /fapi/v1/listenKey", "POST /fapi/v1/listenKey"):
            venue.answers[key] = {"listenKey": "another"}
        if by == "keeping it":
            pauses.end()
        else:
            await stream._connection.renew()
        await soon(lambda: [key for key, *_ in sockets.open] == ["another"] and stream.current)
        assert desk.log == ["reconcile after the start", "reconcile after another listenKey is in force"]
        assert (sockets.ever, stream._connection.renewals) == (2, 0)
        pauses.end()
        await soon(lambda: venue.count("PUT /fapi/v1/listenKey") >= (3 if by == "keeping it" else 2))
        await sockets.say(fill(1))
        await soon(lambda: desk.log[-1:] == ["1"])
        assert stream.dropped == {"another listenKey is in force": 1}


async def test_events_do_not_wait_without_end_while_the_account_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(user_stream, "MOST_WAITING", 5)
    desk = Desk()
    desk.hold.clear()
    async with running(desk) as (venue, sockets, stream, _):
        # The account was read, and is not handed over yet, when too many events have come.
        await soon(lambda: venue.count("GET /fapi/v3/account") == 1)
        for trade in range(16):
            await sockets.say(fill(trade))
        await soon(lambda: [event.order.trade_id for event in stream._waiting] == [12, 13, 14, 15])  # type: ignore[union-attr]
        desk.hold.set()
        await soon(lambda: stream.current)
        await soon(lambda: desk.log[-1:] == ["15"])
        assert desk.log == [
            "reconcile after the start",
            "reconcile after too many events waited",
            *("12", "13", "14", "15"),
        ]
        assert venue.count("GET /fapi/v3/account") == 2


@pytest.mark.parametrize("triggers_after", range(5))
@pytest.mark.parametrize("fills_after", range(5))
async def test_a_stop_is_never_missing_from_a_snapshot_while_it_stands(triggers_after: int, fills_after: int) -> None:
    """It triggers and is filled between any two of the reads: conditional order, then order, then no position."""
    async with served() as (venue, transport, _):
        reads = 0

        def at(kind: str) -> Callable[[Asked], Answer]:
            def read(asked: Asked) -> Answer:
                nonlocal reads
                triggered, filled = reads >= triggers_after, reads >= max(triggers_after, fills_after)
                reads += 1
                stands = {"algo": not triggered, "order": triggered and not filled, "position": not filled}[kind]
                row = {"algo": algo(), "order": state("s-1", "NEW"), "position": HELD}[kind]
                return Answer([row] if stands else [])

            return read

        totals = dict.fromkeys(("totalWalletBalance", "totalUnrealizedProfit", "totalMarginBalance"), "1")
        venue.answers |= {
            "GET /fapi/v1/openAlgoOrders": at("algo"),
            "GET /fapi/v1/openOrders": at("order"),
            "GET /fapi/v3/positionRisk": at("position"),
            "GET /fapi/v3/account": totals | {"availableBalance": "1"},
        }
        found = await read_snapshot(AccountClient(transport))
        assert found.algo_orders or found.orders or not found.positions


async def test_a_stream_that_is_suspected_is_opened_anew() -> None:
    desk = Desk()
    async with running(desk) as (_, sockets, stream, _pauses):
        await soon(lambda: stream.current)
        await stream.suspect("REST shows a fill that was not told")
        await soon(lambda: sockets.ever == 2 and stream.current)
        assert desk.log[-1] == "reconcile after REST shows a fill that was not told"


async def test_a_renewed_connection_tells_nothing_twice_and_leaves_no_gap() -> None:
    desk = Desk()
    async with running(desk) as (_, sockets, stream, _pauses):
        await soon(lambda: stream.current)
        await stream._connection.renew()
        await soon(lambda: len(sockets.open) == 2)
        for trade in (1, 2):
            await sockets.say(fill(trade))
        await soon(lambda: len(sockets.open) == 1)
        await sockets.say(fill(3))
        await soon(lambda: desk.log[-1:] == ["3"])
        assert desk.log == ["reconcile after the start", "1", "2", "3"]


async def test_a_message_that_cannot_be_understood_leads_to_reconciliation() -> None:
    desk = Desk()
    async with running(desk) as (_, sockets, stream, _pauses):
        await soon(lambda: stream.current)
        await sockets.say('{"e":"ORDER_TRADE_UPDATE","E":1}')
        await soon(lambda: len(desk.log) == 2 and stream.current)
        assert len(desk.errors) == 1
        assert desk.log[-1] == "reconcile after a message could not be understood"


async def test_without_a_key_it_is_tried_again() -> None:
    desk = Desk()
    async with running(desk) as (venue, _, stream, _pauses):
        venue.answers["POST /fapi/v1/listenKey"] = [
            refusal(-2015, "", 401),
            refusal(-2015, "", 401),
            {"listenKey": "k"},
        ]
        await soon(lambda: stream.current)
        assert stream.dropped["cannot connect: AccessRefused"] in (1, 2)
