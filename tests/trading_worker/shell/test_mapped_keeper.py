"""States in memory-mapped files: an engine goes on from them to the bit, and what cannot be used is named."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import DECISION_SPEC, DecisionSpec
from market.bars import MINUTE_MS
from tests.trading_worker.markets import EAGER, StubPredictor, market, recording, warm_state
from tests.trading_worker.shell.conftest import (
    START_MS,
    cached_bundle,
    simulated,
    until,
    worker_environment,
    working,
    write_bundle,
)
from trading_worker import sight
from trading_worker.engine import Engine
from trading_worker.events import PositionClosed, PositionLost, PositionVoided, Signal
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.replay import plain_predictor
from trading_worker.settings import load
from trading_worker.shell.mapped_keeper import MappedKeeper
from trading_worker.shell.metrics import Board
from trading_worker.shell.snapshot_store import SnapshotStore
from trading_worker.wave import Wave

WARM_MINUTES = 6 * 1440
"""Enough for every feature of the deciding timeframe."""
MINUTES = 240


@cache
def waves() -> tuple[Wave, ...]:
    bars, funding = recording(WARM_MINUTES + MINUTES)
    start = market().start_ms + WARM_MINUTES * MINUTE_MS
    return tuple(recorded_waves(bars, funding, tuple(bars), Stretch(start, start + MINUTES * MINUTE_MS)))


def warm_engine() -> Engine:
    return Engine(market().symbols(), StubPredictor(), EAGER, state=warm_state(WARM_MINUTES))


def blank_engine() -> Engine:
    return Engine(market().symbols(), StubPredictor(), EAGER)


class Places:
    """A folder, and keepers of it as processes would make them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = Board("w")
        self.snapshots = SnapshotStore(folder / "snapshots")
        self.refused: list[str] = []
        self._keepers: list[MappedKeeper] = []

    def keeper(self) -> MappedKeeper:
        for each in self._keepers:
            each.close()
        self._keepers.append(MappedKeeper(self.folder, self.snapshots, self.board))
        return self._keepers[-1]

    def found(self) -> list[tuple[str, int]]:
        """Where states lie and of when they are, the newest first."""
        kept = MappedKeeper(self.folder, self.snapshots, self.board).newest_first(self.refused.append)
        return [(each.place, each.state.about.time_ms) for each in kept]


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    made = Places(tmp_path)
    yield made
    made.keeper()


def saved(keeper: MappedKeeper, engine: Engine, *, lasting: bool = False) -> None:
    keeper.save(engine, (1, 2, 3, 4), lasting=lasting)


def test_an_engine_goes_on_from_the_mapped_state_as_if_nothing_had_happened(places: Places) -> None:
    engine, keeper = warm_engine(), places.keeper()
    events: list[list[Any]] = []
    for wave in waves():
        events.append(engine.on_wave(wave))
        saved(keeper, engine)
        if wave.time_ms // MINUTE_MS % 40 == 0:
            keeper = places.keeper()
            kept = next(keeper.newest_first(pytest.fail))
            assert (kept.place, kept.charged_until) == ("mapped state", (1, 2, 3, 4))
            again = blank_engine()
            again.resume(kept.state)
            for name, array in engine.state.arrays().items():
                assert again.state.arrays()[name].tobytes() == array.tobytes(), name
            assert (again.counters, again.time_ms, again.bundle) == (engine.counters, engine.time_ms, engine.bundle)
            assert again.positions.table().position.tobytes() == engine.positions.table().position.tobytes()
            engine = again
    undisturbed = warm_engine()
    assert events == [undisturbed.on_wave(wave) for wave in waves()]
    assert sum(isinstance(event, Signal) for of in events for event in of) > 10
    assert places.board.state_commits.count == MINUTES


def test_what_the_models_saw_is_kept_while_a_position_is_open_and_gives_the_same_score_again(places: Places) -> None:
    engine, keeper, spec = warm_engine(), places.keeper(), DECISION_SPEC
    opened: dict[str, Signal] = {}
    checked = 0
    for index, wave in enumerate(waves()):
        for event in engine.on_wave(wave):
            if isinstance(event, Signal):
                opened[event.position_id] = event
            elif isinstance(event, PositionClosed | PositionVoided | PositionLost):
                del opened[event.position_id]
                assert event.position_id not in engine.positions.ids()
        saved(keeper, engine)
        if index % 50 == 49:
            keeper = places.keeper()
            saved(keeper, engine)
        assert places.board.vectors == len(opened)
        for signal in opened.values() if index % 10 == 0 else ():
            vector = keeper.seen(signal.position_id)
            assert vector is not None
            assert vector.shape == (sight.width(spec),)
            decision, window = sight.unpack(vector, spec)
            once_more = StubPredictor().predict(decision, window, np.zeros(1, int), np.array([signal.direction]))
            assert float(once_more.win_probability[0]) == signal.confidence
            checked += 1
    assert checked > 20
    assert keeper.seen("nobody") is None


def at(time_ms: int) -> Engine:
    """A small engine of that time."""
    engine = Engine(("A",), plain_predictor())
    engine.time_ms = time_ms
    return engine


def test_states_come_by_their_time_wherever_they_lie(places: Places) -> None:
    keeper = places.keeper()
    for time_ms in (1, 2, 3):
        keeper.save(at(time_ms), (0,), lasting=time_ms == 2)
    assert places.found() == [("mapped state", 3), ("mapped state", 2), ("snapshot", 2)]
    places.snapshots.save(at(5), (0,), lasting=True)
    assert places.found() == [("snapshot", 5), ("mapped state", 3), ("mapped state", 2), ("snapshot", 2)]
    places.keeper().save(at(6), (0,), lasting=False)
    assert places.found() == [("mapped state", 6), ("snapshot", 5), ("mapped state", 3), ("snapshot", 2)]
    assert places.refused == []


def test_a_damaged_generation_is_named_and_the_older_one_serves(places: Places) -> None:
    keeper = places.keeper()
    for time_ms in (1, 2, 3):
        keeper.save(at(time_ms), (0,), lasting=time_ms == 1)
    keeper.close()
    path = places.folder / "state.map"
    data = bytearray(path.read_bytes())
    half = (len(data) - 4096) // 2
    data[4096 + 40] ^= 1  # the third commit lies in the first half again
    path.write_bytes(data)
    assert places.found() == [("mapped state", 2), ("snapshot", 1)]
    [refusal] = places.refused
    assert "state.map refused: the checksum of a generation's head does not match" in refusal
    data[4096 + half + 40] ^= 1
    path.write_bytes(data)
    assert places.found() == [("snapshot", 1)]
    path.write_bytes(b"x" * 5000)
    assert places.found() == [("snapshot", 1)]
    assert "does not begin as a state file" in places.refused[-1]


def test_a_full_disk_leaves_snapshots(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    keeper = places.keeper()
    keeper.save(at(1), (0,), lasting=True)
    keeper.save(at(2), (0,), lasting=False)
    assert "No space left on device: snapshots alone are kept" in places.board.notes["mapped state"].replace(
        "[Errno 28] ", ""
    )
    assert places.found() == [("snapshot", 1)]


async def test_the_worker_says_what_it_passed_over_and_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(30)
        assert board.state_commits.count > 30
        path = tmp_path / "state" / "state.map"
        path.write_bytes(path.read_bytes()[:-1])
        async with working(settings) as again:
            await until(lambda: again.ready)
            await simulator.step(10)
    assert again.origin.startswith("its own snapshot of")
    assert "it was cut off" in again.notes["state"]
    assert again.wave_ms == START_MS + 40 * MINUTE_MS - 1


async def test_a_state_of_another_specification_is_refused_with_both_names_and_bars_serve(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    other = DecisionSpec(stale_after=4)
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(10)
        # The only bundle there is now reads other decision rows.
        shutil.rmtree(tmp_path / "state" / "bundles")
        cached_bundle(tmp_path / "state", "other", "2", lambda place, name: write_bundle(place, name, other))
        async with working(settings, specs={other.id: other}) as again:
            await until(lambda: again.ready)
            await simulator.step(10)
    assert f"it is of DecisionSpec {DECISION_SPEC.id}, the bundle in force needs {other.id}" in again.notes["state"]
    assert "cold backfill" in again.origin
    assert (again.bundle_name, again.decision_spec) == ("other", other.id)


async def test_without_mapped_storage_snapshots_alone_are_kept(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    async with simulated(stepped=True) as simulator:
        settings = load(worker_environment(tmp_path, simulator.url, ENABLE_MEMORY_MAPPED_STORAGE="false"))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(20)
        assert board.state_commits.count == 0
        assert not list((tmp_path / "state").glob("*.map"))
        async with working(settings) as again:
            await until(lambda: again.ready)
    assert again.origin.startswith("its own snapshot of")
    assert "state" not in again.notes
