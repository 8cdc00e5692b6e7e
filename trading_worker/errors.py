"""What can go wrong in the worker's core, and what the caller does about it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from market.errors import utc


class WorkerError(Exception):
    """Base of every error of `trading_worker`."""


class SettingInvalid(WorkerError):
    """An environment variable with a value that is not allowed: correct it and start again."""

    def __init__(self, variable: str, value: object, allowed: str) -> None:
        super().__init__(f"{variable}={value!s} is not allowed: {allowed}")
        self.variable = variable
        self.value = value
        self.allowed = allowed


class UnknownStrategy(WorkerError):
    """A strategy that does not exist: choose one of those named."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(f"unknown strategy {name!r}: use one of {', '.join(self.known)}")
        self.name = name


class WaveOutOfOrder(WorkerError):
    """A wave that is not later than the last one: the feed is at fault, the engine has not changed."""

    def __init__(self, time_ms: int, last_ms: int) -> None:
        super().__init__(f"wave of {utc(time_ms)} comes after the wave of {utc(last_ms)}")
        self.time_ms = time_ms
        self.last_ms = last_ms


class WaveMalformed(WorkerError):
    """A wave whose arrays do not fit the engine's symbols or each other: the feed is at fault, nothing has changed."""

    def __init__(self, time_ms: int, reason: str) -> None:
        super().__init__(f"wave of {utc(time_ms)} is malformed: {reason}")
        self.time_ms = time_ms
        self.reason = reason


class SnapshotRefused(WorkerError):
    """A snapshot that does not belong to this engine or is damaged: use an older one, or start from a backfill."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"snapshot refused: {reason}")
        self.reason = reason


class StateRefused(WorkerError):
    """A mapped file, or a part of one, that no state is taken from: an older generation, a snapshot or bars serve."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} refused: {reason}")
        self.path = path
        self.reason = reason


class StateForeign(StateRefused):
    """A file of something else, or of another version of this program."""


class StateDamaged(StateRefused):
    """A torn or changed part: its checksum does not match, or something of it is missing."""


class StateMisfit(StateRefused):
    """A whole state, but of another specification or another universe."""


class StateUnwritable(WorkerError):
    """The disk refuses a mapped file: go on without it, or free the disk and start again."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}")
        self.path = path
        self.reason = reason


class SwapRefused(WorkerError):
    """A bundle that cannot replace the one in force: the old one stays."""

    def __init__(self, bundle: str, reason: str) -> None:
        super().__init__(f"bundle {bundle} refused: {reason}")
        self.bundle = bundle
        self.reason = reason


class NothingToAsk(WorkerError):
    """A symbol that nothing can be asked about just now: ask again after the next wave."""

    def __init__(self, symbol: str, reason: str) -> None:
        self.symbol = symbol
        self.reason = reason
        super().__init__(f"nothing can be said of {symbol}: {reason}")


class JournalError(WorkerError):
    """Base of the journal's errors."""


class JournalCorrupt(JournalError):
    """A damaged record inside the journal, not merely a torn end: look at the file, nothing was changed."""

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"journal {path} is corrupt at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


class JournalLocked(JournalError):
    """Another process writes this journal: stop it first, two workers never share one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"journal {folder} is in use by another process")
        self.folder = folder


class JournalWriteFailed(JournalError):
    """The journal could not be made durable: stop and start again, what was acknowledged is safe."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write journal {path}: {reason}")
        self.path = path
        self.reason = reason
