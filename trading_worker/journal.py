"""The journal: append-only, checksummed segments of events; what it acknowledged survives `kill -9`.

`append` queues, `commit` writes what was queued with one write and one fsync; only then is it acknowledged. Every start
of the writer takes the next epoch and a new file. A torn end of the last one is put aside in a `.torn` file and cut
off. `segments` says how the files look.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from market.folders import sync_folder
from trading_worker.errors import JournalError, JournalLocked, JournalWriteFailed
from trading_worker.events import Event, digest, encode
from trading_worker.segments import (
    SUFFIX,
    Entry,
    Head,
    Segment,
    pack_frame,
    pack_header,
    read,
    read_segment,
    segment_files,
    segments,
    unpack_header,
    whole_frames,
)

__all__ = ["Entry", "Journal", "Segment", "Torn", "digest", "read", "read_segment", "segments"]

SEGMENT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Torn:
    """What recovery cut from the end of a segment, and where it keeps it."""

    path: Path
    offset: int
    size: int
    """Bytes cut."""
    kept: Path


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
    sync_folder(path.parent)
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
    identity
        What tells this journal from another one of the same worker, kept elsewhere or lost: both begin with epoch 1.
        Only a folder without a journal takes it; one that has a journal keeps that journal's.

    Raises
    ------
    JournalLocked
        Another process writes this journal.
    JournalCorrupt
        The newest segment is damaged inside (older ones are checked by `read`).
    JournalWriteFailed
        The disk refuses. After a failed `commit` the journal takes nothing more: start again, which recovers.
    """

    def __init__(
        self, folder: str | Path, worker: str, segment_bytes: int = SEGMENT_BYTES, *, identity: str = ""
    ) -> None:
        self.folder = Path(folder)
        self.worker = worker
        self.segment_bytes = segment_bytes
        self.identity = identity
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
        for epoch, _, path in reversed(segment_files(self.folder)):
            self.epoch = max(self.epoch, epoch + 1)
            data = path.read_bytes()
            header = unpack_header(data, path)
            if header is None:
                # The process died while it created the file: nothing was ever acknowledged in it.
                torn.append(_put_aside(path, data, 0))
                continue
            head, start = header
            if head.worker != self.worker:
                raise JournalError(f"journal {self.folder} is of worker {head.worker!r}, not {self.worker!r}")
            frames = whole_frames(data, start, path)
            if frames.end != len(data):
                torn.append(_put_aside(path, data, frames.end))
            self.identity = head.journal
            self.sequence = head.first_sequence + len(frames.payloads)
            break
        self.torn = tuple(torn)

    def _open_segment(self) -> None:
        path = self.folder / f"{self.epoch:08d}-{self._index:08d}{SUFFIX}"
        try:
            self._file: int = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            header = pack_header(Head(self.worker, self.epoch, self._index, self.sequence, self.identity))
            _write_all(self._file, header)
            os.fsync(self._file)
            sync_folder(self.folder)
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
        self._queue.append(pack_frame(encode(event)))
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
        # Before the new file appears: `closed` must not take it for one that nobody writes.
        self._index += 1
        self._open_segment()

    @property
    def place(self) -> tuple[int, int]:
        """Epoch and number of the segment being written: every closed one has a smaller place."""
        return self.epoch, self._index

    def closed(self) -> list[Segment]:
        """The segments that will never change again, in order of writing. Any thread may ask, at any moment."""
        place = self.place  # read before the folder is: what is opened meanwhile lies beyond it
        return [segment for segment in segments(self.folder) if (segment.epoch, segment.index) < place]

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
