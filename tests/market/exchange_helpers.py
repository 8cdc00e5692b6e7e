"""What the tests of the simulated exchange share: a source in memory and a client that takes everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import numpy as np

from market.bars import BAR, DAY_MS, MINUTE_MS, Bars, empty
from market.binance.streams import KlineEvent, parse
from market.errors import UnknownSymbol
from market.funding import Fundings, between
from market.funding import empty as no_fundings
from market.simulator.server import Simulator
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

START = DEFAULT_START_MS + DAY_MS
"""Where the tests' exchanges begin: a day after their market."""

MARKET = SyntheticMarket(seed=11, symbols=("BTCUSDT", "ETHUSDT", "DOGEUSDT"))


class MemorySource:
    """A `BarSource` over arrays."""

    name = "memory"

    def __init__(self, bars: Mapping[str, Bars], fundings: Mapping[str, Fundings] | None = None) -> None:
        self._bars, self._fundings = dict(bars), dict(fundings or {})

    def symbols(self) -> tuple[str, ...]:
        return tuple(self._bars)

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        bars = self._bars[symbol]
        return (int(bars["open_time"][0]), int(bars["open_time"][-1]) + MINUTE_MS) if bars.size else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        if symbol not in self._bars:
            raise UnknownSymbol(symbol, self.name)
        bars = self._bars[symbol]
        found = bars[(bars["open_time"] >= start_ms) & (bars["open_time"] < end_ms)]
        return found.copy() if found.size else empty()

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        return between(self._fundings.get(symbol, no_fundings()), start_ms, end_ms)


def cut(start_ms: int, end_ms: int, market: SyntheticMarket = MARKET) -> MemorySource:
    """A recording of the synthetic market in [start_ms, end_ms)."""
    return MemorySource(
        {symbol: market.klines(symbol, start_ms, end_ms) for symbol in market.symbols()},
        {symbol: market.funding(symbol, start_ms, end_ms) for symbol in market.symbols()},
    )


class Taken(list[str]):
    """Messages a client has taken so far; `socket` is its connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()

    async def ask(self, message: str) -> str:
        """Send a control message; the next message that arrives, which is its answer while the clock stands."""
        have = len(self)
        await self.socket.send_str(message)
        while len(self) == have:
            self.arrived.clear()
            await self.arrived.wait()
        return self[have]


@asynccontextmanager
async def taking(url: str) -> AsyncIterator[Taken]:
    """A client that takes every message of `url` in order.

    The exchange's clock waits for it, so what `step` has played is in the list when `step` returns.
    """
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        taken = Taken(socket)

        async def read() -> None:
            async for message in socket:
                taken.append(message.data)
                taken.arrived.set()
            taken.ended.set()

        reader = asyncio.create_task(read())
        try:
            yield taken
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader


def stacked(bars: list[np.void]) -> Bars:
    """Single bars as an array."""
    return np.array([bar.item() for bar in bars], dtype=BAR)


async def get(url: str, **parameters: Any) -> Any:
    """The JSON answer of a GET."""
    async with aiohttp.ClientSession() as session, session.get(url, params=parameters) as response:
        return await response.json()


async def post(url: str, body: dict[str, Any]) -> Any:
    """The JSON answer of a POST."""
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as response:
        return await response.json()


def klines_of(taken: Taken) -> list[KlineEvent]:
    """The kline events among the messages."""
    events = [parse(message) for message in taken]
    return [event for event in events if isinstance(event, KlineEvent)]


def closed_of(taken: Taken, symbol: str, interval: str = "1m") -> Bars:
    """The closed bars of a series among the messages, in the order they came."""
    chosen = [event for event in klines_of(taken) if event.closed and event.symbol == symbol]
    return stacked([event.bar for event in chosen if event.interval == interval])


def same(left: Bars, right: Bars) -> None:
    """Equal to the last bit, NaN included."""
    assert left.dtype == right.dtype
    assert left.tobytes() == right.tobytes()


async def status(simulator: Simulator, state: str) -> dict[str, Any]:
    """The clock's status once it is in `state`."""
    while True:
        found: dict[str, Any] = await get(simulator.url + "/simulator/clock")
        if found["state"] == state:
            return found
