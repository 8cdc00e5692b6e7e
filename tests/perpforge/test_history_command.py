"""`perpforge history` on a mirror of the archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from market.bars import DAY_MS, Bars, empty, resample
from market.errors import SourceUnreadable
from market.funding import Fundings
from market.funding import empty as no_fundings
from market.klines_store import date_of, day_start, read_all
from market.lake import Lake
from market.sources.synthetic import SyntheticMarket
from perpforge.cli import app
from perpforge.commands import history as command
from tests.market.archive_mirror import store, store_klines

START = day_start("2026-01-29")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Three days of three symbols, the first before the history begins; one of them is damaged on one day."""
    market = SyntheticMarket(seed=4, symbols=SYMBOLS, start_ms=START)
    for symbol in SYMBOLS:
        bars = market.klines(symbol, START, START + 3 * DAY_MS)
        daily = resample(bars, "1d")
        for day in range(3):
            label = date_of(START + day * DAY_MS)
            store_klines(tmp_path / "mirror", symbol, label, bars[day * 1440 : (day + 1) * 1440])
            store_klines(tmp_path / "mirror", symbol, label, daily[day : day + 1], "1d")
        csv = f"calc_time,funding_interval_hours,last_funding_rate\n{START},8,0.0001\n"
        store(tmp_path / "mirror", f"monthly/fundingRate/{symbol}/{symbol}-fundingRate-2026-01.zip", csv)
    return tmp_path / "mirror"


def history(tmp_path: Path, mirror: Path, *more: str, rest: str = "", end: str = "2026-02-01") -> tuple[int, str]:
    days = ["--start", "2026-01-30", "--end", end, "--rest", rest]
    where = ["--archive", str(mirror), "--lake", str(tmp_path / "lake")]
    result = CliRunner().invoke(app, ["history", *days, *where, *more])
    return result.exit_code, result.output


def test_the_most_traded_symbols_of_each_day_come_into_the_lake(tmp_path: Path, mirror: Path) -> None:
    code, output = history(tmp_path, mirror, "--top", "2")
    assert code == 0, output
    assert "2 days (0 were done before), 5,760 bars" in output
    lake = Lake(str(tmp_path / "lake"))
    universe = lake.read("universe", order_by="date, rank").to_pylist()
    assert [row["rank"] for row in universe] == [1, 2, 1, 2]
    stored = read_all(lake, START, START + 3 * DAY_MS)
    assert set(stored) == {row["symbol"] for row in universe}
    assert all(bars["open_time"][0] == START + DAY_MS for bars in stored.values())
    code, output = history(tmp_path, mirror, "--top", "2")
    assert "0 days (2 were done before)" in output


def test_what_could_not_be_used_is_said_and_ends_with_1(tmp_path: Path, mirror: Path) -> None:
    damaged = mirror / "data/futures/um/daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01-30.zip"
    damaged.write_bytes(b"damaged")
    code, output = history(tmp_path, mirror, "--symbols", "BTCUSDT, ETHUSDT")
    assert code == 1
    flat = " ".join(output.split())
    assert "BTCUSDT 2026-01-30" in flat
    assert "gap: BTCUSDT, 1440 minutes, unreadable_file" in flat
    code, output = history(tmp_path, tmp_path, "--symbols", "BTCUSDT")
    assert code == 2
    assert "data/futures/um" in output


class Venue:
    """The exchange's REST interface at noon of the day after the mirror's last, with the bars of that day."""

    told = START + int(3.5 * DAY_MS)
    down = False

    def __init__(self, url: str) -> None:
        self._market = SyntheticMarket(seed=4, symbols=SYMBOLS, start_ms=START)

    def now_ms(self) -> int:
        if self.down:
            raise SourceUnreadable("rest", "down")
        return self.told

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        return self._market.klines(symbol, start_ms, end_ms) if start_ms < self.told else empty()

    def daily(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        return resample(self.klines(symbol, start_ms, end_ms), "1d")

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        return no_fundings()


def test_days_that_have_not_ended_at_the_venue_are_left(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BinanceRestSource", Venue)
    monkeypatch.setattr(Venue, "told", START + int(2.5 * DAY_MS))
    code, output = history(tmp_path, mirror, rest="http://venue", end="2026-02-03")
    assert code == 0, output
    assert "1 days (0 were done before, 3 have not ended and are left), 4,320 bars" in " ".join(output.split())
    lake = Lake(str(tmp_path / "lake"))
    assert np.unique(lake.read("universe").column("date")).tolist() == ["2026-01-30"]
    monkeypatch.setattr(Venue, "told", START + int(4.5 * DAY_MS))
    code, output = history(tmp_path, mirror, rest="http://venue", end="2026-02-03")
    assert code == 0, output
    assert "2 days (1 were done before, 1 have not ended" in output
    assert [each.size for each in read_all(lake, START, START + 9 * DAY_MS).values()] == [3 * 1440] * 3


def test_a_time_that_lies_ahead_is_nothing_to_do(tmp_path: Path, mirror: Path) -> None:
    where = ["--archive", str(mirror), "--lake", str(tmp_path / "lake"), "--rest", ""]
    result = CliRunner().invoke(app, ["history", "--start", "2998-01-01", "--end", "2998-02-01", *where])
    assert result.exit_code == 0
    assert "no whole day of this time has ended" in result.output
    assert Lake(str(tmp_path / "lake")).list() == []


def test_without_the_venue_s_time_this_machine_s_is_taken(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "BinanceRestSource", Venue)
    monkeypatch.setattr(Venue, "down", True)
    code, output = history(tmp_path, mirror, rest="http://venue")
    assert code == 0, output
    assert "this machine's is taken" in output


def test_a_day_of_which_nothing_is_known_gets_no_universe(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive does not have its yesterday yet; an empty universe would say that nothing traded."""
    for symbol in SYMBOLS:
        for label in ("2026-01-30", "2026-01-31"):
            (mirror / f"data/futures/um/daily/klines/{symbol}/1d/{symbol}-1d-{label}.zip").unlink()
    code, output = history(tmp_path, mirror)
    assert code == 1
    assert "the universe of 2026-01-31 is not known" in " ".join(output.split())
    lake = Lake(str(tmp_path / "lake"))
    assert [each["date"] for each in lake.partitions("universe")] == ["2026-01-30"]
    monkeypatch.setattr(command, "BinanceRestSource", Venue)
    code, output = history(tmp_path, mirror, rest="http://venue")
    assert code == 0, output
    assert [each["date"] for each in lake.partitions("universe")] == ["2026-01-30", "2026-01-31"]
