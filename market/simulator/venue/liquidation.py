"""Margin calls and liquidation: what the venue does when margin no longer covers what must stay behind positions.

The open orders go first: of the symbol in isolated margin, of all cross symbols in cross margin. Then one order takes
so much of the position as brings it into the next lower leverage bracket in which, after loss and fee, its margin
covers it; where no bracket does that, all of it. In cross margin the position that needs most margin is the first, and
the next one follows while what is left is not covered. A liquidation is at the last price and pays the symbol's fee, on
what was liquidated, to the insurance fund as far as there is something left; the fund makes up for what a wallet then
lacks.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import maintenance_margin
from market.simulator.venue.events import account_update, margin_call, order_update
from market.simulator.venue.execution import cancel, fill
from market.simulator.venue.margin import cross_cover, maintenance_of
from market.simulator.venue.positions import Position
from market.simulator.venue.rules import rounded
from market.simulator.venue.venue_orders import closing_order

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
        notional = _close(venue, account, position, _excess(venue, account, position))
        left = account.wallet - before + position.unrealized(venue.market.mark(position.symbol))
        _charge(venue, account, position, notional, left)


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
        notional = _close(venue, account, worst, _excess(venue, account, worst))
        _charge(venue, account, worst, notional, cross_cover(account, venue.market)[0])
    if account.cross_wallet < 0 and not any(
        not account.is_isolated(position.symbol) for position in account.held_positions()
    ):
        _insure(venue, account, "", -account.cross_wallet)


def _excess(venue: Venue, account: Account, position: Position) -> Decimal:
    """How much of a position has to go: down to a lower bracket where the margin covers it, or all of it."""
    rules, quote = venue.market.rules[position.symbol], venue.state.quotes[position.symbol]
    isolated, held = account.is_isolated(position.symbol), abs(position.quantity)
    side = 1 if position.quantity > 0 else -1
    needed = maintenance_of(position, venue.market)
    balance = position.isolated_wallet + position.unrealized(quote.mark)
    if not isolated:
        balance, needed = cross_cover(account, venue.market)
    elsewhere = needed - maintenance_of(position, venue.market)
    for bracket in reversed(rules.brackets):
        kept = _below(bracket.cap, quote.mark, rules.lot.step)
        if not 0 < kept < held:
            continue
        gone = held - kept
        fee = rounded(gone * quote.last * rules.liquidation_fee)
        left = balance + side * gone * (quote.last - quote.mark) - fee
        if left <= elsewhere + maintenance_margin(rules.brackets, kept * quote.mark):
            continue
        # What stays behind an isolated position is what it had, less what was lost on the part that is gone.
        if not isolated or left > position.unrealized(quote.mark) * kept / held:
            return gone
    return held


def _below(cap: Decimal, mark: Decimal, step: Decimal) -> Decimal:
    """The largest quantity on the grid whose notional lies below `cap`.

    >>> _below(Decimal(1000), Decimal(50), Decimal("0.5"))
    Decimal('19.5')
    """
    steps = (cap / mark / step).quantize(Decimal(1), ROUND_CEILING) - 1
    return steps * step


def _close(venue: Venue, account: Account, position: Position, quantity: Decimal) -> Decimal:
    """Close so much of a position by a liquidation order at the last price; returns the notional."""
    price = venue.state.quotes[position.symbol].last
    order = closing_order(venue, account, position, quantity, price, "LIQUIDATION")
    venue.emit(order_update(account, order, "NEW", venue.now_ms))
    fill(venue, account, order, quantity, price, maker=False, forced=True)
    venue.tell_forced(order)
    return quantity * price


def _charge(venue: Venue, account: Account, position: Position, notional: Decimal, left: Decimal) -> None:
    """Take the liquidation fee out of what is left, or have the fund make up for it in isolated margin."""
    symbol, isolated = position.symbol, account.is_isolated(position.symbol)
    if left < 0:
        if isolated:
            _insure(venue, account, symbol, -left)
        return
    fee = min(rounded(notional * venue.market.rules[symbol].liquidation_fee), rounded(left))
    if fee > 0:
        if isolated and position.quantity:
            position.isolated_wallet -= fee
            account.totals.margin_of(position).liquidated -= fee
            _insure(venue, account, symbol, -fee, (position,))
        else:
            _insure(venue, account, symbol, -fee)


def _insure(venue: Venue, account: Account, symbol: str, amount: Decimal, changed: tuple[Position, ...] = ()) -> None:
    account.totals.insurance += amount
    venue.state.books.insurance -= amount
    venue.book(account, "INSURANCE_CLEAR", amount, symbol)
    venue.emit(account_update(account, "INSURANCE_CLEAR", changed, amount, venue.market, venue.now_ms))


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
