"""The engine's snapshots on disk: written whole, the newest few kept, the newest readable one found again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from trading_worker import snapshots
from trading_worker.errors import SnapshotRefused
from trading_worker.shell.files import write_atomic

SUFFIX = ".snapshot"
_SHA_BYTES = 32


class Stored(msgspec.Struct, frozen=True):
    """What a restart needs: the engine's snapshot, and until when each symbol's fundings were charged to it."""

    engine: bytes
    charged_until: tuple[int, ...]


class SnapshotStore:
    """A folder of snapshots named by their time. `keep` stay: an older one helps when the newest is damaged."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, time_ms: int, engine: bytes, charged_until: Sequence[int]) -> None:
        """Keep one, and drop the oldest beyond `keep`."""
        data = msgspec.msgpack.encode(Stored(engine, tuple(charged_until)))
        write_atomic(self._folder / f"{time_ms:015d}{SUFFIX}", hashlib.sha256(data).digest() + data)
        for path in self._paths()[: -self._keep]:
            path.unlink(missing_ok=True)

    def newest_first(self) -> Iterator[tuple[snapshots.Body, Stored]]:
        """Every snapshot that can be read, with what the engine says of itself in it."""
        for path in reversed(self._paths()):
            data = path.read_bytes()
            if hashlib.sha256(data[_SHA_BYTES:]).digest() != data[:_SHA_BYTES]:
                # A damaged one is passed over: the journal holds what came since the one before.
                continue
            try:
                stored = msgspec.msgpack.decode(data[_SHA_BYTES:], type=Stored)
                body = snapshots.decode(stored.engine)
            except (SnapshotRefused, msgspec.MsgspecError):
                # So is one of another version of this program.
                continue
            yield body, stored

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))
