"""Recorded bars as the waves that would have come live, each complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.barriers import funding_at
from features.funding_clock import funding_known
from market import bars as no_bars
from market import funding as no_funding
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import MarketError
from market.funding import Fundings
from trading_worker.wave import Wave


class NothingRecorded(MarketError):
    """No bar lies in the stretch that was asked for: choose another one."""

    def __init__(self, symbols: int) -> None:
        super().__init__(f"none of the {symbols} symbols has a 1m bar in the stretch that was asked for")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Open times [start_ms, end_ms), on whole minutes."""

    start_ms: int
    end_ms: int

    @property
    def minutes(self) -> int:
        """How many waves it has."""
        return (self.end_ms - self.start_ms) // MINUTE_MS


def covered(bars: Mapping[str, Bars], start_ms: int | None = None, end_ms: int | None = None) -> Stretch:
    """The stretch from the first bar to the last, cut to [start_ms, end_ms); `NothingRecorded` when it is empty."""
    filled = [minutes["open_time"] for minutes in bars.values() if minutes.size]
    if not filled:
        raise NothingRecorded(len(bars))
    first = min(int(times[0]) for times in filled)
    end = max(int(times[-1]) for times in filled) + MINUTE_MS
    start = first if start_ms is None else max(first, -(-start_ms // MINUTE_MS) * MINUTE_MS)
    end = end if end_ms is None else min(end, end_ms // MINUTE_MS * MINUTE_MS)
    if end <= start:
        raise NothingRecorded(len(bars))
    return Stretch(start, end)


def recorded_waves(
    bars: Mapping[str, Bars], funding: Mapping[str, Fundings], symbols: tuple[str, ...], stretch: Stretch
) -> Iterator[Wave]:
    """One wave for every minute of `stretch`, gaps included, made a day at a time.

    A symbol is absent where its recording has a gap, and not before its first or after its last bar.
    """
    start = stretch.start_ms
    while start < stretch.end_ms:
        end = min((start // DAY_MS + 1) * DAY_MS, stretch.end_ms)
        yield from _Day(bars, funding, symbols, Stretch(start, end)).waves()
        start = end


class _Day:
    """The waves of at most one day."""

    def __init__(
        self, bars: Mapping[str, Bars], funding: Mapping[str, Fundings], symbols: tuple[str, ...], stretch: Stretch
    ) -> None:
        self._symbols = symbols
        self._times = np.arange(stretch.start_ms, stretch.end_ms, MINUTE_MS) + MINUTE_MS - 1
        shape = self._times.size, len(symbols)
        self._rate, self._charged = np.full(shape, np.nan), np.full(shape, np.nan)
        self._next = np.full(shape, -1, dtype=np.int64)
        self._expected = np.zeros(shape, dtype=np.bool_)
        pieces: list[Bars] = []
        for row, symbol in enumerate(symbols):
            every = bars.get(symbol, no_bars.empty())
            first, last = np.searchsorted(every["open_time"], (stretch.start_ms, stretch.end_ms))
            piece = every[first:last]
            pieces.append(piece)
            self._fill_funding(row, funding.get(symbol, no_funding.empty()))
            if every.size:
                closes = self._times
                self._expected[:, row] = (closes >= every["close_time"][0]) & (closes <= every["close_time"][-1])
        rows = np.repeat(np.arange(len(symbols), dtype=np.int64), [piece.size for piece in pieces])
        together = np.concatenate(pieces)
        # By time, and within it by row: the sort is stable and they come by row.
        order = np.argsort(together["close_time"], kind="stable")
        self._bars, self._rows = together[order], rows[order]
        self._first = np.searchsorted(self._bars["close_time"], self._times, side="left")
        self._end = np.searchsorted(self._bars["close_time"], self._times, side="right")

    def _fill_funding(self, row: int, funding: Fundings) -> None:
        known = funding_known(funding, self._times)
        self._rate[:, row], self._next[:, row] = known.rate, known.next_ms
        minutes = np.empty(self._times.size, dtype=no_bars.BAR)
        minutes["open_time"], minutes["close_time"] = self._times - MINUTE_MS + 1, self._times
        self._charged[:, row] = funding_at(funding, minutes)

    def _absent(self, minute: int, rows: NDArray[np.int64]) -> tuple[str, ...]:
        missing = self._expected[minute].copy()
        missing[rows] = False
        return tuple(self._symbols[row] for row in np.flatnonzero(missing))

    def waves(self) -> Iterator[Wave]:
        expected = self._expected.sum(axis=1)
        for minute, time_ms in enumerate(self._times.tolist()):
            first, end = self._first[minute], self._end[minute]
            rows = self._rows[first:end]
            yield Wave(
                time_ms=time_ms,
                rows=rows,
                bars=self._bars[first:end],
                funding_rate=self._rate[minute],
                next_funding_ms=self._next[minute],
                funding_now=self._charged[minute],
                absent=() if rows.size >= expected[minute] else self._absent(minute, rows),
            )
