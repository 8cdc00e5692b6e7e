"""What a second run of the archive's ingest does: other symbols, what failed, what was not there yet; never twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import SourceUnreadable, UnknownSymbol
from market.kline_days import State, held_days
from market.klines_store import Gap, date_of, dates, read_all, read_gaps
from market.lake import Lake
from market.sources import BarSource
from market.sources.archive_ingest import ArchiveIngest, Report
from market.sources.archive_reading import NO_DATA, NOT_FETCHED, NOT_IN_ARCHIVE, UNREADABLE
from market.sources.binance_archive import BinanceArchive, kline_path
from tests.market.archive_days import END, LONG_AFTER, START, Failing, drawn, part
from tests.market.archive_mirror import store_klines
from tests.market.exchange_helpers import MemorySource, same

SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def bars() -> dict[str, Bars]:
    return {symbol: drawn()[symbol] for symbol in SYMBOLS}


def by_months(root: Path, bars: Mapping[str, Bars]) -> Path:
    for symbol, each in bars.items():
        store_klines(root, symbol, "2026-01", part(each, 0, 3))
        store_klines(root, symbol, "2026-02", part(each, 3, 6))
    return root


@pytest.fixture
def mirror(tmp_path: Path, bars: dict[str, Bars]) -> Path:
    return by_months(tmp_path / "mirror", bars)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def run(
    lake: Lake,
    mirror: Path,
    symbols: Sequence[str] = SYMBOLS,
    top_up: BarSource | None = None,
    days: tuple[float, float] = (0, 6),
    again: bool = False,
    now_ms: int = LONG_AFTER,
) -> Report:
    job = ArchiveIngest(lake, BinanceArchive(str(mirror)), top_up=top_up, workers=2)
    start, end = (START + int(day * DAY_MS) for day in days)
    return job.run(symbols, start, end, again=again, now_ms=now_ms)


class Counting(MemorySource):
    """Remembers what it was asked for."""

    def __init__(self, bars: Mapping[str, Bars]) -> None:
        super().__init__(bars)
        self.asked: list[tuple[str, str]] = []

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, date_of(start_ms)))
        return super().klines(symbol, start_ms, end_ms)


def damage(mirror: Path, symbol: str, label: str) -> None:
    path = mirror / "data/futures/um" / kline_path(symbol, label)
    path.write_bytes(path.read_bytes()[:-10])


# --- other symbols ---


def test_other_symbols_join_the_days(lake: Lake, mirror: Path, bars: dict[str, Bars]) -> None:
    run(lake, mirror, ["BTCUSDT"])
    second = run(lake, mirror, ["ETHUSDT"])
    assert (second.days, second.skipped_days, second.bars) == (6, 0, 6 * 1440)
    third = run(lake, mirror, ["ETHUSDT"], again=True)
    assert (third.days, third.bars) == (6, 6 * 1440)
    found = read_all(lake, START, END)
    assert list(found) == list(SYMBOLS)
    for symbol, each in found.items():
        same(each, bars[symbol])
    assert run(lake, mirror, ["BTCUSDT"]).skipped_days == run(lake, mirror).skipped_days == 6


def test_of_a_day_only_the_symbols_that_lack_are_read(lake: Lake, mirror: Path) -> None:
    run(lake, mirror, ["BTCUSDT"])
    damage(mirror, "BTCUSDT", "2026-01")
    report = run(lake, mirror)
    assert (report.bars, report.unreadable) == (6 * 1440, [])


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_lake_is_the_same_however_it_was_cut_into_runs(
    tmp_path_factory: pytest.TempPathFactory, bars: dict[str, Bars], data: st.DataObject
) -> None:
    """Days and symbols in any order, some of them twice, with holes anywhere."""
    root = tmp_path_factory.mktemp("cut")
    holed = {}
    for symbol, each in bars.items():
        hidden = data.draw(st.sets(st.integers(0, 11)), label=f"half days that {symbol} lacks")
        halves = (each["open_time"] - START) // (DAY_MS // 2)
        holed[symbol] = each[~np.isin(halves, list(hidden))]
    mirror = by_months(root / "mirror", holed)
    whole, pieces = Lake(str(root / "whole")), Lake(str(root / "pieces"))
    run(whole, mirror)
    some = st.tuples(
        st.integers(0, 5), st.integers(1, 4), st.sampled_from([*((symbol,) for symbol in SYMBOLS), SYMBOLS])
    )
    for first, length, symbols in data.draw(st.lists(some, max_size=5), label="runs"):
        run(pieces, mirror, symbols, days=(first, min(6, first + length)))
    run(pieces, mirror)
    assert read_gaps(pieces) == read_gaps(whole)
    assert {path: pieces.get_bytes(path) for path in pieces.list("klines")} == {
        path: whole.get_bytes(path) for path in whole.list("klines")
    }
    assert run(pieces, mirror).skipped_days == 6


# --- what failed ---


def test_every_day_of_a_damaged_month_is_a_gap_and_not_done(lake: Lake, mirror: Path, bars: dict[str, Bars]) -> None:
    damage(mirror, "BTCUSDT", "2026-02")
    report = run(lake, mirror)
    gap = Gap("BTCUSDT", START + 3 * DAY_MS, END, UNREADABLE)
    assert read_gaps(lake) == [gap]
    assert len(report.gaps) == 3
    store_klines(mirror, "BTCUSDT", "2026-02", part(bars["BTCUSDT"], 3, 6))
    healed = run(lake, mirror)
    assert (healed.days, healed.skipped_days, healed.bars) == (3, 3, 3 * 1440)
    assert read_gaps(lake) == []
    same(read_all(lake, START, END)["BTCUSDT"], bars["BTCUSDT"])


def test_a_damaged_first_month_is_a_gap_too(lake: Lake, mirror: Path) -> None:
    damage(mirror, "BTCUSDT", "2026-01")
    run(lake, mirror)
    assert read_gaps(lake) == [Gap("BTCUSDT", START, START + 3 * DAY_MS, UNREADABLE)]


def test_days_that_the_venue_has_are_done_though_the_file_is_damaged(
    lake: Lake, mirror: Path, bars: dict[str, Bars]
) -> None:
    damage(mirror, "BTCUSDT", "2026-02")
    lacking = {"BTCUSDT": np.delete(bars["BTCUSDT"], np.s_[4 * 1440 + 10 : 4 * 1440 + 20])}
    report = run(lake, mirror, ["BTCUSDT"], MemorySource(lacking))
    assert report.topped_up == 3 * 1440 - 10
    assert [gap.cause for gap in read_gaps(lake)] == [UNREADABLE], "the file may still have them"
    states = [held_days(lake)[date_of(START + day * DAY_MS)]["BTCUSDT"].state for day in range(6)]
    assert states == [State.DONE] * 4 + [State.OPEN, State.DONE]


def test_what_could_not_be_fetched_is_fetched_by_the_next_run(
    lake: Lake, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    btc = bars["BTCUSDT"]
    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": np.delete(btc, np.s_[1440:2880])})
    run(lake, mirror, ["BTCUSDT"], Failing({}))
    assert read_gaps(lake) == [Gap("BTCUSDT", START + DAY_MS, START + 2 * DAY_MS, NOT_FETCHED)]
    report = run(lake, mirror, ["BTCUSDT"], MemorySource({"BTCUSDT": btc}))
    assert (report.days, report.skipped_days, report.topped_up) == (1, 5, 1440)
    assert read_gaps(lake) == []
    same(read_all(lake, START, END)["BTCUSDT"], btc)


def test_a_hole_that_was_fetched_stays_when_another_s_source_falls_silent(
    lake: Lake, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    btc = bars["BTCUSDT"]

    class Half(MemorySource):
        def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
            if start_ms >= START + DAY_MS // 2:
                raise SourceUnreadable("rest", "down")
            return super().klines(symbol, start_ms, end_ms)

    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": np.delete(btc, [*range(100, 110), *range(900, 910)])})
    run(lake, mirror, ["BTCUSDT"], Half(bars))
    missing = Gap("BTCUSDT", START + 900 * MINUTE_MS, START + 910 * MINUTE_MS, NOT_FETCHED)
    assert read_gaps(lake) == [missing]
    run(lake, mirror, ["BTCUSDT"], Failing({}))
    assert read_gaps(lake) == [missing], "what was fetched is not lost"


def test_again_loses_no_bars_to_a_file_that_is_damaged_since(lake: Lake, mirror: Path, bars: dict[str, Bars]) -> None:
    run(lake, mirror)
    damage(mirror, "BTCUSDT", "2026-01")
    assert len(run(lake, mirror, again=True).unreadable) == 1
    same(read_all(lake, START, END)["BTCUSDT"], bars["BTCUSDT"])
    assert read_gaps(lake) == []


# --- what nobody has, and what is not there yet ---


def test_days_that_have_not_ended_are_left_to_a_later_run(lake: Lake, mirror: Path) -> None:
    now = START + int(4.5 * DAY_MS)
    report = run(lake, mirror, now_ms=now)
    assert (report.days, report.unfinished_days) == (4, 2)
    assert list(held_days(lake)) == dates(START, START + 4 * DAY_MS)
    assert run(lake, mirror, now_ms=START).unfinished_days == 6
    # The venue may lag: a day that ended this second is not taken for whole.
    assert run(lake, mirror, now_ms=START + 5 * DAY_MS).days == 0
    assert run(lake, mirror, now_ms=START + 5 * DAY_MS + MINUTE_MS).days == 1
    assert run(lake, mirror).days == 1


def test_a_day_that_the_archive_may_get_yet_is_not_done(lake: Lake, tmp_path: Path, bars: dict[str, Bars]) -> None:
    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": part(bars["BTCUSDT"], 0, 3)})
    (mirror / "data/futures/um" / kline_path("BTCUSDT", "2026-02")).unlink()
    run(lake, mirror, ["BTCUSDT"], now_ms=END + DAY_MS)
    for day in (3, 4, 5):
        store_klines(mirror, "BTCUSDT", date_of(START + day * DAY_MS), part(bars["BTCUSDT"], day, day + 1))
    assert run(lake, mirror, ["BTCUSDT"], now_ms=END + 2 * DAY_MS).bars == 3 * 1440
    same(read_all(lake, START, END)["BTCUSDT"], bars["BTCUSDT"])


def test_a_delisted_symbol_is_asked_for_once(lake: Lake, tmp_path: Path, bars: dict[str, Bars]) -> None:
    """The venue knows it no more, which is an answer: not a failure to be repeated for ever."""
    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": np.delete(part(bars["BTCUSDT"], 0, 5), np.s_[100:110])})
    rest = Counting({"ETHUSDT": bars["ETHUSDT"]})
    report = run(lake, mirror, ["BTCUSDT"], rest)
    assert report.unreadable == []
    assert rest.asked == [("BTCUSDT", "2026-01-29"), ("BTCUSDT", "2026-02-03")]
    assert [gap.cause for gap in read_gaps(lake)] == [NO_DATA]
    assert run(lake, mirror, ["BTCUSDT"], rest).skipped_days == 6
    assert len(rest.asked) == 2


def test_a_symbol_delisted_today_may_come_to_the_archive_tomorrow(
    lake: Lake, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": part(bars["BTCUSDT"], 0, 3)})
    (mirror / "data/futures/um" / kline_path("BTCUSDT", "2026-02")).unlink()
    rest = MemorySource({"ETHUSDT": bars["ETHUSDT"]})
    with pytest.raises(UnknownSymbol):
        rest.klines("BTCUSDT", START, END)
    assert run(lake, mirror, ["BTCUSDT"], rest, now_ms=END + DAY_MS).skipped_days == 0
    assert run(lake, mirror, ["BTCUSDT"], rest, now_ms=END + DAY_MS).skipped_days == 3


def test_what_only_the_archive_was_asked_for_is_asked_of_the_venue(
    lake: Lake, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    mirror = by_months(tmp_path / "mirror", {"BTCUSDT": np.delete(bars["BTCUSDT"], np.s_[100:110])})
    run(lake, mirror, ["BTCUSDT"])
    assert [gap.cause for gap in read_gaps(lake)] == [NOT_IN_ARCHIVE]
    assert run(lake, mirror, ["BTCUSDT"]).skipped_days == 6
    assert run(lake, mirror, ["BTCUSDT"], MemorySource(bars)).topped_up == 10
    assert run(lake, mirror, ["BTCUSDT"], MemorySource(bars)).skipped_days == 6
    assert read_gaps(lake) == []
