"""The archive over HTTP: downloads that fail, what is kept of them, and files that are replaced there."""

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

from market.atomic_files import put_atomic
from market.bars import DAY_MS, Bars
from market.errors import SourceUnreadable
from market.klines_store import read_all
from market.lake import Lake
from market.sources import binance_archive
from market.sources.archive_ingest import ArchiveIngest
from market.sources.binance_archive import BinanceArchive, kline_path
from tests.market.archive_days import END, LONG_AFTER, START, SYMBOLS, Failing, drawn, mirrored, part
from tests.market.archive_mirror import store_klines
from tests.market.exchange_helpers import MemorySource, same


@pytest.fixture(scope="module")
def bars() -> dict[str, Bars]:
    return drawn()


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return mirrored(tmp_path / "mirror")


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
    report = ArchiveIngest(lake, archive, workers=4).run(SYMBOLS, START, END, now_ms=LONG_AFTER)
    assert (report.unreadable, report.gaps) == ([], [])
    same(read_all(lake, START, END)["ETHUSDT"], bars["ETHUSDT"])
    assert sorted(pauses) == [0.5, 0.5, 1.0]
    before = len(Handler.asked)
    again = BinanceArchive(served, SYMBOLS, tmp_path / "cache")
    ArchiveIngest(lake, again).run(SYMBOLS, START, END, now_ms=LONG_AFTER, again=True)
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
        ArchiveIngest(lake, archive, workers=2, top_up=top_up).run(
            ["BTCUSDT"], START, END, now_ms=LONG_AFTER, again=again
        )
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
