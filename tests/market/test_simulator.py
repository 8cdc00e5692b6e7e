"""The simulated exchange, through real sockets: its answers, its streams, and its waiting for consumers."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import aiohttp
import numpy as np
import pytest

from market.bars import DAY_MS, MINUTE_MS, resample
from market.binance.errors import StreamMessageInvalid
from market.binance.streams import MarkPriceEvent, kline_stream_urls, parse, parse_kline, stream_urls
from market.simulator.faults import KINDS
from market.simulator.server import Simulator
from tests.market.exchange_helpers import (
    MARKET,
    START,
    MemorySource,
    closed_of,
    cut,
    get,
    klines_of,
    post,
    same,
    stacked,
    status,
    taking,
)

SYMBOLS = MARKET.symbols()


# --- REST -----------------------------------------------------------------------------------------------------------


async def test_kline_rows_are_the_venues() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator:
        rows = await get(simulator.url + "/fapi/v1/klines", symbol="BTCUSDT", interval="1m", limit=3)
        assert [row[0] for row in rows] == [START - 2 * MINUTE_MS, START - MINUTE_MS, START]
        for row in rows:
            assert len(row) == 12
            assert row[6] == row[0] + MINUTE_MS - 1
            assert [type(item) for item in row] == [int, *[str] * 5, int, str, int, str, str, str]
        assert len(await get(simulator.url + "/fapi/v1/klines", symbol="BTCUSDT", interval="1m")) == 500


async def test_pages_are_inclusive_and_ascending() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator:
        url, first = simulator.url + "/fapi/v1/klines", START - DAY_MS

        async def times(**parameters: int) -> list[int]:
            rows = await get(url, symbol="BTCUSDT", interval="1m", **parameters)
            return [(row[0] - first) // MINUTE_MS for row in rows]

        assert await times(startTime=first, limit=3) == [0, 1, 2]
        assert await times(startTime=0, limit=2) == [0, 1]
        assert await times(startTime=first + 1, endTime=first + 3 * MINUTE_MS) == [1, 2, 3]
        assert await times(endTime=first + 5 * MINUTE_MS, limit=2) == [4, 5]
        assert await times(endTime=first + MINUTE_MS - 1) == [0]
        assert await times(startTime=START - MINUTE_MS) == [1439, 1440]
        assert await times(startTime=START + MINUTE_MS) == []
        assert await times(startTime=START, limit=1) == [1440]
        assert len(await times(startTime=first, limit=1500)) == 1441


@pytest.mark.parametrize("interval", ["3m", "1h", "1d"])
async def test_longer_intervals_are_resampled_and_end_with_the_open_bar(interval: str) -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator:
        await simulator.step(100)
        rows = await get(simulator.url + "/fapi/v1/klines", symbol="ETHUSDT", interval=interval, limit=1500)
    minutes = MARKET.klines("ETHUSDT", START - DAY_MS, START + 100 * MINUTE_MS)
    expected = resample(minutes, interval)
    closed = [[float(item) for item in row[1:6]] for row in rows[:-1]]
    np.testing.assert_array_equal(
        np.array(closed), np.column_stack([expected[name] for name in ("open", "high", "low", "close", "volume")])
    )
    still_open = minutes[minutes["open_time"] >= rows[-1][0]]
    if still_open.size:
        assert float(rows[-1][1]) == still_open["open"][0]
        assert float(rows[-1][2]) >= still_open["high"].max()
        assert float(rows[-1][5]) == pytest.approx(still_open["volume"].sum(), rel=0.1)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"symbol": "NOSUCH", "interval": "1m"}, -1121),
        ({"symbol": "btcusdt", "interval": "1m"}, -1121),
        ({"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ({"interval": "1m"}, -1102),
        ({"symbol": "BTCUSDT"}, -1102),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": "soon"}, -1102),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 1501}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "limit": 0}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": -1}, -1130),
        ({"symbol": "BTCUSDT", "interval": "1m", "startTime": 2, "endTime": 1}, -1023),
    ],
)
async def test_refusals_have_the_venues_codes(parameters: dict[str, Any], code: int) -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator, aiohttp.ClientSession() as session:
        async with session.get(simulator.url + "/fapi/v1/klines", params=parameters) as response:
            assert response.status == 400
            assert response.content_type == "application/json"
            body = await response.json()
        assert body["code"] == code
        assert set(body) == {"code", "msg"}


async def test_every_answer_tells_the_weight_used() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator, aiohttp.ClientSession() as session:
        used = []
        for limit in (99, 100, 500, 1500):
            query = f"/fapi/v1/klines?symbol=BTCUSDT&interval=1m&limit={limit}"
            async with session.get(simulator.url + query) as response:
                used.append(int(response.headers["X-MBX-USED-WEIGHT-1M"]))
        costs = [later - earlier for earlier, later in pairwise(used)]
        # A new minute of the wall clock starts the count again.
        assert costs == [2, 5, 10] or any(cost < 0 for cost in costs)
        async with session.get(simulator.url + "/fapi/v1/nothing") as response:
            assert response.status == 404
            assert (await response.json())["code"] == -5000


async def test_exchange_info_lists_what_is_listed_by_now() -> None:
    early = MARKET.klines("BTCUSDT", START - DAY_MS, START + 3 * MINUTE_MS)
    ended = MARKET.klines("ETHUSDT", START - DAY_MS, START - 60 * MINUTE_MS)
    late = MARKET.klines("DOGEUSDT", START + MINUTE_MS, START + 3 * MINUTE_MS)
    source = MemorySource({"BTCUSDT": early, "ETHUSDT": ended, "DOGEUSDT": late, "XRPUSDT": early[:0]})
    async with Simulator(source, START, stepped=True) as simulator:

        async def listed() -> dict[str, str]:
            info = await get(simulator.url + "/fapi/v1/exchangeInfo")
            return {each["symbol"]: each["status"] for each in info["symbols"]}

        assert await listed() == {"BTCUSDT": "TRADING", "ETHUSDT": "SETTLING"}
        refused = await get(simulator.url + "/fapi/v1/klines", symbol="DOGEUSDT", interval="1m")
        assert refused["code"] == -1121
        await simulator.step(1)
        assert (await listed())["DOGEUSDT"] == "TRADING"


async def test_prices_are_on_the_listed_tick() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator:
        info = await get(simulator.url + "/fapi/v1/exchangeInfo")
        for each in info["symbols"]:
            tick = next(f["tickSize"] for f in each["filters"] if f["filterType"] == "PRICE_FILTER")
            rows = await get(simulator.url + "/fapi/v1/klines", symbol=each["symbol"], interval="1m", limit=100)
            for row in rows:
                steps = float(row[4]) / float(tick)
                assert steps == pytest.approx(round(steps), abs=1e-6)


async def test_funding_and_premium_tell_the_last_settled_rate_and_the_next_time() -> None:
    fundings = MARKET.funding("BTCUSDT", START - DAY_MS, START + DAY_MS)
    past = fundings[fundings["funding_time"] <= START]
    async with Simulator(MARKET, START, stepped=True) as simulator:
        rows = await get(simulator.url + "/fapi/v1/fundingRate", symbol="BTCUSDT")
        assert [row["fundingTime"] for row in rows] == past["funding_time"].tolist()
        assert [float(row["fundingRate"]) for row in rows] == past["funding_rate"].tolist()
        second = past["funding_time"][1]
        one = await get(simulator.url + "/fapi/v1/fundingRate", symbol="BTCUSDT", startTime=second, limit=1)
        assert [row["fundingTime"] for row in one] == [second]
        premium = await get(simulator.url + "/fapi/v1/premiumIndex", symbol="BTCUSDT")
        assert float(premium["lastFundingRate"]) == past["funding_rate"][-1]
        assert premium["nextFundingTime"] % MINUTE_MS == 0
        assert premium["nextFundingTime"] > START
        every = await get(simulator.url + "/fapi/v1/premiumIndex")
        assert [row["symbol"] for row in every] == list(SYMBOLS)


# --- streams --------------------------------------------------------------------------------------------------------


async def test_closed_bars_are_the_sources_to_the_last_bit() -> None:
    minutes = 500  # beyond one chunk of reading ahead
    async with Simulator(MARKET, START, stepped=True) as simulator:
        [url] = kline_stream_urls(simulator.ws_url, SYMBOLS)
        async with taking(url) as taken:
            await simulator.step(minutes)
            for symbol in SYMBOLS:
                same(closed_of(taken, symbol), MARKET.klines(symbol, START, START + minutes * MINUTE_MS))


async def test_a_bar_closes_once_after_its_updates_and_a_little_late() -> None:
    async with Simulator(MARKET, START, stepped=True, updates_per_bar=3) as simulator:
        async with taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as taken:
            await simulator.step(2)
        events = klines_of(taken)
        assert [event.closed for event in events] == [False, False, False, True] * 2
        times = [event.event_time - START for event in events[:4]]
        assert times == [15_000, 30_000, 45_000, 61_999]
        for event in events[:3]:
            final = events[3].kline
            assert event.open_time == final.open_time
            assert event.kline.open == final.open
            assert final.low <= event.kline.low <= event.kline.close <= event.kline.high <= final.high
            assert event.kline.volume <= final.volume


@pytest.mark.parametrize("offset", [0, 2, 5])
async def test_longer_streams_close_with_the_resampled_bar(offset: int) -> None:
    """Whenever in a bucket the subscription comes."""
    async with Simulator(MARKET, START, stepped=True) as simulator:
        await simulator.step(offset)
        async with taking(simulator.ws_url + "/market/stream?streams=ethusdt@kline_5m/btcusdt@kline_15m") as taken:
            await simulator.step(31 - offset)
        end = START + 31 * MINUTE_MS
        first = START + (offset // 5) * 5 * MINUTE_MS
        same(closed_of(taken, "ETHUSDT", "5m"), resample(MARKET.klines("ETHUSDT", first, end), "5m"))
        same(closed_of(taken, "BTCUSDT", "15m"), resample(MARKET.klines("BTCUSDT", START, end), "15m"))
        opening = [event for event in klines_of(taken) if event.symbol == "ETHUSDT" and not event.closed]
        assert {event.kline.open for event in opening[:2]} == {MARKET.klines("ETHUSDT", first, end)["open"][0]}


async def test_a_missing_minute_is_silence_and_a_longer_bar_without_it_never_closes() -> None:
    bars = MARKET.klines("BTCUSDT", START - MINUTE_MS, START + 12 * MINUTE_MS)
    holed = np.delete(bars, 4)  # the minute START + 3
    async with Simulator(MemorySource({"BTCUSDT": holed}), START, stepped=True) as simulator:
        async with taking(simulator.ws_url + "/market/stream?streams=btcusdt@kline_1m/btcusdt@kline_5m") as taken:
            await simulator.step(12)
        same(closed_of(taken, "BTCUSDT"), holed[1:])
        same(closed_of(taken, "BTCUSDT", "5m"), resample(bars[6:11], "5m"))


async def test_what_the_recording_lacks_stays_missing() -> None:
    bars = MARKET.klines("BTCUSDT", START - MINUTE_MS, START + MINUTE_MS)
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        bars[name] = np.nan
    async with Simulator(MemorySource({"BTCUSDT": bars}), START, stepped=True) as simulator:
        async with taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as taken:
            await simulator.step(1)
        same(closed_of(taken, "BTCUSDT"), bars[1:])


async def test_symbols_need_not_be_ascii() -> None:
    bars = MARKET.klines("DOGEUSDT", START - MINUTE_MS, START + MINUTE_MS)
    async with Simulator(MemorySource({"测试USDT": bars}), START, stepped=True) as simulator:
        [url] = kline_stream_urls(simulator.ws_url, ["测试USDT"])
        async with taking(url) as taken:
            await simulator.step(1)
        same(closed_of(taken, "测试USDT"), bars[1:])
        rows = await get(simulator.url + "/fapi/v1/klines", symbol="测试USDT", interval="1m")
        assert len(rows) == 2


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator:
        port = int(simulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            await Simulator(MARKET, START, port=port).__aenter__()


async def test_mark_prices_come_once_a_minute_before_the_close() -> None:
    fundings = MARKET.funding("BTCUSDT", START - DAY_MS, START + DAY_MS)
    async with Simulator(MARKET, START, stepped=True) as simulator:
        [url] = stream_urls(simulator.ws_url, ["btcusdt@markPrice@1s", "btcusdt@kline_1m"])
        async with taking(url) as taken:
            await simulator.step(481)
        marks = [event for event in map(parse, taken) if isinstance(event, MarkPriceEvent)]
        assert len(marks) == 481
        for mark in marks:
            known = fundings[fundings["funding_time"] <= mark.event_time]
            assert mark.funding_rate == known["funding_rate"][-1]
            assert mark.next_funding_time > mark.event_time
            assert mark.next_funding_time % MINUTE_MS == 0
        assert [json.loads(message)["data"]["e"] for message in taken[:4]] == [
            "kline",
            "kline",
            "markPriceUpdate",
            "kline",
        ]


async def test_control_messages() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator, taking(simulator.ws_url + "/market/ws/0") as taken:

        async def ask(message: Any) -> Any:
            return json.loads(await taken.ask(message if isinstance(message, str) else json.dumps(message)))

        names = ["btcusdt@kline_1m", "ethusdt@kline_1m"]
        assert await ask({"method": "SUBSCRIBE", "params": names, "id": 1}) == {"result": None, "id": 1}
        assert await ask({"method": "UNSUBSCRIBE", "params": names[1:], "id": "u-1"}) == {"result": None, "id": "u-1"}
        listed = await ask({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert listed == {"result": ["0", "btcusdt@kline_1m"], "id": 2}
        assert (await ask("{not json"))["code"] == 3
        assert (await ask([1]))["code"] == 2
        assert (await ask({"method": "DANCE", "id": 3}))["code"] == 2
        assert (await ask({"method": "SUBSCRIBE", "params": "btcusdt@kline_1m", "id": 4}))["code"] == 1
        assert (await ask({"method": "SUBSCRIBE", "params": [], "id": [5]}))["code"] == 2
        assert (await ask({"method": "SET_PROPERTY", "params": ["shape", True], "id": 6}))["code"] == 0
        assert await ask({"method": "SET_PROPERTY", "params": ["combined", True], "id": 7}) == {"result": None, "id": 7}
        assert await ask({"method": "GET_PROPERTY", "params": ["combined"], "id": 8}) == {"result": True, "id": 8}
        before = len(taken)
        await simulator.step(1)
        assert {json.loads(message)["stream"] for message in taken[before:]} == {"btcusdt@kline_1m"}


@pytest.mark.parametrize("route", ["", "/public", "/private"])
async def test_the_wrong_route_accepts_and_is_silent(route: str) -> None:
    async with (
        Simulator(MARKET, START, stepped=True, consumers=1) as simulator,
        taking(f"{simulator.ws_url}{route}/stream?streams=btcusdt@kline_1m") as wrong,
        taking(f"{simulator.ws_url}/market/stream?streams=btcusdt@kline_1m") as right,
    ):
        asked = {"method": "SUBSCRIBE", "params": ["ethusdt@kline_1m"], "id": 1}
        assert await wrong.ask(json.dumps(asked)) == '{"result":null,"id":1}'
        await simulator.step(2)
        assert len(right) == 6
        assert len(wrong) == 1
        assert (await get(simulator.url + "/simulator/clock"))["consumers"] == 1


async def test_a_connection_with_a_right_stream_is_silent_about_a_wrong_one() -> None:
    """What one connection has on its route is not told to another that named it on the wrong one."""
    names = "btcusdt@kline_1m/btcusdt@bookTicker"
    async with (
        Simulator(MARKET, START, stepped=True, consumers=2) as simulator,
        taking(f"{simulator.ws_url}/public/stream?streams={names}") as public,
        taking(f"{simulator.ws_url}/market/stream?streams={names}") as market,
    ):
        await simulator.step(2)
        assert {json.loads(message)["stream"] for message in public} == {"btcusdt@bookTicker"}
        assert {json.loads(message)["stream"] for message in market} == {"btcusdt@kline_1m"}


# --- the future -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("played", [0, 1, 7])
async def test_nothing_of_the_future_is_told(played: int) -> None:
    """Two markets that part after some minutes are the same exchange until then, byte for byte."""
    now = START + played * MINUTE_MS
    one, other = cut(START - DAY_MS, START + DAY_MS), cut(START - DAY_MS, START + DAY_MS)
    for symbol in SYMBOLS:
        later = other._bars[symbol]
        future = later["open_time"] >= now
        for name in ("open", "high", "low", "close", "volume", "quote_volume"):
            later[name][future] *= 1.5
        rates = other._fundings[symbol]
        rates["funding_rate"][rates["funding_time"] > now + 1_999] *= 3
    told = [await everything(source, played, now) for source in (one, other)]
    assert told[0] == told[1]


async def everything(source: MemorySource, played: int, now: int) -> list[Any]:
    """All that an exchange tells until `played` minutes are over, without the bar that is still open then."""
    async with Simulator(source, START, stepped=True) as simulator:
        names = [f"{s.lower()}@{kind}" for s in SYMBOLS for kind in ("kline_1m", "kline_3m", "markPrice")]
        async with taking(f"{simulator.ws_url}/market/stream?streams={'/'.join(names)}") as taken:
            await simulator.step(played)
        told: list[Any] = list(taken)
        for symbol in SYMBOLS:
            for interval in ("1m", "3m"):
                rows = await get(simulator.url + "/fapi/v1/klines", symbol=symbol, interval=interval, limit=1500)
                assert all(row[0] <= simulator.clock.now_ms for row in rows)
                told.append([row for row in rows if row[6] < now])
            told.append(await get(simulator.url + "/fapi/v1/fundingRate", symbol=symbol))
        told.append(await get(simulator.url + "/fapi/v1/exchangeInfo"))
        return told


# --- faults ---------------------------------------------------------------------------------------------------------


async def test_faults_happen_to_the_bars_they_name() -> None:
    def bar(minute: int) -> dict[str, Any]:
        return {"symbol": "BTCUSDT", "open_time": START + minute * MINUTE_MS}

    async with Simulator(MARKET, START, stepped=True, updates_per_bar=0) as simulator:
        url = simulator.url + "/simulator/faults"
        wish = {
            "drop_closed": [bar(0)],
            "withhold": [bar(1)],
            "duplicate_closed": [bar(2)],
            "late_closed": [bar(3)],
            "revise_closed": [bar(5)],
        }
        assert (await post(url, wish))["pending"] == 5
        async with taking(simulator.ws_url + "/market/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m") as taken:
            await simulator.step(8)
        events = [event for event in klines_of(taken) if event.symbol == "BTCUSDT"]
        assert [(event.open_time - START) // MINUTE_MS for event in events] == [2, 2, 4, 3, 5, 6, 5, 7]
        assert events[4].kline.close != events[6].kline.close
        rows = await get(simulator.url + "/fapi/v1/klines", symbol="BTCUSDT", interval="1m", startTime=START)
        assert [(row[0] - START) // MINUTE_MS for row in rows] == [0, 2, 3, 4, 5, 6, 7, 8]
        same(closed_of(taken, "ETHUSDT"), MARKET.klines("ETHUSDT", START, START + 8 * MINUTE_MS))
        done = (await get(url))["done"]
        assert done == dict.fromkeys(wish, 1)
        assert "error" in await post(url, {"corrupt": [bar(9) | {"kind": "rainbow"}]})
        assert "error" in await post(url, {"burn": True})
        assert (await post(url, {"clear": True}))["pending"] == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_corrupt_bars(kind: str) -> None:
    async with Simulator(MARKET, START, stepped=True, updates_per_bar=0) as simulator:
        bad = {"symbol": "BTCUSDT", "open_time": START, "kind": kind}
        await post(simulator.url + "/simulator/faults", {"corrupt": [bad]})
        async with taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as taken:
            await simulator.step(2)
        if kind == "garbage":
            with pytest.raises(StreamMessageInvalid):
                parse_kline(taken[0])
        else:
            event = parse_kline(taken[0])
            assert event is not None
            right = MARKET.klines("BTCUSDT", START, START + MINUTE_MS)
            assert event.symbol == ("NOSUCHUSDT" if kind == "unknown_symbol" else "BTCUSDT")
            assert (stacked([event.bar]).tobytes() == right.tobytes()) == (kind == "unknown_symbol")
        same(
            stacked([event.bar for event in map(parse_kline, taken[1:]) if event]),
            MARKET.klines("BTCUSDT", START + MINUTE_MS, START + 2 * MINUTE_MS),
        )


async def test_cut_connections_end_and_the_clock_holds_for_them() -> None:
    async with Simulator(MARKET, START, consumers=1, end_ms=START + 3000 * MINUTE_MS) as simulator:
        async with aiohttp.ClientSession() as session:
            socket = await session.ws_connect(simulator.ws_url + "/market/ws/btcusdt@kline_1m")
            await socket.receive()
            assert (await post(simulator.url + "/simulator/faults", {"disconnect": True}))["done"] == {"disconnect": 1}
            with suppress(aiohttp.ClientConnectionResetError):  # raised when a ping can no longer be answered
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
        held = await status(simulator, "holding")
        async with taking(simulator.ws_url + "/market/ws/btcusdt@kline_1m") as taken:
            await simulator.ended()
        assert klines_of(taken)[0].open_time >= held["minute_ms"]
