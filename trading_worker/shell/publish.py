"""Closed journal segments into the lake, as immutable Parquet files.

One segment is one file, named by (worker, epoch, segment): publishing again finds it there and does nothing, so a
worker that was killed in between simply goes on. Readers ingest by (worker, epoch, sequence). In the lake an epoch
carries its journal's identity, for a worker whose journal was lost begins again with epoch 1, and what another worker
of the same name has published must not be taken for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pyarrow as pa

from market.errors import MarketError
from market.lake import Lake
from trading_worker.events import kind
from trading_worker.journal import Entry, Journal, Segment, read_segment

DATASET = "journal"
KEPT_S = 30 * 86_400.0
"""How long published segments stay here: far longer than the oldest snapshot or position reaches back."""


def table(entries: list[Entry], segment: int) -> pa.Table:
    """The entries of one segment as rows of the dataset `journal`; `event` is JSON, absent numbers are null."""
    return pa.table(
        {
            "sequence": pa.array([entry.sequence for entry in entries], pa.int64()),
            "time_ms": pa.array([entry.event.time_ms for entry in entries], pa.int64()),
            "kind": pa.array([kind(entry.event) for entry in entries], pa.string()),
            "event": pa.array([msgspec.json.encode(entry.event).decode() for entry in entries], pa.string()),
            "segment": pa.array([segment] * len(entries), pa.int64()),
        }
    )


def partition(segment: Segment) -> dict[str, str]:
    """Where a segment's file lies: an epoch of one journal is none of another's."""
    epoch = f"{segment.epoch:08d}"
    return {"worker": segment.worker, "epoch": f"{epoch}-{segment.journal}" if segment.journal else epoch}


def publish(lake: Lake, segment: Segment) -> str | None:
    """Write one closed segment; its path, or None when it is there already or holds nothing. Blocking."""
    values = partition(segment)
    file = f"segment-{segment.index:08d}.parquet"
    if lake.exists("/".join([DATASET, *(f"{key}={value}" for key, value in values.items()), file])):
        return None
    entries = read_segment(segment.path.read_bytes(), segment.path)
    return lake.put(DATASET, table(entries, segment.index), values, file) if entries else None


class Publisher:
    """Publishes in the background whatever is closed, and removes old segments that the lake has.

    Parameters
    ----------
    lake: where to.
    journal: whose closed segments are published.
    before: awaited first at each turn; may close the segment in use, between waves.
    interval_s: wall seconds between two turns.
    wall_s: this machine's clock in seconds, for the age of files alone.
    done: told how many segments were written; and a reason when the lake refused, None when it works.
    """

    def __init__(
        self,
        lake: Lake,
        journal: Journal,
        before: Callable[[], Awaitable[None]],
        *,
        interval_s: float,
        wall_s: Callable[[], float],
        done: Callable[[int, str | None], None],
    ) -> None:
        self._lake = lake
        self._journal = journal
        self._before = before
        self._interval_s = interval_s
        self._wall_s = wall_s
        self._done = done
        self._published: set[Path] = set()
        self._seen: tuple[int, int] | None = None
        """Every segment before this place is published."""

    async def run(self) -> None:
        """For ever. A lake that refuses is tried again at the next turn."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self._before()
            if self._journal.place != self._seen:
                await self.flush()

    async def flush(self) -> None:
        """Publish every closed segment that is not yet published."""
        place = self._journal.place
        count = 0
        try:
            for segment in await asyncio.to_thread(self._journal.closed):
                if segment.path not in self._published:
                    count += await asyncio.to_thread(publish, self._lake, segment) is not None
                    self._published.add(segment.path)
            await asyncio.to_thread(self._prune)
        except (MarketError, OSError) as error:
            self._done(count, f"journal segments are kept here until the lake takes them: {error}")
            return
        self._seen = place
        self._done(count, None)

    def _prune(self) -> None:
        """Remove segments from the oldest on that are published and older than a restart can need."""
        for path in sorted(self._published):
            if self._wall_s() - path.stat().st_mtime < KEPT_S:
                return
            path.unlink()
            self._published.discard(path)
