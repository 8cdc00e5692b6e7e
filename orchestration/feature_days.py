"""Feature rows of history, one day after the other, each continuing from the state that the day before left.

Every timeframe divides a UTC day, so at midnight no bar is half finished, and the state of the recurrences is all
that one day hands to the next. Stored with the rows, it is also what a worker may start from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.engine import compute, new_state
from market.bars import DAY_MS, Bars, empty, resample
from market.errors import utc
from market.klines_store import date_of, day_start, read_all
from market.lake import Lake

State = NDArray[np.float64]


class OutOfOrder(Exception):
    """The day before has klines that no stored state has seen: materialise `features` from that day on."""

    def __init__(self, date: str, timeframe: str, symbol: str, have: int | None, need: int) -> None:
        found = "there is none" if have is None else f"the stored one ends at {utc(have)}"
        super().__init__(
            f"features of {date} continue from the state of the day before, which has {timeframe} bars of {symbol} "
            f"up to {utc(need)}, but {found}: materialise features from {date_of(day_start(date) - 1)} on"
        )
        self.date = date
        self.timeframe = timeframe
        self.symbol = symbol


@dataclass(frozen=True)
class Checkpoint:
    """The state of one series at a day's end."""

    close_time: int
    """Close of the last bar it has seen."""
    state: State


@dataclass(frozen=True)
class _Day:
    """A day that has been computed: its minutes by symbol, its end states by timeframe and symbol."""

    date: str
    minutes: Mapping[str, Bars]
    states: Mapping[str, Mapping[str, Checkpoint]]


def compute_days(lake: Lake, dates: Iterable[str], spec: DecisionSpec = DECISION_SPEC) -> Iterator[tuple[str, int]]:
    """Compute and store the rows and end states of some days, in ascending order; yields each day and its rows.

    Raises `OutOfOrder` when the day before one of them was not computed, or was before its klines were complete.
    """
    last: _Day | None = None
    for date in dates:
        before = date_of(day_start(date) - 1)
        if last is None or last.date != before:
            last = _Day(
                before, _minutes(lake, before), {t: read_states(lake, before, t, spec) for t in spec.timeframes}
            )
        minutes = _minutes(lake, date)
        states, rows = {}, 0
        for timeframe in spec.timeframes:
            _check_continues(date, timeframe, last.minutes, last.states[timeframe])
            states[timeframe], table = _compute(timeframe, minutes, last.states[timeframe], spec)
            lake.put("feature_state", _states(states[timeframe], spec), {"timeframe": timeframe, "date": date})
            lake.put("features", table, {"timeframe": timeframe, "date": date})
            rows += table.num_rows
        last = _Day(date, minutes, states)
        yield date, rows


def _minutes(lake: Lake, date: str) -> dict[str, Bars]:
    start = day_start(date)
    return read_all(lake, start, start + DAY_MS)


def _compute(
    timeframe: str, minutes: Mapping[str, Bars], before: Mapping[str, Checkpoint], spec: DecisionSpec
) -> tuple[dict[str, Checkpoint], pa.Table]:
    """One timeframe of one day: the states after it, and its rows."""
    states, tables = dict(before), [_rows("", empty(), np.empty((0, len(spec.base.names)), np.float32), spec)]
    for symbol, each in minutes.items():
        bars = resample(each, timeframe)
        if bars.size:
            state = before[symbol].state.copy() if symbol in before else new_state(spec.base)
            tables.append(_rows(symbol, bars, compute(bars, spec.base, state), spec))
            states[symbol] = Checkpoint(int(bars["close_time"][-1]), state)
    return states, pa.concat_tables(tables)


def _check_continues(
    date: str, timeframe: str, yesterday: Mapping[str, Bars], states: Mapping[str, Checkpoint]
) -> None:
    for symbol, minutes in yesterday.items():
        bars = resample(minutes, timeframe)
        if bars.size:
            need = int(bars["close_time"][-1])
            have = states[symbol].close_time if symbol in states else None
            if have != need:
                raise OutOfOrder(date, timeframe, symbol, have, need)


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
