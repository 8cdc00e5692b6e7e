"""A user's own klines for the proofs of `features`: a file, a folder of files, or a lake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features.decision_table import Market
from market.bars import DAY_MS, INTERVAL_MS, Bars, validate
from market.errors import BarRejected, MarketError, RowRejected, SourceUnreadable
from market.klines_store import read_all, read_all_funding, stored_dates
from market.lake import Lake
from market.sources.recorded import join, parse_name, read_file

LAST_MS = 253_370_764_800_000
"""Beyond all that a lake holds: the year 9999."""


class KlinesUnusable(Exception):
    """Klines that cannot be checked: the message names the file and, where it is one, the row and the column."""

    def __init__(self, file: Path, reason: str, row: int | None = None, column: str | None = None) -> None:
        place = "".join(f", {what} {value}" for what, value in (("row", row), ("column", column)) if value is not None)
        super().__init__(f"{file}{place}: {reason}")
        self.file = file
        self.row = row
        self.column = column


def _read(path: Path) -> Bars:
    try:
        bars = read_file(path, strict=True)
    except RowRejected as error:
        raise KlinesUnusable(path, str(error), error.row, error.column) from error
    except SourceUnreadable as error:
        raise KlinesUnusable(path, error.reason, error.row, error.column) from error
    except MarketError as error:
        raise KlinesUnusable(path, str(error)) from error
    if not bars.size:
        raise KlinesUnusable(path, "it has no row")
    return bars


def _read_folder(path: Path) -> dict[str, Bars]:
    """The files of one-minute klines in a folder, by symbol."""
    files: dict[str, list[Path]] = {}
    for each in sorted(path.iterdir()):
        parsed = parse_name(each)
        if parsed and parsed[1] == "1m":
            files.setdefault(parsed[0], []).append(each)
    if not files:
        raise KlinesUnusable(
            path, "it holds no file named SYMBOL-1m-….parquet, .csv or .zip, and is no lake: it has no klines/date=…"
        )
    try:
        return {symbol: join(symbol, [_read(each) for each in found]) for symbol, found in files.items()}
    except MarketError as error:
        raise KlinesUnusable(path, str(error)) from error


def _read_lake(path: Path, symbols: Sequence[str]) -> Market:
    """Klines and fundings of a lake, all symbols unless some are named."""
    lake, wanted = Lake(str(path)), tuple(symbols) or None
    try:
        bars = {symbol: each for symbol, each in read_all(lake, 0, LAST_MS, wanted).items() if each.size}
        for symbol, each in bars.items():
            validate(symbol, each)
        return Market(bars, read_all_funding(lake, 0, LAST_MS, tuple(bars)))
    except BarRejected as error:
        raise KlinesUnusable(path / "klines", str(error)) from error
    except MarketError as error:
        raise KlinesUnusable(path, str(error)) from error


def is_lake(path: Path) -> bool:
    """Whether a folder is a lake with klines in it.

    >>> import tempfile
    >>> is_lake(Path(tempfile.mkdtemp()))
    False
    """
    return path.is_dir() and (path / "klines").is_dir() and bool(stored_dates(Lake(str(path))))


def read_market(path: Path, symbols: Sequence[str] = (), days: float | None = None) -> Market:
    """A recorded file, a folder of files of one-minute klines, or a lake; `KlinesUnusable` if it cannot be used.

    Only a lake has fundings. `symbols` and the last `days` of the market are taken where they are given.
    """
    if is_lake(path):
        market = _read_lake(path, symbols)
    elif path.is_dir():
        market = Market(_read_folder(path), {})
    else:
        name = parse_name(path)
        market = Market({name[0] if name else path.stem: _read(path)}, {})
    if missing := [symbol for symbol in symbols if symbol not in market.bars]:
        known = ", ".join(market.symbols[:6]) or "none, or not this one"
        raise KlinesUnusable(path, f"it has no klines of {', '.join(missing)}: there is {known}")
    if symbols:
        fundings = {symbol: rates for symbol, rates in market.fundings.items() if symbol in symbols}
        market = Market({symbol: market.bars[symbol] for symbol in dict.fromkeys(symbols)}, fundings)
    if days is not None:
        end = int(max(bars["close_time"][-1] for bars in market.bars.values())) + 1
        late = market.since(end - round(days * DAY_MS))
        market = Market({symbol: bars for symbol, bars in late.bars.items() if bars.size}, late.fundings)
    return market


def interval_of(bars: Bars) -> str:
    """The name of the interval of some bars."""
    lengths = np.unique(bars["close_time"] - bars["open_time"] + 1)
    return next(name for name, each in INTERVAL_MS.items() if each == lengths[0])
