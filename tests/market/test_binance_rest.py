"""The market data client and the REST source, against the simulated exchange and against a server that misbehaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import DAY_MS, MINUTE_MS, resample
from market.binance import rest
from market.binance.error_codes import venue_error
from market.binance.errors import (
    AccessRefused,
    AnswerInvalid,
    BinanceError,
    IpBanned,
    LocationRefused,
    RateLimited,
    RequestInvalid,
    Unreachable,
    VenueUnavailable,
)
from market.binance.rest import MarketDataClient
from market.errors import UnknownInterval, UnknownSymbol
from market.simulator.server import Simulator
from market.sources import BarSource, open_source
from market.sources.binance_rest import BinanceRestSource
from tests.market.exchange_helpers import MARKET, START, MemorySource, same

FIRST = START - DAY_MS
Answer = tuple[int, bytes | str, dict[str, str]]


@asynccontextmanager
async def exchange(source: BarSource = MARKET, minutes: int = 0) -> AsyncIterator[tuple[Simulator, MarketDataClient]]:
    async with Simulator(source, START, stepped=True) as simulator, aiohttp.ClientSession() as session:
        await simulator.step(minutes)
        yield simulator, MarketDataClient(simulator.url, session)


class Pauses(list[float]):
    """A sleep that takes no time and remembers."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@asynccontextmanager
async def scripted(*script: Answer) -> AsyncIterator[tuple[MarketDataClient, Pauses, list[str]]]:
    """A server that gives these answers in turn (the last for ever), its client, its pauses, the requests so far."""
    asked: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path_qs)
        status, body, headers = script[min(len(asked), len(script)) - 1]
        data = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=data, headers={"Content-Type": "application/json"} | headers)

    application = web.Application()
    application.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pauses = Pauses()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield MarketDataClient(url, session, attempts=3, backoff_s=0.25, sleep=pauses), pauses, asked
    finally:
        await runner.cleanup()


TIME: Answer = (200, json.dumps({"serverTime": START}), {})


def failure(status: int, code: int = 0, message: str = "no", **headers: str) -> Answer:
    return status, json.dumps({"code": code, "msg": message}), headers


def row(open_time: int, **changes: Any) -> list[Any]:
    close_time = changes.get("close_time", open_time + MINUTE_MS - 1)
    return [open_time, "1", "2", "0.5", changes.get("close", "1.5"), "3", close_time, "4", 5, "1", "2", "0"]


# --- against the simulated exchange ---------------------------------------------------------------------------------


async def test_pages_join_to_the_sources_bars() -> None:
    async with exchange(minutes=200) as (_, client):
        end = START + 200 * MINUTE_MS
        same(await client.klines("BTCUSDT", "1m", FIRST, end), MARKET.klines("BTCUSDT", FIRST, end))
        # An end in the future, and a start before everything.
        same(await client.klines("ETHUSDT", "1m", 0, end + DAY_MS), MARKET.klines("ETHUSDT", FIRST, end))


@pytest.mark.parametrize("page", [1, 7, 100])
async def test_the_size_of_a_page_changes_nothing(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "MAX_KLINES", page)
    start, end = START - 53 * MINUTE_MS, START - 3 * MINUTE_MS
    holed = MARKET.klines("BTCUSDT", FIRST, START + MINUTE_MS)
    source = MemorySource({"BTCUSDT": np.delete(holed, np.r_[1400:1410, 1420])})
    async with exchange(source) as (_, client):
        same(await client.klines("BTCUSDT", "1m", start, end), source.klines("BTCUSDT", start, end))


async def test_the_bar_that_is_still_open_is_never_among_them() -> None:
    async with exchange(minutes=7) as (simulator, client):
        assert simulator.clock.now_ms == START + 7 * MINUTE_MS + 1_999
        end = START + DAY_MS
        bars = await client.klines("BTCUSDT", "1m", START, end)
        same(bars, MARKET.klines("BTCUSDT", START, START + 7 * MINUTE_MS))
        longer = await client.klines("BTCUSDT", "5m", START, end)
        same(longer, resample(MARKET.klines("BTCUSDT", START, START + 5 * MINUTE_MS), "5m"))
        assert (await client.klines("BTCUSDT", "1m", START + 7 * MINUTE_MS, end)).size == 0
        assert (await client.klines("BTCUSDT", "1m", START, START)).size == 0


async def test_times_off_the_grid_give_the_bars_that_open_inside() -> None:
    async with exchange() as (_, client):
        bars = await client.klines("BTCUSDT", "1m", FIRST + 1, FIRST + 3 * MINUTE_MS + 1)
        assert ((bars["open_time"] - FIRST) // MINUTE_MS).tolist() == [1, 2, 3]


async def test_fundings_are_paged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with exchange(minutes=1) as (_, client):
        expected = MARKET.funding("BTCUSDT", FIRST, START + MINUTE_MS)
        assert len(expected) == 4
        for page in (1000, 2):
            monkeypatch.setattr(rest, "MAX_FUNDINGS", page)
            same(await client.funding_rates("BTCUSDT", FIRST, START + DAY_MS), expected)
        last = int(expected["funding_time"][-1])
        same(await client.funding_rates("BTCUSDT", FIRST, last), expected[:-1])


async def test_exchange_info_premium_and_time() -> None:
    async with exchange() as (_, client):
        info = await client.exchange_info()
        assert tuple(each.symbol for each in info.symbols if each.tradable) == MARKET.symbols()
        assert {each["filterType"] for each in info.symbols[0].filters} >= {"PRICE_FILTER", "LOT_SIZE", "MIN_NOTIONAL"}
        premium = await client.premium_index()
        assert premium["BTCUSDT"].mark_price == MARKET.klines("BTCUSDT", START, START + MINUTE_MS)["open"][0]
        assert premium["BTCUSDT"].next_funding_time > START
        assert await client.server_time() == START
        assert client.used_weight is not None


async def test_the_venues_refusal_is_typed_and_not_repeated() -> None:
    async with exchange() as (_, client):
        with pytest.raises(RequestInvalid, match=r"-1121: Invalid symbol\.") as caught:
            await client.klines("NOSUCH", "1m", FIRST, START)
        assert (caught.value.status, caught.value.code) == (400, -1121)
        with pytest.raises(UnknownInterval):
            await client.klines("BTCUSDT", "7m", FIRST, START)


# --- the source -----------------------------------------------------------------------------------------------------


async def test_the_source_is_the_market_behind_it() -> None:
    async with exchange(minutes=3) as (simulator, _):
        source = open_source(f"rest:{simulator.url}")
        assert isinstance(source, BinanceRestSource)
        assert isinstance(source, BarSource)

        def read() -> None:
            end = START + 3 * MINUTE_MS
            assert source.symbols() == MARKET.symbols()
            assert source.coverage("BTCUSDT") == (FIRST, end)
            same(source.klines("BTCUSDT", START - MINUTE_MS, end), MARKET.klines("BTCUSDT", START - MINUTE_MS, end))
            same(source.funding("BTCUSDT", FIRST, end), MARKET.funding("BTCUSDT", FIRST, end))
            with pytest.raises(UnknownSymbol, match="NOSUCH"):
                source.coverage("NOSUCH")
            assert end <= source.now_ms() < end + MINUTE_MS
            same(source.daily("BTCUSDT", FIRST, end), resample(MARKET.klines("BTCUSDT", FIRST, START), "1d"))

        await asyncio.to_thread(read)


async def test_a_symbol_that_the_venue_does_not_list_is_unknown_to_the_source() -> None:
    """Any other refusal is passed on as it is."""
    async with exchange() as (simulator, _):
        source = BinanceRestSource(simulator.url)

        def read() -> None:
            for ask in (source.klines, source.daily, source.funding):
                with pytest.raises(UnknownSymbol, match="GONEUSDT"):
                    ask("GONEUSDT", FIRST, START)

        await asyncio.to_thread(read)
    async with scripted(TIME, failure(400, -1120)) as (client, _, _):
        source = BinanceRestSource(client.base_url)
        with pytest.raises(RequestInvalid):
            await asyncio.to_thread(source.klines, "BTCUSDT", FIRST, START)


async def test_an_exchange_can_be_played_from_an_exchange() -> None:
    async with exchange(minutes=5) as (first, _):
        copy = await asyncio.to_thread(BinanceRestSource, first.url)
        async with exchange(copy) as (second, client):
            await second.step(2)
            bars = await client.klines("ETHUSDT", "1m", START - MINUTE_MS, START + DAY_MS)
            same(bars, MARKET.klines("ETHUSDT", START - MINUTE_MS, START + 2 * MINUTE_MS))


# --- a server that misbehaves ---------------------------------------------------------------------------------------


async def test_a_fault_of_the_venue_is_repeated_with_growing_pauses() -> None:
    async with scripted(failure(503, -1001), failure(500), TIME) as (client, pauses, asked):
        assert await client.server_time() == START
        assert pauses == [0.25, 0.5]
        assert len(asked) == 3
    async with scripted(failure(503)) as (client, pauses, asked):
        with pytest.raises(VenueUnavailable):
            await client.server_time()
        assert (len(pauses), len(asked)) == (2, 3)


async def test_a_rate_limit_is_obeyed() -> None:
    async with scripted(failure(429, -1003, **{"Retry-After": "7"}), failure(429, -1003), TIME) as (client, pauses, _):
        assert await client.server_time() == START
        assert pauses == [7.0, 30.0]
    async with scripted(failure(418, -1003, "IP banned until 1")) as (client, pauses, asked):
        with pytest.raises(IpBanned):
            await client.server_time()
        assert (pauses, len(asked)) == ([], 1)


async def test_a_refused_location_is_said_and_not_repeated() -> None:
    body = failure(451, 0, "Service unavailable from a restricted location")
    async with scripted(body) as (client, pauses, _):
        with pytest.raises(LocationRefused, match="Singapore"):
            await client.server_time()
        assert pauses == []


async def test_a_page_that_is_no_json_is_not_the_venues() -> None:
    async with scripted((403, "<html>blocked</html>", {})) as (client, _, _), client._session:
        with pytest.raises(AccessRefused, match="blocked"):
            await client.server_time()


async def test_nobody_there() -> None:
    pauses = Pauses()
    async with aiohttp.ClientSession() as session:
        client = MarketDataClient("http://127.0.0.1:9", session, attempts=2, sleep=pauses)
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
            await client.server_time()
    assert len(pauses) == 1


async def test_an_answer_that_never_comes() -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    application = web.Application()
    application.router.add_get("/{path:.*}", hang)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        client = MarketDataClient(url, session, attempts=1, timeout_s=0.01)
        with pytest.raises(Unreachable, match="within"):
            await client.server_time()
    await runner.cleanup()


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "{}",
        "[[]]",
        '[["x"]]',
        json.dumps([row(FIRST)[:11]]),
        json.dumps([row(FIRST, close="much")]),
        json.dumps([row(FIRST + 1)]),
        json.dumps([row(FIRST, close_time=FIRST + 5)]),
        json.dumps([row(FIRST + MINUTE_MS), row(FIRST)]),
        json.dumps([row(FIRST), row(FIRST)]),
        json.dumps([row(FIRST - MINUTE_MS)]),
        json.dumps([row(FIRST + 10 * MINUTE_MS)]),
        b"\xff\xfe",
    ],
)
async def test_wrong_kline_answers_are_typed_errors_and_never_bars(body: str | bytes) -> None:
    async with scripted(TIME, (200, body, {})) as (client, _, _):
        with pytest.raises(AnswerInvalid):
            await client.klines("BTCUSDT", "1m", FIRST, FIRST + 10 * MINUTE_MS)


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (lambda client: client.exchange_info(), "[]"),
        (lambda client: client.premium_index(), '[{"symbol":"A"}]'),
        (lambda client: client.server_time(), '{"serverTime":"later"}'),
        (lambda client: client.funding_rates("A", 0, 1), '[{"symbol":"A","fundingTime":0,"fundingRate":"x"}]'),
        (lambda client: client.funding_rates("A", 0, 1), '[{"symbol":"A","fundingTime":0,"fundingRate":"NaN"}]'),
    ],
)
async def test_other_wrong_answers(read: Callable[[MarketDataClient], Any], body: str) -> None:
    async with scripted((200, body, {})) as (client, _, _):
        with pytest.raises(AnswerInvalid):
            await read(client)


@settings(max_examples=200)
@given(st.integers(300, 599), st.integers(-5100, 0), st.text(max_size=20))
def test_every_refusal_has_a_class_that_says_what_to_do(status: int, code: int, message: str) -> None:
    error = venue_error(status, code, message)
    assert isinstance(error, BinanceError)
    assert isinstance(error, LocationRefused) == (status == 451)
    if status >= 500 and code not in (-1002, -1022, -2014, -2015):
        assert error.retry
    if isinstance(error, IpBanned | RequestInvalid | AccessRefused | LocationRefused):
        assert not error.retry
    if status == 429:
        assert isinstance(error, RateLimited)
