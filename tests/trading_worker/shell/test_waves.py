"""The wave assembler: complete, cut, late, silent; and that the order of arrival does not matter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market.bars import MINUTE_MS, from_columns
from trading_worker.shell.waves import NEVER, Minute, Offer, WaveAssembler

START = 1_746_403_200_000
CLOSE0 = START - 1


def bar(minute: int, price: float = 100.0) -> np.void:
    """The bar of the `minute`-th minute after START."""
    one = [price]
    columns = {"open_time": [START + minute * MINUTE_MS], "open": one, "high": one, "low": one, "close": one}
    return from_columns({**columns, "volume": [1.0]})[0]


def close(minute: int) -> int:
    """When that bar closes."""
    return START + (minute + 1) * MINUTE_MS - 1


def assembler(series: int, **options: int) -> WaveAssembler:
    """An assembler that has fed everything before START."""
    return WaveAssembler(CLOSE0, [CLOSE0] * series, **options)


def drain(waves: WaveAssembler) -> list[Minute]:
    """Every wave that is complete."""
    found = []
    while (minute := waves.ready()) is not None:
        found.append(minute)
    return found


def test_a_complete_wave_leaves_with_its_last_bar_and_names_no_absentee() -> None:
    waves = assembler(2)
    assert waves.offer(1, bar(0)) is Offer.WAVE
    assert waves.ready() is None
    waves.offer(0, bar(0))
    minute = waves.ready()
    assert minute is not None
    assert (minute.time_ms, minute.rows.tolist(), minute.absent.tolist(), minute.late) == (close(0), [0, 1], [], ())
    assert waves.fed == (close(0), close(0))


def test_a_wave_is_overdue_by_the_venues_time_only_and_cut_names_the_absentees() -> None:
    waves = assembler(3, deadline_ms=5_000)
    waves.offer(1, bar(0))
    assert waves.overdue(close(0) + 4_999) is None
    overdue = waves.overdue(close(0) + 5_000)
    assert overdue is not None
    assert (overdue.rows, overdue.start_ms, overdue.end_ms) == ((0, 2), START, START + MINUTE_MS)
    minute = waves.cut()
    assert (minute.rows.tolist(), minute.absent.tolist()) == ([1], [0, 2])


def test_after_a_long_silence_one_question_covers_all_minutes_that_are_overdue() -> None:
    waves = assembler(1)
    overdue = waves.overdue(close(9) + 6_000)
    assert overdue is not None
    assert (overdue.start_ms, overdue.end_ms) == (START, START + 10 * MINUTE_MS)


def test_a_late_bar_leaves_right_before_the_next_bar_of_its_series_and_not_earlier() -> None:
    waves = assembler(2, patience=9)
    waves.offer(1, bar(0))
    waves.cut()
    assert waves.offer(0, bar(0)) is Offer.LATE
    waves.offer(1, bar(1))
    without = waves.cut()
    assert without.late == ()
    assert waves.missing(0, START + 2 * MINUTE_MS) == (START + MINUTE_MS, START + 2 * MINUTE_MS)
    assert waves.offer(0, bar(1)) is Offer.LATE
    waves.offer(0, bar(2))
    waves.offer(1, bar(2))
    minute = waves.ready()
    assert minute is not None
    assert [(late.time_ms, late.rows.tolist()) for late in minute.late] == [(close(0), [0]), (close(1), [0])]


def test_what_was_taken_already_is_told_apart_from_what_is_new() -> None:
    waves = assembler(1)
    assert waves.offer(0, bar(-1)) is Offer.REPEATED
    assert waves.offer(0, bar(-2)) is Offer.OLDER
    waves.offer(0, bar(0))
    assert waves.offer(0, bar(0)) is Offer.REPEATED
    assert waves.offer(0, bar(0, price=101.0)) is Offer.REVISED
    waves.ready()
    assert waves.offer(0, bar(0)) is Offer.REPEATED
    assert waves.offer(0, bar(0, price=101.0)) is Offer.REVISED
    for minute in range(1, 20):
        waves.offer(0, bar(minute))
        waves.ready()
    assert waves.offer(0, bar(18)) is Offer.REPEATED
    assert waves.offer(0, bar(18, price=101.0)) is Offer.REVISED
    assert waves.offer(0, bar(0)) is Offer.OLDER
    shifted = bar(1).copy()
    shifted["open_time"] += 1
    shifted["close_time"] += 1
    assert waves.offer(0, shifted) is Offer.OFF_GRID


def test_missing_names_the_minutes_to_fetch_and_gives_up_what_the_venue_lacks() -> None:
    waves = assembler(1)
    assert waves.missing(0, START) is None
    assert waves.missing(0, START + 3 * MINUTE_MS) == (START, START + 3 * MINUTE_MS)
    waves.offer(0, bar(1))
    waves.asked(0, START, START + 3 * MINUTE_MS)
    assert waves.missing(0, START + 3 * MINUTE_MS) == (START, START + 3 * MINUTE_MS), "asked at the deadline, once more"
    waves.asked(0, START, START + 3 * MINUTE_MS)
    assert waves.missing(0, START + 3 * MINUTE_MS) is None


def test_rest_is_asked_once_at_the_deadline() -> None:
    waves = assembler(2)
    overdue = waves.overdue(close(0) + 5_000)
    assert overdue is not None
    waves.asked(0, overdue.start_ms, overdue.end_ms)
    again = waves.overdue(close(0) + 5_000)
    assert again is not None
    assert again.rows == (1,)
    assert WaveAssembler(CLOSE0, [NEVER]).missing(0, START + 3 * MINUTE_MS) is None


def test_a_series_that_stays_away_is_not_waited_for_and_its_next_bar_ends_that() -> None:
    waves = assembler(2, patience=2, retry_every=5)
    for minute in range(2):
        waves.offer(0, bar(minute))
        assert waves.ready() is None
        waves.cut()
    waves.offer(0, bar(2))
    alone = waves.ready()
    assert alone is not None
    assert alone.absent.tolist() == [1]
    waves.offer(0, bar(3))
    assert waves.ready() is not None
    waves.offer(0, bar(4))
    assert waves.ready() is None, "the fifth absence is waited for, so that REST is asked again"
    waves.offer(1, bar(4))
    assert waves.ready() is not None
    waves.offer(0, bar(5))
    assert waves.ready() is None, "a series that is back is waited for"


def test_with_every_series_silent_waves_leave_only_at_their_deadline() -> None:
    waves = assembler(1, patience=1)
    waves.cut()
    assert waves.ready() is None
    assert waves.overdue(close(1) + 4_999) is None
    overdue = waves.overdue(close(1) + 5_000)
    assert overdue is not None
    assert overdue.rows == ()


@given(data=st.data(), series=st.integers(1, 5), minutes=st.integers(1, 6))
def test_any_interleaving_that_keeps_each_series_order_gives_the_same_waves(
    data: st.DataObject, series: int, minutes: int
) -> None:
    arrivals = data.draw(st.permutations([row for row in range(series) for _ in range(minutes)]))
    waves = assembler(series)
    counts = [0] * series
    seen: list[Minute] = []
    for row in arrivals:
        assert waves.offer(row, bar(counts[row], price=100.0 + row)) is Offer.WAVE
        counts[row] += 1
        seen += drain(waves)
    assert [minute.time_ms for minute in seen] == [close(minute) for minute in range(minutes)]
    for minute in seen:
        assert minute.rows.tolist() == list(range(series))
        assert minute.bars["close"].tolist() == [100.0 + row for row in range(series)]
        assert minute.absent.size == 0


@given(
    present=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8),
    held_back=st.integers(0, 3),
)
def test_every_bar_leaves_exactly_once_and_ascending_whoever_was_absent(
    present: list[list[bool]], held_back: int
) -> None:
    """Absentees' bars come `held_back` waves later, or only with the next bar; either way the same is fed."""
    waves = assembler(3, patience=99)
    fed: list[list[int]] = [[], [], []]
    owed: list[tuple[int, int, int]] = []
    everyone = [*present, [True] * 3]
    for minute, flags in enumerate(everyone):
        for due, row, owed_minute in [entry for entry in owed if entry[0] <= minute]:
            assert waves.offer(row, bar(owed_minute)) is Offer.LATE
            owed.remove((due, row, owed_minute))
        for row, here in enumerate(flags):
            if not here:
                owed.append((minute + 1 + held_back, row, minute))
                continue
            for due, _, owed_minute in [entry for entry in owed if entry[1] == row]:
                assert waves.offer(row, bar(owed_minute)) is Offer.LATE
                owed.remove((due, row, owed_minute))
            assert waves.missing(row, START + minute * MINUTE_MS) is None
            waves.offer(row, bar(minute))
        wave = waves.cut()
        assert wave.absent.tolist() == [row for row, here in enumerate(flags) if not here]
        for part in (*wave.late, wave):
            for row in part.rows.tolist():
                fed[row].append(part.time_ms)
    expected = [close(minute) for minute in range(len(everyone))]
    assert fed == [expected] * 3
