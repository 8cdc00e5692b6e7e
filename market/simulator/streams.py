"""Stream connections: routes, subscriptions, control messages, and the barrier that makes the clock wait.

Frames are written to the transport in one piece per connection and moment: frames from a server are not masked, so
each message is encoded and framed once for all its subscribers, and nothing is awaited in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qs

import msgspec
from aiohttp import WSMsgType, web

from market.bars import INTERVAL_MS
from market.simulator.listen_keys import ListenKeys
from market.simulator.stream_faults import Route, StreamFault, StreamFaults
from market.simulator.venue.events import UserEvent

CLOSE_DELAY_MS = 2_000
"""How long after its last millisecond a bar is sent as closed. The venue takes about two seconds."""

MARK_PRICE_OFFSET_MS = 59_000
"""When in its minute the mark price is sent, once a minute instead of every second.

Before the close, so that a funding rate settled at the close is not known a bar early.
"""

MAX_MESSAGE_BYTES = 1 << 16
TEXT_FRAME, CLOSE_FRAME, PING_FRAME = 0x81, 0x88, 0x89
PUBLIC_KINDS = ("bookTicker", "depth", "snapshot", "trade")


Kind = Literal["kline", "markPrice", "aggTrade", "trade", "bookTicker", "depth", "snapshot"]
MARKET_KINDS: dict[str, Kind] = {
    "markPrice": "markPrice",
    "markPrice@1s": "markPrice",
    "aggTrade": "aggTrade",
}
DEPTH = re.compile(r"depth(5|10|20)?(@(100|250|500)ms)?")


class Stream(NamedTuple):
    """A stream that delivers something: `interval` of klines, the number of levels of partial books."""

    kind: Kind
    row: int
    interval: str


def parse_stream(name: str, rows: Mapping[str, int], route: Route = "market") -> Stream | None:
    """What the stream `name` delivers on a route, or None for silence. `rows` maps lowercase symbols.

    >>> parse_stream("btcusdt@kline_5m", {"btcusdt": 0})
    Stream(kind='kline', row=0, interval='5m')
    >>> parse_stream("BTCUSDT@kline_5m", {"btcusdt": 0}) is None
    True
    >>> parse_stream("btcusdt@bookTicker", {"btcusdt": 0}) is None
    True
    >>> parse_stream("btcusdt@depth5@100ms", {"btcusdt": 0}, "public")
    Stream(kind='snapshot', row=0, interval='5')
    """
    symbol, _, rest = name.partition("@")
    row = rows.get(symbol)
    if row is None:
        return None
    if route == "public":
        if rest in ("bookTicker", "trade"):
            return Stream("bookTicker" if rest == "bookTicker" else "trade", row, "")
        found = DEPTH.fullmatch(rest)
        return found and Stream("snapshot" if found[1] else "depth", row, found[1] or "")
    if route != "market":
        return None
    if rest.startswith("kline_") and rest[6:] in INTERVAL_MS:
        return Stream("kline", row, rest[6:])
    return Stream(MARKET_KINDS[rest], row, "") if rest in MARKET_KINDS else None


def frame(payload: bytes, opcode: int = TEXT_FRAME) -> bytes:
    """One unmasked, unfragmented WebSocket frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


class Connection:
    """One WebSocket connection: its route, its envelope, its subscriptions in order.

    On the private route the names are listen keys; `events` are the types it wants, all if none are named. A half-open
    connection looks alive, but nothing comes through it any more.
    """

    def __init__(self, route: Route, combined: bool, transport: asyncio.Transport, rows: Mapping[str, int]) -> None:
        self.route: Route = route
        self.events: frozenset[str] = frozenset()
        self.half_open = False
        self.opened_ms = 0
        self.combined = combined
        self.names: dict[str, Stream | None] = {}
        self.transport = transport
        self._rows = rows

    @property
    def live(self) -> bool:
        """Whether it is subscribed to market data that is ever delivered."""
        return not self.half_open and any(stream is not None for stream in self.names.values())

    @property
    def awaited(self) -> bool:
        """Whether the clock waits for it."""
        return self.live or (self.route == "private" and bool(self.names) and not self.half_open)

    def subscribe(self, names: list[str]) -> None:
        """Add streams. On the wrong route, or for an unknown name, the venue says nothing and sends nothing."""
        for name in names:
            if name:
                self.names[name] = parse_stream(name, self._rows, self.route)

    def write(self, data: bytes) -> None:
        """Send bytes that are already framed; silently nothing when the connection is going down."""
        if data and not self.half_open and not self.transport.is_closing():
            self.transport.write(data)

    def control(self, text: str) -> bytes | None:
        """The answer to a control message, and its effect. None when there is nothing to say."""
        try:
            request = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            return _refusal(3, f"Invalid JSON: {error}", None)
        if not isinstance(request, dict):
            return _refusal(2, "Invalid request: request must be an object", None)
        method, parameters, identity = request.get("method"), request.get("params", []), request.get("id")
        if not isinstance(identity, int | str | None) or isinstance(identity, bool):
            return _refusal(2, "Invalid request: request ID must be an unsigned integer", None)
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not isinstance(parameters, list) or not all(isinstance(item, str) for item in parameters):
                return _refusal(1, "Invalid value type: expected array of strings", identity)
            if method == "SUBSCRIBE":
                self.subscribe(parameters)
            else:
                for name in parameters:
                    self.names.pop(name, None)
            return _result(None, identity)
        if method == "LIST_SUBSCRIPTIONS":
            return _result(list(self.names), identity)
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, parameters, identity)
        return _refusal(2, f"Invalid request: unknown variant `{method}`", identity)

    def _property(self, method: str, parameters: Any, identity: int | str | None) -> bytes:
        if not isinstance(parameters, list) or not parameters or parameters[0] != "combined":
            return _refusal(0, "Unknown property", identity)
        if method == "GET_PROPERTY":
            return _result(self.combined, identity)
        if len(parameters) != 2 or not isinstance(parameters[1], bool):
            return _refusal(1, "Invalid value type: expected Boolean", identity)
        self.combined = parameters[1]
        return _result(None, identity)


def _result(result: Any, identity: int | str | None) -> bytes:
    return msgspec.json.encode({"result": result, "id": identity})


def _refusal(code: int, message: str, identity: int | str | None) -> bytes:
    answer: dict[str, Any] = {"code": code, "msg": message}
    if identity is not None:
        answer["id"] = identity
    return msgspec.json.encode(answer)


class Hub:
    """All stream connections.

    Parameters
    ----------
    symbols: in the order of their rows.
    keys: whose listen keys are whose.
    faults: what goes wrong with messages.
    now_ms: the simulated time, by which connections age.
    """

    def __init__(
        self, symbols: tuple[str, ...], keys: ListenKeys, faults: StreamFaults, now_ms: Callable[[], int]
    ) -> None:
        self._rows = {symbol.lower(): row for row, symbol in enumerate(symbols)}
        self._keys, self._faults, self._now_ms = keys, faults, now_ms
        self._connections: dict[Connection, None] = {}
        self._awaited: dict[Connection, int] = {}
        self._wanted: dict[str, Stream] | None = None
        self._changed = asyncio.Event()

    @property
    def consumers(self) -> int:
        """Connections that are subscribed to something that is delivered."""
        return sum(connection.live for connection in self._connections)

    @property
    def wanted(self) -> Mapping[str, Stream]:
        """Every stream that somebody is subscribed to, in order of subscription; a new object whenever that changes."""
        if self._wanted is None:
            self._wanted = {
                name: stream
                for connection in self._connections
                if not connection.half_open
                for name, stream in connection.names.items()
                if stream is not None
            }
        return self._wanted

    async def changed(self) -> None:
        """Return when a connection comes, goes, subscribes, or has taken what it was sent."""
        await self._changed.wait()

    def deliver(self, messages: Mapping[str, list[bytes]]) -> None:
        """Send to each connection the messages (stream name → events without envelope) it is subscribed to."""
        if self._faults.busy:
            messages = self._spoilt(messages)
        raw: dict[str, bytes] = {}
        wrapped: dict[str, bytes] = {}
        for connection in self._connections:
            if not connection.live:
                continue
            frames = wrapped if connection.combined else raw
            if not frames:
                frames.update(_framed(messages, connection.combined))
            connection.write(b"".join([frames[name] for name in connection.names if name in frames]))

    def _spoilt(self, messages: Mapping[str, list[bytes]]) -> dict[str, list[bytes]]:
        public = {name for name in messages if (stream := self.wanted.get(name)) and stream.kind in PUBLIC_KINDS}
        routes: dict[Route, set[str]] = {"market": messages.keys() - public, "public": public}
        found: dict[str, list[bytes]] = {}
        for route, names in routes.items():
            found |= self._faults.through(route, {name: messages[name] for name in messages if name in names})
        return {name: events for name, events in found.items() if events}

    def deliver_user(self, events: list[UserEvent]) -> None:
        """Send user data events to the private connections that hold a living listen key of their account."""
        for event in events:
            body, kind = msgspec.json.encode(event.body), str(event.body["e"])
            bodies = self._faults.through("private", {kind: [body]})[kind] if self._faults.busy else [body]
            for connection in self._connections:
                if connection.route != "private" or (connection.events and kind not in connection.events):
                    continue
                for key in connection.names:
                    if self._keys.owner(key) == event.account:
                        for each in bodies:
                            connection.write(_enveloped(key, each, connection.combined))

    def expire(self, expired: list[tuple[str, str]]) -> None:
        """Tell the connections that hold dead listen keys."""
        now_ms = self._now_ms()
        for _, key in expired:
            body = msgspec.json.encode({"e": "listenKeyExpired", "E": now_ms, "listenKey": key})
            for connection in self._connections:
                if connection.route == "private" and key in connection.names:
                    connection.write(_enveloped(key, body, connection.combined))

    def break_connections(self, fault: StreamFault) -> int:
        """Make the first `count` connections of a route half-open, or cut them; returns how many."""
        chosen = [each for each in self._connections if each.route == fault.route and not each.half_open][: fault.count]
        for connection in chosen:
            if fault.kind == "cut":
                connection.transport.abort()
            else:
                connection.half_open = True
                self._awaited.pop(connection, None)
        self._subscriptions_changed()
        return len(chosen)

    def cut_old(self, before_ms: int) -> int:
        """Close connections that were opened before a time; returns how many."""
        old = [connection for connection in self._connections if connection.opened_ms < before_ms]
        for connection in old:
            connection.write(frame((1008).to_bytes(2) + b"disconnected", CLOSE_FRAME))
            connection.transport.close()
        return len(old)

    async def barrier(self, sequence: int) -> None:
        """Ping every subscribed connection and wait until each has answered or gone.

        A client that reads in order answers only after it has taken everything that was sent before.
        """
        ping = frame(str(sequence).encode(), PING_FRAME)
        self._awaited = {connection: sequence for connection in self._connections if connection.awaited}
        for connection in self._awaited:
            connection.write(ping)
        while self._awaited:
            await self._changed.wait()

    def cut(self) -> int:
        """Abort all connections, as a broken network does; returns how many."""
        for connection in self._connections:
            connection.transport.abort()
        return len(self._connections)

    async def serve(
        self, request: web.Request, route: Route, combined: bool, names: list[str]
    ) -> web.WebSocketResponse:
        """One connection, from its handshake to its end."""
        # Without autoping, pongs reach this loop; without compression, frames can be written as they are.
        socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(route, combined, request.transport, self._rows)
        connection.opened_ms = self._now_ms()
        if route == "private":
            asked = parse_qs(request.rel_url.raw_query_string)
            names = names + asked.get("listenKey", [])
            connection.events = frozenset(name for text in asked.get("events", []) for name in text.split("/"))
        connection.subscribe(names)
        self._connections[connection] = None
        self._subscriptions_changed()
        try:
            async for message in socket:
                if connection.half_open:
                    continue
                if message.type is WSMsgType.TEXT:
                    answer = connection.control(message.data)
                    if answer is not None:
                        connection.write(frame(answer))
                    self._subscriptions_changed()
                elif message.type is WSMsgType.PONG:
                    self._answered(connection, message.data)
                elif message.type is WSMsgType.PING:
                    await socket.pong(message.data)
        finally:
            self._connections.pop(connection, None)
            self._awaited.pop(connection, None)
            self._subscriptions_changed()
        return socket

    def _answered(self, connection: Connection, payload: bytes | bytearray) -> None:
        expected = self._awaited.get(connection)
        if expected is not None and bytes(payload) == str(expected).encode():
            del self._awaited[connection]
            self.notify()

    def _subscriptions_changed(self) -> None:
        self._wanted = None
        self.notify()

    def notify(self) -> None:
        """Wake everybody who waits for a change."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()


def _enveloped(name: str, event: bytes, combined: bool) -> bytes:
    """One event as a frame."""
    return _framed({name: [event]}, combined)[name]


def _framed(messages: Mapping[str, list[bytes]], combined: bool) -> dict[str, bytes]:
    """All frames of each stream, joined."""
    found: dict[str, bytes] = {}
    for name, events in messages.items():
        if combined:
            head = b'{"stream":' + msgspec.json.encode(name) + b',"data":'
            events = [head + event + b"}" for event in events]
        found[name] = frame(events[0]) if len(events) == 1 else b"".join(map(frame, events))
    return found
