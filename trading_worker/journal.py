"""The journal: append-only, checksummed segments of events; what it acknowledged survives `kill -9`.

Layout. A journal is a folder of segments `EEEEEEEE-SSSSSSSS.journal` (epoch, segment). A segment is a header and
frames, all integers little-endian:

- header: magic `PFJRNL`, version u16, length u32 and crc32 u32 of a MessagePack map (worker, epoch, segment,
  first_sequence) that follows;
- frame: magic u16, payload length u32, crc32 u32 of length and payload; then the payload, one event.

A segment is written by one epoch only: every start of the writer takes the next epoch and a new file, so all files but
the newest are immutable. `append` queues, `commit` writes what was queued with one write and one fsync; only then is
it acknowledged.

A write that was cut leaves an incomplete frame at the end. The next writer puts those bytes aside in a `.torn` file
and cuts them off. A damaged frame with whole frames behind it is no cut: `JournalCorrupt`.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import msgspec

from trading_worker.errors import JournalCorrupt, JournalError, JournalLocked, JournalWriteFailed
from trading_worker.events import AnyEvent, Event, decode, digest, encode

__all__ = ["Entry", "Journal", "Segment", "Torn", "digest", "read", "read_segment", "segments"]

SEGMENT_BYTES = 4 * 1024 * 1024
VERSION = 1
SUFFIX = ".journal"

_HEADER = struct.Struct("<6sHII")
_HEADER_MAGIC = b"PFJRNL"
_FRAME = struct.Struct("<HII")
_FRAME_MAGIC = 0xB5F7
_FRAME_MARK = _FRAME_MAGIC.to_bytes(2, "little")
_LENGTH = struct.Struct("<I")


class Entry(NamedTuple):
    """One record: where it stands and what it says. (worker, epoch, sequence) names it for good."""

    worker: str
    epoch: int
    sequence: int
    event: AnyEvent


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a journal."""

    path: Path
    worker: str
    epoch: int
    index: int
    """Number within the epoch, from 0."""
    first_sequence: int


@dataclass(frozen=True, slots=True)
class Torn:
    """What recovery cut from the end of a segment, and where it keeps it."""

    path: Path
    offset: int
    size: int
    """Bytes cut."""
    kept: Path


class _Head(msgspec.Struct, frozen=True):
    worker: str
    epoch: int
    segment: int
    first_sequence: int


class _Frames(NamedTuple):
    """The whole frames of a segment, and where they end."""

    payloads: list[tuple[int, bytes]]
    end: int


def _crc(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(_FRAME_MAGIC, len(payload), _crc(payload)) + payload


def _header(head: _Head) -> bytes:
    body = msgspec.msgpack.encode(head)
    return _HEADER.pack(_HEADER_MAGIC, VERSION, len(body), zlib.crc32(body)) + body


def _read_header(data: bytes, path: Path) -> tuple[_Head, int] | None:
    """The header and where frames begin; None when the file ends inside the header."""
    if len(data) < _HEADER.size:
        return None
    magic, version, length, crc = _HEADER.unpack_from(data)
    if magic != _HEADER_MAGIC:
        raise JournalCorrupt(path, 0, "it does not begin as a journal segment")
    if version != VERSION:
        raise JournalCorrupt(path, 0, f"its version is {version}, this program reads {VERSION}")
    body = data[_HEADER.size : _HEADER.size + length]
    if len(body) < length:
        return None
    if zlib.crc32(body) != crc:
        raise JournalCorrupt(path, _HEADER.size, "the header's checksum does not match")
    return msgspec.msgpack.decode(body, type=_Head), _HEADER.size + length


def _whole_frame(data: bytes, offset: int) -> bytes | None:
    """The payload of the frame at `offset`, None when there is no whole and undamaged one."""
    if offset + _FRAME.size > len(data):
        return None
    magic, length, crc = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if magic != _FRAME_MAGIC or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if _crc(payload) == crc else None


def _frames(data: bytes, offset: int, path: Path) -> _Frames:
    """Whole frames from `offset` on. Raises `JournalCorrupt` when a whole frame stands behind a damaged one."""
    payloads = []
    while (payload := _whole_frame(data, offset)) is not None:
        payloads.append((offset, payload))
        offset += _FRAME.size + len(payload)
    later = data.find(_FRAME_MARK, offset + 1)
    while later >= 0:
        if _whole_frame(data, later) is not None:
            raise JournalCorrupt(path, offset, "a record is damaged, and whole records follow it")
        later = data.find(_FRAME_MARK, later + 1)
    return _Frames(payloads, offset)


def _entries(head: _Head, frames: _Frames, path: Path) -> list[Entry]:
    entries = []
    for count, (offset, payload) in enumerate(frames.payloads):
        try:
            event = decode(payload)
        except msgspec.MsgspecError as error:
            raise JournalCorrupt(path, offset, f"a whole record is not an event of this program: {error}") from error
        entries.append(Entry(head.worker, head.epoch, head.first_sequence + count, event))
    return entries


def _numbered(folder: Path) -> list[tuple[int, int, Path]]:
    """(epoch, segment, path) of the folder's segment files in order of writing."""
    found = []
    for path in folder.glob(f"*{SUFFIX}"):
        epoch, _, segment = path.name.removesuffix(SUFFIX).partition("-")
        if epoch.isdecimal() and segment.isdecimal():
            found.append((int(epoch), int(segment), path))
    return sorted(found)


def segments(folder: str | Path) -> list[Segment]:
    """The folder's segments in order of writing, the one being written last. A folder that is not there has none."""
    found = []
    for _, _, path in _numbered(Path(folder)):
        with path.open("rb") as file:
            head = _read_header(file.read(4096), path)
        if head is not None:
            found.append(Segment(path, head[0].worker, head[0].epoch, head[0].segment, head[0].first_sequence))
    return found


def read_segment(data: bytes, name: str | Path = "segment") -> list[Entry]:
    """The records of one closed segment's bytes, as published to the lake.

    Raises `JournalCorrupt`, naming `name` and the offset, when a record is damaged or the end is missing.
    """
    path = Path(name)
    header = _read_header(data, path)
    if header is None:
        raise JournalCorrupt(path, 0, "it ends inside its header")
    frames = _frames(data, header[1], path)
    if frames.end != len(data):
        raise JournalCorrupt(path, frames.end, "a closed segment ends inside a record")
    return _entries(header[0], frames, path)


def read(folder: str | Path) -> Iterator[Entry]:
    """Every whole record of a journal in order, also while it is being written.

    What a torn end holds was never acknowledged and is passed over. Raises `JournalCorrupt` for damage inside.
    """
    files = _numbered(Path(folder))
    expected: int | None = None
    for place, (_, _, path) in enumerate(files):
        data = path.read_bytes()
        header = _read_header(data, path)
        last = place == len(files) - 1
        if header is None:
            if last:
                return
            raise JournalCorrupt(path, 0, "it ends inside its header, and segments follow it")
        head, start = header
        frames = _frames(data, start, path)
        if frames.end != len(data) and not last:
            raise JournalCorrupt(path, frames.end, "it ends inside a record, and segments follow it")
        if expected is not None and head.first_sequence != expected:
            raise JournalCorrupt(path, 0, f"it begins with record {head.first_sequence}, expected {expected}")
        expected = head.first_sequence + len(frames.payloads)
        yield from _entries(head, frames, path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_aside(path: Path, data: bytes, offset: int) -> Torn:
    """Keep the bytes from `offset` on in a `.torn` file, then cut them off; an empty file is removed."""
    number = 0
    while (kept := path.with_name(f"{path.name}.{number}.torn")).exists():
        number += 1
    with kept.open("xb") as file:
        file.write(data[offset:])
        file.flush()
        os.fsync(file.fileno())
    if offset == 0:
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.truncate(offset)
            os.fsync(file.fileno())
    _sync_folder(path.parent)
    return Torn(path, offset, len(data) - offset, kept)


class Journal:
    """The writer of one worker's journal. One process at a time; it fails stop.

    Parameters
    ----------
    folder
        Where the segments are; created when missing.
    worker
        The worker's name, part of every record's identity.
    segment_bytes
        A segment is closed by the first commit that brings it to this size.

    Raises
    ------
    JournalLocked
        Another process writes this journal.
    JournalCorrupt
        The newest segment is damaged inside (older ones are checked by `read`).
    JournalWriteFailed
        The disk refuses. After a failed `commit` the journal takes nothing more: start again, which recovers.
    """

    def __init__(self, folder: str | Path, worker: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = Path(folder)
        self.worker = worker
        self.segment_bytes = segment_bytes
        self.torn: tuple[Torn, ...] = ()
        """What recovery put aside at this start."""
        self.epoch = 1
        self.sequence = 0
        """Sequence of the next record."""
        self._queue: list[bytes] = []
        self._closed = False
        self._failure: JournalWriteFailed | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self._recover()
            self._index = 0
            self._open_segment()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> int:
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise JournalLocked(self.folder) from None
        return handle

    def _recover(self) -> None:
        """Find where the last epoch ended; cut a torn end."""
        torn = []
        for epoch, _, path in reversed(_numbered(self.folder)):
            self.epoch = max(self.epoch, epoch + 1)
            data = path.read_bytes()
            header = _read_header(data, path)
            if header is None:
                # The process died while it created the file: nothing was ever acknowledged in it.
                torn.append(_put_aside(path, data, 0))
                continue
            head, start = header
            if head.worker != self.worker:
                raise JournalError(f"journal {self.folder} is of worker {head.worker!r}, not {self.worker!r}")
            frames = _frames(data, start, path)
            if frames.end != len(data):
                torn.append(_put_aside(path, data, frames.end))
            self.sequence = head.first_sequence + len(frames.payloads)
            break
        self.torn = tuple(torn)

    def _open_segment(self) -> None:
        path = self.folder / f"{self.epoch:08d}-{self._index:08d}{SUFFIX}"
        try:
            self._file: int = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            header = _header(_Head(self.worker, self.epoch, self._index, self.sequence))
            _write_all(self._file, header)
            os.fsync(self._file)
            _sync_folder(self.folder)
        except OSError as error:
            raise self._fail(path, error) from error
        self._path = path
        self._empty = len(header)
        self._size = len(header)

    def _fail(self, path: Path, error: OSError) -> JournalWriteFailed:
        # After a failed write or fsync nobody knows what the disk holds, so nothing may follow it.
        self._failure = JournalWriteFailed(path, str(error))
        return self._failure

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise JournalError(f"journal {self.folder} is closed")

    def append(self, event: Event) -> int:
        """Queue an event for the next commit; returns its sequence."""
        self._check()
        self._queue.append(_frame(encode(event)))
        self.sequence += 1
        return self.sequence - 1

    def extend(self, events: Iterable[Event]) -> None:
        """Queue events in order."""
        for event in events:
            self.append(event)

    def commit(self) -> None:
        """Make all that was queued durable with one fsync. When it returns, it is acknowledged."""
        self._check()
        self._flush()
        if self._size >= self.segment_bytes:
            self.rotate()

    def _flush(self) -> None:
        if not self._queue:
            return
        data = b"".join(self._queue)
        try:
            _write_all(self._file, data)
            os.fsync(self._file)
        except OSError as error:
            raise self._fail(self._path, error) from error
        self._queue.clear()
        self._size += len(data)

    def rotate(self) -> None:
        """Commit, close the current segment when it holds anything, and start the next."""
        self._check()
        self._flush()
        if self._size == self._empty:
            return
        os.close(self._file)
        self._index += 1
        self._open_segment()

    def closed(self) -> list[Segment]:
        """The segments that will never change again, in order of writing."""
        return [segment for segment in segments(self.folder) if segment.path != self._path]

    def close(self) -> None:
        """Commit and let go of the files. A second call does nothing."""
        if self._closed:
            return
        try:
            if self._failure is None:
                self._flush()
        finally:
            self._closed = True
            os.close(self._file)
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
