"""The states of the feature recurrences at a day's end, in the lake: what history and a worker continue from.

A state is the flat float64 vector that `features` keeps of one series. It is stored as its little-endian bytes in one
column, so a day's thousand states of ten kilobytes each are read as one block of memory and not number by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from market.errors import LakeCorrupt
from market.lake import Lake

DATASET = "feature_state"
_NUMBER = np.dtype("<f8")


@dataclass(frozen=True)
class Checkpoint:
    """The state of one series at a day's end."""

    close_time: int
    """Close of the last bar it has seen."""
    state: NDArray[np.float64]
    """[K]"""


def write_states(lake: Lake, date: str, timeframe: str, spec: str, states: Mapping[str, Checkpoint]) -> str:
    """Store the states by symbol at the end of `date` (UTC), in place of those stored for it; returns the path.

    `spec` is the id of the specification whose states they are: no other can continue from them.
    """
    ordered = sorted(states)
    columns: dict[str, Any] = {
        "symbol": pa.array(ordered, pa.string()),
        "close_time": pa.array([states[symbol].close_time for symbol in ordered], pa.int64()),
        "spec": pa.array([spec] * len(ordered), pa.string()),
        "state_bytes": pa.array([state_bytes(states[symbol].state) for symbol in ordered], pa.binary()),
    }
    return lake.put(DATASET, pa.table(columns), {"timeframe": timeframe, "date": date})


def read_states(lake: Lake, date: str, timeframe: str, spec: str) -> dict[str, Checkpoint]:
    """The states at the end of `date` by symbol, of that specification; a symbol that is silent keeps its last one.

    Empty when there are none. The arrays are the caller's own. `LakeCorrupt` when the states differ in length.
    """
    found = lake.read(
        DATASET,
        ("symbol", "close_time", "state_bytes"),
        "spec = ?",
        (spec,),
        within={"timeframe": (timeframe,), "date": (date,)},
    )
    if not found.num_rows:
        return {}
    states = _matrix(found.column("state_bytes"), f"{DATASET}/timeframe={timeframe}/date={date}")
    times = found.column("close_time").to_numpy().tolist()
    symbols = zip(found.column("symbol").to_pylist(), times, states, strict=True)
    return {str(symbol): Checkpoint(time, state) for symbol, time, state in symbols}


def state_dates(lake: Lake, timeframes: Sequence[str]) -> list[str]:
    """The dates, ascending, that have a file of states of every one of the timeframes, of whatever specification."""
    stored = {(each["timeframe"], each["date"]) for each in lake.partitions(DATASET)}
    return sorted({date for _, date in stored if all((timeframe, date) in stored for timeframe in timeframes)})


def state_bytes(state: NDArray[np.float64]) -> bytes:
    """A state as it is stored."""
    return np.ascontiguousarray(state, dtype=_NUMBER).tobytes()


def _matrix(column: pa.ChunkedArray[Any], path: str) -> NDArray[np.float64]:
    """The states of a column, [rows, K], in memory of their own."""
    joined: Any = column.combine_chunks()
    size = len(joined[0].as_buffer())
    try:
        fixed = joined.cast(pa.binary(size))
    except pa.ArrowInvalid as error:
        raise LakeCorrupt(path, f"its states differ in length: {error}") from error
    rows = len(fixed)
    flat = np.frombuffer(fixed.buffers()[1], _NUMBER, rows * size // 8, fixed.offset * size)
    return np.asarray(flat.reshape(rows, size // 8).astype(np.float64))
