"""The archive into the lake: whole, in parallel, again without doing it twice, and with every hole accounted for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import MarketError, SourceUnreadable
from market.kline_days import held_days
from market.klines_store import dates, read_all, read_gaps
from market.lake import Lake
from market.sources.archive_ingest import ArchiveIngest, Progress
from market.sources.archive_reading import NO_DATA, NOT_FETCHED, NOT_IN_ARCHIVE, UNREADABLE
from market.sources.binance_archive import BinanceArchive
from tests.market.archive_days import END, LONG_AFTER, START, SYMBOLS, Failing, drawn, mirrored, part
from tests.market.archive_mirror import store_klines
from tests.market.exchange_helpers import MemorySource, same


@pytest.fixture(scope="module")
def bars() -> dict[str, Bars]:
    return drawn()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return mirrored(tmp_path / "mirror")


def ingest(tmp_path: Path, mirror: Path, **changes: object) -> tuple[Lake, ArchiveIngest]:
    lake = Lake(str(tmp_path / "lake"))
    return lake, ArchiveIngest(lake, BinanceArchive(str(mirror)), workers=2, **changes)  # type: ignore[arg-type]


def test_the_lake_holds_what_the_archive_holds(tmp_path: Path, mirror: Path, bars: dict[str, Bars]) -> None:
    told: list[Progress] = []
    lake, job = ingest(tmp_path, mirror, progress=told.append)
    report = job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
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
    job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
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
        job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
    lake, job = ingest(tmp_path, mirror)
    report = job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
    assert report.skipped_days in (2, 3)
    assert report.days == 6 - report.skipped_days
    before = {path: lake.files("klines") for path in ("klines",)}
    assert job.run(SYMBOLS, START, END, now_ms=LONG_AFTER).days == 0
    assert {path: lake.files("klines") for path in ("klines",)} == before
    assert sum(each.size for each in read_all(lake, START, END).values()) == (6 + 6 + 4.5) * 1440
    assert job.run(SYMBOLS, START, END, now_ms=LONG_AFTER, again=True).days == 6


def test_a_day_that_has_not_ended_is_not_called_done(tmp_path: Path, mirror: Path) -> None:
    lake, job = ingest(tmp_path, mirror)
    assert job.run(SYMBOLS, START + 1, END - 1, now_ms=LONG_AFTER).days == 4
    assert list(held_days(lake)) == dates(START + DAY_MS, END - DAY_MS)


def test_holes_are_in_the_ledger_with_their_cause(tmp_path: Path, mirror: Path, bars: dict[str, Bars]) -> None:
    btc = bars["BTCUSDT"]
    holed = np.delete(part(btc, 0, 3), np.s_[100:130])
    # The month ends early, and the next begins late.
    store_klines(mirror, "BTCUSDT", "2026-01", holed[: -1440 - 30])
    store_klines(mirror, "BTCUSDT", "2026-02", part(btc, 3.5, 6))
    lake, job = ingest(tmp_path, mirror)
    report = job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
    first = START + 100 * MINUTE_MS
    last = START + int(3.5 * DAY_MS)
    expected = [
        ("BTCUSDT", first, first + 30 * MINUTE_MS, NOT_IN_ARCHIVE),
        ("BTCUSDT", START + 2 * DAY_MS - 30 * MINUTE_MS, last, NOT_IN_ARCHIVE),
    ]
    assert [(gap.symbol, gap.start_ms, gap.end_ms, gap.cause) for gap in read_gaps(lake)] == expected
    missing = sum(gap.end_ms - gap.start_ms for gap in report.gaps)
    assert missing == sum(end - start for _, start, end, _ in expected)


def test_what_the_archive_lacks_is_topped_up_and_the_rest_explained(
    tmp_path: Path, mirror: Path, bars: dict[str, Bars]
) -> None:
    eth, btc = bars["ETHUSDT"], bars["BTCUSDT"]
    folder = mirror / "data/futures/um/daily/klines/ETHUSDT/1m"
    (folder / "ETHUSDT-1m-2026-02-03.zip").unlink()
    store_klines(mirror, "BTCUSDT", "2026-01", np.delete(part(btc, 0, 3), np.s_[100:130]))
    rest = {"ETHUSDT": np.delete(eth, np.s_[-200:-190]), "BTCUSDT": np.delete(btc, np.s_[110:120]), "DOGEUSDT": eth[:0]}
    lake, job = ingest(tmp_path, mirror, top_up=MemorySource(rest))
    report = job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
    assert report.topped_up == 1440 - 10 + 20
    found = read_all(lake, START, END)
    same(found["ETHUSDT"], rest["ETHUSDT"])
    same(found["BTCUSDT"], rest["BTCUSDT"])
    assert [(gap.symbol, (gap.end_ms - gap.start_ms) // MINUTE_MS, gap.cause) for gap in read_gaps(lake)] == [
        ("BTCUSDT", 10, NO_DATA),
        ("ETHUSDT", 10, NO_DATA),
    ]
    lake = Lake(str(tmp_path / "other"))
    down = ArchiveIngest(lake, BinanceArchive(str(mirror)), top_up=Failing(rest)).run(
        SYMBOLS, START, END, now_ms=LONG_AFTER
    )
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
    report = job.run(SYMBOLS, START, END, now_ms=LONG_AFTER)
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


def test_a_source_that_refuses_stops_nothing(tmp_path: Path, mirror: Path) -> None:
    _, job = ingest(tmp_path, mirror)
    with pytest.raises(MarketError, match="no symbol"):
        job.run(["NOSUCHUSDT"], START, END, now_ms=LONG_AFTER)
