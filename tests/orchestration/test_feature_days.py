"""Features day by day are the bits of one uninterrupted run, or they are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import DECISION_SPEC, compute
from features.decision_spec import DecisionSpec
from market.bars import DAY_MS, MINUTE_MS, Bars, resample
from market.klines_store import read_all, read_bars, write_day
from market.lake import Lake
from market.state_store import read_states, write_states
from orchestration import feature_days
from orchestration.feature_days import Computed, OutOfOrder, Restart, compute_days
from orchestration.ingest import ingest_klines, store_universe
from tests.orchestration.markets import START, days, ingest, same, synthetic

BASE = DECISION_SPEC.base
FILES = ("features", "feature_state", "feature_days")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def stored(lake: Lake, symbol: str, timeframe: str) -> np.ndarray:
    table = lake.read("features", BASE.names, "symbol = ? AND timeframe = ?", (symbol, timeframe), "close_time")
    return np.stack([table.column(name).to_numpy() for name in BASE.names], axis=1).astype(np.float32)


def compute_all(lake: Lake, dates: list[str]) -> list[Computed]:
    return list(compute_days(lake, dates))


def contents(lake: Lake) -> dict[str, bytes]:
    return {path: lake.get_bytes(path) for name in FILES for path in lake.list(name)}


def rows_by_day(lake: Lake) -> dict[str, int]:
    """Feature rows of each day of which any are stored."""
    found = lake.query("SELECT date, count(*) AS n FROM features GROUP BY date ORDER BY date").to_pylist()
    return {row["date"]: row["n"] for row in found}


@pytest.mark.parametrize("cuts", [[1, 1, 1, 1], [4], [1, 3], [3, 1]])
def test_days_in_any_runs_equal_one_full_computation(lake: Lake, cuts: list[int]) -> None:
    dates = days(4)
    ingest(lake, synthetic(), dates)
    begin = 0
    for size in cuts:
        compute_all(lake, dates[begin : begin + size])
        begin += size
    for timeframe in DECISION_SPEC.timeframes:
        for symbol in synthetic().source.symbols():
            bars = resample(read_bars(lake, symbol, START, START + 4 * DAY_MS), timeframe)
            assert same(stored(lake, symbol, timeframe), compute(bars, BASE))


def test_a_day_again_gives_the_same_files_and_leaves_later_ones(lake: Lake) -> None:
    ingest(lake, synthetic(), days(3))
    compute_all(lake, days(3))
    before = contents(lake)
    made = compute_all(lake, days(1, first=6)) + compute_all(lake, days(1))
    assert contents(lake) == before
    assert [each.dropped for each in made] == [(), ()]


def test_a_day_without_its_yesterday_is_refused(lake: Lake) -> None:
    ingest(lake, synthetic(), days(3))
    with pytest.raises(OutOfOrder, match="which has no state: materialise features from 2026-01-05 on"):
        compute_all(lake, days(1, first=7))
    compute_all(lake, days(1))
    with pytest.raises(OutOfOrder, match="materialise features from 2026-01-06 on"):
        compute_all(lake, days(1, first=7))
    assert set(rows_by_day(lake)) == {"2026-01-05"}


def test_a_day_after_a_hole_in_the_klines_is_refused(lake: Lake) -> None:
    """Begun cold it would differ from history, which sees the days before the hole."""
    dates = days(4)
    ingest(lake, synthetic(), dates[:1] + dates[3:])
    compute_all(lake, dates[:1])
    with pytest.raises(OutOfOrder, match="klines, funding and features from 2026-01-06 on") as refused:
        compute_all(lake, dates[3:])
    assert (refused.value.date, refused.value.begin) == ("2026-01-08", "2026-01-06")
    assert set(rows_by_day(lake)) == {"2026-01-05"}


def test_a_day_after_one_without_any_bar_needs_its_state_all_the_same(lake: Lake) -> None:
    dates = days(3)
    ingest(lake, synthetic(), dates)
    write_day(lake, dates[1], {})
    compute_all(lake, dates[:1])
    with pytest.raises(OutOfOrder, match="which has no state: materialise features from 2026-01-06 on"):
        compute_all(lake, dates[2:])
    compute_all(lake, dates[1:])


def test_an_earlier_day_added_later_drops_what_began_without_it(lake: Lake) -> None:
    dates = days(3)
    ingest(lake, synthetic(), dates[2:])
    compute_all(lake, dates[2:])  # history begins here, as far as anybody knows
    ingest(lake, synthetic(), dates[:2])
    first, second = compute_all(lake, dates[:2])
    assert (first.dropped, second.dropped) == ((dates[2],), ())
    assert set(rows_by_day(lake)) == set(dates[:2])
    assert read_states(lake, dates[2], "5m", BASE.id) == {}
    assert compute_all(lake, dates[2:])[0].dropped == ()
    bars = resample(read_bars(lake, "BTCUSDT", START, START + 3 * DAY_MS), "1h")
    assert same(stored(lake, "BTCUSDT", "1h"), compute(bars, BASE))


def test_mended_klines_drop_the_days_that_continued_from_the_faulty_ones(lake: Lake) -> None:
    dates = days(4)
    ingest(lake, synthetic(), dates)
    faulty = read_all(lake, START + DAY_MS, START + 2 * DAY_MS)
    write_day(lake, dates[1], faulty | {"BTCUSDT": faulty["BTCUSDT"][5:]})
    compute_all(lake, dates)
    ingest(lake, synthetic(), dates[1:2])
    (made,) = compute_all(lake, dates[1:2])
    assert made.dropped == tuple(dates[2:])
    with pytest.raises(OutOfOrder, match="materialise features from 2026-01-07 on"):
        compute_all(lake, dates[3:])
    compute_all(lake, dates[2:])
    bars = resample(read_bars(lake, "BTCUSDT", START, START + 4 * DAY_MS), "5m")
    assert same(stored(lake, "BTCUSDT", "5m"), compute(bars, BASE))


def test_a_yesterday_that_was_unfinished_is_refused(lake: Lake) -> None:
    dates = days(2)
    ingest(lake, synthetic(until_ms=START + 600 * MINUTE_MS), dates[:1])
    compute_all(lake, dates[:1])
    ingest(lake, synthetic(), dates)
    with pytest.raises(OutOfOrder, match=r"whose klines have changed .* materialise features from 2026-01-05 on"):
        compute_all(lake, dates[1:])
    compute_all(lake, dates)


def test_a_symbol_that_appears_later_begins_there(lake: Lake) -> None:
    market, dates = synthetic(), days(2)
    ingest_klines(lake, market, dates[0], ["BTCUSDT"])
    ingest_klines(lake, market, dates[1], ["BTCUSDT", "ETHUSDT"])
    compute_all(lake, dates)
    bars = resample(read_bars(lake, "ETHUSDT", START, START + 2 * DAY_MS), "5m")
    assert same(stored(lake, "ETHUSDT", "5m"), compute(bars, BASE))


def test_a_symbol_that_is_silent_for_a_day_keeps_its_state(lake: Lake) -> None:
    market, dates = synthetic(), days(3)
    for date in dates:
        store_universe(lake, market, date, 10)
        ingest_klines(lake, market, date, ["BTCUSDT"] if date == dates[1] else ["BTCUSDT", "ETHUSDT"])
    compute_all(lake, dates[:1])
    compute_all(lake, dates[1:])
    assert set(read_states(lake, dates[1], "5m", BASE.id)) == {"BTCUSDT", "ETHUSDT"}
    bars = resample(read_bars(lake, "ETHUSDT", START, START + 3 * DAY_MS), "5m")
    assert same(stored(lake, "ETHUSDT", "5m"), compute(bars, BASE))


class Counted:
    """What was computed: the bars of every call, and the files that were written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bars: list[int] = []
        self.written: list[str] = []
        compute, put = feature_days.compute, Lake.put

        def counting(bars: Bars, *arguments: Any) -> Any:
            self.bars.append(bars.size)
            return compute(bars, *arguments)

        def noting(lake: Lake, *arguments: Any, **more: Any) -> str:
            self.written.append(put(lake, *arguments, **more))
            return self.written[-1]

        monkeypatch.setattr(feature_days, "compute", counting)
        monkeypatch.setattr(Lake, "put", noting)

    def take(self) -> tuple[int, int, int]:
        """Calls, bars and files since the last look."""
        found = len(self.bars), sum(self.bars), len(self.written)
        self.bars.clear()
        self.written.clear()
        return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


SERIES = 3 * 3
"""Three symbols on three timeframes."""
BARS_A_DAY = 3 * (288 + 96 + 24)


class TestWork:
    """What a run costs, in bars that are computed."""

    def test_it_is_linear_in_days(self, lake: Lake, counted: Counted) -> None:
        ingest(lake, synthetic(), days(6))
        counted.take()
        compute_all(lake, days(2))
        two = counted.take()
        compute_all(lake, days(4, first=7))
        four = counted.take()
        assert two[:2] == (2 * SERIES, 2 * BARS_A_DAY)
        assert four == tuple(2 * count for count in two)

    def test_a_run_with_nothing_new_does_no_work(self, lake: Lake, counted: Counted) -> None:
        ingest(lake, synthetic(), days(3))
        first = compute_all(lake, days(3))
        before, _ = contents(lake), counted.take()
        again = compute_all(lake, days(3)) + compute_all(lake, days(1, first=6))
        assert counted.take() == (0, 0, 0)
        assert contents(lake) == before
        assert [each.unchanged for each in first] == [False] * 3
        assert again == [each._replace(unchanged=True) for each in [*first, first[1]]]

    def test_it_does_not_even_read_a_bar(self, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        ingest(lake, synthetic(), days(2))
        compute_all(lake, days(2))
        monkeypatch.setattr(feature_days, "read_all", lambda *_: pytest.fail("the klines are not asked for"))
        monkeypatch.setattr(feature_days, "read_states", lambda *_: pytest.fail("the states are not asked for"))
        required: list[list[str]] = []
        assert all(each.unchanged for each in compute_days(lake, days(2), require=required.append))
        assert required == []

    def test_one_new_day_costs_one_day(self, lake: Lake, counted: Counted) -> None:
        ingest(lake, synthetic(), days(4))
        compute_all(lake, days(3))
        counted.take()
        required: list[list[str]] = []
        made = list(compute_days(lake, days(4), require=required.append))
        assert [each.unchanged for each in made] == [True, True, True, False]
        assert counted.take()[:2] == (SERIES, BARS_A_DAY)
        assert required == [["2026-01-08"]]

    def test_klines_that_were_stored_again_as_they_were_are_no_change(self, lake: Lake, counted: Counted) -> None:
        ingest(lake, synthetic(), days(2))
        compute_all(lake, days(2))
        ingest(lake, synthetic(), days(2))
        counted.take()
        assert all(each.unchanged for each in compute_all(lake, days(2)))
        assert counted.take() == (0, 0, 0)

    def test_a_changed_bar_costs_its_day_and_the_days_that_follow_from_it(self, lake: Lake, counted: Counted) -> None:
        ingest(lake, synthetic(), days(4))
        compute_all(lake, days(4))
        bars = read_all(lake, START + DAY_MS, START + 2 * DAY_MS)
        bars["ETHUSDT"]["close"][704] = bars["ETHUSDT"]["high"][704]
        write_day(lake, days(2)[1], bars)
        counted.take()
        made = compute_all(lake, days(4))
        assert [each.unchanged for each in made] == [True, False, False, False]
        assert counted.take()[1] == 3 * BARS_A_DAY

    def test_a_change_that_leaves_no_trace_ends_with_its_day(self, lake: Lake) -> None:
        """The first minute's close is no part of a bar of five."""
        ingest(lake, synthetic(), days(3))
        compute_all(lake, days(3))
        bars = read_all(lake, START, START + DAY_MS)
        bars["ETHUSDT"]["close"][700] = bars["ETHUSDT"]["high"][700]
        write_day(lake, days(1)[0], bars)
        assert [(each.unchanged, each.dropped) for each in compute_all(lake, days(3))] == [
            (False, ()),
            (True, ()),
            (True, ()),
        ]


def test_incremental_is_the_full_run_to_the_last_byte_of_every_file(tmp_path: Path) -> None:
    full, steps = Lake(str(tmp_path / "full")), Lake(str(tmp_path / "steps"))
    for lake in (full, steps):
        ingest(lake, synthetic(), days(4))
    compute_all(full, days(4))
    for date in days(4):
        compute_all(steps, [date])
        compute_all(steps, days(1))
    assert contents(steps) == contents(full)
    assert len(contents(full)) == 4 * (3 + 3 + 1)


class Broken(Exception):
    """The machine went down."""


def test_broken_off_at_every_other_write_the_days_again_are_those_of_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day is mended and the days are done again: whichever write is the last, nothing stale stays."""
    dates, put = days(2), Lake.put
    faulty, whole = Lake(str(tmp_path / "faulty")), Lake(str(tmp_path / "whole"))
    for lake in (faulty, whole):
        ingest(lake, synthetic(1), dates)
    bars = read_all(faulty, START, START + DAY_MS)
    write_day(faulty, dates[0], {"BTCUSDT": bars["BTCUSDT"][5:]})
    compute_all(faulty, dates)
    write_day(faulty, dates[0], bars)
    compute_all(whole, dates)
    wanted = contents(whole)
    for writes in range(0, 100, 2):
        folder = tmp_path / f"after-{writes}"
        shutil.copytree(tmp_path / "faulty", folder)
        lake, left = Lake(str(folder)), iter(range(writes))

        def failing(lake: Lake, *arguments: Any, left: Iterator[int] = left, **more: Any) -> str:
            if next(left, None) is None:
                raise Broken
            return put(lake, *arguments, **more)

        monkeypatch.setattr(Lake, "put", failing)
        try:
            compute_all(lake, dates)
        except Broken:
            monkeypatch.setattr(Lake, "put", put)
        else:
            break
        held = [{len(read_states(lake, date, each, BASE.id)) for each in ("5m", "15m", "1h")} for date in dates]
        assert all(len(each) == 1 or 0 in each for each in held), "a worker would find half a day"
        # The second day by itself is refused, or it is one of the history that its yesterday is of.
        with contextlib.suppress(OutOfOrder):
            compute_all(lake, dates[1:])
        compute_all(lake, dates)
        assert contents(lake) == wanted, f"broken off after {writes} writes"
    # Dropping a day and storing one write a file of rows and one of states for each timeframe, and two entries;
    # storing one again empties its states first.
    assert writes - 2 < (1 + 2) * (3 + 3 + 2) + 3 <= writes


def test_a_state_that_is_not_what_the_day_ended_with_is_not_continued_from(lake: Lake) -> None:
    dates = days(2)
    ingest(lake, synthetic(), dates)
    compute_all(lake, dates[:1])
    write_states(lake, dates[0], "15m", BASE.id, {})
    with pytest.raises(OutOfOrder, match=r"whose stored states are not those .* from 2026-01-05 on"):
        compute_all(lake, dates[1:])


def test_files_that_are_gone_are_made_again(lake: Lake, tmp_path: Path) -> None:
    ingest(lake, synthetic(), days(2))
    compute_all(lake, days(2))
    before = contents(lake)
    (tmp_path / lake.files("features", {"date": days(1)[0]})[0]).unlink()
    assert [each.unchanged for each in compute_all(lake, days(2))] == [False, True]
    assert contents(lake) == before


@pytest.mark.deep
def test_days_of_another_specification_are_not_taken_for_these(lake: Lake) -> None:
    ingest(lake, synthetic(), days(2))
    other = DecisionSpec(base=dataclasses.replace(BASE, version=99))
    list(compute_days(lake, days(2), other))
    assert [each.unchanged for each in compute_all(lake, days(2))] == [False, False]


@pytest.mark.parametrize(
    ("missing", "restarted"), [(60, []), (65, ["5m"]), (12 * 15, ["5m"]), (13 * 15, ["5m", "15m"])]
)
def test_a_series_that_begins_anew_is_reported(lake: Lake, missing: int, restarted: list[str]) -> None:
    """Twelve bars are bridged; the gap begins at noon of the second day, where a bar of 5m and of 15m begins."""
    dates = days(2)
    ingest(lake, synthetic(), dates)
    bars = read_all(lake, START + DAY_MS, START + 2 * DAY_MS)
    keep = np.ones(1440, dtype=bool)
    keep[720 : 720 + missing] = False
    write_day(lake, dates[1], bars | {"ETHUSDT": bars["ETHUSDT"][keep]})
    first, second = compute_all(lake, dates)
    assert first.restarts == ()
    back = START + DAY_MS + (720 + missing) * MINUTE_MS
    lengths = {"5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS}
    assert second.restarts == tuple(
        Restart("ETHUSDT", each, back // lengths[each] * lengths[each] + lengths[each] - 1) for each in restarted
    )
    assert compute_all(lake, dates)[1] == second._replace(unchanged=True)
    table = lake.read("features", ("close_time", "rsi_14"), "symbol = 'ETHUSDT' AND timeframe = '5m'", (), "close_time")
    after = table.column("rsi_14").to_numpy()[table.column("close_time").to_numpy() > back]
    assert np.isnan(after[0]) == ("5m" in restarted)


def test_a_gap_over_midnight_is_one_too(lake: Lake) -> None:
    dates = days(2)
    ingest(lake, synthetic(), dates)
    for day, date in enumerate(dates):
        bars = read_all(lake, START + day * DAY_MS, START + (day + 1) * DAY_MS)
        cut = bars["BTCUSDT"][: 1440 - 40] if day == 0 else bars["BTCUSDT"][40:]
        write_day(lake, date, bars | {"BTCUSDT": cut})
    for date in dates:
        (made,) = compute_all(lake, [date])
        assert [(each.symbol, each.timeframe) for each in made.restarts] == [("BTCUSDT", "5m")] * (date == dates[1])
