"""The streams of liquidations: of each symbol the largest of a second, told when that second is over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from market.simulator.venue.events import plain, price_text
from market.simulator.venue.orders import Order

SECOND_MS = 1_000


class ForcedOrders:
    """Liquidation orders on their way to the public: a snapshot, as smaller ones of the same second are not told."""

    def __init__(self) -> None:
        self._largest: dict[tuple[int, str], Order] = {}

    def add(self, orders: Iterable[Order]) -> None:
        """Orders that were executed."""
        for order in orders:
            key = order.updated_ms // SECOND_MS, order.symbol
            before = self._largest.get(key)
            if before is None or order.quantity > before.quantity:
                self._largest[key] = order

    def messages(self, now_ms: int) -> dict[str, list[bytes]]:
        """What is told by `now_ms`, by stream; each event once."""
        found: dict[str, list[bytes]] = {}
        over = sorted(key for key in self._largest if key[0] < now_ms // SECOND_MS)
        for key in over:
            second, symbol = key
            event = msgspec.json.encode(_event(self._largest.pop(key), (second + 1) * SECOND_MS))
            for name in (f"{symbol.lower()}@forceOrder", "!forceOrder@arr"):
                found.setdefault(name, []).append(event)
        return found


def _event(order: Order, now_ms: int) -> dict[str, Any]:
    o = {
        "s": order.symbol,
        "S": order.side,
        "o": "LIMIT",
        "f": "IOC",
        "q": plain(order.quantity),
        "p": plain(order.price),
        "ap": price_text(order.average_price),
        "X": order.status,
        "l": plain(order.executed),
        "z": plain(order.executed),
        "T": order.updated_ms,
    }
    return {"e": "forceOrder", "E": now_ms, "o": o}
