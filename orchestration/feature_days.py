"""Feature rows of history, one day after the other, each continuing from the state that the day before left.

Every timeframe divides a UTC day, so at midnight no bar is half finished, and the state of the recurrences is all
that one day hands to the next. Stored with the rows, it is also what a worker may start from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.engine import compute, new_state
from market.bars import DAY_MS, Bars, empty, resample
from market.errors import utc
from market.klines_store import date_of, day_start, read_all, stored_dates
from market.lake import Lake

State = NDArray[np.float64]


class OutOfOrder(Exception):
    """A day cannot continue from the day before; `begin` is the day to materialise `features` from instead."""

    def __init__(self, date: str, reason: str, begin: str, what: str = "features") -> None:
        super().__init__(
            f"features of {date} continue from the day before, {reason}: materialise {what} from {begin} on"
        )
        self.date = date
        self.begin = begin


class Computed(NamedTuple):
    """A day that has been computed and stored."""

    date: str
    rows: int
    dropped: tuple[str, ...]
    """Later days that had continued from another state of this day: their rows and states are gone."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of one series at a day's end."""

    close_time: int
    """Close of the last bar it has seen."""
    state: State

    def same(self, other: Checkpoint) -> bool:
        """Equal to the bit, NaN included."""
        return self.close_time == other.close_time and self.state.tobytes() == other.state.tobytes()


States = Mapping[str, Mapping[str, Checkpoint]]
"""By timeframe and symbol."""


@dataclass(frozen=True)
class _Day:
    """A day that has been computed: its minutes by symbol, its end states by timeframe and symbol."""

    date: str
    minutes: Mapping[str, Bars]
    states: States


def compute_days(lake: Lake, dates: Iterable[str], spec: DecisionSpec = DECISION_SPEC) -> Iterator[Computed]:
    """Compute and store the rows and end states of some days, in ascending order; yields each day when it is stored.

    A day whose end state comes out otherwise than it was takes every later day's rows and states with it, before it
    is stored itself: they would be those of another history, and a worker takes the newest state that it finds.

    Raises `OutOfOrder` when the day before one of them was not computed, or was before its klines were complete, and
    when it has no klines although an earlier day has: a state begun cold would differ from history for days.
    """
    computed = _computed(lake, spec)
    last: _Day | None = None
    for date in dates:
        before = date_of(day_start(date) - 1)
        if last is None or last.date != before:
            last = _stored_day(lake, before, spec)
        _check_continues(lake, date, last, computed, spec)
        minutes = _minutes(lake, date)
        made = {each: _compute(each, minutes, last.states[each], spec) for each in spec.timeframes}
        states = {timeframe: found for timeframe, (found, _) in made.items()}
        later = tuple(each for each in sorted(computed) if each > date)
        dropped = later if later and not _same(states, _stored_states(lake, date, spec)) else ()
        # The newest first, and this day last: broken off in between, doing the day again drops the rest.
        for each in reversed(dropped):
            _drop(lake, each, spec)
            computed.remove(each)
        for timeframe, (found, table) in made.items():
            lake.put("features", table, {"timeframe": timeframe, "date": date})
            lake.put("feature_state", _states(found, spec), {"timeframe": timeframe, "date": date})
        computed.add(date)
        last = _Day(date, minutes, states)
        yield Computed(date, sum(table.num_rows for _, table in made.values()), dropped)


def _computed(lake: Lake, spec: DecisionSpec) -> set[str]:
    """The days that hold states of this specification."""
    found = lake.query("SELECT DISTINCT date FROM feature_state WHERE spec = ?", (spec.base.id,))
    return {str(date) for date in found.column("date").to_pylist()}


def _drop(lake: Lake, date: str, spec: DecisionSpec) -> None:
    """Leave a day without rows and states."""
    for timeframe in spec.timeframes:
        lake.put("feature_state", _states({}, spec), {"timeframe": timeframe, "date": date})
        lake.put("features", _no_rows(spec), {"timeframe": timeframe, "date": date})


def _stored_day(lake: Lake, date: str, spec: DecisionSpec) -> _Day:
    return _Day(date, _minutes(lake, date), _stored_states(lake, date, spec))


def _stored_states(lake: Lake, date: str, spec: DecisionSpec) -> dict[str, dict[str, Checkpoint]]:
    return {timeframe: read_states(lake, date, timeframe, spec) for timeframe in spec.timeframes}


def _same(one: States, other: States) -> bool:
    """Equal to the bit, NaN included."""
    return all(
        one[timeframe].keys() == other[timeframe].keys()
        and all(each.same(other[timeframe][symbol]) for symbol, each in one[timeframe].items())
        for timeframe in one
    )


def _minutes(lake: Lake, date: str) -> dict[str, Bars]:
    start = day_start(date)
    return read_all(lake, start, start + DAY_MS)


def _compute(
    timeframe: str, minutes: Mapping[str, Bars], before: Mapping[str, Checkpoint], spec: DecisionSpec
) -> tuple[dict[str, Checkpoint], pa.Table]:
    """One timeframe of one day: the states after it, and its rows."""
    states, tables = dict(before), [_no_rows(spec)]
    for symbol, each in minutes.items():
        bars = resample(each, timeframe)
        if bars.size:
            state = before[symbol].state.copy() if symbol in before else new_state(spec.base)
            tables.append(_rows(symbol, bars, compute(bars, spec.base, state), spec))
            states[symbol] = Checkpoint(int(bars["close_time"][-1]), state)
    return states, pa.concat_tables(tables)


def _check_continues(lake: Lake, date: str, yesterday: _Day, computed: set[str], spec: DecisionSpec) -> None:
    """Refuse a day unless the state of the day before has seen every bar that is stored before it."""
    for timeframe in spec.timeframes:
        states = yesterday.states[timeframe]
        for symbol, minutes in yesterday.minutes.items():
            bars = resample(minutes, timeframe)
            if not bars.size:
                continue
            need, have = int(bars["close_time"][-1]), states[symbol].close_time if symbol in states else None
            if have != need:
                found = "there is none" if have is None else f"the stored one ends at {utc(have)}"
                reason = f"whose state is to have seen {timeframe} bars of {symbol} up to {utc(need)}, but {found}"
                raise OutOfOrder(date, reason, _first_without(lake, yesterday.date, computed))
    if yesterday.date in computed:
        return
    stored = [each for each in stored_dates(lake) if each < date]
    if yesterday.date in stored:
        raise OutOfOrder(date, "which has no state", _first_without(lake, yesterday.date, computed))
    if stored:
        reason = f"of which no klines are stored although there are some up to {stored[-1]}"
        begin = date_of(day_start(stored[-1]) + DAY_MS)
        raise OutOfOrder(date, reason, begin, "universe, klines, funding and features")


def _first_without(lake: Lake, date: str, computed: set[str]) -> str:
    """`date`, or the first of the days before it that have klines and no state."""
    stored = set(stored_dates(lake))
    while (before := date_of(day_start(date) - 1)) in stored - computed:
        date = before
    return date


def read_states(lake: Lake, date: str, timeframe: str, spec: DecisionSpec = DECISION_SPEC) -> dict[str, Checkpoint]:
    """The states at the end of `date` by symbol, of this specification; a symbol that is silent keeps its last one."""
    found = lake.read(
        "feature_state",
        ("symbol", "close_time", "state"),
        "timeframe = ? AND date = ? AND spec = ?",
        (timeframe, date, spec.base.id),
    )
    return {
        row["symbol"]: Checkpoint(row["close_time"], np.array(row["state"], dtype=np.float64))
        for row in found.to_pylist()
    }


def _no_rows(spec: DecisionSpec) -> pa.Table:
    return _rows("", empty(), np.empty((0, len(spec.base.names)), np.float32), spec)


def _rows(symbol: str, bars: Bars, rows: NDArray[np.float32], spec: DecisionSpec) -> pa.Table:
    columns = {name: pa.array(np.ascontiguousarray(rows[:, at])) for at, name in enumerate(spec.base.names)}
    times = pa.array(np.ascontiguousarray(bars["close_time"]))
    return pa.table({"symbol": pa.array([symbol] * bars.size, pa.string()), "close_time": times, **columns})


def _states(states: Mapping[str, Checkpoint], spec: DecisionSpec) -> pa.Table:
    ordered = sorted(states)
    return pa.table(
        {
            "symbol": pa.array(ordered, pa.string()),
            "close_time": pa.array([states[symbol].close_time for symbol in ordered], pa.int64()),
            "spec": pa.array([spec.base.id] * len(ordered), pa.string()),
            "state": pa.array([states[symbol].state.tolist() for symbol in ordered], pa.list_(pa.float64())),
        }
    )
