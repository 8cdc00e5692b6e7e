"""A local order book from the venue's changes and one snapshot, which knows when it has lost the thread.

The venue's rule: changes that end before the snapshot are dropped, the first that counts spans it, and from then on
each must follow the one before (`previous_id`). Anything else is a break: the book is thrown away, and a new snapshot
is to be asked for.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from market.binance.public_events import DepthSnapshot, DepthUpdate, Level

MOST_WAITING = 5_000
"""Changes that are kept for a snapshot to come; older ones would be dropped by it anyway."""


class BookState(Enum):
    """Whether the book can be relied on."""

    WANTS_SNAPSHOT = "wants_snapshot"
    CURRENT = "current"


class OrderBook:
    """The book of one symbol.

    `breaks` counts how often the thread was lost after the book had been current.
    """

    def __init__(self) -> None:
        self.state = BookState.WANTS_SNAPSHOT
        self.last_id = -1
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.breaks = 0
        self._spanned = False
        self._waiting: deque[DepthUpdate] = deque(maxlen=MOST_WAITING)

    def update(self, event: DepthUpdate) -> bool:
        """Take changes in; whether the book is current after them."""
        if self.state is BookState.WANTS_SNAPSHOT:
            self._waiting.append(event)
            return False
        return self._apply(event)

    def snapshot(self, snapshot: DepthSnapshot) -> bool:
        """Begin anew from a snapshot and what has come since; whether the book is current.

        It is not when the snapshot is older than the oldest change that is there: ask for another.
        """
        self.bids, self.asks = _side(snapshot.bids), _side(snapshot.asks)
        self.last_id, self._spanned = snapshot.last_id, False
        self.state = BookState.CURRENT
        waiting = list(self._waiting)
        self._waiting.clear()
        for place, event in enumerate(waiting):
            if not self._apply(event):
                self._waiting.extend(waiting[place + 1 :])
                return False
        return True

    def best(self) -> tuple[Level, Level] | None:
        """The best bid and ask, each with its quantity; None while the book is not current or has an empty side."""
        if self.state is not BookState.CURRENT or not self.bids or not self.asks:
            return None
        bid, ask = max(self.bids), min(self.asks)
        return (bid, self.bids[bid]), (ask, self.asks[ask])

    def _apply(self, event: DepthUpdate) -> bool:
        if not self._spanned:
            if event.last_id < self.last_id:
                return True
            follows = event.first_id <= self.last_id <= event.last_id
        else:
            follows = event.previous_id == self.last_id
        if not follows:
            self.breaks += 1
            self.state = BookState.WANTS_SNAPSHOT
            self.bids, self.asks = {}, {}
            self._waiting.append(event)
            return False
        self._spanned, self.last_id = True, event.last_id
        _change(self.bids, event.bids)
        _change(self.asks, event.asks)
        return True


def _side(levels: tuple[Level, ...]) -> dict[float, float]:
    return {price: quantity for price, quantity in levels if quantity > 0}


def _change(side: dict[float, float], levels: tuple[Level, ...]) -> None:
    for price, quantity in levels:
        if quantity > 0:
            side[price] = quantity
        else:
            side.pop(price, None)
