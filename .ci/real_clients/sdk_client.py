"""The official SDK against the simulator at argv[1]: rows of the matrix on standard output.

It signs with this machine's time and never asks for the venue's, so the simulator's time has to be this machine's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from binance_common import errors
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import (
    ConfigurationRestAPI,
    ConfigurationWebSocketStreams,
    DerivativesTradingUsdsFutures,
)
from matrix import POOR_KEY, SDK_DOOMED_KEY, SDK_KEY, SECRET, SYMBOL, Matrix, expect

VERSION = "SDK 18.0.1"


def client(url: str, key: str = SDK_KEY) -> DerivativesTradingUsdsFutures:
    """The SDK pointed at the simulator; its default timeout of a second is too short for a busy machine."""
    return DerivativesTradingUsdsFutures(
        config_rest_api=ConfigurationRestAPI(api_key=key, api_secret=SECRET, base_path=url, timeout=10_000),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=url.replace("http", "ws", 1)),
    )


def plain(found: Any) -> Any:
    """What a call answered, as dictionaries and lists."""
    data = found.data()
    return [_plain(each) for each in data] if isinstance(data, list) else _plain(data)


def _plain(item: Any) -> Any:
    actual = getattr(item, "actual_instance", None)
    item = item if actual is None else actual
    if isinstance(item, list):
        return [_plain(each) for each in item]
    return item.to_dict() if hasattr(item, "to_dict") else item


class Caller:
    """REST calls off the event loop, as plain values."""

    def __init__(self, sdk: DerivativesTradingUsdsFutures) -> None:
        self._rest = sdk.rest_api

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(**parameters: Any) -> Any:
            return plain(await asyncio.to_thread(lambda: getattr(self._rest, name)(**parameters)))

        return call


async def public(m: Matrix, e: Caller) -> None:
    """Public data."""

    async def info() -> str:
        found = await e.exchange_information()
        expect(found["symbols"][0]["symbol"] == SYMBOL, found)
        return f"{len(found['symbols'])} symbols"

    async def klines() -> str:
        found = await e.kline_candlestick_data(symbol=SYMBOL, interval="5m", limit=50)
        expect(len(found) == 50 and len(found[0]) == 12, found[:1])
        return "50 bars"

    async def book() -> str:
        found = await e.order_book(symbol=SYMBOL, limit=20)
        expect(float(found["bids"][0][0]) < float(found["asks"][0][0]), found)
        return f"{found['bids'][0][0]} / {found['asks'][0][0]}"

    async def ticker() -> str:
        found = await e.ticker24hr_price_change_statistics(symbol=SYMBOL)
        expect(float(found["lastPrice"]) > 0, found)
        return f"last {found['lastPrice']}"

    async def funding() -> str:
        found = await e.mark_price(symbol=SYMBOL)
        history = await e.get_funding_rate_history(symbol=SYMBOL, limit=3)
        expect(float(found["markPrice"]) > 0 and len(history) == 3, (found, history))
        return f"mark {found['markPrice']}"

    async def trades() -> str:
        return f"{len(await e.recent_trades_list(symbol=SYMBOL, limit=10))} trades"

    for name, call in (
        ("server time", e.check_server_time),
        ("exchange info", info),
        ("klines", klines),
        ("order book", book),
        ("ticker 24h", ticker),
        ("funding rate and history, mark price", funding),
        ("trades", trades),
    ):
        await m.row(name, call)


async def account(m: Matrix, e: Caller) -> None:
    """Signed account calls and settings."""

    async def balance() -> str:
        found = await e.futures_account_balance_v3()
        whole = await e.account_information_v3()
        expect(found[0]["balance"] == whole["totalWalletBalance"], (found, whole))
        old = await e.account_information_v2()
        expect(len(old["positions"]) == 2, old)
        return f"{found[0]['balance']} USDT"

    async def mode() -> str:
        await e.change_position_mode(dual_side_position="true")
        found = await e.get_current_position_mode()
        await e.change_position_mode(dual_side_position="false")
        expect(found["dualSidePosition"] is True, found)
        return "hedge and back"

    async def leverage() -> str:
        found = await e.change_initial_leverage(symbol=SYMBOL, leverage=12)
        brackets = await e.notional_and_leverage_brackets(symbol=SYMBOL)
        config = await e.symbol_configuration(symbol=SYMBOL)
        expect(found["leverage"] == 12 and config[0]["leverage"] == 12 and brackets, (found, config))
        return "12, brackets and configuration read"

    async def margin_type() -> str:
        await e.change_margin_type(symbol=SYMBOL, margin_type="ISOLATED")
        found = await e.symbol_configuration(symbol=SYMBOL)
        await e.change_margin_type(symbol=SYMBOL, margin_type="CROSSED")
        expect(found[0]["marginType"] == "ISOLATED", found)
        return "isolated and back"

    async def fees() -> str:
        found = await e.user_commission_rate(symbol=SYMBOL)
        limits = await e.query_user_rate_limit()
        expect(found["takerCommissionRate"] == "0.0005" and len(limits) == 2, (found, limits))
        return f"{found['makerCommissionRate']} / {found['takerCommissionRate']}"

    for name, call in (
        ("balance", balance),
        ("position mode", mode),
        ("leverage and brackets", leverage),
        ("margin type", margin_type),
        ("commission rate", fees),
    ):
        await m.row(name, call)


async def orders(m: Matrix, e: Caller) -> None:
    """Orders of every type, and their cancelling."""
    last = float((await e.ticker24hr_price_change_statistics(symbol=SYMBOL))["lastPrice"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)

    def limit_order(side: str, price: float, in_force: str) -> Awaitable[Any]:
        more = {"quantity": 0.01, "price": price, "time_in_force": in_force, "new_order_resp_type": "RESULT"}
        return e.new_order(symbol=SYMBOL, side=side, type="LIMIT", **more)

    async def market() -> str:
        more = {"quantity": 0.01, "new_order_resp_type": "RESULT", "new_client_order_id": "sdk-1"}
        placed = await e.new_order(symbol=SYMBOL, side="BUY", type="MARKET", **more)
        found = await e.query_order(symbol=SYMBOL, orig_client_order_id="sdk-1")
        expect(placed["status"] == found["status"] == "FILLED", (placed, found))
        return f"filled at {found['avgPrice']}"

    async def limit() -> str:
        placed = await limit_order("BUY", low, "GTC")
        seen = await e.current_all_open_orders(symbol=SYMBOL)
        more = {"order_id": placed["orderId"], "quantity": 0.02, "price": low}
        changed = await e.modify_order(symbol=SYMBOL, side="BUY", **more)
        gone = await e.cancel_order(symbol=SYMBOL, order_id=placed["orderId"])
        expect([len(seen), changed["origQty"], gone["status"]] == [1, "0.02", "CANCELED"], (seen, changed, gone))
        return "placed, amended, cancelled"

    async def in_force() -> str:
        found = [(await limit_order("BUY", price, "IOC"))["status"] for price in (high, low)]
        expect(found == ["FILLED", "EXPIRED"], found)
        return str(found)

    async def fill_or_kill() -> str:
        expect((await limit_order("BUY", high, "FOK"))["status"] == "FILLED", high)
        return "filled"

    async def post_only() -> str:
        placed = await limit_order("SELL", high, "GTX")
        await e.cancel_order(symbol=SYMBOL, order_id=placed["orderId"])
        expect(placed["status"] == "NEW", placed)
        return "rests"

    async def all_gone() -> str:
        await limit_order("BUY", low, "GTC")
        found = await e.cancel_all_open_orders(symbol=SYMBOL)
        counted = await e.auto_cancel_all_open_orders(symbol=SYMBOL, countdown_time=60_000)
        await e.auto_cancel_all_open_orders(symbol=SYMBOL, countdown_time=0)
        expect(not await e.current_all_open_orders(symbol=SYMBOL) and counted["countdownTime"] == "60000", found)
        return "all cancelled, countdown set and stopped"

    async def batch() -> str:
        one = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
        orders = [{**one, "price": str(low)}, {**one, "price": "1"}]
        found = await e.place_multiple_orders(batch_orders=orders)
        await e.cancel_all_open_orders(symbol=SYMBOL)
        expect(found[0]["status"] == "NEW" and found[1]["code"] == -4164, found)
        return "one placed, one refused, all cancelled"

    async def positions() -> str:
        new, old = await e.position_information_v3(symbol=SYMBOL), await e.position_information_v2(symbol=SYMBOL)
        expect(new[0]["positionAmt"] == old[0]["positionAmt"] == "0.03", (new, old))
        return f"{new[0]['positionAmt']} from {new[0]['entryPrice']}"

    async def reduce_only() -> str:
        more = {"quantity": 0.03, "reduce_only": "true", "new_order_resp_type": "RESULT"}
        placed = await e.new_order(symbol=SYMBOL, side="SELL", type="MARKET", **more)
        expect(placed["status"] == "FILLED" and not await e.position_information_v3(symbol=SYMBOL), placed)
        return "closed"

    async def history() -> str:
        trades, every = await e.account_trade_list(symbol=SYMBOL), await e.all_orders(symbol=SYMBOL)
        income = await e.get_income_history()
        expect(trades and every and income, (trades, every))
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


async def conditional(m: Matrix, e: Caller) -> None:
    """Conditional orders of every type."""
    last = float((await e.ticker24hr_price_change_statistics(symbol=SYMBOL))["lastPrice"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)
    await e.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.05)
    cases: dict[str, dict[str, Any]] = {
        "STOP": {"trigger_price": low, "price": low, "time_in_force": "GTC"},
        "STOP_MARKET": {"trigger_price": low},
        "TAKE_PROFIT": {"trigger_price": high, "price": high, "time_in_force": "GTC"},
        "TAKE_PROFIT_MARKET": {"trigger_price": high},
        "TRAILING_STOP_MARKET": {"callback_rate": 2.0},
    }
    for kind, more in cases.items():

        async def place(kind: str = kind, more: dict[str, Any] = more) -> str:
            placed = await e.new_algo_order(
                algo_type="CONDITIONAL", symbol=SYMBOL, side="SELL", type=kind, quantity=0.01, **more
            )
            seen = await e.current_all_algo_open_orders(symbol=SYMBOL)
            gone = await e.cancel_algo_order(algo_id=placed["algoId"])
            found = await e.query_algo_order(algo_id=placed["algoId"])
            expect(len(seen) == 1 and found["algoStatus"] == "CANCELED", (seen, gone, found))
            return f"algo id {placed['algoId']}, listed, cancelled"

        await m.row(f"algo {kind}", place)

    async def triggers() -> str:
        more = {"trigger_price": low, "close_position": "true", "working_type": "MARK_PRICE"}
        placed = await e.new_algo_order(
            algo_type="CONDITIONAL", symbol=SYMBOL, side="SELL", type="STOP_MARKET", client_algo_id="sdk-stop", **more
        )
        m.faults(mark={SYMBOL: "-0.04"})
        try:
            for _ in range(100):
                found = await e.query_algo_order(client_algo_id="sdk-stop")
                if found["algoStatus"] == "FINISHED":
                    break
                await asyncio.sleep(0.1)
        finally:
            m.faults(mark={SYMBOL: "0"})
        expect(found["algoStatus"] == "FINISHED" and found["actualOrderId"], (placed, found))
        return f"FINISHED, child {found['actualOrderId']}"

    await m.row("algo closePosition triggers on mark", triggers)


async def streams(m: Matrix, sdk: DerivativesTradingUsdsFutures, e: Caller) -> None:
    """Market and user streams."""
    connection = await sdk.websocket_streams.create_connection()

    async def first(stream: Any, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        stream.on("message", queue.put_nowait)
        while not wanted(found := _plain(await queue.get())):
            pass
        await stream.unsubscribe()
        return found

    async def klines() -> str:
        found = await first(await connection.kline_candlestick_streams(symbol="btcusdt", interval="1m"))
        expect(found["k"]["i"] == "1m", found)
        return str(found["k"]["c"])

    async def trades() -> str:
        return str((await first(await connection.aggregate_trade_streams(symbol="btcusdt")))["p"])

    async def mark() -> str:
        return str((await first(await connection.mark_price_stream(symbol="btcusdt")))["p"])

    async def day() -> str:
        found = await first(await connection.individual_symbol_ticker_streams(symbol="btcusdt"))
        mini = await first(await connection.individual_symbol_mini_ticker_stream(symbol="btcusdt"))
        expect(float(found["l"]) <= float(found["c"]) <= float(found["h"]) and float(mini["o"]) > 0, (found, mini))
        return f"{found['P']} %, volume {found['v']}"

    async def tickers() -> str:
        found = await first(await connection.all_market_tickers_streams())
        minis = await first(await connection.all_market_mini_tickers_stream())
        names = [[_plain(each)["s"] for each in rows] for rows in (found, minis)]
        expect(names == 2 * [["BTCUSDT", "ETHUSDT"]], names)
        return str(names[0])

    async def continuous() -> str:
        asked = {"pair": "btcusdt", "contract_type": "perpetual", "interval": "1m"}
        found = await first(await connection.continuous_contract_kline_candlestick_streams(**asked))
        expect((found["ps"], found["ct"], found["k"]["i"]) == ("BTCUSDT", "PERPETUAL", "1m"), found)
        return str(found["k"]["c"])

    async def books() -> str:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        stream, told = await connection.all_book_tickers_stream(), set[str]()
        stream.on("message", queue.put_nowait)
        while told != {"BTCUSDT", "ETHUSDT"}:
            told.add(_plain(await queue.get())["s"])
        await stream.unsubscribe()
        return f"{len(told)} symbols"

    async def liquidations() -> str:
        doomed = Caller(client(m.url, SDK_DOOMED_KEY))
        told = asyncio.ensure_future(first(await connection.all_market_liquidation_order_streams()))
        await asyncio.sleep(1.0)  # its subscription has to be there before
        await doomed.change_initial_leverage(symbol=SYMBOL, leverage=50)
        await doomed.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.02)
        m.faults(mark={SYMBOL: "-0.09"})
        try:
            found = await told
        finally:
            m.faults(mark={SYMBOL: "0"})
        expect((found["o"]["s"], found["o"]["S"], found["o"]["z"]) == (SYMBOL, "SELL", "0.02"), found)
        return f"{found['o']['z']} at {found['o']['ap']}"

    async def best() -> str:
        found = await first(await connection.individual_symbol_book_ticker_streams(symbol="btcusdt"))
        expect(float(found["b"]) < float(found["a"]), found)
        return f"{found['b']} / {found['a']}"

    async def depth() -> str:
        found = await first(await connection.partial_book_depth_streams(symbol="btcusdt", levels=5))
        expect(len(found["b"]) == 5, found)
        return f"update {found['u']}"

    async def user() -> str:
        key = (await e.start_user_data_stream())["listenKey"]
        await e.keepalive_user_data_stream()
        stream, told = await connection.user_data(key), []
        stream.on("message", lambda event: told.append(type(event.actual_instance).__name__))
        await e.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.01)
        await e.new_order(symbol=SYMBOL, side="SELL", type="MARKET", quantity=0.01, reduce_only="true")
        for _ in range(50):
            if len(told) == 8:
                break
            await asyncio.sleep(0.1)
        expect(told == 2 * ["OrderTradeUpdate", "TradeLite", "AccountUpdate", "OrderTradeUpdate"], told)
        await e.close_user_data_stream()
        return ", ".join(told[:4])

    for name, call in (
        ("stream kline", klines),
        ("stream aggTrade", trades),
        ("stream bookTicker", best),
        ("stream depth5", depth),
        ("stream markPrice", mark),
        ("stream ticker, miniTicker", day),
        ("stream of all tickers", tickers),
        ("stream continuousKline", continuous),
        ("stream of all best prices", books),
        ("stream forceOrder", liquidations),
        ("user stream", user),
    ):
        await m.row(name, call)
    await sdk.websocket_streams.close_connection(close_session=True)


async def mapping(m: Matrix, e: Caller) -> None:
    """Codes become the client's own classes."""
    last = float((await e.ticker24hr_price_change_statistics(symbol=SYMBOL))["lastPrice"])
    low, high = round(last * 0.97, 1), round(last * 1.03, 1)
    poor, stranger = Caller(client(m.url, POOR_KEY)), Caller(client(m.url, "nobody"))

    def order(caller: Caller, **more: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: caller.new_order(**{"symbol": SYMBOL, "type": "MARKET", "quantity": 0.01, **more})

    def stop() -> Awaitable[Any]:
        more = {"quantity": 0.01, "trigger_price": high}
        return e.new_algo_order(algo_type="CONDITIONAL", symbol=SYMBOL, side="SELL", type="STOP_MARKET", **more)

    def refused(kind: type[Exception], text: str, call: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[str]]:
        async def attempt() -> str:
            try:
                found = await call()
            except kind as error:
                expect(type(error) is kind and text in str(error), error)
                return f"{kind.__name__} {error}"
            raise AssertionError(f"not refused: {found}"[:200])

        return attempt

    gtx = {"side": "SELL", "type": "LIMIT", "price": low, "time_in_force": "GTX"}
    bad = errors.BadRequestError
    for name, kind, text, call in (
        ("-2019", bad, "insufficient", order(poor, side="BUY", quantity=1)),
        ("-2021", bad, "immediately", stop),
        ("-2022", bad, "ReduceOnly", order(e, side="SELL", reduce_only="true")),
        ("-4120", bad, "Algo", order(e, side="SELL", type="STOP_MARKET")),
        ("-2011", bad, "Unknown order", lambda: e.cancel_order(symbol=SYMBOL, order_id=999)),
        ("-2013", bad, "does not exist", lambda: e.query_order(symbol=SYMBOL, order_id=999)),
        ("-5022", bad, "Post Only", order(e, **gtx)),
        ("-2015", errors.UnauthorizedError, "API-key", stranger.futures_account_balance_v3),
    ):
        await m.row(f"error {name}", refused(kind, text, call))

    async def skewed() -> str:
        m.faults(skew_ms=60_000)
        try:
            return await refused(bad, "recvWindow", e.futures_account_balance_v3)()
        finally:
            m.faults(skew_ms=0)

    async def unknown() -> str:
        m.faults(rest=[{"kind": "503_unknown", "method": "POST", "path": "/fapi/v1/order", "when": "after"}])
        told = await refused(errors.ServerError, "", order(e, side="SELL"))()
        held = (await e.position_information_v3(symbol=SYMBOL))[0]["positionAmt"]
        expect(held == "-0.01", held)
        await e.new_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.01, reduce_only="true")
        return f"{told}, and it was executed"

    async def throttled() -> str:
        m.faults(rest=[{"kind": "too_many_requests", "seconds": 7}])
        try:
            await e.check_server_time()
        except errors.TooManyRequestsError as error:
            expect(error.retry_after == 7, error.retry_after)
            return f"TooManyRequestsError, retry after {error.retry_after} s"
        raise AssertionError("not refused")

    async def banned() -> str:
        m.faults(rest=[{"kind": "ban", "seconds": 1.2}])
        try:
            await e.check_server_time()
        except errors.RateLimitBanError as error:
            await asyncio.sleep(1.5)
            return f"RateLimitBanError, retry after {error.retry_after} s"
        raise AssertionError("not refused")

    await m.row("error -1021", skewed)
    await m.row("error 503 unknown after execution", unknown)
    await m.row("error 429", throttled)
    await m.row("error 418", banned)


async def main(url: str, quick: bool) -> None:
    """All rows."""
    m, sdk = Matrix(VERSION, url), client(url)
    e = Caller(sdk)
    for part in (public, account, orders, conditional):
        await part(m, e)
    await mapping(m, e)
    if not quick:
        await streams(m, sdk, e)


asyncio.run(main(sys.argv[1], "--quick" in sys.argv))
