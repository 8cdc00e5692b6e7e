"""The end of a contract: its orders expire and its positions are settled."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue import liquidation
from market.simulator.venue.accounts import Account
from market.simulator.venue.endings import end_algo
from market.simulator.venue.execution import expire, fill
from market.simulator.venue.margin import Quote
from market.simulator.venue.orders import DELISTED, Order
from market.simulator.venue.positions import Position

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue


def settle_delisted(venue: Venue, symbol: str, price: Decimal) -> None:
    """Close everything that any account has in a symbol at the settlement `price`, for the taker fee.

    The symbol is closed from here on. An account whose margin does not cover its position at this price is
    liquidated instead.
    """
    venue.closing.discard(symbol)
    venue.closed.add(symbol)
    for account in venue.state.accounts.values():
        account.countdowns.pop(symbol, None)
        for order in [order for order in account.open_orders.values() if order.symbol == symbol]:
            expire(venue, account, order, DELISTED)
        for algo in [algo for algo in account.open_algos.values() if algo.symbol == symbol]:
            end_algo(venue, account, algo, "EXPIRED", f"the symbol was delisted ({DELISTED})")
    venue.state.quotes[symbol] = Quote(price, price)
    liquidation.settle(venue)
    for account in venue.state.accounts.values():
        for position in account.held_positions():
            if position.symbol == symbol:
                _close(venue, account, position, price)
    venue.check()


def _close(venue: Venue, account: Account, position: Position, price: Decimal) -> None:
    now, quantity = venue.now_ms, abs(position.quantity)
    venue.state.last_order += 1
    order = Order(
        id=venue.state.last_order,
        client_id=f"settlement_autoclose-{venue.state.last_order:015d}",
        symbol=position.symbol,
        side="SELL" if position.quantity > 0 else "BUY",
        position_side=position.side,
        type="MARKET",
        time_in_force="GTC",
        price=price,
        quantity=quantity,
        reduce_only=position.side == "BOTH",
        created_ms=now,
        updated_ms=now,
    )
    account.open_orders[order.id] = order
    fill(venue, account, order, quantity, price, maker=False)
