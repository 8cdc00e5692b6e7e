"""Our own client's streams: rows of the matrix."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from matrix import OWN_DOOMED_KEY, SYMBOL, Matrix, expect
from own import JITTER, LOT, Own, until, until_so

from market.bars import MINUTE_MS
from market.binance.bar_feed import BarFeed
from market.binance.bar_stream import BarStream
from market.binance.connection import Backoff, StreamConnection
from market.binance.order_book import OrderBook
from market.binance.orders import Direction
from market.binance.public_events import AggregatedTrade, BookTicker, DepthSnapshot, DepthUpdate, parse_public
from market.binance.streams import MarkPriceEvent, mark_price_stream, parse, stream_urls
from market.binance.user_stream import UserStream


class Desk:
    """A sink of bars that keeps the price that moves."""

    def __init__(self) -> None:
        self.moved: asyncio.Queue[Any] = asyncio.Queue()
        self.faults: list[Any] = []

    def moving(self, event: Any) -> None:
        """The price moves."""
        self.moved.put_nowait(event)

    def closed(self, bar: Any) -> None:
        """A bar has closed."""

    def revised(self, *what: Any) -> None:
        """Not to come."""
        self.faults.append(what)

    def absent(self, *what: Any) -> None:
        """Not to come."""
        self.faults.append(what)

    def rejected(self, error: Exception) -> None:
        """Not to come."""
        self.faults.append(error)


class Listener:
    """A consumer of the user stream that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.snapshots: list[Any] = []

    async def reconcile(self, snapshot: Any, reason: str) -> None:
        """The account as REST shows it."""
        self.snapshots.append(snapshot)

    async def event(self, event: Any) -> None:
        """The next event."""
        self.told.append(type(event).__name__)

    def rejected(self, error: Exception) -> None:
        """Not to come."""
        raise error


async def streams(m: Matrix, own: Own) -> None:
    """Market and user streams."""

    async def each(name: str, parse: Callable[[bytes], Any], take: Callable[[Any], bool]) -> None:
        """Hand events of one stream to `take` until it has enough."""
        events: asyncio.Queue[Any] = asyncio.Queue()

        async def handle(raw: bytes) -> None:
            events.put_nowait(parse(raw))

        (url,) = stream_urls(own.ws_url, [name])
        connection = StreamConnection(url, own.session, handle, lambda: None, lambda cause: None, Backoff(JITTER))
        running = asyncio.create_task(connection.run())
        try:
            while (event := await events.get()) is None or not take(event):
                pass
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def first(name: str, kind: type[Any], parse: Callable[[bytes], Any] = parse_public) -> Any:
        found: list[Any] = []
        await each(name, parse, lambda event: found.append(event) is None)
        expect(isinstance(found[0], kind) and found[0].symbol == SYMBOL, found)
        return found[0]

    async def klines() -> str:
        desk, now = Desk(), await own.data.server_time()
        feed = BarFeed({(SYMBOL, "1m"): now // MINUTE_MS * MINUTE_MS}, desk, venue_ms=now, seconds=time.monotonic)
        asked = {"fetch": own.data.klines, "server_time": own.data.server_time}
        bars = BarStream(own.ws_url, own.session, feed, **asked, jitter=JITTER, seconds=time.monotonic)
        running = asyncio.create_task(bars.run())
        try:
            found = [await desk.moved.get() for _ in range(3)]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        expect(all((event.symbol, event.interval) == (SYMBOL, "1m") for event in found), found)
        expect(not desk.faults, desk.faults)
        return f"{found[-1].price}"

    async def trades() -> str:
        return f"{(await first('btcusdt@aggTrade', AggregatedTrade)).price}"

    async def mark() -> str:
        return f"{(await first(mark_price_stream(SYMBOL), MarkPriceEvent, parse)).mark_price}"

    async def best() -> str:
        found = await first("btcusdt@bookTicker", BookTicker)
        expect(found.bid < found.ask, found)
        return f"{found.bid} / {found.ask}"

    async def books() -> str:
        told = set[str]()

        def take(event: Any) -> bool:
            told.add(event.symbol)
            return told == {"BTCUSDT", "ETHUSDT"}

        await each("!bookTicker", parse_public, take)
        return f"{len(told)} symbols"

    async def liquidations() -> str:
        doomed, found = Own(own.url, own.session, OWN_DOOMED_KEY), list[Any]()
        told = asyncio.create_task(each("btcusdt@forceOrder", parse_public, lambda event: found.append(event) is None))
        await asyncio.sleep(1.0)  # its subscription has to be there before
        await doomed.account.mode.refresh()
        brackets = await doomed.account.leverage_brackets()
        await doomed.account.set_leverage(SYMBOL, 50, brackets.clamp(SYMBOL, 50, Decimal(0)))
        await doomed.orders.place(doomed.order(quantity=2 * LOT))
        m.faults(mark={SYMBOL: "-0.09"})
        try:
            await told
        finally:
            m.faults(mark={SYMBOL: "0"})
        order = found[0].order
        expect((order.symbol, order.side, order.executed) == (SYMBOL, "SELL", 0.02), found)
        return f"{order.executed} at {order.average_price}"

    async def depth() -> str:
        found = await first("btcusdt@depth5@100ms", DepthUpdate)
        expect(len(found.bids) == len(found.asks) == 5, found)
        return f"update {found.last_id}"

    async def book() -> str:
        local, updates = OrderBook(), []

        def take(event: Any) -> bool:
            local.update(event)
            updates.append(event)
            return len(updates) >= 8 and local.best() is not None

        following = asyncio.create_task(each("btcusdt@depth@100ms", parse_public, take))
        await until_so(lambda: len(updates) >= 2)

        async def current() -> bool:
            return local.snapshot(await own.public("/fapi/v1/depth", DepthSnapshot, symbol=SYMBOL, limit=20))

        await until(current)
        await following
        found = local.best()
        expect(found is not None and found[0][0] < found[1][0] and local.breaks == 0, (found, local.breaks))
        return f"update {local.last_id}, {found}"

    async def user() -> str:
        listener = Listener()
        stream = UserStream(own.ws_url, own.session, own.account, listener, jitter=JITTER)
        running = asyncio.create_task(stream.run())
        try:
            await until_so(lambda: stream.current)
            await own.orders.place(own.order())
            await own.orders.place(own.leave(Direction.LONG))
            await until_so(lambda: len(listener.told) >= 6)
            m.faults(disconnect=True)
            await until_so(lambda: len(listener.snapshots) >= 2 and stream.current)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await own.account.close_listen_key()
        expect(listener.told == 2 * ["OrderUpdate", "AccountUpdate", "OrderUpdate"], listener.told)
        return f"{', '.join(listener.told[:3])}; reconciled again after a cut"

    for name, call in (
        ("stream kline", klines),
        ("stream aggTrade", trades),
        ("stream bookTicker", best),
        ("stream depth, local book", book),
        ("stream depth5", depth),
        ("stream markPrice", mark),
        ("stream of all best prices", books),
        ("stream forceOrder", liquidations),
        ("user stream", user),
    ):
        await m.row(name, call)
