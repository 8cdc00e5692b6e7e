"""What the worker asks the venue's REST: bars that are possible only, and silence while it has banned this address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from market.bars import Bars
from market.binance.errors import IpBanned
from market.binance.rest import MarketDataClient
from market.funding import Fundings
from trading_worker.shell.rejections import Rejections

BAN_S = 120.0
"""How long to be silent when the venue does not say: its shortest ban."""

T = TypeVar("T")


class Ban:
    """Remembers a ban, so that nobody asks while it lasts: every request would make it longer.

    `seconds` is a monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._until = 0.0
        self._error: IpBanned | None = None

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to `question`, which is not put while a ban lasts: then the ban is raised again."""
        if self._error is not None and self._seconds() < self._until:
            raise self._error
        try:
            return await question()
        except IpBanned as error:
            self._error = error
            self._until = self._seconds() + (error.retry_after_s or BAN_S)
            raise


class Venue:
    """The questions of the worker, over a client that knows how often to try. Raises `BinanceError`.

    Every bar that the worker fetches comes through here, and none that is not a possible kline goes on:
    `rejections` takes it.
    """

    def __init__(self, client: MarketDataClient, ban: Ban, rejections: Rejections) -> None:
        self.client = client
        self.rejections = rejections
        self._ban = ban

    async def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """Closed 1m bars with open time in [start_ms, end_ms), without those that are refused."""
        bars = await self._ban.ask(lambda: self.client.klines(symbol, "1m", start_ms, end_ms))
        return self.rejections.possible(symbol, bars)

    async def fundings(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """Fundings charged in [start_ms, end_ms)."""
        return await self._ban.ask(lambda: self.client.funding_rates(symbol, start_ms, end_ms))

    async def server_time(self) -> int:
        """The venue's time, ms UTC."""
        return await self._ban.ask(self.client.server_time)
