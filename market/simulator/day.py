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
        self._bars = np.empty(DAY_MINUTES, dtype=BAR)
        self._bars[: kept.size] = kept
        self._count = kept.size

    def add(self, minute: Bars) -> None:
        """One closed minute more; what the next minute would be more than a day away from is forgotten."""
        oldest = int(minute["open_time"][0]) + 2 * MINUTE_MS - DAY_MS
        gone = int(np.searchsorted(self._bars["open_time"][: self._count], oldest))
        if gone:
            self._bars[: self._count - gone] = self._bars[gone : self._count].copy()
            self._count -= gone
        self._bars[self._count] = minute[0]
        self._count += 1

    def until(self, minute: Bars) -> DayNumbers:
        """The numbers of the day that ends with an unfinished minute."""
        first = int(np.searchsorted(self._bars["open_time"][: self._count], int(minute["open_time"][0]) - DAY_MS + 1))
        self._bars[self._count] = minute[0]
        return day_numbers(self._bars[first : self._count + 1])
