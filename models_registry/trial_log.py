"""Every bundle that was ever trained, a line each: what reported scores are deflated by (`trials`).

The registry's versions are not enough: equal models keep the version that they have, and versions can be deleted. Each
line carries the hash of the line before it and its own, as the ledger's lines do, so that none can be changed or taken
out unnoticed. A run of the pipeline counts once, however often its last step is tried again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from models_registry.ledger import GENESIS, Ledger, LedgerBroken

FILE = "trials.jsonl"
"""Beside the ledger."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One training of a bundle, before it is entered."""

    run: str
    """The run that trained it."""
    content: str
    """`manifest.content_digest`: equal for equal data and settings."""
    data_hash: str
    settings: str
    """sha256 of the training's settings."""


class Entered(Trial, frozen=True, kw_only=True):
    """A trial as it was entered. `time_ms` is milliseconds UTC."""

    sequence: int
    time_ms: int
    previous_hash: str
    hash: str


class TrialLog:
    """The trials in one file on a local disk.

    >>> import tempfile
    >>> log = TrialLog(Path(tempfile.mkdtemp()) / "trials.jsonl")
    >>> trial = Trial(run="a", content="c", data_hash="d", settings="s")
    >>> log.enter(trial, time_ms=1_000), log.enter(trial, time_ms=2_000), log.count()
    (1, 1, 1)
    """

    def __init__(self, path: str | Path, ledger: str | Path | None = None) -> None:
        self.path = Path(path)
        self._ledger = ledger

    @classmethod
    def beside(cls, ledger: str | Path) -> TrialLog:
        """The log that belongs to the ledger of that path."""
        return cls(Path(ledger).with_name(FILE), ledger)

    def enter(self, trial: Trial, *, time_ms: int) -> int:
        """Enter a trial unless its run is there already; how many there are then. On return it is on the disk.

        Raises `LedgerBroken` rather than continue a chain that does not hold.
        """
        with self._lock():
            known = self.entries()
            if any(entry.run == trial.run for entry in known):
                return len(known)
            fields = msgspec.structs.asdict(trial) | {
                "sequence": len(known),
                "time_ms": time_ms,
                "previous_hash": known[-1].hash if known else GENESIS,
            }
            line = msgspec.json.encode(fields | {"hash": _digest(fields)}, order="sorted")
            with self.path.open("ab") as file:
                # What a crash left of an unfinished line was never acknowledged.
                file.truncate(self._whole_bytes())
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            return len(known) + 1

    def entries(self) -> list[Entered]:
        """Every trial in order, the chain checked; `LedgerBroken` names the first line that does not hold."""
        found: list[Entered] = []
        if not self.path.exists():
            return found
        for number, line in enumerate(self.path.read_bytes()[: self._whole_bytes()].splitlines(), start=1):
            try:
                entry = msgspec.json.decode(line, type=Entered)
                fields = msgspec.json.decode(line)
            except msgspec.MsgspecError as error:
                raise LedgerBroken(self.path, number, f"not a trial ({error})") from None
            fields.pop("hash")
            before = found[-1].hash if found else GENESIS
            if (entry.previous_hash, entry.sequence, entry.hash) != (before, len(found), _digest(fields)):
                raise LedgerBroken(self.path, number, "it is not what was written after the line before it")
            found.append(entry)
        return found

    def count(self) -> int:
        """How many bundles were trained, at least one: by the log or, where that began later, by the ledger beside it.

        The highest version that the ledger names is a number of bundles too.
        """
        named = [entry.version for entry in Ledger(self._ledger).entries()] if self._ledger else []
        registered = max((int(version) for version in named if version and version.isdecimal()), default=0)
        return max(len(self.entries()), registered, 1)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _whole_bytes(self) -> int:
        return self.path.read_bytes().rfind(b"\n") + 1 if self.path.exists() else 0


def _digest(fields: dict[str, object]) -> str:
    return hashlib.sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()
