"""What happened to a symbol within the last 24 hours: the numbers of `ticker/24hr` and of the ticker streams."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from market.bars import BAR, DAY_MS, MINUTE_MS, Bars
from market.simulator.text import decimals

DAY_MINUTES = DAY_MS // MINUTE_MS
DECIMALS = 8
"""Differences, means and sums are told with so many decimals at most; float64 leaves dust behind them."""


class DayNumbers(Struct, frozen=True):
    """Numbers as the venue writes them: prices in USDT, `volume` in the base asset, times ms UTC."""

    change: str
    percent: str
    mean: str
    last: str
    last_quantity: str
    open: str
    high: str
    low: str
    volume: str
    quote_volume: str
    open_time: int
    trades: int


def day_numbers(bars: Bars) -> DayNumbers:
    """The numbers of 1m bars (at least one, ascending, the last may be unfinished) that lie within a day."""
    opened, last = float(bars["open"][0]), float(bars["close"][-1])
    volume, quote = float(np.nansum(bars["volume"])), float(np.nansum(bars["quote_volume"]))
    texts = decimals(
        [
            round(last - opened, DECIMALS),
            round((last / opened - 1) * 100, 3),
            round(quote / volume, DECIMALS) if volume else last,
            last,
            float(bars["volume"][-1]),
            opened,
            float(bars["high"].max()),
            float(bars["low"].min()),
            round(volume, DECIMALS),
            round(quote, DECIMALS),
        ]
    )
    told = dict(zip(DayNumbers.__struct_fields__, texts, strict=False))
    return DayNumbers(**told, open_time=int(bars["open_time"][0]), trades=int(np.nansum(bars["trades"])))


class DayWindow:
    """The closed minutes of one symbol within a day, and room for the one that is still open."""

    def __init__(self, minutes: Bars) -> None:
        kept = minutes[-(DAY_MINUTES - 1) :]
        # Twice a day long, so that once in a day there is something to be moved, and not every minute.
        self._bars = np.empty(2 * DAY_MINUTES, dtype=BAR)
        self._bars[: kept.size] = kept
        self._first, self._count = 0, kept.size

    def add(self, minute: Bars) -> None:
        """One closed minute more."""
        if self._count == self._bars.size - 1:
            kept = self._bars[self._first : self._count].copy()
            self._bars[: kept.size] = kept
            self._first, self._count = 0, kept.size
        self._bars[self._count] = minute[0]
        self._count += 1
        self._forget(int(minute["open_time"][0]) + MINUTE_MS)

    def until(self, minute: Bars) -> DayNumbers:
        """The numbers of the day that ends with an unfinished minute."""
        self._forget(int(minute["open_time"][0]))
        self._bars[self._count] = minute[0]
        return day_numbers(self._bars[self._first : self._count + 1])

    def _forget(self, minute: int) -> None:
        """Minutes that are a day or more before one that opens at `minute` count no longer."""
        while self._first < self._count and self._bars["open_time"][self._first] <= minute - DAY_MS:
            self._first += 1
