"""Feature rows of history, one day after the other, each continuing from the state that the day before left.

Every timeframe divides a UTC day, so at midnight no bar is half finished, and the state of the recurrences is all
that one day hands to the next. Stored with the rows, it is also what a worker may start from. A day whose klines and
whose yesterday are what they were when it was computed is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import origins
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.engine import compute, new_state
from market.bars import DAY_MS, Bars, resample
from market.errors import utc
from market.klines_store import date_of, day_start, read_all, stored_dates
from market.lake import Lake
from market.state_store import Checkpoint, read_states, write_states
from orchestration.feature_log import NOTHING, Entry, FeatureLog, Restart, States, states_digest

SHOWN = 50
"""Restarts that a message lists."""


class OutOfOrder(Exception):
    """A day cannot continue from the day before; `begin` is the day to materialise `features` from instead."""

    def __init__(self, date: str, reason: str, begin: str, what: str = "features") -> None:
        super().__init__(
            f"features of {date} continue from the day before, {reason}: materialise {what} from {begin} on"
        )
        self.date = date
        self.begin = begin


class Computed(NamedTuple):
    """A day of which rows and end states are stored."""

    date: str
    rows: int
    dropped: tuple[str, ...] = ()
    """Later days that had continued from another state of this day: their rows and states are gone."""
    restarts: tuple[Restart, ...] = ()
    """Series that began anew in this day, after a gap longer than is bridged."""
    unchanged: bool = False
    """Whether it was left as it was, since it would have come out the same."""


@dataclass(frozen=True)
class _Made:
    """One timeframe of one day."""

    states: dict[str, Checkpoint]
    table: pa.Table
    restarts: tuple[Restart, ...]


def compute_days(
    lake: Lake,
    dates: Iterable[str],
    spec: DecisionSpec = DECISION_SPEC,
    require: Callable[[Sequence[str]], object] = lambda days: None,
) -> Iterator[Computed]:
    """Compute and store the rows and end states of some days, in ascending order; yields each day when it is stored.

    A day that would be computed from what it was computed from before (see `feature_log`) is not computed again, and
    none of its bars is read. A day whose end state comes out otherwise than it was takes every later day's rows and
    states with it, before it is stored itself: they would be those of another history, and a worker takes the newest
    state that it finds.

    `require` is told, before the first day that is computed, the days from it on: it raises what forbids them.

    Raises `OutOfOrder` when the day before one of them was not computed, or not from the klines that it has now, and
    when it has no klines although an earlier day has: a state begun cold would differ from history for days.
    """
    dates = list(dates)
    log = FeatureLog(lake, spec, dates)
    held: tuple[str, States] = "", {}
    allowed = False
    for at, date in enumerate(dates):
        before = date_of(day_start(date) - 1)
        continued = _continues(lake, log, date, before)
        kept = log.unchanged(date, continued)
        if kept is not None and _stored(lake, date, spec):
            yield Computed(date, kept.rows, restarts=kept.restarts, unchanged=True)
            continue
        if not allowed:
            require(dates[at:])
            allowed = True
        klines = log.klines(date)
        begin = held[1] if held[0] == before else _stored_states(lake, log, date, before, spec)
        made = _compute_day(lake, date, begin, spec)
        states = {timeframe: each.states for timeframe, each in made.items()}
        restarts = tuple(restart for each in made.values() for restart in each.restarts)
        entry = Entry(klines or NOTHING, continued, states_digest(states), _rows_of(made), restarts)
        dropped = _drop_later(lake, log, date, entry, spec)
        _store(lake, log, date, made, entry, spec)
        held = date, states
        yield Computed(date, entry.rows, dropped, restarts)


def in_words(restarts: Sequence[Restart]) -> str:
    """Which series began anew and when, cut where it gets long.

    >>> in_words([Restart("BTCUSDT", "1h", 1_767_571_199_999)])
    'BTCUSDT 1h 2026-01-04T23:59'
    >>> in_words([])
    'none'
    """
    told = [f"{each.symbol} {each.timeframe} {utc(each.close_time)[:16]}" for each in restarts[:SHOWN]]
    more = [f"and {len(restarts) - SHOWN} more"] if len(restarts) > SHOWN else []
    return ", ".join([*told, *more]) or "none"


def _continues(lake: Lake, log: FeatureLog, date: str, before: str) -> str:
    """Digest of the states that a day continues from; refuses the day unless they are those of all that is stored."""
    yesterday = log.entry(before)
    if yesterday is not None and log.sound(before):
        return yesterday.after
    stored = stored_dates(lake)
    if yesterday is not None:
        reason = "whose klines have changed since it was computed, or which was not finished"
        raise OutOfOrder(date, reason, _first_unsound(log, stored, before))
    earlier = [each for each in stored if each < date]
    if before in earlier:
        raise OutOfOrder(date, "which has no state", _first_unsound(log, stored, before))
    if earlier:
        reason = f"of which no klines are stored although there are some up to {earlier[-1]}"
        begin = date_of(day_start(earlier[-1]) + DAY_MS)
        raise OutOfOrder(date, reason, begin, "universe, klines, funding and features")
    return NOTHING


def _first_unsound(log: FeatureLog, stored: list[str], date: str) -> str:
    """`date`, or the first of the unbroken days before it that have klines and no features that were made from them."""
    known = set(stored)
    while (before := date_of(day_start(date) - 1)) in known and not log.sound(before):
        date = before
    return date


def _stored(lake: Lake, date: str, spec: DecisionSpec) -> bool:
    """Whether a day's files are all there."""
    return all(
        lake.files(name, {"timeframe": timeframe, "date": date})
        for name in ("features", "feature_state")
        for timeframe in spec.timeframes
    )


def _stored_states(lake: Lake, log: FeatureLog, date: str, before: str, spec: DecisionSpec) -> States:
    """The states that the day before `date` left; `OutOfOrder` when the files do not hold them any more."""
    states = {timeframe: read_states(lake, before, timeframe, spec.base.id) for timeframe in spec.timeframes}
    yesterday = log.entry(before)
    if yesterday is not None and states_digest(states) != yesterday.after:
        raise OutOfOrder(date, "whose stored states are not those that it ended with", before)
    return states


def _drop_later(lake: Lake, log: FeatureLog, date: str, entry: Entry, spec: DecisionSpec) -> tuple[str, ...]:
    """Leave the days that continued from other states of `date` without rows and states; which they were."""
    old = log.entry(date)
    if old is not None and old.after == entry.after:
        return ()
    later = log.later(date)
    # The newest first, and `date` itself afterwards: broken off in between, doing the day again drops the rest.
    for each in reversed(later):
        log.open(each)
        for timeframe in spec.timeframes:
            write_states(lake, each, timeframe, spec.base.id, {})
            lake.put("features", _table([], [], [], spec), {"timeframe": timeframe, "date": each})
        log.forget(each)
    return tuple(later)


def _store(lake: Lake, log: FeatureLog, date: str, made: Mapping[str, _Made], entry: Entry, spec: DecisionSpec) -> None:
    again = log.entry(date) is not None
    log.open(date)
    if again:
        # Broken off in between, no worker may find states of two histories beside each other.
        for timeframe in made:
            write_states(lake, date, timeframe, spec.base.id, {})
    for timeframe, each in made.items():
        lake.put("features", each.table, {"timeframe": timeframe, "date": date})
        write_states(lake, date, timeframe, spec.base.id, each.states)
    log.close(date, entry)


def _rows_of(made: Mapping[str, _Made]) -> int:
    return sum(each.table.num_rows for each in made.values())


def _compute_day(lake: Lake, date: str, begin: States, spec: DecisionSpec) -> dict[str, _Made]:
    """Every timeframe of a day, from the states that it continues from."""
    start = day_start(date)
    minutes = read_all(lake, start, start + DAY_MS)
    return {timeframe: _compute(timeframe, minutes, begin[timeframe], spec) for timeframe in spec.timeframes}


def _compute(
    timeframe: str, minutes: Mapping[str, Bars], before: Mapping[str, Checkpoint], spec: DecisionSpec
) -> _Made:
    """One timeframe of one day: the states after it, its rows, and which series began anew."""
    states, restarts = dict(before), list[Restart]()
    symbols, times, rows = list[str](), list[NDArray[np.int64]](), list[NDArray[np.float32]]()
    for symbol, each in minutes.items():
        bars = resample(each, timeframe)
        if bars.size:
            state = before[symbol].state.copy() if symbol in before else new_state(spec.base)
            anew = _anew(bars, state, spec)
            restarts += [Restart(symbol, timeframe, int(time)) for time in bars["close_time"][anew]]
            symbols.append(symbol)
            times.append(bars["close_time"])
            rows.append(compute(bars, spec.base, state))
            states[symbol] = Checkpoint(int(bars["close_time"][-1]), state)
    return _Made(states, _table(symbols, times, rows, spec), tuple(restarts))


def _anew(bars: Bars, state: NDArray[np.float64], spec: DecisionSpec) -> NDArray[np.int64]:
    """The bars at which a series begins anew after a gap; its very first bar is not one of them."""
    anew = np.flatnonzero(origins.counts(bars, spec.base.max_gap) == 1)
    bars_seen, last_open = state[0], state[1]
    if anew.size:
        first = bars[anew[0]]
        longest = (spec.base.max_gap + 1) * (first["close_time"] - first["open_time"] + 1)
        if bars_seen == 0 or first["open_time"] - last_open <= longest:
            return anew[1:]
    return anew


def _table(
    symbols: list[str], times: list[NDArray[np.int64]], rows: list[NDArray[np.float32]], spec: DecisionSpec
) -> pa.Table:
    """The rows of several series one after the other, a column a feature."""
    counts = [each.size for each in times]
    codes = np.repeat(np.arange(len(symbols), dtype=np.int32), counts)
    joined = np.concatenate(rows) if rows else np.empty((0, len(spec.base.names)), np.float32)
    # Column after column in one pass, instead of a stride of a whole row for every number.
    columns = np.ascontiguousarray(joined.T)
    names: dict[str, Any] = {
        "symbol": pa.DictionaryArray.from_arrays(codes, pa.array(symbols, pa.string())).cast(pa.string()),
        "close_time": pa.array(np.concatenate(times) if times else np.empty(0, np.int64)),
    }
    return pa.table(names | {name: pa.array(column) for name, column in zip(spec.base.names, columns, strict=True)})
