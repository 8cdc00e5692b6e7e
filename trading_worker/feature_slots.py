"""What the models saw of each open position, in a memory-mapped file of slots.

| bytes | hold |
|---|---|
| 0 | the file's head: magic, version of the layout, number and size of the slots, checksum |
| 4096 + i × size | slot i: checksum, when it changed, open or closed, width, key, specification, the vector |

A position's vector is stored once, when it is opened, as float32 of any width. When the position closes its slot is
marked inactive, and the slots that have been inactive for longest are used again first. Where none is free, or a
vector is wider than the slots, the file is made anew with larger ones.

Each slot has its own checksum, cleared before the slot is touched and written last: one that a killed process left
half written is a free slot, and its position has no vector. What a loss of power leaves is judged in the same way.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from trading_worker.errors import StateDamaged, StateForeign, StateRefused
from trading_worker.mapped_file import PAGE, MappedFile

LAYOUT = 1
FIRST_CAPACITY = 256
KEY_BYTES = 64
SPECIFICATION_BYTES = 48

HEAD = np.dtype(
    [
        ("checksum", "<u8"),  # XXH3 of all that follows it, the vector's unused end too; 0 for a slot being written
        ("changed", "<u8"),  # a count of openings and closings; 0 for a slot that was never used
        ("open", "<u4"),
        ("width", "<u4"),
        ("key", f"S{KEY_BYTES}"),
        ("specification", f"S{SPECIFICATION_BYTES}"),
    ]
)
"""What stands before each vector."""

_FILE = struct.Struct("<8sIIII")
_MAGIC = b"PFSLOTS\0"
_SUM = 8


class FeatureSlots:
    """Vectors by key, in `path`; one process at a time.

    `capacity` slots of `width` float32 are made at first; both grow when they have to. `refused` says why a file that
    was there could not be used, and `torn` how many of its slots were not whole. Raises `StateUnwritable` when the
    disk refuses.
    """

    def __init__(self, path: Path, width: int, capacity: int = FIRST_CAPACITY) -> None:
        self.path = path
        self.refused: StateRefused | None = None
        self.torn = 0
        self._slot_of: dict[bytes, int] = {}
        self._free: deque[int] = deque()
        self._changed = 0
        if path.exists():
            try:
                self._take_over(_kind_of(path))
            except StateRefused as error:
                self.refused = error
            else:
                return
        self._file, self._slots = _made(path, max(1, capacity), max(1, width), None)
        self._free.extend(range(len(self._slots)))

    def __len__(self) -> int:
        """How many positions have a vector."""
        return len(self._slot_of)

    def __contains__(self, key: str) -> bool:
        return key.encode() in self._slot_of

    def __iter__(self) -> Iterator[str]:
        return (key.decode() for key in self._slot_of)

    @property
    def capacity(self) -> int:
        """How many there is room for before the file grows."""
        return len(self._slots)

    @property
    def width(self) -> int:
        """The widest vector there is room for."""
        return int(self._slots.dtype["vector"].shape[0])

    def slot(self, key: str) -> int:
        """Which slot a position has; KeyError if it has none."""
        return self._slot_of[key.encode()]

    def get(self, key: str) -> NDArray[np.float32] | None:
        """A copy of a position's vector, or None."""
        slot = self._slot_of.get(key.encode())
        if slot is None:
            return None
        vector: NDArray[np.float32] = self._slots["vector"][slot, : self._slots["width"][slot]].copy()
        return vector

    def specification(self, key: str) -> str:
        """Of which specification a position's vector is; KeyError if it has none."""
        return bytes(self._slots["specification"][self.slot(key)]).decode()

    def put(self, key: str, vector: NDArray[np.float32], specification: str = "") -> int:
        """Store a position's vector, float32 [w]; returns its slot. One that it has already is written over."""
        name, spec = key.encode(), specification.encode()
        if not name or len(name) > KEY_BYTES or len(spec) > SPECIFICATION_BYTES or b"\0" in name + spec:
            raise ValueError(f"a key has 1 to {KEY_BYTES} bytes, a specification up to {SPECIFICATION_BYTES}: {key!r}")
        if vector.ndim != 1:
            raise ValueError(f"a vector has one dimension, not {vector.ndim}")
        if vector.size > self.width:
            self._grow(len(self._slots), vector.size)
        slot = self._slot_of.get(name)
        if slot is None:
            if not self._free:
                self._grow(2 * len(self._slots), self.width)
            slot = self._free.popleft()
        self._begin(slot)
        self._slots["open"][slot], self._slots["width"][slot] = 1, vector.size
        self._slots["key"][slot], self._slots["specification"][slot] = name, spec
        self._slots["vector"][slot, : vector.size] = vector
        self._slots["vector"][slot, vector.size :] = 0.0
        self._seal(slot)
        self._slot_of[name] = slot
        return slot

    def free(self, key: str) -> bool:
        """Mark a position's slot inactive; False if it has none."""
        slot = self._slot_of.pop(key.encode(), None)
        if slot is None:
            return False
        self._begin(slot)
        self._slots["open"][slot] = 0
        self._seal(slot)
        self._free.append(slot)
        return True

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        self._slots = self._slots[:0].copy()
        self._slot_of.clear()
        self._free.clear()
        self._file.close()

    def _begin(self, slot: int) -> None:
        self._slots["checksum"][slot] = 0
        self._changed += 1
        self._slots["changed"][slot] = self._changed

    def _seal(self, slot: int) -> None:
        self._slots["checksum"][slot] = _checksum(self._slots, slot)

    def _take_over(self, kind: tuple[int, int]) -> None:
        """Go on with the file that is there."""
        self._file = MappedFile(self.path)
        self._slots = _over(self._file, *kind)
        for slot in np.flatnonzero(self._slots["checksum"] | self._slots["changed"]).tolist():
            if int(self._slots["checksum"][slot]) != _checksum(self._slots, slot):
                self._slots[slot] = np.zeros((), dtype=self._slots.dtype)
                self.torn += 1
        # A loss of power may leave a slot that was given up since: the later one counts.
        for slot in np.argsort(self._slots["changed"], kind="stable").tolist():
            if self._slots["open"][slot]:
                older = self._slot_of.pop(bytes(self._slots["key"][slot]), None)
                self._free.extend(() if older is None else (older,))
                self._slot_of[bytes(self._slots["key"][slot])] = slot
            else:
                self._free.append(slot)
        self._changed = int(self._slots["changed"].max())

    def _grow(self, capacity: int, width: int) -> None:
        """Move into a larger file. Slots keep their numbers; the new ones are free."""
        before = len(self._slots)
        file, slots = _made(self.path, capacity, width, self._slots)
        self._slots = slots
        self._file.close()
        self._file = file
        self._free.extend(range(before, capacity))


def _checksum(slots: NDArray[np.void], slot: int) -> int:
    """Of a slot without its first field; never 0, which says that it is being written."""
    record = slots[slot : slot + 1].view(np.uint8)
    return xxhash.xxh3_64_intdigest(record[HEAD["checksum"].itemsize :].data) or 1


def _type(width: int) -> np.dtype[Any]:
    return np.dtype([*((name, HEAD[name]) for name in HEAD.names or ()), ("vector", "<f4", (width,))])


def _over(file: MappedFile, capacity: int, width: int) -> NDArray[np.void]:
    kind = _type(width)
    slots: NDArray[np.void] = file.bytes[PAGE : PAGE + capacity * kind.itemsize].view(kind)
    return slots


def _made(path: Path, capacity: int, width: int, old: NDArray[np.void] | None) -> tuple[MappedFile, NDArray[np.void]]:
    """A new file with the slots of `old`, in place of what is there."""
    slots = np.zeros(capacity, dtype=_type(width))
    if old is not None:
        for name in HEAD.names or ():
            slots[name][: len(old)] = old[name]
        slots["vector"][: len(old), : old["vector"].shape[1]] = old["vector"]
        for slot in np.flatnonzero(old["checksum"]):
            slots["checksum"][slot] = _checksum(slots, int(slot))
    head = _FILE.pack(_MAGIC, LAYOUT, capacity, width, 0)
    head += xxhash.xxh3_64_digest(head)
    file = MappedFile.replace(path, PAGE + slots.nbytes, (0, head), (PAGE, slots.tobytes()))
    return file, _over(file, capacity, width)


def _kind_of(path: Path) -> tuple[int, int]:
    """Capacity and width, from the file's head."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE.size + _SUM)
    except OSError as error:
        raise StateDamaged(path, f"it cannot be read: {error}") from error
    if len(data) < _FILE.size + _SUM:
        raise StateDamaged(path, f"it has {len(data)} bytes, which is less than its head")
    magic, layout, capacity, width, _ = _FILE.unpack_from(data)
    if magic != _MAGIC:
        raise StateForeign(path, "it does not begin as a file of slots")
    if layout != LAYOUT:
        raise StateForeign(path, f"its layout is {layout}, this program reads {LAYOUT}")
    if xxhash.xxh3_64_digest(data[: _FILE.size]) != data[_FILE.size :]:
        raise StateDamaged(path, "the checksum of its head does not match")
    if path.stat().st_size < PAGE + capacity * _type(width).itemsize:
        raise StateDamaged(path, "it was cut off")
    return int(capacity), int(width)
