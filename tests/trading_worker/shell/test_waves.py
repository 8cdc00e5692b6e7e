"""The wave assembler: complete, cut, late, silent; and that the order of arrival does not matter."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from market.bars import MINUTE_MS, from_columns
from trading_worker.shell.waves import NEVER, Minute, WaveAssembler

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
    waves.take(1, bar(0))
    assert waves.ready() is None
    waves.take(0, bar(0))
    minute = waves.ready()
    assert minute is not None
    assert (minute.time_ms, minute.rows.tolist(), minute.absent.tolist(), minute.late) == (close(0), [0, 1], [], ())
    assert [waves.next_open(row) for row in range(2)] == [START + MINUTE_MS] * 2


def test_a_wave_is_overdue_by_the_venues_time_only_and_cut_names_the_absentees() -> None:
    waves = assembler(3, deadline_ms=5_000)
    waves.take(1, bar(0))
    assert not waves.overdue(close(0) + 5_000)
    assert waves.overdue(close(0) + 5_001)
    assert waves.lacking() == [0, 2]
    minute = waves.cut()
    assert (minute.rows.tolist(), minute.absent.tolist()) == ([1], [0, 2])
    assert not waves.overdue(close(0) + 5_001)


def test_a_late_bar_leaves_right_before_the_next_bar_of_its_series_and_not_earlier() -> None:
    waves = assembler(2, patience=9)
    waves.take(1, bar(0))
    waves.cut()
    waves.take(0, bar(0))
    waves.take(1, bar(1))
    without = waves.cut()
    assert without.late == ()
    assert waves.next_open(0) == START + MINUTE_MS
    waves.take(0, bar(1))
    waves.take(0, bar(2))
    waves.take(1, bar(2))
    minute = waves.ready()
    assert minute is not None
    assert [(late.time_ms, late.rows.tolist()) for late in minute.late] == [(close(0), [0]), (close(1), [0])]


def test_a_series_that_never_had_a_bar_lacks_none_before_the_next_wave() -> None:
    waves = WaveAssembler(CLOSE0, [NEVER, CLOSE0 - 2 * MINUTE_MS])
    assert [waves.next_open(row) for row in range(2)] == [START, START - 2 * MINUTE_MS]


def test_bars_of_a_later_minute_wait_for_their_wave() -> None:
    waves = assembler(2)
    for minute in range(3):
        waves.take(0, bar(minute))
    assert (waves.ready(), waves.lacking()) == (None, [1])
    waves.take(1, bar(0, price=7.0))
    [first] = drain(waves)
    assert first.bars["close"].tolist() == [100.0, 7.0]
    waves.take(1, bar(1))
    waves.take(1, bar(2))
    assert [minute.time_ms for minute in drain(waves)] == [close(1), close(2)]


def test_a_series_that_stays_away_is_not_waited_for_and_its_next_bar_ends_that() -> None:
    waves = assembler(2, patience=2)
    for minute in range(2):
        waves.take(0, bar(minute))
        assert waves.ready() is None
        waves.cut()
    waves.take(0, bar(2))
    alone = waves.ready()
    assert alone is not None
    assert alone.absent.tolist() == [1]
    waves.take(1, bar(3))
    assert waves.ready() is None
    waves.take(0, bar(3))
    assert waves.ready() is not None
    waves.take(0, bar(4))
    assert waves.ready() is None, "a series that is back is waited for"


def test_a_bar_that_comes_too_late_for_its_wave_brings_its_series_back_too() -> None:
    waves = assembler(2, patience=1)
    waves.take(0, bar(0))
    waves.cut()
    waves.take(0, bar(1))
    assert waves.ready() is not None
    waves.take(1, bar(1))
    waves.take(0, bar(2))
    assert waves.ready() is not None, "the wave that was open already does not begin to wait"
    waves = assembler(2, patience=2)
    for minute in range(3):
        waves.take(0, bar(minute))
        waves.cut()
    waves.take(1, bar(2))
    waves.take(0, bar(3))
    waves.cut()
    waves.take(0, bar(4))
    assert waves.ready() is None


def test_with_every_series_silent_waves_leave_only_at_their_deadline() -> None:
    waves = assembler(1, patience=1)
    waves.cut()
    assert waves.ready() is None
    assert not waves.overdue(close(1) + 5_000)
    assert waves.overdue(close(1) + 5_001)
    assert waves.lacking() == []


@given(data=st.data(), series=st.integers(1, 5), minutes=st.integers(1, 6))
def test_any_interleaving_that_keeps_each_series_order_gives_the_same_waves(
    data: st.DataObject, series: int, minutes: int
) -> None:
    arrivals = data.draw(st.permutations([row for row in range(series) for _ in range(minutes)]))
    waves = assembler(series)
    counts = [0] * series
    seen: list[Minute] = []
    for row in arrivals:
        waves.take(row, bar(counts[row], price=100.0 + row))
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
        for row, here in enumerate(flags):
            # In its series a bar comes only after those before it.
            for due, owing, owed_minute in list(owed):
                if owing == row and (here or due <= minute):
                    waves.take(row, bar(owed_minute))
                    owed.remove((due, owing, owed_minute))
            if here:
                waves.take(row, bar(minute))
            else:
                owed.append((minute + 1 + held_back, row, minute))
        wave = waves.cut()
        assert wave.absent.tolist() == [row for row, here in enumerate(flags) if not here]
        for part in (*wave.late, wave):
            for row in part.rows.tolist():
                fed[row].append(part.time_ms)
    expected = [close(minute) for minute in range(len(everyone))]
    assert fed == [expected] * 3
