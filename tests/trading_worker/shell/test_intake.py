"""From messages to waves: order, repair, rejection, and the venue's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from market.bars import MINUTE_MS, PRICES, Bars, from_columns
from market.binance import bar_stream
from market.binance.errors import Unreachable
from market.errors import BarRejected
from trading_worker.shell.intake import GRACE_MS, Intake
from trading_worker.shell.metrics import Board
from trading_worker.shell.rejections import JOURNALED_PER_MINUTE, category
from trading_worker.shell.waves import Minute, WaveAssembler

START = 1_746_403_200_000
DELAY = 2_000
DEADLINE = 5_001
"""After a close: when its wave is overdue."""
DOWN = Unreachable("http://venue", "refused")


def bars(*minutes: int, price: float = 100.0) -> Bars:
    """Bars of these minutes after START."""
    columns = {name: [price] * len(minutes) for name in ("open", "high", "low", "close", "volume")}
    return from_columns({"open_time": [START + minute * MINUTE_MS for minute in minutes], **columns})


def close(minute: int) -> int:
    """When a minute closes."""
    return START + (minute + 1) * MINUTE_MS - 1


def message(symbol: str, bar: np.void, event_time: int, *, closed: bool = True) -> bytes:
    """A kline as the venue sends it."""
    kline = {"t": int(bar["open_time"]), "T": int(bar["close_time"]), "s": symbol, "i": "1m", "x": closed, "n": None}
    kline |= {key: str(float(bar[name])) for key, name in zip("ohlc", PRICES, strict=True)}
    kline |= {"v": str(float(bar["volume"])), "q": "NaN", "V": "NaN", "Q": "NaN"}
    return msgspec.json.encode({"e": "kline", "E": event_time, "s": symbol, "k": kline})


@dataclass
class Desk:
    """A driver that remembers, and a venue that answers from `stored`."""

    minutes: list[Minute] = field(default_factory=list)
    shown: list[tuple[int, list[int], list[float]]] = field(default_factory=list)
    errors: list[BarRejected] = field(default_factory=list)
    revisions: list[tuple[int, float, float]] = field(default_factory=list)
    gone: list[tuple[int, int, int, str]] = field(default_factory=list)
    stored: dict[str, Bars] = field(default_factory=dict)
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    down: bool = False
    hangs: bool = False
    server_ms: int = START

    async def minute(self, minute: Minute, venue_ms: int) -> None:
        self.minutes.append(minute)

    def prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        self.shown.append((time_ms, rows.tolist(), prices.tolist()))

    def rejected(self, error: BarRejected, time_ms: int) -> None:
        self.errors.append(error)

    def revised(self, row: int, used: np.void, revised: np.void, time_ms: int) -> None:
        self.revisions.append((row, float(used["close"]), float(revised["close"])))

    def absent(self, row: int, start_ms: int, end_ms: int, cause: str, time_ms: int) -> None:
        first, last = ((time - START) // MINUTE_MS for time in (start_ms, end_ms))
        self.gone.append((row, first, last, cause))

    async def fetch(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, (start_ms - START) // MINUTE_MS, (end_ms - START) // MINUTE_MS))
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise DOWN
        have = self.stored.get(symbol, bars())
        return have[(have["open_time"] >= start_ms) & (have["open_time"] < end_ms)]

    async def server_time(self) -> int:
        if self.down:
            raise DOWN
        return self.server_ms


class Line:
    """An intake of two symbols over a desk; `send` sends a message. `at_work` lets it ask REST."""

    def __init__(self, symbols: tuple[str, ...] = ("A", "B")) -> None:
        self.desk, self.board = Desk(), Board(worker="w")
        nobody: Any = None
        self.seconds = 0.0
        self.intake = Intake(
            symbols,
            WaveAssembler(START - 1, [START - 1] * len(symbols), deadline_ms=5_000),
            self.desk,
            self.board,
            ws_root="ws://nowhere",
            session=nobody,
            fetch=self.desk.fetch,
            server_time=self.desk.server_time,
            jitter=Random(1),
            seconds=lambda: self.seconds,
            venue_ms=START,
        )

    async def send(self, raw: bytes) -> None:
        """One message."""
        self.seconds += 1.0
        await self.intake.stream.take(raw)

    async def say(self, symbol: str, minute: int, price: float = 100.0, after_ms: int = DELAY) -> None:
        """The closed bar of a minute, `after_ms` after its close."""
        await self.send(message(symbol, bars(minute, price=price)[0], close(minute) + after_ms))

    async def tick(
        self, symbol: str, time_ms: int, price: float, low: float | None = None, high: float | None = None
    ) -> None:
        """A partial update; low and high are those of the bar so far."""
        bar = bars((time_ms - START) // MINUTE_MS, price=price)
        bar["low"], bar["high"] = price if low is None else low, price if high is None else high
        await self.send(message(symbol, bar[0], time_ms, closed=False))

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


@asynccontextmanager
async def at_work(symbols: tuple[str, ...] = ("A", "B")) -> AsyncIterator[Line]:
    """A line that asks REST for what it lacks."""
    line = Line(symbols)
    async with line.intake.stream.answering() as group:
        yield line
        for task in list(group._tasks):
            task.cancel()


async def test_complete_waves_leave_at_once_and_price_updates_before_them() -> None:
    async with at_work() as line:
        await line.tick("A", START + 20_000, 101.0)
        assert line.desk.shown == []
        await line.say("A", 0)
        await line.say("B", 0)
        assert line.waves == [(0, [0, 1], [], [])]
        assert line.prices[:3] == [101.0] * 3
        assert line.prices[-1] == 100.0, "the closed bar is the last word before its wave"
        assert [time_ms for time_ms, _, _ in line.desk.shown] == [START + 20_000, close(0)]
        assert line.intake.feed.venue_delay.last_s == pytest.approx(2.0)
        assert line.desk.asked == []


async def test_a_missing_minute_is_fetched_before_the_next_bar_of_its_series() -> None:
    async with at_work() as line:
        line.desk.stored["A"] = bars(0, 1)
        line.desk.stored["B"] = bars(1)
        await line.say("B", 0)
        await line.say("A", 2)
        await line.say("B", 2)
        assert line.desk.asked == [("A", 0, 2), ("B", 1, 2)]
        assert line.waves == [(0, [0, 1], [], []), (1, [0, 1], [], []), (2, [0, 1], [], [])]
        await line.say("A", 1)
        assert (line.intake.feed.repeated, line.board.rejected) == (1, {}), "it is no fault of the stream's own copy"
        assert line.board.bars_fetched == 3


async def test_at_the_deadline_rest_is_asked_and_without_an_answer_the_absentee_is_named() -> None:
    async with at_work() as line:
        line.desk.stored["B"] = bars(0)
        await line.say("A", 0)
        await line.tick("A", close(0) + DEADLINE - 1, 100.0)
        assert (line.waves, line.desk.asked) == ([], [])
        await line.tick("A", close(0) + DEADLINE, 100.0)
        assert line.waves == [(0, [0, 1], [], [])]
        line.desk.down = True
        await line.say("A", 1)
        await line.tick("A", close(1) + 6_000, 100.0)
        assert line.waves[1] == (1, [0], [1], [])
        assert "cannot be fetched" in line.board.notes["rest"]


async def test_a_bar_after_the_cut_leaves_late_before_the_next() -> None:
    async with at_work() as line:
        await line.say("A", 0)
        await line.tick("A", close(0) + DEADLINE, 100.0)
        await line.say("B", 0, after_ms=5_500)
        assert line.waves == [(0, [0], [1], [])]
        await line.say("A", 1)
        await line.say("B", 1)
        assert line.waves[1] == (1, [0, 1], [], [0])


async def test_while_rest_is_down_a_bar_behind_a_gap_is_held_back_and_comes_with_the_gap() -> None:
    async with at_work() as line:
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
    async with at_work() as line:
        line.desk.stored = {"A": bars(0, 1), "B": bars(0, 1)}
        line.desk.server_ms = close(1) + 6_000
        for _ in range(bar_stream.QUIET_TICKS + 1):
            await line.intake.stream.look()
        await asyncio.wait(line.intake.stream._answers)
        assert line.waves == [(0, [0, 1], [], []), (1, [0, 1], [], [])]
        assert sorted(line.desk.asked) == [("A", 0, 2), ("B", 0, 2)], "one question for all minutes"


async def test_a_wave_waits_for_rest_while_there_is_time_and_not_for_what_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bar_stream, "PATIENCE_S", 0.001)
    async with at_work() as line:
        line.desk.hangs = True
        await line.say("A", 0)
        await line.tick("A", close(0) + DEADLINE, 100.0)
        await line.tick("A", close(0) + DEADLINE - 1 + GRACE_MS, 100.0)
        assert (line.waves, line.desk.asked) == ([], [("B", 0, 1)])
        await line.tick("A", close(0) + DEADLINE + GRACE_MS, 100.0)
        assert line.waves == [(0, [0], [1], [])]


async def test_waves_are_run_one_at_a_time_whatever_connection_completes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free, began = asyncio.Event(), asyncio.Event()
    async with at_work() as line:
        plain = line.desk.minute

        async def slow(minute: Minute, venue_ms: int) -> None:
            began.set()
            await free.wait()
            await plain(minute, venue_ms)

        monkeypatch.setattr(line.desk, "minute", slow)
        await line.say("A", 0)
        first = asyncio.create_task(line.say("B", 0))
        await began.wait()
        shown = len(line.desk.shown)
        others = [asyncio.create_task(line.say(symbol, 1)) for symbol in "AB"]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not others[1].done()
        assert len(line.desk.shown) == shown, "no price in the middle of a wave"
        assert line.intake.lock.locked()
        free.set()
        await asyncio.gather(first, *others)
        assert line.waves == [(0, [0, 1], [], []), (1, [0, 1], [], [])]


async def test_what_will_not_come_is_told_with_its_cause() -> None:
    async with at_work() as line:
        await line.say("A", 0)
        await line.tick("A", close(0) + DEADLINE, 100.0)
        bad = bars(1)
        bad["high"] = 1.0
        line.desk.stored["B"] = bad
        await line.say("A", 1)
        await line.say("A", 2)
        await line.say("B", 2)
        assert line.waves == [(0, [0], [1], []), (1, [0], [1], []), (2, [0, 1], [], [])]
        assert line.desk.gone == [(1, 0, 1, "venue_has_no_data"), (1, 1, 2, "impossible_bar")]
        assert [(error.symbol, error.open_time) for error in line.desk.errors] == [("B", START + MINUTE_MS)]


async def test_a_symbol_that_has_left_holds_up_nobody_and_is_asked_for_ever_more_rarely() -> None:
    async with at_work() as line:
        for minute in range(60):
            await line.say("A", minute)
            await line.tick("A", close(minute) + 30_000, 100.0)
        assert [wave[0] for wave in line.waves] == list(range(60))
        assert len(line.desk.asked) < 15
        before = len(line.waves)
        await line.say("A", 60)
        assert len(line.waves) == before + 1, "with the bar of the others, not at the deadline"
        await line.say("B", 61)
        await line.say("A", 61)
        assert line.waves[-1] == (61, [0, 1], [], [])
        assert {cause for _, _, _, cause in line.desk.gone} == {"venue_has_no_data"}
        assert sum(last - first for _, first, last, _ in line.desk.gone) == 61


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
    async with at_work() as line:
        line.desk.stored["A"] = bars(0)
        bad = bars(0)
        for name, value in changes.items():
            bad[name] = value
        await line.send(message("A", bad[0], close(0) + DELAY))
        await line.say("B", 0)
        await line.tick("B", close(0) + DEADLINE, 100.0)
        assert line.waves == [(0, [0, 1], [], [])], "REST has the bar as it should be"
        assert line.board.rejected == {reason: 1}
        [error] = line.desk.errors
        assert (error.symbol, error.open_time, category(error.reason)) == ("A", START, reason)


async def test_unknown_symbols_garbage_repeats_and_bars_from_the_future_are_counted_apart() -> None:
    async with at_work() as line:
        await line.send(message("NOSUCHUSDT", bars(0)[0], close(0) + DELAY))
        await line.send(b"{")
        await line.send(b'{"result":null,"id":1}')
        await line.send(message("A", bars(0)[0], close(0) - 1))
        await line.say("A", 0)
        await line.say("A", 0)
        await line.send(message("B", bars(9)[0], close(9)))
        assert line.board.rejected == {
            "the series is not followed": 1,
            "the message cannot be read (StreamMessageInvalid)": 1,
            "it is closed before its last millisecond": 1,
            "its event time lies in the future": 1,
        }
        assert line.intake.feed.repeated == 1
        assert line.intake.feed.venue_ms == close(0) + DELAY
        line.desk.server_ms = close(9) + 3_000
        await line.send(message("B", bars(9)[0], close(9)))
        assert line.intake.feed.venue_ms == close(9) + 3_000, "unless the venue's own clock agrees"


async def test_a_bar_that_comes_again_with_other_numbers_is_noted_and_not_used() -> None:
    async with at_work() as line:
        await line.say("A", 0, price=100.0)
        await line.say("B", 0)
        await line.say("A", 0, price=99.0, after_ms=60_000)
        assert line.desk.revisions == [(0, 100.0, 99.0)]
        assert len(line.waves) == 1


async def test_while_the_venues_time_is_behind_the_last_wave_it_is_not_ready_and_says_why() -> None:
    async with at_work() as line:
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
    async with at_work() as line:
        for _ in range(3 * JOURNALED_PER_MINUTE):
            await line.send(b"{")
        assert line.board.rejected.total() == 3 * JOURNALED_PER_MINUTE
        assert len(line.desk.errors) == JOURNALED_PER_MINUTE


async def test_price_updates_are_handed_over_by_the_quarter_second() -> None:
    async with at_work() as line:
        for offset in range(0, 1_000, 100):
            await line.tick("A", START + offset, 100.0)
        assert [len(prices) for _, _, prices in line.desk.shown] == [5, 3, 3]


async def test_the_extremes_of_a_bar_tell_what_was_touched_between_two_messages() -> None:
    async with at_work() as line:
        times = iter(range(START, START + 60_000, 1_000))
        await line.tick("A", next(times), 100.0, low=98.0, high=101.0)
        await line.tick("A", next(times), 100.0, low=98.0, high=101.0)
        await line.tick("A", next(times), 99.0, low=98.0, high=105.0)
        await line.tick("A", next(times), 104.0, low=90.0, high=106.0)
        await line.tick("A", next(times), 104.0, low=90.0, high=106.0)
        assert line.prices == [98.0, 101.0, 100.0, 100.0, 105.0, 99.0, 90.0, 106.0, 104.0]


async def test_an_impossible_price_update_is_refused() -> None:
    async with at_work() as line:
        await line.tick("A", START, 100.0, low=101.0)
        await line.tick("A", START, float("nan"))
        await line.tick("A", START, -1.0)
        assert line.board.rejected == {"a price update is not possible": 3}
