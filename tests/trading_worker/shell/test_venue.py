"""A ban is kept: nobody asks while it lasts. And bars that are not possible go no further."""

from __future__ import annotations

import numpy as np
import pytest

from market.bars import MINUTE_MS, Bars, from_columns
from market.binance.errors import IpBanned
from trading_worker.shell.metrics import Board
from trading_worker.shell.rejections import Rejections
from trading_worker.shell.venue import BAN_S, Ban, Venue


async def test_nothing_is_asked_while_a_ban_lasts_and_then_again() -> None:
    now, asked = [0.0], 0
    ban = Ban(lambda: now[0])

    async def question() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise IpBanned(418, -1003, "banned")
        return asked

    for seconds in (0.0, 1.0, BAN_S - 1.0):
        now[0] = seconds
        with pytest.raises(IpBanned):
            await ban.ask(question)
    assert asked == 1
    now[0] = BAN_S
    assert await ban.ask(question) == 2


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
    venue = Venue(Client(bars), Ban(lambda: 0.0), rejections)  # type: ignore[arg-type]
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
