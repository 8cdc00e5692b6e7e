"""Every bundle that was ever trained, a line each: what reported scores are deflated by (`trials`).

The registry's versions are not enough: equal models keep the version that they have, and versions can be deleted. The
lines are chained as the ledger's are (`hash_chain`), so that none can be changed or taken out unnoticed. A run of the
pipeline counts once, however often its last step is tried again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from models_registry.hash_chain import HashChain
from models_registry.ledger import Ledger

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
    """A trial as it was entered: with its place in the chain and its time (milliseconds UTC)."""

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
        self._chain = HashChain(path, Entered)
        self._ledger = ledger

    @classmethod
    def beside(cls, ledger: str | Path) -> TrialLog:
        """The log that belongs to the ledger of that path."""
        return cls(Path(ledger).with_name(FILE), ledger)

    def enter(self, trial: Trial, *, time_ms: int) -> int:
        """Enter a trial unless its run is there already; how many there are then. On return it is on the disk.

        Raises `LedgerBroken` rather than continue a chain that does not hold.
        """
        with self._chain.lock():
            known = self.entries()
            if any(entry.run == trial.run for entry in known):
                return len(known)
            return self._chain.append(msgspec.structs.asdict(trial), time_ms=time_ms).sequence + 1

    def entries(self) -> list[Entered]:
        """Every trial in order, the chain checked; `LedgerBroken` names the first line that does not hold."""
        return self._chain.records()

    def count(self) -> int:
        """How many bundles were trained, at least one: by the log or, where that began later, by the ledger beside it.

        The highest version that the ledger names is a number of bundles too.
        """
        named = [entry.version for entry in Ledger(self._ledger).entries()] if self._ledger else []
        registered = max((int(version) for version in named if version and version.isdecimal()), default=0)
        return max(len(self.entries()), registered, 1)
