"""Which symbols are followed on which day: the first N by traded value, as it could be known when the day began."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
import pyarrow as pa

from market.bars import DAY_MS, Bars, empty
from market.errors import BarRejected, MarketError, SourceUnreadable, UnknownSymbol
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
    later is not. Equal values are ordered by name. A day before which nobody has a bar has no symbols: it is not known.

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


@dataclass
class Daily:
    """1d bars by symbol; `unreadable` names what could not be used, with the reason."""

    bars: dict[str, Bars] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


class DailySource(Protocol):
    """Has 1d bars that the archive lacks."""

    def daily(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The closed 1d bars with open_time in [start_ms, end_ms); `UnknownSymbol` if it has nothing of the symbol."""
        ...


def archived_daily(
    archive: BinanceArchive,
    symbols: Sequence[str],
    start_ms: int,
    end_ms: int,
    top_up: DailySource | None = None,
    workers: int = 8,
) -> Daily:
    """1d bars of the days that [start_ms, end_ms) touches; a symbol without any is left out.

    The archive's months of 1d bars are small files, so the universe is known before its klines are fetched. Days that
    it lacks (the last ones, and those in damaged files) are asked of `top_up`, one question a symbol. Where the
    archive can be listed only what it has is asked for: most symbols that are gone have nothing of these days.
    """
    wanted = dates(start_ms, end_ms)

    def read(symbol: str) -> tuple[Bars, list[str]]:
        unreadable: list[str] = []
        bars = _of_archive(archive, symbol, wanted, unreadable)
        if top_up is not None and bars.size < len(wanted):
            bars = _topped_up(top_up, symbol, wanted, bars, unreadable)
        return bars, unreadable

    found = Daily()
    with ThreadPoolExecutor(workers, thread_name_prefix="universe") as pool:
        for symbol, (bars, unreadable) in zip(symbols, pool.map(read, symbols), strict=True):
            found.unreadable += unreadable
            if bars.size:
                found.bars[symbol] = bars
    return found


def _of_archive(archive: BinanceArchive, symbol: str, wanted: Sequence[str], unreadable: list[str]) -> Bars:
    """The archive's 1d bars of some days: by months, where there is no month by days."""

    try:
        there = archive.labels(symbol, "1d", wanted[0])
    except ListingRefused:
        there = None  # the files themselves can still be asked for

    def file(label: str) -> Bars | None:
        if there is not None and label not in there:
            return None
        try:
            return archive.read(symbol, label, "1d")
        except (SourceUnreadable, BarRejected) as error:
            unreadable.append(f"1d bars of {symbol} {label}: {error}")
            return None

    pieces = [empty()]
    for month, group in groupby(wanted, key=lambda date: date[:7]):
        whole = file(month)
        each = [file(day) for day in group] if whole is None else [whole]
        pieces += [piece for piece in each if piece is not None]
    joined = np.concatenate(pieces)
    return joined[np.isin(joined["open_time"], [day_start(date) for date in wanted])]


def _topped_up(source: DailySource, symbol: str, wanted: Sequence[str], bars: Bars, unreadable: list[str]) -> Bars:
    """With another source's bars of the days that are missing."""
    missing = np.setdiff1d([day_start(date) for date in wanted], bars["open_time"])
    try:
        more = source.daily(symbol, int(missing[0]), int(missing[-1]) + DAY_MS)
    except UnknownSymbol:
        return bars
    except MarketError as error:
        unreadable.append(f"1d bars of {symbol}: {error}")
        return bars
    joined = np.concatenate([bars, more[np.isin(more["open_time"], missing)]])
    return joined[np.argsort(joined["open_time"])]


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
