"""The user stream: typed events, a key that is kept, and the account reconciled after every gap."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from market.binance import user_stream
from market.binance.account import AccountClient
from market.binance.errors import StreamMessageInvalid, Unreachable
from market.binance.orders import Side
from market.binance.user_events import (
    EVENTS,
    AccountUpdate,
    AlgoUpdate,
    ConfigUpdate,
    KeyExpired,
    MarginCall,
    OrderUpdate,
    UserEvent,
    parse_user,
)
from market.binance.user_stream import KEEP_ALIVE_S, RETRY_S, Snapshot, UserStream, read_snapshot
from tests.market.binance.spoken import algo, state
from tests.market.binance.test_bar_stream import soon
from tests.market.binance.venue import Answer, Asked, Venue, refusal, served

D = Decimal
HELD = {"symbol": "BTCUSDT", "positionSide": "BOTH", "positionAmt": "0.002"}
FILL = {
    "e": "ORDER_TRADE_UPDATE",
    "E": 1568879465651,
    "T": 1568879465650,
    "o": {
        "s": "BTCUSDT",
        "c": "a-1",
        "S": "SELL",
        "o": "MARKET",
        "f": "GTC",
        "q": "0.001",
        "p": "0",
        "ap": "60000.5",
        "sp": "0",
        "x": "TRADE",
        "X": "FILLED",
        "i": 8886774,
        "l": "0.001",
        "z": "0.001",
        "L": "60000.5",
        "T": 1568879465650,
        "t": 77,
        "b": "0",
        "a": "9.91",
        "m": False,
        "R": True,
        "wt": "CONTRACT_PRICE",
        "ot": "MARKET",
        "ps": "LONG",
        "cp": False,
        "rp": "-1.5",
        "pP": False,
        "si": 0,
        "ss": 0,
        "V": "NONE",
        "pm": "NONE",
        "gtd": 0,
        "er": "0",
        "N": "USDT",
        "n": "0.03",
    },
}
MONEY = {
    "e": "ACCOUNT_UPDATE",
    "E": 1564745798939,
    "T": 1564745798938,
    "a": {
        "m": "ORDER",
        "B": [{"a": "USDT", "wb": "122624.12345678", "cw": "100.12345678", "bc": "50.12345678"}],
        "P": [{"s": "BTCUSDT", "pa": "-0.5", "ep": "60000", "up": "2.5", "mt": "isolated", "iw": "10", "ps": "SHORT"}],
    },
}
TRIGGERED = {
    "e": "ALGO_UPDATE",
    "T": 1750515742297,
    "E": 1750515742303,
    "o": {
        "caid": "s-1",
        "aid": 1000000033225453,
        "at": "CONDITIONAL",
        "o": "STOP_MARKET",
        "s": "BTCUSDT",
        "S": "SELL",
        "ps": "BOTH",
        "f": "GTC",
        "q": "0.01",
        "X": "TRIGGERED",
        "ai": "88937381063",
        "ap": "0.0",
        "aq": "0.0",
        "act": "MARKET",
        "tp": "50000.1",
        "p": "0",
        "V": "NONE",
        "wt": "CONTRACT_PRICE",
        "pm": "NONE",
        "cp": True,
        "pP": False,
        "R": False,
        "tt": 0,
        "gtd": 0,
        "rm": "",
        "ia": False,
    },
}


def test_events_are_typed_in_their_envelope_and_bare() -> None:
    for wrap in (lambda event: event, lambda event: {"stream": "thekey", "data": event}):
        fill = parse_user(json.dumps(wrap(FILL)))
        assert isinstance(fill, OrderUpdate)
        order = fill.order
        assert (order.side, order.average_price, order.position_side) == (Side.SELL, D("60000.5"), "LONG")
        assert (order.realized_profit, order.commission, order.commission_asset) == (D("-1.5"), D("0.03"), "USDT")
        assert not order.forced
        money = parse_user(json.dumps(wrap(MONEY)))
        assert isinstance(money, AccountUpdate)
        assert (money.changes.positions[0].amount, money.changes.balances[0].change) == (D("-0.5"), D("50.12345678"))
        algo = parse_user(json.dumps(wrap(TRIGGERED)))
        assert isinstance(algo, AlgoUpdate)
        assert (algo.algo.order_id, algo.algo.status, algo.algo.close_position) == ("88937381063", "TRIGGERED", True)
    config = parse_user('{"e":"ACCOUNT_CONFIG_UPDATE","E":1,"T":2,"ac":{"s":"BTCUSDT","l":25}}')
    assert isinstance(config, ConfigUpdate)
    assert config.setting is not None
    assert config.setting.leverage == 25
    assert isinstance(parse_user('{"e":"ACCOUNT_CONFIG_UPDATE","E":1,"T":2,"ai":{"j":true}}'), ConfigUpdate)
    assert isinstance(parse_user('{"e":"MARGIN_CALL","E":1,"p":[{"s":"A"}]}'), MarginCall)
    assert isinstance(parse_user('{"e":"listenKeyExpired","E":1,"listenKey":"x"}'), KeyExpired)
    assert parse_user('{"e":"TRADE_LITE","E":1}') is None
    assert parse_user('{"e":"SOMETHING_NEW","E":1}') is None
    assert parse_user('{"result":null,"id":1}') is None


def test_what_the_venue_does_by_force_is_told() -> None:
    for changes in ({"x": "CALCULATED"}, {"c": "autoclose-1"}, {"c": "adl_autoclose"}, {"c": "settlement_autoclose-9"}):
        event = parse_user(json.dumps(FILL | {"o": FILL["o"] | changes}))  # type: ignore[operator]
        assert isinstance(event, OrderUpdate)
        assert event.order.forced
    without_fee = {name: value for name, value in FILL["o"].items() if name not in ("N", "n")}  # type: ignore[attr-defined]
    event = parse_user(json.dumps(FILL | {"o": without_fee}))
    assert isinstance(event, OrderUpdate)
    assert (event.order.commission_asset, event.order.commission) == (None, 0)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b"\xff", b"{}", b'{"e":7}', b'{"e":"ORDER_TRADE_UPDATE","E":1,"T":1,"o":{}}']
)
def test_garbage_is_a_typed_error_that_shows_no_key(raw: bytes) -> None:
    with pytest.raises(StreamMessageInvalid):
        parse_user(raw)
    wrapped = json.dumps({"stream": "thekey", "data": FILL | {"o": 7}})
    with pytest.raises(StreamMessageInvalid) as caught:
        parse_user(wrapped)
    assert "thekey" not in str(caught.value)


# --- the stream ---


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
