"""Messages of the ticker and miniTicker streams, of one symbol or all: the day that ends with the present minute."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.simulator.connections import Stream
from market.simulator.day import DayNumbers, DayWindow
from market.simulator.tape import Past


class DayTickers:
    """Keeps the last day of every symbol that a ticker stream is wanted of, from when it is first wanted."""

    def __init__(self, symbols: tuple[str, ...], past: Past) -> None:
        self._symbols, self._past = symbols, past
        self._windows: dict[int, DayWindow] = {}

    async def prepare(self, wanted: Collection[tuple[str, Stream]], minute: int) -> None:
        """Read the day before `minute` of symbols that are wanted and not yet kept; forget the others."""
        rows = {stream.row for _, stream in wanted}
        if -1 in rows:
            rows = set(range(len(self._symbols)))
        self._windows = {row: window for row, window in self._windows.items() if row in rows}
        for row in sorted(rows - self._windows.keys()):
            minutes = await self._past.minutes(self._symbols[row], minute - DAY_MS + MINUTE_MS, minute)
            self._windows[row] = DayWindow(minutes)

    def close(self, bars: Bars, present: NDArray[np.bool_]) -> None:
        """A minute has closed."""
        for row, window in self._windows.items():
            if present[row]:
                window.add(bars[row : row + 1])

    def messages(
        self, wanted: Collection[tuple[str, Stream]], bars: Bars, present: NDArray[np.bool_], now_ms: int
    ) -> dict[str, list[bytes]]:
        """The message of each wanted stream, `bars` being unfinished; of symbols without a bar in this minute none."""
        numbers = {
            row: window.until(bars[row : row + 1]) for row, window in self._windows.items() if present[row] and wanted
        }
        found: dict[str, list[bytes]] = {}
        for name, stream in wanted:
            make = _full if stream.kind in ("ticker", "allTickers") else _mini
            if stream.row >= 0:
                if stream.row in numbers:
                    event: Any = make(self._symbols[stream.row], numbers[stream.row], now_ms)
                    found[name] = [msgspec.json.encode(event)]
            elif numbers:
                events = [make(self._symbols[row], numbers[row], now_ms) for row in sorted(numbers)]
                found[name] = [msgspec.json.encode(events)]
        return found


def _full(symbol: str, day: DayNumbers, now_ms: int) -> dict[str, Any]:
    return {
        "e": "24hrTicker",
        "E": now_ms,
        "s": symbol,
        "p": day.change,
        "P": day.percent,
        "w": day.mean,
        "c": day.last,
        "Q": day.last_quantity,
        "o": day.open,
        "h": day.high,
        "l": day.low,
        "v": day.volume,
        "q": day.quote_volume,
        "O": day.open_time,
        "C": now_ms,
        "F": 0,
        "L": max(0, day.trades - 1),
        "n": day.trades,
    }


def _mini(symbol: str, day: DayNumbers, now_ms: int) -> dict[str, Any]:
    prices = {"c": day.last, "o": day.open, "h": day.high, "l": day.low}
    return {"e": "24hrMiniTicker", "E": now_ms, "s": symbol, **prices, "v": day.volume, "q": day.quote_volume}
