"""The client's account side against the simulated exchange: orders, protection, modes, the user stream, and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from random import Random

import aiohttp
import pytest

from market.binance.account import AccountClient
from market.binance.errors import AccessRefused, OrderRefused, OrderUnknown
from market.binance.orders import AlgoOrder, AlgoType, Direction, Order, TimeInForce
from market.binance.position_mode import Mode, PositionSide
from market.binance.rest import MarketDataClient
from market.binance.rules import Side, rules_of
from market.binance.signing import Credentials
from market.binance.transport import Transport
from market.binance.user_events import OrderUpdate, UserEvent
from market.binance.user_stream import Snapshot, UserStream
from market.simulator.options import Options
from market.simulator.rest_faults import RestFault
from market.simulator.server import Simulator
from market.simulator.trading import AccountSpec
from tests.market.binance.test_bar_stream import soon
from tests.market.exchange_helpers import MARKET, START

D = Decimal
SYMBOL = "BTCUSDT"


@asynccontextmanager
async def trading() -> AsyncIterator[tuple[Simulator, AccountClient, MarketDataClient, aiohttp.ClientSession]]:
    options = Options(accounts=(AccountSpec("key", "secret", D(10_000)),), check=True)
    async with Simulator(MARKET, START, stepped=True, options=options) as simulator:
        await simulator.step()
        async with aiohttp.ClientSession() as session:
            transport = Transport(simulator.url, session, credentials=Credentials("key", "secret"))
            yield simulator, AccountClient(transport), MarketDataClient(simulator.url, session), session


async def sized(market: MarketDataClient) -> tuple[Decimal, Decimal]:
    """A quantity that fits, and the mark price."""
    info = await market.exchange_info()
    rules = next(rules_of(each) for each in info.symbols if each.symbol == SYMBOL)
    mark = D(str((await market.premium_index())[SYMBOL].mark_price))
    return rules.fit(Side.BUY, D(1000) / mark, None, mark).quantity, mark


def entry(quantity: Decimal, client_id: str = "in-1") -> Order:
    return Order(symbol=SYMBOL, direction=Direction.LONG, client_id=client_id, quantity=quantity)


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_trade_from_entry_to_exit_with_its_protection(mode: Mode) -> None:
    async with trading() as (simulator, account, market, _):
        await account.mode.set(mode)
        assert await account.mode.refresh() is mode
        brackets = await account.leverage_brackets()
        report = await account.set_leverage(SYMBOL, 5, brackets.clamp(SYMBOL, 5, D(1000)))
        assert (report.leverage, report.failure) == (5, None)
        quantity, mark = await sized(market)
        placed = await account.orders.place(entry(quantity))
        await simulator.step()
        done = await account.orders.order(SYMBOL, "in-1")
        assert (done.status, done.executed_qty, placed.client_order_id) == ("FILLED", quantity, "in-1")
        (held,) = [each for each in await account.positions() if each.position_amt]
        assert held.position_amt == quantity
        assert held.position_side is (PositionSide.BOTH if mode is Mode.ONE_WAY else PositionSide.LONG)
        trigger = (mark * D("0.5")).quantize(D("0.1"))
        stop = AlgoOrder(
            symbol=SYMBOL,
            direction=Direction.LONG,
            client_id="stop-1",
            held_as=held.position_side,
            type=AlgoType.STOP_MARKET,
            trigger_price=trigger,
        )
        assert (await account.orders.place_algo(stop)).open
        assert [each.client_algo_id for each in await account.open_algo_orders()] == ["stop-1"]
        assert not (await account.orders.cancel_algo(SYMBOL, "stop-1")).open
        leave = Order(
            symbol=SYMBOL, direction=Direction.LONG, client_id="out-1", quantity=quantity, held_as=held.position_side
        )
        await account.orders.place(leave)
        await simulator.step()
        assert (await account.orders.order(SYMBOL, "out-1")).status == "FILLED"
        assert [each for each in await account.positions() if each.position_amt] == []
        fills = await account.trades(SYMBOL, START, START + 600_000)
        assert [fill.side for fill in fills] == [Side.BUY, Side.SELL]


async def test_refusals_are_those_of_the_venue() -> None:
    async with trading() as (_, account, market, session):
        quantity, mark = await sized(market)
        with pytest.raises(OrderRefused) as caught:
            await account.orders.place(entry(quantity * 300))
        assert caught.value.code in (-2019, -2027)
        with pytest.raises(OrderUnknown):
            await account.orders.cancel(SYMBOL, "nobody")
        limit = Order(
            symbol=SYMBOL,
            direction=Direction.LONG,
            client_id="low-1",
            quantity=quantity * 2,
            price=(mark * D("0.9")).quantize(D("0.1")),
            time_in_force=TimeInForce.GTX,
        )
        assert (await account.orders.place(limit)).open
        assert (await account.orders.cancel(SYMBOL, "low-1")).status == "CANCELED"
        assert (await account.orders.cancel(SYMBOL, "low-1")).status == "CANCELED", "and again"
        stranger = Transport(market.base_url, session, credentials=Credentials("key", "wrong"))
        with pytest.raises(AccessRefused):
            await AccountClient(stranger).account()


@pytest.mark.parametrize("kind", ["503_unknown", "unexpected_response", "timeout", "502", "no_answer", "engine_window"])
async def test_an_order_whose_answer_is_lost_is_done_once(kind: str) -> None:
    """The venue carries it out and says otherwise; -5028 is said before and leads to a second sending."""
    async with trading() as (simulator, account, market, _):
        quantity, _mark = await sized(market)
        await account.mode.refresh()
        when = "before" if kind == "engine_window" else "after"
        simulator.rest_faults.add([RestFault(kind=kind, method="POST", path="/fapi/v1/order", when=when)])
        placed = await account.orders.place(entry(quantity))
        assert placed.client_order_id == "in-1"
        await simulator.step()
        (held,) = [each for each in await account.positions() if each.position_amt]
        assert held.position_amt == quantity


class Desk:
    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.events: list[UserEvent] = []

    async def reconcile(self, snapshot: Snapshot, reason: str) -> None:
        self.snapshots.append(snapshot)

    async def event(self, event: UserEvent) -> None:
        self.events.append(event)

    def rejected(self, error: Exception) -> None:
        raise AssertionError(error)


async def test_the_user_stream_tells_what_becomes_of_an_order() -> None:
    async with trading() as (simulator, account, market, session):
        quantity, _mark = await sized(market)
        desk = Desk()
        stream = UserStream(simulator.ws_url, session, account, desk, jitter=Random(1))
        task = asyncio.create_task(stream.run())
        await soon(lambda: stream.current)
        await account.orders.place(entry(quantity))
        await simulator.step()
        await soon(lambda: any(isinstance(each, OrderUpdate) and each.order.status == "FILLED" for each in desk.events))
        assert len(desk.snapshots) == 1
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
