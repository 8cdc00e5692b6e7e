"""Streams that are lost, silent, half-open, cut and renewed: the bars come all the same, each once and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import aiohttp
import pytest

from market.binance import bar_stream
from market.binance.bar_feed import BarFeed
from market.binance.bar_stream import BarStream
from market.binance.connection import Backoff, StreamConnection
from market.binance.errors import Unreachable
from market.binance.streams import stream_urls
from tests.market.binance.stream_venue import StreamVenue, streams
from tests.market.binance.test_bar_feed import START, Desk, at, bars, message


class Ticks:
    """A sleep of the watch: each `look` lets it look once at the streams."""

    def __init__(self) -> None:
        self._go = asyncio.Semaphore(0)
        self._done = asyncio.Semaphore(0)
        self._first = True

    async def __call__(self, seconds: float) -> None:
        if not self._first:
            self._done.release()
        self._first = False
        await self._go.acquire()

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self._go.release()
            await self._done.acquire()


class Consumer(Desk):
    """A desk that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.news = asyncio.Event()

    def closed(self, bar: Any) -> None:
        super().closed(bar)
        self.news.set()

    async def has(self, count: int) -> None:
        while len(self.bars) < count:
            self.news.clear()
            await self.news.wait()


async def soon(condition: Callable[[], bool]) -> None:
    """Return when `condition()` holds, letting everybody else work meanwhile."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


@asynccontextmanager
async def running(
    venue: StreamVenue, *symbols: str, **changes: Any
) -> AsyncIterator[tuple[BarStream, Consumer, Ticks]]:
    desk, ticks = changes.pop("desk", None) or Consumer(), Ticks()
    feed = BarFeed({(symbol, "1m"): START for symbol in symbols}, desk, venue_ms=START, seconds=lambda: 0.0)
    async with aiohttp.ClientSession() as session:
        values: dict[str, Any] = {"fetch": venue.klines, "server_time": venue.server_time, "jitter": Random(3)}
        values |= {"seconds": lambda: 0.0, "sleep": ticks, "first_pause_s": 0.001}
        stream = BarStream(venue.url, session, feed, **(values | changes))
        task = asyncio.create_task(stream.run())
        try:
            yield stream, desk, ticks
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_symbols_are_shared_out_over_connections_on_their_route() -> None:
    async with streams() as venue:
        names = [f"S{i}USDT" for i in range(7)]
        async with running(venue, *names, per_connection=3) as (_, desk, _ticks):
            await venue.until(lambda: len(venue.sockets) == 3)
            assert sorted(len(socket.names) for socket in venue.sockets) == [1, 3, 3]
            assert all(socket.path == "/market/stream" for socket in venue.sockets)
            for name in names:
                assert await venue.say(name, 0) == 1
            await desk.has(7)
            assert sorted(symbol for symbol, *_ in desk.bars) == names


async def test_what_a_lost_connection_missed_comes_over_rest_before_what_follows() -> None:
    async with streams() as venue, running(venue, "A") as (stream, desk, _):
        await venue.until(lambda: venue.sockets)
        await venue.say("A", 0)
        await desk.has(1)
        for _ in range(2):
            venue.sockets[0].socket._req.transport.abort()  # type: ignore[union-attr]
            have = venue.ever
            await venue.until(lambda have=have: venue.ever > have and venue.sockets)
        venue.venue_ms = at(3)
        stream.feed.observe(at(3))
        await venue.say("A", 4)
        await desk.has(5)
        assert [(minute, streamed) for _, minute, _, streamed in desk.bars] == [
            (0, True),
            (1, False),
            (2, False),
            (3, False),
            (4, True),
        ]
        assert stream.dropped == {"connection lost": 2}


async def test_a_venue_that_cannot_be_reached_is_tried_again() -> None:
    async with streams() as venue:
        venue.refuse = True
        async with running(venue, "A") as (stream, desk, _):
            await soon(lambda: stream.dropped["cannot connect: WSServerHandshakeError"] >= 3)
            venue.refusal = 451
            await soon(lambda: any("Singapore" in cause for cause in stream.dropped))
            venue.refuse = False
            await venue.until(lambda: venue.sockets)
            await venue.say("A", 0)
            await desk.has(1)


async def test_acknowledged_and_silent_streams_are_found_out_and_healed() -> None:
    async with streams() as venue:
        venue.mute_next = {"b@kline_1m"}
        async with running(venue, "A", "B") as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            for minute in range(3):
                await venue.say("A", minute)
                assert await venue.say("B", minute) == 0
                await desk.has(len(desk.minutes("B")) + minute + 1)
                await ticks.look()
            await venue.until(lambda: len(venue.sockets[0].control) == 2)
            assert [each["method"] for each in venue.sockets[0].control] == ["UNSUBSCRIBE", "SUBSCRIBE"]
            assert all(each["params"] == ["b@kline_1m"] for each in venue.sockets[0].control)
            assert stream.woken == {("B", "1m"): 1}
            assert await venue.say("B", 3) == 1
            await venue.say("A", 3)
            await desk.has(8)
            assert desk.minutes("A") == desk.minutes("B") == [0, 1, 2, 3], "and nothing was lost meanwhile"
            assert venue.ever == 1


async def test_a_stream_that_stays_silent_is_moved_to_another_connection_without_a_gap_for_the_others() -> None:
    async with streams() as venue:
        venue.mute_next = {"b@kline_1m"}
        async with running(venue, "A", "B") as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            venue.sockets[0].mute_for_good = True
            for minute in range(6):
                await venue.say("A", minute)
                assert await venue.say("B", minute) == 0
                await desk.has(len(desk.minutes("B")) + minute + 1)
                await ticks.look()
            await venue.until(lambda: len(venue.sockets) == 2)
            assert (stream.woken, stream.moved) == ({("B", "1m"): 2}, {("B", "1m"): 1})
            assert len(venue.sockets[0].control) == 2, "it was subscribed to again once"
            assert await venue.say("A", 6) == 2
            assert await venue.say("B", 6) == 1
            await venue.until(lambda: len(venue.sockets) == 1)
            await desk.has(14)
            assert desk.minutes("A") == desk.minutes("B") == list(range(7))
            assert [streamed for symbol, *_, streamed in desk.bars if symbol == "A"] == [True] * 7
            await soon(lambda: stream.connections[0].renewals == 1)
            assert stream.dropped == {}


async def test_a_series_that_has_left_the_venue_moves_no_connection() -> None:
    async with streams() as venue:
        venue.mute_next = {"b@kline_1m"}

        async def fetch(symbol: str, interval: str, start_ms: int, end_ms: int) -> Any:
            return bars() if symbol == "B" else await venue.klines(symbol, interval, start_ms, end_ms)

        async with running(venue, "A", "B", fetch=fetch) as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            venue.sockets[0].mute_for_good = True
            for minute in range(40):
                await venue.say("A", minute)
                await desk.has(minute + 1)
                await ticks.look()
            assert (stream.woken, stream.moved, venue.ever) == ({("B", "1m"): 5}, {}, 1)


async def test_a_subscription_that_is_refused_is_told_with_its_reason_and_made_on_another_connection() -> None:
    async with streams() as venue:
        venue.mute_next, venue.refuses_subscriptions = {"b@kline_1m"}, True
        async with running(venue, "A", "B") as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            for minute in range(3):
                await venue.say("A", minute)
                await desk.has(len(desk.minutes("B")) + minute + 1)
                await ticks.look()
            await venue.until(lambda: len(venue.sockets) == 2)
            refusal = stream.refused["B", "1m"]
            assert (refusal.code, refusal.method, refusal.names) == (2, "SUBSCRIBE", ("b@kline_1m",))
            assert "SUBSCRIBE of b@kline_1m: Invalid request: too many streams (code 2)" in str(refusal)
            assert (stream.refusals, stream.refusal, stream.moved) == (1, refusal, {("B", "1m"): 1})
            await venue.raw('{"code":3,"msg":"Invalid JSON"}')
            await soon(lambda: stream.refusals == 3)
            assert str(stream.refusal) == "the venue refused a control message: Invalid JSON (code 3)"
            assert await venue.say("B", 3) == 1
            await venue.say("A", 3)
            await desk.has(8)
            await ticks.look()
            assert stream.refused == {}, "it speaks"


async def test_when_all_streams_are_silent_rest_tells_the_time_and_the_connection_is_opened_again() -> None:
    async with streams() as venue:
        venue.mute_next = {"a@kline_1m", "b@kline_1m"}
        async with running(venue, "A", "B") as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            for minute in range(5):
                venue.venue_ms = at(minute, 6_000)
                await ticks.look(6)
            await desk.has(10)
            assert desk.minutes("A") == desk.minutes("B") == [0, 1, 2, 3, 4]
            await venue.until(lambda: venue.ever == 2 and venue.sockets)
            assert stream.dropped == {"silent streams": 1}
            assert await venue.say("A", 5) == 1
            await desk.has(11)


async def test_without_rest_a_bar_waits_for_those_before_it() -> None:
    async with streams() as venue:
        down = True

        async def fetch(*question: Any) -> Any:
            if down:
                raise Unreachable("http://venue", "refused")
            return await venue.klines(*question)

        async with running(venue, "A", fetch=fetch) as (stream, desk, ticks):
            await venue.until(lambda: venue.sockets)
            await venue.say("A", 0)
            await desk.has(1)
            await venue.say("A", 2)
            await soon(lambda: stream.rest_failure is not None)
            assert desk.minutes() == [0]
            down = False
            stream.feed.observe(at(2, 4_000))
            await ticks.look()
            await desk.has(3)
            assert desk.minutes() == [0, 1, 2]


async def test_reading_waits_for_what_rest_is_asked_and_then_for_whoever_it_was_read_for() -> None:
    heard: list[tuple[list[int], bool]] = []
    async with streams() as venue:
        venue.venue_ms = at(3)
        free, asked = asyncio.Event(), asyncio.Event()

        async def fetch(*question: Any) -> Any:
            asked.set()
            await free.wait()
            return await venue.klines(*question)

        desk = Consumer()

        async def after() -> None:
            heard.append((desk.minutes(), free.is_set()))

        async with running(venue, "A", fetch=fetch, after=after, desk=desk) as (stream, _, _ticks):
            await venue.until(lambda: venue.sockets)
            taking = asyncio.create_task(stream.take(message("A", 0)))
            await taking
            taking = asyncio.create_task(stream.take(message("A", 2)))
            await asked.wait()
            assert not taking.done()
            free.set()
            await taking
    assert heard == [([0], False), ([0, 1, 2], True), ([0, 1, 2], True)], "after the message, the answer, the message"


async def test_a_rest_that_hangs_holds_up_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bar_stream, "PATIENCE_S", 0.01)

    async def hang(*question: Any) -> Any:
        await asyncio.Event().wait()

    async with streams() as venue, running(venue, "A", "B", fetch=hang, seconds=time.monotonic) as (stream, desk, _):
        await venue.until(lambda: venue.sockets)
        await stream.take(message("A", 0))
        await stream.take(message("A", 2))
        for minute in range(3):
            await stream.take(message("B", minute))
        assert (desk.minutes("A"), desk.minutes("B")) == ([0], [0, 1, 2])
        assert stream.feed.asking_since(("A", "1m")) == at(2, 1_999)


async def test_an_event_from_far_ahead_is_taken_when_rest_confirms_its_time() -> None:
    async with streams() as venue, running(venue, "A") as (stream, desk, _):
        await venue.until(lambda: venue.sockets)
        venue.venue_ms = at(9, 2_000)
        await stream.take(message("A", 9))
        assert desk.minutes() == list(range(10))
        assert desk.errors == []


# --- one connection ---


@asynccontextmanager
async def connected(
    venue: StreamVenue, handle: Callable[[bytes], None], **changes: Any
) -> AsyncIterator[tuple[StreamConnection, list[str]]]:
    causes: list[str] = []

    async def take(raw: bytes) -> None:
        handle(raw)

    async with aiohttp.ClientSession() as session:
        connection = StreamConnection(
            f"{venue.url}/market/stream?streams=a@kline_1m",
            session,
            take,
            lambda: None,
            causes.append,
            Backoff(Random(5), first_s=0.001),
            **changes,
        )
        task = asyncio.create_task(connection.run())
        try:
            yield connection, causes
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_an_end_that_is_gone_without_a_word_is_found_out() -> None:
    async with streams() as venue, connected(venue, lambda raw: None, quiet_s=0.01) as (_, causes):
        await venue.until(lambda: venue.sockets)
        venue.sockets[0].deaf = True
        await venue.until(lambda: venue.ever >= 2)
        assert causes == ["half-open connection"]


async def test_a_quiet_end_that_answers_pings_is_kept() -> None:
    async with streams() as venue, connected(venue, lambda raw: None, quiet_s=0.002) as (connection, causes):
        await venue.until(lambda: venue.sockets)
        await soon(lambda: connection._line is not None and connection._line.received >= 5)
        assert (venue.ever, causes) == (1, [])


async def test_a_slow_handler_is_no_dead_connection() -> None:
    async with streams() as venue:
        go = asyncio.Event()

        async with aiohttp.ClientSession() as session:

            async def slow(raw: bytes) -> None:
                await go.wait()

            causes: list[str] = []
            connection = StreamConnection(
                f"{venue.url}/market/stream?streams=a@kline_1m",
                session,
                slow,
                lambda: None,
                causes.append,
                Backoff(Random(5), first_s=0.001),
                quiet_s=0.001,
            )
            task = asyncio.create_task(connection.run())
            await venue.until(lambda: venue.sockets)
            await venue.say("A", 0)
            for _ in range(50):
                await asyncio.sleep(0.001)
            assert causes == []
            go.set()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("by", ["time", "shutdown"])
async def test_a_connection_is_renewed_before_it_is_cut_and_nothing_is_lost_between(by: str) -> None:
    """The old one is closed only when the new one has delivered; both deliver meanwhile."""
    async with streams() as venue:
        heard: list[bytes] = []
        news = asyncio.Event()

        def take(raw: bytes) -> None:
            heard.append(raw)
            news.set()

        async def until_heard(count: int) -> None:
            while len(heard) < count:
                news.clear()
                await news.wait()

        renew_s = 0.01 if by == "time" else 3600.0
        async with connected(venue, take, renew_s=renew_s) as (connection, causes):
            await venue.until(lambda: venue.sockets)
            if by == "shutdown":
                await venue.raw('{"stream":"serverShutdown","data":{"e":"serverShutdown","E":1}}')
            await venue.until(lambda: len(venue.sockets) == 2)
            connection._renew_s = 3600.0
            assert connection.renewals == 0, "the old one is kept until the new one delivers"
            before = len(heard)
            assert await venue.say("A", 0) == 2
            await until_heard(before + 2)
            await venue.until(lambda: len(venue.sockets) == 1)
            assert await venue.say("A", 1) == 1
            await until_heard(before + 3)
            assert (connection.renewals, causes) == (1, [])


async def test_a_renewal_that_fails_keeps_the_old_connection() -> None:
    async with streams() as venue, connected(venue, lambda raw: None, renew_s=0.005) as (_, causes):
        await venue.until(lambda: venue.sockets)
        venue.refuse = True
        first = venue.sockets[0]
        await venue.until(lambda: venue.refused >= 3)
        assert venue.sockets == [first]
        venue.refuse = False
        await venue.until(lambda: len(venue.sockets) == 2)
        await venue.say("A", 0)
        await venue.until(lambda: first not in venue.sockets)
        assert causes == []


async def test_a_handler_that_fails_is_not_the_networks_fault() -> None:
    async with streams() as venue:

        def fail(raw: bytes) -> None:
            raise ValueError("a fault of ours")

        async with aiohttp.ClientSession() as session:

            async def take(raw: bytes) -> None:
                fail(raw)

            connection = StreamConnection(
                f"{venue.url}/market/stream", session, take, lambda: None, lambda cause: None, Backoff(Random(5))
            )
            task = asyncio.create_task(connection.run())
            await venue.until(lambda: venue.sockets)
            await venue.raw("{}")
            with pytest.raises(ValueError, match="ours"):
                await task


def test_streams_are_on_their_routes() -> None:
    names = [
        "a@kline_1m",
        "a@depth20@100ms",
        "a@markPrice@1s",
        "!bookTicker",
        "a@trade",
        "a@aggTrade",
        "!markPrice@arr",
    ]
    market, public = stream_urls("wss://x", names)
    assert market == "wss://x/market/stream?streams=a@kline_1m/a@markPrice@1s/a@aggTrade/!markPrice@arr"
    assert public == "wss://x/public/stream?streams=a@depth20@100ms/!bookTicker/a@trade"
