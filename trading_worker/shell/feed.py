"""The stream connections of all symbols, and the watch over them.

A stream can fail in silence: the venue acknowledges a subscription and then sends nothing. So the watch asks for the
venue's time when nothing at all comes, by which waves become overdue and are filled over REST, and subscribes again
where a stream has been silent too long by that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random

import aiohttp
import msgspec

from market.binance.connection import Backoff, StreamConnection
from market.binance.streams import MAX_STREAMS, kline_stream, kline_stream_urls
from market.errors import MarketError
from trading_worker.shell.intake import Intake
from trading_worker.shell.metrics import Board

TICK_S = 1.0
"""Wall seconds between two looks."""
QUIET_TICKS = 5
"""Looks without any message after which the venue is asked for its time."""
SILENT_MS = 150_000
"""Venue time without a word from a stream: even one without trades speaks when its minute closes."""


class Feed:
    """Reads the kline streams of `symbols` into an intake.

    Parameters
    ----------
    ws_root: root of the venue's streams.
    jitter: what the pauses between reconnections are drawn with.
    server_time: asks REST for the venue's time.
    """

    def __init__(
        self,
        ws_root: str,
        symbols: Sequence[str],
        session: aiohttp.ClientSession,
        intake: Intake,
        board: Board,
        *,
        jitter: Random,
        server_time: Callable[[], Awaitable[int]],
    ) -> None:
        self._symbols = tuple(symbols)
        self._intake = intake
        self._board = board
        self._server_time = server_time
        self._limits = [SILENT_MS] * len(self._symbols)
        self._requests = 0
        self._opened = 0
        self._shards = [range(first, min(first + MAX_STREAMS, len(self._symbols))) for first in self._firsts()]
        self._connections = [
            StreamConnection(
                kline_stream_urls(ws_root, [self._symbols[row] for row in shard])[0],
                session,
                intake.take,
                self._on_opened,
                self._on_dropped,
                Backoff(jitter),
            )
            for shard in self._shards
        ]
        board.waiting["streams"] = "not connected yet"

    def _firsts(self) -> range:
        return range(0, len(self._symbols), MAX_STREAMS)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(connection.run())
            group.create_task(self._watch())

    async def _watch(self) -> None:
        """Look after the streams once a second. Every decision is by the venue's time."""
        messages, quiet = -1, 0
        while True:
            await asyncio.sleep(TICK_S)
            quiet = quiet + 1 if self._board.messages == messages else 0
            messages = self._board.messages
            if quiet >= QUIET_TICKS:
                quiet = 0
                await self._ask_time()
            await self._wake_silent()

    async def _ask_time(self) -> None:
        try:
            venue_ms = await self._server_time()
        except MarketError as error:
            self._board.notes["streams"] = f"no messages, and {error}"
            return
        self._board.notes.pop("streams", None)
        await self._intake.observe(venue_ms)

    async def _wake_silent(self) -> None:
        """Open a connection again that is silent as a whole; subscribe anew single streams that are."""
        for shard, connection in zip(self._shards, self._connections, strict=True):
            silent = [row for row in shard if self._silence(row) > self._limits[row]]
            if not silent:
                continue
            for row in silent:
                # A symbol that has left the venue is asked for ever more rarely.
                self._limits[row] = 2 * self._silence(row)
            if len(silent) == len(shard):
                await connection.drop("silent streams")
            else:
                self._board.reconnects["one stream silent"] += len(silent)
                self._requests += 1
                names = [kline_stream(self._symbols[row]) for row in silent]
                request = {"method": "SUBSCRIBE", "params": names, "id": self._requests}
                await connection.send(msgspec.json.encode(request).decode())
        for row, limit in enumerate(self._limits):
            if limit != SILENT_MS and self._silence(row) <= SILENT_MS:
                self._limits[row] = SILENT_MS

    def _silence(self, row: int) -> int:
        return self._intake.venue_ms - self._intake.heard[row]

    def _on_opened(self) -> None:
        self._opened += 1
        if self._opened >= len(self._connections):
            self._board.waiting.pop("streams", None)

    def _on_dropped(self, cause: str) -> None:
        self._board.reconnects[cause] += 1
