"""Closed journal segments into the lake, as immutable Parquet files.

One segment is one file, named by (worker, epoch, segment): publishing again finds it there and does nothing, so a
worker that was killed in between simply goes on. Readers ingest by (worker, epoch, sequence).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pyarrow as pa

from market.errors import MarketError
from market.lake import Lake
from trading_worker.events import kind
from trading_worker.journal import Entry, Segment, read_segment

DATASET = "journal"


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
    """Where a segment's file lies."""
    return {"worker": segment.worker, "epoch": f"{segment.epoch:08d}"}


def publish(lake: Lake, segment: Segment) -> str | None:
    """Write one closed segment; its path, or None when it is there already or holds nothing. Blocking."""
    values = partition(segment)
    file = f"segment-{segment.index:08d}.parquet"
    if lake.exists("/".join([DATASET, *(f"{key}={value}" for key, value in values.items()), file])):
        return None
    entries = read_segment(segment.path.read_bytes(), segment.path)
    return lake.put(DATASET, table(entries, segment.index), values, file) if entries else None


class Publisher:
    """Publishes in the background whatever is closed.

    Parameters
    ----------
    lake: where to.
    closed: lists the closed segments, oldest first (`Journal.closed`).
    rotate: closes the segment in use, if anything is in it; called on the loop, between waves.
    interval_s: wall seconds after which a segment is closed however little it holds.
    done: told how many segments were written; and a reason when the lake refused, None when it works.
    """

    def __init__(
        self,
        lake: Lake,
        closed: Callable[[], list[Segment]],
        rotate: Callable[[], Awaitable[None]],
        *,
        interval_s: float,
        done: Callable[[int, str | None], None],
    ) -> None:
        self._lake = lake
        self._closed = closed
        self._rotate = rotate
        self._interval_s = interval_s
        self._done = done
        self._published: set[tuple[int, int]] = set()

    async def run(self) -> None:
        """For ever: let labels come back soon. A lake that refuses is tried again at the next turn."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self._rotate()
            await self.flush()

    async def flush(self) -> None:
        """Publish every closed segment that is not yet published."""
        count = 0
        try:
            for segment in self._closed():
                if (segment.epoch, segment.index) not in self._published:
                    count += await asyncio.to_thread(publish, self._lake, segment) is not None
                    self._published.add((segment.epoch, segment.index))
        except (MarketError, OSError) as error:
            self._done(count, f"journal segments are kept here until the lake takes them: {error}")
            return
        self._done(count, None)
