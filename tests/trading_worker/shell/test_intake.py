"""From messages to waves: order, repair, rejection, and the venue's time."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from market.bars import MINUTE_MS, Bars, from_columns
from market.binance.errors import Unreachable
from market.binance.streams import StreamMessageInvalid
from market.errors import BarRejected
from trading_worker.shell.intake import Intake
from trading_worker.shell.metrics import Board
from trading_worker.shell.rejections import JOURNALED_PER_MINUTE, category
from trading_worker.shell.waves import Minute, WaveAssembler

START = 1_746_403_200_000
DELAY = 2_000
DOWN = Unreachable("http://venue", "refused")


def bars(*minutes: int, price: float = 100.0) -> Bars:
    """Bars of these minutes after START."""
    columns = {name: [price] * len(minutes) for name in ("open", "high", "low", "close", "volume")}
    return from_columns({"open_time": [START + minute * MINUTE_MS for minute in minutes], **columns})


def close(minute: int) -> int:
    """When a minute closes."""
    return START + (minute + 1) * MINUTE_MS - 1


@dataclass(frozen=True)
class Message:
    """A parsed kline message."""

    symbol: str
    bar: np.void
    closed: bool = True
    event_time: int = 0

    @property
    def open_time(self) -> int:
        return int(self.bar["open_time"])

    @property
    def kline(self) -> SimpleNamespace:
        """The numbers that a price update is read from."""
        numbers = {name: float(self.bar[name]) for name in ("low", "high", "close")}
        return SimpleNamespace(**numbers, close_time=int(self.bar["close_time"]))


@dataclass
class Desk:
    """A sink that remembers, and a venue that answers from `stored`."""

    minutes: list[Minute] = field(default_factory=list)
    shown: list[tuple[int, list[int], list[float]]] = field(default_factory=list)
    errors: list[BarRejected] = field(default_factory=list)
    revisions: list[tuple[int, float, float]] = field(default_factory=list)
    stored: dict[str, Bars] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    down: bool = False
    server_ms: int = START

    async def minute(self, minute: Minute, venue_ms: int) -> None:
        self.minutes.append(minute)

    def prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        self.shown.append((time_ms, rows.tolist(), prices.tolist()))

    def rejected(self, error: BarRejected, time_ms: int) -> None:
        self.errors.append(error)

    def revised(self, row: int, used: np.void, revised: np.void, time_ms: int) -> None:
        self.revisions.append((row, float(used["close"]), float(revised["close"])))

    async def fetch(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, (start_ms - START) // MINUTE_MS, (end_ms - START) // MINUTE_MS))
        if self.down:
            raise DOWN
        have = self.stored.get(symbol, bars())
        return have[(have["open_time"] >= start_ms) & (have["open_time"] < end_ms)]

    async def server_time(self) -> int:
        if self.down:
            raise DOWN
        return self.server_ms


class Line:
    """An intake of two symbols over a desk; `say` sends a message."""

    def __init__(self, symbols: tuple[str, ...] = ("A", "B")) -> None:
        self.desk, self.board = Desk(), Board(worker="w")
        self.queue: list[Message | Exception | None] = []
        self.intake = Intake(
            symbols,
            WaveAssembler(START - 1, [START - 1] * len(symbols), deadline_ms=5_000),
            self.desk,
            self.board,
            parse=self._parse,
            fetch=self.desk.fetch,
            server_time=self.desk.server_time,
            venue_ms=START,
        )

    def _parse(self, raw: bytes) -> Message | None:
        message = self.queue.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Message | Exception | None) -> None:
        """One message as parsed."""
        self.queue.append(message)
        await self.intake.take(b"")

    async def say(self, symbol: str, minute: int, price: float = 100.0, after_ms: int = DELAY) -> None:
        """The closed bar of a minute, `after_ms` after its close."""
        await self.send(Message(symbol, bars(minute, price=price)[0], True, close(minute) + after_ms))

    async def tick(
        self, symbol: str, time_ms: int, price: float, low: float | None = None, high: float | None = None
    ) -> None:
        """A partial update; low and high are those of the bar so far."""
        bar = bars((time_ms - START) // MINUTE_MS, price=price)
        bar["low"], bar["high"] = price if low is None else low, price if high is None else high
        await self.send(Message(symbol, bar[0], False, time_ms))

    @property
    def prices(self) -> list[float]:
        """All prices that were shown."""
        return [price for _, _, shown in self.desk.shown for price in shown]

    @property
    def waves(self) -> list[tuple[int, list[int], list[int], list[int]]]:
        """(minute, rows, absent, minutes of late bars) of every wave."""
        return [
            (
                (wave.time_ms - START) // MINUTE_MS,
                wave.rows.tolist(),
                wave.absent.tolist(),
                [(late.time_ms - START) // MINUTE_MS for late in wave.late],
            )
            for wave in self.desk.minutes
        ]


async def test_complete_waves_leave_at_once_and_price_updates_before_them() -> None:
    line = Line()
    await line.tick("A", START + 20_000, 101.0)
    assert line.desk.shown == []
    await line.say("A", 0)
    await line.say("B", 0)
    assert line.waves == [(0, [0, 1], [], [])]
    assert line.prices[:3] == [101.0] * 3
    assert line.prices[-1] == 100.0, "the closed bar is the last word before its wave"
    assert [time_ms for time_ms, _, _ in line.desk.shown] == [START + 20_000, close(0), close(0)]
    assert line.board.venue_delay.last == pytest.approx(2.0)
    assert line.desk.asked == []


async def test_a_missing_minute_is_fetched_before_the_next_bar_of_its_series() -> None:
    line = Line()
    line.desk.stored["A"] = bars(0, 1)
    line.desk.stored["B"] = bars(1)
    await line.say("B", 0)
    await line.say("A", 2)
    await line.say("B", 2)
    assert line.desk.asked == [("A", 0, 2), ("B", 1, 2)]
    assert line.waves == [(0, [0, 1], [], []), (1, [0, 1], [], []), (2, [0, 1], [], [])]
    await line.say("A", 1)
    assert line.board.rejected == {}, "the stream's own copy of a fetched bar is no fault"
    await line.say("A", 1)
    assert line.board.rejected == {"it repeats a bar that is already here": 1}


async def test_at_the_deadline_rest_is_asked_and_without_an_answer_the_absentee_is_named() -> None:
    line = Line()
    line.desk.stored["B"] = bars(0)
    await line.say("A", 0)
    await line.tick("A", close(0) + 4_999, 100.0)
    assert line.waves == []
    await line.tick("A", close(0) + 5_000, 100.0)
    assert line.waves == [(0, [0, 1], [], [])]
    line.desk.down = True
    await line.say("A", 1)
    await line.tick("A", close(1) + 6_000, 100.0)
    assert line.waves[1] == (1, [0], [1], [])
    assert "cannot be fetched" in line.board.notes["rest"]


async def test_a_bar_after_the_cut_leaves_late_before_the_next() -> None:
    line = Line()
    await line.say("A", 0)
    await line.tick("A", close(0) + 5_000, 100.0)
    await line.say("B", 0, after_ms=5_500)
    assert line.waves == [(0, [0], [1], [])]
    await line.say("A", 1)
    await line.say("B", 1)
    assert line.waves[1] == (1, [0, 1], [], [0])


async def test_while_rest_is_down_a_bar_behind_a_gap_is_held_back_and_comes_with_the_gap() -> None:
    line = Line()
    line.desk.down = True
    await line.say("A", 0)
    await line.say("B", 0)
    await line.say("A", 1)
    await line.say("A", 2)
    await line.say("B", 2)
    assert line.waves == [(0, [0, 1], [], []), (1, [0], [1], [])]
    line.desk.down = False
    line.desk.stored["B"] = bars(1, 2, 3)
    await line.say("A", 3)
    await line.say("B", 3)
    assert line.waves[2:] == [(2, [0, 1], [], [1]), (3, [0, 1], [], [])]


async def test_silence_is_ended_by_the_venues_time() -> None:
    line = Line()
    line.desk.stored = {"A": bars(0, 1), "B": bars(0, 1)}
    await line.intake.observe(close(1) + 6_000)
    assert line.waves == [(0, [0, 1], [], []), (1, [0, 1], [], [])]
    assert sorted(line.desk.asked) == [("A", 0, 2), ("B", 0, 2)], "one question for all minutes"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"high": 1.0}, "high # < low #"),
        ({"close": np.nan}, "a price or the volume is not a finite number"),
        ({"volume": -1.0}, "a volume is negative"),
        ({"open": 0.0, "low": 0.0}, "a price is not positive"),
    ],
)
async def test_an_impossible_bar_is_refused_with_symbol_time_and_reason_and_nothing_is_lost(
    changes: dict[str, float], reason: str
) -> None:
    line = Line()
    line.desk.stored["A"] = bars(0)
    bad = bars(0)
    for name, value in changes.items():
        bad[name] = value
    await line.send(Message("A", bad[0], True, close(0) + DELAY))
    await line.say("B", 0)
    await line.tick("B", close(0) + 5_000, 100.0)
    assert line.waves == [(0, [0, 1], [], [])], "REST has the bar as it should be"
    assert line.board.rejected == {reason: 1}
    [error] = line.desk.errors
    assert (error.symbol, error.open_time, category(error.reason)) == ("A", START, reason)


async def test_unknown_symbols_garbage_repeats_and_bars_from_the_future_are_counted_apart() -> None:
    line = Line()
    await line.send(Message("NOSUCHUSDT", bars(0)[0], True, close(0) + DELAY))
    await line.send(StreamMessageInvalid("cut", b"{"))
    await line.send(None)
    await line.send(Message("A", bars(0)[0], True, close(0) - 1))
    await line.say("A", 0)
    await line.say("A", 0)
    await line.send(Message("B", bars(9)[0], True, close(9)))
    assert line.board.rejected == {
        "the symbol is not followed": 1,
        "the message cannot be read (StreamMessageInvalid)": 1,
        "it is closed before its last millisecond": 1,
        "it repeats a bar that is already here": 1,
        "its event time lies in the future": 1,
    }
    assert line.intake.venue_ms == close(0) + DELAY
    line.desk.server_ms = close(9) + 3_000
    await line.send(Message("B", bars(9)[0], True, close(9)))
    assert line.intake.venue_ms == close(9), "unless the venue's own clock agrees"


async def test_a_bar_that_comes_again_with_other_numbers_is_noted_and_not_used() -> None:
    line = Line()
    await line.say("A", 0, price=100.0)
    await line.say("B", 0)
    await line.say("A", 0, price=99.0, after_ms=60_000)
    assert line.desk.revisions == [(0, 100.0, 99.0)]
    assert len(line.waves) == 1


async def test_while_the_venues_time_is_behind_the_last_wave_it_is_not_ready_and_says_why() -> None:
    line = Line()
    line.board.waiting.clear()
    for minute in range(5):
        await line.say("A", minute)
        await line.say("B", minute)
    await line.tick("A", close(3), 100.0)
    assert line.board.ready, "messages may be a little late"
    await line.tick("A", close(0), 100.0)
    assert "is behind the engine's 2025-05-05T00:04:59.999000Z" in line.board.waiting["venue"]
    await line.tick("A", close(3), 100.0)
    assert not line.board.ready
    await line.tick("A", close(4) + 1, 100.0)
    assert line.board.ready


async def test_a_flood_of_bad_messages_is_counted_but_not_journaled_without_bound() -> None:
    line = Line()
    for _ in range(3 * JOURNALED_PER_MINUTE):
        await line.send(StreamMessageInvalid("cut", b"{"))
    assert line.board.rejected.total() == 3 * JOURNALED_PER_MINUTE
    assert len(line.desk.errors) == JOURNALED_PER_MINUTE


async def test_price_updates_are_handed_over_by_the_quarter_second() -> None:
    line = Line()
    for offset in range(0, 1_000, 100):
        await line.tick("A", START + offset, 100.0)
    assert [len(prices) for _, _, prices in line.desk.shown] == [5, 3, 3]


async def test_the_extremes_of_a_bar_tell_what_was_touched_between_two_messages() -> None:
    line = Line()
    times = iter(range(START, START + 60_000, 1_000))
    await line.tick("A", next(times), 100.0, low=98.0, high=101.0)
    await line.tick("A", next(times), 100.0, low=98.0, high=101.0)
    await line.tick("A", next(times), 99.0, low=98.0, high=105.0)
    await line.tick("A", next(times), 104.0, low=90.0, high=106.0)
    await line.tick("A", next(times), 104.0, low=90.0, high=106.0)
    assert line.prices == [98.0, 101.0, 100.0, 100.0, 105.0, 99.0, 90.0, 106.0, 104.0]


async def test_an_impossible_price_update_is_refused() -> None:
    line = Line()
    await line.tick("A", START, 100.0, low=101.0)
    await line.tick("A", START, float("nan"))
    await line.tick("A", START, -1.0)
    assert line.board.rejected == {"a price update is not possible": 3}
