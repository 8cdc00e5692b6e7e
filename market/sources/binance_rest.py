"""The venue's REST interface as a source of bars."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import aiohttp

from market.bars import MINUTE_MS, Bars
from market.binance.errors import RequestInvalid
from market.binance.rate_limit import Priority, budget_for
from market.binance.rest import ExchangeInfo, MarketDataClient
from market.errors import UnknownSymbol
from market.funding import Fundings

T = TypeVar("T")

INVALID_SYMBOL = -1121


class BinanceRestSource:
    """A `BarSource` over `MarketDataClient`, for callers that are not asynchronous.

    Every call has an event loop and a connection of its own, on a thread of its own: it works inside a running loop
    and in forked processes, and leaves nothing open. It spends from the budget of this address, after everybody else.
    Errors are those of `market.binance.errors`.

    Parameters
    ----------
    base_url: `https://fapi.binance.com`, or a simulator's `url`.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._budget = budget_for(base_url)
        self._known: dict[str, int] | None = None

    @property
    def name(self) -> str:
        """`rest(URL)`."""
        return f"rest({self.base_url})"

    def symbols(self) -> tuple[str, ...]:
        """The USDT perpetual contracts that were trading when this was first asked."""
        return tuple(self._listed())

    def now_ms(self) -> int:
        """The venue's time."""
        return self._call(lambda client: client.server_time())

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """From the first full minute after its listing to the venue's present minute."""
        if symbol not in self._listed():
            raise UnknownSymbol(symbol, self.name)
        start = -(-self._listed()[symbol] // MINUTE_MS) * MINUTE_MS
        end = self.now_ms() // MINUTE_MS * MINUTE_MS
        return (start, end) if start < end else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The closed 1m bars with open_time in [start_ms, end_ms); `UnknownSymbol` if the venue lists it no more."""
        return self._of(symbol, lambda client: client.klines(symbol, "1m", start_ms, end_ms))

    def daily(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The closed 1d bars with open_time in [start_ms, end_ms); `UnknownSymbol` if the venue does not trade it.

        Many symbols of the archive are gone: the venue is asked for none of them.
        """
        if symbol not in self._listed():
            raise UnknownSymbol(symbol, self.name)
        return self._of(symbol, lambda client: client.klines(symbol, "1d", start_ms, end_ms))

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The fundings charged in [start_ms, end_ms); `UnknownSymbol` as in `klines`."""
        return self._of(symbol, lambda client: client.funding_rates(symbol, start_ms, end_ms))

    def _of(self, symbol: str, read: Callable[[MarketDataClient], Awaitable[T]]) -> T:
        try:
            return self._call(read)
        except RequestInvalid as error:
            if error.code != INVALID_SYMBOL:
                raise
            raise UnknownSymbol(symbol, self.name) from error

    def _listed(self) -> dict[str, int]:
        """Tradable symbols and their listing times."""
        if self._known is None:
            info: ExchangeInfo = self._call(lambda client: client.exchange_info())
            self._known = {each.symbol: each.onboard_date for each in info.symbols if each.tradable}
        return self._known

    def _call(self, read: Callable[[MarketDataClient], Awaitable[T]]) -> T:
        async def run() -> T:
            async with aiohttp.ClientSession() as session:
                client = MarketDataClient(self.base_url, session, budget=self._budget, priority=Priority.BACKFILL)
                return await read(client)

        with ThreadPoolExecutor(1, thread_name_prefix="binance-rest") as thread:
            return thread.submit(asyncio.run, run()).result()
