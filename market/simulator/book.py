"""An order book around the last price, of a given shape: what the public streams and REST show of it.

The last price lies in the middle; the best bid is one tick below, the best ask one above, and further levels follow
tick by tick. Quantities are made from price and time, so that the same moment has the same book.
"""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from market.simulator.venue.events import plain
from market.simulator.venue.rules import SymbolRules

LEVELS = 20

Side = dict[Decimal, Decimal]


class Book(Struct, frozen=True):
    """Bids and asks, best first: price to quantity. `update_id` grows with every change."""

    update_id: int
    bids: Side
    asks: Side

    @classmethod
    def around(cls, last: Decimal, rules: SymbolRules, update_id: int) -> Book:
        """The book at a last price.

        >>> from market.simulator.exchange_info import symbol_info
        >>> rules = SymbolRules.of(symbol_info("BTCUSDT", 50_000.0, 1, 0, "TRADING"))
        >>> book = Book.around(Decimal(50_000), rules, 7)
        >>> next(iter(book.bids)), next(iter(book.asks))
        (Decimal('49999.9'), Decimal('50000.1'))
        """
        bids = {price: _quantity(price, rules, update_id) for price in _ladder(last, -rules.tick)}
        asks = {price: _quantity(price, rules, update_id) for price in _ladder(last, rules.tick)}
        return cls(update_id, bids, asks)

    def changes(self, before: Book) -> tuple[Side, Side]:
        """What has changed since `before`: new quantities, zero for what is gone."""
        return _changes(before.bids, self.bids), _changes(before.asks, self.asks)


def _ladder(last: Decimal, step: Decimal) -> list[Decimal]:
    return [price for level in range(1, LEVELS + 1) if (price := last + step * level) > 0]


def _quantity(price: Decimal, rules: SymbolRules, update_id: int) -> Decimal:
    ticks = int(price / rules.tick)
    return rules.lot.step * (1 + (ticks * 2_654_435_761 + update_id // 60_000) % 997)


def _changes(before: Side, now: Side) -> Side:
    found = {price: quantity for price, quantity in now.items() if before.get(price) != quantity}
    return found | {price: Decimal(0) for price in before if price not in now}


def rows(side: Side, limit: int = LEVELS) -> list[list[str]]:
    """Levels as the venue writes them."""
    return [[plain(price), plain(quantity)] for price, quantity in list(side.items())[:limit]]
