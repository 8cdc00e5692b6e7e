"""Our own client on the simulated exchange: a stop that triggers, another position mode, a stream that is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any

import aiohttp
import pytest

from market.binance.account import AccountClient
from market.binance.errors import OrderRefused
from market.binance.orders import AlgoOrder, AlgoType, Direction, Order, WorkingType
from market.binance.position_mode import Mode, PositionSide
from market.binance.signing import Credentials
from market.binance.trading import Trading
from market.binance.transport import Transport
from market.binance.user_stream import UserStream
from market.simulator.faults import FaultRequest
from tests.market.private_helpers import KEY, SECRET, Client, exchange

SYMBOL = "BTCUSDT"


@asynccontextmanager
async def ours() -> AsyncIterator[tuple[Client, AccountClient, Trading]]:
    """A stepped exchange and our client on it, its position mode known."""
    async with exchange() as client, aiohttp.ClientSession() as session:
        transport = Transport(client.simulator.url, session, credentials=Credentials(KEY, SECRET))
        account = AccountClient(transport)
        await account.mode.refresh()
        yield client, account, Trading(transport, account.mode)


def entry(name: str, **more: Any) -> Order:
    return Order(symbol=SYMBOL, direction=Direction.LONG, client_id=name, quantity=Decimal("0.05"), **more)


async def test_a_trade_from_entry_to_exit() -> None:
    async with ours() as (client, account, trading):
        placed = await trading.place(entry("in"))
        assert placed.status == "FILLED"
        (position,) = await account.positions()
        assert position.position_amt == Decimal("0.05")
        low = (await client.last() * Decimal("0.98")).quantize(Decimal("0.1"))
        stop = AlgoOrder(
            symbol=SYMBOL,
            direction=Direction.LONG,
            client_id="stop",
            held_as=PositionSide.BOTH,
            type=AlgoType.STOP_MARKET,
            trigger_price=low,
            working_type=WorkingType.MARK,
        )
        await trading.place_algo(stop)
        assert [each.client_algo_id for each in await account.open_algo_orders()] == ["stop"]
        client.simulator.ask(FaultRequest(mark={SYMBOL: Decimal("-0.03")}))
        await client.simulator.step(1)
        assert await account.positions() == []
        assert (await trading.algo_order(SYMBOL, "stop")).algo_status == "FINISHED"


async def test_the_other_position_mode_is_noticed() -> None:
    async with ours() as (client, account, trading):
        await client.do("POST", "/fapi/v1/positionSide/dual", dualSidePosition="true")
        await trading.place(entry("flipped"))
        assert trading.mode.known is Mode.HEDGE
        assert [position.position_amt for position in await account.positions()] == [Decimal("0.05")]


async def test_what_is_refused_is_told() -> None:
    async with ours() as (_, _, trading):
        leaving = Order(
            symbol=SYMBOL,
            direction=Direction.LONG,
            client_id="out",
            quantity=Decimal("0.05"),
            held_as=PositionSide.BOTH,
        )
        with pytest.raises(OrderRefused):
            await trading.place(leaving)


class Listener:
    """A consumer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.reconciled = 0
        self.news = asyncio.Event()

    async def reconcile(self, snapshot: Any, reason: str) -> None:
        self.reconciled += 1
        self.news.set()

    async def event(self, event: Any) -> None:
        self.told.append(event)
        self.news.set()

    def rejected(self, error: Any) -> None:
        raise error

    async def until(self, condition: Any) -> None:
        while not condition():
            self.news.clear()
            await self.news.wait()


async def test_the_user_stream_is_heard_and_reconciled_after_a_cut() -> None:
    async with ours() as (client, account, trading), aiohttp.ClientSession() as session:
        listener = Listener()
        stream = UserStream(client.simulator.ws_url, session, account, listener, jitter=Random(1), first_pause_s=0.01)
        running = asyncio.create_task(stream.run())
        try:
            await listener.until(lambda: listener.reconciled == 1)
            await trading.place(entry("heard"))
            await listener.until(lambda: len(listener.told) >= 3)
            client.simulator.ask(FaultRequest(disconnect=True))
            await listener.until(lambda: listener.reconciled == 2)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
