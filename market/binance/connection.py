"""One stream connection that comes back, and is renewed without a gap before the venue cuts it.

Messages are read in order and handled inline; the next is not received before. Pings are answered by the same reader,
so a server that waits for the pong knows that everything before it was taken. A guard sends a ping of its own when
nothing has come for a while: an end that is gone without a word (half-open) answers nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp

from market.binance.errors import BinanceError, LocationRefused

MAX_MESSAGE_BYTES = 1 << 20
CLOSE_TIMEOUT_S = 1.0
QUIET_S = 60.0
"""Without a word for so long a ping is sent, and after as long again without any answer the connection is dead."""
RENEW_S = 23 * 3600.0
"""The venue cuts a connection after 24 hours; it is renewed between this and an hour less, drawn by chance."""
RENEW_SPREAD_S = 3600.0
PACE_S = 0.2
"""Between two control messages: the venue takes ten a second, pings included."""
SHUTDOWN = b'"serverShutdown"'


class Backoff:
    """Pauses before the next attempt: from `first_s` doubling to `limit_s`, each drawn between half and whole.

    The jitter keeps many workers behind one address from coming back in step.

    >>> backoff = Backoff(Random(1), first_s=1.0, limit_s=4.0)
    >>> [1.0 <= 2 * backoff.next() / whole <= 2.0 for whole in (1.0, 2.0, 4.0, 4.0)]
    [True, True, True, True]
    """

    def __init__(self, jitter: Random, first_s: float = 0.2, limit_s: float = 30.0) -> None:
        self.jitter = jitter
        self._first_s = first_s
        self._limit_s = limit_s
        self._attempt = 0

    def next(self) -> float:
        """Seconds to wait now."""
        whole = min(self._limit_s, self._first_s * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 32)
        return whole * (0.5 + 0.5 * self.jitter.random())

    def reset(self) -> None:
        """A connection delivered: begin anew."""
        self._attempt = 0


class _Line:
    """One socket and what is known of it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self.socket = socket
        self.received = 0
        self.waiting = False
        """Whether the next message is waited for; while one is being handled, silence says nothing."""
        self.delivered = asyncio.Event()
        self.ending = asyncio.Event()
        self.cause = ""
        self.opened_s = asyncio.get_running_loop().time()
        """The venue's 24 hours count from here, not from when it took over."""


class StreamConnection:
    """Reads one URL for ever.

    Parameters
    ----------
    url: what to connect to, streams included; or what gives it anew for each connection, or raises `BinanceError`.
    session: an open aiohttp session, whose owner closes it.
    handle: awaited with every text message; never twice at once. While a connection is renewed, messages of both come.
    opened: told whenever a connection has been made; not when one takes over from another.
    dropped: told the cause whenever the connection is lost or cannot be made.
    backoff: the pauses between attempts.
    quiet_s, renew_s: see `QUIET_S` and `RENEW_S`.

    Compression is off, since these messages are small and many.
    """

    def __init__(
        self,
        url: str | Callable[[], Awaitable[str]],
        session: aiohttp.ClientSession,
        handle: Callable[[bytes], Awaitable[None]],
        opened: Callable[[], None],
        dropped: Callable[[str], None],
        backoff: Backoff,
        *,
        quiet_s: float = QUIET_S,
        renew_s: float = RENEW_S,
    ) -> None:
        self._url = url
        self._session = session
        self._handle = handle
        self._opened = opened
        self._dropped = dropped
        self._backoff = backoff
        self._quiet_s = quiet_s
        self._renew_s = renew_s
        self._line: _Line | None = None
        self._following: _Line | None = None
        self._one_at_a_time = asyncio.Lock()
        self._pace = asyncio.Lock()
        self._paced_s = -PACE_S
        self.renewals = 0
        """How often a connection was taken over from, without a gap."""

    async def run(self) -> None:
        """Until cancelled. What `handle` raises ends it: that is not the network's fault."""
        while True:
            cause = await self._while_connected()
            self._dropped(cause)
            await asyncio.sleep(self._backoff.next())

    async def drop(self, cause: str) -> None:
        """Close the connection, so that it is opened again; `cause` is what `dropped` is told.

        One that is about to take over is closed too: it is no better, and would hide that there was a gap.
        """
        for line in (self._line, self._following):
            if line is not None:
                await _hang_up(line, cause)

    async def renew(self) -> None:
        """Open another connection, and close this one when that has delivered.

        One that was opened for that before and has delivered nothing yet is given up for it.
        """
        if self._line is not None:
            self._line.ending.set()
        if self._following is not None:
            await _hang_up(self._following, "it delivered nothing")

    async def send(self, text: str) -> None:
        """Send a control message, no faster than the venue takes them; nothing happens without a connection."""
        async with self._pace:
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, self._paced_s + PACE_S - now))
            self._paced_s = asyncio.get_running_loop().time()
            if self._line is not None and not self._line.socket.closed:
                with suppress(ConnectionError):
                    await self._line.socket.send_str(text)

    # Inside

    async def _while_connected(self) -> str:
        """From the first connection until there is none, over any number of renewals; returns why it ended."""
        line = await self._connect()
        if isinstance(line, str):
            return line
        self._line = line
        self._opened()
        tasks = {asyncio.create_task(self._read(line))}
        try:
            while True:
                reading = next(iter(tasks))
                due = asyncio.create_task(line.ending.wait())
                renew_s = self._renew_s - RENEW_SPREAD_S / RENEW_S * self._renew_s * self._backoff.jitter.random()
                left_s = max(0.0, line.opened_s + renew_s - asyncio.get_running_loop().time())
                await asyncio.wait({reading, due}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                due.cancel()
                if reading.done():
                    return line.cause or reading.result()
                following = await self._connect()
                if isinstance(following, str):
                    # The old one still delivers. It is tried again after a pause, unless it is cut meanwhile.
                    await asyncio.wait({reading}, timeout=self._backoff.next())
                    line.ending.set()
                    continue
                next_reading = asyncio.create_task(self._read(following))
                tasks = {next_reading, reading}
                if not await self._taken_over(reading, next_reading, following):
                    tasks = {reading}
                    line.ending.set()
                    await asyncio.wait({reading}, timeout=self._backoff.next())
                    continue
                self._line = following
                await _hang_up(line, "renewed")
                await reading
                tasks, line = {next_reading}, following
                self.renewals += 1
        finally:
            self._line = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _taken_over(self, old: asyncio.Task[str], new: asyncio.Task[str], following: _Line) -> bool:
        """Whether the new connection delivers, or at least the old one does not any more."""
        self._following = following
        delivered = asyncio.create_task(following.delivered.wait())
        try:
            await asyncio.wait({delivered, old, new}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._following = None
            delivered.cancel()
        if new.done():
            new.result()
            return False
        return True

    async def _connect(self) -> _Line | str:
        """A new socket, or why there is none."""
        try:
            url = self._url if isinstance(self._url, str) else await self._url()
            socket = await self._session.ws_connect(
                url,
                max_msg_size=MAX_MESSAGE_BYTES,
                compress=0,
                decode_text=False,
                autoping=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        except (BinanceError, aiohttp.ClientError, OSError, TimeoutError) as error:
            if isinstance(error, aiohttp.WSServerHandshakeError) and error.status == 451:
                return f"cannot connect: {LocationRefused('451')}"
            # The error's text may hold the address, and that a key.
            return f"cannot connect: {type(error).__name__}"
        return _Line(socket)

    async def _read(self, line: _Line) -> str:
        """All messages of one socket; returns why it ended."""
        guard = asyncio.create_task(self._guard(line))
        try:
            return await self._messages(line)
        finally:
            guard.cancel()
            await line.socket.close()

    async def _messages(self, line: _Line) -> str:
        socket = line.socket
        while True:
            line.waiting = True
            message = await socket.receive()
            line.waiting = False
            line.received += 1
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._backoff.reset()
                async with self._one_at_a_time:
                    await self._handle(message.data)
                line.delivered.set()
                if SHUTDOWN in message.data[:80]:
                    line.ending.set()
            elif message.type is aiohttp.WSMsgType.PING:
                with suppress(ConnectionError):
                    await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.ERROR:
                return f"protocol error: {type(message.data).__name__}"
            elif message.type is not aiohttp.WSMsgType.PONG:
                return "the venue closed the connection" if socket.close_code == 1000 else "connection lost"

    async def _guard(self, line: _Line) -> None:
        """Ping an end that has been silent; hang up when it stays so."""
        seen, asked = -1, False
        while True:
            await asyncio.sleep(self._quiet_s)
            if line.received != seen or not line.waiting:
                seen, asked = line.received, False
            elif asked:
                await _hang_up(line, "half-open connection")
                return
            else:
                asked = True
                with suppress(ConnectionError):
                    await line.socket.ping()


async def _hang_up(line: _Line, cause: str) -> None:
    if not line.socket.closed:
        line.cause = cause
        await line.socket.close()
