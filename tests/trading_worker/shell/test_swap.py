"""A running worker takes over another bundle: when the alias moves, at its start, and when there is none yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from features import DECISION_SPEC, DecisionSpec
from market.simulator.server import Simulator
from tests.trading_worker.shell.conftest import (
    MINUTE_MS,
    START_MS,
    FakeRegistry,
    RegistryServer,
    cached_bundle,
    champion,
    simulated,
    until,
    worker_environment,
    working,
    write_bundle,
)
from tests.trading_worker.shell.runs import feature_state, journaled
from trading_worker.events import BundleRefused, BundleSwapped, DecidedLate, Signal
from trading_worker.settings import load
from trading_worker.shell.bundles import Loaded
from trading_worker.shell.metrics import Board
from trading_worker.shell.worker import Worker


def free(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the exchange waits for nobody, as a real one does."""

    async def no_wait(sequence: int) -> None:
        return

    simulator.consumers = 0
    monkeypatch.setattr(simulator.hub, "barrier", no_wait)


@asynccontextmanager
async def on_registry(folder: Path, registry: FakeRegistry, **options: Any) -> AsyncIterator[tuple[Simulator, Board]]:
    """A worker that looks to a registry for its bundle, on an exchange that moves when it is stepped."""
    async with RegistryServer(registry) as server, simulated(stepped=True) as simulator:
        settings = load(worker_environment(folder, simulator.url, MLFLOW_TRACKING_URI=server.url))
        async with working(settings, **options) as board:
            yield simulator, board


@asynccontextmanager
async def about_to_swap(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Simulator, Board, FakeRegistry]]:
    """A worker four minutes into a market that goes at its own pace from then on, whoever listens."""
    registry = FakeRegistry()
    champion(folder, registry, "1")
    async with on_registry(folder, registry) as (simulator, board):
        await until(lambda: board.ready)
        await simulator.step(4)
        free(simulator, monkeypatch)
        simulator.clock.set_speed(40.0)
        yield simulator, board, registry


async def test_a_swap_while_the_market_waits_for_nobody_misses_no_wave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with about_to_swap(tmp_path, monkeypatch) as (simulator, board, registry):
        simulator.clock.pause_at(None)
        champion(tmp_path, registry, "2")
        await until(lambda: board.swaps_total == 1 and board.waves >= 1)
        # What the clock does after that is not the question.
        missed = board.waves_missed, board.waves_down
        simulator.clock.set_speed(None)
        simulator.clock.pause_at(simulator.clock.minute)
    assert missed == (0, 0)
    late = [event for event in journaled(tmp_path) if isinstance(event, DecidedLate)]
    assert not [event for event in late if event.time_ms < START_MS + 5 * MINUTE_MS]


async def test_waves_that_a_swap_holds_up_for_a_minute_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with about_to_swap(tmp_path, monkeypatch) as (simulator, board, registry):
        swap = Worker._swap

        async def blocked(self: Worker, loaded: Loaded) -> None:
            async with self._lock:
                await simulator.step(2)
            await swap(self, loaded)

        monkeypatch.setattr(Worker, "_swap", blocked)
        simulator.clock.set_speed(None)
        champion(tmp_path, registry, "2")
        await until(lambda: board.swaps_total == 1 and board.waves == 1)
        await until(lambda: board.wave_ms == START_MS + 6 * MINUTE_MS - 1)
    assert (board.waves, board.waves_missed, board.waves_down) == (1, 1, 0)
    [late] = [event for event in journaled(tmp_path) if isinstance(event, DecidedLate)]
    assert late.time_ms == START_MS + 5 * MINUTE_MS - 1
    assert late.venue_ms - late.time_ms > MINUTE_MS


async def test_the_alias_moves_and_the_running_worker_swaps_without_missing_a_wave(tmp_path: Path) -> None:
    registry = FakeRegistry()
    champion(tmp_path, registry, "1")
    async with on_registry(tmp_path, registry) as (simulator, board):
        await until(lambda: board.ready)
        await simulator.step(60)
        bad = write_bundle(tmp_path / "bad", "bad")
        (bad / "golden.npz").write_bytes(b"no")
        registry.folders["2"], registry.alias = bad, "2"
        await until(lambda: board.refusals_total == 1)
        assert (board.ready, board.bundle) == (True, "1")
        champion(tmp_path, registry, "3")
        await until(lambda: board.swaps_total == 1)
        await simulator.step(120)
    events = journaled(tmp_path)
    [swap] = [event for event in events if isinstance(event, BundleSwapped)]
    [refused] = [event for event in events if isinstance(event, BundleRefused)]
    assert (swap.old, swap.new, swap.warmed) == ("plain-1", "plain-3", False)
    assert refused.bundle == "2"
    assert "sha256" in refused.reason
    assert "sha256" in board.refused[0].reason
    bundles = {event.bundle for event in events if isinstance(event, Signal)}
    assert bundles == {"plain-1", "plain-3"}
    assert (board.waves, board.waves_missed, board.bundle) == (36, 0, "3")
    assert [(shown.previous, shown.version) for shown in board.swaps] == [("1", "3")]


async def test_a_bundle_with_another_decision_spec_warms_its_own_state_and_then_decides_like_one_from_the_start(
    tmp_path: Path,
) -> None:
    other = DecisionSpec(stale_after=4)
    specs = {spec.id: spec for spec in (DECISION_SPEC, other)}
    registry = FakeRegistry()
    champion(tmp_path, registry, "1")
    async with on_registry(tmp_path, registry, specs=specs) as (simulator, board):
        await until(lambda: board.ready)
        await simulator.step(33)
        champion(tmp_path, registry, "2", spec=other)
        # Waves go on while the second state is warmed.
        playing = asyncio.create_task(simulator.step(57))
        await until(lambda: board.swaps_total == 1)
        await playing
        assert (board.decision_spec, board.waves, board.waves_missed) == (other.id, 18, 0)
    [swap] = [event for event in journaled(tmp_path) if isinstance(event, BundleSwapped)]
    assert swap.warmed
    fresh = tmp_path / "fresh"
    registry_of_one = FakeRegistry()
    champion(fresh, registry_of_one, "2", spec=other)
    async with on_registry(fresh, registry_of_one, specs=specs) as (simulator, board):
        await until(lambda: board.ready)
        await simulator.step(90)

    swapped_state, fresh_state = feature_state(tmp_path), feature_state(fresh)
    assert swapped_state == fresh_state


async def test_without_any_bundle_it_waits_and_says_so_until_there_is_one(tmp_path: Path) -> None:
    registry = FakeRegistry()
    async with on_registry(tmp_path, registry) as (_, board):
        await until(lambda: "names no champion" in board.waiting.get("bundle", ""))
        assert not board.ready
        champion(tmp_path, registry, "1")
        await until(lambda: board.ready)
        assert (board.bundle, board.bundle_from) == ("1", "registry")


async def test_a_champion_that_is_refused_at_the_start_leaves_the_last_good_one(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    registry = FakeRegistry()
    champion(tmp_path, registry, "2")
    (registry.folders["2"] / "golden.npz").write_bytes(b"no")
    async with on_registry(tmp_path, registry) as (_, board):
        await until(lambda: board.ready)
        assert (board.bundle, board.bundle_from) == ("1", "cache")
        assert [refusal.version for refusal in board.refused] == ["2"]
