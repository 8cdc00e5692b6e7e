"""Journal segments in the lake: immutable, once each, and readable as they were."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from market.lake import Lake
from tests.trading_worker.shell.conftest import until
from trading_worker.events import BarRejected, PositionVoided
from trading_worker.journal import Journal
from trading_worker.shell.publish import DATASET, KEPT_S, Publisher, publish


def event(number: int) -> BarRejected:
    """Some event."""
    return BarRejected(time_ms=number, symbol="BTCUSDT", open_time=0, reason='it\'s "odd"')


class Desk:
    """A journal, a lake, and a publisher between them."""

    def __init__(self, folder: Path, journal: str = "journal", identity: str = "") -> None:
        self.journal = Journal(folder / journal, "w", identity=identity)
        self.lake = Lake(str(folder / "lake"))
        self.told: list[tuple[int, str | None]] = []
        self.now_s = 0.0
        self.turns = 0
        self.idle = False
        self.publisher = Publisher(
            self.lake,
            self.journal,
            self._before,
            interval_s=0.0,
            wall_s=lambda: self.now_s,
            done=lambda count, failure: self.told.append((count, failure)),
        )

    async def _before(self) -> None:
        self.turns += 1
        if self.idle:
            self.journal.rotate()

    def write(self, *numbers: int) -> None:
        """One segment of these events."""
        self.journal.extend(event(number) for number in numbers)
        self.journal.rotate()

    def sequences(self) -> list[int]:
        """What the lake holds."""
        return [row["sequence"] for row in self.lake.query("SELECT sequence FROM journal ORDER BY ALL").to_pylist()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A fresh one."""
    return Desk(tmp_path)


async def test_closed_segments_are_published_once_and_the_open_one_is_not(desk: Desk) -> None:
    desk.write(1, 2)
    desk.write(3)
    desk.journal.append(event(4))
    desk.journal.commit()
    await desk.publisher.flush()
    await desk.publisher.flush()
    assert desk.sequences() == [0, 1, 2]
    assert desk.told == [(2, None), (0, None)]
    row = desk.lake.read(DATASET, where="sequence = 0").to_pylist()[0]
    assert (row["worker"], row["epoch"], row["kind"], row["time_ms"]) == ("w", "00000001", "bar_rejected", 1)
    assert msgspec.json.decode(row["event"], type=BarRejected) == event(1)


async def test_a_restarted_publisher_finds_what_is_there_and_writes_nothing_twice(desk: Desk, tmp_path: Path) -> None:
    desk.write(1)
    [segment] = desk.journal.closed()
    assert publish(desk.lake, segment) == "journal/worker=w/epoch=00000001/segment-00000000.parquet"
    stored = desk.lake.get_bytes("journal/worker=w/epoch=00000001/segment-00000000.parquet")
    desk.journal.close()
    again = Desk(tmp_path)
    again.write(2)
    await again.publisher.flush()
    assert again.sequences() == [0, 1]
    assert again.told == [(1, None)]
    assert again.lake.get_bytes("journal/worker=w/epoch=00000001/segment-00000000.parquet") == stored


async def test_what_an_idle_market_leaves_behind_is_published_without_another_event(desk: Desk) -> None:
    running = asyncio.create_task(desk.publisher.run())
    try:
        desk.journal.append(event(1))
        desk.journal.commit()
        turns = desk.turns
        await until(lambda: desk.turns > turns + 2)
        assert desk.sequences() == [], "the segment is still open"
        desk.idle = True
        turns = desk.turns
        await until(lambda: desk.turns > turns + 2)
        assert desk.sequences() == [0]
        told, turns = len(desk.told), desk.turns
        await until(lambda: desk.turns > turns + 2)
        assert len(desk.told) == told, "nothing was closed, so the lake is not asked"
    finally:
        running.cancel()


async def test_the_journal_after_a_lost_one_reaches_the_lake_too(tmp_path: Path) -> None:
    first = Desk(tmp_path, "journal", "a1")
    first.write(1, 2)
    await first.publisher.flush()
    first.journal.close()
    second = Desk(tmp_path, "elsewhere", "b2")
    second.write(3)
    await second.publisher.flush()
    rows = second.lake.query("SELECT worker, epoch, sequence, time_ms FROM journal ORDER BY time_ms").to_pylist()
    assert [row["time_ms"] for row in rows] == [1, 2, 3]
    assert len({(row["worker"], row["epoch"], row["sequence"]) for row in rows}) == 3
    assert [row["epoch"] for row in rows] == ["00000001-a1", "00000001-a1", "00000001-b2"]


async def test_a_lake_that_refuses_loses_nothing(desk: Desk, tmp_path: Path) -> None:
    desk.write(1)
    (tmp_path / "lake").write_text("a file where the folder should be")
    await desk.publisher.flush()
    assert "kept here" in str(desk.told[-1][1])
    (tmp_path / "lake").unlink()
    await desk.publisher.flush()
    assert (desk.sequences(), desk.told[-1]) == ([0], (1, None))


async def test_old_segments_go_from_here_once_the_lake_has_them(desk: Desk) -> None:
    desk.write(1)
    desk.write(2)
    paths = [segment.path for segment in desk.journal.closed()]
    for age, path in enumerate(paths):
        os.utime(path, (age * 1_000, age * 1_000))
    desk.now_s = KEPT_S + 500
    await desk.publisher.flush()
    assert [path.exists() for path in paths] == [False, True]
    assert desk.sequences() == [0, 1]


def test_numbers_that_do_not_exist_are_null(desk: Desk) -> None:
    desk.journal.append(
        PositionVoided(
            time_ms=1,
            position_id="p",
            symbol="B",
            direction=1,
            decided_at=0,
            kind=1,
            open=float("nan"),
            stop=1.0,
            target=2.0,
            bundle="b",
        )
    )
    desk.journal.rotate()
    publish(desk.lake, desk.journal.closed()[0])
    text = desk.lake.query("SELECT event FROM journal").to_pylist()[0]["event"]
    assert msgspec.json.decode(text)["open"] is None
