"""One position: its signed quantity, what it cost, and the margin set aside for it."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from msgspec import Struct

from market.simulator.venue.rules import rounded

PositionSide = Literal["BOTH", "LONG", "SHORT"]
ZERO = Decimal(0)


class Position(Struct):
    """A position of one account in one symbol and position side.

    Kept by its cost rather than its entry price: a mean price seldom has a finite decimal, a cost always has, and so
    what was traded and what is booked agree to the last digit.
    """

    symbol: str
    side: PositionSide
    quantity: Decimal = ZERO
    """Signed: a short is negative."""
    cost: Decimal = ZERO
    """Σ quantity × price of what is held, signed as the quantity is, USDT."""
    isolated_wallet: Decimal = ZERO
    """Margin set aside for this position alone, USDT; zero in cross margin."""
    realized: Decimal = ZERO
    """Profit and loss realised since the position was opened, USDT."""
    updated_ms: int = 0

    @property
    def entry_price(self) -> Decimal:
        """Mean price of what is held; zero without a position."""
        return self.cost / self.quantity if self.quantity else ZERO

    def notional(self, mark: Decimal) -> Decimal:
        """Its value at the mark price, signed."""
        return self.quantity * mark

    def unrealized(self, mark: Decimal) -> Decimal:
        """Profit at the mark price."""
        return self.quantity * mark - self.cost

    def trade(self, signed_quantity: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
        """Buy (positive) or sell (negative) at `price`.

        Returns the realised profit and the isolated margin that comes free. What is closed takes its share of the
        cost along; what goes beyond zero opens the other way.

        >>> position = Position("BTCUSDT", "BOTH")
        >>> position.trade(Decimal(2), Decimal(100)), position.trade(Decimal(-3), Decimal(110))
        ((Decimal('0'), Decimal('0')), (Decimal('20'), Decimal('0')))
        >>> position.quantity, position.entry_price
        (Decimal('-1'), Decimal('110'))
        """
        opening, profit, freed = signed_quantity, ZERO, ZERO
        if self.quantity * signed_quantity < 0:
            closed = min(abs(signed_quantity), abs(self.quantity))
            signed = closed if self.quantity > 0 else -closed
            whole = closed == abs(self.quantity)
            share = self.cost if whole else rounded(self.cost * signed / self.quantity)
            freed = self.isolated_wallet if whole else rounded(self.isolated_wallet * signed / self.quantity)
            profit = signed * price - share
            self.cost -= share
            self.quantity -= signed
            self.isolated_wallet -= freed
            self.realized = ZERO if whole else self.realized + profit
            opening = signed_quantity + signed
        self.quantity += opening
        self.cost += opening * price
        return profit, freed
