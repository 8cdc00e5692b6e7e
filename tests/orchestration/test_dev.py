"""`dagster dev` and `dg dev` come up on the project's own configuration, show the graph and materialise from it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from models_registry.processes import free_port
from orchestration.jobs import EVALUATE, INGEST, LEARN

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
READY_S = 240
RUN_S = 300
SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "perpforge"}

pytestmark = [pytest.mark.deep, pytest.mark.timeout(900)]


class Ui:
    """The web server's GraphQL."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.loads(response.read())
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def wait_for(self, seconds: float, query: str, ready: Any, **variables: object) -> dict[str, Any]:
        """Ask until the answer is as wanted; before it is up nothing answers."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, urllib.error.URLError):
                data = self.ask(query, **variables)
                if ready(data):
                    return data
            assert time.monotonic() < deadline, f"not within {seconds} s: {query}"
            time.sleep(0.5)


@pytest.fixture(params=["dagster", "dg"])
def ui(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ui]:
    """`dagster dev` or `dg dev` in a folder with the project's three files: what it writes stays there."""
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "orchestration").symlink_to(ROOT / "orchestration")  # `dg` looks for it there
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "MLFLOW"))}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(BIN / request.param), "dev", "--port", str(port)],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    children: list[psutil.Process] = []
    try:
        yield Ui(port)
        assert not (tmp_path / "history").exists()
        assert (tmp_path / ".perpforge" / "dagster").is_dir()
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()


def test_the_graph_is_shown_and_can_be_materialised(ui: Ui) -> None:
    shown = ui.wait_for(READY_S, "{assetNodes{assetKey{path}}}", lambda data: data["assetNodes"])
    assert {node["assetKey"]["path"][0] for node in shown["assetNodes"]} == {
        *INGEST,
        "live_labels",
        *LEARN,
        *EVALUATE,
        "live_record",
    }
    sensors = ui.ask(
        "query($s: RepositorySelector!){sensorsOrError(repositorySelector:$s)"
        "{... on Sensors{results{name sensorState{status}}}}}",
        s=SELECTOR,
    )["sensorsOrError"]["results"]
    assert {sensor["name"]: sensor["sensorState"]["status"] for sensor in sensors} == {
        "new_journal_segments": "RUNNING",
        "retrain_on_live_labels": "RUNNING",
        "champion_to_watch": "RUNNING",
    }
    launched = ui.ask(
        "mutation($p: ExecutionParams!){launchPipelineExecution(executionParams:$p){__typename "
        "... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}",
        p={
            "selector": SELECTOR
            | {"pipelineName": "__ASSET_JOB", "assetSelection": [{"path": [name]} for name in (*INGEST, "labels")]},
            "mode": "default",
            "runConfigData": {},
            "executionMetadata": {
                "tags": [
                    {"key": "dagster/asset_partition_range_start", "value": "2026-01-05"},
                    {"key": "dagster/asset_partition_range_end", "value": "2026-01-06"},
                ]
            },
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    done = ui.wait_for(
        RUN_S,
        "query($r: ID!){runOrError(runId:$r){... on Run{status}}}",
        lambda data: data["runOrError"]["status"] in ("SUCCESS", "FAILURE", "CANCELED"),
        r=launched["run"]["runId"],
    )
    assert done["runOrError"]["status"] == "SUCCESS"
