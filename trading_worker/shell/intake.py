"""From the bars of a `BarFeed` to minute waves and price updates, in order, for the one who drives the engine.

The feed delivers each bar once and in order, repaired over REST; here bars of one minute are put together, and it is
decided how long a wave waits for what REST is being asked. Time is the venue's. A wave is dealt with completely before
the next, and before anything else is read from the connection whose message completed it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Protocol

import aiohttp
import numpy as np
from numpy.typing import NDArray

from market.binance.bar_feed import JUMP_MS, BarFeed
from market.binance.bar_sink import ClosedBar
from market.binance.bar_stream import BarStream, Fetch
from market.binance.errors import StreamMessageInvalid
from market.binance.streams import KlineEvent
from market.errors import BarRejected, utc
from trading_worker.shell.metrics import Board
from trading_worker.shell.prices import Prices
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.waves import Minute, WaveAssembler

INTERVAL = "1m"
"""The bars that are followed; longer ones are made of them, in history and live."""
GRACE_MS = 10_000
"""Venue time that an overdue wave waits for what REST was asked."""


class Driver(Protocol):
    """Where waves and everything else worth noting go."""

    async def minute(self, minute: Minute, venue_ms: int) -> None:
        """Take the next wave."""

    def prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        """Take price updates, in order of arrival."""

    def rejected(self, error: BarRejected, time_ms: int) -> None:
        """Write down a bar that was refused."""

    def revised(self, row: int, used: np.void, revised: np.void, time_ms: int) -> None:
        """Write down that a bar came again with other numbers."""

    def absent(self, row: int, start_ms: int, end_ms: int, cause: str, time_ms: int) -> None:
        """Write down that bars with open time in [start_ms, end_ms) will not come."""


class Intake:
    """The bars of `symbols` as waves: the sink of a feed of its own, which `stream` keeps supplied.

    Parameters
    ----------
    symbols: the engine's symbols; a row is a position in it.
    waves: the assembler, standing where the engine stands.
    ws_root, session, fetch, server_time, jitter, seconds: the stream's, see `BarStream`.
    venue_ms: the venue's time when the engine had caught up.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        waves: WaveAssembler,
        driver: Driver,
        board: Board,
        *,
        ws_root: str,
        session: aiohttp.ClientSession,
        fetch: Fetch,
        server_time: Callable[[], Awaitable[int]],
        jitter: Random,
        seconds: Callable[[], float],
        venue_ms: int,
    ) -> None:
        self.lock = asyncio.Lock()
        """Held while waves are run: between two of them the engine may be changed by who holds it."""
        self._rows = {symbol: row for row, symbol in enumerate(symbols)}
        self._keys = [(symbol, INTERVAL) for symbol in symbols]
        self._waves = waves
        self._driver = driver
        self._board = board
        self._prices = Prices(len(self._keys))
        self._rejections = Rejections(board, driver.rejected)
        self._shown_failure: str | None = None
        starts = {key: waves.next_open(row) for row, key in enumerate(self._keys)}
        self.feed = BarFeed(starts, self, venue_ms=venue_ms, seconds=seconds, deadline_ms=waves.deadline_ms)
        self.stream = BarStream(
            ws_root,
            session,
            self.feed,
            fetch=fetch,
            server_time=server_time,
            jitter=jitter,
            seconds=seconds,
            after=self._after,
            opened=self._on_opened,
        )
        self._unopened = len(self.stream.connections)
        board.waiting["streams"] = "not connected yet"
        board.reconnects = self.stream.dropped

    # The sink of the feed

    def closed(self, bar: ClosedBar) -> None:
        """The next bar of a series."""
        if bar.event_time is None:
            self._board.bars_fetched += 1
        self._waves.take(self._rows[bar.symbol], bar.bar)

    def moving(self, event: KlineEvent) -> None:
        """What a message says of the price."""
        if not self._prices.add(self._rows[event.symbol], event):
            self.rejected(BarRejected(event.symbol, event.open_time, "a price update is not possible"))

    def revised(self, used: ClosedBar, other: np.void) -> None:
        """A bar has come again with other numbers."""
        self._driver.revised(self._rows[used.symbol], used.bar, other, self.feed.venue_ms)

    def absent(self, symbol: str, interval: str, start_ms: int, end_ms: int, cause: str) -> None:
        """Bars that will not come."""
        self._driver.absent(self._rows[symbol], start_ms, end_ms, cause, self.feed.venue_ms)

    def rejected(self, error: BarRejected | StreamMessageInvalid) -> None:
        """A bar or message that was refused."""
        if isinstance(error, StreamMessageInvalid):
            error = BarRejected("", 0, f"the message cannot be read ({type(error).__name__})")
        self._rejections.add(error, self.feed.venue_ms)

    # After each message, answer and look

    def _after(self) -> Awaitable[None] | None:
        """Tell the board, and say whether there is something to do."""
        feed, board, waves = self.feed, self._board, self._waves
        board.messages = feed.messages
        venue_ms = board.venue_ms = feed.venue_ms
        if feed.event_ms + JUMP_MS < waves.wave_ms or "venue" in board.waiting:
            self._show_behind()
        if self.stream.rest_failure is not self._shown_failure:
            self._show_failure()
        if waves.complete or waves.overdue(venue_ms) or self._prices.due(venue_ms):
            return self._advance()
        return None

    async def _advance(self) -> None:
        """Let every wave leave that is complete, or overdue and no longer waited for."""
        async with self.lock:
            while True:
                minute = self._waves.ready()
                if minute is None and self._waves.overdue(self.feed.venue_ms) and not self._under_way():
                    minute = self._waves.cut()
                self._show_prices(whole=minute is not None)
                if minute is None:
                    break
                self._rejections.next_minute()
                await self._driver.minute(minute, self.feed.venue_ms)

    def _under_way(self) -> bool:
        """Whether REST was asked for a bar that the next wave waits for, and may still answer in time."""
        since = (self.feed.asking_since(self._keys[row]) for row in self._waves.lacking())
        return any(asked_ms is not None and self.feed.venue_ms < asked_ms + GRACE_MS for asked_ms in since)

    def _show_prices(self, whole: bool) -> None:
        for time_ms, rows, prices in self._prices.pop(self.feed.venue_ms, whole=whole):
            self._board.prices += len(prices)
            self._driver.prices(time_ms, rows, prices)

    def _show_failure(self) -> None:
        self._shown_failure = failure = self.stream.rest_failure
        if failure is None:
            self._board.notes.pop("rest", None)
        else:
            self._board.notes["rest"] = f"bars cannot be fetched: {failure}"

    def _show_behind(self) -> None:
        """Say that the venue's time is behind the engine's, as long as it is.

        An exchange that began anew does that: until it has passed the engine's time, all that it sends is too old.
        """
        event_ms, wave_ms = self.feed.event_ms, self._waves.wave_ms
        if event_ms + JUMP_MS < wave_ms:
            self._board.waiting["venue"] = (
                f"its time {utc(event_ms)} is behind the engine's {utc(wave_ms)}: not the same exchange?"
            )
        elif event_ms > wave_ms:
            self._board.waiting.pop("venue", None)

    def _on_opened(self) -> None:
        self._unopened -= 1
        if self._unopened <= 0:
            self._board.waiting.pop("streams", None)
