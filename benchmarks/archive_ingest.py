"""Local zips of the archive into the lake on two cores, against storing a day after the other in one thread."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from benchmarks.report import Row
from market.bars import DAY_MS, MINUTE_MS, Bars, from_columns
from market.klines_store import dates, day_start, read_all, write_day
from market.lake import Lake
from market.sources.archive_ingest import ArchiveIngest
from market.sources.binance_archive import BinanceArchive, kline_path, span

SYMBOLS = tuple(f"COIN{i}USDT" for i in range(50))
MONTH = "2026-01"
BASELINE_DAYS = 4
ROUNDS = 3


def walk(symbol: int) -> Bars:
    """A month of minutes with the decimals that the venue writes."""
    rng = np.random.default_rng(symbol)
    start, end = span(MONTH)
    times = np.arange(start, end, MINUTE_MS)
    price = np.round(rng.uniform(0.5, 50_000) * np.exp(np.cumsum(rng.normal(0, 5e-4, times.size))), 4)
    opened = np.concatenate([price[:1], price[:-1]])
    volume = np.round(rng.gamma(1.5, 40.0, times.size), 3)
    trades = rng.poisson(200, times.size)
    columns = {"open_time": times, "open": opened, "close": price, "volume": volume, "trades": trades}
    columns |= {"high": np.round(np.maximum(opened, price) * 1.0004, 4)}
    columns |= {"low": np.round(np.minimum(opened, price) * 0.9996, 4)}
    columns |= {"quote_volume": np.round(volume * price, 5), "taker_buy_base": np.round(volume * 0.48, 3)}
    columns |= {"taker_buy_quote": np.round(volume * price * 0.48, 5)}
    return from_columns(columns)


def store(root: Path, symbol: str, bars: Bars) -> None:
    """The month's zip as the archive has it, with its checksum."""
    names = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trades")
    table = {name: np.ascontiguousarray(bars[name]) for name in (*names, "taker_buy_base", "taker_buy_quote")}
    table["trades"] = table["trades"].astype(np.int64)
    table["ignore"] = np.zeros(bars.size, dtype=np.int64)
    renamed = {"trades": "count", "taker_buy_base": "taker_buy_volume", "taker_buy_quote": "taker_buy_quote_volume"}
    sink = io.BytesIO()
    written = pa.table({renamed.get(name, name): values for name, values in table.items()})
    csv.write_csv(written, sink, csv.WriteOptions(quoting_style="none"))
    path = root / "data" / "futures" / "um" / kline_path(symbol, MONTH)
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.csv", sink.getvalue())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{digest}  {path.name}\n")


def run() -> list[Row]:
    """Parity with what was written into the zips, to the bit, then the rows a second."""
    start, end = span(MONTH)
    with tempfile.TemporaryDirectory(dir=".") as name:
        root = Path(name)
        truth = {symbol: walk(i) for i, symbol in enumerate(SYMBOLS)}
        for symbol, bars in truth.items():
            store(root, symbol, bars)
        wall, cpu = [], []
        for i in range(ROUNDS):
            lake = Lake(str(root / f"lake{i}"))
            began, spent = time.perf_counter(), time.process_time()
            job = ArchiveIngest(lake, BinanceArchive(str(root)), workers=4)
            report = job.run(SYMBOLS, start, end, now_ms=end + 90 * DAY_MS)
            wall.append(time.perf_counter() - began)
            cpu.append(time.process_time() - spent)
            assert report.bars == sum(bars.size for bars in truth.values())
            assert not report.unreadable
        found = read_all(lake, start, end)
        assert list(found) == sorted(truth)
        for symbol, bars in truth.items():
            assert found[symbol].tobytes() == bars.tobytes(), f"{symbol} came back changed"
        baseline = _plain(root, start)
    rows = sum(bars.size for bars in truth.values())
    best, spent = min(wall), 1e6 * min(cpu) / rows
    note = f"{rows:,} rows, {rows / best:,.0f} a second; {spent:.2f} µs of CPU a row"
    what = "archive zips into the lake, two cores"
    return [Row(what, 1e6 * best / rows, "µs/row", baseline, "one thread", note, at_most=1)]


def _plain(root: Path, start: int) -> float:
    """Microseconds a row when each symbol is asked for each day, in one thread."""
    lake, archive = Lake(str(root / "plain")), BinanceArchive(str(root))
    rows, began = 0, time.perf_counter()
    for date in dates(start, start + BASELINE_DAYS * DAY_MS):
        first = day_start(date)
        bars = {symbol: archive.klines(symbol, first, first + DAY_MS) for symbol in SYMBOLS}
        write_day(lake, date, bars)
        rows += sum(each.size for each in bars.values())
    # The files of a month are parsed once and kept, so a month costs their parsing once.
    spent = time.perf_counter() - began
    fresh = BinanceArchive(str(root))
    began = time.perf_counter()
    for symbol in SYMBOLS:
        fresh.klines(symbol, start, start + DAY_MS)
    parsing = time.perf_counter() - began
    days = len(dates(*span(MONTH)))
    return 1e6 * (parsing + (spent - parsing) * days / BASELINE_DAYS) / (rows * days / BASELINE_DAYS)
