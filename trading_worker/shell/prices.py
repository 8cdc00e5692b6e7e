"""Price updates between bars, gathered for a moment, since each hand-over to the engine costs more than a price."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from market.binance.streams import KlineEvent

BATCH_MS = 250
"""Market time that one batch spans at most."""
BATCH = 1_024
"""Prices after which a batch is due, however short its time."""


@dataclass(slots=True)
class _Batch:
    since_ms: int
    until_ms: int
    heard_ms: int
    """The venue's time when its first message was sent: of a closed bar that is seconds after its prices."""
    rows: list[int] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)


class Prices:
    """What kline messages of `series` series say of prices, in order of arrival."""

    def __init__(self, series: int) -> None:
        self.count = 0
        """Prices that were gathered, all told."""
        self._extremes = [(-1, 0.0, 0.0)] * series
        self._batches: list[_Batch] = []
        self._last: _Batch | None = None

    def add(self, row: int, event: KlineEvent) -> bool:
        """Take what one message says: the last trade, and first what the bar's extremes say went before it.

        Messages come every quarter of a second at best, and a barrier is touched in between; the bar's high and low
        do not miss it. Where one message moves both, the one that is farther from the last trade is taken to have
        come first. False, and nothing is taken, when the numbers are not possible.
        """
        kline = event.kline
        low, price, high = kline.low, kline.close, kline.high
        if not 0 < low <= price <= high < float("inf"):
            return False
        # A closed bar is sent seconds after its close; its prices were there at the close.
        time_ms = min(event.event_time, kline.close_time)
        batch = self._last
        if batch is None or not 0 <= time_ms - batch.since_ms < BATCH_MS:
            self._last = batch = _Batch(time_ms, time_ms, event.event_time)
            self._batches.append(batch)
        batch.until_ms = time_ms
        open_time, low_seen, high_seen = self._extremes[row]
        new = open_time != kline.open_time
        touched = [low] if new or low < low_seen else []
        if new or high > high_seen:
            touched.insert(0 if high - price > price - low else len(touched), high)
        self._extremes[row] = (kline.open_time, low, high)
        touched.append(price)
        batch.rows += [row] * len(touched)
        batch.prices += touched
        self.count += len(touched)
        return True

    def due(self, venue_ms: int) -> bool:
        """Whether something has waited long enough at the venue's time, or is much."""
        last = self._last
        return last is not None and (len(self._batches) > 1 or _is_full(last, venue_ms))

    def pop(self, venue_ms: int, *, whole: bool) -> list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
        """What is due, or all of it: of each batch the time of its last price (ms), rows int64 and prices float64."""
        batches, last = self._batches, self._last
        if last is None or whole or _is_full(last, venue_ms):
            self._batches, self._last = [], None
        else:
            self._batches = [batches.pop()]
        return [
            (each.until_ms, np.array(each.rows, dtype=np.int64), np.array(each.prices, dtype=np.float64))
            for each in batches
        ]


def _is_full(batch: _Batch, venue_ms: int) -> bool:
    return venue_ms >= batch.heard_ms + BATCH_MS or len(batch.prices) >= BATCH
