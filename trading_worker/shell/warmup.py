"""A feature state warmed from stored bars: from the lake as far as it reaches, from the venue's REST for the rest.

Recurrences remember their first bar, so where a state begins decides whether live equals history to the bit. In
order of preference: the features dataset's state at a day's end; the lake's first klines; a cold backfill that
begins at a UTC midnight, so that at least all starts of one day agree.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from features.decision import DecisionState
from features.decision_spec import DecisionSpec
from market.bars import DAY_MS, Bars
from market.errors import LakeError
from market.klines_store import date_of, day_start, read_all, stored_dates
from market.lake import Lake
from market.state_store import read_states, state_dates
from trading_worker.shell.venue import Fetch

LAKE_DAYS = 30
"""How far back the lake's klines are read when it has no state to start from: more than any ready row waits for."""
AT_ONCE = 8
READ_AT_ONCE = 1_000_000
"""Bars read from the lake in one go, 88 bytes each."""


@dataclass(frozen=True, slots=True)
class Warm:
    """A state that has taken every bar that opened before `until_ms`, and where it began."""

    state: DecisionState
    until_ms: int
    origin: str


async def warm(
    spec: DecisionSpec,
    symbols: Sequence[str],
    until_ms: int,
    lake: Lake | None,
    fetch: Fetch,
    *,
    incremental: bool = True,
) -> Warm:
    """A `DecisionState` of `symbols` that has seen every bar that opened before `until_ms` (a whole minute).

    Raises a `MarketError` when the venue cannot be asked for what the lake lacks.
    """
    state = DecisionState(tuple(symbols), spec, incremental=incremental)
    origin = "a cold backfill over REST"
    if lake is not None:
        try:
            began = await asyncio.to_thread(warm_from_lake, lake, state, until_ms)
            origin = origin if began is None else began
        except LakeError as error:
            state = state.blank()
            origin = f"{origin}, as the lake cannot be read: {error}"
    bars = await missing(state, spec.cold_start(until_ms), until_ms, fetch)
    await asyncio.to_thread(state.catch_up, bars)
    return Warm(state, until_ms, origin)


async def missing(state: DecisionState, start_ms: int, until_ms: int, fetch: Fetch) -> dict[str, Bars]:
    """What each symbol of `state` lacks before `until_ms`, from the venue; from `start_ms` for one without any bar."""
    gate = asyncio.Semaphore(AT_ONCE)
    last = state.last_times

    async def one(row: int, symbol: str) -> Bars:
        async with gate:
            return await fetch(symbol, start_ms if last[row] < 0 else int(last[row]) + 1, until_ms)

    found = await asyncio.gather(*(one(row, symbol) for row, symbol in enumerate(state.symbols)))
    return dict(zip(state.symbols, found, strict=True))


def warm_from_lake(lake: Lake, state: DecisionState, until_ms: int) -> str | None:
    """Warm `state` up to `until_ms` from the lake; where it began, or None when the lake has nothing that helps."""
    symbols = _recent(lake, state.symbols, state.spec.cold_start(until_ms))
    if not symbols:
        return None
    # The lake has recurrences; a state that is computed anew from bars needs the bars.
    start_ms = _restore(lake, state, symbols, until_ms) if state.incremental else 0
    origin = f"the lake's feature state at the end of {date_of(start_ms - 1)}, and klines since" if start_ms else ""
    if not start_ms:
        start_ms = max(day_start(stored_dates(lake)[0]), until_ms - LAKE_DAYS * DAY_MS)
        origin = f"the lake's klines from {date_of(start_ms)} on"
    for first, last in _stretches(start_ms, until_ms, len(symbols)):
        found = read_all(lake, first, last, symbols)
        # A symbol that the stored state lacks begins here; one that has it goes on after it.
        state.catch_up({symbol: bars for symbol, bars in found.items() if bars.size})
    return origin


def _recent(lake: Lake, symbols: Sequence[str], since_ms: int) -> list[str]:
    """Symbols whose klines in the lake reach beyond `since_ms`: from an earlier end, a cold start is cheaper."""
    sql = "SELECT symbol, max(open_time) AS last FROM klines WHERE date >= ? GROUP BY symbol"
    last = {row["symbol"]: row["last"] for row in lake.query(sql, (date_of(since_ms),)).to_pylist()}
    return [symbol for symbol in symbols if last.get(symbol, -1) >= since_ms]


def _stretches(start_ms: int, end_ms: int, symbols: int) -> Iterator[tuple[int, int]]:
    """[start, end) in days that fit into memory."""
    step = max(1, READ_AT_ONCE // (1440 * symbols)) * DAY_MS
    for first in range(start_ms, end_ms, step):
        yield first, min(first + step, end_ms)


def _restore(lake: Lake, state: DecisionState, symbols: Sequence[str], until_ms: int) -> int:
    """Put the newest stored recurrences into `state` that leave a day to refill all else; their midnight, or 0.

    Windows and the last rows of the longer timeframes are not stored: the minutes of a day bring them back.
    """
    for date in _state_dates(lake, state.spec, until_ms):
        end_ms = day_start(date) + DAY_MS
        stored = {each: read_states(lake, date, each, state.spec.base.id) for each in state.spec.timeframes}
        fresh = {
            each: {symbol: found for symbol, found in states.items() if found.close_time >= end_ms - DAY_MS}
            for each, states in stored.items()
        }
        if not all(symbol in states for states in fresh.values() for symbol in symbols):
            continue
        arrays = state.snapshot()
        for symbol in symbols:
            row_of = state.symbols.index(symbol)
            for timeframe in state.spec.timeframes:
                arrays[f"{timeframe}.state"][row_of] = fresh[timeframe][symbol].state
            arrays["last_time"][row_of] = end_ms - 1
        arrays["time"][0] = end_ms - 1
        state.restore(arrays)
        return end_ms
    return 0


def _state_dates(lake: Lake, spec: DecisionSpec, until_ms: int) -> list[str]:
    """Dates that ended at least a day before `until_ms` and have states of every timeframe, the newest first."""
    oldest, newest = date_of(until_ms - LAKE_DAYS * DAY_MS), date_of(until_ms - DAY_MS)
    return [date for date in reversed(state_dates(lake, spec.timeframes)) if oldest <= date < newest]
