"""Streams of the simulated exchange that sum up: tickers, best prices of all, continuous klines, liquidations."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import BAR, DAY_MS, MINUTE_MS
from market.binance.public_events import DayTicker, Liquidation, parse_public
from market.binance.streams import route
from market.simulator.day import DayWindow
from market.simulator.faults import BarName, FaultRequest
from market.simulator.forced_orders import ForcedOrders
from market.simulator.trading import AccountSpec
from market.simulator.venue.orders import Order
from tests.market.exchange_helpers import MARKET, START, taking
from tests.market.private_helpers import Client, exchange

ALL = ["BTCUSDT", "ETHUSDT", "DOGEUSDT"]


def events(taken: list[str], stream: str) -> list[Any]:
    """What a stream has told."""
    messages = (msgspec.json.decode(text) for text in taken)
    return [message["data"] for message in messages if message["stream"] == stream]


def combined(client: Client, route_name: str, *streams: str) -> str:
    return f"{client.simulator.ws_url}/{route_name}/stream?streams={'/'.join(streams)}"


@pytest.mark.parametrize(
    ("stream", "kind", "right", "wrong"),
    [
        ("btcusdt@ticker", "24hrTicker", "market", "public"),
        ("btcusdt@miniTicker", "24hrMiniTicker", "market", "public"),
        ("btcusdt_perpetual@continuousKline_1m", "continuous_kline", "market", "public"),
        ("!bookTicker", "bookTicker", "public", "market"),
    ],
)
async def test_a_stream_delivers_on_its_route_alone(stream: str, kind: str, right: str, wrong: str) -> None:
    assert route(stream) == right
    async with (
        exchange() as client,
        taking(combined(client, right, stream)) as heard,
        taking(combined(client, wrong, stream)) as silent,
    ):
        await client.simulator.step(1)
        assert {event["e"] for event in events(heard, stream)} == {kind}
        assert silent == []


async def test_a_ticker_tells_the_last_day_as_rest_does() -> None:
    streams = ("btcusdt@ticker", "!ticker@arr", "btcusdt@miniTicker", "!miniTicker@arr")
    async with exchange() as client, taking(combined(client, "market", *streams)) as taken:
        await client.simulator.step(3)
        found = {name: events(taken, name) for name in streams}
        full, every, mini, minis = (found[name][-1] for name in streams)
    assert [event["s"] for event in every] == [event["s"] for event in minis] == ALL
    assert (every[0], minis[0]) == (full, mini)
    assert mini == {name: mini[name] if name == "e" else full[name] for name in mini}
    parsed = parse_public(msgspec.json.encode(full))
    assert isinstance(parsed, DayTicker)
    assert parsed.change == pytest.approx(parsed.last_price - parsed.open)
    minute = START + 2 * MINUTE_MS
    bars = MARKET.klines("BTCUSDT", minute + MINUTE_MS - DAY_MS, minute)
    assert (parsed.open, parsed.open_time) == (bars["open"][0], bars["open_time"][0])
    assert parsed.high >= bars["high"].max()
    assert parsed.volume == pytest.approx(
        bars["volume"].sum() + MARKET.klines("BTCUSDT", minute, minute + 1)["volume"][0], abs=bars["volume"].max()
    )
    assert parsed.close_time == parsed.event_time == minute + 59_000


async def test_continuous_klines_are_the_klines_of_the_pair() -> None:
    streams = [
        f"btcusdt{middle}_{each}" for middle in ("@kline", "_perpetual@continuousKline") for each in ("1m", "3m")
    ]
    dropped = FaultRequest(drop_closed=[BarName("BTCUSDT", START + MINUTE_MS)])
    async with exchange() as client, taking(combined(client, "market", *streams)) as taken:
        client.simulator.ask(dropped)
        await client.simulator.step(4)
        for plain, continuous in zip(streams[:2], streams[2:], strict=True):
            bars, others = events(taken, plain), events(taken, continuous)
            for bar in bars:
                assert bar["k"].pop("s") == bar["s"]
            assert [bar["k"]["x"] for bar in bars].count(True) >= 1
            kept = [bar for bar in others if not (bar["k"]["x"] and bar["k"]["t"] == START + MINUTE_MS)]
            assert [(bar["E"], bar["k"]) for bar in kept] == [(bar["E"], bar["k"]) for bar in bars]
            assert {(bar["e"], bar["ps"], bar["ct"]) for bar in others} == {
                ("continuous_kline", "BTCUSDT", "PERPETUAL")
            }


async def test_all_best_prices_are_those_of_each() -> None:
    streams = ("!bookTicker", "ethusdt@bookTicker", "ethusdt@depth@100ms")
    async with exchange() as client, taking(combined(client, "public", *streams)) as taken:
        await client.simulator.step(2)
        every, alone = events(taken, "!bookTicker"), events(taken, "ethusdt@bookTicker")
        assert [event["s"] for event in every] == ALL * len(alone)
        assert [event for event in every if event["s"] == "ETHUSDT"] == alone
        depth = events(taken, "ethusdt@depth@100ms")
        assert all(later["pu"] == earlier["u"] for earlier, later in pairwise(depth))


async def test_a_liquidation_is_told_to_everybody() -> None:
    streams = ("btcusdt@forceOrder", "!forceOrder@arr", "ethusdt@forceOrder", "btcusdt@kline_1m")
    poor = (AccountSpec("key", "secret", Decimal(2_000)), AccountSpec("other", "secret", Decimal(100_000)))
    async with exchange(accounts=poor) as client, taking(combined(client, "market", *streams)) as taken:
        price = await client.last()
        quantity = (Decimal(18_000) * 2 / price).quantize(Decimal("0.001"))
        await client.do("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=50)
        await client.order("BUY", "MARKET", quantity)
        assert not events(taken, "btcusdt@forceOrder")
        client.simulator.ask(FaultRequest(mark={"BTCUSDT": Decimal("-0.09")}))
        await client.simulator.step(1)
        alone, together = events(taken, "btcusdt@forceOrder"), events(taken, "!forceOrder@arr")
        assert alone == together != []
        assert events(taken, "ethusdt@forceOrder") == []
        told = parse_public(msgspec.json.encode(alone[0]))
        assert isinstance(told, Liquidation)
        assert (told.symbol, told.order.side, told.order.status) == ("BTCUSDT", "SELL", "FILLED")
        assert told.order.executed == told.order.quantity == float(quantity)
        assert told.order.time < told.event_time <= told.order.time + 1_000
        await client.simulator.step(1)
        assert len(events(taken, "btcusdt@forceOrder")) == 1
        (row,) = await client.do("GET", "/fapi/v1/forceOrders", symbol="BTCUSDT")
        assert (row["executedQty"], row["time"]) == (str(quantity), told.order.time)
        assert len(await client.do("GET", "/fapi/v1/forceOrders", autoCloseType="LIQUIDATION")) == 1
        assert await client.do("GET", "/fapi/v1/forceOrders", symbol="ETHUSDT") == []
        assert await client.do("GET", "/fapi/v1/forceOrders", autoCloseType="ADL") == []
        assert await client.refused("GET", "/fapi/v1/forceOrders", autoCloseType="OTHER") == -1130


def test_of_one_second_only_the_largest_liquidation_is_told() -> None:
    def forced(symbol: str, quantity: int, time_ms: int) -> Order:
        amount, price = Decimal(quantity), Decimal(7)
        order = Order(
            *(1, "autoclose-1", symbol, "SELL", "BOTH", "LIQUIDATION", "IOC", price, amount, True, time_ms, time_ms)
        )
        order.executed, order.quote, order.status = amount, amount * price, "FILLED"
        return order

    public = ForcedOrders()
    public.add(
        [forced("BTCUSDT", 1, 500), forced("BTCUSDT", 3, 600), forced("ETHUSDT", 2, 700), forced("BTCUSDT", 2, 999)]
    )
    assert public.messages(999) == {}
    public.add([forced("BTCUSDT", 9, 1_000)])
    told = public.messages(1_000)
    assert [parse_public(event).order.quantity for event in told["!forceOrder@arr"]] == [3, 2]  # type: ignore[union-attr]
    assert told.keys() == {"btcusdt@forceOrder", "ethusdt@forceOrder", "!forceOrder@arr"}
    assert public.messages(1_000) == {}
    assert [msgspec.json.decode(event)["o"]["q"] for event in public.messages(2_500)["btcusdt@forceOrder"]] == ["9"]


async def test_a_connection_that_sends_too_much_is_closed() -> None:
    async with exchange(weight_limit=2_400) as client, taking(client.simulator.ws_url + "/market/ws") as taken:
        for number in range(11):
            await taken.socket.send_str(f'{{"method":"LIST_SUBSCRIPTIONS","id":{number}}}')
        await taken.ended.wait()
        assert taken.socket.close_code == 1008
        assert len(taken) == 10


async def test_a_connection_holds_1024_streams() -> None:
    async with exchange() as client, taking(client.simulator.ws_url + "/market/ws") as taken:
        names = ",".join(f'"x{number}usdt@kline_1m"' for number in range(1024))
        assert await taken.ask(f'{{"method":"SUBSCRIBE","params":[{names}],"id":1}}') == '{"result":null,"id":1}'
        assert '"code":2' in await taken.ask('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":2}')


@settings(max_examples=20, deadline=None)
@given(gaps=st.lists(st.integers(1, 900), min_size=1, max_size=30), before=st.integers(0, 3_000))
def test_a_day_is_the_last_1440_minutes_whatever_is_missing(gaps: list[int], before: int) -> None:
    """Against every bar kept: minutes are missing, and the window is moved many times over."""
    times = np.concatenate([np.arange(before), before + np.cumsum(np.repeat(gaps, 40))]) * MINUTE_MS
    bars = np.zeros(times.size, dtype=BAR)
    bars["open_time"], bars["trades"] = times, 1.0
    for name in ("open", "high", "low", "close", "volume", "quote_volume"):
        bars[name] = np.arange(times.size) + 1.0
    window = DayWindow(bars[:before])
    for i in range(before, times.size):
        found = window.until(bars[i : i + 1])
        inside = bars[: i + 1][bars["open_time"][: i + 1] > times[i] - DAY_MS]
        assert (found.open_time, found.trades) == (inside["open_time"][0], inside.size)
        assert float(found.volume) == inside["volume"].sum()
        window.add(bars[i : i + 1])
