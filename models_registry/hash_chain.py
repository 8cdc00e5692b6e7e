"""A file of records that cannot be changed unnoticed: each line carries the hash of the line before it and its own.

One JSON object a line; its hash is `sha256(previous_hash + canonical JSON of the rest)`, so a changed, removed or
inserted line breaks the chain from there on. The file is only ever appended to, under a lock, with an fsync before a
record counts. What a crash left of an unfinished last line was never acknowledged and is cut off by the next append.
What a chain cannot show is that lines are missing at its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from market.folders import sync_folder
from models_registry.errors import LedgerBroken

GENESIS = "0" * 64
"""The previous hash of the first record."""


class Link(Protocol):
    """What a type of records needs to be chained."""

    @property
    def sequence(self) -> int:
        """Its place, from 0."""

    @property
    def time_ms(self) -> int:
        """When it was added, milliseconds UTC."""

    @property
    def previous_hash(self) -> str:
        """Of the record before it."""

    @property
    def hash(self) -> str:
        """Of all the rest of it."""


T = TypeVar("T", bound=Link)


class HashChain(Generic[T]):
    """The records of type `T`, a msgspec structure, in one file on a local disk; `path` need not exist yet."""

    def __init__(self, path: str | Path, record: type[T]) -> None:
        self.path = Path(path)
        self._record = record

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the file against other processes for as long as a decision and its record take."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def append(self, fields: Mapping[str, object], *, time_ms: int) -> T:
        """Add a record; when this returns it is on the disk. Hold `lock` when other processes may append too.

        Raises `LedgerBroken` rather than continue a chain that does not hold.
        """
        records = self.records()
        linked = {
            **fields,
            "sequence": len(records),
            "time_ms": time_ms,
            "previous_hash": records[-1].hash if records else GENESIS,
        }
        line = msgspec.json.encode({**linked, "hash": _digest(linked)}, order="sorted")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(self._whole_bytes())
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not records:
            sync_folder(self.path.parent)
        return msgspec.json.decode(line, type=self._record)

    def records(self) -> list[T]:
        """Every record in order, the chain checked; `LedgerBroken` names the first line that does not hold."""
        records: list[T] = []
        if not self.path.exists():
            return records
        previous = GENESIS
        for number, line in enumerate(self.path.read_bytes()[: self._whole_bytes()].splitlines(), start=1):
            try:
                record = msgspec.json.decode(line, type=self._record)
                fields = msgspec.json.decode(line)
            except msgspec.MsgspecError as error:
                raise LedgerBroken(self.path, number, f"it is no record of {self._record.__name__} ({error})") from None
            del fields["hash"]
            if record.previous_hash != previous or record.sequence != len(records):
                raise LedgerBroken(self.path, number, "it does not follow from the line before it")
            if _digest(fields) != record.hash:
                raise LedgerBroken(self.path, number, "its content does not match its hash")
            records.append(record)
            previous = record.hash
        return records

    def _whole_bytes(self) -> int:
        """Length of the file up to its last line end: what follows was never acknowledged."""
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0


def _digest(fields: Mapping[str, object]) -> str:
    """The hash of a record's fields; `previous_hash` is among them and goes first."""
    canonical = msgspec.json.encode(fields, order="sorted")
    return hashlib.sha256(str(fields["previous_hash"]).encode() + canonical).hexdigest()
