"""SIGKILL at random points of a run: what the journal holds in the end is what an undisturbed run's holds.

The simulated clock holds while no worker listens, so both runs see the same market. A killed worker finds its bundle
in the cache, its state in its snapshot, and the minutes since over REST.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from market.simulator.server import Simulator
from tests.trading_worker.shell.conftest import (
    MINUTE_MS,
    SOURCE,
    START_MS,
    cached_bundle,
    simulated,
    until,
    worker_environment,
    working,
)
from trading_worker import journal
from trading_worker.events import OPERATIONAL, AnyEvent, PositionClosed, RecoveryDiverged, digest, kind
from trading_worker.settings import load
from trading_worker.shell.process import ExitCode


def source(symbols: int) -> str:
    """The market of both runs."""
    return SOURCE.replace("symbols=3", f"symbols={symbols}")


class WorkerProcess:
    """`python -m trading_worker` as a child; its last words are kept for a failing test."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Begin a new process."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trading_worker", env=self._environment, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and that it ends well."""
        assert self._process is not None
        self._process.terminate()
        assert await self._process.wait() == ExitCode.STOPPED, self._log.read_text()

    async def reach(self, simulator: Simulator, time_ms: int) -> None:
        """Return when the clock has come to `time_ms`; fail at once if the worker ends before."""
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        clock = asyncio.create_task(simulator.clock.wait_for(lambda: simulator.clock.minute >= time_ms))
        await asyncio.wait({ended, clock}, return_when=asyncio.FIRST_COMPLETED)
        assert clock.done(), self._log.read_text()
        ended.cancel()
        await clock


async def undisturbed_run(folder: Path, minutes: int, symbols: int, **environment: str) -> list[AnyEvent]:
    """A worker in this process through `minutes` of a simulated market; the events of its journal."""
    cached_bundle(folder / "state")
    async with simulated(source(symbols), stepped=True) as simulator:
        settings = load(worker_environment(folder, simulator.url, **environment))
        async with working(settings) as board:
            await until(lambda: board.ready)
            await simulator.step(minutes)
    return [entry.event for entry in journal.read(folder / "state" / "journal")]


async def killed_run(
    folder: Path, minutes: int, symbols: int, kills: int, seed: int, **environment: str
) -> list[AnyEvent]:
    """The same market through processes of which all but the last are killed."""
    rng = Random(seed)
    cached_bundle(folder / "state")
    moments = sorted(rng.randrange(1, minutes - 1) for _ in range(kills))
    async with simulated(source(symbols), end_ms=START_MS + minutes * MINUTE_MS) as simulator:
        worker = WorkerProcess(worker_environment(folder, simulator.url, **environment), folder / "worker.log")
        await worker.start()
        try:
            for moment in moments:
                await worker.reach(simulator, START_MS + moment * MINUTE_MS)
                # Turns of the simulator's loop: the worker is somewhere inside a minute when it is struck.
                for _ in range(rng.randrange(60)):
                    await asyncio.sleep(0)
                await worker.kill()
                await worker.start()
            await worker.reach(simulator, START_MS + minutes * MINUTE_MS)
            await worker.stop()
        finally:
            await worker.kill()
    return [entry.event for entry in journal.read(folder / "state" / "journal")]


def check_same(disturbed: list[AnyEvent], undisturbed: list[AnyEvent]) -> None:
    """Decisions, outcomes and R are equal, and no recovery had to let the journal stand against a re-run."""
    assert not [event for event in disturbed if isinstance(event, RecoveryDiverged)]
    counts = [Counter(map(kind, events)) for events in (disturbed, undisturbed)]
    for each in counts:
        for operational in OPERATIONAL:
            del each[str(operational.__struct_config__.tag)]
    assert counts[0] == counts[1]
    ended = [
        [(event.position_id, event.outcome, event.r) for event in events if isinstance(event, PositionClosed)]
        for events in (disturbed, undisturbed)
    ]
    assert ended[0] == ended[1]
    assert digest(disturbed) == digest(undisturbed)


async def test_killed_at_random_points_it_decides_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    undisturbed = await undisturbed_run(tmp_path / "undisturbed", 200, symbols=3)
    disturbed = await killed_run(tmp_path / "disturbed", 200, symbols=3, kills=3, seed=11)
    assert Counter(map(kind, undisturbed))["position_closed"] >= 5
    assert Counter(map(kind, disturbed))["epoch_started"] == 4
    check_same(disturbed, undisturbed)


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
async def test_a_long_campaign_of_kills_changes_nothing(tmp_path: Path, seed: int) -> None:
    # Small segments and frequent snapshots, so that kills strike their writing too.
    often = {"SNAPSHOT_MINUTES": "1", "SEGMENT_BYTES": "4096"}
    undisturbed = await undisturbed_run(tmp_path / "undisturbed", 900, symbols=6, **often)
    disturbed = await killed_run(tmp_path / "disturbed", 900, symbols=6, kills=25, seed=seed, **often)
    assert Counter(map(kind, undisturbed))["position_closed"] >= 20
    check_same(disturbed, undisturbed)
