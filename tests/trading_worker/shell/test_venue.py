"""Bars that are not possible go no further."""

from __future__ import annotations

import numpy as np

from market.bars import MINUTE_MS, Bars, from_columns
from trading_worker.shell.metrics import Board
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.venue import Venue


class Client:
    """REST that answers with `bars`."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars

    async def klines(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        return self.bars[(self.bars["open_time"] >= start_ms) & (self.bars["open_time"] < end_ms)]


async def test_of_fetched_bars_the_possible_go_on_and_each_other_is_refused_once() -> None:
    one = [100.0] * 6
    columns = dict.fromkeys(("open", "high", "low", "close", "volume"), one)
    bars = from_columns({"open_time": [minute * MINUTE_MS for minute in range(6)], **columns})
    bars["high"][1], bars["close"][2], bars["volume"][4] = 99.0, np.nan, -1.0
    board, written = Board(worker="w"), []
    rejections = Rejections(board)
    venue = Venue(Client(bars), rejections)  # type: ignore[arg-type]
    first = await venue.klines("A", 0, 4 * MINUTE_MS)
    rejections.write_to(lambda error, venue_ms: written.append((error.symbol, error.open_time // MINUTE_MS, venue_ms)))
    assert [minute for _, minute, _ in written] == [1, 2], "what was refused before there was a journal is in it too"
    board.venue_ms = 9 * MINUTE_MS
    again = await venue.klines("A", 0, 6 * MINUTE_MS)
    assert (first["open_time"] // MINUTE_MS).tolist() == [0, 3]
    assert (again["open_time"] // MINUTE_MS).tolist() == [0, 3, 5]
    assert board.rejected == {
        "high # < low #": 1,
        "a price or the volume is not a finite number": 1,
        "a volume is negative": 1,
    }
    assert written == [
        ("A", 1, 2 * MINUTE_MS - 1),
        ("A", 2, 3 * MINUTE_MS - 1),
        ("A", 4, 9 * MINUTE_MS),
    ]
