"""From the exchange's archive into the lake: months at a time, in parallel, and it can be interrupted.

A month's zip is read where there is one, else its days'. What the archive lacks is topped up from another source (REST,
which has the last days), and what nobody has goes into the ledger of gaps with its cause. What is done of a symbol is
not done again; what could not be read, or may come yet, is asked for by the next run (see `market.kline_days`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import TypeVar

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.kline_days import Held, State, add_gaps, held_days, put_symbols
from market.klines_store import Gap, dates, day_start, find_gaps
from market.lake import Lake
from market.sources import BarSource
from market.sources.archive_reading import (
    NO_DATA,
    NOT_FETCHED,
    NOT_IN_ARCHIVE,
    UNREADABLE,
    ArchiveReader,
    SymbolDays,
)
from market.sources.binance_archive import BinanceArchive, span

T = TypeVar("T")

CLOSED_AFTER_MS = MINUTE_MS
"""A day's last bars are at the venue so long after its end."""


@dataclass(frozen=True)
class Progress:
    """How far it is.

    `at` is what was last read (`ETHUSDT 2026-02`) or stored (`2026-02-03`). `read` of `to_read` counts each symbol's
    days, `days` of `of_days` those that are stored, with `bars` bars so far.
    """

    at: str
    read: int
    to_read: int
    days: int
    of_days: int
    bars: int


@dataclass
class Report:
    """What an ingest brought.

    `skipped_days` were done before for all symbols, `unfinished_days` have not ended. `bars` and `gaps` are those of
    the symbols that were not done. `unreadable` names what could not be used, with the reason.
    """

    days: int = 0
    skipped_days: int = 0
    unfinished_days: int = 0
    bars: int = 0
    topped_up: int = 0
    gaps: list[Gap] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def whole_days(start_ms: int, end_ms: int, now_ms: int | None = None) -> list[str]:
    """The UTC days that lie in [start_ms, end_ms) as a whole and, by `now_ms`, have ended.

    >>> whole_days(1, 3 * DAY_MS)
    ['1970-01-02', '1970-01-03']
    >>> whole_days(1, 3 * DAY_MS, now_ms=3 * DAY_MS)
    ['1970-01-02']
    """
    last = end_ms if now_ms is None else min(end_ms, now_ms - CLOSED_AFTER_MS)
    return dates(-(-start_ms // DAY_MS) * DAY_MS, last // DAY_MS * DAY_MS)


@dataclass
class _Run:
    """One run: what it knows of the lake, and what it has told."""

    reader: ArchiveReader
    held: dict[str, dict[str, Held]]
    known: dict[str, tuple[int, int]]
    """From each symbol's first stored bar to its last."""
    report: Report
    to_read: int
    of_days: int
    read: int = 0


class ArchiveIngest:
    """Ingests klines of some symbols.

    Parameters
    ----------
    lake, archive: into what, and from where.
    top_up: has what the archive lacks; None asks nobody. `UnknownSymbol` from it means that it has nothing of a symbol.
    workers: threads, by default two for each processor: while one waits for the disk, another parses.
    progress: told whenever a symbol's month is read and a day is stored.
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

    def run(
        self, symbols: Sequence[str], start_ms: int, end_ms: int, *, again: bool = False, now_ms: int | None = None
    ) -> Report:
        """Store the 1m bars of `symbols` of the whole UTC days in [start_ms, end_ms) that have ended.

        What is done of a symbol is left, unless `again`: then it is read anew and replaced. Other symbols of these days
        stay as they are. `now_ms` is the venue's time, by default this machine's.
        """
        now_ms = int(time.time() * 1000) if now_ms is None else now_ms
        wanted, held = whole_days(start_ms, end_ms, now_ms), held_days(self._lake)
        months = self._open(tuple(dict.fromkeys(symbols)), wanted, {} if again else held)
        open_days = {date for by_symbol in months.values() for days in by_symbol.values() for date in days}
        report = Report(
            skipped_days=len(wanted) - len(open_days),
            unfinished_days=len(whole_days(start_ms, end_ms)) - len(wanted),
        )
        run = _Run(
            ArchiveReader(self._archive, self._top_up, now_ms),
            held,
            _outer_bars(held),
            report,
            to_read=sum(len(days) for by_symbol in months.values() for days in by_symbol.values()),
            of_days=len(open_days),
        )
        with ThreadPoolExecutor(self._workers, thread_name_prefix="archive") as pool:
            for month, by_symbol in months.items():
                self._month(pool, run, month, by_symbol)
        report.gaps.sort()
        return report

    def _open(
        self, symbols: Sequence[str], wanted: Sequence[str], held: Mapping[str, Mapping[str, Held]]
    ) -> dict[str, dict[str, list[str]]]:
        """The days that are not done, by month and symbol."""
        done = {State.DONE} if self._top_up is not None else {State.DONE, State.ARCHIVE_ONLY}
        months: dict[str, dict[str, list[str]]] = {}
        for date in wanted:
            lines = held.get(date, {})
            for symbol in symbols:
                if symbol not in lines or lines[symbol].state not in done:
                    months.setdefault(date[:7], {}).setdefault(symbol, []).append(date)
        return months

    def _month(self, pool: ThreadPoolExecutor, run: _Run, month: str, by_symbol: Mapping[str, Sequence[str]]) -> None:
        # Of all symbols a month is hundreds of megabytes: it goes before the next is read.
        read = self._read(pool, run, month, by_symbol)
        self._close_gaps(run, read)
        self._store(pool, run, read)

    def _read(
        self, pool: ThreadPoolExecutor, run: _Run, month: str, by_symbol: Mapping[str, Sequence[str]]
    ) -> dict[str, SymbolDays]:
        """Every symbol's days of one month."""
        jobs = {pool.submit(run.reader.read, symbol, days): symbol for symbol, days in by_symbol.items()}
        found = {}
        for job in _each(jobs):
            symbol = jobs[job]
            found[symbol] = job.result()
            run.read += len(by_symbol[symbol])
            self._tell(run, f"{symbol} {month}")
        read = {symbol: found[symbol] for symbol in by_symbol}
        for each in read.values():
            run.report.topped_up += each.topped_up
            run.report.unreadable += each.unreadable
        return read

    def _close_gaps(self, run: _Run, read: Mapping[str, SymbolDays]) -> None:
        """Extend what is known of each symbol to its new bars: what lies outside is no gap.

        Stored days between the two had no bars of it and no reason to; they have become gaps.
        """
        for symbol, each in read.items():
            coverage = _coverage(each, symbol in run.known)
            if coverage is None:
                continue
            first, last = run.known.get(symbol, coverage)
            for start_ms, end_ms in ((last, coverage[0]), (coverage[1], first)):
                for date in dates(start_ms, end_ms):
                    line = run.held.get(date, {}).get(symbol)
                    if line is not None:
                        run.report.gaps += add_gaps(self._lake, date, symbol, start_ms, end_ms, self._why(line.state))
            run.known[symbol] = min(first, coverage[0]), max(last, coverage[1])

    def _why(self, state: State) -> str:
        """Why bars of a day are missing of which nothing else is known."""
        if self._top_up is None:
            return NOT_IN_ARCHIVE
        return NOT_FETCHED if state is State.OPEN else NO_DATA

    def _store(self, pool: ThreadPoolExecutor, run: _Run, read: Mapping[str, SymbolDays]) -> None:
        """All days of a month; a day is told once it is on disk."""
        days = sorted({date for each in read.values() for date in each.states})
        jobs = {pool.submit(self._store_day, read, run.known, date): date for date in days}
        for job in _each(jobs):
            date = jobs[job]
            bars, gaps = job.result()
            lines = run.held.setdefault(date, {})
            lines |= {
                symbol: Held(each.states[date], None, None) for symbol, each in read.items() if date in each.states
            }
            run.report.days, run.report.bars = run.report.days + 1, run.report.bars + bars
            run.report.gaps += gaps
            self._tell(run, date)

    def _store_day(
        self, read: Mapping[str, SymbolDays], known: Mapping[str, tuple[int, int]], date: str
    ) -> tuple[int, list[Gap]]:
        start = day_start(date)
        asked = {symbol: each for symbol, each in read.items() if date in each.states}
        coverage = {symbol: known[symbol] for symbol in asked if symbol in known}

        def missing(bars: Mapping[str, Bars]) -> Iterator[Gap]:
            for gap in find_gaps(bars, coverage, start, start + DAY_MS, ""):
                cause = asked[gap.symbol].causes.get(date) or self._why(states[gap.symbol])
                yield Gap(gap.symbol, gap.start_ms, gap.end_ms, cause)

        states = {symbol: each.states[date] for symbol, each in asked.items()}
        # What was stored before a file was damaged, or before the venue fell silent, is still true.
        keep = [symbol for symbol, state in states.items() if state is State.OPEN]
        bars = {symbol: each.of_day(date) for symbol, each in asked.items()}
        return put_symbols(self._lake, date, bars, states, missing, keep)

    def _tell(self, run: _Run, at: str) -> None:
        if self._progress is not None:
            report = run.report
            self._progress(Progress(at, run.read, run.to_read, report.days, run.of_days, report.bars))


def _each(jobs: Mapping[Future[T], str]) -> Iterator[Future[T]]:
    """Jobs as they end; those that have not begun are given up when nobody waits for them any more."""
    try:
        yield from as_completed(jobs)
    finally:
        for job in jobs:
            job.cancel()


def _outer_bars(held: Mapping[str, Mapping[str, Held]]) -> dict[str, tuple[int, int]]:
    """From each symbol's first stored bar to the end of its last."""
    found: dict[str, tuple[int, int]] = {}
    for lines in held.values():
        for symbol, line in lines.items():
            if line.first_ms is not None and line.last_ms is not None:
                first, last = found.get(symbol, (line.first_ms, 0))
                found[symbol] = min(first, line.first_ms), max(last, line.last_ms + MINUTE_MS)
    return found


def _coverage(read: SymbolDays, known: bool) -> tuple[int, int] | None:
    """From a symbol's first bar to its last, and the days of which it is known that something is missing."""
    certain = {UNREADABLE, NOT_FETCHED} if known else {UNREADABLE}
    spans = [span(date) for date, cause in read.causes.items() if cause in certain]
    if read.bars.size:
        spans.append((int(read.bars["open_time"][0]), int(read.bars["open_time"][-1]) + MINUTE_MS))
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None
