"""Features day by day are the bits of one uninterrupted run, or they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features import DECISION_SPEC, compute
from market.bars import DAY_MS, MINUTE_MS, resample
from market.klines_store import read_bars
from market.lake import Lake
from orchestration.feature_days import OutOfOrder, compute_days, read_states
from orchestration.ingest import ingest_klines, store_universe
from tests.orchestration.markets import START, days, ingest, same, synthetic

BASE = DECISION_SPEC.base


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def stored(lake: Lake, symbol: str, timeframe: str) -> np.ndarray:
    table = lake.read("features", BASE.names, "symbol = ? AND timeframe = ?", (symbol, timeframe), "close_time")
    return np.stack([table.column(name).to_numpy() for name in BASE.names], axis=1).astype(np.float32)


def compute_all(lake: Lake, dates: list[str]) -> None:
    for _ in compute_days(lake, dates):
        pass


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


def test_a_day_again_gives_the_same_files(lake: Lake) -> None:
    ingest(lake, synthetic(), days(3))
    compute_all(lake, days(3))
    before = {path: lake.get_bytes(path) for path in lake.list("features") + lake.list("feature_state")}
    compute_all(lake, days(2, first=6))
    assert {path: lake.get_bytes(path) for path in before} == before


def test_a_day_without_its_yesterday_is_refused(lake: Lake) -> None:
    ingest(lake, synthetic(), days(3))
    with pytest.raises(OutOfOrder, match="materialise features from 2026-01-06 on"):
        compute_all(lake, days(1, first=7))
    assert lake.list("features") == []


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
