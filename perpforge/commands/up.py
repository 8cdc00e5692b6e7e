"""`perpforge up` and `perpforge mlflow`: the servers a person looks at, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from models_registry.server import MlflowServer, MlflowServerFailed
from perpforge.home import environment
from perpforge.processes import Child, ChildFailed, free_port


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that what was started is ended in order."""
    event = threading.Event()
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_mlflow(home: Path, port: int) -> int:
    """Serve MLflow on `home`/mlflow until interrupted; returns the exit code."""
    console = Console()
    with _interruption() as interrupted:
        try:
            with MlflowServer(home / "mlflow", port or free_port()) as server:
                console.print(f"MLflow: {server.url} (Ctrl-C ends it)")
                interrupted.wait()
        except MlflowServerFailed as error:
            console.print(str(error), style="red")
            return 1
    return 0


def run_up(home: Path, port: int) -> int:
    """Serve MLflow and the Dagster UI on `home` until interrupted; returns the exit code."""
    home = home.absolute()
    console = Console()
    with _interruption() as interrupted:
        try:
            with MlflowServer(home / "mlflow", free_port()) as mlflow:
                (home / "dagster").mkdir(parents=True, exist_ok=True)
                command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "--port", str(port)]
                dagster = Child.start("Dagster", command, home / "logs" / "dagster.log", environment(home, mlflow.url))
                try:
                    console.print(f"MLflow:  {mlflow.url}\nDagster: http://127.0.0.1:{port} (Ctrl-C ends both)")
                    while not interrupted.wait(1.0):
                        dagster.check()
                finally:
                    dagster.stop()
        except (MlflowServerFailed, ChildFailed) as error:
            console.print(str(error), style="red")
            return 1
    return 0
