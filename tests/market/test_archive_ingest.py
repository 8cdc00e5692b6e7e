"""The archive into the lake: whole, in parallel, again without doing it twice, and with every hole accounted for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from pyarrow import fs

from market.bars import DAY_MS, MINUTE_MS, Bars, empty, from_columns
from market.errors import MarketError, SourceUnreadable, UnknownSymbol
from market.funding import Fundings
from market.klines_store import date_of, dates, day_start, read_all, read_all_funding, read_gaps, write_funding
from market.lake import Lake, put_atomic
from market.sources import binance_archive
from market.sources.archive_funding import ingest_funding
from market.sources.archive_ingest import ArchiveIngest, Progress
from market.sources.archive_reading import NO_DATA, NOT_FETCHED, NOT_IN_ARCHIVE, UNREADABLE
from market.sources.binance_archive import BinanceArchive, kline_path
from market.sources.synthetic import SyntheticMarket
from market.universe import archived_daily, members, rank_by_day, store_universe
from tests.market.archive_mirror import store, store_klines
from tests.market.exchange_helpers import MemorySource, same

START = day_start("2026-01-29")
"""Three days of January, then three of February."""
END = START + 6 * DAY_MS
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")


@pytest.fixture(scope="module")
def bars() -> dict[str, Bars]:
    market = SyntheticMarket(seed=4, symbols=SYMBOLS, start_ms=START)
    return {symbol: market.klines(symbol, START, END) for symbol in SYMBOLS}


def part(bars: Bars, first_day: float, last_day: float) -> Bars:
    start, end = (START + int(day * DAY_MS) for day in (first_day, last_day))
    return bars[(bars["open_time"] >= start) & (bars["open_time"] < end)]


@pytest.fixture
def mirror(tmp_path: Path, bars: dict[str, Bars]) -> Path:
    """BTC whole by months; ETH by month and by days without a header; DOGE listed on the second day."""
    root = tmp_path / "mirror"
    btc, eth, doge = (bars[symbol] for symbol in SYMBOLS)
    store_klines(root, "BTCUSDT", "2026-01", part(btc, 0, 3))
    store_klines(root, "BTCUSDT", "2026-02", part(btc, 3, 6))
    store_klines(root, "ETHUSDT", "2026-01", part(eth, 0, 3), header=False)
    for day in (3, 4, 5):
        store_klines(root, "ETHUSDT", date_of(START + day * DAY_MS), part(eth, day, day + 1), header=day == 4)
    store_klines(root, "DOGEUSDT", "2026-01", part(doge, 1.5, 3))
    store_klines(root, "DOGEUSDT", "2026-02", part(doge, 3, 6))
    return root


def ingest(tmp_path: Path, mirror: Path, **changes: object) -> tuple[Lake, ArchiveIngest]:
    lake = Lake(str(tmp_path / "lake"))
    return lake, ArchiveIngest(lake, BinanceArchive(str(mirror)), workers=2, **changes)  # type: ignore[arg-type]


def test_the_lake_holds_what_the_archive_holds(tmp_path: Path, mirror: Path, bars: dict[str, Bars]) -> None:
    told: list[Progress] = []
    lake, job = ingest(tmp_path, mirror, progress=told.append)
    report = job.run(SYMBOLS, START, END)
    expected = {"BTCUSDT": bars["BTCUSDT"], "DOGEUSDT": part(bars["DOGEUSDT"], 1.5, 6), "ETHUSDT": bars["ETHUSDT"]}
    found = read_all(lake, START, END)
    assert list(found) == list(expected)
    for symbol, each in expected.items():
        same(found[symbol], each)
    assert (report.days, report.bars, report.gaps) == (6, sum(each.size for each in expected.values()), [])
    assert told[-1].bars == report.bars


def test_progress_moves_with_each_symbol_and_each_day(tmp_path: Path, mirror: Path) -> None:
    told: list[Progress] = []
    _, job = ingest(tmp_path, mirror, progress=told.append)
    job.run(SYMBOLS, START, END)
    assert [(each.read, each.to_read, each.days, each.of_days) for each in told] == [
        *((3 * symbols, 18, 0, 6) for symbols in (1, 2, 3)),
        *((9, 18, days, 6) for days in (1, 2, 3)),
        *((9 + 3 * symbols, 18, 3, 6) for symbols in (1, 2, 3)),
        *((18, 18, days, 6) for days in (4, 5, 6)),
    ]
    assert {each.at for each in told[6:9]} == {f"{symbol} 2026-02" for symbol in SYMBOLS}
    assert {each.at for each in told[9:]} == set(dates(START + 3 * DAY_MS, END))
    assert [each.bars for each in told] == sorted(each.bars for each in told)


def test_what_is_done_is_not_done_again_and_what_was_interrupted_goes_on(tmp_path: Path, mirror: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.days == 2 and progress.read == 9:
            raise Stop

    lake, job = ingest(tmp_path, mirror, progress=stop)
    with pytest.raises(Stop):
        job.run(SYMBOLS, START, END)
    lake, job = ingest(tmp_path, mirror)
    report = job.run(SYMBOLS, START, END)
    assert report.skipped_days in (2, 3)
    assert report.days == 6 - report.skipped_days
    before = {path: lake.files("klines") for path in ("klines",)}
    assert job.run(SYMBOLS, START, END).days == 0
    assert {path: lake.files("klines") for path in ("klines",)} == before
    assert sum(each.size for each in read_all(lake, START, END).values()) == (6 + 6 + 4.5) * 1440
    assert job.run(SYMBOLS, START, END, again=True).days == 6


def test_a_day_that_has_not_ended_is_not_called_done(tmp_path: Path, mirror: Path) -> None:
    lake, job = ingest(tmp_path, mirror)
    assert job.run(SYMBOLS, START + 1, END - 1).days == 4
    assert [date_of(int(each)) for each in (START + DAY_MS, END - 2 * DAY_MS)] == [
        lake.files("gaps")[0][5:15],
        lake.files("gaps")[-1][5:15],
    ]


def test_holes_are_in_the_ledger_with_their_cause(tmp_path: Path, mirror: Path, bars: dict[str, Bars]) -> None:
    btc = bars["BTCUSDT"]
    holed = np.delete(part(btc, 0, 3), np.s_[100:130])
    # The month ends early, and the next begins late.
    store_klines(mirror, "BTCUSDT", "2026-01", holed[: -1440 - 30])
    store_klines(mirror, "BTCUSDT", "2026-02", part(btc, 3.5, 6))
    lake, job = ingest(tmp_path, mirror)
    report = job.run(SYMBOLS, START, END)
    first = START + 100 * MINUTE_MS
    last = START + int(3.5 * DAY_MS)
    expected = [
        ("BTCUSDT", first, first + 30 * MINUTE_MS, NOT_IN_ARCHIVE),
        ("BTCUSDT", START + 2 * DAY_MS - 30 * MINUTE_MS, last, NOT_IN_ARCHIVE),
    ]
    assert [(gap.symbol, gap.start_ms, gap.end_ms, gap.cause) for gap in read_gaps(lake)] == expected
    missing = sum(gap.end_ms - gap.start_ms for gap in report.gaps)
    assert missing == sum(end - start for _, start, end, _ in expected)


class Failing(MemorySource):
    """A source that cannot be asked."""

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        raise SourceUnreadable("rest", "down")


def test_what_the_archive_lacks_is_topped_up_and_the_rest_explained(
    tmp_path: Path, mirror: Path, bars: dict[str, Bars]
) -> None:
    eth, btc = bars["ETHUSDT"], bars["BTCUSDT"]
    folder = mirror / "data/futures/um/daily/klines/ETHUSDT/1m"
    (folder / "ETHUSDT-1m-2026-02-03.zip").unlink()
    store_klines(mirror, "BTCUSDT", "2026-01", np.delete(part(btc, 0, 3), np.s_[100:130]))
    rest = {"ETHUSDT": np.delete(eth, np.s_[-200:-190]), "BTCUSDT": np.delete(btc, np.s_[110:120]), "DOGEUSDT": eth[:0]}
    lake, job = ingest(tmp_path, mirror, top_up=MemorySource(rest))
    report = job.run(SYMBOLS, START, END)
    assert report.topped_up == 1440 - 10 + 20
    found = read_all(lake, START, END)
    same(found["ETHUSDT"], rest["ETHUSDT"])
    same(found["BTCUSDT"], rest["BTCUSDT"])
    assert [(gap.symbol, (gap.end_ms - gap.start_ms) // MINUTE_MS, gap.cause) for gap in read_gaps(lake)] == [
        ("BTCUSDT", 10, NO_DATA),
        ("ETHUSDT", 10, NO_DATA),
    ]
    lake = Lake(str(tmp_path / "other"))
    down = ArchiveIngest(lake, BinanceArchive(str(mirror)), top_up=Failing(rest)).run(SYMBOLS, START, END)
    assert len(down.unreadable) == 3
    assert {(gap.symbol, gap.cause) for gap in read_gaps(lake)} == {
        ("BTCUSDT", NOT_FETCHED),
        ("ETHUSDT", NOT_FETCHED),
    }


def spoil_checksum(path: Path) -> None:
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{'0' * 64}  {path.name}\n")


def test_a_damaged_file_is_named_and_never_believed(tmp_path: Path, mirror: Path, bars: dict[str, Bars]) -> None:
    btc = bars["BTCUSDT"]
    month = mirror / "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02.zip"
    spoil_checksum(month)
    store_klines(mirror, "BTCUSDT", "2026-02-01", part(btc, 3, 4))
    spoil_checksum(store_klines(mirror, "BTCUSDT", "2026-02-02", part(btc, 4, 5)))
    wrong = part(btc, 5, 6).copy()
    wrong["high"][7] = wrong["low"][7] / 2
    store_klines(mirror, "BTCUSDT", "2026-02-03", wrong)
    lake, job = ingest(tmp_path, mirror)
    report = job.run(SYMBOLS, START, END)
    assert [each.split(":")[0] for each in report.unreadable] == [
        "BTCUSDT 2026-02",
        "BTCUSDT 2026-02-02",
        "BTCUSDT 2026-02-03",
    ]
    same(read_all(lake, START, END)["BTCUSDT"], part(btc, 0, 4))
    assert [(gap.start_ms, gap.end_ms, gap.cause) for gap in read_gaps(lake)] == [
        (START + 4 * DAY_MS, START + 6 * DAY_MS, UNREADABLE)
    ]


def test_a_file_of_another_day_is_refused(mirror: Path, bars: dict[str, Bars]) -> None:
    store_klines(mirror, "BTCUSDT", "2026-02-03", part(bars["BTCUSDT"], 4, 5))
    with pytest.raises(SourceUnreadable, match="outside 2026-02-03"):
        BinanceArchive(str(mirror)).read("BTCUSDT", "2026-02-03")


# --- over HTTP ---


class Handler(BaseHTTPRequestHandler):
    """Serves a mirror, and fails when told to."""

    fail: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[str]] = []

    def __init__(self, root: Path, *arguments: object) -> None:
        self.root = root
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        for part_of_path in [each for each, left in self.fail.items() if each in self.path and left]:
            self.fail[part_of_path] -= 1
            if "02-01" in self.path:
                # A body that is shorter than was promised.
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"short")
                return
            self.send_error(503)
            return
        target = self.root / self.path.lstrip("/")
        if not target.is_file():
            self.send_error(404)
            return
        content = target.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        return


@pytest.fixture
def served(mirror: Path) -> Iterator[str]:
    Handler.fail, Handler.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, mirror))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_downloads_are_tried_again_kept_and_not_repeated(tmp_path: Path, served: str, bars: dict[str, Bars]) -> None:
    pauses: list[float] = []
    Handler.fail = {"BTCUSDT-1m-2026-01": 2, "ETHUSDT-1m-2026-02-01": 1}
    archive = BinanceArchive(served, SYMBOLS, tmp_path / "cache", pauses.append)
    lake = Lake(str(tmp_path / "lake"))
    report = ArchiveIngest(lake, archive, workers=4).run(SYMBOLS, START, END)
    assert (report.unreadable, report.gaps) == ([], [])
    same(read_all(lake, START, END)["ETHUSDT"], bars["ETHUSDT"])
    assert sorted(pauses) == [0.5, 0.5, 1.0]
    before = len(Handler.asked)
    again = BinanceArchive(served, SYMBOLS, tmp_path / "cache")
    ArchiveIngest(lake, again).run(SYMBOLS, START, END, again=True)
    zips = [path.rpartition("/")[2] for path in Handler.asked[before:] if path.endswith(".zip")]
    assert zips == ["ETHUSDT-1m-2026-02.zip"], "only what is missing is asked for again"
    kept = tmp_path / "cache/data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01.zip"
    kept.with_name(f"{kept.name}.CHECKSUM").unlink()
    kept.write_bytes(b"interrupted")
    found = BinanceArchive(served, SYMBOLS, tmp_path / "cache").read("BTCUSDT", "2026-01")
    assert found is not None
    same(found, part(bars["BTCUSDT"], 0, 3))


def test_a_file_that_the_archive_has_replaced_is_fetched_anew(
    tmp_path: Path, served: str, mirror: Path, bars: dict[str, Bars]
) -> None:
    """With `again`, and without it where a day is not done; a day that is done is not even asked about."""
    btc, lake = bars["BTCUSDT"], Lake(str(tmp_path / "lake"))

    def run(again: bool = False, top_up: MemorySource | None = None) -> list[str]:
        Handler.asked.clear()
        archive = BinanceArchive(served, SYMBOLS, tmp_path / "cache", lambda seconds: None)
        ArchiveIngest(lake, archive, workers=2, top_up=top_up).run(["BTCUSDT"], START, END, again=again)
        return sorted(path.rpartition("/")[2] for path in Handler.asked)

    store_klines(mirror, "BTCUSDT", "2026-01", np.delete(part(btc, 0, 3), np.s_[100:130]))
    run(top_up=Failing(bars))
    first, second = (f"BTCUSDT-1m-{month}.zip" for month in ("2026-01", "2026-02"))
    assert run(top_up=Failing(bars)) == [f"{first}.CHECKSUM"], "its month is the same, the other is done"
    store_klines(mirror, "BTCUSDT", "2026-01", part(btc, 0, 3))
    assert run() == [first, f"{first}.CHECKSUM", f"{first}.CHECKSUM"]
    same(read_all(lake, START, END)["BTCUSDT"], btc)
    assert run() == []
    revised = part(btc, 3, 6).copy()
    revised["volume"] += 1
    store_klines(mirror, "BTCUSDT", "2026-02", revised)
    assert run() == []
    assert run(again=True) == [f"{first}.CHECKSUM", second, f"{second}.CHECKSUM", f"{second}.CHECKSUM"]
    same(read_all(lake, START + 3 * DAY_MS, END)["BTCUSDT"], revised)


def february(archive: BinanceArchive) -> Bars:
    found = archive.read("BTCUSDT", "2026-02")
    assert found is not None
    return found


def test_a_kept_file_is_used_while_the_archive_cannot_be_asked(
    tmp_path: Path, served: str, mirror: Path, bars: dict[str, Bars]
) -> None:
    def read() -> Bars:
        return february(BinanceArchive(served, SYMBOLS, tmp_path / "cache", lambda seconds: None))

    expected, kept = part(bars["BTCUSDT"], 3, 6), tmp_path / "cache/data/futures/um" / kline_path("BTCUSDT", "2026-02")
    read()
    Handler.fail = {"BTCUSDT-1m": 4}
    same(read(), expected)
    (mirror / "data/futures/um" / kline_path("BTCUSDT", "2026-02")).with_suffix(".zip.CHECKSUM").unlink()
    same(read(), expected)
    # A kept file that is damaged is not: it is fetched anew, or told.
    kept.write_bytes(kept.read_bytes()[:-10])
    with pytest.raises(SourceUnreadable, match="CHECKSUM is missing"):
        read()
    store_klines(mirror, "BTCUSDT", "2026-02", expected)
    same(read(), expected)


@pytest.mark.parametrize("written", [0, 1])
def test_a_renewal_that_is_broken_off_is_made_again(
    tmp_path: Path,
    served: str,
    mirror: Path,
    bars: dict[str, Bars],
    monkeypatch: pytest.MonkeyPatch,
    written: int,
) -> None:
    def read() -> Bars:
        return february(BinanceArchive(served, SYMBOLS, tmp_path / "cache"))

    class Killed(Exception):
        pass

    left = [written]

    def put(filesystem: fs.FileSystem, path: str, data: bytes) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        put_atomic(filesystem, path, data)

    read()
    revised = part(bars["BTCUSDT"], 3, 6).copy()
    revised["volume"] += 1
    store_klines(mirror, "BTCUSDT", "2026-02", revised)
    monkeypatch.setattr(binance_archive, "put_atomic", put)
    with pytest.raises(Killed):
        read()
    monkeypatch.undo()
    same(read(), revised)
    Handler.asked.clear()
    same(read(), revised)
    assert [path for path in Handler.asked if path.endswith(".zip")] == []


def test_an_archive_that_stays_down_is_told(tmp_path: Path, served: str) -> None:
    Handler.fail = {"BTCUSDT-1m": 100}
    archive = BinanceArchive(served, SYMBOLS, tmp_path / "cache", lambda seconds: None)
    with pytest.raises(SourceUnreadable, match="503"):
        archive.read("BTCUSDT", "2026-01")
    assert len(Handler.asked) == 4


# --- fundings and the universe ---


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


def test_a_source_that_refuses_stops_nothing(tmp_path: Path, mirror: Path) -> None:
    _, job = ingest(tmp_path, mirror)
    with pytest.raises(MarketError, match="no symbol"):
        job.run(["NOSUCHUSDT"], START, END)
