"""One symbol's days from whoever has them: the archive's month, else its days, and another source for what is missing.

What is still missing then has a cause, and each day a state: whether it would be any use to ask for it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from market import bars as bars_module
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import BarRejected, MarketError, SourceUnreadable, UnknownSymbol
from market.kline_days import MINUTES, State
from market.klines_store import date_of, dates, day_start
from market.sources import BarSource
from market.sources.binance_archive import BinanceArchive

NOT_IN_ARCHIVE = "not_in_archive"
"""The archive has no bars of these minutes, and nobody else was asked."""
NO_DATA = "venue_has_no_data"
"""Neither the archive nor the venue itself has bars of these minutes."""
NOT_FETCHED = "not_fetched"
"""The archive has no bars of these minutes, and the venue could not be asked."""
UNREADABLE = "unreadable_file"
"""The archive's file is damaged or could not be fetched, and nobody else has bars of these minutes."""

ARCHIVED_AFTER_MS = 7 * DAY_MS
"""A day's file comes to the archive days after the day; one that is not there a week after its end will not come."""


@dataclass(frozen=True)
class SymbolDays:
    """A symbol's bars of some days, how many are not the archive's, and what became of each day.

    `causes` says, for days on which that is known, why bars are missing. `unreadable` are the failures in words.
    """

    bars: Bars
    topped_up: int
    states: Mapping[str, State]
    causes: Mapping[str, str]
    unreadable: Sequence[str]

    def of_day(self, date: str) -> Bars:
        """The bars of one day."""
        start = day_start(date)
        first, last = np.searchsorted(self.bars["open_time"], (start, start + DAY_MS))
        return self.bars[first:last]


class ArchiveReader:
    """Reads days of one month from the archive, and what it lacks from `top_up` (None: from nobody), at `now_ms`."""

    def __init__(self, archive: BinanceArchive, top_up: BarSource | None, now_ms: int) -> None:
        self._archive = archive
        self._top_up = top_up
        self._now_ms = now_ms

    def read(self, symbol: str, days: Sequence[str]) -> SymbolDays:
        """One symbol's bars of some days of one month. Any thread may read any symbol."""
        unreadable: list[str] = []
        causes: dict[str, str] = {}
        pieces = self._archived(symbol, days, causes, unreadable)
        topped_up: list[Bars] = []
        listed = False
        if self._top_up is not None:
            listed = self._more(self._top_up, symbol, _missing(days, pieces), causes, topped_up, unreadable)
        bars = _joined([*pieces, *topped_up])
        starts = np.array([day_start(date) for date in days])
        counts = np.searchsorted(bars["open_time"], starts + DAY_MS) - np.searchsorted(bars["open_time"], starts)
        states = {
            date: self._state(date, minutes, causes.get(date), listed)
            for date, minutes in zip(days, counts.tolist(), strict=True)
        }
        return SymbolDays(bars, sum(each.size for each in topped_up), states, causes, unreadable)

    def _archived(self, symbol: str, days: Sequence[str], causes: dict[str, str], unreadable: list[str]) -> list[Bars]:
        month = self._file(symbol, days[0][:7], unreadable)
        if month is not None:
            inside = np.isin(month["open_time"] // DAY_MS, [day_start(date) // DAY_MS for date in days])
            return [month if inside.all() else month[inside]]
        damaged_month = bool(unreadable)
        pieces = []
        for date in days:
            failed = len(unreadable)
            day = self._file(symbol, date, unreadable)
            if day is not None:
                pieces.append(day)
            elif damaged_month or len(unreadable) > failed:
                causes[date] = UNREADABLE
        return pieces

    def _file(self, symbol: str, label: str, unreadable: list[str]) -> Bars | None:
        try:
            return self._archive.read(symbol, label)
        except (SourceUnreadable, BarRejected) as error:
            unreadable.append(f"{symbol} {label}: {error}")
            return None

    def _more(
        self,
        source: BarSource,
        symbol: str,
        missing: Sequence[tuple[int, int]],
        causes: dict[str, str],
        found: list[Bars],
        unreadable: list[str],
    ) -> bool:
        """Ask another source for what is missing; whether it lists the symbol, and so would know of more."""
        for start_ms, end_ms in missing:
            cause = NO_DATA
            try:
                found.append(bars_module.validate(symbol, source.klines(symbol, start_ms, end_ms)))
            except UnknownSymbol:
                # It was delisted, which is an answer to every other question about it too.
                causes |= {date: NO_DATA for first, last in missing for date in dates(first, last)} | causes
                return False
            except MarketError as error:
                unreadable.append(f"{symbol} {date_of(start_ms)}: {error}")
                cause = NOT_FETCHED
            for date in dates(start_ms, end_ms):
                # Of a day's causes the one stands that leaves most open.
                if causes.get(date, NO_DATA) == NO_DATA:
                    causes[date] = cause
        return True

    def _state(self, date: str, minutes: int, cause: str | None, listed: bool) -> State:
        if minutes == MINUTES:
            return State.DONE
        if cause in (UNREADABLE, NOT_FETCHED):
            return State.OPEN
        if listed:
            return State.DONE
        if self._now_ms < day_start(date) + DAY_MS + ARCHIVED_AFTER_MS:
            return State.OPEN
        return State.ARCHIVE_ONLY if self._top_up is None else State.DONE


def _missing(days: Sequence[str], pieces: Iterable[Bars]) -> list[tuple[int, int]]:
    """The stretches of whole days, and the holes inside them, that no piece has bars of."""
    have = [np.asarray(piece["open_time"]) for piece in pieces]
    wanted = np.concatenate([np.arange(day_start(date), day_start(date) + DAY_MS, MINUTE_MS) for date in days])
    minutes = np.setdiff1d(wanted, np.concatenate(have)) if have else wanted
    if not minutes.size:
        return []
    breaks = np.flatnonzero(np.diff(minutes) > MINUTE_MS) + 1
    return [(int(part[0]), int(part[-1]) + MINUTE_MS) for part in np.split(minutes, breaks)]


def _joined(pieces: Sequence[Bars]) -> Bars:
    """All in order of time; a copy only where that is needed, as months are large."""
    if len(pieces) == 1:
        return pieces[0]
    bars = np.concatenate(pieces) if pieces else bars_module.empty()
    times = bars["open_time"]
    return bars if (np.diff(times) > 0).all() else bars[np.argsort(times, kind="stable")]
