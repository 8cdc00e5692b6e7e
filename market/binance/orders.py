"""Orders as they are meant, and as they are sent.

An order names the position that it opens or leaves, not a side and a set of flags: side, `positionSide` and
`reduceOnly` follow from that and from the account's mode, so that they cannot contradict each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from market.binance.errors import DoesNotFit
from market.binance.position_mode import Mode, PositionSide, mode_of
from market.binance.rules import Side
from market.binance.signing import Value

_CLIENT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


class Direction(StrEnum):
    """Which way a position gains."""

    LONG = "LONG"
    SHORT = "SHORT"


class TimeInForce(StrEnum):
    """How long a limit order stands. GTX is post-only."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTX = "GTX"


class AlgoType(StrEnum):
    """Conditional orders: they wait at the algo service for their trigger."""

    STOP = "STOP"
    STOP_MARKET = "STOP_MARKET"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"
    TRAILING_STOP_MARKET = "TRAILING_STOP_MARKET"


class WorkingType(StrEnum):
    """Which price triggers."""

    LAST = "CONTRACT_PRICE"
    MARK = "MARK_PRICE"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """What both kinds of order say of the position that they are about.

    `held_as` is the side under which the position that is left is held, as the venue told it; None for an entry.
    """

    symbol: str
    direction: Direction
    client_id: str
    held_as: PositionSide | None = None

    @property
    def reduces(self) -> bool:
        """Whether it leaves a position (or part of one) and can do nothing else."""
        return self.held_as is not None

    @property
    def side(self) -> Side:
        """Buy to open a long and to leave a short."""
        return Side.BUY if (self.direction is Direction.LONG) != self.reduces else Side.SELL

    def mode(self, known: Mode | None) -> Mode:
        """The mode to speak in: that of the position that is left, else the account's."""
        if self.held_as is not None:
            return mode_of(self.held_as)
        if known is None:
            raise ValueError("an entry needs to know the account's mode")
        return known

    def position_fields(self, mode: Mode, *, reduce_only: bool = True) -> dict[str, Value]:
        """`positionSide` in hedge mode, `reduceOnly` in one-way mode, and never both."""
        fields: dict[str, Value] = {"symbol": self.symbol, "side": self.side.value}
        if mode is Mode.HEDGE:
            fields["positionSide"] = self.direction.value
        elif self.reduces and reduce_only:
            fields["reduceOnly"] = True
        return fields

    def check(self) -> None:
        """`DoesNotFit` for what no venue would take."""
        if not _CLIENT_ID.fullmatch(self.client_id):
            raise DoesNotFit(self.symbol, f"the client order id {self.client_id!r} is not 1 to 36 of its characters")
        held = self.held_as
        if held is not None and held is not PositionSide.BOTH and held.value != self.direction.value:
            raise DoesNotFit(self.symbol, f"a {self.direction} position cannot be held as {held}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(_Position):
    """A market order, or with a price a limit order. Quantity and price are as the symbol's rules made them."""

    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC

    def parameters(self, mode: Mode) -> dict[str, Value]:
        """What `POST /fapi/v1/order` is sent."""
        self.check()
        fields = self.position_fields(mode)
        fields |= {"type": "MARKET" if self.price is None else "LIMIT", "quantity": self.quantity}
        if self.price is not None:
            fields |= {"price": self.price, "timeInForce": self.time_in_force.value}
        return fields | {"newClientOrderId": self.client_id, "newOrderRespType": "RESULT"}

    def __str__(self) -> str:
        return f"order {self.client_id} ({self.side} {self.quantity} {self.symbol})"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgoOrder(_Position):
    """A conditional order. Without a quantity it closes the whole position.

    `price` goes with STOP and TAKE_PROFIT alone, `callback_rate` (percent, 0.1 to 20) and `activate_price` with
    TRAILING_STOP_MARKET, which has no trigger.
    """

    type: AlgoType
    trigger_price: Decimal | None = None
    quantity: Decimal | None = None
    price: Decimal | None = None
    callback_rate: Decimal | None = None
    activate_price: Decimal | None = None
    working_type: WorkingType = WorkingType.LAST
    price_protect: bool = False
    time_in_force: TimeInForce | None = None

    def parameters(self, mode: Mode) -> dict[str, Value]:
        """What `POST /fapi/v1/algoOrder` is sent."""
        self.check()
        # closePosition excludes reduceOnly, which it implies.
        fields = self.position_fields(mode, reduce_only=self.quantity is not None)
        fields |= {"algoType": "CONDITIONAL", "type": self.type.value}
        optional: dict[str, Value | None] = {
            "quantity": self.quantity,
            "closePosition": True if self.quantity is None else None,
            "price": self.price,
            "triggerPrice": self.trigger_price,
            "callbackRate": self.callback_rate,
            "activatePrice": self.activate_price,
            "timeInForce": None if self.time_in_force is None else self.time_in_force.value,
            "priceProtect": True if self.price_protect else None,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        return fields | {"workingType": self.working_type.value, "clientAlgoId": self.client_id}

    def check(self) -> None:
        """`DoesNotFit` for a combination that the venue refuses, or would take for something else."""
        _Position.check(self)
        trailing = self.type is AlgoType.TRAILING_STOP_MARKET
        limit = self.type in (AlgoType.STOP, AlgoType.TAKE_PROFIT)
        if self.quantity is None and not self.reduces:
            raise DoesNotFit(self.symbol, "an entry needs a quantity")
        if self.quantity is None and (trailing or limit):
            raise DoesNotFit(self.symbol, f"{self.type} needs a quantity: it cannot close the whole position")
        if limit != (self.price is not None):
            raise DoesNotFit(self.symbol, f"{self.type} {'needs' if limit else 'has no'} price")
        if trailing == (self.trigger_price is not None):
            raise DoesNotFit(self.symbol, f"{self.type} {'has no' if trailing else 'needs'} trigger price")
        if trailing != (self.callback_rate is not None) or (self.activate_price is not None and not trailing):
            raise DoesNotFit(self.symbol, f"callback rate and activation go with {AlgoType.TRAILING_STOP_MARKET}")
        if self.callback_rate is not None and not Decimal("0.1") <= self.callback_rate <= 20:
            raise DoesNotFit(self.symbol, f"the callback rate {self.callback_rate} is not from 0.1 to 20 percent")

    def __str__(self) -> str:
        return f"algo order {self.client_id} ({self.side} {self.type} {self.symbol})"
