"""What the worker asks the venue's REST in one go: bars that are possible only, fundings, the time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from market.bars import Bars
from market.binance.rest import MarketDataClient
from market.funding import Fundings
from trading_worker.shell.rejections import Rejections

Fetch = Callable[[str, int, int], Awaitable[Bars]]
"""Closed and possible 1m bars of a symbol with open time in [start, end); a `MarketError` when the venue cannot be
asked."""


class Venue:
    """The questions of the worker, over a client that knows how often and when to try. Raises `BinanceError`.

    Stretches of bars, for a start or a second feature state, come through here, and none that is not a possible kline
    goes on: `rejections` takes it. What is missing in the stream its own feed asks for.
    """

    def __init__(self, client: MarketDataClient, rejections: Rejections) -> None:
        self.client = client
        self.rejections = rejections

    async def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """Closed 1m bars with open time in [start_ms, end_ms), without those that are refused."""
        return self.rejections.possible(symbol, await self.client.klines(symbol, "1m", start_ms, end_ms))

    async def fundings(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """Fundings charged in [start_ms, end_ms)."""
        return await self.client.funding_rates(symbol, start_ms, end_ms)

    async def server_time(self) -> int:
        """The venue's time, ms UTC."""
        return await self.client.server_time()
