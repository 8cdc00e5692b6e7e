"""Public data of the simulated exchange that follows the last price: books, tickers, trades."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.market.exchange_helpers import taking
from tests.market.private_helpers import exchange


async def test_the_book_can_be_kept_from_a_snapshot_and_its_changes() -> None:
    async with exchange() as client, taking(client.simulator.ws_url + "/public/ws/btcusdt@depth@100ms") as taken:
        await client.simulator.step(2)
        snapshot = (await client.send("GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=1000"))[1]
        taken_before = len(taken)
        await client.simulator.step(5)
        sides = {"b": dict(map(tuple, snapshot["bids"])), "a": dict(map(tuple, snapshot["asks"]))}
        previous = snapshot["lastUpdateId"]
        for text in taken[taken_before:]:
            event: dict[str, Any] = msgspec.json.decode(text)
            assert event["pu"] == previous == event["U"] - 1
            previous = event["u"]
            for name, side in sides.items():
                side.update(map(tuple, event[name]))
        kept = {name: {p: q for p, q in side.items() if q != "0"} for name, side in sides.items()}
        now = (await client.send("GET", "/fapi/v1/depth", "symbol=BTCUSDT&limit=20"))[1]
        assert (kept["b"], kept["a"]) == (dict(map(tuple, now["bids"])), dict(map(tuple, now["asks"])))
        bids, asks = ([Decimal(price) for price in kept[name]] for name in ("b", "a"))
        assert max(bids) < min(asks)


@pytest.mark.parametrize(
    ("stream", "kind", "right", "wrong"),
    [
        ("btcusdt@bookTicker", "bookTicker", "public", "market"),
        ("btcusdt@depth5@100ms", "depthUpdate", "public", "market"),
        ("btcusdt@aggTrade", "aggTrade", "market", "public"),
        ("btcusdt@kline_1m", "kline", "market", "public"),
        ("btcusdt@markPrice@1s", "markPriceUpdate", "market", "private"),
    ],
)
async def test_a_stream_delivers_on_its_route_alone(stream: str, kind: str, right: str, wrong: str) -> None:
    root = "/{}/stream?streams=" + stream
    async with (
        exchange() as client,
        taking(client.simulator.ws_url + root.format(right)) as heard,
        taking(client.simulator.ws_url + root.format(wrong)) as silent,
        taking(client.simulator.ws_url + root.format("market").removeprefix("/market")) as unrouted,
    ):
        await client.simulator.step(1)
        assert {msgspec.json.decode(text)["data"]["e"] for text in heard} == {kind}
        assert silent == unrouted == []
        acknowledged = await silent.ask(f'{{"method":"SUBSCRIBE","params":["{stream}"],"id":4}}')
        assert acknowledged == '{"result":null,"id":4}'


async def test_tickers_agree_with_one_another() -> None:
    async with exchange() as client:
        await client.simulator.step(3)
        one = "symbol=BTCUSDT"
        price = (await client.send("GET", "/fapi/v2/ticker/price", one))[1]["price"]
        best = (await client.send("GET", "/fapi/v1/ticker/bookTicker", one))[1]
        assert Decimal(best["bidPrice"]) < Decimal(price) < Decimal(best["askPrice"])
        day = (await client.send("GET", "/fapi/v1/ticker/24hr", one))[1]
        assert Decimal(day["lowPrice"]) <= Decimal(day["lastPrice"]) <= Decimal(day["highPrice"])
        assert abs(Decimal(day["lastPrice"]) / Decimal(price) - 1) < Decimal("0.001")
        assert len((await client.send("GET", "/fapi/v1/ticker/24hr"))[1]) == 3
        assert client.headers["X-MBX-USED-WEIGHT-1M"]
        trades = (await client.send("GET", "/fapi/v1/aggTrades", one + "&limit=5"))[1]
        assert len(trades) == 5
        assert all(trade["T"] <= client.simulator.clock.now_ms for trade in trades)
        plain = (await client.send("GET", "/fapi/v1/klines", one + "&interval=1m"))[1]
        paired = (
            await client.send("GET", "/fapi/v1/continuousKlines", "pair=BTCUSDT&contractType=PERPETUAL&interval=1m")
        )[1]
        assert plain == paired


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [("depth", "symbol=BTCUSDT&limit=7", -1130), ("depth", "", -1102), ("trades", "symbol=NOSUCHUSDT", -1121)],
)
async def test_public_errors(path: str, query: str, code: int) -> None:
    async with exchange() as client:
        assert (await client.send("GET", f"/fapi/v1/{path}", query))[1]["code"] == code


async def test_all_mark_prices_come_together() -> None:
    names = "btcusdt@markPrice/!markPrice@arr@1s"
    async with exchange() as client, taking(client.simulator.ws_url + "/market/stream?streams=" + names) as taken:
        await client.simulator.step(2)
        found = [msgspec.json.decode(text) for text in taken]
        together = [each["data"] for each in found if each["stream"] == "!markPrice@arr@1s"]
        alone = [each["data"] for each in found if each["stream"] == "btcusdt@markPrice"]
        assert [[event["s"] for event in events] for events in together] == [["BTCUSDT", "ETHUSDT", "DOGEUSDT"]] * 2
        assert [events[0] for events in together] == alone


async def test_messages_have_the_fields_of_recorded_ones(shared_data: Path) -> None:
    names = ("btcusdt@depth@0ms", "btcusdt@bookTicker", "btcusdt@trade")
    wanted: dict[str, Any] = {}
    with gzip.open(shared_data / "exchange" / "btcusdt_stream_20240808.gz", "rt") as lines:
        for line in lines:
            message = msgspec.json.decode(line.partition(" ")[2])
            wanted.setdefault(message.get("stream", "depth"), message.get("data", message))
            if len(wanted) == len(names) + 1:
                break
    url = "/public/stream?streams=" + "/".join(names)
    async with exchange() as client, taking(client.simulator.ws_url + url) as taken:
        await client.simulator.step(2)
        made = {message["stream"]: message["data"] for message in map(msgspec.json.decode, taken)}
        made["depth"] = (await client.send("GET", "/fapi/v1/depth", "symbol=BTCUSDT"))[1]
    assert made.keys() == wanted.keys()
    for name, event in wanted.items():
        assert event.keys() <= made[name].keys()
        assert {key: type(value) for key, value in event.items()}.items() <= {
            key: type(value) for key, value in made[name].items()
        }.items()
