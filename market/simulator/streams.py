"""Stream connections: routes, subscriptions, control messages, and the barrier that makes the clock wait.

Frames are written to the transport in one piece per connection and moment: frames from a server are not masked, so
each message is encoded and framed once for all its subscribers, and nothing is awaited in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec
from aiohttp import WSMsgType, web

from market.bars import INTERVAL_MS

CLOSE_DELAY_MS = 2_000
"""How long after its last millisecond a bar is sent as closed. The venue takes about two seconds."""

MARK_PRICE_OFFSET_MS = 59_000
"""When in its minute the mark price is sent, once a minute instead of every second.

Before the close, so that a funding rate settled at the close is not known a bar early.
"""

Route = Literal["market", "public", "private", "unrouted"]
MAX_MESSAGE_BYTES = 1 << 16
TEXT_FRAME, PING_FRAME = 0x81, 0x89


class Stream(NamedTuple):
    """A stream that delivers something: `kind` "kline" with its interval, or "markPrice"."""

    kind: Literal["kline", "markPrice"]
    row: int
    interval: str


def parse_stream(name: str, rows: Mapping[str, int]) -> Stream | None:
    """What the stream `name` delivers on `/market`, or None for silence. `rows` maps lowercase symbols.

    >>> parse_stream("btcusdt@kline_5m", {"btcusdt": 0})
    Stream(kind='kline', row=0, interval='5m')
    >>> parse_stream("BTCUSDT@kline_5m", {"btcusdt": 0}) is None
    True
    """
    symbol, _, rest = name.partition("@")
    row = rows.get(symbol)
    if row is None:
        return None
    if rest.startswith("kline_") and rest[6:] in INTERVAL_MS:
        return Stream("kline", row, rest[6:])
    if rest in ("markPrice", "markPrice@1s"):
        return Stream("markPrice", row, "")
    return None


def frame(payload: bytes, opcode: int = TEXT_FRAME) -> bytes:
    """One unmasked, unfragmented WebSocket frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((opcode, size)) + payload
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2) + payload
    return bytes((opcode, 127)) + size.to_bytes(8) + payload


class Connection:
    """One WebSocket connection: its route, its envelope, its subscriptions in order, and what it has taken."""

    def __init__(self, route: Route, combined: bool, transport: asyncio.Transport, rows: Mapping[str, int]) -> None:
        self.route: Route = route
        self.combined = combined
        self.names: dict[str, Stream | None] = {}
        self.transport = transport
        self._rows = rows

    @property
    def live(self) -> bool:
        """Whether it is subscribed to anything that is ever delivered."""
        return any(stream is not None for stream in self.names.values())

    def subscribe(self, names: list[str]) -> None:
        """Add streams. On the wrong route, or for an unknown name, the venue says nothing and sends nothing."""
        for name in names:
            if name:
                self.names[name] = parse_stream(name, self._rows) if self.route == "market" else None

    def write(self, data: bytes) -> None:
        """Send bytes that are already framed; silently nothing when the connection is going down."""
        if data and not self.transport.is_closing():
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
    """All stream connections."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._rows = {symbol.lower(): row for row, symbol in enumerate(symbols)}
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
                for name, stream in connection.names.items()
                if stream is not None
            }
        return self._wanted

    async def changed(self) -> None:
        """Return when a connection comes, goes, subscribes, or has taken what it was sent."""
        await self._changed.wait()

    def deliver(self, messages: Mapping[str, list[bytes]]) -> None:
        """Send to each connection the messages (stream name → events without envelope) it is subscribed to."""
        raw: dict[str, bytes] = {}
        wrapped: dict[str, bytes] = {}
        for connection in self._connections:
            if not connection.live:
                continue
            frames = wrapped if connection.combined else raw
            if not frames:
                frames.update(_framed(messages, connection.combined))
            connection.write(b"".join([frames[name] for name in connection.names if name in frames]))

    async def barrier(self, sequence: int) -> None:
        """Ping every subscribed connection and wait until each has answered or gone.

        A client that reads in order answers only after it has taken everything that was sent before.
        """
        ping = frame(str(sequence).encode(), PING_FRAME)
        self._awaited = {connection: sequence for connection in self._connections if connection.live}
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
        connection.subscribe(names)
        self._connections[connection] = None
        self._subscriptions_changed()
        try:
            async for message in socket:
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


def _framed(messages: Mapping[str, list[bytes]], combined: bool) -> dict[str, bytes]:
    """All frames of each stream, joined."""
    found: dict[str, bytes] = {}
    for name, events in messages.items():
        if combined:
            head = b'{"stream":' + msgspec.json.encode(name) + b',"data":'
            events = [head + event + b"}" for event in events]
        found[name] = frame(events[0]) if len(events) == 1 else b"".join(map(frame, events))
    return found
