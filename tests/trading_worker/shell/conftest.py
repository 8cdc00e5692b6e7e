"""A small market on the simulator, a bundle that needs no training, and the worker on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features import DECISION_SPEC
from market.simulator.server import Simulator
from market.sources import open_source
from models_registry import bundle
from models_registry.runtime import Predictor
from trading_worker.replay import plain_predictor
from trading_worker.settings import WorkerSettings, load
from trading_worker.shell.metrics import Board
from trading_worker.shell.worker import run_worker

START_MS = 1_768_003_200_000
"""2026-01-10T00:00:00Z: the simulated clock begins here."""
SOURCE = "synthetic:seed=7,symbols=3,edge=planted,start=2026-01-05"
MINUTE_MS = 60_000


def write_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """A bundle of plain versions only, with real golden outputs; `changes` replace fields of its manifest."""
    manifest = msgspec.structs.replace(plain_predictor().manifest, bundle_version=name, **changes)
    rng = np.random.default_rng(3)
    rows, width = 8, len(manifest.decision_spec.names)
    golden = {
        "decision": rng.normal(size=(rows, width)).astype(np.float32),
        "windows": rng.normal(size=(rows, DECISION_SPEC.window, len(DECISION_SPEC.window_names))).astype(np.float32),
        "index": np.arange(rows, dtype=np.int64),
        "direction": np.where(np.arange(rows) % 2, 1, -1).astype(np.int8),
        "kind": np.ones(rows, dtype=np.uint8),
        "quality": rng.random(rows).astype(np.float32),
    }
    bundle.write(folder, manifest, {}, golden)
    return folder


class FakeRegistry:
    """The registry as the watcher sees it: an alias, and folders to copy."""

    def __init__(self) -> None:
        self.alias: str | None = None
        self.folders: dict[str, Path] = {}
        self.down: Exception | None = None
        self.downloads: list[str] = []

    async def alias_version(self, model: str, alias: str) -> str | None:
        """What the alias names."""
        if self.down is not None:
            raise self.down
        return self.alias

    async def download(self, model: str, version: str, folder: str | Path) -> Path:
        """A copy."""
        import shutil

        if self.down is not None:
            raise self.down
        self.downloads.append(version)
        shutil.copytree(self.folders[version], folder)
        return Path(folder)


def cached_bundle(state_dir: Path, version: str = "1", name: str = "plain-1") -> None:
    """Put a bundle into a worker's cache as its last good one."""
    folder = state_dir / "bundles"
    write_bundle(folder / version, name)
    (folder / "last_good.json").write_text(f'{{"version":"{version}"}}')


def worker_environment(tmp_path: Path, simulator_url: str, **more: str) -> dict[str, str]:
    """The environment of a worker on that simulator, with no registry to be found."""
    return {
        "BINANCE_BASE_URL": simulator_url,
        "BINANCE_WS_URL": simulator_url.replace("http", "ws", 1),
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "LAKE_URI": str(tmp_path / "lake"),
        "STATE_DIR": str(tmp_path / "state"),
        "STRATEGY_MODE": "self_learning",
        "BUNDLE_POLL_S": "0.2",
        "MIN_CONFIDENCE": "0",
        "PORT": "0",
        **more,
    }


@asynccontextmanager
async def simulated(source: str = SOURCE, **options: Any) -> AsyncIterator[Simulator]:
    """The simulated exchange, its clock held until a worker listens."""
    async with Simulator(open_source(source), START_MS, **{"consumers": 1, **options}) as simulator:
        yield simulator


@asynccontextmanager
async def working(settings: WorkerSettings, **options: Any) -> AsyncIterator[Board]:
    """A worker in this process while the block runs; what it raises is raised."""
    board, stop = Board(worker=settings.worker_name), asyncio.Event()
    task = asyncio.create_task(run_worker(settings, stop=stop, board=board, **options))
    try:
        yield board
    finally:
        stop.set()
        await task


async def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; the test's own time limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - the board is plain data, without events to wait for
        await asyncio.sleep(0.005)


@pytest.fixture
def plain() -> Predictor:
    """The plain versions of all models."""
    return plain_predictor()


__all__ = ["load"]
