"""Leverage, margin type, position mode, isolated margin: what an account may set, and when not."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue.accounts import Account
from market.simulator.venue.brackets import most_notional
from market.simulator.venue.events import account_config_update, account_update
from market.simulator.venue.margin import exposure, maintenance_of, margins
from market.simulator.venue.placing import rules_of
from market.simulator.venue.positions import PositionSide
from market.simulator.venue.refusals import Refusal, invalid

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)


def set_leverage(venue: Venue, account: Account, symbol: str, leverage: int) -> Decimal:
    """Set a symbol's leverage; returns the largest notional it allows.

    -4028 not a leverage of this symbol, -2027 too large a position for it, -2028 not enough margin,
    -4161 lower with an isolated position.
    """
    brackets, settings = rules_of(venue, symbol).brackets, account.settings_of(symbol)
    if not 1 <= leverage <= brackets[0].leverage:
        raise Refusal(-4028, leverage=leverage)
    most = most_notional(brackets, leverage)
    if leverage == settings.leverage:
        return most
    held, total = exposure(account, symbol, venue.market.mark(symbol))
    if total > most:
        raise Refusal(-2027)
    if settings.isolated and held and leverage < settings.leverage:
        raise Refusal(-4161)
    before, settings.leverage = settings.leverage, leverage
    if leverage < before and total and margins(account, venue.market).free < 0:
        settings.leverage = before
        raise Refusal(-2028)
    venue.emit(account_config_update(account, symbol, leverage, venue.now_ms))
    return most


def set_margin_type(venue: Venue, account: Account, symbol: str, isolated: bool) -> None:
    """Cross or isolated margin of a symbol: -4046 as it is already, -4047 with open orders, -4048 with a position."""
    rules_of(venue, symbol)
    settings = account.settings_of(symbol)
    if settings.isolated == isolated:
        raise Refusal(-4046)
    if any(order.symbol == symbol for order in account.open_orders.values()):
        raise Refusal(-4047)
    if any(algo.symbol == symbol for algo in account.open_algos.values()):
        raise Refusal(-4047)
    if any(side.quantity for side in account.sides(symbol)):
        raise Refusal(-4048)
    settings.isolated = isolated
    venue.emit(account_update(account, "MARGIN_TYPE_CHANGE", account.sides(symbol), ZERO, venue.market, venue.now_ms))


def set_hedge(account: Account, hedge: bool) -> None:
    """Position mode of all symbols: -4059 as it is already, -4067 with open orders, -4068 with a position."""
    if account.hedge == hedge:
        raise Refusal(-4059)
    if account.open_orders or account.open_algos:
        raise Refusal(-4067)
    if account.held_positions():
        raise Refusal(-4068)
    account.hedge = hedge


def move_margin(venue: Venue, account: Account, symbol: str, side: PositionSide, amount: Decimal) -> None:
    """Add margin to an isolated position (positive) or take it away: -4051 when there is not so much of it."""
    rules_of(venue, symbol)
    if account.hedge == (side == "BOTH"):
        raise Refusal(-4061)
    position = account.position(symbol, side)
    if not account.is_isolated(symbol) or not position.quantity:
        raise Refusal(-4054)
    if not amount:
        raise invalid("amount")
    mark = venue.market.mark(symbol)
    if amount > 0 and amount > margins(account, venue.market).available:
        raise Refusal(-4051)
    needed = max(
        maintenance_of(position, venue.market), abs(position.notional(mark)) / account.settings_of(symbol).leverage
    )
    left = position.isolated_wallet + amount
    if amount < 0 and (left < 0 or left + min(ZERO, position.unrealized(mark)) < needed):
        raise Refusal(-4051)
    position.isolated_wallet = left
    account.totals.margin_of(position).moved += amount
    venue.emit(account_update(account, "MARGIN_TRANSFER", (position,), ZERO, venue.market, venue.now_ms))
    venue.check()
