"""One stream connection that comes back: read in order, handled inline, opened again with growing, jittered pauses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp

MAX_MESSAGE_BYTES = 1 << 20
CLOSE_TIMEOUT_S = 1.0


class Backoff:
    """Pauses before the next attempt: from `first_s` doubling to `limit_s`, each drawn between half and whole.

    The jitter keeps many workers behind one address from coming back in step.

    >>> backoff = Backoff(Random(1), first_s=1.0, limit_s=4.0)
    >>> [1.0 <= 2 * backoff.next() / whole <= 2.0 for whole in (1.0, 2.0, 4.0, 4.0)]
    [True, True, True, True]
    """

    def __init__(self, jitter: Random, first_s: float = 0.2, limit_s: float = 30.0) -> None:
        self._jitter = jitter
        self._first_s = first_s
        self._limit_s = limit_s
        self._attempt = 0

    def next(self) -> float:
        """Seconds to wait now."""
        whole = min(self._limit_s, self._first_s * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, 32)
        return whole * (0.5 + 0.5 * self._jitter.random())

    def reset(self) -> None:
        """A connection delivered: begin anew."""
        self._attempt = 0


class StreamConnection:
    """Reads one URL for ever.

    Each message is handled before the next is received, and aiohttp answers a ping only when it is received: a
    server that waits for the pong knows that everything before it was taken. Compression is off, since these
    messages are small and many.

    Parameters
    ----------
    url: what to connect to, streams included.
    session: an open aiohttp session, whose owner closes it.
    handle: awaited with every text message.
    opened: told whenever a connection has been made.
    dropped: told the cause whenever the connection is lost or cannot be made.
    """

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        handle: Callable[[bytes], Awaitable[None]],
        opened: Callable[[], None],
        dropped: Callable[[str], None],
        backoff: Backoff,
    ) -> None:
        self._url = url
        self._session = session
        self._handle = handle
        self._opened = opened
        self._dropped = dropped
        self._backoff = backoff
        self._socket: aiohttp.ClientWebSocketResponse[Any] | None = None
        self._cause = ""

    async def run(self) -> None:
        """Until cancelled. What `handle` raises ends it: that is the worker's fault, not the network's."""
        while True:
            cause = await self._once()
            self._dropped(self._cause or cause)
            self._cause = ""
            await asyncio.sleep(self._backoff.next())

    async def drop(self, cause: str) -> None:
        """Close the connection, so that it is opened again; `cause` is what `dropped` is told."""
        if self._socket is not None and not self._socket.closed:
            self._cause = cause
            await self._socket.close()

    async def send(self, text: str) -> None:
        """Send a control message; nothing happens while there is no connection."""
        if self._socket is not None and not self._socket.closed:
            with suppress(ConnectionError):
                await self._socket.send_str(text)

    async def _once(self) -> str:
        """One connection from beginning to end; returns why it ended."""
        try:
            socket = await self._session.ws_connect(
                self._url,
                max_msg_size=MAX_MESSAGE_BYTES,
                compress=0,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return f"cannot connect: {type(error).__name__}"
        self._socket = socket
        self._opened()
        try:
            return await self._read(socket)
        finally:
            self._socket = None
            await socket.close()

    async def _read(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> str:
        while True:
            message = await socket.receive()
            if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                self._backoff.reset()
                await self._handle(message.data)
            elif message.type is aiohttp.WSMsgType.ERROR:
                return f"protocol error: {type(message.data).__name__}"
            else:
                return "the venue closed the connection" if socket.close_code == 1000 else "connection lost"
