"""`priceMatch`: an order whose price the venue takes from the order book when the order comes.

OPPONENT is the best price of the other side, OPPONENT_5 the fifth best; QUEUE is the best of the order's own side.
The book has a level at every tick, the best ones a tick from the last price.
"""

from __future__ import annotations

from decimal import Decimal

from market.simulator.venue.refusals import Refusal, not_required
from market.simulator.venue.rules import SymbolRules

MATCHED = ("LIMIT", "STOP", "TAKE_PROFIT")
"""Order types whose price may be matched."""
LEVELS = {
    f"{side}{suffix}": (sign, level)
    for side, sign in (("OPPONENT", 1), ("QUEUE", -1))
    for suffix, level in (("", 1), ("_5", 5), ("_10", 10), ("_20", 20))
}


def check_price_match(mode: str | None, order_type: str, price: Decimal | None) -> None:
    """-5037 for an unknown mode, -5038 for a type that has no price to match, -1106 for a price beside it."""
    if mode is None:
        return
    if mode not in LEVELS:
        raise Refusal(-5037)
    if order_type not in MATCHED:
        raise Refusal(-5038)
    if price is not None:
        raise not_required("price")


def matched_price(mode: str, sign: int, last: Decimal, rules: SymbolRules) -> Decimal:
    """The price of an order; `sign` is +1 for a buy. -5041 where the book has no such level.

    >>> from market.simulator.exchange_info import symbol_info
    >>> rules = SymbolRules.of(symbol_info("BTCUSDT", 50_000.0, 1, 0, "TRADING"))
    >>> matched_price("OPPONENT", 1, Decimal(50_000), rules), matched_price("QUEUE_5", 1, Decimal(50_000), rules)
    (Decimal('50000.1'), Decimal('49999.5'))
    """
    side, level = LEVELS[mode]
    price = last + sign * side * level * rules.tick
    if price < rules.least_price:
        raise Refusal(-5041)
    return price
