"""The project's own client against the simulator at argv[1]: rows of the matrix on standard output.

What it has no method for, because nothing here needs it (an order amended, a batch, the book over REST, …), goes as a
bare call through its transport: signed, counted, decoded and refused as all others.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from decimal import Decimal

import aiohttp
from matrix import SYMBOL, Matrix, expect
from own import LOT, Own, stop, until
from own_errors import mapping
from own_streams import streams

from market.bars import MINUTE_MS
from market.binance.answers import OrderState
from market.binance.orders import AlgoOrder, AlgoType, Direction, Order, TimeInForce, WorkingType
from market.binance.position_mode import Mode, PositionSide
from market.binance.public_events import DepthSnapshot
from market.binance.rules import all_rules


async def public(m: Matrix, own: Own) -> None:
    """Public data."""

    async def info() -> str:
        found, without = all_rules(await own.data.exchange_info())
        expect(set(found) == {"BTCUSDT", "ETHUSDT"} and not without, (found, without))
        return f"{len(found)} symbols with their rules"

    async def klines() -> str:
        step = 5 * MINUTE_MS
        now = await own.data.server_time() // step * step
        found = await own.data.klines(SYMBOL, "5m", now - 50 * step, now)
        expect(len(found) == 50 and (found["high"] >= found["low"]).all(), found[:1])
        return "50 bars"

    async def book() -> str:
        found = await own.public("/fapi/v1/depth", DepthSnapshot, symbol=SYMBOL, limit=20)
        expect(found.bids[0][0] < found.asks[0][0] and len(found.bids) == 20, found)
        return f"{found.bids[0][0]} / {found.asks[0][0]}"

    async def ticker() -> str:
        found = await own.public("/fapi/v1/ticker/24hr", symbol=SYMBOL)
        expect(float(found["lastPrice"]) > 0, found)
        return f"last {found['lastPrice']}"

    async def funding() -> str:
        found = (await own.data.premium_index())[SYMBOL]
        now = await own.data.server_time()
        history = await own.data.funding_rates(SYMBOL, now - 2 * 1440 * MINUTE_MS, now)
        expect(found.mark_price > 0 and len(history) >= 3, (found, history))
        return f"mark {found.mark_price}, {len(history)} fundings"

    async def trades() -> str:
        return f"{len(await own.public('/fapi/v1/trades', symbol=SYMBOL, limit=10))} trades"

    async def clock() -> str:
        off = await own.data.server_time() - time.time() * 1e3
        expect(abs(off) < 1_000, off)
        return f"{off:.0f} ms from this machine's"

    for name, call in (
        ("server time", clock),
        ("exchange info", info),
        ("klines", klines),
        ("order book", book),
        ("ticker 24h", ticker),
        ("funding rate and history, mark price", funding),
        ("trades", trades),
    ):
        await m.row(name, call)


async def account(m: Matrix, own: Own) -> None:
    """Signed account calls and settings."""
    a = own.account

    async def balance() -> str:
        found = await a.account()
        expect(found.total_wallet_balance == found.available_balance == 100_000, found)
        return str(found.total_wallet_balance)

    async def mode() -> str:
        told = []
        for wanted in (Mode.HEDGE, Mode.HEDGE, Mode.ONE_WAY):
            await a.mode.set(wanted)
            told.append(await a.mode.refresh())
        expect(told == [Mode.HEDGE, Mode.HEDGE, Mode.ONE_WAY], told)
        return "hedge, once more, and back"

    async def leverage() -> str:
        brackets = await a.leverage_brackets()
        most = brackets.bracket(SYMBOL, Decimal(0))
        expect(most is not None and most.initial_leverage == 150, most)
        expect(brackets.clamp(SYMBOL, 500, Decimal(0)).leverage == 125, "more than 125 is never asked for")
        report = await a.set_leverage(SYMBOL, 10, brackets.clamp(SYMBOL, 10, Decimal(0)))
        found = (await a.symbol_config(SYMBOL))[0].leverage
        expect((report.leverage, report.failure, found) == (10, None, 10), (report, found))
        return "10, brackets read"

    async def margin_type() -> str:
        for isolated in (True, True, False):
            await a.set_margin_type(SYMBOL, isolated=isolated)
            found = (await a.symbol_config(SYMBOL))[0].margin_type
            expect(found == ("ISOLATED" if isolated else "CROSSED"), found)
        return "isolated, once more, and back"

    async def fees() -> str:
        found = await a.commission(SYMBOL)
        rates = (found.maker_commission_rate, found.taker_commission_rate)
        expect(rates == (Decimal("0.0002"), Decimal("0.0005")), found)
        return " / ".join(map(str, rates))

    for name, call in (
        ("balance", balance),
        ("position mode", mode),
        ("leverage and brackets", leverage),
        ("margin type", margin_type),
        ("commission rate", fees),
    ):
        await m.row(name, call)


async def orders(m: Matrix, own: Own) -> None:
    """Orders of every type, and their cancelling."""
    o, a = own.orders, own.account
    low, high = await own.prices()

    def limit_order(price: Decimal, in_force: TimeInForce) -> Order:
        return own.order(price=price, time_in_force=in_force)

    async def market() -> str:
        order = own.order()
        placed = await o.place(order)
        found = await o.order(SYMBOL, order.client_id)
        expect((placed.status, found.status, found.executed_qty) == ("FILLED", "FILLED", LOT), (placed, found))
        return f"filled at {found.avg_price}"

    async def limit() -> str:
        order = limit_order(low, TimeInForce.GTC)
        placed = await o.place(order)
        seen = [each.client_order_id for each in await a.open_orders(SYMBOL)]
        fields = {"symbol": SYMBOL, "side": "BUY", "orderId": placed.order_id, "quantity": 2 * LOT, "price": low}
        changed = await own.bare("PUT", "/fapi/v1/order", OrderState, **fields)
        gone = await o.cancel(SYMBOL, order.client_id)
        again = await o.cancel(SYMBOL, order.client_id)
        expect(seen == [order.client_id] and changed.orig_qty == 2 * LOT, (seen, changed))
        expect(gone.status == again.status == "CANCELED", (gone, again))
        return "placed, amended, cancelled, cancelled again"

    async def in_force() -> str:
        found = [(await o.place(limit_order(price, TimeInForce.IOC))).status for price in (high, low)]
        expect(found == ["FILLED", "EXPIRED"], found)
        return str(found)

    async def fill_or_kill() -> str:
        placed = await o.place(limit_order(high, TimeInForce.FOK))
        expect(placed.status == "FILLED", placed)
        return "filled"

    async def post_only() -> str:
        order = own.order(Direction.SHORT, price=high, time_in_force=TimeInForce.GTX)
        placed = await o.place(order)
        await o.cancel(SYMBOL, order.client_id)
        expect((placed.status, placed.time_in_force) == ("NEW", "GTX"), placed)
        return "rests"

    async def batch() -> str:
        one = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": str(LOT)}
        both = json.dumps([{**one, "price": str(low)}, {**one, "price": "1"}])
        found = await own.bare("POST", "/fapi/v1/batchOrders", batchOrders=both)
        await a.cancel_all(SYMBOL)
        expect(found[0]["status"] == "NEW" and found[1]["code"] == -4164, found)
        expect(not await a.open_orders(SYMBOL), found)
        return "one placed, one refused, all cancelled"

    async def all_gone() -> str:
        await o.place(limit_order(low, TimeInForce.GTC))
        await o.place_algo(stop(own, low))
        await a.cancel_all(SYMBOL)
        left = (await a.open_orders(SYMBOL), await a.open_algo_orders(SYMBOL))
        expect(left == ([], []), left)
        await o.place(limit_order(low, TimeInForce.GTC))
        counted = await a.countdown_cancel_all(SYMBOL, 60_000)
        stopped = await a.countdown_cancel_all(SYMBOL, 0)
        expect((counted.countdown_time, stopped.countdown_time) == (60_000, 0), (counted, stopped))
        await a.countdown_cancel_all(SYMBOL, 500)

        async def run_out() -> bool:
            return not await a.open_orders(SYMBOL)

        await until(run_out)
        return "all cancelled, conditional ones too; countdown set, stopped, run out"

    async def positions() -> str:
        (found,) = await a.positions(SYMBOL)
        expect(found.position_amt == 3 * LOT and found.entry_price > 0, found)
        return f"{found.position_amt} from {found.entry_price}"

    async def reduce_only() -> str:
        placed = await o.place(own.leave(Direction.LONG, 5 * LOT))
        expect(placed.executed_qty == 3 * LOT and not await a.positions(SYMBOL), placed)
        return "closed, no more than there was"

    async def history() -> str:
        now = await own.data.server_time()
        span = (now - 60 * MINUTE_MS, now + MINUTE_MS)
        trades, income = await a.trades(SYMBOL, *span), await a.income(*span)
        every = await own.bare("GET", "/fapi/v1/allOrders", list[OrderState], symbol=SYMBOL)
        expect(len(trades) == 4 and len(every) > 5 and income, (trades, every))
        return f"{len(trades)} trades, {len(every)} orders, {len(income)} changes of the wallet"

    for name, call in (
        ("MARKET", market),
        ("LIMIT GTC, amend, cancel", limit),
        ("LIMIT IOC", in_force),
        ("LIMIT FOK", fill_or_kill),
        ("LIMIT GTX", post_only),
        ("batch, cancel all", batch),
        ("cancel all, countdown", all_gone),
        ("position risk", positions),
        ("reduce-only", reduce_only),
        ("userTrades, allOrders, income", history),
    ):
        await m.row(name, call)


async def conditional(m: Matrix, own: Own) -> None:
    """Conditional orders of every type."""
    o, a = own.orders, own.account
    low, high = await own.prices()
    await o.place(own.order(quantity=5 * LOT))
    leaves = {"direction": Direction.LONG, "held_as": PositionSide.BOTH}
    cases: dict[str, AlgoOrder] = {
        "STOP": stop(own, low, type=AlgoType.STOP, price=low, time_in_force=TimeInForce.GTC),
        "STOP_MARKET": stop(own, low),
        "TAKE_PROFIT": stop(own, high, type=AlgoType.TAKE_PROFIT, price=high, time_in_force=TimeInForce.GTC),
        "TAKE_PROFIT_MARKET": stop(own, high, type=AlgoType.TAKE_PROFIT_MARKET),
        "TRAILING_STOP_MARKET": AlgoOrder(
            symbol=SYMBOL,
            direction=Direction.SHORT,
            client_id=own.name(),
            type=AlgoType.TRAILING_STOP_MARKET,
            quantity=LOT,
            callback_rate=Decimal(2),
        ),
        "stopLossPrice": stop(own, low, **leaves),
    }
    for name, order in cases.items():

        async def place(order: AlgoOrder = order) -> str:
            placed = await o.place_algo(order)
            seen = [(each.client_algo_id, each.order_type) for each in await a.open_algo_orders(SYMBOL)]
            gone = await o.cancel_algo(SYMBOL, order.client_id)
            expect(seen == [(order.client_id, order.type.value)] and gone.algo_status == "CANCELED", (seen, gone))
            expect(placed.reduce_only == order.reduces and not await a.open_algo_orders(SYMBOL), placed)
            return f"algo id {placed.algo_id}, listed, cancelled"

        await m.row(f"algo {name}", place)

    async def triggers() -> str:
        order = stop(own, low, **leaves, quantity=None, working_type=WorkingType.MARK)
        await o.place_algo(order)
        m.faults(mark={SYMBOL: "-0.04"})

        async def finished() -> bool:
            return (await o.algo_order(SYMBOL, order.client_id)).algo_status == "FINISHED"

        try:
            await until(finished)
        finally:
            m.faults(mark={SYMBOL: "0"})
        found = await o.algo_order(SYMBOL, order.client_id)
        expect(found.actual_order_id and not await a.positions(SYMBOL), found)
        return f"FINISHED, child {found.actual_order_id}"

    await m.row("algo closePosition triggers on mark", triggers)


async def main(url: str, quick: bool) -> None:
    """All rows."""
    async with aiohttp.ClientSession() as session:
        m, own = Matrix("perpforge", url), Own(url, session)
        for part in (public, account, orders, conditional, mapping, *(() if quick else (streams,))):
            await part(m, own)


asyncio.run(main(sys.argv[1], "--quick" in sys.argv))
