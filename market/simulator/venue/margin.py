"""Margin of an account: initial, maintenance, available, and where a position would be liquidated.

One-way and isolated: LP = (WB + cum − side·qty·entry) / (qty·mmr − side·qty), with WB the isolated wallet, or in
cross margin the cross wallet less the other positions' maintenance margin plus their profit. In hedge mode both
sides of a symbol move together and are solved for together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from itertools import product

from msgspec import Struct

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import maintenance_margin
from market.simulator.venue.orders import Order
from market.simulator.venue.positions import Position
from market.simulator.venue.rules import SymbolRules

ZERO = Decimal(0)


class Quote(Struct):
    """Prices of a symbol now, USDT: last trade and mark."""

    last: Decimal
    mark: Decimal


class Market(Struct):
    """What margin depends on besides the account: trading rules and prices by symbol."""

    rules: Mapping[str, SymbolRules]
    quotes: dict[str, Quote]

    def mark(self, symbol: str) -> Decimal:
        """The mark price of a symbol."""
        return self.quotes[symbol].mark


class Margins(Struct, frozen=True):
    """An account's margin, all in USDT."""

    wallet: Decimal
    cross_wallet: Decimal
    unrealized: Decimal
    cross_unrealized: Decimal
    position_initial: Decimal
    open_order_initial: Decimal
    maintenance: Decimal
    cross_maintenance: Decimal
    free: Decimal
    """What may back new positions; negative when orders and positions have outgrown the wallet."""

    @property
    def available(self) -> Decimal:
        """`free`, never below zero, as the venue shows it."""
        return max(ZERO, self.free)


def maintenance_of(position: Position, market: Market) -> Decimal:
    """Maintenance margin of one position at the mark price."""
    notional = abs(position.notional(market.mark(position.symbol)))
    return maintenance_margin(market.rules[position.symbol].brackets, notional)


def exposure(account: Account, symbol: str, mark: Decimal, extra: Order | None = None) -> tuple[Decimal, Decimal]:
    """Notional of the symbol's positions, and of positions and opening orders together, with `extra` among them.

    One-way: the larger of what there would be if all buys or all sells were filled. Hedge: each side by itself.
    """
    orders = [order for order in account.open_orders.values() if order.symbol == symbol]
    if extra is not None:
        orders.append(extra)
    held = total = ZERO
    for position in account.sides(symbol):
        notional = position.notional(mark)
        opening = [order for order in orders if not order.only_closes and order.position_side == position.side]
        buys = sum((order.price * order.remaining for order in opening if order.sign > 0), ZERO)
        sells = sum((order.price * order.remaining for order in opening if order.sign < 0), ZERO)
        held += abs(notional)
        total += max(abs(notional + buys), abs(notional - sells))
    return held, total


def margins(account: Account, market: Market) -> Margins:
    """The account's margin at the present prices."""
    unrealized = cross_unrealized = initial = cross_initial = orders_initial = ZERO
    maintenance = cross_maintenance = ZERO
    for symbol in account.active_symbols():
        settings, mark = account.settings_of(symbol), market.mark(symbol)
        held, total = exposure(account, symbol, mark)
        initial += held / settings.leverage
        orders_initial += (total - held) / settings.leverage
        profit = sum((position.unrealized(mark) for position in account.sides(symbol)), ZERO)
        needed = sum((maintenance_of(position, market) for position in account.sides(symbol)), ZERO)
        unrealized, maintenance = unrealized + profit, maintenance + needed
        if not settings.isolated:
            cross_initial += held / settings.leverage
            cross_unrealized, cross_maintenance = cross_unrealized + profit, cross_maintenance + needed
    cross_wallet = account.cross_wallet
    return Margins(
        wallet=account.wallet,
        cross_wallet=cross_wallet,
        unrealized=unrealized,
        cross_unrealized=cross_unrealized,
        position_initial=initial,
        open_order_initial=orders_initial,
        maintenance=maintenance,
        cross_maintenance=cross_maintenance,
        free=cross_wallet + cross_unrealized - cross_initial - orders_initial,
    )


def cross_cover(account: Account, market: Market) -> tuple[Decimal, Decimal]:
    """Margin balance of cross margin, and the maintenance margin that it has to cover."""
    balance, needed = account.wallet, ZERO
    for position in account.positions.values():
        if not position.quantity:
            continue
        if account.is_isolated(position.symbol):
            balance -= position.isolated_wallet
        else:
            balance += position.unrealized(market.mark(position.symbol))
            needed += maintenance_of(position, market)
    return balance, needed


def liquidation_price(account: Account, position: Position, market: Market) -> Decimal:
    """The mark price at which this position would be liquidated; zero when no price does that."""
    if not position.quantity:
        return ZERO
    if account.is_isolated(position.symbol):
        return _solve([position], position.isolated_wallet, market.rules[position.symbol])
    backing = account.cross_wallet
    for other in account.held_positions():
        if other.symbol != position.symbol and not account.is_isolated(other.symbol):
            backing += other.unrealized(market.mark(other.symbol)) - maintenance_of(other, market)
    together = [side for side in account.sides(position.symbol) if side.quantity]
    return _solve(together, backing, market.rules[position.symbol])


def _solve(positions: Iterable[Position], backing: Decimal, rules: SymbolRules) -> Decimal:
    """The price at which backing and profit of `positions` are just their maintenance margin, or zero.

    Maintenance margin is a line within each bracket, so each choice of brackets gives one price, which counts when
    the notionals at that price do fall in those brackets.
    """
    held = list(positions)
    for brackets in product(rules.brackets, repeat=len(held)):
        constant, slope = backing, ZERO
        for position, bracket in zip(held, brackets, strict=True):
            constant += bracket.cum - position.cost
            slope += abs(position.quantity) * bracket.ratio - position.quantity
        if not slope:
            continue
        price = constant / slope
        pairs = zip(held, brackets, strict=True)
        if price > 0 and all(
            bracket.floor <= abs(position.quantity) * price
            and (abs(position.quantity) * price < bracket.cap or bracket is rules.brackets[-1])
            for position, bracket in pairs
        ):
            return price
    return ZERO
