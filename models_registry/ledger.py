"""The ledger: who was champion when, why and by whom, in lines that cannot be changed unnoticed.

One JSON object a line. Each carries the hash of the line before it and its own,
`sha256(previous_hash + canonical JSON of the rest)`, so a changed, removed or inserted line breaks the chain from
there on. The file is only ever appended to, under a lock, with an fsync before an entry counts. What a crash left
of an unfinished last line was never acknowledged and is cut off by the next append. What a chain cannot show is that
lines are missing at its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

GENESIS = "0" * 64
"""The previous hash of the first entry."""

CHAMPION = "champion"
CHALLENGER = "challenger"

Action = Literal["promote", "rollback", "demotion", "challenge", "found"]
"""`rollback`: a person gave the champion back to the one before; `demotion`: its live record did. `found`: the alias
was moved by something that does not write here, such as the MLflow UI, and was noticed."""


class LedgerBroken(Exception):
    """A line of the ledger is not what was written: find out who changed it before anything is promoted."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path} is broken at line {line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One move of an alias, before it is entered.

    `version` is where the alias points afterwards and `previous` where it pointed before (None: nowhere);
    `details` holds what the decision rested on, such as the gate's verdict.
    """

    action: Action
    alias: str
    version: str | None
    previous: str | None
    reason: str
    by: str
    details: Mapping[str, object] = msgspec.field(default_factory=dict)


class Entry(Move, frozen=True, kw_only=True):
    """A move as it was entered: its place in the chain and its time (milliseconds UTC)."""

    sequence: int
    time_ms: int
    previous_hash: str
    hash: str


class Ledger:
    """The ledger in one file on a local disk.

    >>> import tempfile
    >>> ledger = Ledger(Path(tempfile.mkdtemp()) / "ledger.jsonl")
    >>> move = Move(action="promote", alias="champion", version="1", previous=None, reason="bootstrap", by="gate")
    >>> ledger.append(move, time_ms=1_000).sequence
    0
    >>> ledger.verify()
    1
    >>> ledger.who_was_champion(999), ledger.who_was_champion(1_000)
    (None, '1')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the ledger against other processes for as long as a decision and its entry take."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def append(self, move: Move, *, time_ms: int) -> Entry:
        """Enter `move`; when this returns it is on the disk. Hold `lock` when other processes may append too.

        Raises `LedgerBroken` rather than continue a chain that does not hold.
        """
        entries = self.entries()
        fields = msgspec.structs.asdict(move) | {
            "sequence": len(entries),
            "time_ms": time_ms,
            "previous_hash": entries[-1].hash if entries else GENESIS,
        }
        line = msgspec.json.encode(fields | {"hash": _digest(fields)}, order="sorted")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(self._whole_bytes())
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if not entries:
            _sync_folder(self.path.parent)
        return msgspec.json.decode(line, type=Entry)

    def entries(self) -> list[Entry]:
        """Every entry in order, the chain checked; `LedgerBroken` names the first line that does not hold."""
        if not self.path.exists():
            return []
        entries: list[Entry] = []
        previous = GENESIS
        for number, line in enumerate(self.path.read_bytes()[: self._whole_bytes()].splitlines(), start=1):
            try:
                entry = msgspec.json.decode(line, type=Entry)
                fields = msgspec.json.decode(line)
            except msgspec.MsgspecError as error:
                raise LedgerBroken(self.path, number, f"not an entry ({error})") from None
            del fields["hash"]
            if entry.previous_hash != previous or entry.sequence != len(entries):
                raise LedgerBroken(self.path, number, "it does not follow from the line before it")
            if _digest(fields) != entry.hash:
                raise LedgerBroken(self.path, number, "its content does not match its hash")
            entries.append(entry)
            previous = entry.hash
        return entries

    def verify(self) -> int:
        """The number of entries when the whole chain holds; else `LedgerBroken` names the first broken line."""
        return len(self.entries())

    def who_was_champion(self, time_ms: int) -> str | None:
        """The champion's version at `time_ms`, or None when there was none."""
        return self.at(CHAMPION, time_ms)

    def at(self, alias: str, time_ms: int) -> str | None:
        """The version that `alias` pointed to at `time_ms`, or None."""
        version = None
        for entry in self.entries():
            if entry.time_ms > time_ms:
                break
            if entry.alias == alias:
                version = entry.version
        return version

    def last(self, alias: str) -> str | None:
        """The version that `alias` points to by the last entry, or None."""
        return next((entry.version for entry in reversed(self.entries()) if entry.alias == alias), None)

    def before(self, current: str | None) -> str | None:
        """The champion that a rollback or demotion of `current` goes back to, or None.

        Either takes one step off the history of promotions: after promoting 1, 2, 3, rolling back twice gives 1.
        """
        history: list[str] = []
        for entry in self.entries():
            if entry.alias != CHAMPION or entry.version is None:
                continue
            if entry.action in ("rollback", "demotion"):
                while history and history[-1] != entry.version:
                    history.pop()
            if not history or history[-1] != entry.version:
                history.append(entry.version)
        return next((version for version in reversed(history) if version != current), None)

    def _whole_bytes(self) -> int:
        """Length of the file up to its last line end: what follows was never acknowledged."""
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0


def _digest(fields: Mapping[str, object]) -> str:
    """The hash of an entry's fields; `previous_hash` is among them and goes first."""
    canonical = msgspec.json.encode(fields, order="sorted")
    return hashlib.sha256(str(fields["previous_hash"]).encode() + canonical).hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
