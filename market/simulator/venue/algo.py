"""The algo service: conditional orders, their triggers, and the orders that they turn into.

NEW → TRIGGERING (the trigger price was reached) → TRIGGERED (its child order is with the engine) → FINISHED (the
child has ended); or CANCELED by its owner, REJECTED by the engine, EXPIRED by the service. Margin is looked at when
the child is placed, not before. The child's own events come before TRIGGERED.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue import placing
from market.simulator.venue.accounts import Account
from market.simulator.venue.endings import end_algo
from market.simulator.venue.events import algo_update
from market.simulator.venue.orders import CONDITIONAL, AlgoOrder, OrderRequest
from market.simulator.venue.price_match import check_price_match
from market.simulator.venue.refusals import Refusal, missing, not_required

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)
MOST_ALGOS = 200
"""Conditional orders that an account may have open."""
TIMES_IN_FORCE = ("GTC", "IOC", "FOK", "GTX", "GTE_GTC")
NEVER_MS = 1 << 62
LEAST_CALLBACK, MOST_CALLBACK = Decimal("0.1"), Decimal(20)


def place_algo(venue: Venue, account: Account, request: OrderRequest) -> AlgoOrder:
    """Take a conditional order. Raises `Refusal`; then nothing has changed."""
    rules = placing.rules_of(venue, request.symbol)
    placing.check_mode(account, request)
    placing.check_client_id(request.client_id)
    _check_form(account, request)
    for price in (request.trigger_price, request.price, request.activate_price):
        if price is not None:
            rules.check_price(price)
    if request.quantity is not None and not request.close_position:
        rules.check_quantity(request.quantity, market=request.type not in ("STOP", "TAKE_PROFIT"))
    if any(algo.client_id == request.client_id for algo in account.open_algos.values()):
        raise Refusal(-4116)
    if len(account.open_algos) >= MOST_ALGOS:
        raise Refusal(-4045)
    algo = _algo(venue, request)
    placing.check_traded(venue, algo.symbol, only_closes=algo.only_closes)
    if not (algo.trails and request.activate_price is None) and _is_reached(venue, algo):
        raise Refusal(-2021)
    if algo.trails and request.activate_price is None:
        activate(venue, algo)
    venue.state.last_algo = algo.id
    account.open_algos[algo.id] = algo
    venue.emit(algo_update(account, algo, None, venue.now_ms))
    return algo


def _check_form(account: Account, request: OrderRequest) -> None:
    """Parameters that have to be there or must not."""
    if request.type not in CONDITIONAL:
        raise Refusal(-1116)
    trails = request.type == "TRAILING_STOP_MARKET"
    limit = request.type in ("STOP", "TAKE_PROFIT")
    if request.time_in_force is not None and request.time_in_force not in TIMES_IN_FORCE:
        raise Refusal(-1115)
    if trails and request.trigger_price is not None:
        raise Refusal(-2021)
    if not trails and request.trigger_price is None:
        raise missing("triggerPrice")
    if trails and request.callback_rate is None:
        raise missing("callbackRate")
    if trails and not LEAST_CALLBACK <= (request.callback_rate or ZERO) <= MOST_CALLBACK:
        raise Refusal(-1130, "Data sent for parameter 'callbackRate' is not valid.")
    check_price_match(request.price_match, request.type, request.price)
    if limit and request.price is None and request.price_match is None:
        raise missing("price")
    if not limit and request.price is not None:
        raise not_required("price")
    _check_closing(account, request, trails or limit)
    if request.time_in_force == "GTE_GTC" and not any(side.quantity for side in account.sides(request.symbol)):
        raise Refusal(-4509)


def _check_closing(account: Account, request: OrderRequest, no_market_stop: bool) -> None:
    """closePosition excludes quantity and reduceOnly, and there is one such stop and one such target a direction."""
    if not request.close_position:
        if request.quantity is None:
            raise missing("quantity")
        return
    if no_market_stop:
        raise Refusal(-4136, type=request.type)
    if request.quantity is not None:
        raise Refusal(-4137)
    if request.reduce_only is not None:
        raise Refusal(-4138)
    for algo in account.open_algos.values():
        same = (algo.symbol, algo.side, algo.position_side) == (request.symbol, request.side, request.position_side)
        if same and algo.close_position and algo.type == request.type:
            raise Refusal(-4130)


def _algo(venue: Venue, request: OrderRequest) -> AlgoOrder:
    identity, now = venue.state.last_algo + 1, venue.now_ms
    trails = request.type == "TRAILING_STOP_MARKET"
    return AlgoOrder(
        id=identity,
        client_id=request.client_id or f"sim{identity}",
        symbol=request.symbol,
        side=request.side,
        position_side=request.position_side,
        type=request.type,
        time_in_force=request.time_in_force or "GTC",
        quantity=request.quantity or ZERO,
        price=request.price or ZERO,
        trigger_price=request.trigger_price or ZERO,
        working_type=request.working_type,
        price_protect=request.price_protect,
        reduce_only=bool(request.reduce_only),
        close_position=request.close_position,
        created_ms=now,
        updated_ms=now,
        activate_price=request.activate_price or ZERO,
        callback_rate=request.callback_rate or ZERO,
        active=not trails,
        price_match=request.price_match or "NONE",
    )


def awaited(algo: AlgoOrder) -> tuple[Decimal, bool]:
    """The price that a conditional order waits for, and whether from below.

    A trailing stop waits for its activation against its trigger's direction: a sell for a rise, a buy for a fall.
    """
    if algo.active:
        return algo.trigger_price, algo.rises
    return algo.activate_price, not algo.rises


def _price(venue: Venue, algo: AlgoOrder) -> Decimal:
    quote = venue.state.quotes[algo.symbol]
    return quote.mark if algo.working_type == "MARK_PRICE" else quote.last


def _is_reached(venue: Venue, algo: AlgoOrder) -> bool:
    level, rises = awaited(algo)
    price = _price(venue, algo)
    return price >= level if rises else price <= level


def activate(venue: Venue, algo: AlgoOrder) -> None:
    """Let a trailing stop follow the price from here on."""
    algo.active, algo.extreme = True, _price(venue, algo)
    if not algo.activate_price:
        algo.activate_price = algo.extreme
    _trail(venue, algo)


def _trail(venue: Venue, algo: AlgoOrder) -> None:
    distance = algo.extreme * algo.callback_rate / 100
    rules = venue.market.rules[algo.symbol]
    algo.trigger_price = rules.on_tick(algo.extreme + algo.sign * distance)


def follow(venue: Venue) -> None:
    """Prices have moved: active trailing stops move along, in their favour only."""
    for account in venue.state.accounts.values():
        for algo in account.open_algos.values():
            if algo.trails and algo.active and algo.waiting:
                price = _price(venue, algo)
                if (price - algo.extreme) * algo.sign < 0:
                    algo.extreme = price
                    _trail(venue, algo)


def reached(venue: Venue, account: Account, algo: AlgoOrder) -> None:
    """The price has come to what a conditional order waits for: a trailing stop's start, or the trigger."""
    if not algo.active:
        activate(venue, algo)
        return
    algo.status, algo.trigger_ms, algo.updated_ms = "TRIGGERING", venue.now_ms, venue.now_ms
    algo.due_ms = venue.now_ms + venue.parameters.algo_lag_ms
    if venue.stuck_algos > 0:
        venue.stuck_algos -= 1
        algo.due_ms = NEVER_MS
    venue.emit(algo_update(account, algo, None, venue.now_ms))


def spawn(venue: Venue, account: Account, algo: AlgoOrder) -> None:
    """The child of a triggered conditional order comes to the engine, which may refuse it."""
    position = account.position(algo.symbol, algo.position_side)
    if algo.close_position and position.quantity * algo.sign >= 0:
        end_algo(venue, account, algo, "EXPIRED", "no position to close")
        return
    limit, matched = algo.child_type == "LIMIT", algo.price_match != "NONE"
    request = OrderRequest(
        symbol=algo.symbol,
        side=algo.side,
        type=algo.child_type,
        position_side=algo.position_side,
        time_in_force=_child_time_in_force(algo) if limit else None,
        quantity=abs(position.quantity) if algo.close_position else algo.quantity,
        price=algo.price if limit and not matched else None,
        price_match=algo.price_match if matched else None,
        reduce_only=None if account.hedge else algo.reduce_only or algo.close_position,
        client_id=algo.client_id,
    )
    try:
        _, child = placing.place(venue, account, request, algo)
    except Refusal as refusal:
        end_algo(venue, account, algo, "REJECTED", f"{refusal.code}: {refusal.message}")
        return
    algo.order_id, algo.status, algo.updated_ms = child.id, "TRIGGERED", venue.now_ms
    venue.emit(algo_update(account, algo, child, venue.now_ms))
    if not child.working:
        end_algo(venue, account, algo, "FINISHED")


def _child_time_in_force(algo: AlgoOrder) -> str:
    return "GTC" if algo.time_in_force == "GTE_GTC" else algo.time_in_force


def cancel_algo(venue: Venue, account: Account, algo: AlgoOrder) -> None:
    """Cancel at its owner's wish. -4117 while it is triggering, -2011 afterwards."""
    if algo.status == "TRIGGERING":
        raise Refusal(-4117)
    if not algo.waiting:
        raise Refusal(-2011)
    end_algo(venue, account, algo, "CANCELED")
