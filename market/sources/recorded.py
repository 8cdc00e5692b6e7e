"""Recorded klines: Parquet files, and the exchange archive's CSV and zip."""

from __future__ import annotations

import io
import re
import struct
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from market import bars as bars_module
from market import funding as funding_module
from market.bars import FLOWS, INTERVAL_MS, MINUTE_MS, PRICES, Bars, interval_ms
from market.errors import BarRejected, RowRejected, SourceUnreadable, UnknownSymbol
from market.funding import Fundings

ARCHIVE_COLUMNS = (
    "open_time",
    "open",
    "high",
    "low",
    "close",
    "volume",
    "close_time",
    "quote_volume",
    "count",
    "taker_buy_volume",
    "taker_buy_quote_volume",
    "ignore",
)
"""Order of the columns in the archive's files, whose older ones have no header."""

_OUR_NAMES = {"count": "trades", "taker_buy_volume": "taker_buy_base", "taker_buy_quote_volume": "taker_buy_quote"}
_REQUIRED = ("open_time", "open", "high", "low", "close", "volume")
_KNOWN = (*_REQUIRED, *bars_module.OPTIONAL)
_FILE_NAME = re.compile(r"(?P<symbol>[^-]+)-(?P<interval>\d+[mhd])(?:-.*)?\.(?:parquet|csv|zip)")

MOST_CSV_BYTES = 1 << 30
"""No month of klines is as large; a damaged header may claim anything."""

# What a damaged zip makes the library raise.
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)

# Where pyarrow says that a CSV is wrong; it counts a header as a line.
_CSV_PLACE = re.compile(r"(?:CSV column #(?P<column>\d+): )?Row #(?P<line>\d+)")

# The archive's spot files have microseconds since 2025; as milliseconds they would lie in the year 57000.
_FIRST_MICROSECOND = 100_000_000_000_000


def _folders_with_klines(folder: Path) -> str:
    """The folders inside that do hold klines of a minute, as the end of a sentence."""
    inside = [each.name for each in sorted(folder.iterdir()) if each.is_dir() and _holds_minutes(each)]
    return f"; name one of the folders in it that do: {', '.join(inside)}" if inside else ""


def _holds_minutes(folder: Path) -> bool:
    try:
        return any((parsed := parse_name(path)) is not None and parsed[1] == "1m" for path in folder.iterdir())
    except OSError:
        return False  # a folder that may not be looked into is none to propose


def parse_name(path: Path) -> tuple[str, str] | None:
    """Symbol and interval in the name of a recording, or None.

    >>> parse_name(Path("BTCUSDT-1m-2026-02.zip"))
    ('BTCUSDT', '1m')
    """
    match = _FILE_NAME.fullmatch(path.name)
    return (match["symbol"], match["interval"]) if match and match["interval"] in INTERVAL_MS else None


def read_file(path: Path, *, strict: bool = False, content: bytes | None = None) -> Bars:
    """One recorded file as bars, checked and in ascending `open_time`; `content` if it has been read already.

    The interval comes from the name (`SYMBOL-1m-….parquet`, `.csv` or `.zip`), else from the smallest step between
    two rows. `SourceUnreadable` when the file is not a recording of klines in milliseconds, or, if `strict`, has a
    column that is none of a kline's; `RowRejected` (with file and row in its note) at the first row that is not a
    possible kline or does not follow the one before it.
    """
    columns = _columns(path, strict, content)
    times = columns["open_time"]
    if times.size and int(times.max()) >= _FIRST_MICROSECOND:
        raise SourceUnreadable(str(path), "its times are microseconds, klines of futures have milliseconds")
    symbol, interval = parse_name(path) or (path.stem, _interval_of(path, times))
    bars = bars_module.from_columns(columns, interval)
    try:
        off_grid = np.flatnonzero(times % interval_ms(interval))
        if off_grid.size:
            raise BarRejected(symbol, int(times[off_grid[0]]), f"its open time is not on the grid of {interval}")
        return bars_module.validate(symbol, bars)
    except BarRejected as rejected:
        index = _rejected_row(symbol, bars, rejected)
        error = RowRejected(rejected, str(path), index + 1, _rejected_column(bars[index]))
        error.add_note(f"in {path}, row {error.row}, column {error.column}")
        raise error from None


def _rejected_row(symbol: str, bars: Bars, rejected: BarRejected) -> int:
    """The first of the rows with the rejected bar's time that cannot be, or cannot stand where it does."""
    rows = np.flatnonzero(bars["open_time"] == rejected.open_time).tolist()
    for row in rows:
        try:
            bars_module.check_next(symbol, bars[row], int(bars["open_time"][row - 1]) if row else None)
        except BarRejected:
            return int(row)
    return int(rows[0])


def _rejected_column(bar: np.void) -> str:
    """The column that makes a bar impossible; its time when none does."""
    low, high = float(bar["low"]), float(bar["high"])
    for name in (*PRICES, "volume"):
        if not np.isfinite(bar[name]) or (name in PRICES and bar[name] <= 0):
            return name
    if high < low:
        return "high"
    for name in ("open", "close"):
        if not low <= float(bar[name]) <= high:
            return name
    return next((name for name in FLOWS if bar[name] < 0), "open_time")


def read_funding(path: Path) -> Fundings:
    """One recorded file of fundings (`funding_time`, `funding_rate`); `SourceUnreadable` if it is not one."""
    table = _parquet(path)
    missing = {"funding_time", "funding_rate"} - set(table.column_names)
    if missing:
        raise SourceUnreadable(str(path), f"it has no column {', '.join(sorted(missing))}")
    times, rates = (_numbers(path, table, name) for name in ("funding_time", "funding_rate"))
    if times.size and int(times.max()) >= _FIRST_MICROSECOND:
        raise SourceUnreadable(str(path), "its times are microseconds")
    return funding_module.from_columns(times, rates)


def read_archived_funding(path: Path, content: bytes | None = None) -> Fundings:
    """One of the archive's zips of fundings (`calc_time`, `funding_interval_hours`, `last_funding_rate`)."""
    table = _csv(path, _unzip(path, content), ("calc_time", "funding_interval_hours", "last_funding_rate"))
    if not {"calc_time", "last_funding_rate"} <= set(table.column_names):
        raise SourceUnreadable(str(path), "it has no column calc_time or last_funding_rate")
    return funding_module.from_columns(*(_numbers(path, table, name) for name in ("calc_time", "last_funding_rate")))


def _columns(path: Path, strict: bool, content: bytes | None) -> dict[str, Any]:
    """The file's columns under our names."""
    try:
        if path.suffix == ".parquet":
            table = _parquet(path)
        elif path.suffix == ".csv":
            table = _csv(path, path.read_bytes() if content is None else content)
        elif path.suffix == ".zip":
            table = _csv(path, _unzip(path, content))
        else:
            raise SourceUnreadable(str(path), "a recording ends in .parquet, .csv or .zip")
    except OSError as error:
        raise SourceUnreadable(str(path), error.strerror or str(error)) from error
    table = table.rename_columns([_OUR_NAMES.get(name, name) for name in table.column_names])
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise SourceUnreadable(str(path), f"it has column {name} twice", column=name)
        if strict and name not in _KNOWN and name not in ARCHIVE_COLUMNS:
            known = ", ".join(_KNOWN)
            raise SourceUnreadable(str(path), f"its column {name} is unknown: the known ones are {known}", column=name)
    missing = [name for name in _REQUIRED if name not in table.column_names]
    if missing:
        raise SourceUnreadable(str(path), f"it has no column {', '.join(missing)}", column=missing[0])
    return {name: _numbers(path, table, name) for name in _KNOWN if name in table.column_names}


def _numbers(path: Path, table: pa.Table, name: str) -> Any:
    column = table.column(name)
    if name.endswith("_time"):
        if not pa.types.is_integer(column.type):
            reason = f"its {name} is not whole milliseconds in every row: it is {column.type}"
            raise SourceUnreadable(str(path), reason, column=name)
        if column.null_count:
            row = int(column.is_null().to_numpy().argmax()) + 1
            reason = f"its {name} is not whole milliseconds in every row: row {row} has none"
            raise SourceUnreadable(str(path), reason, row=row, column=name)
        return column.to_numpy().astype(np.int64)
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        row = _first_no_number(column)
        reason = f"its {name} is not a number in row {row}: {error}"
        raise SourceUnreadable(str(path), reason, row=row, column=name) from error


def _first_no_number(column: Any) -> int:
    """The first row, counted from 1, whose value is not a number."""
    for row, value in enumerate(column, start=1):
        try:
            value.cast(pa.float64())
        except pa.ArrowException:
            return row
    return 1


def _parquet(path: Path) -> pa.Table:
    try:
        # A file object of our own: pyarrow's dataset reader would take a folder, and invent partitions from the path.
        return parquet.ParquetFile(path).read()
    except FileNotFoundError:
        raise SourceUnreadable(str(path), "there is no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise SourceUnreadable(str(path), str(error)) from error


def _unzip(path: Path, content: bytes | None = None) -> bytes:
    """The one CSV inside a zip. Whatever is wrong with the zip is `SourceUnreadable`."""
    try:
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) != 1 or not members[0].filename.endswith(".csv"):
                names = [member.filename for member in members]
                raise SourceUnreadable(str(path), f"it should hold one .csv, it holds {names}")
            if members[0].file_size > MOST_CSV_BYTES:
                raise SourceUnreadable(str(path), f"its .csv claims {members[0].file_size} bytes")
            return archive.read(members[0])
    except _ZIP_FAULTS as error:
        raise SourceUnreadable(str(path), f"{type(error).__name__}: {error}") from error


def _csv(path: Path, content: bytes, order: tuple[str, ...] = ARCHIVE_COLUMNS) -> pa.Table:
    """A table of the archive's CSV, with a header or, in this `order`, without."""
    if not content.strip():
        raise SourceUnreadable(str(path), "it is empty")
    headed = not content[:1].isdigit()
    header = content.partition(b"\n")[0].decode("utf-8-sig", "replace").split(",")
    names = [name.strip().strip('"') for name in header] if headed else order
    types = {name: pa.int64() if name.endswith("_time") else pa.float64() for name in names}
    try:
        return csv.read_csv(
            io.BytesIO(content),
            read_options=csv.ReadOptions(column_names=list(names), skip_rows=int(headed), use_threads=False),
            convert_options=csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowException as error:
        found = _CSV_PLACE.search(str(error))
        row = int(found["line"]) - int(headed) if found else None
        column = list(names)[int(found["column"])] if found and found["column"] else None
        raise SourceUnreadable(str(path), str(error), row=row, column=column) from error


def _interval_of(path: Path, times: Any) -> str:
    """The interval that the smallest step between rows is."""
    if times.size < 2:
        return "1m"
    step = int(np.min(np.abs(np.diff(times))))
    for name, length in INTERVAL_MS.items():
        if length == step:
            return name
    raise SourceUnreadable(str(path), f"neither its name nor its rows ({step} ms apart) tell the interval")


class RecordedMarket:
    """A `BarSource` over a folder of recorded 1m files.

    Parameters
    ----------
    folder
        Holds `SYMBOL-1m-….parquet`, `.csv` or `.zip`; several files of a symbol are joined. Files are read when
        they are first asked for, and kept.
    funding_folder
        Holds `SYMBOL-funding.parquet`. Without it they are looked for in the folder itself, in `funding` below it,
        and in `funding` beside it or beside its parent. A symbol without such a file has no fundings.
    """

    def __init__(self, folder: Path, funding_folder: Path | None = None) -> None:
        if not folder.is_dir():
            raise SourceUnreadable(str(folder), "there is no such folder")
        self._folder = folder
        self._files: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            parsed = parse_name(path)
            if parsed and parsed[1] == "1m":
                self._files.setdefault(parsed[0], []).append(path)
        if not self._files:
            raise SourceUnreadable(
                str(folder), f"it holds no file named SYMBOL-1m-….parquet, .csv or .zip{_folders_with_klines(folder)}"
            )
        resolved = folder.resolve()
        near = (resolved, resolved / "funding", resolved.parent / "funding", resolved.parent.parent / "funding")
        self._funding_folders = near if funding_folder is None else (funding_folder,)
        self._bars: dict[str, Bars] = {}
        self._fundings: dict[str, Fundings] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """`recorded(FOLDER)`."""
        return f"recorded({self._folder})"

    def symbols(self) -> tuple[str, ...]:
        """The symbols that have a file, in alphabetical order."""
        return tuple(self._files)

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        """From the first recorded minute to the last; None when the files are empty."""
        bars = self._recorded(symbol)
        return (int(bars["open_time"][0]), int(bars["open_time"][-1]) + MINUTE_MS) if bars.size else None

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        """The recorded 1m bars with open_time in [start_ms, end_ms)."""
        bars = self._recorded(symbol)
        first, last = np.searchsorted(bars["open_time"], (start_ms, end_ms))
        return bars[first : max(first, last)]

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        """The recorded fundings in [start_ms, end_ms); none for a symbol whose fundings were not recorded."""
        if symbol not in self._files:
            raise UnknownSymbol(symbol, self.name)
        with self._lock:
            if symbol not in self._fundings:
                paths = (folder / f"{symbol}-funding.parquet" for folder in self._funding_folders)
                found = next((path for path in paths if path.is_file()), None)
                fundings = funding_module.empty() if found is None else read_funding(found)
                fundings.setflags(write=False)
                self._fundings[symbol] = fundings
            return funding_module.between(self._fundings[symbol], start_ms, end_ms)

    def _recorded(self, symbol: str) -> Bars:
        if symbol not in self._files:
            raise UnknownSymbol(symbol, self.name)
        with self._lock:
            if symbol not in self._bars:
                bars = join(symbol, [read_file(path) for path in self._files[symbol]])
                bars.setflags(write=False)
                self._bars[symbol] = bars
            return self._bars[symbol]


def join(symbol: str, pieces: list[Bars]) -> Bars:
    """Recordings of one symbol as one; a minute that several have must be the same in all, else `BarRejected`."""
    if len(pieces) == 1:
        return pieces[0]
    bars = np.concatenate(pieces) if pieces else bars_module.empty()
    bars = bars[np.argsort(bars["open_time"], kind="stable")]
    repeated = np.flatnonzero(np.diff(bars["open_time"]) == 0) + 1
    for index in repeated:
        if bars[index].tobytes() != bars[index - 1].tobytes():
            raise BarRejected(symbol, int(bars["open_time"][index]), "two recordings of this minute differ")
    return np.delete(bars, repeated)
