"""Ingestion: by day, idempotent, nothing filled, nothing known too early."""

from __future__ import annotations

from pathlib import Path

import pytest

from market.bars import DAY_MS, MINUTE_MS
from market.klines_store import Gap, day_start, read_all, read_all_funding, read_gaps
from market.lake import Lake
from market.sources.archive_ingest import ArchiveIngest, Report
from market.sources.binance_archive import BinanceArchive
from orchestration.ingest import (
    NO_DATA,
    MarketView,
    UniverseMissing,
    ingest_funding,
    ingest_klines,
    store_universe,
    universes,
)
from tests.market.archive_mirror import store_klines
from tests.orchestration.markets import START, Holes, days, ingest, same, synthetic


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_the_universe_ranks_by_the_day_before(lake: Lake) -> None:
    market = synthetic(5)
    first, second = days(2)
    store_universe(lake, market, first, 3)
    assert universes(lake, [first])[first] == list(market.source.symbols()[:3])  # nothing is known yet
    table = store_universe(lake, market, second, 3)
    before = {
        name: market.klines(name, START, START + DAY_MS)["quote_volume"].sum() for name in market.source.symbols()
    }
    assert universes(lake, [second])[second] == sorted(before, key=lambda name: -before[name])[:3]
    assert table.column("rank").to_pylist() == [1, 2, 3]


def test_the_universe_has_only_symbols_that_trade_that_day(lake: Lake) -> None:
    market = synthetic(3, until_ms=START + DAY_MS)
    assert store_universe(lake, market, days(2)[1], 10).num_rows == 0


def test_a_day_without_a_universe_is_named(lake: Lake) -> None:
    store_universe(lake, synthetic(), days(1)[0], 10)
    with pytest.raises(UniverseMissing, match="2026-01-06, 2026-01-07: materialise universe first"):
        universes(lake, days(3))


def test_a_day_again_changes_nothing(lake: Lake) -> None:
    market = synthetic()
    ingest(lake, market, days(2))
    before = {path: lake.get_bytes(path) for path in lake.list()}
    ingest(lake, market, days(2))
    assert {path: lake.get_bytes(path) for path in lake.list()} == before


def test_history_need_not_ask_for_what_is_done_and_asks_for_the_rest(lake: Lake, tmp_path: Path) -> None:
    market, date = synthetic(2), days(1)[0]
    for symbol in market.source.symbols():
        store_klines(tmp_path / "mirror", symbol, date, market.klines(symbol, START, START + DAY_MS))
    job = ArchiveIngest(lake, BinanceArchive(str(tmp_path / "mirror")))

    def history() -> Report:
        return job.run(market.source.symbols(), START, START + DAY_MS, now_ms=START + 90 * DAY_MS)

    one = market.source.symbols()[0]
    # Of half a day nothing is done, of a whole one its symbols.
    ingest_klines(lake, synthetic(2, until_ms=START + DAY_MS // 2), date, [one])
    assert history().bars == 2 * 1440
    (tmp_path / "lake" / lake.files("klines")[0]).unlink()
    ingest_klines(lake, market, date, [one])
    assert history().bars == 1440
    assert history().skipped_days == 1
    ingest_klines(lake, market, date, [one])
    assert set(read_all(lake, START, START + DAY_MS)) == set(market.source.symbols()), "others stay"


def test_what_the_source_lacks_is_asked_for_twice_and_recorded(lake: Lake) -> None:
    hole = (START + 100 * MINUTE_MS, START + 110 * MINUTE_MS)
    source = Holes(*hole, heals=False)
    report = ingest_klines(lake, MarketView(source), days(1)[0], source.symbols())
    assert ("BTCUSDT", *hole) in source.asked
    assert report.gaps == (Gap("BTCUSDT", *hole, NO_DATA),)
    assert read_gaps(lake) == [Gap("BTCUSDT", *hole, NO_DATA)]
    assert len(read_all(lake, START, START + DAY_MS)["BTCUSDT"]) == 1430


def test_a_hole_that_heals_is_no_gap(lake: Lake) -> None:
    source = Holes(START + 100 * MINUTE_MS, START + 110 * MINUTE_MS, heals=True)
    report = ingest_klines(lake, MarketView(source), days(1)[0], source.symbols())
    assert report.gaps == ()
    stored = read_all(lake, START, START + DAY_MS)["BTCUSDT"]
    assert same(stored, synthetic(2).klines("BTCUSDT", START, START + DAY_MS))


def test_nothing_after_now_is_ingested_and_its_absence_is_no_gap(lake: Lake) -> None:
    now = START + 600 * MINUTE_MS
    ingest(lake, synthetic(until_ms=now), days(1))
    assert max(bars["open_time"][-1] for bars in read_all(lake, START, START + DAY_MS).values()) == now - MINUTE_MS
    assert read_gaps(lake) == []


def test_fundings_of_a_day_leave_the_rest_of_the_month_alone(lake: Lake) -> None:
    market = synthetic()
    dates = days(4)
    symbols = {date: list(market.source.symbols()) for date in dates}
    count = ingest_funding(lake, market, dates, symbols)
    before = read_all_funding(lake, START, START + 4 * DAY_MS)
    assert sum(each.size for each in before.values()) == count
    ingest_funding(lake, market, dates[1:3], symbols)
    after = read_all_funding(lake, START, START + 4 * DAY_MS)
    assert before.keys() == after.keys()
    assert all(same(before[name], after[name]) for name in before)


def test_fundings_over_the_end_of_a_month(lake: Lake) -> None:
    market = synthetic()
    dates = ["2026-01-31", "2026-02-01"]
    ingest_funding(lake, market, dates, {date: ["BTCUSDT"] for date in dates})
    start = day_start(dates[0])
    assert same(
        read_all_funding(lake, start, start + 2 * DAY_MS)["BTCUSDT"],
        market.funding("BTCUSDT", start, start + 2 * DAY_MS),
    )
