"""The mapped state: the last generation or the one before, whole, or a refusal that says why."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.bars import BAR
from tests.trading_worker.generations import POSITION, SERIES, SPEC, arrays, commit
from trading_worker import state_store
from trading_worker.errors import StateDamaged, StateForeign, StateMisfit, StateUnwritable
from trading_worker.mapped_file import PAGE
from trading_worker.state_store import DIRECTORY_BYTES, Generation, StateStore, read, series_digest

ROOT = Path(__file__).resolve().parents[2]


def assert_whole(generation: Generation, positions: int = 3) -> int:
    """That all parts are of one commit; returns its number."""
    number, rest = divmod(generation.time_ms, 60_000)
    expected = arrays(number, positions)
    assert rest == 0
    assert generation.arrays.keys() == expected.keys()
    for name, array in expected.items():
        found = generation.arrays[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    generation.expect(SPEC, SERIES)
    return number


def test_the_newest_two_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "state.map"
    store = StateStore(path)
    assert read(path).generations == ()
    for number in range(1, 8):
        commit(store, number)
        found = read(path)
        assert [assert_whole(each) for each in found.generations] == [number, number - 1][: min(number, 2)]
        assert [each.sequence for each in found.generations] == [number, number - 1][: min(number, 2)]
        assert found.refusals == ()


def test_another_process_goes_on_after_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "state.map"
    for number in range(1, 6):
        store = StateStore(path)
        assert store.sequence == number - 1
        commit(store, number)
        store.close()
        with pytest.raises(StateUnwritable, match="closed"):
            commit(store, number)
        assert [assert_whole(each) for each in read(path).generations] == [number, number - 1][: min(number, 2)]


def test_what_has_not_changed_is_not_stored_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.map")
    whole = sum(array.nbytes for array in arrays(1).values())
    assert [commit(store, 1), commit(store, 1), commit(store, 1)] == [whole, whole, 0]
    changed = arrays(2)
    assert commit(store, 2) == changed["state"].nbytes + changed["position"].nbytes + changed["about"].nbytes
    assert [assert_whole(each) for each in read(store.path).generations] == [2, 1]


def test_it_grows_and_keeps_the_generation_before(tmp_path: Path) -> None:
    path = tmp_path / "state.map"
    store = StateStore(path)
    sizes = [3, 3, 50, 3_000, 3_000, 100_000, 3]
    for number, positions in enumerate(sizes, start=1):
        commit(store, number, positions)
        newest, *older = read(path).generations
        assert assert_whole(newest, positions) == number
        assert [assert_whole(each, sizes[number - 2]) for each in older] == [number - 1][: number - 1]
    assert path.stat().st_size > 100_000 * POSITION.itemsize
    assert [p.name for p in tmp_path.iterdir()] == ["state.map"]


def test_the_sections_of_another_specification_follow_those_of_the_first(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.map")
    commit(store, 1)
    store.commit(120_000, "other", series_digest(["A"]), {"wide": np.arange(50_000.0), "empty": np.zeros(0, BAR)})
    other, first = read(store.path).generations
    assert assert_whole(first) == 1
    assert (other.arrays["wide"].size, other.arrays["empty"].dtype) == (50_000, BAR)
    with pytest.raises(StateMisfit, match="generation 2 is of other, the bundle needs decision-1-abc"):
        other.expect(SPEC, SERIES)
    with pytest.raises(StateMisfit, match="another universe"):
        first.expect(SPEC, series_digest(["B", "A"]))


def test_a_file_of_something_else_is_refused_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "state.map"
    commit(StateStore(path), 1)
    good = path.read_bytes()
    newer = bytearray(good)
    struct.pack_into("<I", newer, 8, 99)
    for data, kind, reason in [
        (b"", StateDamaged, "0 bytes"),
        (b"x" * 10_000, StateForeign, "does not begin as a state file"),
        (bytes(newer), StateForeign, f"layout is 99, this program reads {state_store.LAYOUT}"),
        (good[: PAGE + 100], StateDamaged, "cut off"),
        (good[:15] + b"\1" + good[16:], StateDamaged, "checksum of its head"),
    ]:
        path.write_bytes(data)
        found = read(path)
        assert found.generations == ()
        [refusal] = found.refusals
        assert isinstance(refusal, kind)
        assert reason in str(refusal)
        commit(StateStore(path), 5)
        assert [assert_whole(each) for each in read(path).generations] == [5]


def test_a_folder_in_its_place_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "state.map").mkdir()
    [refusal] = read(tmp_path / "state.map").refusals
    assert "cannot be read" in refusal.reason


def test_a_full_disk_is_said_and_the_older_generation_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = StateStore(tmp_path / "state.map")
    commit(store, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(2):
        with pytest.raises(StateUnwritable):
            commit(store, 2, positions=100_000)
    assert [assert_whole(each) for each in read(store.path).generations] == [1]


@pytest.fixture(scope="module")
def two_generations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose newest generation, number 6, lies in the second half."""
    path = tmp_path_factory.mktemp("state") / "state.map"
    store = StateStore(path)
    commit(store, 5)
    commit(store, 6)
    assert read(path).halves == (1, 0)
    return path


def places(data: bytes) -> tuple[int, int]:
    """Where the newest generation begins, and where its last byte may be."""
    half = (len(data) - PAGE) // 2
    return PAGE + half, len(data)


def judge(path: Path, data: bytes) -> None:
    """A file of which only the newest generation was touched gives that one as it was, or the older one."""
    path.write_bytes(data)
    found = read(path)
    numbers = [assert_whole(each) for each in found.generations]
    assert numbers in ([6, 5], [5])
    assert bool(found.refusals) == (numbers == [5])
    for refusal in found.refusals:
        assert isinstance(refusal, StateDamaged | StateForeign)


def used(data: bytes) -> list[int]:
    """Every byte of the newest generation that says something: all that is not zero, and their neighbours."""
    start, end = places(data)
    filled = np.flatnonzero(np.frombuffer(data[start:end], dtype=np.uint8))
    around = np.unique(np.concatenate([filled - 1, filled, filled + 1]))
    return (start + around[(around >= 0) & (around < end - start)]).tolist()


@given(place=st.integers(0, 1 << 30), flip=st.integers(1, 255))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_gives_the_older_generation(
    tmp_path: Path, two_generations: Path, place: int, flip: int
) -> None:
    data = bytearray(two_generations.read_bytes())
    candidates = used(bytes(data))
    data[candidates[place % len(candidates)]] ^= flip
    judge(tmp_path / "state.map", bytes(data))


@given(begin=st.integers(0, 1 << 30), length=st.integers(1, 200_000), filling=st.sampled_from([0x00, 0xFF, 0xA5]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_torn_stretch_gives_the_older_generation(
    tmp_path: Path, two_generations: Path, begin: int, length: int, filling: int
) -> None:
    good = two_generations.read_bytes()
    start, end = places(good)
    begin = start + begin % (end - start)
    stop = min(end, begin + length)
    data = good[:begin] + bytes([filling]) * (stop - begin) + good[stop:]
    judge(tmp_path / "state.map", data)


@given(pages=st.lists(st.booleans(), min_size=64, max_size=64))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_that_a_loss_of_power_left_behind_make_no_state(
    tmp_path: Path, two_generations: Path, pages: list[bool]
) -> None:
    """Some of the newest generation's pages reached the disk, the others are what the half held before."""
    path = tmp_path / "state.map"
    before = two_generations.read_bytes()
    path.write_bytes(before)
    commit(StateStore(path), 7)
    after = bytearray(path.read_bytes())
    for number, written in enumerate(pages):
        page = slice(PAGE + number * PAGE, PAGE + (number + 1) * PAGE)
        if not written:
            after[page] = before[page]
    path.write_bytes(after)
    found = read(path)
    numbers = [assert_whole(each) for each in found.generations]
    assert numbers in ([7, 6], [6, 5], [6])
    if numbers == [6]:
        assert found.refusals


@given(size=st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused_whole(tmp_path: Path, two_generations: Path, size: int) -> None:
    path = tmp_path / "state.map"
    good = two_generations.read_bytes()
    path.write_bytes(good[: size % len(good)])
    found = read(path)
    assert found.generations == ()
    assert [type(each) for each in found.refusals] == [StateDamaged]


@given(place=st.integers(0, PAGE - 1), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_head_of_the_file_is_refused(tmp_path: Path, two_generations: Path, place: int, flip: int) -> None:
    data = bytearray(two_generations.read_bytes())
    data[place] ^= flip
    path = tmp_path / "state.map"
    path.write_bytes(data)
    found = read(path)
    assert [assert_whole(each) for each in found.generations] in ([], [6, 5])
    assert bool(found.generations) != bool(found.refusals)


def killed_writer(path: Path, dice: random.Random, how: str) -> int:
    """Let a process commit as fast as it can, and kill it; the last commit that it acknowledged."""
    command = [sys.executable, "-m", "tests.trading_worker.generations", str(path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        last = 0
        for _ in range(dice.randint(1, 400)):
            last = int(writer.stdout.readline())
        for _ in range(dice.randint(0, 3_000)):
            pass
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            if line.endswith("\n"):
                last = int(line)
    return last


@pytest.mark.parametrize("how", ["steady", "growing"])
def test_a_killed_writer_leaves_its_last_commit_or_the_one_after_whole(tmp_path: Path, how: str) -> None:
    path, dice = tmp_path / "state.map", random.Random(how)
    for _ in range(6):
        acknowledged = killed_writer(path, dice, how)
        found = read(path)
        newest, *older = found.generations
        positions = [3 * each.sequence if how == "growing" else 3 for each in found.generations]
        assert assert_whole(newest, positions[0]) in (acknowledged, acknowledged + 1)
        assert [assert_whole(each, positions[1]) for each in older] == [newest.sequence - 1] * len(older)
        assert len(found.generations) + len(found.refusals) == 2


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["steady", "growing"])
def test_a_long_campaign_of_kills_of_a_writer(tmp_path: Path, how: str) -> None:
    dice = random.Random(77)
    path = tmp_path / "state.map"
    for _ in range(150):
        if how == "growing" and path.exists() and path.stat().st_size > 1 << 26:
            path.unlink()
        acknowledged = killed_writer(path, dice, how)
        newest = read(path).generations[0]
        positions = 3 * newest.sequence if how == "growing" else 3
        assert assert_whole(newest, positions) in (acknowledged, acknowledged + 1)


def test_killed_at_every_store_of_a_commit_the_generation_before_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the file after each store into it is what a process that was killed there leaves behind."""
    path, copy = tmp_path / "state.map", tmp_path / "copy.map"
    store = StateStore(path)
    commit(store, 1)
    commit(store, 2)
    looked: list[int] = []
    real = state_store.checksum

    def look(*parts: Any) -> bytes:
        if not copy.exists():
            shutil.copyfile(path, copy)
            found = read(copy).generations
            copy.unlink()
            looked.append(assert_whole(found[0]))
        return real(*parts)

    def seal(self: StateStore, *arguments: Any) -> None:
        look(b"")
        original(self, *arguments)
        look(b"")

    original: Callable[..., None] = StateStore._seal
    monkeypatch.setattr(StateStore, "_seal", seal)
    monkeypatch.setattr(state_store, "checksum", look)
    # Reading takes checksums too: only those of the commit look.
    monkeypatch.setattr(
        state_store, "_generation", _with(monkeypatch, state_store, "checksum", real, state_store._generation)
    )
    monkeypatch.setattr(
        state_store, "_half_bytes", _with(monkeypatch, state_store, "checksum", real, state_store._half_bytes)
    )
    commit(store, 3)
    assert len(looked) >= len(arrays(1))
    assert looked[-1] == 3
    assert set(looked[:-1]) == {2}


def _with(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, value: Any, function: Callable[..., Any]
) -> Callable[..., Any]:
    """`function`, during whose run `module.name` is `value`."""

    def run(*arguments: Any) -> Any:
        with monkeypatch.context() as inside:
            inside.setattr(module, name, value)
            return function(*arguments)

    return run


def test_a_directory_that_does_not_fit_is_a_fault_of_the_program(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.map")
    many = {f"{'x' * 60}{i}": np.zeros(1) for i in range(DIRECTORY_BYTES // 64)}
    with pytest.raises(ValueError, match="too many arrays"):
        store.commit(1, SPEC, SERIES, many)
