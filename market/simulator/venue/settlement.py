"""The end of a contract: its orders expire and its positions are settled."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue import liquidation
from market.simulator.venue.endings import end_algo
from market.simulator.venue.execution import expire, fill
from market.simulator.venue.margin import Quote
from market.simulator.venue.orders import DELISTED
from market.simulator.venue.venue_orders import closing_order

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
                quantity = abs(position.quantity)
                order = closing_order(venue, account, position, quantity, price, "MARKET")
                fill(venue, account, order, quantity, price, maker=False)
    venue.check()
