"""Bars, fundings and gaps in the lake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import BadPath, BarRejected
from market.funding import from_columns
from market.klines_store import (
    Gap,
    dates,
    find_gaps,
    read_all,
    read_all_funding,
    read_bars,
    read_funding,
    read_gaps,
    stored_dates,
    write_day,
    write_funding,
    write_gaps,
)
from market.lake import Lake
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

START = DEFAULT_START_MS
END = START + 3 * DAY_MS


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


@pytest.fixture(scope="module")
def market() -> dict[str, Bars]:
    source = SyntheticMarket(seed=8, symbols=4)
    return {symbol: source.klines(symbol, START, END) for symbol in source.symbols()}


def day_of(bars: Bars, date: str) -> Bars:
    first = START + dates(START, END).index(date) * DAY_MS
    return bars[(bars["open_time"] >= first) & (bars["open_time"] < first + DAY_MS)]


def store(lake: Lake, market: dict[str, Bars]) -> None:
    # Not in order of time, as a backfill may come.
    for date in reversed(dates(START, END)):
        write_day(lake, date, {symbol: day_of(bars, date) for symbol, bars in market.items()})


def test_bars_come_back_as_they_were(lake: Lake, market: dict[str, Bars]) -> None:
    store(lake, market)
    assert stored_dates(lake) == ["2026-01-05", "2026-01-06", "2026-01-07"]
    found = read_all(lake, START, END)
    assert list(found) == sorted(market)
    for symbol, bars in market.items():
        assert found[symbol].tobytes() == bars.tobytes()
        first, last = START + 1000 * MINUTE_MS, START + DAY_MS + 7 * MINUTE_MS
        assert read_bars(lake, symbol, first, last).tobytes() == bars[1000:1447].tobytes()
        assert read_bars(lake, symbol, END, END + DAY_MS).size == 0
        assert read_bars(lake, symbol, END, START).size == 0


def test_chosen_symbols_are_all_answered(lake: Lake, market: dict[str, Bars]) -> None:
    store(lake, market)
    found = read_all(lake, START, START + DAY_MS, ("XRPUSDT", "NOUSDT", "BTCUSDT"))
    assert [(symbol, bars.size) for symbol, bars in found.items()] == [
        ("XRPUSDT", 1440),
        ("NOUSDT", 0),
        ("BTCUSDT", 1440),
    ]
    assert read_all(lake, START, END, ()) == {}


def test_an_empty_lake_has_no_bars(lake: Lake) -> None:
    assert read_all(lake, START, END) == {}
    assert read_bars(lake, "BTCUSDT", START, END).size == 0
    assert read_funding(lake, "BTCUSDT", START, END).size == 0
    assert read_all_funding(lake, START, END) == {}
    assert stored_dates(lake) == []
    assert read_gaps(lake) == []


def test_unrecorded_flows_are_null_and_marked(lake: Lake, market: dict[str, Bars]) -> None:
    bars = market["BTCUSDT"][:1440].copy()
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        bars[name] = np.nan
    bars["quote_volume"] = bars["close"] * bars["volume"]
    write_day(lake, "2026-01-05", {"BTCUSDT": bars, "ETHUSDT": market["ETHUSDT"][:1440]})
    assert read_bars(lake, "BTCUSDT", START, END).tobytes() == bars.tobytes()
    sql = "SELECT symbol, quote_volume_estimated AS e, count(trades) AS n FROM klines GROUP BY ALL ORDER BY symbol"
    assert lake.query(sql).to_pylist() == [
        {"symbol": "BTCUSDT", "e": True, "n": 0},
        {"symbol": "ETHUSDT", "e": False, "n": 1440},
    ]


def test_a_day_is_replaced(lake: Lake, market: dict[str, Bars]) -> None:
    store(lake, market)
    write_day(lake, "2026-01-06", {"BTCUSDT": market["BTCUSDT"][1440:1500]})
    found = read_all(lake, START + DAY_MS, START + 2 * DAY_MS)
    assert {symbol: bars.size for symbol, bars in found.items()} == {"BTCUSDT": 60}
    write_day(lake, "2026-01-06", {"BTCUSDT": market["BTCUSDT"][:0]})
    assert read_all(lake, START + DAY_MS, START + 2 * DAY_MS) == {}


def test_what_is_no_day_of_klines_is_not_stored(lake: Lake, market: dict[str, Bars]) -> None:
    bars = market["BTCUSDT"]
    broken = bars[:1440].copy()
    broken["high"][7] = 1.0
    shifted = bars[:1440].copy()
    shifted["open_time"] += 1
    hourly = bars[:1440].copy()
    hourly["close_time"] += 1
    for each in (bars[:1441], bars[1440:], broken, shifted, hourly, bars[:1440][::-1]):
        with pytest.raises(BarRejected, match="BTCUSDT"):
            write_day(lake, "2026-01-05", {"ETHUSDT": market["ETHUSDT"][:1440], "BTCUSDT": each})
    for date in ("2026-1-5", "20260105", "../x", "2026-02-30", ""):
        with pytest.raises(BadPath):
            write_day(lake, date, {})
    assert lake.list() == []


def test_fundings_come_back_as_they_were(lake: Lake) -> None:
    source = SyntheticMarket(seed=8, symbols=6)
    first, last = START, START + 60 * DAY_MS
    whole = {symbol: source.funding(symbol, first, last) for symbol in source.symbols()}
    for month in ("2026-01", "2026-02", "2026-03"):
        inside = {
            symbol: from_columns(
                *zip(*((int(t), r) for t, r in each if f"2026-{_month(int(t))}" == month), strict=True)
            )
            for symbol, each in whole.items()
        }
        write_funding(lake, month, inside)
    found = read_all_funding(lake, first, last)
    assert list(found) == sorted(whole)
    for symbol, each in whole.items():
        assert found[symbol].tobytes() == each.tobytes()
        part = read_funding(lake, symbol, first + DAY_MS, first + 2 * DAY_MS)
        assert part.tobytes() == source.funding(symbol, first + DAY_MS, first + 2 * DAY_MS).tobytes()
    with pytest.raises(BadPath):
        write_funding(lake, "2026-01", {"BTCUSDT": from_columns([END + 90 * DAY_MS], [0.0])})
    with pytest.raises(BadPath):
        write_funding(lake, "2026-13", {})


def _month(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms"))[5:7]


def test_gaps_are_found_inside_the_coverage_only(market: dict[str, Bars]) -> None:
    bars = market["BTCUSDT"][:1440]
    holed = np.concatenate((bars[10:20], bars[25:1400]))
    minute = MINUTE_MS
    end = START + DAY_MS
    gaps = find_gaps({"BTCUSDT": holed}, {"BTCUSDT": (START, end)}, START, end, "not_fetched")
    assert [(gap.start_ms - START, gap.end_ms - START) for gap in gaps] == [
        (0, 10 * minute),
        (20 * minute, 25 * minute),
        (1400 * minute, DAY_MS),
    ]
    covered = {"BTCUSDT": (START + 10 * minute, START + 1400 * minute)}
    assert len(find_gaps({"BTCUSDT": holed}, covered, START, end, "not_fetched")) == 1
    assert find_gaps({}, {"A": (START, START + minute)}, START, end, "x") == [Gap("A", START, START + minute, "x")]
    assert find_gaps({}, {"A": (end, end + DAY_MS)}, START, end, "x") == []
    assert find_gaps({"BTCUSDT": bars}, {"BTCUSDT": (START, end)}, START, end, "x") == []


def test_gaps_are_kept_by_day_and_joined_over_midnight(lake: Lake) -> None:
    midnight = START + DAY_MS
    minute = MINUTE_MS
    write_gaps(lake, "2026-01-05", [Gap("A", midnight - minute, midnight, "x"), Gap("B", START, START + minute, "y")])
    write_gaps(lake, "2026-01-06", [Gap("A", midnight, midnight + minute, "x"), Gap("B", midnight, END, "x")])
    assert read_gaps(lake) == [
        Gap("A", midnight - minute, midnight + minute, "x"),
        Gap("B", START, START + minute, "y"),
        Gap("B", midnight, END, "x"),
    ]
    write_gaps(lake, "2026-01-06", [])
    assert [gap.symbol for gap in read_gaps(lake)] == ["A", "B"]
