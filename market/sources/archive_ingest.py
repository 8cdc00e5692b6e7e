"""From the exchange's archive into the lake: months at a time, in parallel, and it can be interrupted.

A month's zip is read where there is one, else its days'. What the archive lacks is topped up from another source (REST,
which has the last days), and what nobody has goes into the ledger of gaps with its cause. A day is done when its gaps
are written, which comes last; a day that is done is not done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import numpy as np

from market import bars as bars_module
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import BarRejected, MarketError, SourceUnreadable
from market.funding import Fundings
from market.klines_store import (
    Gap,
    date_of,
    dates,
    day_start,
    find_gaps,
    read_all_funding,
    write_day,
    write_funding,
    write_gaps,
)
from market.lake import Lake
from market.sources import BarSource
from market.sources.binance_archive import BinanceArchive, span

NOT_IN_ARCHIVE = "not_in_archive"
"""The archive has no bars of these minutes, and nobody else was asked."""
NO_DATA = "venue_has_no_data"
"""Neither the archive nor the venue itself has bars of these minutes."""
NOT_FETCHED = "not_fetched"
"""The archive has no bars of these minutes, and the venue could not be asked."""
UNREADABLE = "unreadable_file"
"""The archive's file is damaged, and nobody else has bars of these minutes."""


@dataclass(frozen=True)
class Progress:
    """How far it is: days that are done of all, and the bars stored so far."""

    date: str
    days: int
    of_days: int
    bars: int


@dataclass
class Report:
    """What an ingest brought. `unreadable` names each file that could not be used, with the reason."""

    days: int = 0
    skipped_days: int = 0
    bars: int = 0
    topped_up: int = 0
    gaps: list[Gap] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """A symbol's bars of a span, those of them from elsewhere, and why the others are missing, by day."""

    bars: Bars
    topped_up: int
    causes: Mapping[str, str]
    unreadable: Sequence[str]


class ArchiveIngest:
    """Ingests klines of some symbols.

    Parameters
    ----------
    lake, archive: into what, and from where.
    top_up: has what the archive lacks; None asks nobody.
    workers: threads, by default two for each processor: while one waits for the disk, another parses.
    progress: told after every day.
    """

    def __init__(
        self,
        lake: Lake,
        archive: BinanceArchive,
        *,
        top_up: BarSource | None = None,
        workers: int | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._lake = lake
        self._archive = archive
        self._top_up = top_up
        self._workers = workers or 2 * (os.cpu_count() or 1)
        self._progress = progress

    def run(self, symbols: Sequence[str], start_ms: int, end_ms: int, *, again: bool = False) -> Report:
        """Store the 1m bars of `symbols` of the whole UTC days in [start_ms, end_ms).

        Days that are done are left, unless `again`: then they are replaced. Do that for other symbols.
        """
        report = Report()
        days_in = dates(-(-start_ms // DAY_MS) * DAY_MS, end_ms // DAY_MS * DAY_MS)
        wanted = [date for date in days_in if day_start(date) >= start_ms]
        done = set() if again else self._done()
        months: dict[str, list[str]] = {}
        for date in wanted:
            if date in done:
                report.skipped_days += 1
            else:
                months.setdefault(date[:7], []).append(date)
        total = sum(map(len, months.values()))
        known: dict[str, tuple[int, int]] = {}
        written: dict[str, list[Gap]] = {}
        with ThreadPoolExecutor(self._workers, thread_name_prefix="archive") as pool:
            for days in months.values():
                read = dict(zip(symbols, pool.map(partial(self._read, days), symbols), strict=True))
                report.topped_up += sum(each.topped_up for each in read.values())
                report.unreadable += chain.from_iterable(each.unreadable for each in read.values())
                self._close_gaps(known, read, written, report)
                stored = pool.map(partial(self._store, read, known), days)
                for date, (bars, gaps) in zip(days, stored, strict=True):
                    written[date] = gaps
                    report.days, report.bars = report.days + 1, report.bars + bars
                    report.gaps += gaps
                    if self._progress is not None:
                        self._progress(Progress(date, report.days, total, report.bars))
        return report

    def _done(self) -> set[str]:
        """The days whose gaps are written."""
        return {path.rpartition("/")[2].removesuffix(".parquet") for path in self._lake.files("gaps")}

    def _close_gaps(
        self,
        known: dict[str, tuple[int, int]],
        read: Mapping[str, _Read],
        written: dict[str, list[Gap]],
        report: Report,
    ) -> None:
        """Extend each symbol's coverage to its last bar: what lies outside is no gap.

        Where a month ended without bars and this one has some, the end of that month has become a gap.
        """
        for symbol, each in read.items():
            coverage = _coverage(each, symbol in known)
            if coverage is None:
                continue
            first, last = known.get(symbol, coverage)
            for date in dates(last, coverage[0]):
                if date in written:
                    begin = day_start(date)
                    found = find_gaps({}, {symbol: (last, coverage[0])}, begin, begin + DAY_MS, self._otherwise)
                    written[date] += found
                    report.gaps += found
                    write_gaps(self._lake, date, written[date])
            known[symbol] = first, max(last, coverage[1])

    @property
    def _otherwise(self) -> str:
        """Why bars are missing of which nothing else is known."""
        return NOT_IN_ARCHIVE if self._top_up is None else NO_DATA

    # Reading

    def _read(self, days: Sequence[str], symbol: str) -> _Read:
        """One symbol's bars of some days of one month, from whoever has them."""
        unreadable: list[str] = []
        causes: dict[str, str] = {}
        pieces = self._archived(symbol, days, causes, unreadable)
        topped_up = 0
        if self._top_up is not None:
            missing = self._missing(symbol, days, pieces)
            for start_ms, end_ms in missing:
                try:
                    more = bars_module.validate(symbol, self._top_up.klines(symbol, start_ms, end_ms))
                except MarketError as error:
                    unreadable.append(f"{symbol} {date_of(start_ms)}: {error}")
                    causes |= dict.fromkeys(dates(start_ms, end_ms), NOT_FETCHED)
                    continue
                causes |= dict.fromkeys(dates(start_ms, end_ms), NO_DATA)
                topped_up += more.size
                pieces.append(more)
        return _Read(_joined(pieces), topped_up, causes, unreadable)

    def _archived(self, symbol: str, days: Sequence[str], causes: dict[str, str], unreadable: list[str]) -> list[Bars]:
        month = self._file(symbol, days[0][:7], unreadable)
        if month is not None:
            inside = np.isin(month["open_time"] // DAY_MS, [day_start(date) // DAY_MS for date in days])
            return [month if inside.all() else month[inside]]
        pieces = []
        for date in days:
            failed = len(unreadable)
            day = self._file(symbol, date, unreadable)
            if day is not None:
                pieces.append(day)
            elif len(unreadable) > failed:
                causes[date] = UNREADABLE
        return pieces

    def _file(self, symbol: str, label: str, unreadable: list[str]) -> Bars | None:
        try:
            return self._archive.read(symbol, label)
        except (SourceUnreadable, BarRejected) as error:
            unreadable.append(f"{symbol} {label}: {error}")
            return None

    def _missing(self, symbol: str, days: Sequence[str], pieces: Iterable[Bars]) -> list[tuple[int, int]]:
        """The stretches of whole days, and the holes inside them, that the archive has no bars of."""
        have = [np.asarray(piece["open_time"]) for piece in pieces]
        wanted = np.concatenate([np.arange(day_start(date), day_start(date) + DAY_MS, MINUTE_MS) for date in days])
        minutes = np.setdiff1d(wanted, np.concatenate(have)) if have else wanted
        if not minutes.size:
            return []
        breaks = np.flatnonzero(np.diff(minutes) > MINUTE_MS) + 1
        return [(int(part[0]), int(part[-1]) + MINUTE_MS) for part in np.split(minutes, breaks)]

    # Writing

    def _store(
        self, read: Mapping[str, _Read], known: Mapping[str, tuple[int, int]], date: str
    ) -> tuple[int, list[Gap]]:
        """One day of all symbols; the gaps last, which says that it is done."""
        start = day_start(date)
        bars = {}
        for symbol, each in read.items():
            first, last = np.searchsorted(each.bars["open_time"], (start, start + DAY_MS))
            if last > first:
                bars[symbol] = each.bars[first:last]
        write_day(self._lake, date, bars)
        coverage = {symbol: known[symbol] for symbol in read if symbol in known}
        gaps = [
            Gap(gap.symbol, gap.start_ms, gap.end_ms, read[gap.symbol].causes.get(date, gap.cause))
            for gap in find_gaps(bars, coverage, start, start + DAY_MS, self._otherwise)
        ]
        write_gaps(self._lake, date, gaps)
        return sum(each.size for each in bars.values()), gaps


def _joined(pieces: Sequence[Bars]) -> Bars:
    """All in order of time; a copy only where that is needed, as months are large."""
    if len(pieces) == 1:
        return pieces[0]
    bars = np.concatenate(pieces) if pieces else bars_module.empty()
    times = bars["open_time"]
    return bars if (np.diff(times) > 0).all() else bars[np.argsort(times, kind="stable")]


def _coverage(read: _Read, known: bool) -> tuple[int, int] | None:
    """From a symbol's first bar to its last, and the days of which it is known that something is missing."""
    certain = {UNREADABLE, NOT_FETCHED} if known else {UNREADABLE}
    spans = [span(date) for date, cause in read.causes.items() if cause in certain]
    if read.bars.size:
        spans.append((int(read.bars["open_time"][0]), int(read.bars["open_time"][-1]) + MINUTE_MS))
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def ingest_funding(
    lake: Lake, archive: BinanceArchive, symbols: Sequence[str], months: Sequence[str], top_up: BarSource | None = None
) -> int:
    """Store the fundings of whole months (YYYY-MM), topped up from another source; returns how many.

    What the lake holds of other symbols stays. Raises what the archive's files are wrong with.
    """
    count = 0
    for month in months:
        start, end = span(month)
        stored = read_all_funding(lake, start, end)
        for symbol in symbols:
            found = archive.funding(symbol, start, end)
            if top_up is not None:
                since = int(found["funding_time"][-1]) + 1 if found.size else start
                found = np.concatenate([found, top_up.funding(symbol, since, end)])
            if found.size:
                stored[symbol] = _unique(found)
                count += stored[symbol].size
        write_funding(lake, month, stored)
    return count


def _unique(fundings: Fundings) -> Fundings:
    """In order of time, one each."""
    _, first = np.unique(fundings["funding_time"], return_index=True)
    return fundings[first]
