"""The venue's public REST routes over what has happened by the simulated clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from market.bars import INTERVAL_MS
from market.simulator.clock import SimulatedClock
from market.simulator.delistings import WINDOW_MS
from market.simulator.exchange_info import DELIVERY_MS, exchange_info, symbol_info
from market.simulator.parameters import Parameters
from market.simulator.replies import Handler, answer
from market.simulator.signed import VenueTime
from market.simulator.tape import Listing, Past
from market.simulator.text import decimals, kline_rows
from market.simulator.trading import Trading
from market.simulator.venue.events import plain
from market.simulator.venue.refusals import Refusal, missing

MAX_KLINES, DEFAULT_KLINES = 1500, 500
MAX_FUNDING, DEFAULT_FUNDING = 1000, 100


def kline_weight(limit: int) -> int:
    """What a kline request costs.

    >>> [kline_weight(limit) for limit in (1, 100, 500, 1000, 1500)]
    [1, 2, 5, 5, 10]
    """
    return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


class Rest:
    """Handlers of `/fapi/v1/…`."""

    def __init__(
        self,
        listings: Mapping[str, Listing],
        past: Past,
        clock: SimulatedClock,
        time: VenueTime,
        trading: Trading,
    ) -> None:
        self._listings, self._past, self._clock, self._time = listings, past, clock, time
        self._trading = trading

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to an application."""
        handlers: dict[str, Handler] = {
            "ping": self.ping,
            "time": self.time,
            "exchangeInfo": self.exchange_info,
            "klines": self.klines,
            "continuousKlines": self.klines,
            "indexPriceKlines": self.klines,
            "markPriceKlines": self.klines,
            "fundingRate": self.funding_rate,
            "premiumIndex": self.premium_index,
        }
        return [web.get(f"/fapi/v1/{name}", handler) for name, handler in handlers.items()]

    async def ping(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/ping`."""
        return answer(b"{}")

    async def time(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/time`."""
        return answer({"serverTime": self._time.now()})

    async def exchange_info(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/exchangeInfo`: symbols listed by now.

        Those whose recording has ended are SETTLING and stay so; the end is told from half an hour before it.
        """
        now, ends = self._clock.now_ms, self._trading.delistings.ends
        rows = []
        for symbol in self._listed(now):
            listing, end_ms = self._listings[symbol], ends.get(symbol, DELIVERY_MS)
            status = "SETTLING" if end_ms <= now else "TRADING"
            told = end_ms if end_ms - WINDOW_MS < now else DELIVERY_MS
            rows.append(symbol_info(symbol, listing.price, listing.price_decimals, listing.start_ms, status, told))
        return answer(exchange_info(now, rows))

    async def klines(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/klines`; the same bars under the names of mark, index and continuous klines."""
        now = self._clock.now_ms
        symbol = self._symbol(request, now)
        interval = request.query.get("interval", "")
        if not interval:
            raise missing("interval")
        if interval not in INTERVAL_MS:
            raise Refusal(-1120, "Invalid interval.")
        asked = Parameters(request.query)
        start, end = asked.time_range()
        limit = asked.limit(DEFAULT_KLINES, MAX_KLINES)
        bars = await self._past.klines(symbol, interval, start, end, limit, now)
        return answer(kline_rows(bars), kline_weight(limit))

    async def funding_rate(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/fundingRate`: ascending; from startTime on, else the most recent; without mark price."""
        now = self._clock.now_ms
        symbols = (self._symbol(request, now),) if request.query.get("symbol") else self._listed(now)
        asked = Parameters(request.query)
        start, end = asked.time_range()
        limit = asked.limit(DEFAULT_FUNDING, MAX_FUNDING)
        found: list[tuple[int, str, float]] = []
        for symbol in symbols:
            since = self._listings[symbol].start_ms if start is None else start
            rows = await self._past.funding(symbol, since, now if end is None else end, now)
            found += [(time, symbol, rate) for time, rate in rows]
        found.sort()
        found = found[-limit:] if start is None else found[:limit]
        rates = decimals([rate for _, _, rate in found])
        return answer(
            [
                {"symbol": symbol, "fundingTime": time, "fundingRate": rate, "markPrice": ""}
                for (time, symbol, _), rate in zip(found, rates, strict=True)
            ]
        )

    async def premium_index(self, request: web.Request) -> web.StreamResponse:
        """`GET /fapi/v1/premiumIndex`, of one symbol or all. The funding rate is the last one that was settled."""
        now = self._clock.now_ms
        if request.query.get("symbol"):
            return answer(await self._premium(self._symbol(request, now), now))
        every = await asyncio.gather(*(self._premium(symbol, now) for symbol in self._listed(now)))
        return answer(every, weight=10)

    async def _premium(self, symbol: str, now: int) -> dict[str, Any]:
        price, rate, next_time = await self._past.premium(symbol, now)
        text = "0" if math.isnan(price) else decimals([price])[0]
        mark = self._trading.mark_apart(symbol, price, now)
        return {
            "symbol": symbol,
            "markPrice": text if mark is None else plain(mark),
            "indexPrice": text,
            "estimatedSettlePrice": text,
            "lastFundingRate": "" if math.isnan(rate) else decimals([rate])[0],
            "interestRate": "0.0001",
            "nextFundingTime": next_time,
            "time": now,
        }

    def _listed(self, now: int) -> tuple[str, ...]:
        return tuple(symbol for symbol, listing in self._listings.items() if listing.start_ms <= now)

    def _symbol(self, request: web.Request, now: int) -> str:
        name = "pair" if request.path.endswith(("continuousKlines", "indexPriceKlines")) else "symbol"
        symbol = Parameters(request.query).text(name)
        if symbol not in self._listed(now):
            raise Refusal(-1121, "Invalid symbol.")
        return symbol
