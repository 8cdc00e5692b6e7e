"""Fundings and the universe from the archive: what one symbol's files lack costs the others nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market.bars import DAY_MS, Bars, empty, from_columns
from market.errors import MarketError, SourceUnreadable, UnknownSymbol
from market.funding import Fundings
from market.klines_store import date_of, dates, read_all_funding, write_funding
from market.lake import Lake
from market.sources.archive_funding import ingest_funding
from market.sources.binance_archive import BinanceArchive
from market.universe import archived_daily, members, rank_by_day, store_universe
from tests.market.archive_days import END, START, SYMBOLS, mirrored, part
from tests.market.archive_mirror import store, store_klines
from tests.market.exchange_helpers import MemorySource


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return mirrored(tmp_path / "mirror")


def test_fundings_of_months_topped_up(tmp_path: Path, mirror: Path) -> None:
    hours = 8 * 3_600_000
    csv = "calc_time,funding_interval_hours,last_funding_rate\n"
    store(
        mirror,
        "monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-01.zip",
        csv + f"{START + 2},8,0.0001\n{START + hours},8,-0.0002\n",
    )
    more = fundings(START, START + hours, START + 2 * hours, END - hours)
    rest = MemorySource({"BTCUSDT": empty()}, {"BTCUSDT": more})
    lake = Lake(str(tmp_path / "lake"))
    assert ingest_funding(lake, BinanceArchive(str(mirror)), ["BTCUSDT"], ["2026-01", "2026-02"], rest).fundings == 4
    found: Fundings = read_all_funding(lake, START, END)["BTCUSDT"]
    assert found["funding_time"].tolist() == [START + 2, START + hours, START + 2 * hours, END - hours]
    assert found["funding_rate"].tolist() == [0.0001, -0.0002, 0.5, 0.5]


class Refusing(MemorySource):
    """Refuses some symbols; of others it has what it was given."""

    def __init__(self, refused: dict[str, MarketError], fundings: dict[str, Fundings] | None = None) -> None:
        super().__init__({}, fundings)
        self._refused = refused

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        if symbol in self._refused:
            raise self._refused[symbol]
        return super().funding(symbol, start_ms, end_ms)


def fundings(*times: int) -> Fundings:
    return np.array([(time, 0.5) for time in times], dtype=[("funding_time", "<i8"), ("funding_rate", "<f8")])


def test_fundings_of_one_symbol_do_not_cost_the_others(tmp_path: Path, mirror: Path) -> None:
    csv = f"calc_time,funding_interval_hours,last_funding_rate\n{START},8,0.0001\n"
    store(mirror, "monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-01.zip", csv)
    damaged = store(mirror, "monthly/fundingRate/DOGEUSDT/DOGEUSDT-fundingRate-2026-01.zip", csv)
    damaged.write_bytes(b"damaged")
    lake, archive, later = Lake(str(tmp_path / "lake")), BinanceArchive(str(mirror)), START + DAY_MS
    rest = Refusing(
        {"BTCUSDT": UnknownSymbol("BTCUSDT", "rest"), "ETHUSDT": SourceUnreadable("rest", "down")},
        {"DOGEUSDT": fundings(START, later)},
    )
    write_funding(lake, "2026-01", {"ETHUSDT": fundings(later)})
    report = ingest_funding(lake, archive, SYMBOLS, ["2026-01"], rest)
    assert [each.split(":")[0] for each in report.unreadable] == [
        "fundings of ETHUSDT 2026-01",
        "fundings of DOGEUSDT 2026-01",
    ]
    assert report.fundings == 3
    found = {symbol: each["funding_time"].tolist() for symbol, each in read_all_funding(lake, START, END).items()}
    # A delisted symbol has the archive's; what could not be read keeps what was stored.
    assert found == {"BTCUSDT": [START], "DOGEUSDT": [START, later], "ETHUSDT": [later]}


def daily(volumes: dict[int, float]) -> Bars:
    """1d bars by day, of which only the traded value matters."""
    columns = {"open_time": [START + day * DAY_MS for day in volumes], "quote_volume": list(volumes.values())}
    ones = dict.fromkeys(("open", "high", "low", "close", "volume", "trades"), [1.0] * len(volumes))
    flows = dict.fromkeys(("taker_buy_base", "taker_buy_quote"), [0.0] * len(volumes))
    return from_columns(columns | ones | flows, "1d")


class Daily(MemorySource):
    """A venue that lists BTC and ETH."""

    def daily(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        if symbol == "DOGEUSDT":
            raise SourceUnreadable("rest", "down")
        return self.klines(symbol, start_ms, end_ms)


def test_a_damaged_file_of_days_costs_the_universe_nothing_that_the_venue_has(mirror: Path) -> None:
    volumes = dict.fromkeys(range(4), 100.0)
    for symbol in SYMBOLS:
        store_klines(mirror, symbol, "2026-01", daily(volumes)[:3], "1d").write_bytes(b"damaged")
        store_klines(mirror, symbol, date_of(START), daily({0: 7.0}), "1d")
    archive, rest = BinanceArchive(str(mirror)), Daily({"BTCUSDT": daily(volumes), "ETHUSDT": daily({1: 3.0})})
    alone = archived_daily(archive, SYMBOLS, START, START + 4 * DAY_MS)
    assert [each.split(":")[0] for each in alone.unreadable] == [f"1d bars of {symbol} 2026-01" for symbol in SYMBOLS]
    assert [bars["quote_volume"].tolist() for bars in alone.bars.values()] == [[7.0]] * 3
    both = archived_daily(archive, SYMBOLS, START, START + 4 * DAY_MS, rest)
    assert {symbol: bars["quote_volume"].tolist() for symbol, bars in both.bars.items()} == {
        "BTCUSDT": [7.0, 100.0, 100.0, 100.0],
        "ETHUSDT": [7.0, 3.0],
        "DOGEUSDT": [7.0],
    }
    assert both.unreadable[-1].startswith("1d bars of DOGEUSDT:")
    gone = archived_daily(archive, ["BTCUSDT"], START, START + 4 * DAY_MS, Daily({}))
    assert len(gone.unreadable) == 1, "that it was delisted is no failure"


def test_the_universe_is_what_could_be_known(tmp_path: Path, mirror: Path) -> None:
    volumes = {
        "BTCUSDT": dict.fromkeys(range(6), 100.0),
        "ETHUSDT": {0: 50.0, 1: 500.0, 2: 50.0, 3: 50.0, 4: 50.0, 5: 50.0},
        "DOGEUSDT": {2: 1_000.0, 3: 1_000.0},
    }
    for symbol, by_day in volumes.items():
        each = daily(by_day)
        store_klines(mirror, symbol, "2026-01", part(each, 0, 3), "1d")
        for day in (3, 4, 5):
            if day in by_day:
                store_klines(mirror, symbol, date_of(START + day * DAY_MS), part(each, day, day + 1), "1d")
    days = dates(START + DAY_MS, END)
    found = archived_daily(BinanceArchive(str(mirror)), SYMBOLS, START, END).bars
    ranked = rank_by_day(found, days, 2)
    assert [[each.symbol for each in ranked[date]] for date in days] == [
        ["BTCUSDT", "ETHUSDT"],
        ["ETHUSDT", "BTCUSDT"],
        ["DOGEUSDT", "BTCUSDT"],
        ["DOGEUSDT", "BTCUSDT"],
        ["BTCUSDT", "ETHUSDT"],
    ]
    assert [each.rank for each in ranked[days[0]]] == [1, 2]
    assert members(ranked) == ("BTCUSDT", "DOGEUSDT", "ETHUSDT")
    lake = Lake(str(tmp_path / "lake"))
    for date, symbols in ranked.items():
        store_universe(lake, date, symbols)
    rows = lake.read("universe", order_by="date, rank").to_pylist()
    assert rows[3] == {"symbol": "BTCUSDT", "rank": 2, "quote_volume": 100.0, "date": days[1]}
