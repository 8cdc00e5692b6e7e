"""One stream connection: what its names deliver, its control messages, its frames.

Frames are written to the transport in one piece per connection and moment: frames from a server are not masked, so
each message is encoded and framed once for all its subscribers, and nothing is awaited in between.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from market.bars import INTERVAL_MS
from market.simulator.stream_faults import Route

MOST_STREAMS = 1024
"""Streams that one connection may hold."""

TEXT_FRAME, CLOSE_FRAME, PING_FRAME = 0x81, 0x88, 0x89
PUBLIC_KINDS = ("bookTicker", "allBooks", "depth", "snapshot", "trade")
TICKER_KINDS = ("ticker", "miniTicker", "allTickers", "allMiniTickers")
FORCED_KINDS = ("forceOrder", "allForced")


_Bars = Literal["kline", "continuous"]
_Prices = Literal["markPrice", "allMarks", "ticker", "allTickers", "miniTicker", "allMiniTickers"]
_Orders = Literal["aggTrade", "trade", "bookTicker", "allBooks", "depth", "snapshot", "forceOrder", "allForced"]
Kind = _Bars | _Prices | _Orders
MARKET_KINDS: dict[str, Kind] = {
    "markPrice": "markPrice",
    "markPrice@1s": "markPrice",
    "aggTrade": "aggTrade",
    "ticker": "ticker",
    "miniTicker": "miniTicker",
    "forceOrder": "forceOrder",
}
TOGETHER: dict[tuple[Route, str], Kind] = {
    ("market", "!markPrice@arr"): "allMarks",
    ("market", "!markPrice@arr@1s"): "allMarks",
    ("market", "!ticker@arr"): "allTickers",
    ("market", "!miniTicker@arr"): "allMiniTickers",
    ("market", "!forceOrder@arr"): "allForced",
    ("public", "!bookTicker"): "allBooks",
}
"""Streams of all symbols."""
CONTRACT, CONTINUOUS = "_perpetual", "continuousKline_"
DEPTH = re.compile(r"depth(5|10|20)?(@(0|100|250|500)ms)?")


class Stream(NamedTuple):
    """A stream that delivers something: `interval` of klines, or the number of levels of partial books.

    `row` is the symbol's; -1 for all symbols together.
    """

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
    >>> parse_stream("btcusdt_perpetual@continuousKline_1m", {"btcusdt": 0})
    Stream(kind='continuous', row=0, interval='1m')
    """
    if (route, name) in TOGETHER:
        return Stream(TOGETHER[route, name], -1, "")
    symbol, _, rest = name.partition("@")
    if route == "market" and symbol.endswith(CONTRACT) and rest.startswith(CONTINUOUS):
        row, interval = rows.get(symbol.removesuffix(CONTRACT)), rest.removeprefix(CONTINUOUS)
        return Stream("continuous", row, interval) if row is not None and interval in INTERVAL_MS else None
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


@lru_cache(maxsize=4096)
def _frame_head(size: int, opcode: int) -> bytes:
    if size < 126:
        return bytes((opcode, size))
    if size < 1 << 16:
        return bytes((opcode, 126)) + size.to_bytes(2)
    return bytes((opcode, 127)) + size.to_bytes(8)


def frame(payload: bytes, opcode: int = TEXT_FRAME) -> bytes:
    """One unmasked, unfragmented WebSocket frame (RFC 6455, 5.2)."""
    return _frame_head(len(payload), opcode) + payload


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
        self.unanswered = 0
        """Pings since the last answer."""
        self.combined = combined
        self.names: dict[str, Stream | None] = {}
        self.muted: set[str] = set()
        """Streams that stay silent however often they are subscribed to, on demand."""
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
                self.names[name] = None if name in self.muted else parse_stream(name, self._rows, self.route)

    def silence(self, name: str, *, for_good: bool) -> None:
        """Say no more on a stream: until it is subscribed to again, or for good."""
        self.names[name] = None
        if for_good:
            self.muted.add(name)

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
                if len({*self.names, *parameters}) > MOST_STREAMS:
                    return _refusal(2, f"Invalid request: more than {MOST_STREAMS} streams", identity)
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


def enveloped(name: str, event: bytes, combined: bool) -> bytes:
    """One event as a frame."""
    return framed({name: [event]}, combined)[name]


@lru_cache(maxsize=8192)
def _head(name: str) -> bytes:
    return b'{"stream":' + msgspec.json.encode(name) + b',"data":'


def framed(messages: Mapping[str, list[bytes]], combined: bool) -> dict[str, bytes]:
    """All frames of each stream, joined."""
    found: dict[str, bytes] = {}
    for name, events in messages.items():
        if combined:
            head = _head(name)
            events = [head + event + b"}" for event in events]
        found[name] = frame(events[0]) if len(events) == 1 else b"".join(map(frame, events))
    return found
