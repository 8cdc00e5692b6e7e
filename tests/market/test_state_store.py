"""States at a day's end: bytes in, the same bytes out, and nothing of another specification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from market.errors import LakeCorrupt
from market.lake import Lake
from market.state_store import Checkpoint, read_states, state_dates, write_states

DATE = "2026-01-05"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def some(*symbols: str, size: int = 7) -> dict[str, Checkpoint]:
    values = np.arange(size, dtype=np.float64)
    values[:3] = np.nan, -0.0, 5e-324
    return {symbol: Checkpoint(60_000 * at - 1, values * (1 + at)) for at, symbol in enumerate(symbols)}


def test_states_come_back_to_the_bit_and_are_the_readers_own(lake: Lake) -> None:
    states = some("BTCUSDT", "ADAUSDT")
    write_states(lake, DATE, "5m", "series-1", states)
    found = read_states(lake, DATE, "5m", "series-1")
    assert list(found) == ["ADAUSDT", "BTCUSDT"]
    for symbol, each in found.items():
        assert each.close_time == states[symbol].close_time
        assert each.state.tobytes() == states[symbol].state.tobytes()
        each.state[0] = 1.0


def test_what_was_not_stored_is_not_found(lake: Lake) -> None:
    assert read_states(lake, DATE, "5m", "series-1") == {}
    write_states(lake, DATE, "5m", "series-1", some("BTCUSDT"))
    for date, timeframe, spec in (("2026-01-06", "5m", "series-1"), (DATE, "1h", "series-1"), (DATE, "5m", "series-2")):
        assert read_states(lake, date, timeframe, spec) == {}
    write_states(lake, DATE, "5m", "series-1", {})
    assert read_states(lake, DATE, "5m", "series-1") == {}


def test_dates_have_every_timeframe(lake: Lake) -> None:
    for date, timeframe in ((DATE, "5m"), (DATE, "1h"), ("2026-01-04", "5m")):
        write_states(lake, date, timeframe, "series-1", {})
    assert state_dates(lake, ("5m", "1h")) == [DATE]
    assert state_dates(lake, ("5m",)) == ["2026-01-04", DATE]


def test_states_of_different_lengths_are_refused(lake: Lake) -> None:
    table = pa.table(
        {"symbol": ["A", "B"], "close_time": [1, 1], "spec": ["s", "s"], "state_bytes": [b"\0" * 16, b"\0" * 8]}
    )
    lake.put("feature_state", table, {"timeframe": "5m", "date": DATE})
    with pytest.raises(LakeCorrupt, match="differ in length"):
        read_states(lake, DATE, "5m", "s")
