"""A symbol whose recording ends before the others': what the exchange says and does about it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from market.bars import MINUTE_MS
from market.simulator.delistings import Delistings
from market.simulator.exchange_info import DELIVERY_MS
from market.simulator.tape import Listing
from tests.market.exchange_helpers import START, MemorySource, cut, taking
from tests.market.private_helpers import Client, exchange, listening, settled

END = START + 45 * MINUTE_MS
"""ETHUSDT leaves three quarters of an hour after the start."""

D = Decimal


def ragged() -> MemorySource:
    before, later = START - 60 * MINUTE_MS, END + 60 * MINUTE_MS
    bars = {
        "BTCUSDT": cut(before, later).klines("BTCUSDT", 0, later),
        "ETHUSDT": cut(before, END).klines("ETHUSDT", 0, later),
    }
    return MemorySource(bars)


async def info(client: Client) -> dict[str, Any]:
    found = (await client.send("GET", "/fapi/v1/exchangeInfo"))[1]["symbols"]
    return next(each for each in found if each["symbol"] == "ETHUSDT")


async def seconds(source: MemorySource) -> list[float]:
    """The last price at every second of the last half hour, by the bars alone."""
    found = []
    for bar in source.klines("ETHUSDT", END - 30 * MINUTE_MS, END):
        opened, high, low, close = (float(bar[name]) for name in ("open", "high", "low", "close"))
        corners = [opened, low, high, close] if close >= opened else [opened, high, low, close]
        for second in range(1, 61):
            leg = min(2, (second * 3) // 60) if second < 60 else 2
            part = second / 20 - leg
            found.append(corners[leg] + (corners[leg + 1] - corners[leg]) * part)
    return found


async def test_a_symbol_leaves() -> None:
    source = ragged()
    some = {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "1"}
    closing = {**some, "side": "SELL", "reduceOnly": "true"}
    names = "/market/stream?streams=ethusdt@markPrice/ethusdt@kline_1m"
    async with (
        exchange(source=source) as client,
        listening(client) as heard,
        taking(client.simulator.ws_url + names) as taken,
    ):
        await client.do("POST", "/fapi/v1/order", **{**some, "quantity": "3"})
        price = (D(str(source.klines("ETHUSDT", START, END)["low"].min())) * D("0.95")).quantize(D("0.01"))
        limit = {**some, "type": "LIMIT", "timeInForce": "GTC", "price": price}
        await client.do("POST", "/fapi/v1/order", **limit)
        before = await info(client)
        assert (before["status"], before["deliveryDate"]) == ("TRADING", DELIVERY_MS)
        await client.simulator.step(30)
        leaving = await info(client)
        assert (leaving["status"], leaving["deliveryDate"]) == ("TRADING", END)
        assert await client.refused("POST", "/fapi/v1/order", **some) == -4140
        await client.do("POST", "/fapi/v1/order", **closing)
        marks = await client.send("GET", "/fapi/v1/premiumIndex", "symbol=ETHUSDT")
        (risk,) = await client.do("GET", "/fapi/v3/positionRisk", symbol="ETHUSDT")
        assert D(marks[1]["markPrice"]) == D(risk["markPrice"]) != D(marks[1]["indexPrice"])
        await settled(heard)
        wallet = client.simulator.trading.venue.state.accounts["key"].wallet
        await client.simulator.step(16)
        assert (await info(client))["status"] == "SETTLING"
        assert await client.refused("POST", "/fapi/v1/order", **some) == -1122
        assert not await client.do("GET", "/fapi/v1/openOrders", symbol="ETHUSDT")
        assert not await client.do("GET", "/fapi/v3/positionRisk")
        told = [event for event in await settled(heard) if event["e"] == "ORDER_TRADE_UPDATE"]
        assert [(event["o"]["X"], event["o"]["er"]) for event in told] == [("EXPIRED", "7"), ("FILLED", "0")]
        done = told[1]["o"]
        assert done["T"] == END
        assert done["c"].startswith("settlement_autoclose-")
        every = await seconds(source)
        assert len(every) == 1_800
        assert float(done["L"]) == pytest.approx(sum(every) / len(every), rel=1e-6)
        money = client.simulator.trading.venue.state.accounts["key"].wallet
        assert money == wallet + D(done["rp"]) - D(done["n"])
        last = [msgspec.json.decode(text)["data"] for text in taken]
        stated = [event for event in last if event["e"] == "markPriceUpdate"]
        assert stated[-1]["E"] < END  # a symbol that has left has no mark price any more
        assert abs(float(stated[-1]["p"]) / float(done["L"]) - 1) < 1e-4
        assert max(event["E"] for event in last if event["e"] == "kline") < END + 3_000


def test_a_ragged_edge_is_no_delisting() -> None:
    def listing(end_ms: int) -> Listing:
        return Listing(0, end_ms, 2, 1.0)

    found = Delistings(
        {"A": listing(END), "B": listing(END - 15 * MINUTE_MS), "C": listing(END - 16 * MINUTE_MS)}, price
    )
    assert found.ends == {"C": END - 16 * MINUTE_MS}
    assert found.follow(END - 46 * MINUTE_MS) == found.ended(END - 17 * MINUTE_MS) == set()
    assert found.follow(END - 30 * MINUTE_MS) == {"C"}
    assert found.ended(END - 16 * MINUTE_MS) == {"C"}


def price(symbol: str, time_ms: int) -> Decimal | None:
    """Known in every other second."""
    return Decimal(time_ms % 60_000) if time_ms % 2_000 == 0 else None


def test_the_mean_is_of_the_seconds_that_are_known() -> None:
    end = 60 * MINUTE_MS
    found = Delistings({"A": Listing(0, 2 * end, 2, 1.0), "C": Listing(0, end, 2, 1.0)}, price)
    assert found.mark("A", end) is None
    assert found.mark("C", end - 30 * MINUTE_MS) is None
    assert found.mark("C", end - 30 * MINUTE_MS + 1_999) is None
    assert found.mark("C", end - 30 * MINUTE_MS + 4_999) == 3_000
    assert found.mark("C", end) == found.mark("C", end + 99_999) == 29_000


async def test_what_was_held_when_it_left_is_settled_after_a_restart(tmp_path: Any) -> None:
    """Nobody moved the time while the symbol left: the last mark price is all that is known."""
    kept = tmp_path / "state.json"
    some = {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "1"}
    async with exchange(source=ragged(), state=kept) as client:
        await client.do("POST", "/fapi/v1/order", **some)
    from market.simulator.options import Options
    from market.simulator.server import Simulator
    from tests.market.private_helpers import ACCOUNTS

    options = Options(accounts=ACCOUNTS, check=True, state=kept)
    async with Simulator(ragged(), END + MINUTE_MS, stepped=True, options=options) as simulator:
        await simulator.step(1)
        account = simulator.trading.venue.state.accounts["key"]
        assert not account.held_positions()
        assert account.past_orders[max(account.past_orders)].client_id.startswith("settlement_autoclose-")


async def test_only_what_is_listed_is_traded() -> None:
    start, later = START + 30 * MINUTE_MS, START + 60 * MINUTE_MS
    whole, short = cut(START - 60 * MINUTE_MS, later), cut(START - 60 * MINUTE_MS, start)
    late = cut(start, later)
    sources = {"BTCUSDT": whole, "ETHUSDT": short, "DOGEUSDT": late}
    bars = {symbol: source.klines(symbol, 0, later) for symbol, source in sources.items()}
    some = {"side": "BUY", "type": "MARKET", "quantity": "100"}
    async with exchange(source=MemorySource(bars)) as client:
        assert await client.refused("POST", "/fapi/v1/order", symbol="DOGEUSDT", **some) == -1121
        await client.do("POST", "/fapi/v1/order", symbol="ETHUSDT", **{**some, "quantity": "1"})
        await client.simulator.step(31)
        assert await client.refused("POST", "/fapi/v1/order", symbol="ETHUSDT", **some) == -1122
        await client.do("POST", "/fapi/v1/order", symbol="DOGEUSDT", **some)
        orders = '[{"symbol":"ETHUSDT","side":"BUY","type":"MARKET","quantity":"1"}]'
        (row,) = await client.do("POST", "/fapi/v1/batchOrders", batchOrders=orders)
        assert row["code"] == -1122
        assert len(await client.do("GET", "/fapi/v1/userTrades", symbol="ETHUSDT")) == 2  # its own, and the settlement
