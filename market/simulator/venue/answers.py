"""REST answers about orders, fills and conditional orders, in the venue's own words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import Bracket
from market.simulator.venue.events import plain, price_text
from market.simulator.venue.orders import AlgoOrder, Income, Order, Trade

ZERO = Decimal(0)


def order_row(order: Order) -> dict[str, Any]:
    """An order as `GET /fapi/v1/order` tells it."""
    return {
        "orderId": order.id,
        "symbol": order.symbol,
        "status": order.status,
        "clientOrderId": order.client_id,
        "price": plain(ZERO if order.type == "MARKET" else order.price),
        "avgPrice": price_text(order.average_price),
        "origQty": plain(order.quantity),
        "executedQty": plain(order.executed),
        "cumQuote": price_text(order.quote),
        "timeInForce": order.time_in_force,
        "type": order.type,
        "reduceOnly": order.reduce_only,
        "closePosition": order.close_position,
        "side": order.side,
        "positionSide": order.position_side,
        "stopPrice": plain(order.trigger_price),
        "workingType": order.working_type,
        "priceProtect": order.price_protect,
        "origType": order.algo_type or order.type,
        "priceMatch": order.price_match,
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "goodTillDate": 0,
        "time": order.created_ms,
        "updateTime": order.updated_ms,
    }


def order_answer(order: Order) -> dict[str, Any]:
    """An order as its placing or cancelling answers it: with cumQty, without its time."""
    row = order_row(order)
    del row["time"]
    row["cumQty"] = row["executedQty"]
    return row


def algo_row(algo: AlgoOrder, child: Order | None) -> dict[str, Any]:
    """A conditional order."""
    row: dict[str, Any] = {
        "algoId": algo.id,
        "clientAlgoId": algo.client_id,
        "algoType": "CONDITIONAL",
        "orderType": algo.type,
        "symbol": algo.symbol,
        "side": algo.side,
        "positionSide": algo.position_side,
        "timeInForce": algo.time_in_force,
        "quantity": plain(algo.quantity),
        "algoStatus": algo.status,
        "triggerPrice": plain(algo.trigger_price),
        "price": plain(algo.price),
        "icebergQuantity": None,
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "workingType": algo.working_type,
        "priceMatch": algo.price_match,
        "closePosition": algo.close_position,
        "priceProtect": algo.price_protect,
        "reduceOnly": algo.reduce_only,
        "activatePrice": plain(algo.activate_price) if algo.trails else "",
        "callbackRate": plain(algo.callback_rate) if algo.trails else "",
        "createTime": algo.created_ms,
        "updateTime": algo.updated_ms,
        "triggerTime": algo.trigger_ms,
        "goodTillDate": 0,
        "actualOrderId": str(algo.order_id) if algo.order_id else "",
        "actualPrice": price_text(child.average_price) if child else "0",
    }
    if child:
        row["actualType"], row["actualQty"] = child.type, plain(child.executed)
    return row


def trade_row(trade: Trade) -> dict[str, Any]:
    """A fill as `GET /fapi/v1/userTrades` tells it."""
    return {
        "symbol": trade.symbol,
        "id": trade.id,
        "orderId": trade.order_id,
        "side": trade.side,
        "price": plain(trade.price),
        "qty": plain(trade.quantity),
        "realizedPnl": plain(trade.realized),
        "quoteQty": plain(trade.price * trade.quantity),
        "commission": plain(trade.commission),
        "commissionAsset": "USDT",
        "time": trade.time_ms,
        "positionSide": trade.position_side,
        "buyer": trade.side == "BUY",
        "maker": trade.maker,
    }


def income_row(income: Income) -> dict[str, Any]:
    """A change of the wallet as `GET /fapi/v1/income` tells it."""
    return {
        "symbol": income.symbol,
        "incomeType": income.kind,
        "income": plain(income.amount),
        "asset": "USDT",
        "info": income.kind if not income.trade_id else str(income.trade_id),
        "time": income.time_ms,
        "tranId": income.id,
        "tradeId": str(income.trade_id) if income.trade_id else "",
    }


def bracket_rows(symbol: str, brackets: tuple[Bracket, ...]) -> dict[str, Any]:
    """A symbol's leverage brackets."""
    rows = [
        {
            "bracket": bracket.number,
            "initialLeverage": bracket.leverage,
            "notionalCap": int(bracket.cap),
            "notionalFloor": int(bracket.floor),
            "maintMarginRatio": float(bracket.ratio),
            "cum": float(bracket.cum),
        }
        for bracket in brackets
    ]
    return {"symbol": symbol, "notionalCoef": 1.0, "brackets": rows}


def commission_row(account: Account, symbol: str) -> dict[str, Any]:
    """What an account pays."""
    return {
        "symbol": symbol,
        "makerCommissionRate": plain(account.maker_fee),
        "takerCommissionRate": plain(account.taker_fee),
        "rpiCommissionRate": "0",
    }
