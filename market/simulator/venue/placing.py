"""Taking an order: what is checked, in which order, and what happens at once."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import most_notional
from market.simulator.venue.events import order_update
from market.simulator.venue.execution import can_close, cancel, expire, fill, offered
from market.simulator.venue.margin import exposure, margins
from market.simulator.venue.orders import (
    CONDITIONAL,
    IOC_REMAINDER,
    MARKET_REMAINDER,
    AlgoOrder,
    Order,
    OrderRequest,
)
from market.simulator.venue.price_match import check_price_match, matched_price
from market.simulator.venue.refusals import Refusal, missing, not_required
from market.simulator.venue.rules import SymbolRules

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)
CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
TIMES_IN_FORCE = ("GTC", "IOC", "FOK", "GTX")


def rules_of(venue: Venue, symbol: str) -> SymbolRules:
    """A symbol's rules: -1121 if there is no such symbol, -1122 while it has no price."""
    rules = venue.market.rules.get(symbol)
    if rules is None:
        raise Refusal(-1121)
    if symbol not in venue.state.quotes:
        raise Refusal(-1122)
    return rules


def check_traded(venue: Venue, symbol: str, *, only_closes: bool) -> None:
    """-1122 for a symbol that is no longer traded, -4140 for opening something in one that is about to leave."""
    if symbol in venue.closed:
        raise Refusal(-1122)
    if symbol in venue.closing and not only_closes:
        raise Refusal(-4140)


def place(venue: Venue, account: Account, request: OrderRequest, algo: AlgoOrder | None = None) -> tuple[Order, Order]:
    """Take a MARKET or LIMIT order: as it was acknowledged, and as it is after what happened at once.

    Raises `Refusal`; then nothing has changed. `algo` is the conditional order that it comes from.
    """
    rules = rules_of(venue, request.symbol)
    check_mode(account, request)
    _check_form(request)
    order = _order(venue, account, request, algo)
    check_traded(venue, order.symbol, only_closes=order.only_closes)
    _check_filters(venue, rules, order)
    if order.type == "LIMIT" and len(account.open_orders) >= rules.most_orders:
        raise Refusal(-2025)
    _check_closing(account, order)
    _check_immediacy(venue, order)
    if not order.only_closes:
        check_margin(venue, account, order)
    venue.state.last_order = order.id
    account.open_orders[order.id] = order
    acknowledged = (
        msgspec.structs.replace(order, price=ZERO) if order.type == "MARKET" else msgspec.structs.replace(order)
    )
    venue.emit(order_update(account, order, "NEW", venue.now_ms))
    _execute(venue, account, order)
    venue.check()
    return acknowledged, order


def check_mode(account: Account, request: OrderRequest) -> None:
    """-4061 for a position side of the other mode, -1106 for reduceOnly in hedge mode."""
    if account.hedge == (request.position_side == "BOTH"):
        raise Refusal(-4061)
    if account.hedge and request.reduce_only is not None:
        raise not_required("reduceonly")


def check_client_id(text: str | None) -> None:
    """-4015 for a client order id that is not of the venue's form."""
    if text is not None and not CLIENT_ID.fullmatch(text):
        raise Refusal(-4015)


def _check_form(request: OrderRequest) -> None:
    """Parameters that have to be there or must not."""
    if request.type in CONDITIONAL:
        raise Refusal(-4120)
    if request.type not in ("MARKET", "LIMIT"):
        raise Refusal(-1116)
    if request.close_position:
        raise Refusal(-4136, type=request.type)
    if request.quantity is None:
        raise missing("quantity")
    check_client_id(request.client_id)
    check_price_match(request.price_match, request.type, request.price)
    if request.type == "MARKET":
        if request.price is not None:
            raise not_required("price")
        if request.time_in_force is not None:
            raise not_required("timeInForce")
        return
    if request.time_in_force is None:
        raise missing("timeInForce")
    if request.time_in_force not in TIMES_IN_FORCE:
        raise Refusal(-1115)
    if request.price is None and request.price_match is None:
        raise missing("price")


def _order(venue: Venue, account: Account, request: OrderRequest, algo: AlgoOrder | None) -> Order:
    if any(order.client_id == request.client_id for order in account.open_orders.values()):
        raise Refusal(-4116)
    identity, now = venue.state.last_order + 1, venue.now_ms
    market = request.type == "MARKET"
    last = venue.state.quotes[request.symbol].last
    price = last if market or request.price is None else request.price
    if request.price_match is not None:
        price = matched_price(
            request.price_match, 1 if request.side == "BUY" else -1, last, venue.market.rules[request.symbol]
        )
    order = Order(
        id=identity,
        client_id=request.client_id or f"sim{identity:019d}",
        symbol=request.symbol,
        side=request.side,
        position_side=request.position_side,
        type=request.type,
        time_in_force=request.time_in_force or "GTC",
        price=price,
        price_match=request.price_match or "NONE",
        quantity=request.quantity or ZERO,
        reduce_only=bool(request.reduce_only),
        created_ms=now,
        updated_ms=now,
    )
    if algo is not None:
        order.algo_id, order.algo_type, order.trigger_price = algo.id, algo.type, algo.trigger_price
        order.working_type, order.price_protect = algo.working_type, algo.price_protect
        order.close_position = algo.close_position
    return order


def _check_filters(venue: Venue, rules: SymbolRules, order: Order) -> None:
    quote, buys = venue.state.quotes[order.symbol], order.sign > 0
    rules.check_quantity(order.quantity, market=order.type == "MARKET")
    if order.type == "MARKET":
        rules.check_market_percent(buys, quote.last, quote.mark)
    else:
        rules.check_price(order.price)
        rules.check_percent(buys, order.price, quote.mark)
    if not order.only_closes:
        rules.check_notional(order.quantity * (quote.mark if order.type == "MARKET" else order.price))


def _check_closing(account: Account, order: Order) -> None:
    """-2022 for an order that may only close, where there is nothing to close.

    In hedge mode all closing orders together may not be larger than the position.
    """
    if not order.only_closes:
        return
    if not can_close(account, order):
        raise Refusal(-2022)
    if account.hedge:
        others = [
            other.remaining
            for other in account.open_orders.values()
            if (other.symbol, other.side, other.position_side) == (order.symbol, order.side, order.position_side)
        ]
        if order.remaining + sum(others) > abs(account.position(order.symbol, order.position_side).quantity):
            raise Refusal(-2022)


def crosses(venue: Venue, order: Order) -> bool:
    """Whether a limit order meets the market now."""
    return (venue.state.quotes[order.symbol].last - order.price) * order.sign <= 0


def _check_immediacy(venue: Venue, order: Order) -> None:
    """GTX must not meet the market (-5022), FOK must do so in full (-5021)."""
    if order.type != "LIMIT":
        return
    meets = crosses(venue, order)
    if order.time_in_force == "GTX" and meets:
        raise Refusal(-5022)
    if order.time_in_force == "FOK" and not (meets and offered(venue, order.symbol, order.quantity) == order.quantity):
        raise Refusal(-5021)


def check_margin(venue: Venue, account: Account, order: Order) -> None:
    """-2027 beyond the bracket of the leverage, -2019 without enough margin.

    An order needs the initial margin it adds, and what it would lose at once at the mark price.
    """
    mark = venue.market.mark(order.symbol)
    leverage = account.settings_of(order.symbol).leverage
    _, before = exposure(account, order.symbol, mark)
    _, after = exposure(account, order.symbol, mark, order)
    if after > before and after > most_notional(venue.market.rules[order.symbol].brackets, leverage):
        raise Refusal(-2027)
    loss = order.quantity * max(ZERO, order.sign * (order.price - mark)) if after > before else ZERO
    if (after - before) / leverage + loss > max(ZERO, margins(account, venue.market).free) and after > before:
        raise Refusal(-2019)


def _execute(venue: Venue, account: Account, order: Order) -> None:
    """What a new order does at once."""
    if order.type == "MARKET" or crosses(venue, order):
        _take(venue, account, order)
    if not order.working:
        return
    if order.type == "MARKET":
        expire(venue, account, order, MARKET_REMAINDER)
    elif order.time_in_force in ("IOC", "FOK"):
        expire(venue, account, order, IOC_REMAINDER)


def _take(venue: Venue, account: Account, order: Order) -> None:
    """Fill as much of an order as the market offers now, and as it may close."""
    quantity = offered(venue, order.symbol, order.remaining)
    if order.only_closes:
        quantity = min(quantity, abs(account.position(order.symbol, order.position_side).quantity))
    if quantity > 0:
        fill(venue, account, order, quantity, venue.state.quotes[order.symbol].last, maker=False)


def amend(
    venue: Venue,
    account: Account,
    order: Order,
    side: str,
    quantity: Decimal | None,
    price: Decimal | None,
    price_match: str | None = None,
) -> Order:
    """Change quantity and price of a resting LIMIT order, as if it were placed anew; it loses its place.

    An order that is amended to no more than it has executed is cancelled. -5027 if nothing would change.
    """
    rules = rules_of(venue, order.symbol)
    check_traded(venue, order.symbol, only_closes=order.only_closes)
    if quantity is None:
        raise missing("quantity")
    check_price_match(price_match, order.type, price)
    if price_match is not None:
        price = matched_price(price_match, order.sign, venue.state.quotes[order.symbol].last, rules)
    if price is None:
        raise missing("price")
    if side != order.side:
        raise Refusal(-1117)
    if (quantity, price) == (order.quantity, order.price):
        raise Refusal(-5027)
    changed = msgspec.structs.replace(
        order, quantity=quantity, price=price, updated_ms=venue.now_ms, price_match=price_match or "NONE"
    )
    _check_filters(venue, rules, changed)
    if quantity <= order.executed:
        cancel(venue, account, order)
        return order
    del account.open_orders[order.id]
    try:
        _check_closing(account, changed)
        if changed.time_in_force == "GTX":
            _check_immediacy(venue, changed)
        if not changed.only_closes:
            check_margin(venue, account, changed)
    except Refusal:
        account.open_orders[order.id] = order
        raise
    account.open_orders[order.id] = changed
    venue.emit(order_update(account, changed, "AMENDMENT", venue.now_ms))
    if crosses(venue, changed):
        _take(venue, account, changed)
    venue.check()
    return changed
