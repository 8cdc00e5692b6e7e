"""The engine's snapshots on disk: written whole, the newest few kept, the newest readable one found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trading_worker import snapshots
from trading_worker.errors import SnapshotRefused
from trading_worker.shell.files import write_atomic

SUFFIX = ".snapshot"


class SnapshotStore:
    """A folder of snapshots named by their time. `keep` stay: an older one helps when the newest is damaged."""

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self._folder = folder
        self._keep = keep

    def save(self, time_ms: int, data: bytes) -> None:
        """Keep one, and drop the oldest beyond `keep`."""
        write_atomic(self._folder / f"{time_ms:015d}{SUFFIX}", data)
        for path in self._paths()[: -self._keep]:
            path.unlink(missing_ok=True)

    def newest_first(self) -> Iterator[tuple[snapshots.Body, bytes]]:
        """Every snapshot that can be read, with what it says of itself."""
        for path in reversed(self._paths()):
            data = path.read_bytes()
            try:
                yield snapshots.decode(data), data
            except SnapshotRefused:
                # A damaged one is passed over: the journal holds what came since the one before.
                continue

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))
