"""ccxt and ccxt.pro against the simulator at argv[1]: rows of the matrix on standard output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro
from matrix import DOOMED_KEY, KEY, POOR_KEY, SECRET, Matrix, expect

PAIR = "BTC/USDT:USDT"


def client(url: str, key: str = KEY) -> Any:
    """ccxt pointed at the simulator."""
    exchange = ccxt.pro.binanceusdm(
        {"apiKey": key, "secret": SECRET, "options": {"fetchMarkets": {"types": ["linear"]}, "fetchCurrencies": False}}
    )
    for name, address in exchange.urls["api"].items():
        if isinstance(address, str):
            exchange.urls["api"][name] = address.replace("https://fapi.binance.com", url).replace(
                "https://api.binance.com", url
            )
    exchange.urls["api"]["ws"]["linear"] = url.replace("http", "ws", 1) + "/ws"
    # Without this the table of errors is chosen by the venue's own address, and every error is the most general one.
    exchange.get_exceptions_by_url = lambda _url, kind: exchange.exceptions["linear"].get(kind, {})
    return exchange


def raises(kind: type[Exception], call: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[str]]:
    """The operation is to fail with just this class."""

    async def attempt() -> str:
        try:
            found = await call()
        except kind as error:
            expect(type(error) is kind, error)
            return f"{kind.__name__} {error}"
        raise AssertionError(f"not refused: {found}"[:200])

    return attempt


async def public(m: Matrix, e: Any) -> None:
    """Public data."""

    async def markets() -> str:
        found = await e.load_markets()
        expect(found[PAIR]["precision"]["price"] == 0.1 and found[PAIR]["swap"], found[PAIR])
        return f"{len(found)} markets"

    async def klines() -> str:
        found = await e.fetch_ohlcv(PAIR, "5m", limit=50)
        expect(len(found) == 50 and all(row[2] >= row[3] for row in found), found[:2])
        return "50 bars"

    async def book() -> str:
        found = await e.fetch_order_book(PAIR, 20)
        expect(found["bids"][0][0] < found["asks"][0][0], found)
        return f"{found['bids'][0][0]} / {found['asks'][0][0]}"

    async def ticker() -> str:
        found = await e.fetch_ticker(PAIR)
        expect(found["last"] > 0 and found["percentage"] is not None, found)
        return f"last {found['last']}"

    async def funding() -> str:
        found = await e.fetch_funding_rate(PAIR)
        history = await e.fetch_funding_rate_history(PAIR, limit=3)
        expect(found["markPrice"] > 0 and len(history) == 3, (found, history))
        return f"mark {found['markPrice']}"

    async def trades() -> str:
        found = await e.fetch_trades(PAIR, limit=10)
        expect(found, found)
        return f"{len(found)} trades"

    await m.row("server time", e.load_time_difference)
    await m.row("exchange info", markets)
    await m.row("klines", klines)
    await m.row("order book", book)
    await m.row("ticker 24h", ticker)
    await m.row("funding rate and history, mark price", funding)
    await m.row("trades", trades)


async def account(m: Matrix, e: Any) -> None:
    """Signed account calls and settings."""

    async def balance() -> str:
        found = await e.fetch_balance()
        expect(found["USDT"]["total"] == 100_000, found["USDT"])
        return str(found["USDT"])

    async def mode() -> str:
        await e.set_position_mode(True, PAIR)
        hedged = await e.fetch_position_mode(PAIR)
        await e.set_position_mode(False, PAIR)
        expect(hedged["hedged"] is True, hedged)
        return "hedge and back"

    async def leverage() -> str:
        found = await e.set_leverage(10, PAIR)
        expect(int(found["leverage"]) == 10, found)
        tiers = await e.fetch_leverage_tiers([PAIR])
        expect(tiers[PAIR][0]["maxLeverage"] == 150, tiers)
        return "10, tiers read"

    async def margin_mode() -> str:
        await e.set_margin_mode("isolated", PAIR)
        found = await e.fetch_margin_mode(PAIR)
        await e.set_margin_mode("cross", PAIR)
        expect(found["marginMode"] == "isolated", found)
        return "isolated and back"

    async def fees() -> str:
        found = await e.fetch_trading_fee(PAIR)
        expect((found["maker"], found["taker"]) == (0.0002, 0.0005), found)
        return f"{found['maker']} / {found['taker']}"

    await m.row("balance", balance)
    await m.row("position mode", mode)
    await m.row("leverage and brackets", leverage)
    await m.row("margin type", margin_mode)
    await m.row("commission rate", fees)


async def orders(m: Matrix, e: Any) -> None:
    """Orders of every type, and their cancelling."""
    last = float((await e.fetch_ticker(PAIR))["last"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)

    async def market() -> str:
        placed = await e.create_order(PAIR, "market", "buy", 0.01)
        found = await e.fetch_order(placed["id"], PAIR)
        expect(found["status"] == "closed" and found["filled"] == 0.01, found)
        return f"filled at {found['average']}"

    async def limit() -> str:
        placed = await e.create_order(PAIR, "limit", "buy", 0.01, low)
        expect([order["id"] for order in await e.fetch_open_orders(PAIR)] == [placed["id"]], placed)
        changed = await e.edit_order(placed["id"], PAIR, "limit", "buy", 0.02, low)
        gone = await e.cancel_order(placed["id"], PAIR)
        expect(changed["amount"] == 0.02 and gone["status"] == "canceled", (changed, gone))
        return "placed, amended, cancelled"

    async def in_force() -> str:
        taken = await e.create_order(PAIR, "limit", "buy", 0.01, high, {"timeInForce": "IOC"})
        missed = await e.create_order(PAIR, "limit", "buy", 0.01, low, {"timeInForce": "IOC"})
        statuses = [(await e.fetch_order(order["id"], PAIR))["status"] for order in (taken, missed)]
        expect(statuses == ["closed", "expired"], statuses)
        return str(statuses)

    async def fill_or_kill() -> str:
        placed = await e.create_order(PAIR, "limit", "buy", 0.01, high, {"timeInForce": "FOK"})
        expect((await e.fetch_order(placed["id"], PAIR))["status"] == "closed", placed)
        return "filled"

    async def post_only() -> str:
        placed = await e.create_order(PAIR, "limit", "sell", 0.01, high, {"postOnly": True})
        gone = await e.cancel_order(placed["id"], PAIR)
        expect(gone["timeInForce"] in ("PO", "GTX"), gone)
        return "rests"

    async def batch() -> str:
        one = {"symbol": PAIR, "type": "limit", "side": "buy", "amount": 0.01, "price": low}
        placed = await e.create_orders([one, one])
        await e.cancel_all_orders(PAIR)
        expect(len(placed) == 2 and not await e.fetch_open_orders(PAIR), placed)
        return "two placed, all cancelled"

    async def positions() -> str:
        found = await e.fetch_positions([PAIR])
        expect(found[0]["side"] == "long" and found[0]["contracts"] > 0, found)
        return f"{found[0]['contracts']} from {found[0]['entryPrice']}, liquidation {found[0]['liquidationPrice']}"

    async def reduce_only() -> str:
        held = (await e.fetch_positions([PAIR]))[0]["contracts"]
        placed = await e.create_order(PAIR, "market", "sell", held, None, {"reduceOnly": True})
        expect((await e.fetch_order(placed["id"], PAIR))["status"] == "closed", placed)
        expect(not await e.fetch_positions([PAIR]), held)
        return f"closed {held}"

    async def history() -> str:
        trades, every = await e.fetch_my_trades(PAIR), await e.fetch_orders(PAIR)
        income = await e.fetch_ledger("USDT")
        expect(trades[0]["fee"]["cost"] > 0 and len(every) > 5 and income, (trades, every))
        return f"{len(trades)} trades, {len(every)} orders, {len(income)} changes of the wallet"

    for name, call in (
        ("MARKET", market),
        ("LIMIT GTC, amend, cancel", limit),
        ("LIMIT IOC", in_force),
        ("LIMIT FOK", fill_or_kill),
        ("LIMIT GTX", post_only),
        ("batch, cancel all", batch),
        ("position risk", positions),
        ("reduce-only", reduce_only),
        ("userTrades, allOrders, income", history),
    ):
        await m.row(name, call)


async def conditional(m: Matrix, e: Any) -> None:
    """Conditional orders of every type."""
    last = float((await e.fetch_ticker(PAIR))["last"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)
    await e.create_order(PAIR, "market", "buy", 0.05)
    cases: dict[str, tuple[str, str, float | None, dict[str, Any]]] = {
        "STOP": ("STOP", "sell", low, {"triggerPrice": low}),
        "STOP_MARKET": ("STOP_MARKET", "sell", None, {"triggerPrice": low}),
        "TAKE_PROFIT": ("TAKE_PROFIT", "sell", high, {"triggerPrice": high}),
        "TAKE_PROFIT_MARKET": ("TAKE_PROFIT_MARKET", "sell", None, {"triggerPrice": high}),
        "TRAILING_STOP_MARKET": ("TRAILING_STOP_MARKET", "sell", None, {"trailingPercent": 2}),
        "stopLossPrice": ("market", "sell", None, {"stopLossPrice": low, "reduceOnly": True}),
    }
    for name, (kind, side, price, more) in cases.items():

        async def place(
            kind: str = kind, side: str = side, price: float | None = price, more: dict[str, Any] = more
        ) -> str:
            placed = await e.create_order(PAIR, kind, side, 0.01, price, more)
            seen = await e.fetch_open_orders(PAIR, params={"trigger": True})
            expect([order["id"] for order in seen] == [placed["id"]], seen)
            await e.cancel_order(placed["id"], PAIR, {"trigger": True})
            expect(not await e.fetch_open_orders(PAIR, params={"trigger": True}), placed)
            return f"algo id {placed['id']}, listed, cancelled"

        await m.row(f"algo {name}", place)

    async def triggers() -> str:
        stop = {"triggerPrice": low, "closePosition": True, "workingType": "MARK_PRICE"}
        placed = await e.create_order(PAIR, "STOP_MARKET", "sell", None, None, stop)
        m.faults(mark={"BTCUSDT": "-0.04"})
        try:
            for _ in range(100):
                if not await e.fetch_positions([PAIR]):
                    break
                await asyncio.sleep(0.1)
            found = await e.fetch_order(placed["id"], PAIR, {"trigger": True})
        finally:
            m.faults(mark={"BTCUSDT": "0"})
        expect(found["info"]["algoStatus"] == "FINISHED" and found["info"]["actualOrderId"], found)
        return f"FINISHED, child {found['info']['actualOrderId']}"

    await m.row("algo closePosition triggers on mark", triggers)


async def streams(m: Matrix, e: Any) -> None:
    """Market and user streams."""

    async def ohlcv() -> str:
        found = await e.watch_ohlcv(PAIR, "1m")
        return f"{found[-1]}"

    async def trades() -> str:
        return f"{(await e.watch_trades(PAIR))[-1]['price']}"

    async def mark() -> str:
        return f"{(await e.watch_mark_price(PAIR))['markPrice']}"

    async def day() -> str:
        found = await e.watch_ticker(PAIR, {"name": "ticker"})
        mini = (await e.watch_tickers([PAIR], {"name": "miniTicker"}))[PAIR]
        expect(found["low"] <= found["last"] <= found["high"] and mini["open"] > 0, (found, mini))
        return f"{found['percentage']} %, volume {found['baseVolume']}"

    async def tickers() -> str:
        found = await e.watch_tickers(None, {"name": "ticker"})
        expect(set(found) == {PAIR, "ETH/USDT:USDT"}, found)
        return f"{len(found)} symbols"

    async def liquidations() -> str:
        told = asyncio.ensure_future(e.watch_liquidations_for_symbols([PAIR]))
        await asyncio.sleep(1.0)  # its subscription has to be there before
        poor = client(m.url, DOOMED_KEY)
        await poor.load_time_difference()
        await poor.set_leverage(50, PAIR)
        await poor.create_order(PAIR, "market", "buy", 0.02)
        m.faults(mark={"BTCUSDT": "-0.09"})
        try:
            found = (await told)[-1]
        finally:
            m.faults(mark={"BTCUSDT": "0"})
            await poor.close()
        expect(found["contracts"] == 0.02 and found["side"] == "sell", found)
        return f"{found['contracts']} at {found['price']}"

    async def best() -> str:
        found = (await e.watch_bids_asks([PAIR]))[PAIR]
        expect(found["bid"] < found["ask"], found)
        return f"{found['bid']} / {found['ask']}"

    async def book() -> str:
        for _ in range(4):
            found = await e.watch_order_book(PAIR)
        expect(found["bids"][0][0] < found["asks"][0][0], (found["bids"][:1], found["asks"][:1]))
        return f"nonce {found['nonce']}"

    async def user() -> str:
        async def held() -> Any:
            while not (found := await e.watch_positions([PAIR])):  # the first answer is of before the order
                pass
            return found

        watched = [e.watch_orders(PAIR), e.watch_my_trades(PAIR), e.watch_balance(), held()]
        tasks = [asyncio.ensure_future(each) for each in watched]
        await asyncio.sleep(1.5)
        await e.create_order(PAIR, "market", "buy", 0.01)
        order, trade, balance, position = await asyncio.gather(*tasks)
        expect(trade[-1]["amount"] == 0.01, trade)
        expect(position[-1]["contracts"] == 0.01, position)
        await e.create_order(PAIR, "market", "sell", 0.01, None, {"reduceOnly": True})
        return f"order {order[-1]['status']}, trade, balance {balance['USDT']['total']}, position"

    for name, call in (
        ("stream kline", ohlcv),
        ("stream aggTrade", trades),
        ("stream bookTicker", best),
        ("stream depth, local book", book),
        ("stream markPrice", mark),
        ("stream ticker, miniTicker", day),
        ("stream of all tickers", tickers),
        ("stream forceOrder", liquidations),
        ("user stream", user),
    ):
        await m.row(name, call)


async def errors(m: Matrix, e: Any) -> None:
    """Codes become the client's own classes."""
    last = float((await e.fetch_ticker(PAIR))["last"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)
    poor = client(m.url, POOR_KEY)
    stranger = client(m.url, "nobody")
    await poor.load_time_difference()

    def sell(kind: str, amount: float, price: float | None = None, **more: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: e.create_order(PAIR, kind, "sell", amount, price, more)

    stop = {"triggerPrice": high}
    for name, kind, call in (
        ("-2019", ccxt.InsufficientFunds, lambda: poor.create_order(PAIR, "market", "buy", 1)),
        ("-2021", ccxt.OrderImmediatelyFillable, lambda: e.create_order(PAIR, "STOP_MARKET", "sell", 0.01, None, stop)),
        ("-2022", ccxt.InvalidOrder, sell("market", 0.01, reduceOnly=True)),
        ("-2013", ccxt.OrderNotFound, lambda: e.fetch_order("999", PAIR)),
        ("-2011", ccxt.OrderNotFound, lambda: e.cancel_order("999", PAIR)),
        ("-5022", ccxt.OrderNotFillable, sell("limit", 0.01, low, postOnly=True)),
        ("-2015", ccxt.AuthenticationError, stranger.fetch_balance),
    ):
        await m.row(f"error {name}", raises(kind, call))

    async def skewed() -> str:
        m.faults(skew_ms=-60_000)
        try:
            return await raises(ccxt.InvalidNonce, e.fetch_balance)()
        finally:
            m.faults(skew_ms=0)

    async def throttled() -> str:
        m.faults(rest=[{"kind": "too_many_requests"}])
        return await raises(ccxt.DDoSProtection, e.fetch_time)()

    async def unknown() -> str:
        m.faults(rest=[{"kind": "timeout", "method": "POST", "path": "/fapi/v1/order", "when": "after"}])
        told = await raises(ccxt.RequestTimeout, sell("market", 0.01))()
        held = (await e.fetch_positions([PAIR]))[0]["contracts"]
        expect(held == 0.01, held)
        await e.create_order(PAIR, "market", "buy", 0.01, None, {"reduceOnly": True})
        return f"{told}, and it was executed"

    async def failed() -> str:
        m.faults(rest=[{"kind": "503_unknown", "method": "POST", "path": "/fapi/v1/order", "when": "after"}])
        told = await raises(ccxt.OperationFailed, sell("market", 0.01))()
        expect((await e.fetch_positions([PAIR]))[0]["contracts"] == 0.01, told)
        await e.create_order(PAIR, "market", "buy", 0.01, None, {"reduceOnly": True})
        return f"{told}, and it was executed"

    async def banned() -> str:
        m.faults(rest=[{"kind": "ban", "seconds": 1.2}])
        told = await raises(ccxt.DDoSProtection, e.fetch_time)()
        await asyncio.sleep(1.5)
        return told

    await m.row("error -1021", skewed)
    await m.row("error 503 unknown after execution", failed)
    await m.row("error 418", banned)
    await m.row("error -1007 after execution", unknown)
    await m.row("error 429", throttled)
    await poor.close()
    await stranger.close()


async def main(url: str, quick: bool) -> None:
    """All rows."""
    m, e = Matrix(f"ccxt {ccxt.__version__}", url), client(url)
    try:
        for part in (public, account, orders, conditional, errors):
            await part(m, e)
        if not quick:
            await streams(m, e)
    finally:
        await e.close()


asyncio.run(main(sys.argv[1], "--quick" in sys.argv))
