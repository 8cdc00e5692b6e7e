"""The days of klines in the lake, symbol by symbol: what each holds of whom, and who need not be asked again.

A day is shared: whoever ingests some symbols leaves the others as they are. Three files make up a day, written in this
order: its klines, its gaps, and in `kline_days` a line for each symbol. A symbol counts as ingested by its line only,
and the line is taken away before anything that it vouches for is changed; so a run that dies leaves a day that is to be
done again, never one that is called done and is not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa

from market.bars import BAR, DAY_MS, MINUTE_MS, Bars, empty
from market.klines_store import Gap, day_start, find_gaps, gaps_of_day, read_all, stored_dates, write_day, write_gaps
from market.lake import Lake

MINUTES = DAY_MS // MINUTE_MS


class State(StrEnum):
    """How far a symbol of a day has been ingested."""

    DONE = "done"
    """It has all minutes, or nobody has more: it need not be asked for again."""
    ARCHIVE_ONLY = "archive_only"
    """The archive has no more; the venue was not asked."""
    OPEN = "open"
    """Something could not be read, or may come yet: it is to be asked for again."""


@dataclass(frozen=True, slots=True)
class Held:
    """One symbol of a stored day; `first_ms` and `last_ms` are the open times of its outer bars, None without any."""

    state: State
    first_ms: int | None
    last_ms: int | None


Missing = Callable[[Mapping[str, Bars]], Iterable[Gap]]
"""Says which minutes are missing among the bars of some symbols, and why."""


def held_days(lake: Lake, date: str | None = None) -> dict[str, dict[str, Held]]:
    """What is known of each symbol of each stored day, or of `date` alone.

    A day whose klines are gone holds nothing, and of a symbol without a line nothing is known.
    """
    stored = stored_dates(lake) if date is None else [date] if lake.files("klines", {"date": date}) else []
    if not stored:
        return {}
    within = {} if date is None else {"date": (date,)}
    table = lake.read("kline_days", ("date", "symbol", "state", "first", "last"), within=within)
    found: dict[str, dict[str, Held]] = {each: {} for each in stored}
    states = {each.value: each for each in State}
    for at, symbol, state, first, last in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if at in found:
            found[at][symbol] = Held(states[state], first, last)
    return found


def put_symbols(
    lake: Lake,
    date: str,
    bars: Mapping[str, Bars],
    states: Mapping[str, State],
    missing: Missing,
    keep: Collection[str] = (),
) -> tuple[int, list[Gap]]:
    """Store some symbols of a day, those of `states`, and leave the day's others as they are.

    Parameters
    ----------
    bars: of these symbols, in place of what is stored of them; one without bars may be left out.
    states: how far each has been ingested. One that turns out to have all minutes is done.
    missing: is asked for the gaps of these symbols, given their bars as they are stored.
    keep: of these, stored bars stay where there are no others of the same minute.

    Returns how many bars these symbols then have, and their gaps. Raises as `write_day` does; the day is then not done.
    """
    with lake.lock("klines", {"date": date}):
        stored = bool(lake.files("klines", {"date": date}))
        held = held_days(lake, date).get(date, {}) if stored else {}
        others = {symbol: each for symbol, each in held.items() if symbol not in states}
        if len(others) < len(held):
            _write_lines(lake, date, others)
        start = day_start(date)
        before = read_all(lake, start, start + DAY_MS) if stored else {}
        mine = {symbol: bars[symbol] for symbol in states if symbol in bars}
        for symbol in keep:
            mine[symbol] = _together(mine.get(symbol), before.get(symbol))
        gaps = list(missing(mine))
        entered = gaps_of_day(lake, date)
        if not stored or _changed(before, mine, states):
            write_day(lake, date, {symbol: each for symbol, each in before.items() if symbol not in states} | mine)
        # Without klines nobody else's gaps are those of anything.
        kept = [gap for gap in entered if stored and gap.symbol not in states]
        if entered or gaps:
            write_gaps(lake, date, [*gaps, *kept])
        _write_lines(lake, date, others | {symbol: _line(mine.get(symbol), states[symbol]) for symbol in states})
    return sum(each.size for each in mine.values()), gaps


def add_gaps(lake: Lake, date: str, symbol: str, start_ms: int, end_ms: int, cause: str) -> list[Gap]:
    """Enter that a symbol's minutes of a stored day in [start_ms, end_ms) are missing, but for those that are entered.

    For a day without bars of it that turns out, by another day's bars, to lie inside its history.
    """
    with lake.lock("klines", {"date": date}):
        known = gaps_of_day(lake, date)
        entered = [np.arange(gap.start_ms, gap.end_ms, MINUTE_MS) for gap in known if gap.symbol == symbol]
        accounted = np.zeros(sum(each.size for each in entered), dtype=BAR)
        accounted["open_time"] = np.sort(np.concatenate(entered)) if entered else 0
        begin = day_start(date)
        added = find_gaps({symbol: accounted}, {symbol: (start_ms, end_ms)}, begin, begin + DAY_MS, cause)
        if added:
            write_gaps(lake, date, [*known, *added])
    return added


def _together(fresh: Bars | None, stored: Bars | None) -> Bars:
    """Both in order of time; of a minute that both have, the fresh one."""
    joined = np.concatenate([each for each in (fresh, stored, empty()) if each is not None])
    _, first = np.unique(joined["open_time"], return_index=True)
    return joined[first]


def _changed(before: Mapping[str, Bars], after: Mapping[str, Bars], symbols: Iterable[str]) -> bool:
    """Whether any of the symbols has other bars than before, to the bit."""
    content = [[each[name].tobytes() if name in each else b"" for name in symbols] for each in (before, after)]
    return content[0] != content[1]


def _line(bars: Bars | None, state: State) -> Held:
    if bars is None or not bars.size:
        return Held(state, None, None)
    whole = bars.size == MINUTES
    return Held(State.DONE if whole else state, int(bars["open_time"][0]), int(bars["open_time"][-1]))


def _write_lines(lake: Lake, date: str, lines: Mapping[str, Held]) -> None:
    rows = sorted(lines.items())
    table: dict[str, pa.Array[Any]] = {
        "symbol": pa.array([symbol for symbol, _ in rows], pa.string()),
        "state": pa.array([line.state.value for _, line in rows], pa.string()),
        "first": pa.array([line.first_ms for _, line in rows], pa.int64()),
        "last": pa.array([line.last_ms for _, line in rows], pa.int64()),
    }
    lake.put("kline_days", pa.table(table), {"date": date})
