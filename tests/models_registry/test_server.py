"""The MLflow server as a child: it answers when it says so, and nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from models_registry.server import MlflowServer, MlflowServerFailed, answers
from tests.mlflow_server import emptied_server


def group(pid: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def test_it_answers_on_loopback_with_its_files_under_its_folder() -> None:
    server = emptied_server()
    assert answers(server.url)
    assert (server.folder / "mlflow.db").exists()
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert server.start() is server


def test_an_unknown_host_header_is_refused() -> None:
    server = emptied_server()
    request = urllib.request.Request(f"{server.url}/api/2.0/mlflow/experiments/search?max_results=1")
    request.add_header("Host", "evil.example")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    refused.value.close()
    assert refused.value.code == 403


def test_nothing_answers_where_nothing_is() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not answers(f"http://127.0.0.1:{unused.getsockname()[1]}")


def test_a_taken_port_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = MlflowServer(tmp_path, port=taken.getsockname()[1])
        with pytest.raises(MlflowServerFailed, match="already listens"):
            server.start()
    assert server.pid is None


def test_a_start_that_fails_says_why_with_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and long enough not to look like an empty one" * 20)
    server = MlflowServer(tmp_path)
    with pytest.raises(MlflowServerFailed, match="file is not a database"):
        server.start()
    assert server.pid is None
    server.stop()


def test_it_ends_when_its_owner_is_killed(tmp_path: Path) -> None:
    """The owner dies by SIGKILL and can clean up nothing; the whole group is gone soon after."""
    program = (
        "import sys, time; from models_registry.server import MlflowServer\n"
        "server = MlflowServer(sys.argv[1])\n"
        "server._spawn()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    leader = int(owner.stdout.readline())
    owner.stdout.close()
    members = group(leader)
    assert leader in [process.pid for process in members]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    psutil.wait_procs(members, timeout=30)
    psutil.wait_procs(group(leader), timeout=30)
    assert not group(leader)


def test_a_start_that_is_not_wanted_any_more_is_stopped_from_another_thread(tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    with ThreadPoolExecutor(1) as threads:
        starting = threads.submit(server.start)
        while server.pid is None:
            assert not starting.done()
        leader = server.pid
        server.stop()
        with pytest.raises(MlflowServerFailed, match="ended before it was ready"):
            starting.result()
    assert not group(leader)
