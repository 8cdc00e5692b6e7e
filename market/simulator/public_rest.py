"""Public REST routes that follow the last price: tickers, order book, trades; and klines under their other names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.simulator.book import rows
from market.simulator.clock import SimulatedClock
from market.simulator.day import DAY_MINUTES, day_numbers
from market.simulator.parameters import Parameters
from market.simulator.replies import Handler, answer
from market.simulator.tape import Listing, Past
from market.simulator.text import decimals
from market.simulator.ticks import Ticks
from market.simulator.trading import Trading
from market.simulator.venue.events import plain
from market.simulator.venue.refusals import Refusal, invalid

DEPTH_WEIGHTS = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
USUAL_FUNDING_HOURS = 8


class PublicRest:
    """Handlers of `/fapi/…`. Every request first brings the venue to the present time."""

    def __init__(
        self, listings: Mapping[str, Listing], past: Past, clock: SimulatedClock, trading: Trading, ticks: Ticks
    ) -> None:
        self._listings, self._past, self._clock = listings, past, clock
        self._trading, self._ticks = trading, ticks

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to an application."""
        handlers: dict[str, Handler] = {
            "v1/depth": self.depth,
            "v1/trades": self.trades,
            "v1/aggTrades": self.aggregate_trades,
            "v1/ticker/price": self.price,
            "v2/ticker/price": self.price,
            "v1/ticker/bookTicker": self.best,
            "v1/ticker/24hr": self.day,
            "v1/openInterest": self.open_interest,
            "v1/fundingInfo": self.funding_info,
        }
        return [web.get(f"/fapi/{path}", handler) for path, handler in handlers.items()]

    async def depth(self, request: web.Request) -> web.StreamResponse:
        """`GET depth`: the book as the streams told it last, twenty levels at most."""
        limit = Parameters(request.query).integer("limit") or 500
        if limit not in DEPTH_WEIGHTS:
            raise invalid("limit")
        symbol = self._symbol(request)
        book = self._ticks.book(symbol)
        times = {"E": self._trading.venue.now_ms, "T": self._trading.venue.now_ms}
        sides = {"bids": rows(book.bids, limit), "asks": rows(book.asks, limit)}
        return answer({"lastUpdateId": book.update_id, **times, **sides}, DEPTH_WEIGHTS[limit])

    async def trades(self, request: web.Request) -> web.StreamResponse:
        """`GET trades`: one for each minute, at its close."""
        bars, now_ms = await self._minutes(request, 500), self._clock.now_ms
        found = [
            {
                "id": min(int(bar["close_time"]), now_ms),
                "price": price,
                "qty": quantity,
                "quoteQty": quote,
                "time": min(int(bar["close_time"]), now_ms),
                "isBuyerMaker": False,
            }
            for bar, price, quantity, quote in zip(bars, *_texts(bars, "close", "volume", "quote_volume"), strict=True)
        ]
        return answer(found, weight=5)

    async def aggregate_trades(self, request: web.Request) -> web.StreamResponse:
        """`GET aggTrades`: one for each minute, at its close."""
        bars = await self._minutes(request, 500)
        found = []
        for bar, price, quantity in zip(bars, *_texts(bars, "close", "volume"), strict=True):
            time_ms = min(int(bar["close_time"]), self._clock.now_ms)
            ids = {"a": time_ms, "f": time_ms, "l": time_ms, "T": time_ms}
            found.append({**ids, "p": price, "q": quantity, "nq": quantity, "m": False})
        return answer(found, weight=20)

    async def price(self, request: web.Request) -> web.StreamResponse:
        """`GET ticker/price`, of one symbol or all."""
        symbols = self._symbols(request)
        now_ms = self._trading.venue.now_ms
        found = [
            {"symbol": symbol, "price": plain(self._trading.last(symbol).last), "time": now_ms} for symbol in symbols
        ]
        return answer(found[0] if request.query.get("symbol") else found, 1 if request.query.get("symbol") else 2)

    async def best(self, request: web.Request) -> web.StreamResponse:
        """`GET ticker/bookTicker`, of one symbol or all."""
        found = []
        for symbol in self._symbols(request):
            book = self._ticks.book(symbol)
            bid, ask = rows(book.bids, 1)[0], rows(book.asks, 1)[0]
            prices = {"bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1]}
            found.append({"symbol": symbol, **prices, "time": book.update_id, "lastUpdateId": book.update_id})
        return answer(found[0] if request.query.get("symbol") else found, 2 if request.query.get("symbol") else 5)

    async def day(self, request: web.Request) -> web.StreamResponse:
        """`GET ticker/24hr`, of one symbol or all."""
        symbols = self._symbols(request)
        every = await asyncio.gather(*(self._day(symbol) for symbol in symbols))
        found = [row for row in every if row is not None]
        if request.query.get("symbol"):
            if not found:
                raise Refusal(-1122)
            return answer(found[0])
        return answer(found, weight=40)

    async def _day(self, symbol: str) -> dict[str, Any] | None:
        now_ms = self._clock.now_ms
        since = now_ms // MINUTE_MS * MINUTE_MS - DAY_MS + MINUTE_MS
        bars = await self._past.klines(symbol, "1m", since, None, DAY_MINUTES, now_ms)
        if not bars.size:
            return None
        day = day_numbers(bars)
        return {
            "symbol": symbol,
            "priceChange": day.change,
            "priceChangePercent": day.percent,
            "weightedAvgPrice": day.mean,
            "lastPrice": day.last,
            "lastQty": day.last_quantity,
            "openPrice": day.open,
            "highPrice": day.high,
            "lowPrice": day.low,
            "volume": day.volume,
            "quoteVolume": day.quote_volume,
            "openTime": day.open_time,
            "closeTime": now_ms,
            "firstId": 0,
            "lastId": max(0, day.trades - 1),
            "count": day.trades,
        }

    async def open_interest(self, request: web.Request) -> web.StreamResponse:
        """`GET openInterest`: what the accounts hold, long and short together halved."""
        symbol = self._symbol(request)
        held = sum(
            abs(position.quantity)
            for account in self._trading.venue.state.accounts.values()
            for position in account.held_positions()
            if position.symbol == symbol
        )
        return answer({"symbol": symbol, "openInterest": f"{held}", "time": self._trading.venue.now_ms})

    async def funding_info(self, request: web.Request) -> web.StreamResponse:
        """`GET fundingInfo`: symbols whose last interval was not eight hours."""
        now_ms, found = self._clock.now_ms, []
        for symbol in self._symbols(request):
            times = [time for time, _ in await self._past.funding(symbol, now_ms - 3 * DAY_MS, now_ms, now_ms)]
            hours = round((times[-1] - times[-2]) / 3_600_000) if len(times) > 1 else USUAL_FUNDING_HOURS
            if hours != USUAL_FUNDING_HOURS:
                caps = {"adjustedFundingRateCap": "0.02", "adjustedFundingRateFloor": "-0.02"}
                found.append({"symbol": symbol, **caps, "fundingIntervalHours": hours, "disclaimer": False})
        return answer(found, weight=0)

    async def _minutes(self, request: web.Request, default: int) -> Bars:
        limit = Parameters(request.query).limit(default, 1000)
        symbol = self._symbol(request)
        return await self._past.klines(symbol, "1m", None, None, limit, self._clock.now_ms)

    def _symbols(self, request: web.Request) -> tuple[str, ...]:
        if request.query.get("symbol"):
            return (self._symbol(request),)
        now_ms = self._clock.now_ms
        self._trading.advance(now_ms)
        return tuple(symbol for symbol, listing in self._listings.items() if listing.start_ms <= now_ms)

    def _symbol(self, request: web.Request) -> str:
        symbol, now_ms = Parameters(request.query).text("symbol"), self._clock.now_ms
        if symbol not in self._listings or self._listings[symbol].start_ms > now_ms:
            raise Refusal(-1121)
        self._trading.advance(now_ms)
        return symbol


def _texts(bars: Bars, *names: str) -> list[list[str]]:
    return [decimals(bars[name]) for name in names]
