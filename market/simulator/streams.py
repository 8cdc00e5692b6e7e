"""All stream connections: who is sent what, the barrier that makes the clock wait, and how connections end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

import msgspec
from aiohttp import WSMsgType, web

from market.simulator.connections import (
    CLOSE_FRAME,
    PING_FRAME,
    PUBLIC_KINDS,
    Connection,
    Stream,
    enveloped,
    frame,
    framed,
)
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
MOST_MESSAGES_A_SECOND = 10
MOST_UNANSWERED = 10
"""Pings, one a simulated minute, after which a connection that never answers is cut in real time."""


class Hub:
    """All stream connections.

    Parameters
    ----------
    symbols: in the order of their rows.
    keys: whose listen keys are whose.
    faults: what goes wrong with messages.
    now_ms: the simulated time, by which connections age.
    wall: a clock in seconds; given, a connection that sends too many messages a second is closed.
    """

    def __init__(
        self,
        symbols: tuple[str, ...],
        keys: ListenKeys,
        faults: StreamFaults,
        now_ms: Callable[[], int],
        wall: Callable[[], float] | None = None,
    ) -> None:
        self._rows = {symbol.lower(): row for row, symbol in enumerate(symbols)}
        self._keys, self._faults, self._now_ms, self._wall = keys, faults, now_ms, wall
        self._connections: dict[Connection, None] = {}
        self._awaited: dict[Connection, int] = {}
        self._wanted: dict[str, Stream] | None = None
        self._changed = asyncio.Event()

    @property
    def consumers(self) -> int:
        """Connections that are subscribed to something that is delivered."""
        return sum(connection.live for connection in self._connections)

    @property
    def connections(self) -> int:
        """All connections, those among them that nothing is delivered on too."""
        return len(self._connections)

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
                frames.update(framed(messages, connection.combined))
            told = [frames[name] for name, stream in connection.names.items() if stream is not None and name in frames]
            connection.write(b"".join(told))

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
                            connection.write(enveloped(key, each, connection.combined))

    def expire(self, expired: list[tuple[str, str]]) -> None:
        """Tell the connections that hold dead listen keys."""
        now_ms = self._now_ms()
        for _, key in expired:
            body = msgspec.json.encode({"e": "listenKeyExpired", "E": now_ms, "listenKey": key})
            for connection in self._connections:
                if connection.route == "private" and key in connection.names:
                    connection.write(enveloped(key, body, connection.combined))

    def strike(self, fault: StreamFault) -> int:
        """Let a fault of subscriptions or connections happen to the first `count` that there are; returns how many."""
        if fault.kind in ("silence", "mute"):
            return self._silence(fault)
        chosen = [each for each in self._connections if each.route == fault.route and not each.half_open][: fault.count]
        for connection in chosen:
            if fault.kind == "cut":
                connection.transport.abort()
            elif fault.kind == "end":
                _end(connection)
            else:
                connection.half_open = True
                self._awaited.pop(connection, None)
        self._subscriptions_changed()
        return len(chosen)

    def _silence(self, fault: StreamFault) -> int:
        chosen = [
            (connection, name)
            for connection in self._connections
            if connection.route == fault.route and not connection.half_open
            for name, stream in connection.names.items()
            if stream is not None and name.startswith(fault.name)
        ][: fault.count]
        for connection, name in chosen:
            connection.silence(name, for_good=fault.kind == "mute")
        self._subscriptions_changed()
        return len(chosen)

    def cut_old(self, before_ms: int) -> int:
        """Close connections that were opened before a time; returns how many."""
        old = [connection for connection in self._connections if connection.opened_ms < before_ms]
        for connection in old:
            _end(connection)
        return len(old)

    def ping(self, sequence: int) -> None:
        """Ping every connection without waiting; cut those that have not answered for as long as the venue waits."""
        for connection in self._connections:
            if connection.unanswered >= MOST_UNANSWERED:
                connection.transport.abort()
            connection.unanswered += 1
            connection.write(frame(str(sequence).encode(), PING_FRAME))

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
        received: deque[float] = deque(maxlen=MOST_MESSAGES_A_SECOND)
        try:
            async for message in socket:
                if connection.half_open:
                    continue
                if message.type is WSMsgType.TEXT and self._too_fast(received):
                    connection.write(frame((1008).to_bytes(2) + b"Too many requests", CLOSE_FRAME))
                    break
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

    def _too_fast(self, received: deque[float]) -> bool:
        """Whether one message more is too many within a second."""
        if self._wall is None:
            return False
        now = self._wall()
        full = len(received) == received.maxlen and now - received[0] < 1.0
        received.append(now)
        return full

    def _answered(self, connection: Connection, payload: bytes | bytearray) -> None:
        connection.unanswered = 0
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


def _end(connection: Connection) -> None:
    """Close a connection as the venue does after 24 hours."""
    connection.write(frame((1008).to_bytes(2) + b"disconnected", CLOSE_FRAME))
    connection.transport.close()
