"""A small market on the simulator, a bundle that needs no training, and the worker on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from features import DECISION_SPEC, DecisionSpec
from market.simulator.server import Simulator
from market.sources import open_source
from models_registry import bundle
from trading_worker.replay import plain_predictor
from trading_worker.settings import WorkerSettings
from trading_worker.shell.metrics import Board
from trading_worker.shell.worker import run_worker

START_MS = 1_768_003_200_000
"""2026-01-10T00:00:00Z: the simulated clock begins here."""
SOURCE = "synthetic:seed=7,symbols=3,edge=planted,start=2026-01-05"
MINUTE_MS = 60_000


def write_bundle(
    folder: Path,
    name: str,
    spec: DecisionSpec = DECISION_SPEC,
    files: Mapping[str, bytes] | None = None,
    **changes: Any,
) -> Path:
    """A bundle with real golden outputs, of plain versions only unless `changes`, fields of its manifest, say else."""
    manifest = msgspec.structs.replace(plain_predictor(spec).manifest, bundle_version=name, **changes)
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
    bundle.write(folder, manifest, files or {}, golden)
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


class RegistryServer:
    """The few routes of an MLflow server that a worker asks, over real HTTP; `registry` says what it knows."""

    def __init__(self, registry: FakeRegistry) -> None:
        self.registry = registry
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> RegistryServer:
        app = web.Application()
        api, artifacts = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
        app.add_routes(
            [
                web.get(f"{api}/registered-models/alias", self._alias),
                web.get(f"{api}/model-versions/get-download-uri", self._uri),
                web.get(artifacts, self._list),
                web.get(artifacts + "/{version}/{file}", self._file),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _alias(self, _: web.Request) -> web.Response:
        if self.registry.alias is None:
            body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Registered model alias champion not found."}
            return web.json_response(body, status=400)
        return web.json_response({"model_version": {"version": self.registry.alias}})

    async def _uri(self, request: web.Request) -> web.Response:
        return web.json_response({"artifact_uri": f"mlflow-artifacts:/{request.query['version']}"})

    async def _list(self, request: web.Request) -> web.Response:
        folder = self.registry.folders[request.query["path"].strip("/")]
        files = [{"path": path.name, "is_dir": False, "file_size": path.stat().st_size} for path in folder.iterdir()]
        return web.json_response({"files": files})

    async def _file(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(self.registry.folders[request.match_info["version"]] / request.match_info["file"])


def cached_bundle(
    state_dir: Path, name: str = "plain-1", version: str = "1", write: Callable[[Path, str], Path] = write_bundle
) -> None:
    """Put the bundle that `write` makes into a worker's cache as its last good one."""
    folder = state_dir / "bundles"
    write(folder / version, name)
    (folder / "last_good.json").write_text(f'{{"version":"{version}"}}')


def champion(folder: Path, registry: FakeRegistry, version: str, **options: Any) -> None:
    """Write a bundle, register it and make it champion."""
    registry.folders[version] = write_bundle(folder / f"registered-{version}", f"plain-{version}", **options)
    registry.alias = version


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
