"""The source, read two ways: `Tape` reads ahead for the streams, `Past` answers only what has happened.

Both read on one thread of their own, so that a slow source never stops the server, and a source need not be safe
for threads.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, MINUTE_MS, Bars, empty, interval_ms, resample
from market.simulator.faults import Faults
from market.simulator.prices import fold, so_far
from market.simulator.text import MISSING, decimals

if TYPE_CHECKING:
    from market.sources import BarSource

CHUNK_MINUTES = 480
"""How far the streams read ahead at a time."""

FUNDING_LOOKBACK_MS = 3 * 86_400_000
"""The last funding is looked for this far back; the longest interval of the venue is eight hours."""

DEFAULT_FUNDING_INTERVAL_MS = 8 * 3_600_000
PRICE_SAMPLE_MINUTES = 240
MAX_DECIMALS = 8

T = TypeVar("T")


class Reader:
    """Calls the source on one thread, in order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="simulator-source")

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """`function(*arguments)`, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def close(self) -> None:
        """Let the thread end. What it is doing is not interrupted."""
        self._thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class FundingTimes:
    """Fundings of one symbol around some time: ascending times and their rates."""

    times: list[int]
    rates: list[float]

    def at(self, now_ms: int) -> tuple[float, int]:
        """The rate of the last funding at or before `now_ms` (NaN if none), and the full minute of the next.

        The time is public beforehand, the rate is not. Where the recording ends, the last interval goes on.
        """
        index = bisect_right(self.times, now_ms)
        rate = self.rates[index - 1] if index else float("nan")
        # Settling takes the venue some milliseconds; what it announces is the full minute.
        announced = [time // MINUTE_MS * MINUTE_MS for time in self.times]
        index = bisect_right(announced, now_ms)
        if index < len(announced):
            return rate, announced[index]
        interval = announced[-1] - announced[-2] if len(announced) > 1 else DEFAULT_FUNDING_INTERVAL_MS
        last = announced[-1] if announced else 0
        return rate, last + ((now_ms - last) // interval + 1) * interval


def read_funding(source: BarSource, symbol: str, start_ms: int, end_ms: int) -> FundingTimes:
    """The fundings of `symbol` in [start_ms, end_ms) and enough on both sides to know the last and the next."""
    found = source.funding(symbol, max(0, start_ms - FUNDING_LOOKBACK_MS), end_ms + DEFAULT_FUNDING_INTERVAL_MS + 1)
    return FundingTimes(found["funding_time"].tolist(), found["funding_rate"].tolist())


@dataclass(frozen=True)
class Chunk:
    """Minutes of all symbols: `bars` [minutes, symbols], of which `present` are real; the fundings of each symbol."""

    start_ms: int
    bars: NDArray[np.void]
    present: NDArray[np.bool_]
    funding: tuple[FundingTimes, ...]

    @property
    def end_ms(self) -> int:
        """The first minute that is not inside."""
        return self.start_ms + len(self.bars) * MINUTE_MS


def read_chunk(source: BarSource, symbols: tuple[str, ...], start_ms: int, end_ms: int) -> Chunk:
    """All symbols' minutes in [start_ms, end_ms)."""
    minutes = (end_ms - start_ms) // MINUTE_MS
    bars = np.zeros((minutes, len(symbols)), dtype=BAR)
    present = np.zeros((minutes, len(symbols)), dtype=bool)
    for row, symbol in enumerate(symbols):
        found = source.klines(symbol, start_ms, end_ms)
        where = (found["open_time"] - start_ms) // MINUTE_MS
        bars[where, row] = found
        present[where, row] = True
    funding = tuple(read_funding(source, symbol, start_ms, end_ms) for symbol in symbols)
    return Chunk(start_ms, bars, present, funding)


class Tape:
    """Minutes in order, the next chunk being read while the present one plays."""

    def __init__(self, source: BarSource, symbols: tuple[str, ...], reader: Reader, end_ms: int | None) -> None:
        self._source, self._symbols, self._reader, self._end_ms = source, symbols, reader, end_ms
        self._chunk: Chunk | None = None
        self._next: asyncio.Task[Chunk] | None = None

    async def chunk(self, minute: int) -> Chunk:
        """The chunk that holds `minute`; minutes are asked for in ascending order."""
        chunk = self._chunk
        if chunk is None or not chunk.start_ms <= minute < chunk.end_ms:
            chunk = await (self._next if self._next is not None else self._read(minute))
            self._chunk, self._next = chunk, None
            if self._end_ms is None or chunk.end_ms < self._end_ms:
                self._next = asyncio.create_task(self._read(chunk.end_ms))
        return chunk

    async def _read(self, start_ms: int) -> Chunk:
        end_ms = start_ms + CHUNK_MINUTES * MINUTE_MS
        if self._end_ms is not None:
            end_ms = min(end_ms, self._end_ms)
        return await self._reader(read_chunk, self._source, self._symbols, start_ms, end_ms)

    async def close(self) -> None:
        """Stop reading ahead."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None


@dataclass(frozen=True)
class Listing:
    """What the exchange knows of a symbol: its recording [start, end), its price's decimals, a price it has had."""

    start_ms: int
    end_ms: int
    price_decimals: int
    price: float


def read_listings(source: BarSource, start_ms: int) -> dict[str, Listing]:
    """The symbols of `source` that have bars. The price is looked at before `start_ms`, else at the first bars."""
    found = {}
    for symbol in source.symbols():
        covered = source.coverage(symbol)
        if covered is None:
            continue
        sample = source.klines(symbol, start_ms - PRICE_SAMPLE_MINUTES * MINUTE_MS, start_ms)
        if sample.size == 0:
            sample = source.klines(symbol, covered[0], covered[0] + PRICE_SAMPLE_MINUTES * MINUTE_MS)
        price = float(sample["close"][-1]) if sample.size else 1.0
        found[symbol] = Listing(*covered, _decimals_of(sample["close"]), price)
    return found


class Past:
    """What REST may tell at a given time. `now_ms` is always the simulated clock's."""

    def __init__(self, source: BarSource, reader: Reader, listings: Mapping[str, Listing], faults: Faults) -> None:
        self._source, self._reader, self._listings, self._faults = source, reader, listings, faults

    async def klines(
        self, symbol: str, interval: str, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int
    ) -> Bars:
        """As the venue pages: from `start_ms` on, else the last up to `end_ms`; the still-open bar may be the last."""
        return await self._reader(self._klines, symbol, interval, start_ms, end_ms, limit, now_ms)

    async def minutes(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The 1m bars in [start_ms, end_ms); the caller has seen `end_ms` pass."""
        return await self._reader(self._minutes, symbol, start_ms, end_ms)

    async def funding(self, symbol: str, start_ms: int, end_ms: int, now_ms: int) -> list[tuple[int, float]]:
        """Times and rates of the fundings in [start_ms, end_ms] that have happened."""
        found = await self._reader(self._source.funding, symbol, start_ms, min(end_ms, now_ms) + 1)
        return list(zip(found["funding_time"].tolist(), found["funding_rate"].tolist(), strict=True))

    async def premium(self, symbol: str, now_ms: int) -> tuple[float, float, int]:
        """The last price (NaN before the first trade), the last funding rate (NaN if none), the next funding time."""
        return await self._reader(self._premium, symbol, now_ms)

    def _klines(
        self, symbol: str, interval: str, start_ms: int | None, end_ms: int | None, limit: int, now_ms: int
    ) -> Bars:
        step = interval_ms(interval)
        open_bucket = now_ms // step * step
        first = self._listings[symbol].start_ms // step * step
        last = open_bucket if end_ms is None else min(end_ms // step * step, open_bucket)
        stop = min(last + step, open_bucket)  # closed bars lie in [.., stop)
        tail = self._open_bar(symbol, step, now_ms) if last == open_bucket else empty()
        if start_ms is None:
            closed = self._backward(symbol, interval, first, stop, limit - tail.size)
        else:
            closed = self._forward(symbol, interval, max(first, -(-start_ms // step) * step), stop, limit)
            if start_ms > open_bucket or closed.size == limit:
                tail = empty()
        return np.concatenate([closed, tail]) if tail.size else closed

    def _forward(self, symbol: str, interval: str, start: int, stop: int, limit: int) -> Bars:
        """The first `limit` closed bars in [start, stop)."""
        step = interval_ms(interval)
        parts, count = [empty()], 0
        while start < stop and count < limit:
            end = min(stop, start + (limit - count) * step)
            parts.append(self._closed(symbol, interval, start, end))
            count, start = count + parts[-1].size, end
        return np.concatenate(parts)

    def _backward(self, symbol: str, interval: str, start: int, stop: int, limit: int) -> Bars:
        """The last `limit` closed bars in [start, stop)."""
        step = interval_ms(interval)
        parts, count = [empty()], 0
        while start < stop and count < limit:
            begin = max(start, stop - (limit - count) * step)
            parts.append(self._closed(symbol, interval, begin, stop))
            count, stop = count + parts[-1].size, begin
        return np.concatenate(parts[::-1])

    def _closed(self, symbol: str, interval: str, start: int, stop: int) -> Bars:
        minutes = self._minutes(symbol, start, stop)
        return minutes if interval == "1m" else resample(minutes, interval)

    def _minutes(self, symbol: str, start: int, stop: int) -> Bars:
        return self._faults.visible(symbol, self._source.klines(symbol, start, stop))

    def _open_bar(self, symbol: str, step: int, now_ms: int) -> Bars:
        bucket, minute = now_ms // step * step, now_ms // MINUTE_MS * MINUTE_MS
        bars = self._minutes(symbol, bucket, minute + MINUTE_MS)
        if bars.size == 0:
            return empty()
        if int(bars["open_time"][-1]) == minute:
            digits = np.array([self._listings[symbol].price_decimals])
            bars = np.concatenate([bars[:-1], so_far(bars[-1:], (now_ms - minute) / MINUTE_MS, digits)])
        return fold(bars, bucket, step)

    def _premium(self, symbol: str, now_ms: int) -> tuple[float, float, int]:
        rate, next_time = read_funding(self._source, symbol, now_ms, now_ms).at(now_ms)
        bars = self._klines(symbol, "1m", None, None, 1, now_ms)
        return float(bars["close"][-1]) if bars.size else float("nan"), rate, next_time


def _decimals_of(prices: NDArray[np.float64]) -> int:
    """How many decimals the prices are quoted with. Prices off any grid get about six significant digits."""
    if prices.size == 0:
        return 2
    text = [item.removesuffix(".0") for item in decimals(prices) if item != MISSING]
    found = max((len(item.partition(".")[2]) for item in text), default=2)
    if found <= MAX_DECIMALS:
        return found
    return int(np.clip(5 - np.floor(np.log10(float(prices[-1]))), 0, MAX_DECIMALS))
