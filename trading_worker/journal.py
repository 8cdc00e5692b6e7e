"""The journal: append-only, checksummed segments of events; what it acknowledged survives `kill -9`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from trading_worker.events import AnyEvent, Event, digest

__all__ = ["Entry", "Journal", "Segment", "Torn", "digest", "read", "read_segment", "segments"]

SEGMENT_BYTES = 4 * 1024 * 1024


class Entry(NamedTuple):
    """One record: where it stands and what it says."""

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
    first_sequence: int


@dataclass(frozen=True, slots=True)
class Torn:
    """What recovery cut from the end of a segment and where it keeps it."""

    path: Path
    offset: int
    bytes: int
    kept: Path


class Journal:
    """The writer."""

    epoch: int
    sequence: int
    """Sequence of the next event."""
    torn: tuple[Torn, ...]

    def __init__(self, folder: str | Path, worker: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        raise NotImplementedError

    def append(self, event: Event) -> int:
        """Queue an event for the next commit; returns its sequence."""
        raise NotImplementedError

    def extend(self, events: Iterable[Event]) -> None:
        """Queue events in order."""
        raise NotImplementedError

    def commit(self) -> None:
        """Make all that was queued durable with one fsync. When it returns, it is acknowledged."""
        raise NotImplementedError

    def rotate(self) -> None:
        """Close the current segment, when it holds anything, and start the next."""
        raise NotImplementedError

    def closed(self) -> list[Segment]:
        """The segments that will never change again."""
        raise NotImplementedError

    def close(self) -> None:
        """Commit and let go of the files."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def segments(folder: str | Path) -> list[Segment]:
    """The folder's segments in order of writing."""
    raise NotImplementedError


def read(folder: str | Path) -> Iterator[Entry]:
    """Every whole record in order; `JournalCorrupt` when one inside is damaged."""
    raise NotImplementedError


def read_segment(data: bytes, name: str | Path = "segment") -> list[Entry]:
    """The records of one closed segment's bytes, as published to the lake."""
    raise NotImplementedError
