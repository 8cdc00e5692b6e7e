"""From stream messages to minute waves: checked, repaired over REST, in order, each bar once.

Time is the venue's: the newest event time of any message, or its server time when streams are quiet. One message is
dealt with completely, requests to REST included, before the next; so nothing here runs twice at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from market.bars import MINUTE_MS, Bars, fault
from market.binance.streams import KlineEvent
from market.errors import BarRejected, MarketError, utc
from trading_worker.shell.metrics import Board
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.waves import Minute, Offer, Overdue, WaveAssembler

JUMP_MS = 2 * MINUTE_MS
"""An event time further ahead than this is believed only when the venue's server time confirms it."""
CLOCK_TOLERANCE_MS = 5_000
PRICE_BATCH_MS = 250
PRICE_BATCH = 1_024
REPAIRS_AT_ONCE = 8
REMEMBERED_REPAIRS = 4_096


class Sink(Protocol):
    """Where waves and everything else worth noting go."""

    async def minute(self, minute: Minute, venue_ms: int) -> None:
        """Take the next wave."""

    def prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        """Take price updates, in order of arrival."""

    def rejected(self, error: BarRejected, time_ms: int) -> None:
        """Write down a bar that was refused."""

    def revised(self, row: int, used: np.void, revised: np.void, time_ms: int) -> None:
        """Write down that a bar came again with other numbers."""


Fetch = Callable[[str, int, int], Awaitable[Bars]]
"""Closed and possible 1m bars of a symbol with open time in [start, end); a `MarketError` when the venue cannot be
asked. What is not a possible bar was refused before, see `Venue.klines`."""


class Intake:
    """Turns raw messages of the kline streams into calls of a sink.

    Parameters
    ----------
    symbols: the engine's symbols; a row is a position in it.
    waves: the assembler, standing where the engine stands.
    parse: one raw message to a kline, None for an answer to a subscription; a `MarketError` for anything else.
    fetch: asks REST for bars.
    server_time: asks REST for the venue's time, ms.
    venue_ms: the venue's time when the engine had caught up.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        waves: WaveAssembler,
        sink: Sink,
        board: Board,
        *,
        parse: Callable[[bytes], KlineEvent | None],
        fetch: Fetch,
        server_time: Callable[[], Awaitable[int]],
        venue_ms: int,
    ) -> None:
        self.lock = asyncio.Lock()
        self.venue_ms = venue_ms
        self.heard = [venue_ms] * len(symbols)
        """Per row, the venue's time when its stream last said anything."""
        self._symbols = tuple(symbols)
        self._rows = {symbol: row for row, symbol in enumerate(symbols)}
        self._waves = waves
        self._sink = sink
        self._board = board
        self._parse = parse
        self._fetch = fetch
        self._server_time = server_time
        self._extremes = [(-1, 0.0, 0.0)] * len(self._symbols)
        """Per row: open time of the bar that is going on, its low and its high so far."""
        self._price_rows: list[int] = []
        self._prices: list[float] = []
        self._prices_since = self._prices_until = 0
        self._rejections = Rejections(board, sink.rejected)
        self._repaired: deque[tuple[int, int]] = deque(maxlen=REMEMBERED_REPAIRS)

    async def take(self, raw: bytes) -> None:
        """One message from a stream."""
        async with self.lock:
            self._board.messages += 1
            try:
                message = self._parse(raw)
                if message is None:
                    return
                row = self._rows.get(message.symbol)
                if row is None:
                    raise BarRejected(message.symbol, message.open_time, "the symbol is not followed")
                await self._pass_time(message)
                self.heard[row] = self.venue_ms
                if message.closed:
                    await self._closed(row, message)
                else:
                    self._price(row, message)
            except BarRejected as error:
                self._reject(error)
            except MarketError as error:
                self._reject(BarRejected("", 0, f"the message cannot be read ({type(error).__name__})"))
            await self._advance()

    async def observe(self, venue_ms: int) -> None:
        """The venue's time from another source than a stream: waves may be overdue by it."""
        async with self.lock:
            self.venue_ms = self._board.venue_ms = max(self.venue_ms, venue_ms)
            await self._advance()

    async def _pass_time(self, message: KlineEvent) -> None:
        """Move the venue's time to the message's; one wrong event time must not cut every wave to come."""
        event_time = message.event_time
        if event_time > self.venue_ms + JUMP_MS and event_time > await self._server_time() + CLOCK_TOLERANCE_MS:
            raise BarRejected(message.symbol, message.open_time, "its event time lies in the future")
        self.venue_ms = self._board.venue_ms = max(self.venue_ms, event_time)
        if event_time + JUMP_MS < self._waves.wave_ms:
            # An exchange that began anew: until it has passed the engine's time, all that it sends is too old.
            self._board.waiting["venue"] = (
                f"its time {utc(event_time)} is behind the engine's {utc(self._waves.wave_ms)}: not the same exchange?"
            )
        elif event_time > self._waves.wave_ms:
            self._board.waiting.pop("venue", None)

    async def _closed(self, row: int, message: KlineEvent) -> None:
        """A closed bar: check it, fetch what is missing before it, offer it."""
        bar, symbol, open_time = message.bar, message.symbol, message.open_time
        reason = fault(bar)
        if reason is None and int(bar["close_time"]) > message.event_time:
            reason = "it is closed before its last millisecond"
        if reason is not None:
            raise BarRejected(symbol, open_time, reason)
        self._board.venue_delay.add((message.event_time - int(bar["close_time"])) / 1e3)
        self._price(row, message)
        missing = self._waves.missing(row, open_time)
        if missing is not None and not await self._repair(row, *missing):
            # Features must not jump over bars that exist. This bar is fetched with them, when REST answers again.
            return
        self._offer(row, bar, from_stream=True)

    def _offer(self, row: int, bar: np.void, *, from_stream: bool) -> None:
        used = self._waves.known(row, int(bar["close_time"]))
        taken = self._waves.offer(row, bar)
        key = (row, int(bar["close_time"]))
        if taken is Offer.LATE:
            return
        if taken is Offer.REVISED and used is not None:
            self._sink.revised(row, used, bar, self.venue_ms)
        elif taken in (Offer.REPEATED, Offer.OLDER) and from_stream and key in self._repaired:
            # The stream's own copy of a bar that REST was quicker with.
            self._repaired.remove(key)
        elif taken is not Offer.WAVE and from_stream:
            self._reject(BarRejected(self._symbols[row], int(bar["open_time"]), taken.value))

    async def _repair(self, row: int, start_ms: int, end_ms: int) -> bool:
        """Fetch and offer bars with open time in [start_ms, end_ms); False when REST cannot be asked."""
        try:
            bars = await self._fetch(self._symbols[row], start_ms, end_ms)
        except MarketError as error:
            self._board.fetch_failures += 1
            self._board.notes["rest"] = f"bars cannot be fetched: {error}"
            return False
        self._board.notes.pop("rest", None)
        self._take_fetched(row, bars, start_ms, end_ms)
        return True

    def _take_fetched(self, row: int, bars: Bars, start_ms: int, end_ms: int) -> None:
        for bar in bars:
            self._board.bars_fetched += 1
            self._offer(row, bar, from_stream=False)
            self._repaired.append((row, int(bar["close_time"])))
        self._waves.asked(row, start_ms, end_ms)

    async def _advance(self) -> None:
        """Let every wave leave that is complete or overdue."""
        answered = True
        while True:
            minute = self._waves.ready()
            if minute is None:
                overdue = self._waves.overdue(self.venue_ms)
                if overdue is None:
                    break
                if overdue.rows and answered:
                    answered = await self._ask(overdue)
                    continue
                minute = self._waves.cut()
            self._flush_prices()
            self._rejections.next_minute()
            await self._sink.minute(minute, self.venue_ms)
        if len(self._prices) >= PRICE_BATCH or (self._prices and self.venue_ms >= self._prices_since + PRICE_BATCH_MS):
            self._flush_prices()

    async def _ask(self, overdue: Overdue) -> bool:
        """Ask REST for absent bars, a few symbols at a time; False when any could not be asked."""
        gate = asyncio.Semaphore(REPAIRS_AT_ONCE)

        async def one(row: int) -> bool:
            # From the first minute that the series lacks: it may have been absent from earlier waves too.
            span = self._waves.missing(row, overdue.end_ms) or (overdue.start_ms, overdue.end_ms)
            async with gate:
                return await self._repair(row, *span)

        return all(await asyncio.gather(*map(one, overdue.rows)))

    def _price(self, row: int, message: KlineEvent) -> None:
        """What one message says of the price: the last trade, and first what the bar's extremes say went before it.

        Messages come every quarter of a second at best, and a barrier is touched in between; the bar's high and low
        do not miss it. Where one message moves both, the one that is farther from the last trade is taken to have
        come first.
        """
        kline = message.kline
        low, price, high = kline.low, kline.close, kline.high
        if not 0 < low <= price <= high < float("inf"):
            raise BarRejected(message.symbol, message.open_time, "a price update is not possible")
        # A closed bar is sent seconds after its close; its prices were there at the close.
        time_ms = min(message.event_time, kline.close_time)
        if self._prices and not 0 <= time_ms - self._prices_since < PRICE_BATCH_MS:
            self._flush_prices()
        if not self._prices:
            self._prices_since = time_ms
        self._prices_until = time_ms
        open_time, low_seen, high_seen = self._extremes[row]
        new = open_time != message.open_time
        touched = [low] if new or low < low_seen else []
        if new or high > high_seen:
            touched.insert(0 if high - price > price - low else len(touched), high)
        self._extremes[row] = (message.open_time, low, high)
        for value in (*touched, price):
            self._price_rows.append(row)
            self._prices.append(value)

    def _flush_prices(self) -> None:
        """Hand price updates over. They are gathered for a moment, since each call costs more than a price."""
        if self._prices:
            self._board.prices += len(self._prices)
            rows = np.array(self._price_rows, dtype=np.int64)
            self._sink.prices(self._prices_until, rows, np.array(self._prices, dtype=np.float64))
            self._price_rows.clear()
            self._prices.clear()

    def _reject(self, error: BarRejected) -> None:
        self._rejections.add(error, self.venue_ms)
