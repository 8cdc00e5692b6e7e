"""What must hold for stored klines before anything is built on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.bars import DAY_MS, MINUTE_MS, Bars, validate
from market.errors import BarRejected, utc
from market.klines_store import Gap, dates, day_start, find_gaps, read_all, read_gaps, stored_dates
from market.lake import Lake
from orchestration.ingest import MarketView, universes

SHOWN = 20
"""Faults that a message lists."""
MOST_MISSING = 0.05
"""Share of a symbol's day that may be missing, with a reason or without: 72 minutes."""
GRACE = 5
"""Minutes that may always be missing: of a day that has just begun, the newest bars may be all."""


@dataclass(frozen=True)
class Soundness:
    """What was looked at, and every fault in words."""

    days: int
    bars: int
    known_gaps: int
    """Minutes without a bar that the gaps account for."""
    faults: tuple[str, ...]


def examine(lake: Lake, market: MarketView, days: Sequence[str], most_missing: float = MOST_MISSING) -> Soundness:
    """Look at the stored klines of `days`.

    A day must be stored; each symbol's bars ascend and are possible klines; and a minute inside the symbol's coverage
    has a bar, or the gaps say why it has none, of at most the share `most_missing` of the day: that a source has
    nothing is what a faulty source says too. `UniverseMissing` when nobody said which symbols a stored day has.
    """
    stored = set(stored_dates(lake))
    faults = [f"{date}: no klines are stored" for date in days if date not in stored]
    explained = _minutes(read_gaps(lake))
    symbols = universes(lake, [date for date in days if date in stored])
    bars = known = 0
    for start, end in _stretches([date for date in days if date in stored]):
        found = read_all(lake, start, end)
        bars += sum(each.size for each in found.values())
        faults += _invalid(found)
        for date in dates(start, end):
            covered = {name: coverage for name in symbols[date] if (coverage := market.coverage(name)) is not None}
            begin = day_start(date)
            accounted: dict[str, int] = {}
            for gap in find_gaps(found, covered, begin, begin + DAY_MS, ""):
                missing = np.arange(gap.start_ms, gap.end_ms, MINUTE_MS)
                unexplained = missing[~np.isin(missing, explained.get(gap.symbol, missing[:0]))]
                accounted[gap.symbol] = accounted.get(gap.symbol, 0) + missing.size - unexplained.size
                if unexplained.size:
                    faults.append(
                        f"{gap.symbol}: {unexplained.size} minutes from {utc(int(unexplained[0]))} have no bar, "
                        "and the gaps do not say why"
                    )
            known += sum(accounted.values())
            faults += _too_many(date, accounted, covered, most_missing)
    return Soundness(len(days), bars, known, tuple(faults))


def _too_many(date: str, missing: Mapping[str, int], covered: Mapping[str, tuple[int, int]], most: float) -> list[str]:
    """A fault for each symbol of which the gaps account for more minutes of a day than may be missing."""
    faults, start = [], day_start(date)
    for symbol, count in missing.items():
        first, last = covered[symbol]
        of = (min(last, start + DAY_MS) - max(first, start)) // MINUTE_MS
        if count > max(most * of, GRACE):
            share = "all" if count == of else f"{100 * count / of:.1f} %"
            faults.append(
                f"{symbol}: {count} of the {of} minutes that the source covers on {date} have no bar ({share}, at most "
                f"{100 * most:g} % may), although the gaps account for them: ingest the day again, or ask why"
            )
    return faults


def _stretches(days: Sequence[str]) -> list[tuple[int, int]]:
    """The days as stretches [start, end) without a hole, none longer than a week: what is read at once."""
    stretches: list[tuple[int, int]] = []
    for start in sorted(day_start(date) for date in days):
        if stretches and stretches[-1][1] == start and start - stretches[-1][0] < 7 * DAY_MS:
            stretches[-1] = (stretches[-1][0], start + DAY_MS)
        else:
            stretches.append((start, start + DAY_MS))
    return stretches


def _invalid(found: Mapping[str, Bars]) -> list[str]:
    faults = []
    for symbol, bars in found.items():
        try:
            validate(symbol, bars)
        except BarRejected as rejected:
            faults.append(str(rejected))
    return faults


def _minutes(gaps: Sequence[Gap]) -> dict[str, NDArray[np.int64]]:
    """Each symbol's explained minutes."""
    minutes: dict[str, list[NDArray[np.int64]]] = {}
    for gap in gaps:
        minutes.setdefault(gap.symbol, []).append(np.arange(gap.start_ms, gap.end_ms, MINUTE_MS, dtype=np.int64))
    return {symbol: np.concatenate(parts) for symbol, parts in minutes.items()}


def words(faults: Sequence[str]) -> str:
    """The faults as one text, cut where it gets long."""
    more = f"\n… and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return "\n".join(faults[:SHOWN]) + more


class Unsound(Exception):
    """Stored klines that nothing may be built on: ingest the days again, or find out what the source did."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(f"the klines are not sound:\n{words(faults)}")
        self.faults = tuple(faults)


def require(lake: Lake, market: MarketView, days: Sequence[str], most_missing: float = MOST_MISSING) -> Soundness:
    """The same look; `Unsound` when there is any fault."""
    found = examine(lake, market, days, most_missing)
    if found.faults:
        raise Unsound(found.faults)
    return found
