"""Margin calls and liquidation: what the venue does when margin no longer covers what must stay behind positions.

Isolated: a position whose margin and loss come down to its maintenance margin is closed. Cross: the open orders go
first; if that is not enough, positions are closed one by one, the one that needs most margin first, until what is
left is covered. A closing is at the last price and pays the symbol's liquidation fee to the insurance fund, as far as
there is something left; the fund makes up for what a wallet then lacks.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue.accounts import Account
from market.simulator.venue.events import account_update, margin_call, order_update
from market.simulator.venue.execution import cancel, fill
from market.simulator.venue.margin import cross_cover, maintenance_of
from market.simulator.venue.orders import LIQUIDATED, Order
from market.simulator.venue.positions import Position
from market.simulator.venue.rules import rounded

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)


def settle(venue: Venue) -> None:
    """Call margin and liquidate, wherever the present prices demand it."""
    for account in venue.state.accounts.values():
        if account.held_positions():
            _isolated(venue, account)
            _cross(venue, account)
            _call(venue, account)


def _isolated(venue: Venue, account: Account) -> None:
    for position in account.held_positions():
        if not account.is_isolated(position.symbol):
            continue
        left = position.isolated_wallet + position.unrealized(venue.market.mark(position.symbol))
        if left > maintenance_of(position, venue.market):
            continue
        for order in list(account.open_orders.values()):
            if order.symbol == position.symbol:
                cancel(venue, account, order)
        before = account.wallet - position.isolated_wallet
        rest = _close(venue, account, position)
        remains = account.wallet - before
        _charge(venue, account, position.symbol, rest, remains)


def _uncovered(venue: Venue, account: Account) -> bool:
    balance, needed = cross_cover(account, venue.market)
    return needed > 0 and balance <= needed


def _cross(venue: Venue, account: Account) -> None:
    if not _uncovered(venue, account):
        return
    for order in list(account.open_orders.values()):
        if not account.is_isolated(order.symbol):
            cancel(venue, account, order)
    while _uncovered(venue, account):
        held = [position for position in account.held_positions() if not account.is_isolated(position.symbol)]
        worst = max(held, key=lambda position: maintenance_of(position, venue.market))
        notional = _close(venue, account, worst)
        _charge(venue, account, worst.symbol, notional, cross_cover(account, venue.market)[0])
    if account.cross_wallet < 0 and not any(
        not account.is_isolated(position.symbol) for position in account.held_positions()
    ):
        _insure(venue, account, "", -account.cross_wallet)


def _close(venue: Venue, account: Account, position: Position) -> Decimal:
    """Close a position by a liquidation order at the last price; returns the notional."""
    price, quantity, now = venue.state.quotes[position.symbol].last, abs(position.quantity), venue.now_ms
    venue.state.last_order += 1
    order = Order(
        id=venue.state.last_order,
        client_id=f"autoclose-{now}{venue.state.last_order:06d}",
        symbol=position.symbol,
        side="SELL" if position.quantity > 0 else "BUY",
        position_side=position.side,
        type="LIQUIDATION",
        time_in_force="IOC",
        price=price,
        quantity=quantity,
        reduce_only=position.side == "BOTH",
        created_ms=now,
        updated_ms=now,
        expiry_reason=LIQUIDATED,
    )
    account.open_orders[order.id] = order
    venue.emit(order_update(account, order, "NEW", now))
    fill(venue, account, order, quantity, price, maker=False, forced=True)
    venue.tell_forced(order)
    return quantity * price


def _charge(venue: Venue, account: Account, symbol: str, notional: Decimal, left: Decimal) -> None:
    """Take the liquidation fee out of what is left, or have the fund make up for it in isolated margin."""
    if left < 0:
        if account.is_isolated(symbol):
            _insure(venue, account, symbol, -left)
        return
    fee = min(rounded(notional * venue.market.rules[symbol].liquidation_fee), rounded(left))
    if fee > 0:
        _insure(venue, account, symbol, -fee)


def _insure(venue: Venue, account: Account, symbol: str, amount: Decimal) -> None:
    account.totals.insurance += amount
    venue.state.books.insurance -= amount
    venue.book(account, "INSURANCE_CLEAR", amount, symbol)
    venue.emit(account_update(account, "INSURANCE_CLEAR", (), amount, venue.market, venue.now_ms))


def _call(venue: Venue, account: Account) -> None:
    """MARGIN_CALL once, when maintenance margin takes more than its share of the margin balance."""
    ratio, called = venue.parameters.margin_call_ratio, []
    cross_balance, cross_needed = cross_cover(account, venue.market)
    for position in account.held_positions():
        balance, needed = cross_balance, cross_needed
        if account.is_isolated(position.symbol):
            balance = position.isolated_wallet + position.unrealized(venue.market.mark(position.symbol))
            needed = maintenance_of(position, venue.market)
        if needed > ratio * balance:
            called.append(position)
    if called and not account.margin_called:
        venue.emit(margin_call(account, called, venue.market, venue.now_ms))
    account.margin_called = bool(called)
