"""Each bar once, in order, with nothing left out silently, whatever streams and REST do."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import INTERVAL_MS, MINUTE_MS, Bars, from_columns
from market.binance.bar_feed import (
    ABSENT_MS,
    DEADLINE_MS,
    JUMP_MS,
    LATE_WORD_MS,
    MOST_DOUBTED,
    MOST_HELD,
    MOST_SILENT_MS,
    BarFeed,
)
from market.binance.bar_sink import ClosedBar, Question, Silence
from market.binance.delays import Delays
from market.binance.errors import StreamMessageInvalid
from market.binance.streams import ControlAnswer, KlineEvent
from market.errors import BarRejected

START = 1_767_657_600_000
CLOSED_AFTER = 2_000


def bars(*minutes: int, price: float = 100.0) -> Bars:
    columns = {name: [price + minute for minute in minutes] for name in ("open", "high", "low", "close", "volume")}
    return from_columns({"open_time": [START + minute * MINUTE_MS for minute in minutes], **columns})


def message(symbol: str, minute: int, *, closed: bool = True, at: int | None = None, price: float = 100.0) -> bytes:
    """A kline message as the venue sends it; its numbers are those of `bars`."""
    opened, value = START + minute * MINUTE_MS, str(price + minute)
    kline = {"t": opened, "T": opened + MINUTE_MS - 1, "s": symbol, "i": "1m", "x": closed, "n": None, "q": "NaN"}
    kline |= dict.fromkeys(("o", "h", "l", "c", "v"), value) | {"V": "NaN", "Q": "NaN"}
    event_time = opened + MINUTE_MS - 1 + CLOSED_AFTER if at is None else at
    return msgspec.json.encode({"e": "kline", "E": event_time, "s": symbol, "k": kline})


class Desk:
    """A sink that remembers everything, minutes counted from START."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int, float, bool]] = []
        self.moves: list[tuple[str, int]] = []
        self.revisions: list[tuple[str, int, float, float]] = []
        self.gaps: list[tuple[str, int, int, str]] = []
        self.errors: list[BarRejected | StreamMessageInvalid] = []

    def closed(self, bar: ClosedBar) -> None:
        minute = (bar.open_time - START) // MINUTE_MS
        self.bars.append((bar.symbol, minute, float(bar.bar["close"]), bar.event_time is not None))

    def moving(self, event: KlineEvent) -> None:
        self.moves.append((event.symbol, (event.open_time - START) // MINUTE_MS))

    def revised(self, used: ClosedBar, other: np.void) -> None:
        minute = (used.open_time - START) // MINUTE_MS
        self.revisions.append((used.symbol, minute, float(used.bar["close"]), float(other["close"])))

    def absent(self, symbol: str, interval: str, start_ms: int, end_ms: int, cause: str) -> None:
        self.gaps.append((symbol, (start_ms - START) // MINUTE_MS, (end_ms - START) // MINUTE_MS, cause))

    def rejected(self, error: BarRejected | StreamMessageInvalid) -> None:
        self.errors.append(error)

    def minutes(self, symbol: str = "A") -> list[int]:
        return [minute for name, minute, _, _ in self.bars if name == symbol]


class Line:
    """A feed of some symbols and its desk."""

    def __init__(self, *symbols: str) -> None:
        self.desk, self.now_s = Desk(), 0.0
        series = {(symbol, "1m"): START for symbol in symbols or ("A",)}
        self.feed = BarFeed(series, self.desk, venue_ms=START, seconds=lambda: self.now_s)

    def say(self, *minutes: int, symbol: str = "A", **changes: object) -> None:
        for minute in minutes:
            self.feed.take(message(symbol, minute, **changes), self.now_s)  # type: ignore[arg-type]

    def asked(self) -> list[tuple[str, int, int]]:
        return [self.said(question) for question in self.feed.questions()]

    @staticmethod
    def said(question: Question) -> tuple[str, int, int]:
        first, last = ((time - START) // MINUTE_MS for time in (question.start_ms, question.end_ms))
        return question.symbol, first, last


def at(minute: int, after_ms: int = 0) -> int:
    """When a minute has closed, and some more."""
    return START + (minute + 1) * MINUTE_MS + after_ms


def question(first: int, last: int, symbol: str = "A") -> Question:
    return Question(symbol, "1m", START + first * MINUTE_MS, START + last * MINUTE_MS)


def test_closed_bars_go_out_in_order_and_open_ones_beside() -> None:
    line = Line()
    line.say(0, closed=False, at=START + 500)
    line.say(0)
    line.say(0, closed=False, at=at(0, 3_000))
    line.say(1, closed=False, at=at(0, 4_000))
    line.say(1)
    assert line.desk.bars == [("A", 0, 100.0, True), ("A", 1, 101.0, True)]
    assert line.desk.moves == [("A", 0), ("A", 0), ("A", 1), ("A", 1)], "what is older than the last bar moves nothing"
    assert line.asked() == []


def test_a_gap_is_filled_over_rest_before_the_bar_is_delivered() -> None:
    line = Line("A", "B")
    line.say(0)
    line.say(0, 1, 2, symbol="B")
    line.say(3)
    assert line.feed.gap
    assert line.asked() == [("A", 1, 3)]
    assert line.asked() == [], "asked once until it is answered"
    line.say(3, symbol="B")
    line.say(4)
    assert line.desk.minutes() == [0]
    assert line.desk.minutes("B") == [0, 1, 2, 3], "others do not wait"
    line.feed.answered(question(1, 3), bars(1, 2), at(4))
    assert line.desk.bars[-4:] == [
        ("A", 1, 101.0, False),
        ("A", 2, 102.0, False),
        ("A", 3, 103.0, True),
        ("A", 4, 104.0, True),
    ]
    assert line.asked() == []


def test_a_bar_that_the_stream_does_not_close_comes_over_rest_after_the_deadline() -> None:
    line = Line()
    line.feed.observe(at(0, DEADLINE_MS - 1))
    assert line.asked() == []
    line.feed.observe(at(0, DEADLINE_MS))
    assert line.asked() == [("A", 0, 1)]
    line.feed.answered(question(0, 1), bars(0), at(0, DEADLINE_MS))
    assert line.desk.minutes() == [0]
    line.say(0)
    assert line.desk.minutes() == [0]
    assert line.feed.repeated == 1


def test_what_rest_does_not_have_yet_is_asked_for_again_and_given_up_in_the_end() -> None:
    line = Line()
    line.feed.observe(at(0, DEADLINE_MS))
    assert line.asked() == [("A", 0, 1)]
    line.feed.answered(question(0, 1), bars(), at(0, DEADLINE_MS))
    assert line.asked() == []
    line.feed.observe(at(0, DEADLINE_MS + 1_000))
    assert line.asked() == [("A", 0, 1)]
    line.feed.answered(question(0, 1), bars(), at(0, ABSENT_MS - 1))
    assert line.desk.gaps == []
    line.feed.observe(at(0, ABSENT_MS + 2_000))
    assert line.asked() == [("A", 0, 1)]
    line.feed.answered(question(0, 1), bars(), at(0, ABSENT_MS))
    assert line.desk.gaps == [("A", 0, 1, "venue_has_no_data")]
    line.say(1)
    assert line.desk.minutes() == [1]
    line.say(0, at=at(1, 5_000))
    assert line.desk.minutes() == [1]
    assert "has passed" in str(line.desk.errors[0])


def test_a_hole_that_rest_has_too_is_given_up_at_once() -> None:
    line = Line()
    line.feed.observe(at(4))
    line.say(0, 5)
    assert line.asked() == [("A", 1, 5)]
    line.feed.answered(question(1, 5), bars(1, 3), at(4, 30_000))
    assert line.desk.minutes() == [0, 1, 3]
    assert line.desk.gaps == [("A", 2, 3, "venue_has_no_data")]
    line.feed.observe(at(5, 9_000))
    assert line.asked() == [("A", 4, 5)]
    line.feed.answered(question(4, 5), bars(4), at(5, 9_000))
    assert line.desk.minutes() == [0, 1, 3, 4, 5]


def test_a_series_of_which_rest_has_nothing_is_asked_for_ever_more_rarely_until_it_moves() -> None:
    line, asked = Line("A", "B"), []
    for second in range(60, 4 * 3600):
        now = at(0, (second - 60) * 1_000)
        line.feed.observe(now)
        if second % 60 == 2:
            line.say(second // 60 - 1, symbol="B")
        for each in line.feed.questions():
            asked.append(second)
            line.feed.answered(each, bars(), now)
    pauses = np.diff(asked).tolist()
    assert pauses[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert set(pauses[10:]) == {900}
    assert [(first, cause) for _, first, _, cause in line.desk.gaps][:3] == [
        (0, "venue_has_no_data"),
        (1, "venue_has_no_data"),
        (2, "venue_has_no_data"),
    ]
    assert [last for _, _, last, _ in line.desk.gaps][:-1] == [first for _, first, _, _ in line.desk.gaps][1:]
    minute = 4 * 60
    line.say(minute)
    [one, _] = line.feed.questions()
    line.feed.answered(one, bars(), at(minute, CLOSED_AFTER))
    assert line.desk.minutes() == [minute], "its next bar is asked about at once"
    line.feed.observe(at(minute + 1, DEADLINE_MS))
    assert line.asked() == [("A", minute + 1, minute + 2)]


def test_a_long_absence_is_told_as_one() -> None:
    line = Line()
    line.feed.observe(at(100))
    line.say(100)
    assert line.asked() == [("A", 0, 100)]
    line.feed.answered(question(0, 100), bars(*range(40, 60), *range(80, 100)), at(100, CLOSED_AFTER))
    assert line.desk.minutes() == [*range(40, 60), *range(80, 101)]
    assert line.desk.gaps == [("A", 0, 40, "venue_has_no_data"), ("A", 60, 80, "venue_has_no_data")]


def test_questions_are_due_only_where_there_may_be_some() -> None:
    line = Line("A", "B")
    assert line.asked() == []
    for minute in range(5):
        line.say(minute, closed=False, at=at(minute, -30_000))
        assert line.asked() == []
        line.say(minute)
        line.say(minute, symbol="B")
        assert not line.feed.due, "one look a minute is enough"
    line.say(6)
    assert line.feed.due
    assert line.asked() == [("A", 5, 6), ("B", 5, 6)]


def test_an_impossible_bar_is_rejected_and_asked_for() -> None:
    line = Line()
    line.say(0, price=-500.0)
    assert line.desk.minutes() == []
    assert isinstance(line.desk.errors[0], BarRejected)
    line.feed.observe(at(0, DEADLINE_MS))
    assert line.asked() == [("A", 0, 1)]
    line.feed.answered(question(0, 1), bars(0, price=-500.0), at(2))
    assert line.desk.gaps == [("A", 0, 1, "impossible_bar")]


def test_a_revision_is_told_and_changes_nothing() -> None:
    line = Line()
    line.say(0, 1)
    line.say(0, price=150.0, at=at(1, 5_000))
    line.say(1, at=at(1, 6_000))
    line.say(3)
    line.say(3, price=170.0, at=at(3, 6_000))
    line.feed.questions()
    line.feed.answered(question(2, 3), bars(2), at(3, 7_000))
    assert line.desk.revisions == [("A", 0, 100.0, 150.0), ("A", 3, 103.0, 173.0)]
    assert [close for _, _, close, _ in line.desk.bars] == [100.0, 101.0, 102.0, 103.0]
    assert line.feed.repeated == 1


def test_a_time_far_ahead_is_not_believed_before_rest_confirms_it() -> None:
    line = Line()
    line.say(60)
    assert line.feed.doubtful
    assert (line.desk.bars, line.feed.venue_ms) == ([], START)
    line.feed.observe(START + JUMP_MS)
    assert not line.feed.doubtful
    assert "future" in str(line.desk.errors[0])
    line.say(60)
    assert line.feed.doubtful
    line.feed.observe(at(60))
    assert line.asked() == [("A", 0, 60)], "it has waited for that"
    line.feed.answered(question(0, 60), bars(*range(60)), at(60))
    assert line.desk.minutes() == list(range(61))


def test_what_waits_for_the_time_is_bounded() -> None:
    line = Line()
    line.say(*[60] * (MOST_DOUBTED + 5))
    assert len(line.desk.errors) == 5
    line.feed.observe(START)
    assert len(line.desk.errors) == MOST_DOUBTED + 5


def test_a_bar_that_claims_to_be_closed_too_early_is_refused() -> None:
    line = Line()
    line.say(0, at=at(0, -2))
    assert line.desk.bars == []
    assert "last millisecond" in str(line.desk.errors[0])


def test_when_rest_fails_it_is_asked_again_ever_more_rarely() -> None:
    line = Line()
    line.feed.observe(at(0, DEADLINE_MS))
    asked, pauses = at(0, DEADLINE_MS), []
    for _ in range(9):
        (found,) = line.feed.questions()
        line.feed.failed(found)
        while not (again := line.feed.questions()):
            line.feed.observe(line.feed.venue_ms + 500)
        line.feed.failed(again[0])
        line.feed._series["A", "1m"].asked = 0
        pauses.append(line.feed.venue_ms - asked)
        asked = line.feed.venue_ms
    assert pauses[:3] == [1_000, 4_000, 16_000]
    assert pauses[-1] == 60_000


def test_streams_that_say_nothing_are_named_ever_more_rarely_until_they_speak() -> None:
    line = Line("A", "B")
    named = []
    for minute in range(70):
        line.say(minute, symbol="B")
        named += [(each.key[0], minute, each.times) for each in line.feed.silent()]
    # After more than 150 s, as long again, 5 and 10 minutes more, then every 15; a look comes once a minute.
    assert named == [("A", 2, 1), ("A", 5, 2), ("A", 11, 3), ("A", 22, 4), ("A", 38, 5), ("A", 54, 6)]
    assert not line.feed.speaks(("A", "1m"))
    line.say(69, closed=False, at=at(69, 1))
    assert line.feed.speaks(("A", "1m"))
    assert line.feed.silent() == []
    line.feed.observe(line.feed.venue_ms + 150_001)
    assert [each.times for each in line.feed.silent()] == [1, 1]


@pytest.mark.parametrize("interval", ["1m", "5m", "1h", "1d"])
def test_a_stream_is_silent_by_its_interval(interval: str) -> None:
    """Whoever trades nothing speaks when its bar closes, and that may be late."""
    start = START // INTERVAL_MS["1d"] * INTERVAL_MS["1d"]
    feed = BarFeed({("A", interval): start}, Desk(), venue_ms=start, seconds=lambda: 0.0)
    patience_ms = INTERVAL_MS[interval] + LATE_WORD_MS
    times = []
    for _ in range(7):
        begun = feed.venue_ms
        while not (told := feed.silent()):
            feed.observe(feed.venue_ms + 30_000)
        times.append(feed.venue_ms - begun)
        assert told == [Silence(("A", interval), len(times), rests=False)]
    assert times[0] == times[1] == patience_ms + 30_000
    assert times[-1] == max(patience_ms, MOST_SILENT_MS) + 30_000
    assert times == sorted(times)


def test_a_series_of_which_rest_has_nothing_either_rests() -> None:
    line = Line("A", "B")
    line.feed.observe(at(2))
    for each in line.feed.questions():
        answer = bars(0, 1) if each.symbol == "B" else bars()
        line.feed.answered(each, answer, at(2))
    assert line.feed.silent() == [Silence(("A", "1m"), 1, rests=True), Silence(("B", "1m"), 1, rests=False)]


def test_the_answer_to_a_control_message_is_handed_back() -> None:
    line = Line()
    assert line.feed.take(b'{"result":null,"id":4}', 0.0) == ControlAnswer(4)
    assert line.feed.take(b'{"code":2,"msg":"Invalid request","id":4}', 0.0) == ControlAnswer(
        4, None, 2, "Invalid request"
    )
    assert line.feed.take(message("A", 0), 0.0) is None
    assert (line.desk.errors, line.desk.minutes()) == ([], [0])


def test_delays_of_the_venue_and_our_own_are_apart() -> None:
    line = Line()
    line.say(0)
    line.say(2)
    line.now_s = 4.0
    line.feed.questions()
    line.feed.answered(question(1, 2), bars(1), at(2, 4_000))
    assert line.feed.venue_delay.count == 2
    assert line.feed.venue_delay.worst_s == CLOSED_AFTER / 1e3
    assert (line.feed.own_delay.count, line.feed.own_delay.worst_s) == (2, 4.0)
    [standing] = line.feed.standings()
    assert (standing.key, standing.delay_s, standing.silence_ms, standing.asking) == (("A", "1m"), 2.0, 2_001, False)
    assert standing.next_ms == START + 3 * MINUTE_MS


def test_what_is_held_is_bounded() -> None:
    line = Line()
    line.feed.observe(at(3 * MOST_HELD))
    line.say(*range(1, MOST_HELD + 50))
    assert len(line.feed._series["A", "1m"].held) == MOST_HELD
    line.feed.questions()
    line.feed.answered(question(0, 1), bars(0), at(3 * MOST_HELD))
    assert line.desk.minutes() == list(range(MOST_HELD + 1))
    ((_, first, _),) = line.asked()
    assert first == MOST_HELD + 1


@pytest.mark.parametrize("raw", [b"{", b"[]", b'{"e":"kline"}', message("NOSUCH", 0)])
def test_a_message_that_cannot_be_used_is_told(raw: bytes) -> None:
    line = Line()
    line.feed.take(raw, 0.0)
    assert len(line.desk.errors) == 1
    line.feed.take(b'{"result":null,"id":1}', 0.0)
    assert len(line.desk.errors) == 1


MINUTES = 12


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    st.floats(0, 0.6),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.sets(st.integers(0, MINUTES - 1), max_size=3),
    st.sets(st.integers(0, MINUTES - 1), max_size=3),
)
def test_whatever_happens_each_bar_is_there_once_and_in_order(
    seed: int, lost: float, repeated: float, rest_fails: float, holes: set[int], spoilt: set[int]
) -> None:
    """Messages lost, repeated, late and spoilt, REST failing, lagging and with holes: the series is the venue's."""
    random, symbols = Random(seed), ("A", "B")
    line = Line(*symbols)
    late: list[tuple[str, int]] = []
    truth = {symbol: bars(*(minute for minute in range(MINUTES) if minute not in holes)) for symbol in symbols}

    def ask() -> None:
        for each in line.feed.questions():
            if random.random() < rest_fails:
                line.feed.failed(each)
                continue
            lagging = now - random.choice((0, 0, 3_000))
            have = truth[each.symbol]
            have = have[(have["open_time"] >= each.start_ms) & (have["open_time"] < each.end_ms)]
            line.feed.answered(each, have[have["close_time"] < lagging], now)

    for minute in range(MINUTES):
        for symbol in symbols:
            now = at(minute, CLOSED_AFTER)
            line.feed.observe(now)
            if minute not in holes and random.random() >= lost:
                times = 2 if random.random() < repeated else 1
                if random.random() < 0.2:
                    late.append((symbol, minute))
                else:
                    line.say(*[minute] * times, symbol=symbol, price=-500.0 if minute in spoilt else 100.0)
            ask()
            for each in [each for each in late if random.random() < 0.5]:
                late.remove(each)
                line.say(each[1], symbol=each[0], at=now)
    for second in range(0, 40 * 60, 7):
        now = at(MINUTES - 1, second * 1_000)
        line.feed.observe(now)
        ask()
        if second > 1_200:
            rest_fails = 0.0
    for symbol in symbols:
        delivered = [minute for minute in line.desk.minutes(symbol) if minute < MINUTES]
        assert delivered == [minute for minute in range(MINUTES) if minute not in holes]
        gaps = [minute for name, first, last, _ in line.desk.gaps if name == symbol for minute in range(first, last)]
        assert [minute for minute in gaps if minute < MINUTES] == sorted(holes)
    assert all(close == 100.0 + minute for _, minute, close, _ in line.desk.bars)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1), st.floats(0.01, 1.0))
def test_quantiles_of_delays_are_near(values: list[float], share: float) -> None:
    delays = Delays()
    for value in values:
        delays.add(value)
    exact = sorted(values)[max(0, int(np.ceil(share * len(values))) - 1)]
    assert exact * 0.999 - 1e-5 <= delays.quantile(share) <= exact * 1.1 + 1e-5
    assert delays.worst_s == max(values)
