"""From kline messages to bars: each once, in order in its series, with nothing left out silently.

Pure: messages, answers of REST and times come in; bars go out to a sink, and questions for REST are handed out. So any
order of events gives the same series.

The rules
- A bar counts when the venue has closed it: by `x=true`, or by REST once it is `deadline_ms` overdue.
- A bar that does not follow its series' last one is held, and what is missing is asked for over REST first.
- What REST does not have although it has later bars, or `absent_ms` after its close, is reported absent with its
  cause, and the series goes on after it.
- A bar that comes again with other numbers is reported as revised. What was delivered stays as it was.
- A series of which REST has nothing new is asked for ever more rarely, until it moves again.
- Time is the venue's. An event far ahead of it waits until REST has told the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from market.bars import MINUTE_MS, Bars, fault, interval_ms
from market.binance.bar_sink import ClosedBar, Key, Question, Silence, Sink, Standing
from market.binance.delays import Delays
from market.binance.errors import StreamMessageInvalid
from market.binance.streams import ControlAnswer, Event, KlineEvent, parse
from market.errors import BarRejected

DEADLINE_MS = 5_000
"""How long after its close a bar is waited for on the stream: the venue takes some 2 s."""
ABSENT_MS = 60_000
"""How long after its close a bar that REST does not have is asked for again."""
JUMP_MS = 2 * MINUTE_MS
"""An event time further ahead than this is believed only when REST confirms it."""
LATE_WORD_MS = 90_000
"""Venue time beyond its interval in which a stream is to have said something: even one without trades speaks when its
bar closes. So a stream of 1m is silent after 150 s."""
MOST_SILENT_MS = 15 * MINUTE_MS
"""Between two tellings that a stream is silent, unless its interval is longer."""
REMEMBERED = 8
MOST_HELD = 1_500
FIRST_PAUSE_MS, MOST_PAUSE_MS = 1_000, 60_000
"""Before REST is asked again after it could not be asked; and at first after it had nothing."""
MOST_EMPTY_PAUSE_MS = 15 * MINUTE_MS
"""Before a series is asked for again of which REST has had nothing for long: it has left the venue, or rests."""
MOST_DOUBTED = 200
"""Events from far ahead that wait for the venue's time; what goes beyond is refused."""


class _Series:
    """What is known of one series. A slot each, as messages are many."""

    __slots__ = (
        "asked",
        "asking",
        "delay_s",
        "empty",
        "failures",
        "heard_ms",
        "held",
        "key",
        "next_ms",
        "recent",
        "step",
        "told",
        "told_ms",
    )

    def __init__(self, key: Key, start_ms: int) -> None:
        self.key = key
        self.step = interval_ms(key[1])
        self.next_ms = start_ms
        self.heard_ms = start_ms
        self.told = 0
        self.told_ms = -1
        self.held: dict[int, tuple[ClosedBar, float]] = {}
        self.recent: dict[int, ClosedBar] = {}
        self.asking = False
        self.asked = start_ms
        self.failures = 0
        self.empty = 0
        self.delay_s = math.nan


class BarFeed:
    """All series of some symbols.

    Parameters
    ----------
    series: which, and the open time of the first bar to deliver of each.
    venue_ms: the venue's time at the start.
    seconds: a monotonic clock: how long we take ourselves is measured by it.
    """

    def __init__(
        self,
        series: dict[Key, int],
        sink: Sink,
        *,
        venue_ms: int,
        seconds: Callable[[], float],
        deadline_ms: int = DEADLINE_MS,
        absent_ms: int = ABSENT_MS,
        parse: Callable[[bytes], Event | None] = parse,
    ) -> None:
        self.venue_ms = venue_ms
        self.event_ms = venue_ms
        """The event time of the last message, which may be older than `venue_ms`."""
        self.messages = 0
        self.repeated = 0
        self.venue_delay = Delays()
        """From a bar's close to when the venue sent it closed."""
        self.own_delay = Delays()
        """From the receipt of a bar to its delivery."""
        self.doubtful = False
        """Whether an event from far ahead waits for REST to tell the time: see `observe`."""
        self.gap = False
        """Whether a bar has come since the last `questions` that has to wait for others."""
        self._look_ms = 0
        """Before this time, and without a gap, there is no question."""
        self._doubted: list[tuple[KlineEvent, float]] = []
        self._sink = sink
        self._seconds = seconds
        self._deadline_ms = deadline_ms
        self._absent_ms = absent_ms
        self._parse = parse
        self._series = {key: _Series(key, start) for key, start in series.items()}
        for each in self._series.values():
            each.heard_ms = venue_ms

    @property
    def keys(self) -> Sequence[Key]:
        """All series."""
        return tuple(self._series)

    @property
    def due(self) -> bool:
        """Whether there may be `questions`: cheap, for after each message."""
        return self.gap or self.venue_ms >= self._look_ms

    def next_ms(self, key: Key) -> int:
        """The open time of the bar that a series waits for."""
        return self._series[key].next_ms

    def asking_since(self, key: Key) -> int | None:
        """The venue's time when REST was asked for bars of a series, None when no answer is awaited."""
        series = self._series[key]
        return series.asked if series.asking else None

    def standings(self) -> list[Standing]:
        """How all series stand."""
        return [
            Standing(key, each.next_ms, self.venue_ms - each.heard_ms, each.delay_s, each.asking)
            for key, each in self._series.items()
        ]

    # What comes in

    def take(self, raw: bytes, received_s: float) -> ControlAnswer | None:
        """One message of a stream. The answer to a control message is handed back: it is about the streams."""
        self.messages += 1
        try:
            event = self._parse(raw)
        except StreamMessageInvalid as error:
            self._sink.rejected(error)
            return None
        if event.__class__ is not KlineEvent:
            return event if isinstance(event, ControlAnswer) else None
        if event.event_time > self.venue_ms + JUMP_MS:
            self.doubtful = True
            if len(self._doubted) < MOST_DOUBTED:
                self._doubted.append((event, received_s))
            else:
                self._refuse_time(event)
            return None
        self._take(event, received_s)
        return None

    def observe(self, server_ms: int) -> None:
        """The venue's time, as REST tells it. Events that waited for it are taken, or refused."""
        self.venue_ms = max(self.venue_ms, server_ms)
        doubted, self._doubted, self.doubtful = self._doubted, [], False
        for event, received_s in doubted:
            if event.event_time > self.venue_ms + JUMP_MS:
                self._refuse_time(event)
            else:
                self._take(event, received_s)

    def questions(self) -> list[Question]:
        """What REST is to be asked now. Each is to be answered, by `answered` or `failed`, before the series' next."""
        self.gap = False
        found, look_ms = [], self.venue_ms + MOST_EMPTY_PAUSE_MS
        for key, series in self._series.items():
            if series.asking:
                continue
            due_ms = self._due_ms(series)
            if due_ms > self.venue_ms:
                look_ms = min(look_ms, due_ms)
                continue
            # Before a held bar everything has closed; else it is asked for what the deadline has passed.
            closed_ms = (self.venue_ms - self._deadline_ms) // series.step * series.step
            series.asking, series.asked = True, self.venue_ms
            found.append(Question(*key, series.next_ms, min(series.held) if series.held else closed_ms))
        self._look_ms = look_ms
        return found

    def answered(self, question: Question, bars: Bars, server_ms: int) -> None:
        """REST's closed bars for a question, and a time of the venue from before it was asked."""
        series = self._series[question.symbol, question.interval]
        series.asking, series.failures = False, 0
        series.empty += 1
        self.venue_ms = max(self.venue_ms, server_ms)
        received_s = self._seconds()
        told = frozenset(bars["open_time"].tolist())
        for bar in bars:
            closed = ClosedBar(*series.key, bar, None)
            if self._is_new(series, closed):
                # What REST lacks although it has later bars will not come.
                self._give_up(series, closed.open_time, told)
                self._put(series, closed, received_s)
        late_ms = (server_ms - self._absent_ms) // series.step * series.step
        gone_ms = max(late_ms, max(told, default=-1) + series.step)
        self._give_up(series, min(question.end_ms, gone_ms), told)
        if series.empty:
            pause_ms = FIRST_PAUSE_MS << min(series.empty - 1, 16)
            series.asked = self.venue_ms + min(pause_ms, MOST_EMPTY_PAUSE_MS)
        elif series.next_ms < question.end_ms:
            series.asked = self.venue_ms + FIRST_PAUSE_MS
        self._look_ms = min(self._look_ms, self._due_ms(series))

    def failed(self, question: Question) -> None:
        """REST could not be asked: it is asked again after a pause, which grows."""
        series = self._series[question.symbol, question.interval]
        series.asking = False
        series.asked = self.venue_ms + min(MOST_PAUSE_MS, FIRST_PAUSE_MS * 2**series.failures)
        series.failures = min(series.failures + 1, 16)
        self._look_ms = min(self._look_ms, self._due_ms(series))

    def silent(self) -> list[Silence]:
        """Streams that have said nothing for too long, each told ever more rarely until it speaks again.

        Too long is its interval and `LATE_WORD_MS`. It is told again after as long once more, then after twice as
        long each time, up to `MOST_SILENT_MS`.
        """
        found = []
        for key, series in self._series.items():
            patience_ms = series.step + LATE_WORD_MS
            if series.heard_ms >= series.told_ms:
                series.told, since_ms = 0, series.heard_ms
            else:
                since_ms = series.told_ms
                patience_ms = min(patience_ms << min(series.told - 1, 16), max(patience_ms, MOST_SILENT_MS))
            if self.venue_ms - since_ms > patience_ms:
                series.told, series.told_ms = series.told + 1, self.venue_ms
                found.append(Silence(key, series.told, rests=series.empty > 0))
        return found

    def speaks(self, key: Key) -> bool:
        """Whether a stream has said something since it was last told silent, or never was."""
        series = self._series[key]
        return series.heard_ms >= series.told_ms

    # Inside

    def _refuse_time(self, event: KlineEvent) -> None:
        self._sink.rejected(BarRejected(event.symbol, event.open_time, "its event time lies in the future"))

    def _take(self, event: KlineEvent, received_s: float) -> None:
        """An event whose time is believed."""
        kline = event.kline
        series = self._series.get((event.symbol, kline.interval))
        if series is None:
            self._sink.rejected(BarRejected(event.symbol, kline.open_time, "the series is not followed"))
            return
        self.event_ms = event_time = event.event_time
        if event_time > self.venue_ms:
            self.venue_ms = event_time
        series.heard_ms = self.venue_ms
        if kline.closed:
            self._closed(series, event, received_s)
        elif kline.open_time >= series.next_ms:
            self._sink.moving(event)

    def _due_ms(self, series: _Series) -> int:
        """When REST is to be asked for a series, if nothing comes until then."""
        if series.held:
            return series.asked
        return max(series.asked, series.next_ms + series.step + self._deadline_ms)

    def _closed(self, series: _Series, event: KlineEvent, received_s: float) -> None:
        close_time = event.kline.close_time
        if event.event_time < close_time:
            self._sink.rejected(BarRejected(event.symbol, event.open_time, "it is closed before its last millisecond"))
            return
        closed = ClosedBar(*series.key, event.bar, event.event_time)
        if self._is_new(series, closed):
            series.delay_s = (event.event_time - close_time) / 1e3
            self.venue_delay.add(series.delay_s)
            self._sink.moving(event)
            self._put(series, closed, received_s)

    def _is_new(self, series: _Series, closed: ClosedBar) -> bool:
        """Whether a bar is possible and not here yet."""
        open_time = closed.open_time
        if open_time < series.next_ms or open_time in series.held:
            self._known(series, closed)
            return False
        reason = fault(closed.bar)
        if reason is not None or open_time % series.step:
            self._sink.rejected(BarRejected(closed.symbol, open_time, reason or "its open time is off the grid"))
            return False
        return True

    def _put(self, series: _Series, closed: ClosedBar, received_s: float) -> None:
        """Deliver a new bar, or hold it until those before it have come."""
        if closed.open_time == series.next_ms:
            self._deliver(series, closed, received_s)
            self._deliver_held(series)
        elif len(series.held) < MOST_HELD:
            series.held[closed.open_time] = closed, received_s
            self.gap = True
            if not series.failures:
                series.asked = min(series.asked, self.venue_ms)

    def _known(self, series: _Series, closed: ClosedBar) -> None:
        open_time = closed.open_time
        used = series.recent.get(open_time)
        if used is None and open_time in series.held:
            used = series.held[open_time][0]
        if used is None:
            if closed.event_time is not None:
                self._sink.rejected(BarRejected(closed.symbol, open_time, "its time in the series has passed"))
        elif _differs(used.bar, closed.bar):
            self._sink.revised(used, closed.bar)
        else:
            self.repeated += 1

    def _deliver_held(self, series: _Series) -> None:
        while series.held:
            held = series.held.pop(series.next_ms, None)
            if held is None:
                return
            self._deliver(series, *held)

    def _deliver(self, series: _Series, closed: ClosedBar, received_s: float) -> None:
        series.next_ms = closed.open_time + series.step
        if series.empty:
            series.empty = series.asked = self._look_ms = 0
        series.recent[closed.open_time] = closed
        if len(series.recent) > REMEMBERED:
            del series.recent[next(iter(series.recent))]
        if closed.event_time is not None:
            self.own_delay.add(self._seconds() - received_s)
        self._sink.closed(closed)

    def _give_up(self, series: _Series, end_ms: int, told: frozenset[int]) -> None:
        """Report what a series waits for before `end_ms` and will not come; REST has `told` the others."""
        while series.next_ms < end_ms:
            first_ms, impossible = series.next_ms, series.next_ms in told
            while series.next_ms < end_ms and series.next_ms not in series.held:
                if (series.next_ms in told) != impossible:
                    break
                series.next_ms += series.step
            cause = "impossible_bar" if impossible else "venue_has_no_data"
            self._sink.absent(*series.key, first_ms, series.next_ms, cause)
            self._deliver_held(series)


def _differs(used: np.void, other: np.void) -> bool:
    """Whether two bars have other numbers; what one of them does not record is no difference."""
    for name in used.dtype.names or ():
        one, two = used[name], other[name]
        if one != two and not (one != one or two != two):
            return True
    return False
