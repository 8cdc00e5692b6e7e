"""The orders that the venue itself gives, to close what an account may not keep."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from market.simulator.venue.accounts import Account
from market.simulator.venue.orders import LIQUIDATED, Order
from market.simulator.venue.positions import Position

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue


def closing_order(
    venue: Venue,
    account: Account,
    position: Position,
    quantity: Decimal,
    price: Decimal,
    kind: Literal["LIQUIDATION", "MARKET"],
) -> Order:
    """An order of the account that takes `quantity` off a position, open and not filled: a liquidation's or, as a
    market order, a settlement's. Their client ids are those by which the venue's own orders are known."""
    venue.state.last_order += 1
    number, liquidation = venue.state.last_order, kind == "LIQUIDATION"
    order = Order(
        id=number,
        client_id=f"autoclose-{venue.now_ms}{number:06d}" if liquidation else f"settlement_autoclose-{number:015d}",
        symbol=position.symbol,
        side="SELL" if position.quantity > 0 else "BUY",
        position_side=position.side,
        type=kind,
        time_in_force="IOC" if liquidation else "GTC",
        price=price,
        quantity=quantity,
        reduce_only=position.side == "BOTH",
        created_ms=venue.now_ms,
        updated_ms=venue.now_ms,
        expiry_reason=LIQUIDATED if liquidation else 0,
    )
    account.open_orders[order.id] = order
    return order
