"""Orders and conditional orders as the venue keeps them, and requests for them as it reads them."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from msgspec import Struct

from market.simulator.venue.positions import PositionSide

Side = Literal["BUY", "SELL"]
Status = Literal["NEW", "PARTIALLY_FILLED", "FILLED", "CANCELED", "EXPIRED", "REJECTED"]
AlgoStatus = Literal["NEW", "TRIGGERING", "TRIGGERED", "FINISHED", "CANCELED", "REJECTED", "EXPIRED"]
WorkingType = Literal["CONTRACT_PRICE", "MARK_PRICE"]
ZERO = Decimal(0)

CONDITIONAL = ("STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET")
"""Order types that only the algo service takes."""

IOC_REMAINDER, REDUCE_ONLY_OUT, LIQUIDATED, GTE_UNSATISFIED, DELISTED, MARKET_REMAINDER = 2, 4, 5, 6, 7, 9
"""Reasons of expiry, `er` of ORDER_TRADE_UPDATE."""


class OrderRequest(Struct):
    """What an order asks for; None where a parameter was not sent."""

    symbol: str
    side: Side
    type: str
    position_side: PositionSide = "BOTH"
    time_in_force: str | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    reduce_only: bool | None = None
    close_position: bool = False
    client_id: str | None = None
    trigger_price: Decimal | None = None
    working_type: WorkingType = "CONTRACT_PRICE"
    price_protect: bool = False
    activate_price: Decimal | None = None
    callback_rate: Decimal | None = None
    """Percent."""
    price_match: str | None = None
    """See `price_match`; in place of a price."""


class Order(Struct):
    """One order of the matching engine. Prices in USDT, quantities in the base asset, times in ms UTC."""

    id: int
    client_id: str
    symbol: str
    side: Side
    position_side: PositionSide
    type: str
    time_in_force: str
    price: Decimal
    quantity: Decimal
    reduce_only: bool
    created_ms: int
    updated_ms: int
    status: Status = "NEW"
    executed: Decimal = ZERO
    quote: Decimal = ZERO
    """Σ quantity × price of its fills."""
    close_position: bool = False
    algo_id: int = 0
    """The conditional order it comes from; 0 for none."""
    algo_type: str = ""
    trigger_price: Decimal = ZERO
    working_type: WorkingType = "CONTRACT_PRICE"
    price_protect: bool = False
    expiry_reason: int = 0
    price_match: str = "NONE"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self.side == "BUY" else -1

    @property
    def remaining(self) -> Decimal:
        """What is not yet executed."""
        return self.quantity - self.executed

    @property
    def average_price(self) -> Decimal:
        """Mean price of its fills; zero before the first."""
        return self.quote / self.executed if self.executed else ZERO

    @property
    def working(self) -> bool:
        """Whether it can still be executed."""
        return self.status in ("NEW", "PARTIALLY_FILLED")

    @property
    def only_closes(self) -> bool:
        """Whether it can never open anything: reduce-only, or against its position side in hedge mode."""
        return self.reduce_only or (self.position_side, self.side) in (("LONG", "SELL"), ("SHORT", "BUY"))


class AlgoOrder(Struct):
    """One conditional order of the algo service; ids are of a space of their own."""

    id: int
    client_id: str
    symbol: str
    side: Side
    position_side: PositionSide
    type: str
    time_in_force: str
    quantity: Decimal
    """Zero with `close_position`."""
    price: Decimal
    trigger_price: Decimal
    """Of a trailing stop: zero until it is active, then where it triggers at present."""
    working_type: WorkingType
    price_protect: bool
    reduce_only: bool
    close_position: bool
    created_ms: int
    updated_ms: int
    status: AlgoStatus = "NEW"
    activate_price: Decimal = ZERO
    callback_rate: Decimal = ZERO
    active: bool = True
    """False while a trailing stop has not reached its activation price."""
    extreme: Decimal = ZERO
    """The best price since a trailing stop became active."""
    trigger_ms: int = 0
    due_ms: int = 0
    """When the order it turns into reaches the engine."""
    order_id: int = 0
    reason: str = ""
    price_match: str = "NONE"

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self.side == "BUY" else -1

    @property
    def trails(self) -> bool:
        """Whether it is a trailing stop."""
        return self.type == "TRAILING_STOP_MARKET"

    @property
    def rises(self) -> bool:
        """Whether it triggers at or above its trigger price rather than at or below."""
        return (self.side == "BUY") != self.type.startswith("TAKE_PROFIT")

    @property
    def only_closes(self) -> bool:
        """Whether what it turns into can never open anything."""
        reduces = self.reduce_only or self.close_position
        return reduces or (self.position_side, self.side) in (("LONG", "SELL"), ("SHORT", "BUY"))

    @property
    def waiting(self) -> bool:
        """Whether it can still trigger or be cancelled."""
        return self.status == "NEW"

    @property
    def child_type(self) -> str:
        """The type of the order it turns into."""
        return "LIMIT" if self.type in ("STOP", "TAKE_PROFIT") else "MARKET"


class Trade(Struct, frozen=True):
    """One fill."""

    id: int
    order_id: int
    symbol: str
    side: Side
    position_side: PositionSide
    price: Decimal
    quantity: Decimal
    realized: Decimal
    commission: Decimal
    maker: bool
    time_ms: int


class Income(Struct, frozen=True):
    """One change of a wallet, by its cause. `kind` is the venue's incomeType."""

    id: int
    kind: str
    amount: Decimal
    time_ms: int
    symbol: str = ""
    trade_id: int = 0
