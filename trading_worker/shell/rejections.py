"""Bars and messages that were refused: counted by reason, shown, and written down, whatever way they came."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import numpy as np

from market.bars import Bars, fault, validate
from market.errors import BarRejected
from trading_worker.shell.metrics import Board

JOURNALED_PER_MINUTE = 50
"""Rejections journaled between two waves; a flood beyond that is only counted."""
REMEMBERED = 4_096
"""Fetched bars that were refused and are remembered: the same bar is often fetched again."""

_NUMBER = re.compile(r"-?\d[\d.e+-]*|nan|inf")

Write = Callable[[BarRejected, int], None]
"""Takes a refused bar for the journal, with the venue's time."""


def category(reason: str) -> str:
    """A reason without its numbers, so that the number of metric labels is bounded.

    >>> category("high 0.5 < low 0.9")
    'high # < low #'
    """
    return _NUMBER.sub("#", reason)[:80]


class Rejections:
    """Counts what is refused, on `board`, and hands it to `write`; without one, keeps it until `write_to`."""

    def __init__(self, board: Board, write: Write | None = None) -> None:
        self._board = board
        self._write = write
        self._waiting: deque[tuple[BarRejected, int]] = deque(maxlen=JOURNALED_PER_MINUTE)
        self._journaled = 0
        self._known: dict[tuple[str, int], None] = {}

    def count(self, error: BarRejected, venue_ms: int) -> None:
        """One that is written down already, refused at the venue's time `venue_ms`."""
        self._board.rejected[category(error.reason)] += 1
        self._board.rejections.append(
            {"time_ms": venue_ms, "symbol": error.symbol, "open_time": error.open_time, "reason": error.reason}
        )

    def add(self, error: BarRejected, venue_ms: int) -> None:
        """One to be written down."""
        self.count(error, venue_ms)
        if self._write is None:
            self._waiting.append((error, venue_ms))
        elif self._journaled < JOURNALED_PER_MINUTE:
            self._journaled += 1
            self._write(error, venue_ms)

    def write_to(self, write: Write) -> None:
        """From now on `write` takes them; first those that have waited for it."""
        self._write = write
        for error, venue_ms in self._waiting:
            write(error, venue_ms)
        self._waiting.clear()

    def next_minute(self) -> None:
        """A wave leaves: as many may be journaled again."""
        self._journaled = 0

    def possible(self, symbol: str, bars: Bars) -> Bars:
        """Those of fetched `bars` that are possible klines. The others are refused, each once however often fetched."""
        try:
            return validate(symbol, bars)
        except BarRejected:
            reasons = [fault(bar) for bar in bars]
        for bar, reason in zip(bars, reasons, strict=True):
            key = symbol, int(bar["open_time"])
            if reason is not None and key not in self._known:
                self._known[key] = None
                self.add(BarRejected(*key, reason), max(self._board.venue_ms, int(bar["close_time"])))
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        found: Bars = bars[np.array([reason is None for reason in reasons], dtype=np.bool_)]
        return found
