"""The exchange's archive into the lake: universe, klines, gaps and fundings of whole days, with its progress shown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from market.bars import DAY_MS
from market.errors import MarketError
from market.klines_store import Gap, day_start
from market.lake import Lake
from market.sources.archive_funding import FundingReport, ingest_funding
from market.sources.archive_ingest import ArchiveIngest, Report, whole_days
from market.sources.archive_ingest import Progress as Done
from market.sources.archive_listing import ListingRefused
from market.sources.binance_archive import BinanceArchive
from market.sources.binance_rest import BinanceRestSource
from market.universe import archived_daily, members, rank_by_day, store_universe

SHOWN_GAPS = 10


@dataclass(frozen=True)
class HistoryPlan:
    """What is wanted. Without `symbols` the `top` most traded of each day; without `rest` nothing is topped up.

    `listing` is where the archive's store can be listed: see `BinanceArchive`.
    """

    lake_uri: str
    archive: str
    rest: str
    start_ms: int
    end_ms: int
    symbols: tuple[str, ...]
    top: int
    again: bool
    listing: str = "auto"


def run_history(plan: HistoryPlan) -> int:
    """Do it, and say what it brought; 0, or 1 when something could not be used or is not known."""
    console, lake = Console(), Lake(plan.lake_uri)
    rest = BinanceRestSource(plan.rest) if plan.rest else None
    archive = BinanceArchive(plan.archive, listing=plan.listing)
    now_ms = _now_ms(console, rest)
    days = whole_days(plan.start_ms, plan.end_ms, now_ms)
    if not days:
        console.print("nothing to do: no whole day of this time has ended")
        return 0
    faults: list[str] = []
    symbols = plan.symbols or _universe(console, plan.top, days, lake, archive, rest, faults)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"klines of {len(symbols)} symbols", total=None)

        def show(done: Done) -> None:
            stored = f"{done.days} of {done.of_days} days stored, {done.bars:,} bars"
            progress.update(task, total=done.to_read, completed=done.read, description=f"{done.at}: {stored}")

        job = ArchiveIngest(lake, archive, top_up=rest, progress=show)
        report = job.run(symbols, plan.start_ms, plan.end_ms, again=plan.again, now_ms=now_ms)
    fundings = ingest_funding(lake, archive, symbols, sorted({date[:7] for date in days}), rest)
    _tell(console, report, fundings, [*faults, *report.unreadable, *fundings.unreadable])
    return 1 if faults or report.unreadable or fundings.unreadable else 0


def _now_ms(console: Console, rest: BinanceRestSource | None) -> int:
    """The venue's time, for days that have not ended there; this machine's when the venue cannot be asked."""
    if rest is not None:
        try:
            return rest.now_ms()
        except MarketError as error:
            console.print(f"the venue does not tell its time, this machine's is taken: {error}")
    return int(time.time() * 1000)


def _universe(
    console: Console,
    top: int,
    days: Sequence[str],
    lake: Lake,
    archive: BinanceArchive,
    rest: BinanceRestSource | None,
    faults: list[str],
) -> tuple[str, ...]:
    """Store the universe of each day of which anything is known; every symbol that is in any."""
    candidates = archive.symbols() or _candidates(console, archive, rest)
    # Each day is ranked by the day before.
    daily = archived_daily(archive, candidates, day_start(days[0]) - DAY_MS, day_start(days[-1]), rest)
    ranked = rank_by_day(daily.bars, days, top)
    for date, each in ranked.items():
        if each:
            store_universe(lake, date, each)
        else:
            faults.append(f"the universe of {date} is not known: nobody has 1d bars of the day before")
    faults += daily.unreadable
    chosen = members(ranked)
    console.print(f"universe: {len(chosen)} of {len(candidates)} symbols over {len(days)} days")
    return chosen


def _candidates(console: Console, archive: BinanceArchive, rest: BinanceRestSource | None) -> tuple[str, ...]:
    """Every symbol that the archive has had, else those of today."""
    try:
        return archive.listed()
    except ListingRefused as error:
        console.print(
            f"universe: the archive could not be listed, {error}. Its candidates are the symbols that the venue lists "
            "today: those that are gone are missing in it"
        )
        return rest.symbols() if rest is not None else ()


def _tell(console: Console, report: Report, fundings: FundingReport, faults: Sequence[str]) -> None:
    left = f", {report.unfinished_days} have not ended and are left" if report.unfinished_days else ""
    console.print(
        f"{report.days} days ({report.skipped_days} were done before{left}), {report.bars:,} bars, "
        f"{report.topped_up:,} of them topped up over REST, {fundings.fundings:,} fundings, {len(report.gaps)} gaps"
    )
    longest: list[Gap] = sorted(report.gaps, key=lambda gap: gap.start_ms - gap.end_ms)[:SHOWN_GAPS]
    for gap in longest:
        minutes = (gap.end_ms - gap.start_ms) // 60_000
        console.print(f"  gap: {gap.symbol}, {minutes} minutes, {gap.cause}")
    for reason in faults:
        console.print(f"  not used: {reason}")
