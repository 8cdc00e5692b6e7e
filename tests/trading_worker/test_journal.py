"""The journal keeps what it acknowledged, and says what it cannot read."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_worker import events
from trading_worker.errors import JournalCorrupt, JournalError, JournalLocked, JournalWriteFailed
from trading_worker.events import AnyEvent, BarRejected, BundleRefused, EpochStarted, PositionClosed, WaveClosed
from trading_worker.journal import Entry, Journal, digest, read, read_segment, segments


def refused(number: int, size: int = 8) -> BundleRefused:
    return BundleRefused(time_ms=number, bundle=str(number), reason="r" * size)


def write(folder: Path, count: int, **options: int) -> Path:
    """A journal of `count` records, one commit each; the path of its only segment."""
    with Journal(folder, "w", **options) as journal:
        for number in range(count):
            journal.append(refused(number))
            journal.commit()
    return segments(folder)[-1].path


def times(entries: list[Entry]) -> list[int]:
    return [entry.event.time_ms for entry in entries]


def edges(data: bytes) -> list[int]:
    """Where each record of a segment begins, and where the last one ends."""
    mark = (0xB5F7).to_bytes(2, "little")
    return [*(at for at in range(len(data)) if data.startswith(mark, at)), len(data)]


def test_what_was_written_is_read_back_in_order_with_its_place(tmp_path: Path) -> None:
    closed = PositionClosed(
        time_ms=5, wall_ms=7, position_id="A-1-1", symbol="A", decided_at=1, opened_at=2, known_at=5, direction=1,
        kind=1, entry=1.5, stop=1.0, target=2.0, exit_price=2.0, outcome=1, r=0.9, best=1.0, worst=-0.25,
        funding=0.125, quality=0.5, confidence=0.6, strategy="ict", bundle="b", decision_spec="d", ticks_outcome=1,
        ticks_disagree=False,
    )  # fmt: skip
    wave = WaveClosed(time_ms=4, decided=True, present=3, absent=("A", "B"), bundle="b", late=(("A", 1),))
    rejected = BarRejected(time_ms=6, symbol="A", open_time=3, reason="high 1 < low 2")
    written: list[AnyEvent] = [wave, closed, rejected]
    with Journal(tmp_path, "w") as journal:
        assert [journal.append(event) for event in written] == [0, 1, 2]
        journal.commit()
    assert list(read(tmp_path)) == [Entry("w", 1, number, event) for number, event in enumerate(written)]


def test_every_start_is_an_epoch_and_the_sequence_goes_on(tmp_path: Path) -> None:
    for _ in range(3):
        with Journal(tmp_path, "w") as journal:
            journal.append(refused(journal.sequence))
            journal.commit()
    assert [(entry.epoch, entry.sequence) for entry in read(tmp_path)] == [(1, 0), (2, 1), (3, 2)]


def test_what_was_not_committed_was_never_written(tmp_path: Path) -> None:
    with Journal(tmp_path, "w") as journal:
        journal.append(refused(0))
        assert list(read(tmp_path)) == []
        journal.commit()
        journal.append(refused(1))
        assert times(list(read(tmp_path))) == [0]


def test_segments_are_closed_by_size_and_closed_ones_never_change(tmp_path: Path) -> None:
    with Journal(tmp_path, "w", segment_bytes=300) as journal:
        for number in range(12):
            journal.append(refused(number, 40))
            journal.commit()
        closed = journal.closed()
        assert len(closed) >= 3
        before = [segment.path.read_bytes() for segment in closed]
        journal.append(refused(12))
        journal.commit()
        assert [segment.path.read_bytes() for segment in closed] == before
    entries = [entry for segment in closed for entry in read_segment(segment.path.read_bytes(), segment.path)]
    assert [entry.sequence for entry in entries] == list(range(len(entries)))
    assert [segment.first_sequence for segment in closed] == sorted({segment.first_sequence for segment in closed})
    assert times(list(read(tmp_path))) == list(range(13))


def test_rotation_on_request_closes_only_what_holds_something(tmp_path: Path) -> None:
    with Journal(tmp_path, "w") as journal:
        journal.rotate()
        assert journal.closed() == []
        journal.append(refused(0))
        journal.rotate()
        assert [segment.first_sequence for segment in journal.closed()] == [0]


def test_the_segment_that_is_being_created_is_no_closed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    with Journal(tmp_path, "w") as journal:
        fsync = os.fsync

        def look(file: int) -> None:
            fsync(file)
            seen.append([segment.index for segment in journal.closed()])

        monkeypatch.setattr(os, "fsync", look)
        for number in range(3):
            journal.append(refused(number))
            journal.rotate()
    by_rotation = [[[]], [[0]] * 2, [[0]], [[0, 1]] * 2, [[0, 1]], [[0, 1, 2]] * 2]
    assert seen == [part for parts in by_rotation for part in parts]


def test_a_thread_that_looks_while_segments_are_closed_sees_only_finished_ones(tmp_path: Path) -> None:
    found: dict[Path, bytes] = {}
    done = threading.Event()

    def look(journal: Journal) -> None:
        while not done.is_set():
            for segment in journal.closed():
                if segment.path not in found:
                    found[segment.path] = segment.path.read_bytes()

    with Journal(tmp_path, "w") as journal:
        thread = threading.Thread(target=look, args=(journal,))
        thread.start()
        try:
            for number in range(400):
                journal.append(refused(number))
                journal.rotate()
        finally:
            done.set()
            thread.join()
    assert {path: path.read_bytes() for path in found} == found
    assert [len(read_segment(data, path)) for path, data in found.items()] == [1] * len(found)
    assert len(found) > 1


def test_a_journal_keeps_its_identity_and_a_new_folder_takes_the_one_it_is_given(tmp_path: Path) -> None:
    for identity in ("first", "second"):
        with Journal(tmp_path / "kept", "w", identity=identity) as journal:
            journal.append(refused(0))
            journal.rotate()
            assert {segment.journal for segment in journal.closed()} == {"first"}
    with Journal(tmp_path / "lost", "w", identity="second") as journal:
        assert journal.identity == "second"


@pytest.mark.parametrize("record", [0, 2, 4])
def test_a_torn_end_is_cut_at_any_byte_and_put_aside(tmp_path: Path, record: int) -> None:
    path = write(tmp_path / "whole", 5)
    whole = path.read_bytes()
    start, end = edges(whole)[record : record + 2]
    for cut in range(start + 1, end):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(whole[:cut])
        assert times(list(read(folder))) == list(range(record)), "a reader passes over what is torn"
        with Journal(folder, "w") as journal:
            (torn,) = journal.torn
            assert (torn.offset, torn.size) == (start, cut - start)
            assert torn.kept.read_bytes() == whole[start:cut]
            assert journal.sequence == record
            journal.append(refused(99))
        assert times(list(read(folder))) == [*range(record), 99]


def test_a_file_that_ends_in_its_header_is_put_aside(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    newest = path.with_name("00000002-00000000.journal")
    newest.write_bytes(path.read_bytes()[:9])
    with Journal(tmp_path, "w") as journal:
        assert (journal.epoch, journal.sequence, journal.torn[0].size) == (3, 2, 9)
    assert not newest.exists()
    assert times(list(read(tmp_path))) == [0, 1]


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
@settings(max_examples=60, deadline=None)
def test_damage_inside_is_named_by_file_and_offset(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = write(folder, 6)
    data = bytearray(path.read_bytes())
    frames = edges(bytes(data))
    at = frames[0] + position % (frames[-2] - frames[0])
    data[at] ^= flip
    path.write_bytes(bytes(data))
    damaged = max(start for start in frames if start <= at)
    with pytest.raises(JournalCorrupt) as caught:
        list(read(folder))
    assert (caught.value.path, caught.value.offset) == (path, damaged)
    with pytest.raises(JournalCorrupt):
        Journal(folder, "w")
    assert path.read_bytes() == bytes(data), "nothing is changed by looking"


def test_a_missing_segment_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 12, segment_bytes=200)
    segments(tmp_path)[1].path.unlink()
    with pytest.raises(JournalCorrupt, match="begins with record"):
        list(read(tmp_path))


def test_a_cut_in_a_segment_that_others_follow_is_damage(tmp_path: Path) -> None:
    write(tmp_path, 12, segment_bytes=200)
    first = segments(tmp_path)[0].path
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(JournalCorrupt, match="segments follow"):
        list(read(tmp_path))
    with pytest.raises(JournalCorrupt, match="ends inside a record"):
        read_segment(first.read_bytes(), first)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"something else entirely", "does not begin as"), (b"PFJRNL\x09\x00" + bytes(8), "its version is 9")],
)
def test_another_file_is_no_segment(data: bytes, reason: str) -> None:
    with pytest.raises(JournalCorrupt, match=reason):
        read_segment(data)


def test_two_writers_never_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, "w"), pytest.raises(JournalLocked):
        Journal(tmp_path, "w")
    Journal(tmp_path, "w").close()


def test_a_journal_belongs_to_one_worker(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(JournalError, match="of worker 'w', not 'other'"):
        Journal(tmp_path, "other")
    Journal(tmp_path, "w").close()


def test_after_a_failed_fsync_nothing_is_taken_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, "w")
    journal.append(refused(0))
    journal.commit()
    journal.append(refused(1))

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(JournalWriteFailed, match="Input/output error"):
            journal.commit()
    for refused_call in (journal.commit, journal.rotate, lambda: journal.append(refused(2))):
        with pytest.raises(JournalWriteFailed):
            refused_call()
    journal.close()
    with Journal(tmp_path, "w") as again:
        assert again.sequence >= 1


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "w")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(refused(0))


def test_a_folder_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    assert list(read(tmp_path / "nowhere")) == []
    assert segments(tmp_path / "nowhere") == []


def test_the_digest_leaves_out_clocks_ticks_and_what_tells_of_the_process() -> None:
    started = EpochStarted(
        time_ms=1, worker="w", epoch=1, code_version="1", bundle="b", decision_spec="d", strategy="s", symbols=3
    )
    wave = WaveClosed(time_ms=4, decided=True, present=3, absent=(), bundle="b")
    later = WaveClosed(time_ms=4, wall_ms=5, decided=True, present=3, absent=(), bundle="b", wall_own_delay_ms=3.5)
    assert digest([started, wave]) == digest([later, refused(3)])
    assert digest([wave]) != digest([wave, wave])
    assert digest([wave]) != digest([WaveClosed(time_ms=4, decided=True, present=2, absent=(), bundle="b")])


def test_an_event_of_another_program_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trading_worker.journal.encode", lambda event: b"\x81\xa5event\xa5alien")
    write(tmp_path, 1)
    with pytest.raises(JournalCorrupt, match="not an event of this program"):
        list(read(tmp_path))


WRITER = """
import random, sys
from trading_worker.events import BundleRefused
from trading_worker.journal import Journal

dice = random.Random(int(sys.argv[2]))
with Journal(sys.argv[1], "w", segment_bytes=4096) as journal:
    while True:
        for _ in range(dice.randint(1, 4)):
            number = journal.sequence
            journal.append(BundleRefused(time_ms=number, bundle=str(number), reason="r" * dice.randint(0, 400)))
        journal.commit()
        print(journal.sequence, flush=True)
"""


def test_sigkill_at_random_points_loses_nothing_acknowledged(tmp_path: Path) -> None:
    dice = random.Random(5)
    acknowledged = 0
    for turn in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(turn)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randint(1, 120)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
        found = list(read(tmp_path))
        assert len(found) >= acknowledged
        assert [entry.sequence for entry in found] == times(found) == list(range(len(found)))
        assert found[-1].epoch == turn + 1


def test_events_survive_json_which_has_no_nan() -> None:
    import msgspec
    import numpy as np

    from tests.trading_worker.markets import bar

    values = bar(0, 1, 2, 0.5, 1.5)
    values["trades"] = np.nan
    assert events.BarValues.of(values).trades is None
    revised = events.BarRevised(
        time_ms=1, symbol="A", open_time=0, used=events.BarValues.of(values), revised=events.BarValues.of(values)
    )
    assert msgspec.json.decode(msgspec.json.encode(revised), type=events.AnyEvent) == revised
