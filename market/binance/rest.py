"""The venue's public market data over REST."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Any, TypeVar

import aiohttp
import msgspec
import numpy as np

from market import bars as bars_module
from market import funding as funding_module
from market.bars import Bars, from_columns, interval_ms
from market.binance import costs
from market.binance.breaker import Breaker, Kind
from market.binance.errors import AnswerInvalid
from market.binance.rate_limit import MINUTE_WEIGHT, ORDERS_1M, ORDERS_10S, Cost, Priority, RateBudget
from market.binance.transport import (
    DEFAULT_ATTEMPTS,
    DEFAULT_BACKOFF_S,
    DEFAULT_TIMEOUT_S,
    Call,
    Sleep,
    Transport,
)
from market.funding import Fundings

MAX_KLINES = 1500
MAX_FUNDINGS = 1000

T = TypeVar("T")

# Numbers come as strings; the decoder reads them as float64. Only the count of trades may be null.
_Row = tuple[int, float, float, float, float, float, int, float, float | None, float, float, Any]
_COLUMNS = {1: "open", 2: "high", 3: "low", 4: "close", 5: "volume", 7: "quote_volume", 8: "trades"} | {
    9: "taker_buy_base",
    10: "taker_buy_quote",
}


class SymbolInfo(msgspec.Struct, frozen=True, rename="camel"):
    """One contract of exchangeInfo. `filters` are the venue's trading rules as they come, unknown kinds included."""

    symbol: str
    status: str
    contract_type: str = ""
    base_asset: str = ""
    quote_asset: str = ""
    onboard_date: int = 0
    delivery_date: int = 0
    price_precision: int = 0
    quantity_precision: int = 0
    filters: tuple[dict[str, Any], ...] = ()

    @property
    def tradable(self) -> bool:
        """Whether it is a USDT perpetual contract in trading."""
        return self.contract_type == "PERPETUAL" and self.status == "TRADING" and self.quote_asset == "USDT"


class RateLimit(msgspec.Struct, frozen=True, rename="camel"):
    """One of the venue's limits: so many in `interval_num` times `interval` (SECOND, MINUTE, …)."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class ExchangeInfo(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of exchangeInfo. The venue's `serverTime` in it may be stale and is left out."""

    symbols: tuple[SymbolInfo, ...]
    rate_limits: tuple[RateLimit, ...] = ()

    def limit(self, kind: str, interval: str, count: int, default: int) -> int:
        """A limit by its type and interval, `default` if the venue does not tell a sensible one."""
        for each in self.rate_limits:
            if (each.rate_limit_type, each.interval, each.interval_num) == (kind, interval, count):
                return each.limit if each.limit > 0 else default
        return default


class PremiumIndex(msgspec.Struct, frozen=True):
    """Mark price and funding of one symbol; `funding_rate` is NaN where the venue has none."""

    symbol: str
    mark_price: float
    index_price: float
    funding_rate: float
    next_funding_time: int
    time: int


class _Funding(msgspec.Struct, rename="camel"):
    symbol: str
    funding_time: int
    funding_rate: float


class _Premium(msgspec.Struct, rename="camel"):
    symbol: str
    mark_price: float
    index_price: float
    last_funding_rate: str
    next_funding_time: int
    time: int


class MarketDataClient:
    """Reads public market data; every read is repeated, with growing pauses, while that can help.

    Parameters
    ----------
    base_url: `https://fapi.binance.com`, or a simulator's `url`.
    session: the caller's, who closes it.
    attempts: how often a read is sent at most.
    backoff_s: the first pause; it doubles each time.
    timeout_s: how long one attempt may take.
    sleep: how to pause.
    budget: what this address may send; None counts nothing.
    breaker: holds reads back when too many fail; None never does.
    priority: how urgent these reads are.

    Raises `BinanceError` subclasses, which say what to do.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        *,
        attempts: int = DEFAULT_ATTEMPTS,
        backoff_s: float = DEFAULT_BACKOFF_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        sleep: Sleep = asyncio.sleep,
        budget: RateBudget | None = None,
        breaker: Breaker | None = None,
        priority: Priority = Priority.LIVE_DATA,
    ) -> None:
        self.transport = Transport(
            base_url,
            session,
            budget=budget,
            breaker=breaker,
            attempts=attempts,
            backoff_s=backoff_s,
            timeout_s=timeout_s,
            sleep=sleep,
        )
        self._session = session
        self._budget = budget
        self._priority = priority

    @property
    def base_url(self) -> str:
        """Where it asks."""
        return self.transport.base_url

    @property
    def used_weight(self) -> int | None:
        """Weight used in the present minute, as the venue last told."""
        return self.transport.used_weight

    async def server_time(self) -> int:
        """The venue's time, ms UTC."""
        return await self.transport.server_time()

    async def exchange_info(self) -> ExchangeInfo:
        """All contracts and their rules. The limits that it tells are from then on those of the budget."""
        info = await self._get("/fapi/v1/exchangeInfo", {}, ExchangeInfo)
        if self._budget is not None:
            self._budget.set_limits(
                info.limit("REQUEST_WEIGHT", "MINUTE", 1, MINUTE_WEIGHT),
                info.limit("ORDERS", "SECOND", 10, ORDERS_10S),
                info.limit("ORDERS", "MINUTE", 1, ORDERS_1M),
            )
        return info

    async def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        """The closed bars with open_time in [start_ms, end_ms), ascending; never the one that is still open.

        What counts as closed is decided by the venue's time before the first page is asked for.
        """
        step = interval_ms(interval)
        stop = min(end_ms, await self.server_time() // step * step)
        start = -(-start_ms // step) * step
        pages = []
        while start < stop:
            limit = min(MAX_KLINES, -(-(stop - start) // step))
            parameters = {"symbol": symbol, "interval": interval} | _times(start, stop, limit)
            rows = await self._get("/fapi/v1/klines", parameters, list[_Row], costs.klines(limit))
            if not rows:
                break
            pages.append(_bars(symbol, interval, rows, start, stop))
            start = rows[-1][0] + step
        return np.concatenate(pages) if pages else bars_module.empty()

    async def funding_rates(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The fundings of `symbol` charged in [start_ms, end_ms), ascending."""
        times: list[int] = []
        rates: list[float] = []
        while start_ms < end_ms:
            parameters = {"symbol": symbol} | _times(start_ms, end_ms, MAX_FUNDINGS)
            rows = await self._get("/fapi/v1/fundingRate", parameters, list[_Funding], costs.FUNDING)
            if not all(isfinite(row.funding_rate) for row in rows):
                raise AnswerInvalid("/fapi/v1/fundingRate", f"a rate of {symbol} is not a number")
            if not all(start_ms <= row.funding_time < end_ms for row in rows):
                raise AnswerInvalid("/fapi/v1/fundingRate", f"a time of {symbol} is not among those asked for")
            times += [row.funding_time for row in rows]
            rates += [row.funding_rate for row in rows]
            if len(rows) < MAX_FUNDINGS:
                break
            if times[-1] < start_ms:
                raise AnswerInvalid("/fapi/v1/fundingRate", f"a page of {symbol} does not go on in time")
            start_ms = times[-1] + 1
        return funding_module.from_columns(times, rates)

    async def premium_index(self) -> dict[str, PremiumIndex]:
        """Mark price and funding of every symbol."""
        rows = await self._get("/fapi/v1/premiumIndex", {}, list[_Premium], costs.PREMIUM_OF_ALL)
        found = {}
        for row in rows:
            try:
                rate = float(row.last_funding_rate) if row.last_funding_rate else float("nan")
            except ValueError as error:
                raise AnswerInvalid("/fapi/v1/premiumIndex", str(error)) from error
            prices = row.mark_price, row.index_price
            found[row.symbol] = PremiumIndex(row.symbol, *prices, rate, row.next_funding_time, row.time)
        return found

    async def _get(self, path: str, parameters: Mapping[str, str], kind: type[T], cost: Cost = costs.ONE) -> T:
        call = Call("GET", path, parameters, kind=Kind.MARKET_DATA, priority=self._priority, cost=cost)
        return await self.transport.ask(call, kind)


def _times(start_ms: int, end_ms: int, limit: int) -> dict[str, str]:
    """The parameters for [start_ms, end_ms); the venue's endTime is inclusive."""
    return {"startTime": str(start_ms), "endTime": str(end_ms - 1), "limit": str(limit)}


def _bars(symbol: str, interval: str, rows: list[_Row], start_ms: int, end_ms: int) -> Bars:
    """Rows as bars, after checking that they are bars of that interval, in order and in [start_ms, end_ms)."""
    step = interval_ms(interval)
    times = [row[0] for row in rows]
    ascending = all(earlier < later for earlier, later in pairwise(times))
    if not ascending or times[0] < start_ms or times[-1] >= end_ms:
        raise AnswerInvalid("/fapi/v1/klines", f"the open times of {symbol} are not those that were asked for")
    if any(row[0] % step or row[6] != row[0] + step - 1 for row in rows):
        raise AnswerInvalid("/fapi/v1/klines", f"a bar of {symbol} is not {interval} long")
    columns: dict[str, Any] = {name: [row[index] for row in rows] for index, name in _COLUMNS.items()}
    return from_columns(columns | {"open_time": times}, interval)
