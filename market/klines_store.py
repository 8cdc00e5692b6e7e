"""Bars, fundings and gaps in the lake: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from market import bars as bars_module
from market import funding as funding_module
from market.bars import BAR, DAY_MS, MINUTE_MS, Bars, validate
from market.errors import BadPath, BarRejected
from market.funding import FUNDING, Fundings
from market.lake import Lake

_FIELDS = tuple(name for name in BAR.names or () if name != "close_time")
_NULLABLE = ("trades", "taker_buy_base", "taker_buy_quote")
_BY_NAME_DAYS = 400


@dataclass(frozen=True, order=True)
class Gap:
    """Minutes [start_ms, end_ms) of a symbol that should have a bar and have none, and why."""

    symbol: str
    start_ms: int
    end_ms: int
    cause: str


def day_start(date: str) -> int:
    """The first millisecond of a UTC date; `BadPath` if it is not written YYYY-MM-DD.

    >>> day_start("2026-01-05")
    1767571200000
    """
    try:
        parsed = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise BadPath(date, "a date is written YYYY-MM-DD") from None
    if date != f"{parsed:%Y-%m-%d}":
        raise BadPath(date, "a date is written YYYY-MM-DD")
    return int(parsed.timestamp()) * 1000


def date_of(time_ms: int) -> str:
    """The UTC date of a time.

    >>> date_of(1_767_571_199_999)
    '2026-01-04'
    """
    return f"{datetime.fromtimestamp(time_ms // 1000, tz=UTC):%Y-%m-%d}"


def dates(start_ms: int, end_ms: int) -> list[str]:
    """The UTC dates that [start_ms, end_ms) touches.

    >>> dates(1_767_571_199_999, 1_767_571_200_001)
    ['2026-01-04', '2026-01-05']
    """
    return [date_of(time) for time in range(start_ms // DAY_MS * DAY_MS, end_ms, DAY_MS)] if end_ms > start_ms else []


def write_day(lake: Lake, date: str, bars: Mapping[str, Bars]) -> str:
    """Store all symbols' 1m bars of one UTC day, in place of what was stored for it; returns the path.

    Raises `BarRejected` for the first bar that is not a possible kline, out of order or not of that day; nothing is
    stored then. A symbol without bars that day leaves no trace.
    """
    start = day_start(date)
    for symbol, each in bars.items():
        validate(symbol, each)
        off = (each["open_time"] < start) | (each["open_time"] >= start + DAY_MS) | (each["open_time"] % MINUTE_MS != 0)
        off |= each["close_time"] != each["open_time"] + MINUTE_MS - 1
        if off.any():
            raise BarRejected(symbol, int(each["open_time"][np.argmax(off)]), f"it is no minute of {date}")
    ordered = sorted(symbol for symbol, each in bars.items() if each.size)
    joined = np.concatenate([bars[symbol] for symbol in ordered]) if ordered else bars_module.empty()
    columns: dict[str, Any] = {"symbol": _symbol_column(ordered, [bars[symbol].size for symbol in ordered])}
    for name in _FIELDS:
        columns[name] = pa.array(np.ascontiguousarray(joined[name]), from_pandas=name in _NULLABLE)
    # No source records trades and leaves the quote volume out, so the one tells of the other.
    columns["quote_volume_estimated"] = pa.array(np.isnan(joined["trades"]))
    return lake.put("klines", pa.table(columns), {"date": date})


def stored_dates(lake: Lake) -> list[str]:
    """The dates that have a file of klines, ascending."""
    return [partition["date"] for partition in lake.partitions("klines")]


def read_bars(lake: Lake, symbol: str, start_ms: int, end_ms: int) -> Bars:
    """One symbol's stored 1m bars with open_time in [start_ms, end_ms)."""
    return read_all(lake, start_ms, end_ms, (symbol,))[symbol]


def read_all(lake: Lake, start_ms: int, end_ms: int, symbols: Sequence[str] | None = None) -> dict[str, Bars]:
    """Stored 1m bars with open_time in [start_ms, end_ms), by symbol in alphabetical order.

    With `symbols`: those, in that order, an empty array for one without bars. Else: all that have any.
    """
    where, parameters = _span("date", "open_time", date_of, start_ms, end_ms, symbols)
    # Of a stretch that is shorter than most lakes, no other day's file is opened.
    within = {"date": dates(start_ms, end_ms)} if end_ms - start_ms <= _BY_NAME_DAYS * DAY_MS else {}
    table = lake.read("klines", ("symbol", *_FIELDS), where, parameters, within=within)
    found = {}
    rows = np.empty(table.num_rows, dtype=BAR)
    for name in _FIELDS:
        rows[name] = table.column(name).to_numpy()
    rows["close_time"] = rows["open_time"] + MINUTE_MS - 1
    for symbol, index in _by_symbol(table.column("symbol"), rows["open_time"]):
        found[symbol] = rows[index]
    return found if symbols is None else {symbol: found.get(symbol, bars_module.empty()) for symbol in symbols}


def write_funding(lake: Lake, month: str, fundings: Mapping[str, Fundings]) -> str:
    """Store all symbols' fundings of one month (YYYY-MM), in place of what was stored for it; returns the path."""
    day_start(f"{month}-01")
    ordered = sorted(fundings)
    joined = np.concatenate([fundings[symbol] for symbol in ordered]) if ordered else funding_module.empty()
    for time in joined["funding_time"]:
        if date_of(int(time))[:7] != month:
            raise BadPath(month, f"it holds a funding of {date_of(int(time))}")
    table = pa.table(
        {
            "symbol": _symbol_column(ordered, [fundings[symbol].size for symbol in ordered]),
            "funding_time": pa.array(np.ascontiguousarray(joined["funding_time"])),
            "funding_rate": pa.array(np.ascontiguousarray(joined["funding_rate"])),
        }
    )
    return lake.put("funding", table, {"month": month})


def read_funding(lake: Lake, symbol: str, start_ms: int, end_ms: int) -> Fundings:
    """One symbol's stored fundings in [start_ms, end_ms)."""
    return read_all_funding(lake, start_ms, end_ms, (symbol,))[symbol]


def read_all_funding(
    lake: Lake, start_ms: int, end_ms: int, symbols: Sequence[str] | None = None
) -> dict[str, Fundings]:
    """Stored fundings in [start_ms, end_ms), by symbol as in `read_all`."""
    where, parameters = _span("month", "funding_time", lambda time: date_of(time)[:7], start_ms, end_ms, symbols)
    table = lake.read("funding", ("symbol", "funding_time", "funding_rate"), where, parameters)
    rows = np.empty(table.num_rows, dtype=FUNDING)
    for name in FUNDING.names or ():
        rows[name] = table.column(name).to_numpy()
    found = {symbol: rows[index] for symbol, index in _by_symbol(table.column("symbol"), rows["funding_time"])}
    return found if symbols is None else {symbol: found.get(symbol, funding_module.empty()) for symbol in symbols}


def find_gaps(
    bars: Mapping[str, Bars], coverage: Mapping[str, tuple[int, int]], start_ms: int, end_ms: int, cause: str
) -> list[Gap]:
    """The minutes in [start_ms, end_ms) that lie inside a symbol's coverage and have no bar.

    What lies outside the coverage (before a listing, after a recording) is no gap.
    """
    found = []
    for symbol in sorted(coverage):
        first, last = max(start_ms, coverage[symbol][0]), min(end_ms, coverage[symbol][1])
        times = bars[symbol]["open_time"] if symbol in bars else np.empty(0, dtype=np.int64)
        times = times[(times >= first) & (times < last)]
        edges = np.concatenate(([first - MINUTE_MS], times, [last]))
        missing = np.flatnonzero(np.diff(edges) > MINUTE_MS)
        found += [Gap(symbol, int(edges[i]) + MINUTE_MS, int(edges[i + 1]), cause) for i in missing]
    return found


def write_gaps(lake: Lake, date: str, gaps: Iterable[Gap]) -> str:
    """Record the gaps of one UTC day, in place of what was recorded for it; returns the path."""
    day_start(date)
    ordered = sorted(gaps)
    table = pa.table(
        {
            "symbol": pa.array([gap.symbol for gap in ordered], pa.string()),
            "from": pa.array([gap.start_ms for gap in ordered], pa.int64()),
            "to": pa.array([gap.end_ms for gap in ordered], pa.int64()),
            "cause": pa.array([gap.cause for gap in ordered], pa.string()),
        }
    )
    return lake.put("gaps", table, name=f"{date}.parquet")


def gaps_of_day(lake: Lake, date: str) -> list[Gap]:
    """The gaps that are recorded for one UTC day."""
    path = f"gaps/{date}.parquet"
    if not lake.exists(path):
        return []
    rows = lake.table(path).to_pylist()
    return [Gap(row["symbol"], row["from"], row["to"], row["cause"]) for row in rows]


def read_gaps(lake: Lake) -> list[Gap]:
    """All recorded gaps by symbol and time, those that meet at midnight joined."""
    rows = lake.read("gaps", order_by='symbol, "from"').to_pylist()
    joined: list[Gap] = []
    for row in rows:
        gap = Gap(row["symbol"], row["from"], row["to"], row["cause"])
        last = joined[-1] if joined else None
        if last and (last.symbol, last.end_ms, last.cause) == (gap.symbol, gap.start_ms, gap.cause):
            gap = Gap(gap.symbol, joined.pop().start_ms, gap.end_ms, gap.cause)
        joined.append(gap)
    return joined


def _symbol_column(symbols: Sequence[str], counts: Sequence[int]) -> pa.Array[Any]:
    codes = np.repeat(np.arange(len(symbols), dtype=np.int32), counts)
    return pa.DictionaryArray.from_arrays(codes, pa.array(symbols, pa.string())).cast(pa.string())


def _span(
    partition: str, column: str, label: Any, start_ms: int, end_ms: int, symbols: Sequence[str] | None
) -> tuple[str, list[object]]:
    """The condition that picks [start_ms, end_ms) of some symbols, the partition's part first."""
    where = f"{partition} BETWEEN ? AND ? AND {column} >= ? AND {column} < ?"
    parameters: list[object] = [label(start_ms), label(max(start_ms, end_ms - 1)), start_ms, end_ms]
    if symbols is not None:
        # An empty IN () is no SQL, and no symbol is named NULL.
        where += f" AND symbol IN ({', '.join('?' * len(symbols)) or 'NULL'})"
        parameters += symbols
    return where, parameters


def _by_symbol(column: pa.ChunkedArray[Any], times: NDArray[np.int64]) -> list[tuple[str, NDArray[np.intp]]]:
    """Each symbol, in alphabetical order, with its rows in order of time."""
    encoded = column.combine_chunks().dictionary_encode()
    codes, names = np.asarray(encoded.indices).astype(np.int16), encoded.dictionary.to_pylist()
    # The files are in order of time and so, nearly always, is the answer; a stable sort of small numbers is quick.
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    found: dict[str, NDArray[np.intp]] = {}
    for code, name in enumerate(names):
        index = order[edges[code] : edges[code + 1]]
        if (np.diff(times[index]) < 0).any():
            index = index[np.argsort(times[index], kind="stable")]
        found[str(name)] = index
    return sorted(found.items())
