"""How a journal lies on disk, and how it is read.

A journal is a folder of segments `EEEEEEEE-SSSSSSSS.journal` (epoch, segment). A segment is a header and frames, all
integers little-endian:

- header: magic `PFJRNL`, version u16, length u32 and crc32 u32 of a MessagePack map (worker, epoch, segment,
  first_sequence, journal) that follows;
- frame: magic u16, payload length u32, crc32 u32 of length and payload; then the payload, one event.

A segment is written by one epoch only, so all files but the newest are immutable. A write that was cut leaves an
incomplete frame at the end, which was never acknowledged. A damaged frame with whole frames behind it is no cut:
`JournalCorrupt`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from trading_worker.errors import JournalCorrupt
from trading_worker.events import AnyEvent, decode

VERSION = 1
SUFFIX = ".journal"

_HEADER = struct.Struct("<6sHII")
_HEADER_MAGIC = b"PFJRNL"
_FRAME = struct.Struct("<HII")
_FRAME_MAGIC = 0xB5F7
_FRAME_MARK = _FRAME_MAGIC.to_bytes(2, "little")
_LENGTH = struct.Struct("<I")


class Entry(NamedTuple):
    """One record: where it stands and what it says. (worker, epoch, sequence) names it for good in its journal."""

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
    journal: str = ""
    """Which journal of that worker it belongs to."""


class Head(msgspec.Struct, frozen=True):
    """What a segment's header says."""

    worker: str
    epoch: int
    segment: int
    first_sequence: int
    journal: str = ""


class Frames(NamedTuple):
    """The whole frames of a segment, and where they end."""

    payloads: list[tuple[int, bytes]]
    end: int


def _crc(payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload))))


def pack_frame(payload: bytes) -> bytes:
    """A record as it is written."""
    return _FRAME.pack(_FRAME_MAGIC, len(payload), _crc(payload)) + payload


def pack_header(head: Head) -> bytes:
    """The beginning of a segment."""
    body = msgspec.msgpack.encode(head)
    return _HEADER.pack(_HEADER_MAGIC, VERSION, len(body), zlib.crc32(body)) + body


def unpack_header(data: bytes, path: Path) -> tuple[Head, int] | None:
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
    return msgspec.msgpack.decode(body, type=Head), _HEADER.size + length


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


def whole_frames(data: bytes, offset: int, path: Path) -> Frames:
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
    return Frames(payloads, offset)


def _entries(head: Head, frames: Frames, path: Path) -> list[Entry]:
    entries = []
    for count, (offset, payload) in enumerate(frames.payloads):
        try:
            event = decode(payload)
        except msgspec.MsgspecError as error:
            raise JournalCorrupt(path, offset, f"a whole record is not an event of this program: {error}") from error
        entries.append(Entry(head.worker, head.epoch, head.first_sequence + count, event))
    return entries


def segment_files(folder: Path) -> list[tuple[int, int, Path]]:
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
    for _, _, path in segment_files(Path(folder)):
        with path.open("rb") as file:
            head = unpack_header(file.read(4096), path)
        if head is not None:
            at = head[0]
            found.append(Segment(path, at.worker, at.epoch, at.segment, at.first_sequence, at.journal))
    return found


def read_segment(data: bytes, name: str | Path = "segment") -> list[Entry]:
    """The records of one closed segment's bytes, as published to the lake.

    Raises `JournalCorrupt`, naming `name` and the offset, when a record is damaged or the end is missing.
    """
    path = Path(name)
    header = unpack_header(data, path)
    if header is None:
        raise JournalCorrupt(path, 0, "it ends inside its header")
    frames = whole_frames(data, header[1], path)
    if frames.end != len(data):
        raise JournalCorrupt(path, frames.end, "a closed segment ends inside a record")
    return _entries(header[0], frames, path)


def read(folder: str | Path) -> Iterator[Entry]:
    """Every whole record of a journal in order, also while it is being written.

    What a torn end holds was never acknowledged and is passed over. Raises `JournalCorrupt` for damage inside.
    """
    files = segment_files(Path(folder))
    expected: int | None = None
    for place, (_, _, path) in enumerate(files):
        data = path.read_bytes()
        header = unpack_header(data, path)
        last = place == len(files) - 1
        if header is None:
            if last:
                return
            raise JournalCorrupt(path, 0, "it ends inside its header, and segments follow it")
        head, start = header
        frames = whole_frames(data, start, path)
        if frames.end != len(data) and not last:
            raise JournalCorrupt(path, frames.end, "it ends inside a record, and segments follow it")
        if expected is not None and head.first_sequence != expected:
            raise JournalCorrupt(path, 0, f"it begins with record {head.first_sequence}, expected {expected}")
        expected = head.first_sequence + len(frames.payloads)
        yield from _entries(head, frames, path)
