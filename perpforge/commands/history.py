"""The exchange's archive into the lake: universe, klines, gaps and fundings of whole days, with its progress shown."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from market.bars import DAY_MS
from market.klines_store import Gap, dates
from market.lake import Lake
from market.sources import BarSource
from market.sources.archive_ingest import ArchiveIngest, Report, ingest_funding
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
    """Do it, and say what it brought; 0, or 1 when a file could not be used."""
    console, lake = Console(), Lake(plan.lake_uri)
    rest = BinanceRestSource(plan.rest) if plan.rest else None
    archive = BinanceArchive(plan.archive, listing=plan.listing)
    symbols = plan.symbols or _universe(console, plan, lake, archive, rest)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"klines of {len(symbols)} symbols", total=None)

        def show(done: Done) -> None:
            progress.update(
                task, total=done.of_days, completed=done.days, description=f"{done.date}: {done.bars:,} bars"
            )

        job = ArchiveIngest(lake, archive, top_up=rest, progress=show)
        report = job.run(symbols, plan.start_ms, plan.end_ms, again=plan.again)
    months = sorted({date[:7] for date in dates(plan.start_ms, plan.end_ms)})
    fundings = ingest_funding(lake, archive, symbols, months, rest)
    _tell(console, report, fundings)
    return 1 if report.unreadable else 0


def _universe(
    console: Console, plan: HistoryPlan, lake: Lake, archive: BinanceArchive, rest: BarSource | None
) -> tuple[str, ...]:
    """The universe of each day, stored; every symbol that is in any."""
    candidates = archive.symbols() or _candidates(console, archive, rest)
    daily = archived_daily(archive, candidates, plan.start_ms - DAY_MS, plan.end_ms)
    days = dates(plan.start_ms, plan.end_ms)
    ranked = rank_by_day(daily, days, plan.top)
    for date, each in ranked.items():
        store_universe(lake, date, each)
    chosen = members(ranked)
    console.print(f"universe: {len(chosen)} of {len(candidates)} symbols over {len(days)} days")
    return chosen


def _candidates(console: Console, archive: BinanceArchive, rest: BarSource | None) -> tuple[str, ...]:
    """Every symbol that the archive has had, else those of today."""
    try:
        return archive.listed()
    except ListingRefused as error:
        console.print(
            f"universe: the archive could not be listed, {error}. Its candidates are the symbols that the venue lists "
            "today: those that are gone are missing in it"
        )
        return rest.symbols() if rest is not None else ()


def _tell(console: Console, report: Report, fundings: int) -> None:
    console.print(
        f"{report.days} days ({report.skipped_days} were done before), {report.bars:,} bars, "
        f"{report.topped_up:,} of them topped up over REST, {fundings:,} fundings, {len(report.gaps)} gaps"
    )
    longest: list[Gap] = sorted(report.gaps, key=lambda gap: gap.start_ms - gap.end_ms)[:SHOWN_GAPS]
    for gap in longest:
        minutes = (gap.end_ms - gap.start_ms) // 60_000
        console.print(f"  gap: {gap.symbol}, {minutes} minutes, {gap.cause}")
    for reason in report.unreadable:
        console.print(f"  not used: {reason}")
