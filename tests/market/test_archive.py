"""The exchange's archive, from a mirror and over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from market.bars import DAY_MS, MINUTE_MS, Bars
from market.errors import SourceUnreadable, UnknownSymbol
from market.klines_store import day_start
from market.sources import BarSource, open_source
from market.sources.binance_archive import BinanceArchive
from market.sources.synthetic import SyntheticMarket
from tests.market.archive_mirror import store, text

START = day_start("2026-01-30")
"""Two days of January by month and day, one of February by day."""


@pytest.fixture(scope="module")
def bars() -> Bars:
    return SyntheticMarket(seed=4, symbols=1, start_ms=START).klines("BTCUSDT", START, START + 3 * DAY_MS)


@pytest.fixture
def mirror(tmp_path: Path, bars: Bars) -> Path:
    root = tmp_path / "mirror"
    store(root, "monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01.zip", text(bars[:2880], header=True))
    store(root, "daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01-31.zip", text(bars[1440:2880], header=True))
    store(root, "daily/klines/BTCUSDT/1m/BTCUSDT-1m-2026-02-01.zip", text(bars[2880:], header=False))
    funding = "calc_time,funding_interval_hours,last_funding_rate\n"
    funding += f"{START + 2},8,0.0001\n{START + 8 * 3_600_000},8,-0.0002\n"
    store(root, "monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2026-01.zip", funding)
    return root


@pytest.fixture
def served(mirror: Path) -> Iterator[tuple[str, list[str]]]:
    """The mirror over HTTP: its address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.rpartition("/")[2])
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mirror))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_a_mirror(mirror: Path, bars: Bars) -> None:
    archive = open_source(f"archive:{mirror}")
    assert isinstance(archive, BarSource)
    assert archive.symbols() == ("BTCUSDT",)
    assert archive.coverage("BTCUSDT") == (day_start("2026-01-01"), START + 3 * DAY_MS)
    assert archive.klines("BTCUSDT", START - DAY_MS, START + 9 * DAY_MS).tobytes() == bars.tobytes()
    middle = archive.klines("BTCUSDT", START + 2 * DAY_MS - 5 * MINUTE_MS, START + 2 * DAY_MS + 5 * MINUTE_MS)
    assert middle.tobytes() == bars[2875:2885].tobytes()
    assert archive.klines("BTCUSDT", START, START).size == 0
    assert archive.funding("BTCUSDT", START, START + 9 * DAY_MS)["funding_rate"].tolist() == [0.0001, -0.0002]
    assert archive.funding("BTCUSDT", START + 3, START + DAY_MS).size == 1


def test_over_http_files_are_fetched_once(
    served: tuple[str, list[str]], mirror: Path, bars: Bars, tmp_path: Path
) -> None:
    url, asked = served
    archive = BinanceArchive(f"{url}/", ("BTCUSDT",), cache=tmp_path / "cache")
    assert archive.symbols() == ("BTCUSDT",)
    assert archive.coverage("BTCUSDT") is None
    for _ in range(2):
        assert archive.klines("BTCUSDT", START, START + 4 * DAY_MS).tobytes() == bars.tobytes()
    month, day = "BTCUSDT-1m-2026-01.zip", "BTCUSDT-1m-2026-02-01.zip"
    absent = "BTCUSDT-1m-2026-02-02.zip"
    once = [month, f"{month}.CHECKSUM", "BTCUSDT-1m-2026-02.zip", day, f"{day}.CHECKSUM"]
    assert asked == [*once, absent, absent]
    again = BinanceArchive(url, cache=tmp_path / "cache")
    before = len(asked)
    assert again.klines("BTCUSDT", START, START + DAY_MS).tobytes() == bars[:1440].tobytes()
    assert asked[before:] == [f"{month}.CHECKSUM"], "whether it is still the same"


def test_a_wrong_checksum_is_refused(mirror: Path, served: tuple[str, list[str]], tmp_path: Path) -> None:
    path = mirror / "data/futures/um/monthly/klines/BTCUSDT/1m/BTCUSDT-1m-2026-01.zip"
    check = path.with_name(f"{path.name}.CHECKSUM")
    good = check.read_text()
    for content in ("0" * 64 + f"  {path.name}\n", good.replace("2026-01", "2026-02"), "", None):
        if content is None:
            check.unlink()
        else:
            check.write_text(content)
        for archive in (BinanceArchive(str(mirror)), BinanceArchive(served[0], cache=tmp_path / "cache")):
            with pytest.raises(SourceUnreadable, match=r"BTCUSDT-1m-2026-01\.zip.*CHECKSUM"):
                archive.klines("BTCUSDT", START, START + DAY_MS)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_what_is_no_archive_is_refused(tmp_path: Path, mirror: Path) -> None:
    with pytest.raises(SourceUnreadable, match="no mirror"):
        BinanceArchive(str(tmp_path / "nothing"))
    archive = BinanceArchive(str(mirror))
    for symbol in ("ETHUSDT", "../BTCUSDT", "a/b", ""):
        with pytest.raises(UnknownSymbol):
            archive.klines(symbol, START, START + DAY_MS)
    nobody = BinanceArchive("http://127.0.0.1:9", cache=tmp_path / "cache")
    with pytest.raises(SourceUnreadable, match="127"):
        nobody.klines("BTCUSDT", START, START + DAY_MS)
