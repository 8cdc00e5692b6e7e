"""Which symbols are followed on which day: the first N by traded value, as it could be known when the day began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from market.bars import DAY_MS, Bars
from market.klines_store import dates, day_start
from market.lake import Lake
from market.sources.archive_listing import ListingRefused
from market.sources.binance_archive import BinanceArchive


@dataclass(frozen=True, slots=True)
class Ranked:
    """One symbol of a day's universe; `quote_volume` is what was traded on the day before, in USDT."""

    symbol: str
    rank: int
    quote_volume: float


def rank_by_day(daily: Mapping[str, Bars], days: Iterable[str], size: int) -> dict[str, list[Ranked]]:
    """The `size` symbols that traded most on the day before each of `days`, from 1d bars of all symbols.

    A symbol counts only with a bar of that day before, so one that is delisted later is in it, one that is listed
    later is not. Equal values are ordered by name.

    >>> from market.bars import from_columns
    >>> one = dict.fromkeys(("open", "high", "low", "close"), [1.0])
    >>> bars = lambda volume: from_columns({"open_time": [0], "volume": [volume], **one}, "1d")
    >>> [each.symbol for each in rank_by_day({"A": bars(1.0), "B": bars(2.0)}, ["1970-01-02"], 5)["1970-01-02"]]
    ['B', 'A']
    """
    volumes = {
        symbol: dict(zip(bars["open_time"].tolist(), bars["quote_volume"].tolist(), strict=True))
        for symbol, bars in daily.items()
    }
    found = {}
    for date in days:
        before = day_start(date) - DAY_MS
        traded = sorted((-by_day[before], symbol) for symbol, by_day in volumes.items() if by_day.get(before, 0.0) > 0)
        found[date] = [Ranked(symbol, rank, -volume) for rank, (volume, symbol) in enumerate(traded[:size], start=1)]
    return found


def archived_daily(
    archive: BinanceArchive, symbols: Sequence[str], start_ms: int, end_ms: int, workers: int = 8
) -> dict[str, Bars]:
    """1d bars of the days that [start_ms, end_ms) touches, from the archive; a symbol without any is left out.

    The archive's months of 1d bars are small files, so the universe is known before its klines are fetched. Where the
    archive can be listed only what it has is asked for: most symbols that are gone have nothing of these days.
    """
    wanted = dates(start_ms, end_ms)
    months: dict[str, list[str]] = {}
    for date in wanted:
        months.setdefault(date[:7], []).append(date)

    def read(symbol: str) -> Bars | None:
        pieces: list[Bars | None] = []
        try:
            there = archive.labels(symbol, "1d", wanted[0])
        except ListingRefused:
            there = None  # the files themselves can still be asked for

        def one(label: str) -> Bars | None:
            return archive.read(symbol, label, "1d") if there is None or label in there else None

        for month, days in months.items():
            whole = one(month)
            pieces += [whole] if whole is not None else [one(day) for day in days]
        have = [piece for piece in pieces if piece is not None]
        if not have:
            return None
        joined = np.concatenate(have)
        return joined[(joined["open_time"] >= day_start(wanted[0])) & (joined["open_time"] < end_ms)]

    with ThreadPoolExecutor(workers, thread_name_prefix="universe") as pool:
        found = dict(zip(symbols, pool.map(read, symbols), strict=True))
    return {symbol: bars for symbol, bars in found.items() if bars is not None and bars.size}


def store_universe(lake: Lake, date: str, ranked: Sequence[Ranked]) -> str:
    """Store one day's universe, in place of what was stored for it; returns the path."""
    table = pa.table(
        {
            "symbol": pa.array([each.symbol for each in ranked], pa.string()),
            "rank": pa.array([each.rank for each in ranked], pa.int32()),
            "quote_volume": pa.array([each.quote_volume for each in ranked], pa.float64()),
        }
    )
    return lake.put("universe", table, {"date": date})


def members(universes: Mapping[str, Sequence[Ranked]]) -> tuple[str, ...]:
    """Every symbol that is in the universe on any of the days, in alphabetical order: whose klines are wanted."""
    return tuple(sorted({each.symbol for ranked in universes.values() for each in ranked}))
