"""User data events in the venue's own words. Numbers are strings of plain decimals, times ms UTC."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from msgspec import Struct

from market.simulator.venue.accounts import Account
from market.simulator.venue.margin import Market, maintenance_of
from market.simulator.venue.orders import AlgoOrder, Order, Trade
from market.simulator.venue.positions import Position

ZERO = Decimal(0)


class UserEvent(Struct, frozen=True):
    """An event of one account; `body["e"]` is its type, `body["E"]` its time."""

    account: str
    body: dict[str, Any]


def plain(number: Decimal) -> str:
    """A decimal without exponent and without superfluous zeros.

    >>> plain(Decimal("1.500")), plain(Decimal("1E+3")), plain(Decimal("-0.0"))
    ('1.5', '1000', '0')
    """
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def price_text(number: Decimal) -> str:
    """A price with at most eight decimals."""
    return plain(number.quantize(Decimal("0.00000001")))


def order_update(account: Account, order: Order, execution: str, now_ms: int, trade: Trade | None = None) -> UserEvent:
    """ORDER_TRADE_UPDATE: `execution` is NEW, CANCELED, CALCULATED, EXPIRED, TRADE or AMENDMENT."""
    o: dict[str, Any] = {
        "s": order.symbol,
        "c": order.client_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": plain(order.quantity),
        "p": plain(ZERO if order.type == "MARKET" else order.price),
        "ap": price_text(order.average_price),
        "sp": plain(order.trigger_price),
        "x": execution,
        "X": order.status,
        "i": order.id,
        "l": plain(trade.quantity) if trade else "0",
        "z": plain(order.executed),
        "L": plain(trade.price) if trade else "0",
        "T": now_ms,
        "t": trade.id if trade else 0,
        "b": "0",
        "a": "0",
        "m": trade.maker if trade else False,
        "R": order.reduce_only,
        "wt": order.working_type,
        "ot": order.algo_type or order.type,
        "ps": order.position_side,
        "cp": order.close_position,
        "rp": plain(trade.realized) if trade else "0",
        "pP": order.price_protect,
        "si": 0,
        "ss": 0,
        "V": "EXPIRE_MAKER",
        "pm": order.price_match,
        "gtd": 0,
        "er": str(order.expiry_reason),
    }
    if trade and trade.commission:
        o["N"], o["n"] = "USDT", plain(trade.commission)
    return UserEvent(account.key, {"e": "ORDER_TRADE_UPDATE", "E": now_ms, "T": now_ms, "o": o})


def trade_lite(account: Account, order: Order, trade: Trade, now_ms: int) -> UserEvent:
    """TRADE_LITE: a fill in few words, ahead of the others."""
    body = {
        "e": "TRADE_LITE",
        "E": now_ms,
        "T": now_ms,
        "s": order.symbol,
        "q": plain(order.quantity),
        "p": plain(ZERO if order.type == "MARKET" else order.price),
        "m": trade.maker,
        "c": order.client_id,
        "S": order.side,
        "L": plain(trade.price),
        "l": plain(trade.quantity),
        "t": trade.id,
        "i": order.id,
    }
    return UserEvent(account.key, body)


def account_update(
    account: Account, reason: str, positions: Iterable[Position], change: Decimal, market: Market, now_ms: int
) -> UserEvent:
    """ACCOUNT_UPDATE: the wallet and the positions named. `change`: of the wallet, without profit and commission."""
    body = {
        "e": "ACCOUNT_UPDATE",
        "E": now_ms,
        "T": now_ms,
        "a": {
            "m": reason,
            "B": [
                {"a": "USDT", "wb": plain(account.wallet), "cw": plain(account.cross_wallet), "bc": plain(change)},
            ],
            "P": [_position_row(account, position, market) for position in positions],
        },
    }
    return UserEvent(account.key, body)


def _position_row(account: Account, position: Position, market: Market) -> dict[str, str]:
    isolated = account.is_isolated(position.symbol)
    return {
        "s": position.symbol,
        "pa": plain(position.quantity),
        "ep": price_text(position.entry_price),
        "bep": price_text(break_even_price(account, position)),
        "cr": plain(position.realized),
        "up": price_text(position.unrealized(market.mark(position.symbol))),
        "mt": "isolated" if isolated else "cross",
        "iw": plain(position.isolated_wallet),
        "ps": position.side,
        "ma": "USDT",
    }


def break_even_price(account: Account, position: Position) -> Decimal:
    """The entry price moved by the taker fee of closing there."""
    side = (position.quantity > 0) - (position.quantity < 0)
    return position.entry_price * (1 + side * account.taker_fee)


def algo_update(account: Account, algo: AlgoOrder, child: Order | None, now_ms: int) -> UserEvent:
    """ALGO_UPDATE: a conditional order's state, with the order it has turned into."""
    o: dict[str, Any] = {
        "caid": algo.client_id,
        "aid": algo.id,
        "at": "CONDITIONAL",
        "o": algo.type,
        "s": algo.symbol,
        "S": algo.side,
        "ps": algo.position_side,
        "f": algo.time_in_force,
        "q": plain(algo.quantity),
        "X": algo.status,
        "ai": str(algo.order_id) if algo.order_id else "",
        "ap": price_text(child.average_price) if child else "0",
        "aq": plain(child.executed) if child else "0",
        "act": child.type if child else "",
        "tp": plain(algo.trigger_price),
        "p": plain(algo.price),
        "V": "EXPIRE_MAKER",
        "wt": algo.working_type,
        "pm": algo.price_match,
        "cp": algo.close_position,
        "pP": algo.price_protect,
        "R": algo.reduce_only,
        "tt": algo.trigger_ms,
        "gtd": 0,
        "rm": algo.reason,
        "ia": False,
    }
    if algo.trails:
        o["AP"], o["cr"] = plain(algo.activate_price), plain(algo.callback_rate)
    return UserEvent(account.key, {"e": "ALGO_UPDATE", "T": now_ms, "E": now_ms, "o": o})


def account_config_update(account: Account, symbol: str, leverage: int, now_ms: int) -> UserEvent:
    """ACCOUNT_CONFIG_UPDATE: a symbol's leverage."""
    body = {"e": "ACCOUNT_CONFIG_UPDATE", "E": now_ms, "T": now_ms, "ac": {"s": symbol, "l": leverage}}
    return UserEvent(account.key, body)


def margin_call(account: Account, positions: Iterable[Position], market: Market, now_ms: int) -> UserEvent:
    """MARGIN_CALL: positions whose margin has come close to what must stay behind them."""
    rows = [
        {
            "s": position.symbol,
            "ps": position.side,
            "pa": plain(position.quantity),
            "mt": "ISOLATED" if account.is_isolated(position.symbol) else "CROSSED",
            "iw": plain(position.isolated_wallet),
            "mp": plain(market.mark(position.symbol)),
            "up": price_text(position.unrealized(market.mark(position.symbol))),
            "mm": price_text(maintenance_of(position, market)),
        }
        for position in positions
    ]
    body = {"e": "MARGIN_CALL", "E": now_ms, "cw": plain(account.cross_wallet), "p": rows}
    return UserEvent(account.key, body)
