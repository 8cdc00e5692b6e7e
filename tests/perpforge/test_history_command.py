"""`perpforge history` on a mirror of the archive."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from market.bars import DAY_MS, resample
from market.klines_store import date_of, day_start, read_all
from market.lake import Lake
from market.sources.synthetic import SyntheticMarket
from perpforge.cli import app
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


def history(tmp_path: Path, mirror: Path, *more: str) -> tuple[int, str]:
    days = ["--start", "2026-01-30", "--end", "2026-02-01", "--rest", ""]
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
