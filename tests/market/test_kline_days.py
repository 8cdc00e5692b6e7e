"""A stored day: shared by symbols, done only by its lines, whoever dies or writes beside."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import BarRejected
from market.kline_days import State, add_gaps, held_days, put_symbols
from market.klines_store import Gap, date_of, find_gaps, read_all, read_gaps, write_day
from market.lake import Lake
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

START = DEFAULT_START_MS
DATE = date_of(START)
LAST = START + DAY_MS - MINUTE_MS


@pytest.fixture(scope="module")
def market() -> dict[str, Bars]:
    source = SyntheticMarket(seed=8, symbols=4)
    return {symbol: source.klines(symbol, START, START + DAY_MS) for symbol in source.symbols()}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def missing(bars: Mapping[str, Bars]) -> list[Gap]:
    return find_gaps(bars, dict.fromkeys(bars, (START, START + DAY_MS)), START, START + DAY_MS, "why")


def put(lake: Lake, bars: Mapping[str, Bars], state: State = State.DONE, keep: Iterable[str] = ()) -> list[Gap]:
    return put_symbols(lake, DATE, bars, dict.fromkeys(bars, state), missing, tuple(keep))[1]


def states(lake: Lake) -> dict[str, State]:
    return {symbol: held.state for symbol, held in held_days(lake).get(DATE, {}).items()}


def test_symbols_join_a_day_and_replace_only_themselves(lake: Lake, market: dict[str, Bars]) -> None:
    one, other = sorted(market)[:2]
    gap = Gap(one, START + 10 * MINUTE_MS, START + 20 * MINUTE_MS, "why")
    assert put(lake, {one: np.delete(market[one], np.s_[10:20])}) == [gap]
    put(lake, {other: market[other]}, State.ARCHIVE_ONLY)
    assert read_gaps(lake) == [gap]
    assert {symbol: each.size for symbol, each in read_all(lake, START, LAST).items()} == {one: 1429, other: 1439}
    put(lake, {one: market[one]})
    assert read_gaps(lake) == []
    found = read_all(lake, START, START + DAY_MS)
    assert {symbol: each.tobytes() for symbol, each in found.items()} == {
        symbol: market[symbol].tobytes() for symbol in (one, other)
    }


def test_a_line_tells_the_state_and_the_outer_bars(lake: Lake, market: dict[str, Bars]) -> None:
    one, other, third = sorted(market)[:3]
    bars = {one: market[one], other: market[other][5:9]}
    put_symbols(lake, DATE, bars, {one: State.OPEN, other: State.OPEN, third: State.ARCHIVE_ONLY}, missing)
    held = held_days(lake)[DATE]
    assert (held[one].state, held[one].first_ms, held[one].last_ms) == (State.DONE, START, LAST), "it has all minutes"
    assert (held[other].state, held[other].first_ms) == (State.OPEN, START + 5 * MINUTE_MS)
    assert (held[third].state, held[third].first_ms) == (State.ARCHIVE_ONLY, None)
    assert held_days(lake, DATE) == held_days(lake)
    assert held_days(lake, "2026-07-01") == {}


def test_stored_bars_stay_only_where_that_is_asked_for(lake: Lake, market: dict[str, Bars]) -> None:
    one = min(market)
    put(lake, {one: market[one][:100]}, State.OPEN)
    put(lake, {one: market[one][50:200]}, State.OPEN, keep=[one])
    assert read_all(lake, START, LAST)[one].tobytes() == market[one][:200].tobytes()
    put_symbols(lake, DATE, {}, {one: State.OPEN}, missing, keep=[one])
    assert read_all(lake, START, LAST)[one].size == 200
    put(lake, {one: market[one][150:200]}, State.OPEN)
    assert read_all(lake, START, LAST)[one].size == 50


def test_klines_without_lines_are_nobody_s_and_are_kept(lake: Lake, market: dict[str, Bars]) -> None:
    one, other = sorted(market)[:2]
    write_day(lake, DATE, {one: market[one]})
    assert held_days(lake) == {DATE: {}}
    put(lake, {other: market[other]})
    assert states(lake) == {other: State.DONE}
    assert set(read_all(lake, START, LAST)) == {one, other}


def test_a_day_whose_klines_were_removed_is_not_done(lake: Lake, market: dict[str, Bars], tmp_path: Path) -> None:
    one = min(market)
    put(lake, {symbol: each[3:] for symbol, each in market.items()})
    (tmp_path / lake.files("klines")[0]).unlink()
    assert held_days(lake) == held_days(lake, DATE) == {}
    put(lake, {one: market[one][3:]})
    assert states(lake) == {one: State.DONE}
    assert {gap.symbol for gap in read_gaps(lake)} == {one}


def test_a_day_again_is_the_same_to_the_byte(lake: Lake, market: dict[str, Bars]) -> None:
    put(lake, {symbol: each[3:] for symbol, each in market.items()})
    before = {path: lake.get_bytes(path) for path in lake.list()}
    put(lake, {symbol: each[3:] for symbol, each in market.items()})
    assert {path: lake.get_bytes(path) for path in lake.list()} == before


class Killed(Exception):
    pass


def dying(lake: Lake, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """The process ends before its `writes`-th file is written."""
    put_bytes: Callable[..., str] = lake.put
    left = [writes]

    def stop(*arguments: Any, **named: Any) -> str:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return put_bytes(*arguments, **named)

    monkeypatch.setattr(lake, "put", stop)


@pytest.mark.parametrize("writes", range(4))
def test_a_run_that_dies_leaves_a_day_to_be_done_again(
    tmp_path: Path, market: dict[str, Bars], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    one, other = sorted(market)[:2]
    lake = Lake(str(tmp_path))
    put(lake, {one: market[one][:700], other: market[other]})
    dying(lake, monkeypatch, writes)
    with pytest.raises(Killed):
        put(lake, {one: market[one][:900]})
    monkeypatch.undo()
    found = held_days(lake)[DATE]
    assert found[other].state == State.DONE
    assert read_all(lake, START, LAST)[other].tobytes() == market[other][:-1].tobytes()
    # Before the first write nothing has changed, and all that is vouched for is so.
    assert (one in found) == (writes == 0)
    put(lake, {one: market[one]})
    assert states(lake) == {one: State.DONE, other: State.DONE}
    assert read_gaps(lake) == []


def test_a_bar_that_cannot_be_is_not_stored_and_the_day_not_done(lake: Lake, market: dict[str, Bars]) -> None:
    one, other = sorted(market)[:2]
    put(lake, {one: market[one], other: market[other]})
    wrong = market[one].copy()
    wrong["high"][7] = wrong["low"][7] / 2
    with pytest.raises(BarRejected):
        put(lake, {one: wrong})
    assert states(lake) == {other: State.DONE}
    assert read_all(lake, START, START + DAY_MS)[one].tobytes() == market[one].tobytes()


def test_writers_of_one_day_wait_for_each_other(lake: Lake, market: dict[str, Bars]) -> None:
    """Without the lock each would write what it had read before the others wrote."""

    def work(symbol: str) -> None:
        together.wait()
        put(Lake(lake.uri), {symbol: market[symbol][:700]})

    together = threading.Barrier(len(market))
    with ThreadPoolExecutor(len(market)) as pool:
        list(pool.map(work, market))
    assert set(read_all(lake, START, LAST)) == set(states(lake)) == set(market)
    assert {gap.symbol for gap in read_gaps(lake)} == set(market)


def test_gaps_are_added_where_none_is_entered(lake: Lake, market: dict[str, Bars]) -> None:
    one, other = sorted(market)[:2]
    put(lake, {other: market[other]})
    put_symbols(lake, DATE, {}, {one: State.OPEN}, lambda bars: [Gap(one, START, START + 5 * MINUTE_MS, "damaged")])
    rest = [Gap(one, START + 5 * MINUTE_MS, START + 60 * MINUTE_MS, "why")]
    assert add_gaps(lake, DATE, one, START - DAY_MS, START + 60 * MINUTE_MS, "why") == rest
    assert add_gaps(lake, DATE, one, START - DAY_MS, START + 60 * MINUTE_MS, "why") == []
    assert [gap.cause for gap in read_gaps(lake)] == ["damaged", "why"]
    assert states(lake) == {one: State.OPEN, other: State.DONE}
