"""Signed REST routes of orders and conditional orders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from market.simulator.parameters import Parameters, order_request, price_match_of, side_of
from market.simulator.trading import Trading
from market.simulator.venue import execution
from market.simulator.venue.accounts import Account
from market.simulator.venue.algo import cancel_algo, place_algo
from market.simulator.venue.answers import algo_row, order_answer, order_row, trade_row
from market.simulator.venue.orders import AlgoOrder, Order
from market.simulator.venue.placing import amend, place, rules_of
from market.simulator.venue.refusals import Refusal, invalid, missing

DAY_MS = 86_400_000
FORGOTTEN_UNFILLED_MS, FORGOTTEN_MS = 3 * DAY_MS, 90 * DAY_MS
LONGEST_SPAN_MS = 7 * DAY_MS
MOST_BATCH = 5


class Reply(Struct, frozen=True):
    """What a handler answers: JSON, and its weight."""

    body: Any
    weight: int = 1


def order_count(method: str, path: str, asked: Parameters) -> int:
    """How many orders a request counts as within ten seconds; zero for one that places none."""
    if method in ("POST", "PUT") and path in ("/fapi/v1/order", "/fapi/v1/algoOrder"):
        return 1
    if method == "POST" and path == "/fapi/v1/batchOrders":
        return len(_json_list(asked, "batchOrders"))
    return 0


Call = Callable[[Account, Parameters], Reply]


class OrderRest:
    """Handlers by method and path."""

    def __init__(self, trading: Trading) -> None:
        self._trading = trading
        self.calls: dict[tuple[str, str], Call] = {
            ("POST", "/fapi/v1/order"): self.place,
            ("POST", "/fapi/v1/order/test"): self.test,
            ("PUT", "/fapi/v1/order"): self.amend,
            ("GET", "/fapi/v1/order"): self.order,
            ("DELETE", "/fapi/v1/order"): self.cancel,
            ("POST", "/fapi/v1/batchOrders"): self.place_batch,
            ("DELETE", "/fapi/v1/batchOrders"): self.cancel_batch,
            ("DELETE", "/fapi/v1/allOpenOrders"): self.cancel_all,
            ("POST", "/fapi/v1/countdownCancelAll"): self.countdown,
            ("GET", "/fapi/v1/openOrder"): self.open_order,
            ("GET", "/fapi/v1/openOrders"): self.open_orders,
            ("GET", "/fapi/v1/allOrders"): self.all_orders,
            ("GET", "/fapi/v1/userTrades"): self.user_trades,
            ("GET", "/fapi/v1/forceOrders"): self.forced_orders,
            ("POST", "/fapi/v1/algoOrder"): self.place_algo,
            ("DELETE", "/fapi/v1/algoOrder"): self.cancel_algo,
            ("DELETE", "/fapi/v1/algoOpenOrders"): self.cancel_algos,
            ("GET", "/fapi/v1/algoOrder"): self.algo,
            ("GET", "/fapi/v1/openAlgoOrders"): self.open_algos,
            ("GET", "/fapi/v1/allAlgoOrders"): self.all_algos,
        }

    def place(self, account: Account, asked: Parameters) -> Reply:
        """`POST order`: ACK unless RESULT is asked for."""
        wanted = asked.optional("newOrderRespType") or "ACK"
        if wanted not in ("ACK", "RESULT"):
            raise invalid("newOrderRespType")
        acknowledged, order = place(self._trading.venue, account, order_request(asked, algo=False))
        return Reply(order_answer(order if wanted == "RESULT" else acknowledged), weight=0)

    def test(self, account: Account, asked: Parameters) -> Reply:
        """`POST order/test`: the order's form alone is looked at."""
        rules_of(self._trading.venue, order_request(asked, algo=False).symbol)
        return Reply({}, weight=0)

    def place_batch(self, account: Account, asked: Parameters) -> Reply:
        """`POST batchOrders`: up to five, each with its own answer or error."""
        batch = _json_list(asked, "batchOrders")
        if not 1 <= len(batch) <= MOST_BATCH or not all(isinstance(item, dict) for item in batch):
            raise invalid("batchOrders")
        rows: list[Any] = []
        for item in batch:
            try:
                symbol = str(item.get("symbol", ""))
                self._trading.check_listed(symbol, trades=True)
                self._trading.refresh((symbol,))
                rows.append(self.place(account, Parameters({name: _text(value) for name, value in item.items()})).body)
            except Refusal as refusal:
                rows.append({"code": refusal.code, "msg": refusal.message})
        return Reply(rows, weight=5)

    def amend(self, account: Account, asked: Parameters) -> Reply:
        """`PUT order`: quantity and price of a resting LIMIT order."""
        order = self._find(account, asked, open_only=True)
        if order is None:
            raise Refusal(-2013)
        quantity, price, match = asked.number("quantity"), asked.number("price"), price_match_of(asked)
        changed = amend(self._trading.venue, account, order, side_of(asked), quantity, price, match)
        return Reply(order_answer(changed))

    def order(self, account: Account, asked: Parameters) -> Reply:
        """`GET order`: -2013 for one that there is not, or that has been forgotten."""
        order = self._find(account, asked)
        if order is None or self._forgotten(order):
            raise Refusal(-2013)
        return Reply(order_row(order))

    def open_order(self, account: Account, asked: Parameters) -> Reply:
        """`GET openOrder`."""
        order = self._find(account, asked, open_only=True)
        if order is None:
            raise Refusal(-2013)
        return Reply(order_row(order))

    def cancel(self, account: Account, asked: Parameters) -> Reply:
        """`DELETE order`: -2011 for one that is not open."""
        order = self._find(account, asked, open_only=True)
        if order is None:
            raise Refusal(-2011)
        execution.cancel(self._trading.venue, account, order)
        return Reply(order_answer(order))

    def cancel_batch(self, account: Account, asked: Parameters) -> Reply:
        """`DELETE batchOrders`: by orderIdList or origClientOrderIdList."""
        name = "orderIdList" if "orderIdList" in asked else "origClientOrderIdList"
        key = "orderId" if name == "orderIdList" else "origClientOrderId"
        rows: list[Any] = []
        for identity in _json_list(asked, name):
            try:
                one = Parameters({"symbol": asked.text("symbol"), key: str(identity)})
                rows.append(self.cancel(account, one).body)
            except Refusal as refusal:
                rows.append({"code": refusal.code, "msg": refusal.message})
        return Reply(rows)

    def cancel_all(self, account: Account, asked: Parameters) -> Reply:
        """`DELETE allOpenOrders`: conditional orders stay."""
        symbol = self._symbol(asked)
        execution.cancel_all(self._trading.venue, account, symbol)
        return Reply({"code": 200, "msg": "The operation of cancel all open order is done."})

    def countdown(self, account: Account, asked: Parameters) -> Reply:
        """`POST countdownCancelAll`: in countdownTime milliseconds unless renewed; 0 stops it."""
        symbol, length = self._symbol(asked), asked.integer("countdownTime")
        if length is None:
            raise missing("countdownTime")
        if length < 0:
            raise invalid("countdownTime")
        account.countdowns.pop(symbol, None)
        if length:
            account.countdowns[symbol] = self._trading.venue.now_ms + length
        return Reply({"symbol": symbol, "countdownTime": str(length)}, weight=10)

    def open_orders(self, account: Account, asked: Parameters) -> Reply:
        """`GET openOrders`, of one symbol or all."""
        symbol = asked.optional("symbol") and self._symbol(asked)
        found = [order_row(order) for order in account.open_orders.values() if symbol in (None, order.symbol)]
        return Reply(found, weight=1 if symbol else 40)

    def all_orders(self, account: Account, asked: Parameters) -> Reply:
        """`GET allOrders`: from orderId on, or within at most seven days; the last ones otherwise."""
        symbol, limit = self._symbol(asked), asked.limit(500, 1000)
        start, end = _span(asked)
        every = sorted([*account.past_orders.values(), *account.open_orders.values()], key=lambda order: order.id)
        found = [order for order in every if order.symbol == symbol and not self._forgotten(order)]
        first = asked.integer("orderId")
        if first is not None:
            rows = [order for order in found if order.id >= first][:limit]
        else:
            inside = [order for order in found if _within(order.created_ms, start, end)]
            rows = inside[-limit:] if start is None else inside[:limit]
        return Reply([order_row(order) for order in rows], weight=5)

    def forced_orders(self, account: Account, asked: Parameters) -> Reply:
        """`GET forceOrders`: the account's liquidations, of a symbol or all; of seven days unless times are given."""
        symbol, limit = asked.optional("symbol") and self._symbol(asked), asked.limit(50, 100)
        kind = asked.optional("autoCloseType")
        if kind not in (None, "LIQUIDATION", "ADL"):
            raise invalid("autoCloseType")
        start, end = _span(asked)
        since = self._trading.venue.now_ms - LONGEST_SPAN_MS if start is None else start
        found = [
            order_row(order)
            for order in account.past_orders.values()
            if order.type == "LIQUIDATION"
            and kind != "ADL"
            and symbol in (None, order.symbol)
            and _within(order.created_ms, since, end)
        ]
        return Reply(found[-limit:], weight=20 if symbol else 50)

    def user_trades(self, account: Account, asked: Parameters) -> Reply:
        """`GET userTrades`: from fromId on, or within at most seven days; fromId excludes times."""
        symbol, limit = self._symbol(asked), asked.limit(500, 1000)
        start, end = _span(asked)
        first, order_id = asked.integer("fromId"), asked.integer("orderId")
        if first is not None and (start is not None or end is not None):
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        found = [trade for trade in account.trades if trade.symbol == symbol and order_id in (None, trade.order_id)]
        if first is not None:
            rows = [trade for trade in found if trade.id >= first][:limit]
        else:
            inside = [trade for trade in found if _within(trade.time_ms, start, end)]
            rows = inside[-limit:] if start is None else inside[:limit]
        return Reply([trade_row(trade) for trade in rows], weight=5)

    def place_algo(self, account: Account, asked: Parameters) -> Reply:
        """`POST algoOrder`."""
        if asked.text("algoType") != "CONDITIONAL":
            raise invalid("algoType")
        algo = place_algo(self._trading.venue, account, order_request(asked, algo=True))
        return Reply(algo_row(algo, None), weight=0)

    def cancel_algo(self, account: Account, asked: Parameters) -> Reply:
        """`DELETE algoOrder`; the code of success is a string."""
        algo = self._find_algo(account, asked)
        if algo is None:
            raise Refusal(-2011)
        cancel_algo(self._trading.venue, account, algo)
        return Reply({"algoId": algo.id, "clientAlgoId": algo.client_id, "code": "200", "msg": "success"})

    def cancel_algos(self, account: Account, asked: Parameters) -> Reply:
        """`DELETE algoOpenOrders` of a symbol; what is triggering goes on."""
        symbol = self._symbol(asked)
        for algo in list(account.open_algos.values()):
            if algo.symbol == symbol and algo.waiting:
                cancel_algo(self._trading.venue, account, algo)
        return Reply({"code": 200, "msg": "The operation of cancel all open order is done."})

    def algo(self, account: Account, asked: Parameters) -> Reply:
        """`GET algoOrder`."""
        algo = self._find_algo(account, asked)
        if algo is None:
            raise Refusal(-2013)
        return Reply(self._algo_row(account, algo))

    def open_algos(self, account: Account, asked: Parameters) -> Reply:
        """`GET openAlgoOrders`: what has not come to its end, of one symbol or all."""
        symbol = asked.optional("symbol") and self._symbol(asked)
        found = [algo for algo in account.open_algos.values() if symbol in (None, algo.symbol)]
        return Reply([self._algo_row(account, algo) for algo in found], weight=1 if symbol else 40)

    def all_algos(self, account: Account, asked: Parameters) -> Reply:
        """`GET allAlgoOrders` of a symbol."""
        symbol, limit = self._symbol(asked), asked.limit(500, 1000)
        start, end = _span(asked)
        every = sorted([*account.past_algos.values(), *account.open_algos.values()], key=lambda algo: algo.id)
        first = asked.integer("algoId") or 0
        found = [algo for algo in every if algo.symbol == symbol and algo.id >= first]
        inside = [algo for algo in found if _within(algo.created_ms, start, end)]
        return Reply([self._algo_row(account, algo) for algo in inside[-limit:]], weight=5)

    def _algo_row(self, account: Account, algo: AlgoOrder) -> dict[str, Any]:
        return algo_row(algo, account.open_orders.get(algo.order_id) or account.past_orders.get(algo.order_id))

    def _symbol(self, asked: Parameters) -> str:
        symbol = asked.text("symbol")
        rules_of(self._trading.venue, symbol)
        return symbol

    def _find(self, account: Account, asked: Parameters, *, open_only: bool = False) -> Order | None:
        """By orderId, else by origClientOrderId, of which the last one counts."""
        symbol, identity = self._symbol(asked), asked.integer("orderId")
        client_id = asked.optional("origClientOrderId")
        if identity is None and client_id is None:
            raise Refusal(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        tables = [account.open_orders] if open_only else [account.open_orders, account.past_orders]
        for table in tables:
            if identity is not None:
                found = table.get(identity)
            else:
                found = next((order for order in reversed(table.values()) if order.client_id == client_id), None)
            if found is not None and found.symbol == symbol:
                return found
        return None

    def _find_algo(self, account: Account, asked: Parameters) -> AlgoOrder | None:
        identity, client_id = asked.integer("algoId"), asked.optional("clientAlgoId")
        if identity is None and client_id is None:
            raise Refusal(-1102, "Param 'algoId' or 'clientAlgoId' must be sent, but both were empty/null!")
        for table in (account.open_algos, account.past_algos):
            if identity is not None:
                found = table.get(identity)
            else:
                found = next((algo for algo in reversed(table.values()) if algo.client_id == client_id), None)
            if found is not None:
                return found
        return None

    def _forgotten(self, order: Order) -> bool:
        age = self._trading.venue.now_ms - order.created_ms
        unfilled = order.status in ("CANCELED", "EXPIRED") and not order.executed
        return age > (FORGOTTEN_UNFILLED_MS if unfilled else FORGOTTEN_MS)


def _span(asked: Parameters) -> tuple[int | None, int | None]:
    start, end = asked.time_range()
    if start is not None and end is not None and end - start > LONGEST_SPAN_MS:
        raise Refusal(-1127)
    if start is not None and end is None:
        end = start + LONGEST_SPAN_MS
    return start, end


def _within(time_ms: int, start: int | None, end: int | None) -> bool:
    return (start is None or start <= time_ms) and (end is None or time_ms <= end)


def _json_list(asked: Parameters, name: str) -> list[Any]:
    try:
        found = msgspec.json.decode(asked.text(name))
    except msgspec.DecodeError:
        raise invalid(name) from None
    if not isinstance(found, list):
        raise invalid(name)
    return found


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
