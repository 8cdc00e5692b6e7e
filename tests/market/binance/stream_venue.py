"""A venue's streams in a test: what is subscribed to is heard only when the test says so, and can go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web

from market.bars import MINUTE_MS, Bars
from tests.market.binance.test_bar_feed import at, bars, message


class Socket:
    """One connection as the venue sees it."""

    def __init__(self, path: str, names: list[str], socket: web.WebSocketResponse) -> None:
        self.path, self.names, self.socket = path, set(names), socket
        self.control: list[dict[str, Any]] = []
        self.deaf = False
        """Whether it answers nothing more, pings included, without being closed."""
        self.mute: set[str] = set()
        """Streams that were acknowledged and say nothing."""
        self.mute_for_good = False
        """Whether those stay so when they are subscribed to again."""


class StreamVenue:
    """Streams under `/market`, and REST as functions of the stored bars."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.ever = 0
        self.refuse, self.refusal, self.refused = False, 503, 0
        self.venue_ms = at(0)
        self.url = ""
        self.changed = asyncio.Condition()
        self.asked: list[tuple[str, int, int]] = []
        self.refuses_subscriptions = False
        self.mute_next: set[str] = set()
        """Streams of the next connection that will be acknowledged and say nothing."""

    async def until(self, condition: Any) -> None:
        """Return when `condition()` holds."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            self.refused += 1
            await self._tell()
            return web.Response(status=self.refusal)
        names = [name for name in request.query.get("streams", "").split("/") if name]
        response = web.WebSocketResponse(autoping=False)
        await response.prepare(request)
        socket = Socket(request.path, names, response)
        socket.mute, self.mute_next = self.mute_next, set()
        self.ever += 1
        await self._put(socket)
        try:
            async for received in response:
                if socket.deaf:
                    await asyncio.Event().wait()
                if received.type is WSMsgType.PING:
                    await response.pong(received.data)
                elif received.type is WSMsgType.TEXT:
                    await self._control(socket, json.loads(received.data))
        finally:
            self.sockets.remove(socket)
            await self._tell()
        return response

    async def _control(self, socket: Socket, asked: dict[str, Any]) -> None:
        socket.control.append(asked)
        if asked["method"] == "SUBSCRIBE" and self.refuses_subscriptions:
            refusal = {"code": 2, "msg": "Invalid request: too many streams", "id": asked["id"]}
            await socket.socket.send_json(refusal)
            await self._tell()
            return
        if asked["method"] == "SUBSCRIBE":
            socket.names |= set(asked["params"])
            if not socket.mute_for_good:
                socket.mute -= set(asked["params"])
        else:
            socket.names -= set(asked["params"])
        await socket.socket.send_json({"result": None, "id": asked["id"]})
        await self._tell()

    async def _put(self, socket: Socket) -> None:
        self.sockets.append(socket)
        await self._tell()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def say(self, symbol: str, minute: int, **changes: Any) -> int:
        """Send a closed bar to all who hear that stream; how many that were."""
        heard = 0
        self.venue_ms = max(self.venue_ms, at(minute, 2_000))
        for socket in list(self.sockets):
            name = f"{symbol.lower()}@kline_1m"
            if (
                name in socket.names
                and name not in socket.mute
                and socket.path.startswith("/market")
                and not socket.deaf
            ):
                wrapped = b'{"stream":"' + name.encode() + b'","data":' + message(symbol, minute, **changes) + b"}"
                with suppress(ConnectionError):
                    await socket.socket.send_str(wrapped.decode())
                    heard += 1
        return heard

    async def raw(self, text: str) -> None:
        """Send anything to all."""
        for socket in list(self.sockets):
            await socket.socket.send_str(text)

    async def server_time(self) -> int:
        return self.venue_ms

    async def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, start_ms, end_ms))
        last = min(end_ms, self.venue_ms // MINUTE_MS * MINUTE_MS)
        minutes = np.arange(start_ms, last, MINUTE_MS)
        return bars(*((minutes - at(-1)) // MINUTE_MS).tolist())


@asynccontextmanager
async def streams() -> AsyncIterator[StreamVenue]:
    """A venue on loopback."""
    venue = StreamVenue()
    application = web.Application()
    application.router.add_get("/{path:.*}", venue.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield venue
    finally:
        await runner.cleanup()
