"""One simulated minute after the other, as stream messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, MINUTE_MS, Bars, interval_ms, resample
from market.simulator.clock import SimulatedClock
from market.simulator.connections import FORCED_KINDS, TICKER_KINDS, Stream
from market.simulator.day_tickers import DayTickers
from market.simulator.faults import Faults, revise, spoil
from market.simulator.prices import fold, so_far
from market.simulator.streams import CLOSE_DELAY_MS, MARK_PRICE_OFFSET_MS, Hub
from market.simulator.tape import Chunk, Past, Tape
from market.simulator.text import continuous_kline, kline_events, mark_price_events
from market.simulator.ticks import Ticks
from market.simulator.trading import Trading

Messages = dict[str, list[bytes]]
CLOSE_OFFSET_MS = MINUTE_MS - 1 + CLOSE_DELAY_MS


MARKED_UPDATES = 20
"""From so many updates of a bar on, mark prices are sent as often, at least every three seconds as at the venue."""


@dataclass(frozen=True)
class Plan:
    """What is subscribed, sorted by what it takes to make it."""

    minutes: tuple[tuple[str, ...], NDArray[np.int64]]
    marks: tuple[tuple[str, ...], NDArray[np.int64]]
    longer: tuple[tuple[str, int, str], ...]
    ticks: tuple[tuple[str, Stream], ...]
    all_marks: tuple[str, ...]
    tickers: tuple[tuple[str, Stream], ...]
    continuous: tuple[str, ...]

    @classmethod
    def of(cls, wanted: Mapping[str, Stream]) -> Plan:
        """The plan for these streams."""
        minutes, marks = [], []
        longer, ticks, all_marks, tickers = [], [], [], []
        continuous = tuple(name for name, stream in wanted.items() if stream.kind == "continuous")
        for name, stream in wanted.items():
            if stream.kind in FORCED_KINDS:
                continue  # told when it happens, not by the minute
            if stream.kind in TICKER_KINDS:
                tickers.append((name, stream))
            elif stream.kind == "markPrice":
                marks.append((name, stream.row))
            elif stream.kind == "allMarks":
                all_marks.append(name)
            elif stream.kind not in ("kline", "continuous"):
                ticks.append((name, stream))
            elif stream.interval == "1m":
                minutes.append((name, stream.row))
            else:
                longer.append((name, stream.row, stream.interval))
        return cls(
            *(_columns(minutes), _columns(marks), tuple(longer), tuple(ticks)),
            *(tuple(all_marks), tuple(tickers), continuous),
        )

    def renamed(self, messages: Messages) -> Messages:
        """The messages, with those of continuous klines in the form that they have."""
        for name in self.continuous:
            if name in messages:
                messages[name] = [continuous_kline(event) for event in messages[name]]
        return messages


def _columns(pairs: list[tuple[str, int]]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    return tuple(name for name, _ in pairs), np.array([row for _, row in pairs], dtype=np.int64)


class Bucket:
    """The minutes so far of one bar longer than a minute."""

    def __init__(self, interval: str, minutes: Bars) -> None:
        self.interval, self.step = interval, interval_ms(interval)
        self._bars = np.empty(self.step // MINUTE_MS, dtype=BAR)
        self._count = 0
        for i in range(minutes.size):
            self.add(minutes[i : i + 1])

    def add(self, minute: Bars) -> None:
        """One closed minute more; the first of a new bucket forgets the old ones."""
        if self._count and minute["open_time"][0] // self.step != self._bars["open_time"][0] // self.step:
            self._count = 0
        self._bars[self._count] = minute[0]
        self._count += 1

    def still_open(self, minute: Bars) -> Bars:
        """The bar with an unfinished minute at its end."""
        bucket = int(minute["open_time"][0]) // self.step * self.step
        before = self._bars[: self._count]
        before = before[before["open_time"] >= bucket]
        return fold(np.concatenate([before, minute]), bucket, self.step)

    def closed(self) -> Bars:
        """The bar if its last minute is in and none is missing, else nothing."""
        return resample(self._bars[: self._count], self.interval)


class Player:
    """Plays minutes: partial updates, mark prices, closed bars, each at its own simulated moment."""

    def __init__(
        self,
        symbols: tuple[str, ...],
        tape: Tape,
        past: Past,
        hub: Hub,
        clock: SimulatedClock,
        faults: Faults,
        digits: NDArray[np.int64],
        updates_per_bar: int,
        trading: Trading,
    ) -> None:
        self._names = symbols
        self._symbols = [msgspec.json.encode(symbol).decode() for symbol in symbols]
        self._tape, self._past, self._hub, self._clock, self._faults = tape, past, hub, clock, faults
        self._digits, self._trading = digits, trading
        self.ticks = Ticks(symbols, trading)
        self._tickers = DayTickers(symbols, past)
        offsets = [MINUTE_MS * (i + 1) // (updates_per_bar + 1) for i in range(updates_per_bar)]
        moments = [(offset, self._partial) for offset in offsets] + [(MARK_PRICE_OFFSET_MS, self._marks)]
        if updates_per_bar >= MARKED_UPDATES:
            moments += [(offset + 1, self._marks) for offset in offsets if offset + 1 < MARK_PRICE_OFFSET_MS]
        self._moments = sorted(moments, key=lambda moment: moment[0])
        self._last = np.full(len(symbols), np.nan)
        self._buckets: dict[tuple[int, str], Bucket] = {}
        self._wanted: Mapping[str, Stream] = {}
        self._plan = Plan.of({})
        self._late: list[tuple[str, bytes]] = []

    async def play(self, minute: int) -> None:
        """Let the minute that opens at `minute` happen."""
        chunk = await self._tape.chunk(minute)
        self._trading.load(chunk)
        index = (minute - chunk.start_ms) // MINUTE_MS
        for offset, make in self._moments:
            await self._clock.reach(minute + offset)
            await self._prepare(minute)
            self._trading.advance(minute + offset)
            messages = self._plan.renamed(make(chunk, index, offset))
            messages |= self.ticks.messages(self._plan.ticks)
            if self._plan.tickers:
                messages |= self._day(chunk, index, offset)
            self._hub.deliver(messages)
            if self._faults.asked and not self._clock.follows:
                # What went wrong is repaired in the middle of a minute: the time stands while a consumer does that.
                await self._hub.barrier(minute + offset)
        await self._clock.reach(minute + CLOSE_OFFSET_MS)
        await self._prepare(minute)
        self._trading.advance(minute + CLOSE_OFFSET_MS)
        self._hub.deliver(self._plan.renamed(self._closed(chunk, index)))
        present = chunk.present[index]
        self._last[present] = chunk.bars[index]["close"][present]
        self._tickers.close(chunk.bars[index], present)

    async def _prepare(self, minute: int) -> None:
        """Look at who is subscribed to what; a longer bar's minutes are read when somebody first wants it."""
        if self._hub.wanted is self._wanted:
            return
        self._wanted = self._hub.wanted
        self._plan = Plan.of(self._wanted)
        keys = {(row, interval) for _, row, interval in self._plan.longer}
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in keys}
        for row, interval in keys - self._buckets.keys():
            start = minute // interval_ms(interval) * interval_ms(interval)
            minutes = await self._past.minutes(self._names[row], start, minute)
            self._buckets[row, interval] = Bucket(interval, minutes)
        await self._tickers.prepare(self._plan.tickers, minute)

    def _day(self, chunk: Chunk, index: int, offset: int) -> Messages:
        """The tickers: the last 24 hours until now."""
        bars = so_far(chunk.bars[index], offset / MINUTE_MS, self._digits)
        now = chunk.start_ms + index * MINUTE_MS + offset
        return self._tickers.messages(self._plan.tickers, bars, chunk.present[index], now)

    def _partial(self, chunk: Chunk, index: int, offset: int) -> Messages:
        """The still-open bars at `offset` milliseconds into their minute."""
        minute = chunk.start_ms + index * MINUTE_MS
        present = chunk.present[index]
        bars = so_far(chunk.bars[index], offset / MINUTE_MS, self._digits)
        names, rows = self._plan.minutes
        keep = present[rows]
        rows = rows[keep]
        events = kline_events(minute + offset, [self._symbols[row] for row in rows], "1m", bars[rows], closed=False)
        messages = {name: [event] for name, event in zip(np.array(names, dtype=object)[keep], events, strict=True)}
        for name, row, interval in self._plan.longer:
            if present[row]:
                bar = self._buckets[row, interval].still_open(bars[row : row + 1])
                messages[name] = kline_events(minute + offset, [self._symbols[row]], interval, bar, closed=False)
        return messages

    def _marks(self, chunk: Chunk, index: int, offset: int) -> Messages:
        """The mark price, which is the last price unless a distance is asked for, and what is known of funding."""
        names, rows = self._plan.marks
        together = self._plan.all_marks
        if together:
            # All symbols are told of together; the rows come after those that are wanted one by one.
            names = names + ("",) * len(self._names)
            rows = np.concatenate([rows, np.arange(len(self._names))])
        if not names:
            return {}
        now = chunk.start_ms + index * MINUTE_MS + offset
        moving = so_far(chunk.bars[index], offset / MINUTE_MS, self._digits)["close"]
        distances = [float(self._trading.mark_distance.get(name, 0)) for name in self._names]
        prices = np.where(chunk.present[index], moving, self._last) * (1 + np.array(distances))
        venue = self._trading.venue
        for name in venue.closing | venue.closed:
            mark = self._trading.delistings.mark(name, now) if name in venue.closing else None
            prices[self._names.index(name)] = np.nan if mark is None else float(mark)
        found = [
            (name, row, *chunk.funding[row].at(now))
            for name, row in zip(names, rows.tolist(), strict=True)
            if not np.isnan(prices[row])
        ]
        kept = [row for _, row, _, _ in found]
        rates = np.array([rate for _, _, rate, _ in found])
        times = [time for _, _, _, time in found]
        events = mark_price_events(now, [self._symbols[row] for row in kept], prices[kept], rates, times)
        messages = {name: [event] for (name, *_), event in zip(found, events, strict=True) if name}
        if together:
            every = [event for (name, *_), event in zip(found, events, strict=True) if not name]
            messages |= {key: [b"[" + b",".join(every) + b"]"] for key in together}
        return messages

    def _closed(self, chunk: Chunk, index: int) -> Messages:
        """The closed bars of a minute, and of the longer bars that end with it."""
        minute = chunk.start_ms + index * MINUTE_MS
        event_time = minute + CLOSE_OFFSET_MS
        present, bars = chunk.present[index], chunk.bars[index]
        late, self._late = self._late, []
        names, rows = self._plan.minutes
        keep = present[rows]
        kept, rows = np.array(names, dtype=object)[keep], rows[keep]
        events = kline_events(event_time, [self._symbols[row] for row in rows], "1m", bars[rows], closed=True)
        messages: Messages = {name: [event] for name, event in zip(kept, events, strict=True)}
        if self._faults.pending:
            for name, row in zip(kept, rows.tolist(), strict=True):
                messages[name] = self._faulty(name, row, bars[row : row + 1], messages[name][0], event_time)
        for key, bucket in self._buckets.items():
            if present[key[0]]:
                bucket.add(bars[key[0] : key[0] + 1])
        for name, row, interval in self._plan.longer:
            if present[row] and (minute + MINUTE_MS) % interval_ms(interval) == 0:
                bar = self._buckets[row, interval].closed()
                if bar.size:
                    messages[name] = kline_events(event_time, [self._symbols[row]], interval, bar, closed=True)
        for name, event in late:
            messages.setdefault(name, []).append(event)
        return messages

    def _faulty(self, name: str, row: int, bar: Bars, event: bytes, event_time: int) -> list[bytes]:
        """What is sent instead of one closed 1m bar."""
        faults, key = self._faults, (self._names[row], int(bar["open_time"][0]))
        kind = faults.corrupted.pop(key, None)
        if kind is not None:
            faults.count("corrupt")
            symbol = '"NOSUCHUSDT"' if kind == "unknown_symbol" else self._symbols[row]
            event = kline_events(event_time, [symbol], "1m", spoil(bar, kind), closed=True)[0]
            event = event[: len(event) // 2] if kind == "garbage" else event
        if faults.use("revise_closed", faults.revised, key):
            other = kline_events(event_time + MINUTE_MS, [self._symbols[row]], "1m", revise(bar), closed=True)[0]
            self._late.append((name, other))
        if faults.use("drop_closed", faults.dropped, key):
            return []
        if key in faults.withheld:  # stays pending: REST must go on without it
            faults.count("withhold")
            return []
        if faults.use("late_closed", faults.late, key):
            self._late.append((name, event))
            return []
        return [event, event] if faults.use("duplicate_closed", faults.duplicated, key) else [event]
