"""The worker as a process: what it imports, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from models_registry.manifest import DQN, FEATURE_NETWORK, LIQUIDITY
from tests.trading_worker.shell.conftest import cached_bundle, simulated, worker_environment
from tests.trading_worker.shell.tiny_models import write_models
from trading_worker.errors import JournalLocked, SettingInvalid
from trading_worker.journal import Journal
from trading_worker.shell.process import ExitCode, causes, exit_code

HEAVY = (
    "tensorflow",
    "keras",
    "dagster",
    "xgboost",
    "mlflow",
    "sklearn",
    "pandas",
    "matplotlib",
    "onnx",
    "onnxmltools",
)
RUNTIMES = ("ai_edge_litert", "onnxruntime")
"""What runs the models: loaded with the first real file, so they show that the models were real."""

PROBE = """
import asyncio, json, sys
import trading_worker.__main__
from trading_worker.settings import load
from trading_worker.shell.metrics import Board
from trading_worker.shell.worker import run_worker

async def main():
    stop, board = asyncio.Event(), Board(worker="worker")
    task = asyncio.create_task(run_worker(load(), stop=stop, board=board))
    while not board.signals_total:
        await asyncio.sleep(0.01)
        if task.done():
            await task
    stop.set()
    await task
    loaded = sorted(name for name in sys.argv[1:] if sys.modules.get(name))
    print(json.dumps({"loaded": loaded, "fallbacks": board.fallbacks, "bundle": board.signals[0]["bundle"]}))

asyncio.run(main())
"""


async def _run(*arguments: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_worker_that_signals_with_real_models_has_imported_nothing_that_trains_or_schedules(
    tmp_path: Path,
) -> None:
    cached_bundle(tmp_path / "state", "tiny", write=write_models)
    modules = (*HEAVY, *RUNTIMES)
    async with simulated() as simulator:
        process = await _run("-c", PROBE, *modules, environment=worker_environment(tmp_path, simulator.url))
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    missing = dict.fromkeys((FEATURE_NETWORK, LIQUIDITY, DQN), "the bundle has no such model")
    assert json.loads(out) == {"loaded": sorted(RUNTIMES), "fallbacks": missing, "bundle": "tiny"}


async def test_sigterm_ends_it_with_zero_and_its_labels_are_in_the_lake(tmp_path: Path) -> None:
    cached_bundle(tmp_path / "state")
    async with simulated() as simulator:
        process = await _run("-m", "trading_worker", environment=worker_environment(tmp_path, simulator.url))
        await simulator.clock.wait_for(lambda: simulator.clock.now_ms > simulator.clock.start_ms + 20 * 60_000)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "stopped as asked" in err.decode()
    assert list((tmp_path / "lake" / "journal" / "worker=worker").glob("epoch=00000001-*/*.parquet"))
    assert list((tmp_path / "state" / "snapshots").glob("*.snapshot"))


async def test_a_bad_setting_and_a_locked_journal_have_their_own_codes_and_a_reason(tmp_path: Path) -> None:
    environment = worker_environment(tmp_path, "http://127.0.0.1:9")
    process = await _run("-m", "trading_worker", environment={**environment, "PORT": "http"})
    _, err = await process.communicate()
    assert process.returncode == ExitCode.CONFIGURATION
    assert "PORT=http is not allowed" in err.decode()
    with Journal(tmp_path / "state" / "journal", "worker"):
        process = await _run("-m", "trading_worker", environment=environment)
        _, err = await process.communicate()
    assert process.returncode == ExitCode.JOURNAL_LOCKED
    assert "in use by another process" in err.decode()


def test_codes_look_into_groups_and_everything_unknown_is_a_failure() -> None:
    inner = ExceptionGroup("inner", [ValueError("a"), JournalLocked(Path("j"))])
    assert exit_code(ExceptionGroup("outer", [inner])) is ExitCode.JOURNAL_LOCKED
    assert exit_code(OSError(98, "Address already in use")) is ExitCode.PORT_TAKEN
    assert exit_code(ValueError("x")) is ExitCode.FAILED
    assert exit_code(SettingInvalid("A", "b", "c")) is ExitCode.CONFIGURATION
    assert [type(cause) for cause in causes(inner)] == [ValueError, JournalLocked]
