"""From a source into the lake, a day at a time: the universe, its klines and gaps, its fundings.

Each day replaces what the lake held of its symbols, so doing a day again changes nothing but what the source has since
learnt. Symbols that somebody else ingested stay, and `perpforge history` need not ask for those that are done here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from market.bars import DAY_MS, Bars
from market.funding import Fundings
from market.kline_days import State, put_symbols
from market.klines_store import (
    Gap,
    date_of,
    day_start,
    find_gaps,
    read_all_funding,
    write_funding,
)
from market.lake import Lake
from market.sources import BarSource

NO_DATA = "venue_has_no_data"
"""The source was asked twice for these minutes and has no bars of them."""


@dataclass(frozen=True)
class MarketView:
    """A source as it is known at one time: nothing at or after `until_ms` exists yet (None: all that it has)."""

    source: BarSource
    until_ms: int | None = None

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """[start, end) of the open times that can be asked for, or None."""
        coverage = self.source.coverage(symbol)
        if coverage is None:
            return None
        start, end = coverage[0], coverage[1] if self.until_ms is None else min(coverage[1], self.until_ms)
        return (start, end) if start < end else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The closed 1m bars with open_time in [start_ms, end_ms)."""
        return self.source.klines(symbol, start_ms, self._cut(end_ms))

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The fundings charged in [start_ms, end_ms)."""
        return self.source.funding(symbol, start_ms, self._cut(end_ms))

    def _cut(self, end_ms: int) -> int:
        return end_ms if self.until_ms is None else min(end_ms, self.until_ms)


@dataclass(frozen=True)
class DayReport:
    """What one day brought. `closes` are each symbol's last prices, for a picture."""

    date: str
    symbols: int
    bars: int
    gaps: tuple[Gap, ...]
    closes: Mapping[str, float]


def store_universe(lake: Lake, market: MarketView, date: str, size: int) -> pa.Table:
    """The symbols that trade on `date`, as they could be known when it began; stored and returned.

    Ranked by the value traded on the day before, the `size` first of them: a symbol that was delisted later is in
    it, one that was listed later is not. On a market's first day nothing is known, and the source's order decides.
    """
    start = day_start(date)
    traded = []
    for symbol in market.source.symbols():
        coverage = market.coverage(symbol)
        if coverage is not None and coverage[0] < start + DAY_MS and start < coverage[1]:
            before = market.klines(symbol, start - DAY_MS, start) if coverage[0] < start else None
            traded.append((symbol, float(np.sum(before["quote_volume"])) if before is not None else 0.0))
    ranked = sorted(traded, key=lambda each: -each[1])[:size]
    table = pa.table(
        {
            "symbol": pa.array([symbol for symbol, _ in ranked], pa.string()),
            "rank": pa.array(range(1, len(ranked) + 1), pa.int32()),
            "quote_volume": pa.array([volume for _, volume in ranked], pa.float64()),
        }
    )
    lake.put("universe", table, {"date": date})
    return table


class UniverseMissing(Exception):
    """Nobody has said which symbols trade on a day: materialise `universe` first."""

    def __init__(self, days: Sequence[str]) -> None:
        super().__init__(f"no universe is stored for {', '.join(days)}: materialise universe first")
        self.days = tuple(days)


def universes(lake: Lake, days: Sequence[str]) -> dict[str, list[str]]:
    """The stored universe of each day by rank; `UniverseMissing` names the days that have none."""
    stored = {partition["date"] for partition in lake.partitions("universe")}
    missing = [date for date in days if date not in stored]
    if missing:
        raise UniverseMissing(missing)
    found: dict[str, list[str]] = {date: [] for date in days}
    if found:
        rows = lake.read("universe", ("date", "symbol"), "date BETWEEN ? AND ?", (min(days), max(days)), "date, rank")
        for row in rows.to_pylist():
            if row["date"] in found:
                found[row["date"]].append(row["symbol"])
    return found


def ingest_klines(lake: Lake, market: MarketView, date: str, symbols: Sequence[str]) -> DayReport:
    """Store one day's bars of `symbols` and what is missing among them, in place of what is stored of these.

    Minutes inside the coverage that the source did not give are asked for once more by themselves; what is then
    still missing goes into the gaps. Raises `BarRejected` for a bar that is none; nothing is stored then.
    """
    start = day_start(date)
    end = start + DAY_MS
    coverage = {symbol: covered for symbol in symbols if (covered := market.coverage(symbol)) is not None}
    bars = {symbol: market.klines(symbol, start, end) for symbol in coverage}
    for gap in find_gaps(bars, coverage, start, end, NO_DATA):
        again = market.klines(gap.symbol, gap.start_ms, gap.end_ms)
        joined = np.concatenate([bars[gap.symbol], again])
        bars[gap.symbol] = joined[np.argsort(joined["open_time"], kind="stable")]
    states = {symbol: State.DONE if covered[1] >= end else State.OPEN for symbol, covered in coverage.items()}
    _, gaps = put_symbols(lake, date, bars, states, lambda stored: find_gaps(stored, coverage, start, end, NO_DATA))
    present = {symbol: each for symbol, each in bars.items() if each.size}
    closes = {symbol: float(each["close"][-1]) for symbol, each in present.items()}
    return DayReport(date, len(present), sum(each.size for each in present.values()), tuple(gaps), closes)


def ingest_funding(lake: Lake, market: MarketView, days: Iterable[str], symbols: Mapping[str, Sequence[str]]) -> int:
    """Store the fundings of some days, `symbols` by day; returns how many.

    Files are by month: the other days of a month stay as they are.
    """
    count = 0
    months: dict[str, list[str]] = {}
    for date in days:
        months.setdefault(date[:7], []).append(date)
    for month, dates in months.items():
        asked = {day_start(date) // DAY_MS for date in dates}
        kept = _kept(lake, month, asked)
        fresh: dict[str, list[Fundings]] = {}
        for date in dates:
            start = day_start(date)
            for symbol in symbols[date]:
                fresh.setdefault(symbol, []).append(market.funding(symbol, start, start + DAY_MS))
        count += sum(each.size for parts in fresh.values() for each in parts)
        joined = {}
        for symbol in sorted({*kept, *fresh}):
            parts = [*([kept[symbol]] if symbol in kept else []), *fresh.get(symbol, [])]
            each = np.concatenate(parts)
            joined[symbol] = each[np.argsort(each["funding_time"], kind="stable")]
        write_funding(lake, month, joined)
    return count


def _kept(lake: Lake, month: str, replaced: set[int]) -> dict[str, Fundings]:
    """The month's stored fundings outside the days (numbered since the epoch) that are about to be replaced."""
    start = day_start(f"{month}-01")
    stored = read_all_funding(lake, start, day_start(f"{_next(month)}-01"))
    return {symbol: each[~np.isin(each["funding_time"] // DAY_MS, list(replaced))] for symbol, each in stored.items()}


def _next(month: str) -> str:
    """The month after, from 31 days on from its first.

    >>> _next("2026-12")
    '2027-01'
    """
    return date_of(day_start(f"{month}-01") + 31 * DAY_MS)[:7]
