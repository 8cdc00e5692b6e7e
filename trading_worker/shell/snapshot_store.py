"""The engine's snapshots on disk: written whole, the newest few kept, the newest readable one found again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from market.whole_files import write_atomic
from trading_worker import snapshots
from trading_worker.engine import Engine
from trading_worker.errors import SnapshotRefused
from trading_worker.shell.keeping import Kept

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

    def save(self, engine: Engine, charged_until: Sequence[int], *, lasting: bool) -> None:
        """Write a snapshot and flush it to the disk when it is to last, else nothing."""
        if lasting:
            self.write(engine.time_ms, engine.snapshot(), charged_until)

    def write(self, time_ms: int, engine: bytes, charged_until: Sequence[int]) -> None:
        """Keep one, and drop the oldest beyond `keep`."""
        data = msgspec.msgpack.encode(Stored(engine, tuple(charged_until)))
        write_atomic(self._folder / f"{time_ms:015d}{SUFFIX}", hashlib.sha256(data).digest() + data)
        for path in self._paths()[: -self._keep]:
            path.unlink(missing_ok=True)

    def newest_first(self, refuse: Callable[[str], None]) -> Iterator[Kept]:
        """Every snapshot that can be read."""
        for path in reversed(self._paths()):
            found = self._read(path, refuse)
            if found is not None:
                yield found

    def newest_ms(self) -> int:
        """Time of the newest file, -1 without any."""
        paths = self._paths()
        return int(paths[-1].stem) if paths else -1

    @staticmethod
    def _read(path: Path, refuse: Callable[[str], None]) -> Kept | None:
        data = path.read_bytes()
        if hashlib.sha256(data[_SHA_BYTES:]).digest() != data[:_SHA_BYTES]:
            # A damaged one is passed over: the journal holds what came since the one before.
            refuse(f"snapshot {path.name} is damaged")
            return None
        try:
            stored = msgspec.msgpack.decode(data[_SHA_BYTES:], type=Stored)
            state = snapshots.decode(stored.engine)
        except (SnapshotRefused, msgspec.MsgspecError) as error:
            # So is one of another version of this program.
            refuse(f"snapshot {path.name} cannot be used: {error}")
            return None
        return Kept(state, stored.charged_until, "snapshot")

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))
