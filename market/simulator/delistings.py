"""Symbols that leave: when, and the mark price on the way to their settlement.

In the last half hour the mark price is the mean of the index price at every second since that half hour began; at its
end, over 1,800 seconds, it is the price that positions are settled at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from market.bars import MINUTE_MS
from market.simulator.tape import Listing
from market.simulator.venue.rules import rounded

WINDOW_MS = 30 * MINUTE_MS
RAGGED_MS = 15 * MINUTE_MS
"""A recording that ends by so much before the longest has a ragged edge; its symbol has not left."""
SECOND_MS = 1_000


class Delistings:
    """The symbols whose recording ends well before the longest does.

    Parameters
    ----------
    listings: all symbols.
    index: the index price of a symbol at a time, or None where the recording has none.
    """

    def __init__(self, listings: Mapping[str, Listing], index: Callable[[str, int], Decimal | None]) -> None:
        last = max((listing.end_ms for listing in listings.values()), default=0)
        ends = {symbol: listing.end_ms for symbol, listing in listings.items()}
        self.ends = {symbol: end_ms for symbol, end_ms in ends.items() if end_ms < last - RAGGED_MS}
        self._begins = min(self.ends.values(), default=last) - WINDOW_MS
        self._index = index
        self._sums: dict[str, tuple[int, Decimal, int]] = {}
        """By symbol: the last second that was looked at, the sum of the prices, and how many they are."""

    def follow(self, now_ms: int) -> set[str]:
        """Look at the seconds until now of all symbols that are in their last half hour; which these are."""
        if now_ms <= self._begins:
            return set()
        leaving = {symbol for symbol, end_ms in self.ends.items() if end_ms - WINDOW_MS < now_ms < end_ms}
        for symbol in leaving:
            self._extend(symbol, now_ms)
        return leaving

    def ended(self, now_ms: int) -> set[str]:
        """The symbols whose end has come."""
        if now_ms <= self._begins:
            return set()
        return {symbol for symbol, end_ms in self.ends.items() if end_ms <= now_ms}

    def mark(self, symbol: str, now_ms: int) -> Decimal | None:
        """The mark price in the last half hour and after it; None before, and where no price is known."""
        end_ms = self.ends.get(symbol)
        if end_ms is None or now_ms <= end_ms - WINDOW_MS:
            return None
        self._extend(symbol, min(now_ms, end_ms))
        _, total, count = self._sums[symbol]
        return rounded(total / count) if count else None

    def _extend(self, symbol: str, now_ms: int) -> None:
        begin_ms = self.ends[symbol] - WINDOW_MS
        second, total, count = self._sums.get(symbol, (begin_ms, Decimal(0), 0))
        while second + SECOND_MS <= now_ms:
            second += SECOND_MS
            price = self._index(symbol, second)
            if price is not None:
                total, count = total + price, count + 1
        self._sums[symbol] = second, total, count
