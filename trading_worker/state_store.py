"""The state in one memory-mapped file, in two generations by turns, so that a torn write never becomes a state.

| bytes | hold |
|---|---|
| 0 | the file's head: magic, version of the layout, bytes of a half, checksum |
| 4096 | the first half |
| 4096 + half | the second half |

A half holds one generation, or nothing that counts: a head (magic, sequence, time, length of the directory, checksum
of all of these and of the directory), the directory (specification, digest of the series; name, type, shape, place and
checksum of each section), and the sections, which are arrays.

A commit goes into the half that does not hold the newest generation: its head is cleared, the sections are stored, and
the head comes last. So at every moment one half is whole. A section whose checksum is that of what already lies in
its place is not stored again; the hourly features change once in sixty minutes.

**What survives.** A killed process: every commit that returned, without a flush, because the pages belong to the
kernel. A loss of power: whatever the kernel had written back (it does within half a minute or so, in any order), and
the checksums say which generation that is, if any. Nothing here waits for the disk: the journal does, and snapshots
beside this file do.

Checksums are XXH3, 128 bits: they find every accident, and no forger.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray

from trading_worker.errors import StateDamaged, StateForeign, StateMisfit, StateRefused, StateUnwritable
from trading_worker.mapped_file import PAGE, MappedFile, pages

LAYOUT = 1
DIRECTORY_BYTES = 64 * 1024
"""Of each half, for head and directory."""
SPARE_BYTES = 64 * 1024, 1024 * 1024
"""That a section may grow by, at least and at most, before everything is placed anew; between them half its size."""

_FILE = struct.Struct("<8sIIQ")
_FILE_MAGIC = b"PFSTATE\0"
_HEAD = struct.Struct("<8sQqQ")
_HEAD_MAGIC = b"PFGENER\0"
_NONE_MAGIC = b"PFEMPTY\0"
"""A half that never held a generation."""
_SUM = 16

Array = NDArray[Any]


def checksum(*parts: bytes | memoryview) -> bytes:
    """XXH3 of the parts after each other, 16 bytes."""
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    return digest.digest()


def series_digest(symbols: Iterable[str]) -> str:
    """A short name of exactly these symbols in this order.

    >>> series_digest(["A", "B"]) == series_digest(["AB"])
    False
    """
    return checksum("\n".join(symbols).encode()).hex()


class _Section(msgspec.Struct, frozen=True, array_like=True):
    """One array of a generation: `at` bytes from the begin of its half."""

    name: str
    kind: Any
    """Its type, as `numpy.lib.format` describes it."""
    shape: tuple[int, ...]
    at: int
    size: int
    checksum: bytes


class _Directory(msgspec.Struct, frozen=True, array_like=True):
    specification: str
    series: str
    sections: tuple[_Section, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """One whole state: the arrays are copies."""

    path: Path
    sequence: int
    time_ms: int
    specification: str
    series: str
    arrays: dict[str, Array]

    def expect(self, specification: str, series: str) -> None:
        """Raise `StateMisfit` unless it is of this specification and of the series with this digest."""
        if self.specification != specification:
            reason = f"generation {self.sequence} is of {self.specification}, the bundle needs {specification}"
            raise StateMisfit(self.path, reason)
        if self.series != series:
            raise StateMisfit(self.path, f"generation {self.sequence} is of another universe")


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a file holds: generations, the newest first, and why there are not more."""

    generations: tuple[Generation, ...]
    refusals: tuple[StateRefused, ...]
    halves: tuple[int, ...] = ()
    """Which half each generation lies in."""
    half: int = 0
    """Bytes of a half; 0 when the file is none of this layout."""


def read(path: Path) -> Reading:
    """Everything whole in the file; nothing, without a refusal, where there is none. Nothing is changed."""
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        return Reading((), ())
    except OSError as error:
        return Reading((), (StateDamaged(path, f"it cannot be read: {error}"),))


def _read(path: Path, file: BufferedReader) -> Reading:
    try:
        half = _half_bytes(path, file)
    except StateRefused as error:
        return Reading((), (error,))
    found: list[tuple[Generation, int]] = []
    refusals: list[StateRefused] = []
    for index in (0, 1):
        try:
            generation = _generation(path, file, PAGE + index * half, half)
        except StateRefused as error:
            refusals.append(error)
        else:
            if generation is not None:
                found.append((generation, index))
    found.sort(key=lambda pair: -pair[0].sequence)
    return Reading(tuple(g for g, _ in found), tuple(refusals), tuple(i for _, i in found), half)


def _half_bytes(path: Path, file: BufferedReader) -> int:
    """Bytes of a half, from the file's head."""
    data = file.read(_FILE.size + _SUM)
    if len(data) < _FILE.size + _SUM:
        raise StateDamaged(path, f"it has {len(data)} bytes, which is less than its head")
    magic, layout, _, half = _FILE.unpack_from(data)
    if magic != _FILE_MAGIC:
        raise StateForeign(path, "it does not begin as a state file")
    if layout != LAYOUT:
        raise StateForeign(path, f"its layout is {layout}, this program reads {LAYOUT}")
    if checksum(data[: _FILE.size]) != data[_FILE.size :]:
        raise StateDamaged(path, "the checksum of its head does not match")
    if os.fstat(file.fileno()).st_size < PAGE + 2 * half:
        raise StateDamaged(path, "it was cut off")
    return int(half)


def _generation(path: Path, file: BufferedReader, start: int, half: int) -> Generation | None:
    """What the half at `start` holds; None for nothing at all, as in a new file."""
    file.seek(start)
    head = file.read(_HEAD.size + _SUM)
    magic, sequence, time_ms, length = _HEAD.unpack_from(head)
    if magic == _NONE_MAGIC:
        return None
    if magic != _HEAD_MAGIC or length > DIRECTORY_BYTES:
        raise StateDamaged(path, "a generation was being written, or its head was changed")
    written = file.read(length)
    if checksum(head[: _HEAD.size], written) != head[_HEAD.size :]:
        raise StateDamaged(path, "the checksum of a generation's head does not match")
    try:
        directory = msgspec.msgpack.decode(written, type=_Directory)
    except msgspec.MsgspecError as error:
        raise StateForeign(path, f"the directory of generation {sequence} cannot be read: {error}") from error
    arrays: dict[str, Array] = {}
    for section in directory.sections:
        if section.at + section.size > half:
            raise StateDamaged(path, f"{section.name} of generation {sequence} lies outside of it")
        file.seek(start + section.at)
        data = np.empty(section.size, dtype=np.uint8)
        if file.readinto(data.data) != section.size or checksum(data.data) != section.checksum:
            raise StateDamaged(path, f"the checksum of {section.name} in generation {sequence} does not match")
        kind = np.lib.format.descr_to_dtype(_tuples(section.kind))
        arrays[section.name] = data.view(kind).reshape(section.shape)
    return Generation(path, sequence, time_ms, directory.specification, directory.series, arrays)


def _tuples(kind: Any) -> Any:
    """The description of a type with its tuples, which msgpack has made lists of."""
    if isinstance(kind, str):
        return kind
    return [(name, _tuples(of), *map(tuple, shape)) for name, of, *shape in kind]


def _as_bytes(array: Array) -> NDArray[np.uint8]:
    """The bytes of an array, without a copy if they lie together."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


@dataclass(slots=True)
class _Place:
    at: int
    room: int


class StateStore:
    """The writer of a state file; one process at a time.

    The file is made, or replaced where it is not usable, by the first commit. Raises `StateUnwritable` when the disk
    refuses; then the store takes nothing more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        found = read(path)
        self.sequence = found.generations[0].sequence if found.generations else 0
        """Of the newest generation, from 1 on; 0 before the first."""
        self._newest = found.halves[0] if found.halves else None
        self._half = found.half
        self._file: MappedFile | None = None
        self._places: dict[str, _Place] = {}
        self._held: list[dict[str, tuple[int, bytes]]] = [{}, {}]
        """Size and checksum of what this process has stored in each half, by section."""
        self._over = False

    def commit(self, time_ms: int, specification: str, series: str, arrays: Mapping[str, Array]) -> int:
        """Store one generation; returns how many bytes had changed and were stored.

        `arrays` are of any type but Python objects. When it returns, the state survives the end of the process.
        """
        if self._over:
            raise StateUnwritable(self.path, "it is closed, or an earlier write failed")
        parts = {name: _as_bytes(array) for name, array in arrays.items()}
        try:
            file = self._housed(parts)
        except StateUnwritable:
            self._over = True
            raise
        target = 1 - self._newest if self._newest is not None else 0
        start = PAGE + target * self._half
        held = self._held[target]
        # From here on this half is no state until its head is there again.
        file.bytes[start : start + _HEAD.size + _SUM] = 0xFF
        stored, sections = 0, []
        for name, part in parts.items():
            place, digest = self._places[name], checksum(part.data)
            if held.get(name) != (part.size, digest):
                held.pop(name, None)
                file.bytes[start + place.at : start + place.at + part.size] = part
                held[name] = (part.size, digest)
                stored += part.size
            kind = np.lib.format.dtype_to_descr(arrays[name].dtype)
            sections.append(_Section(name, kind, arrays[name].shape, place.at, part.size, digest))
        self._seal(file, start, time_ms, _Directory(specification, series, tuple(sections)))
        self._newest = target
        return stored

    def _seal(self, file: MappedFile, start: int, time_ms: int, directory: _Directory) -> None:
        """Write the head of a generation, its checksum last."""
        written = msgspec.msgpack.encode(directory)
        if _HEAD.size + _SUM + len(written) > DIRECTORY_BYTES:
            raise ValueError(f"a directory of {len(written)} bytes: too many arrays for {self.path}")
        self.sequence += 1
        head = _HEAD.pack(_HEAD_MAGIC, self.sequence, time_ms, len(written))
        body = start + _HEAD.size + _SUM
        file.bytes[body : body + len(written)] = np.frombuffer(written, dtype=np.uint8)
        whole = head + checksum(head, written)
        file.bytes[start : start + len(whole)] = np.frombuffer(whole, dtype=np.uint8)

    def _housed(self, parts: Mapping[str, NDArray[np.uint8]]) -> MappedFile:
        """The file, with a place for every part."""
        places = self._places
        if places.keys() != parts.keys() or any(part.size > places[name].room for name, part in parts.items()):
            at = DIRECTORY_BYTES
            self._places = {}
            for name, part in parts.items():
                least, most = SPARE_BYTES
                room = pages(part.size + min(max(part.size // 2, least), most))
                self._places[name] = _Place(at, room)
                at += room
            self._held = [{}, {}]
            if at > self._half or self._file is None:
                return self._rehoused(max(at, self._half))
        if self._file is None:
            self._file = MappedFile(self.path)
        return self._file

    def _rehoused(self, half: int) -> MappedFile:
        """A file with halves of `half` bytes that holds the newest generation: the present one if it is such."""
        if self._file is None and self._newest is not None and self._half == half:
            self._file = MappedFile(self.path)
            return self._file
        head = _FILE.pack(_FILE_MAGIC, LAYOUT, 0, half)
        newest = _NONE_MAGIC if self._newest is None else self._bytes_of(self._newest)
        parts = [(0, head + checksum(head)), (PAGE, newest), (PAGE + half, _NONE_MAGIC)]
        file = MappedFile.replace(self.path, PAGE + 2 * half, *parts)
        if self._file is not None:
            self._file.close()
        self._file, self._half = file, half
        self._newest = None if self._newest is None else 0
        return file

    def _bytes_of(self, half: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(PAGE + half * self._half)
            return file.read(self._half)

    def close(self) -> None:
        """Let go of the file; what was committed stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._over = True
