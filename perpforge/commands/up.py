"""`perpforge up` and `perpforge mlflow`: the servers a person looks at, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from models_registry.processes import free_port
from models_registry.server import MlflowServer, MlflowServerFailed
from perpforge.demo.live import DemoStepMissing, LiveMarket
from perpforge.demo.plan import DemoPlan, keep_for_later, kept_plan
from perpforge.home import MLFLOW_PORT, WORKER_PORT, HomeBusy, environment, holding
from perpforge.processes import Child, ChildFailed, interruptible

SPEED = 60.0
"""Simulated seconds a second: a wave every five seconds, slow enough to watch."""


def run_mlflow(home: Path, port: int) -> int:
    """Serve MLflow on `home`/mlflow until interrupted; returns the exit code."""
    console = Console()
    try:
        with interruptible(), MlflowServer(home / "mlflow", port or free_port()) as server:
            console.print(f"MLflow: {server.url} (Ctrl-C ends it)")
            while True:
                time.sleep(1.0)
    except KeyboardInterrupt:
        return 0
    except MlflowServerFailed as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1


def run_up(home: Path, port: int) -> int:
    """Serve MLflow and the Dagster UI on `home`, and trade on from where its demo ended; returns the exit code."""
    home = home.absolute()
    console = Console()
    try:
        with interruptible(), holding(home), ExitStack() as running:
            _serve(home, port, running, console)
    except KeyboardInterrupt:
        return 0
    except (HomeBusy, MlflowServerFailed, ChildFailed, DemoStepMissing) as error:
        console.print(str(error), style="red", highlight=False, markup=False)
        return 1
    return 0


def _serve(home: Path, port: int, running: ExitStack, console: Console) -> None:
    """Start everything and watch it, until an exception ends it."""
    mlflow = running.enter_context(MlflowServer(home / "mlflow", MLFLOW_PORT))
    console.print(f"MLflow:  {mlflow.url}")
    plan = kept_plan(home)
    dagster = _dagster(home, mlflow.url, port, plan)
    running.callback(dagster.stop)
    console.print(f"Dagster: http://127.0.0.1:{port}")
    children = [dagster]
    if plan is None:
        console.print(f"Worker:  not started, {home} holds no finished demo")
    else:
        live = LiveMarket(plan, mlflow.url, worker_port=WORKER_PORT)
        running.callback(_leave, live)
        live.start_exchange()
        live.set_clock(speed=SPEED, pause_at_ms=None)
        live.start_worker()
        children += [child for child in (live.exchange, live.worker) if child is not None]
        console.print(f"Worker:  {live.worker_url} (a minute of market each second)")
    console.print("Ctrl-C ends everything")
    while True:
        time.sleep(1.0)
        for child in children:
            child.check()


def _leave(live: LiveMarket) -> None:
    """Stop both, and note where the market is: the worker's state goes on from here, so the market must too."""
    try:
        keep_for_later(live.plan, int(live.clock()["minute_ms"]))
    except (ChildFailed, OSError):
        pass  # the exchange is gone or never answered: the market goes on from where it began
    finally:
        live.stop()


def _dagster(home: Path, mlflow_url: str, port: int, plan: DemoPlan | None) -> Child:
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "--port", str(port)]
    variables = environment(home, mlflow_url) | (plan.graph_environment if plan else {})
    return Child.start("Dagster", command, home / "logs" / "dagster.log", variables)
