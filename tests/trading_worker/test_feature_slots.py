"""Vectors by slot: what a plain dict would hold, through restarts, growth and damage."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections import deque
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from trading_worker.errors import StateDamaged, StateForeign, StateUnwritable
from trading_worker.feature_slots import HEAD, FeatureSlots
from trading_worker.mapped_file import PAGE

ROOT = Path(__file__).resolve().parents[2]


def vector(number: int, width: int = 32) -> NDArray[np.float32]:
    """A vector that is told from any other by every one of its numbers."""
    made: NDArray[np.float32] = (number + np.arange(width) / 1024).astype(np.float32)
    return made


def kept(path: Path) -> dict[str, bytes]:
    """What another process finds."""
    slots = FeatureSlots(path, 1)
    found = {key: slots.get(key) for key in slots}
    slots.close()
    return {key: value.tobytes() for key, value in found.items() if value is not None}


class Model(RuleBasedStateMachine):
    """`FeatureSlots` against a dict, and a queue of the free slots."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp())
        self.path = self.folder / "slots.map"
        self.slots = FeatureSlots(self.path, 4, capacity=3)
        self.model: dict[str, tuple[bytes, str]] = {}
        self.slot_of: dict[str, int] = {}
        self.free = deque(range(3))
        self.count = 0

    @rule(key=st.integers(0, 12), width=st.sampled_from([0, 1, 4, 4, 4, 9, 33]))
    def put(self, key: int, width: int) -> None:
        self.count += 1
        name, value, spec = f"K{key}", vector(self.count, width), f"spec-{self.count % 3}"
        if name not in self.slot_of:
            if not self.free:
                self.free.extend(range(self.slots.capacity, 2 * self.slots.capacity))
            self.slot_of[name] = self.free.popleft()
        assert self.slots.put(name, value, spec) == self.slot_of[name]
        self.model[name] = (value.tobytes(), spec)

    @rule(key=st.integers(0, 12))
    def give_back(self, key: int) -> None:
        name = f"K{key}"
        assert self.slots.free(name) == (name in self.model)
        if self.model.pop(name, None) is not None:
            self.free.append(self.slot_of.pop(name))

    @rule()
    def restart(self) -> None:
        self.slots.close()
        self.slots = FeatureSlots(self.path, 2, capacity=1)
        assert (self.slots.refused, self.slots.torn) == (None, 0)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), flip=st.integers(1, 255))
    def damage(self, data: st.DataObject, flip: int) -> None:
        """A changed byte of one open slot loses that one alone."""
        name = data.draw(st.sampled_from(sorted(self.model)))
        size = HEAD.itemsize + 4 * self.slots.width
        place = data.draw(st.integers(0, size - 1))
        slot, capacity = self.slot_of[name], self.slots.capacity
        self.slots.close()
        with self.path.open("r+b") as file:
            file.seek(PAGE + slot * size + place)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ flip]))
        self.slots = FeatureSlots(self.path, 2)
        assert (self.slots.torn, self.slots.capacity) == (1, capacity)
        del self.model[name], self.slot_of[name]
        # What was lost has no time: it is as old as slots that were never used.
        fresh = [each for each in self.free if not self.slots._slots["changed"][each]]
        self.free = deque(sorted([*fresh, slot]) + [each for each in self.free if each not in fresh])

    @invariant()
    def it_is_the_model(self) -> None:
        assert set(self.slots) == set(self.model)
        assert len(self.slots) == len(self.model)
        for name, (value, spec) in self.model.items():
            found = self.slots.get(name)
            assert found is not None
            assert found.tobytes() == value
            assert self.slots.specification(name) == spec
            assert self.slots.slot(name) == self.slot_of[name]
            assert name in self.slots
        assert self.slots.get("nobody") is None

    def teardown(self) -> None:
        assert kept(self.path) == {name: value for name, (value, _) in self.model.items()}
        self.slots.close()
        shutil.rmtree(self.folder)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_closed_slot_is_used_again_the_oldest_first(tmp_path: Path) -> None:
    slots = FeatureSlots(tmp_path / "slots.map", 32, capacity=4)
    for number in range(4):
        assert slots.put(f"K{number}", vector(number)) == number
    for number in (2, 0, 3):
        slots.free(f"K{number}")
    slots.close()
    slots = FeatureSlots(tmp_path / "slots.map", 32)
    assert [slots.put(f"L{number}", vector(number)) for number in range(4)] == [2, 0, 3, 4]
    assert slots.capacity == 8


def test_it_grows_in_number_and_in_width_and_keeps_everything(tmp_path: Path) -> None:
    slots = FeatureSlots(tmp_path / "slots.map", 32, capacity=2)
    for number in range(1_000):
        slots.put(f"K{number}", vector(number, 32 + number // 100))
    assert slots.capacity == 1_024
    assert slots.width == 41
    slots.close()
    assert kept(tmp_path / "slots.map") == {f"K{n}": vector(n, 32 + n // 100).tobytes() for n in range(1_000)}
    assert [path.name for path in tmp_path.iterdir()] == ["slots.map"]


def test_what_is_taken_out_is_a_copy(tmp_path: Path) -> None:
    slots = FeatureSlots(tmp_path / "slots.map", 4)
    slots.put("A", vector(1, 4))
    taken = slots.get("A")
    assert taken is not None
    taken[:] = 0
    slots.put("A", vector(2, 4))
    found = slots.get("A")
    assert found is not None
    assert (taken.sum(), found.tolist()) == (0, vector(2, 4).tolist())


@pytest.mark.parametrize(
    ("key", "specification", "shape"),
    [("", "", (3,)), ("k" * 65, "", (3,)), ("k\0", "", (3,)), ("k", "s" * 49, (3,)), ("k", "", (3, 1))],
)
def test_what_a_slot_cannot_hold_is_refused(tmp_path: Path, key: str, specification: str, shape: tuple[int]) -> None:
    slots = FeatureSlots(tmp_path / "slots.map", 4)
    with pytest.raises(ValueError, match="has"):
        slots.put(key, np.zeros(shape, dtype=np.float32), specification)
    assert len(slots) == 0


def test_a_file_of_something_else_is_refused_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "slots.map"
    slots = FeatureSlots(path, 4)
    slots.put("A", vector(1, 4))
    slots.close()
    good = path.read_bytes()
    newer = bytearray(good)
    struct.pack_into("<I", newer, 8, 99)
    for data, kind, reason in [
        (b"", StateDamaged, "0 bytes"),
        (b"x" * 10_000, StateForeign, "does not begin as a file of slots"),
        (bytes(newer), StateForeign, "layout is 99"),
        (good[: PAGE + 100], StateDamaged, "cut off"),
        (good[:12] + b"\7" + good[13:], StateDamaged, "checksum of its head"),
    ]:
        path.write_bytes(data)
        slots = FeatureSlots(path, 4)
        assert isinstance(slots.refused, kind)
        assert reason in str(slots.refused)
        assert len(slots) == 0
        slots.put("B", vector(2, 4))
        slots.close()
        assert list(kept(path)) == ["B"]


def test_the_later_of_two_slots_of_one_position_counts(tmp_path: Path) -> None:
    """A loss of power may bring back a slot that was given up before the position was opened again."""
    path = tmp_path / "slots.map"
    slots = FeatureSlots(path, 4, capacity=3)
    slots.put("A", vector(1, 4))
    size = HEAD.itemsize + 16
    stale = path.read_bytes()[PAGE : PAGE + size]
    slots.free("A")
    assert slots.put("A", vector(2, 4)) == 1
    slots.close()
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(stale)
    slots = FeatureSlots(path, 4)
    assert (len(slots), slots.slot("A")) == (1, 1)
    assert [slots.put(key, vector(3, 4)) for key in "BC"] == [2, 0]
    assert slots.capacity == 3


def test_a_full_disk_is_said_and_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = FeatureSlots(tmp_path / "slots.map", 4, capacity=1)
    slots.put("A", vector(1, 4))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "posix_fallocate", full)
        for _ in range(2):
            with pytest.raises(StateUnwritable):
                slots.put("B", vector(2, 4))
    assert list(slots) == ["A"]
    slots.put("B", vector(2, 4))
    assert set(slots) == {"A", "B"}


@given(stretch=st.tuples(st.integers(0, 1 << 20), st.integers(1, 4096)), filling=st.sampled_from([0, 0xFF, 0xA5]))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_torn_stretch_never_gives_a_wrong_vector(tmp_path: Path, stretch: tuple[int, int], filling: int) -> None:
    path = tmp_path / "slots.map"
    path.unlink(missing_ok=True)
    slots = FeatureSlots(path, 8, capacity=16)
    for number in range(12):
        slots.put(f"K{number}", vector(number, 8))
    slots.free("K3")
    slots.close()
    whole = path.read_bytes()
    begin = stretch[0] % len(whole)
    stop = min(len(whole), begin + stretch[1])
    path.write_bytes(whole[:begin] + bytes([filling]) * (stop - begin) + whole[stop:])
    for key, value in kept(path).items():
        number = int(key[1:])
        assert number in range(12)
        assert number != 3
        assert value == vector(number, 8).tobytes()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from trading_worker.feature_slots import FeatureSlots

slots = FeatureSlots(Path(sys.argv[1]), 4, capacity=4)
number = max((int(key[1:]) for key in slots), default=0)
while True:
    number += 1
    slots.put(f"K{number}", (number + np.arange(8 + number // 500) / 1024).astype(np.float32))
    if number > 20:
        slots.free(f"K{number - 20}")
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_killed_writer_leaves_whole_vectors(tmp_path: Path) -> None:
    path, dice = tmp_path / "slots.map", random.Random(3)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randint(1, 400)):
                last = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
        numbers = {int(key[1:]): np.frombuffer(value, np.float32) for key, value in kept(path).items()}
        for number, value in numbers.items():
            assert value.tolist() == (number + np.arange(8 + number // 500) / 1024).astype(np.float32).tolist()
        # Only what was being stored or given up may be missing or left.
        assert set(range(max(1, last - 18), last + 1)) <= numbers.keys()
        assert max(numbers) <= last + 1
