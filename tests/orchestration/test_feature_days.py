"""Features day by day are the bits of one uninterrupted run, or they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features import DECISION_SPEC, compute
from market.bars import DAY_MS, MINUTE_MS, resample
from market.klines_store import read_all, read_bars, write_day
from market.lake import Lake
from orchestration.feature_days import Computed, OutOfOrder, compute_days, read_states
from orchestration.ingest import ingest_klines, store_universe
from tests.orchestration.markets import START, days, ingest, same, synthetic

BASE = DECISION_SPEC.base


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def stored(lake: Lake, symbol: str, timeframe: str) -> np.ndarray:
    table = lake.read("features", BASE.names, "symbol = ? AND timeframe = ?", (symbol, timeframe), "close_time")
    return np.stack([table.column(name).to_numpy() for name in BASE.names], axis=1).astype(np.float32)


def compute_all(lake: Lake, dates: list[str]) -> list[Computed]:
    return list(compute_days(lake, dates))


def contents(lake: Lake) -> dict[str, bytes]:
    return {path: lake.get_bytes(path) for path in lake.list("features") + lake.list("feature_state")}


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
    with pytest.raises(OutOfOrder, match="but there is none: materialise features from 2026-01-05 on"):
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
    assert read_states(lake, dates[2], "5m") == {}
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
    with pytest.raises(OutOfOrder, match="the stored one ends at 2026-01-05T09:59"):
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
    assert set(read_states(lake, dates[1], "5m")) == {"BTCUSDT", "ETHUSDT"}
    bars = resample(read_bars(lake, "ETHUSDT", START, START + 3 * DAY_MS), "5m")
    assert same(stored(lake, "ETHUSDT", "5m"), compute(bars, BASE))
