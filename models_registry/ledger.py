"""The ledger: who was champion when, why and by whom, in lines that cannot be changed unnoticed (`hash_chain`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import msgspec

from models_registry.hash_chain import HashChain

CHAMPION = "champion"
CHALLENGER = "challenger"

Action = Literal["promote", "rollback", "demotion", "challenge", "found"]
"""`rollback`: a person gave the champion back to the one before; `demotion`: its live record did. `found`: the alias
was moved by something that does not write here, such as the MLflow UI, and was noticed."""


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
    """A move as it was entered: with its place in the chain and its time (milliseconds UTC)."""

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
        self._chain = HashChain(path, Entry)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the ledger against other processes for as long as a decision and its entry take."""
        return self._chain.lock()

    def append(self, move: Move, *, time_ms: int) -> Entry:
        """Enter `move`; when this returns it is on the disk. Hold `lock` when other processes may append too.

        Raises `LedgerBroken` rather than continue a chain that does not hold.
        """
        return self._chain.append(msgspec.structs.asdict(move), time_ms=time_ms)

    def entries(self) -> list[Entry]:
        """Every entry in order, the chain checked; `LedgerBroken` names the first line that does not hold."""
        return self._chain.records()

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

        Either takes one step off the history of promotions: after promoting 1, 2, 3, rolling back twice gives 1. So
        does an alias that was found at a version of the history, which somebody gave it back to past the ledger.
        """
        history: list[str] = []
        for entry in self.entries():
            if entry.alias != CHAMPION or entry.version is None:
                continue
            back = entry.action == "found" and entry.version in history
            if back or entry.action in ("rollback", "demotion"):
                while history and history[-1] != entry.version:
                    history.pop()
            if not history or history[-1] != entry.version:
                history.append(entry.version)
        return next((version for version in reversed(history) if version != current), None)
