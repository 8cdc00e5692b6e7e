"""An MLflow server as a child process that is ready when it says so and gone when its owner is.

`mlflow server` is two processes: the command and the web server that it starts. A third, small one (this module run
as a program) stands above them in a process group of its own. It ends the group when it is told to, when the server
ends, or when the process that started it is gone, however that went.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from models_registry.processes import LOOPBACK as HOST
from models_registry.processes import end_group, end_with_parent, free_port

STOP_GRACE_S = 5.0
PARENT_POLL_S = 0.5


class MlflowServerFailed(Exception):
    """The server did not come up: the end of its log says why; nothing was left running."""

    def __init__(self, reason: str, log: Path, tail: str) -> None:
        super().__init__(f"the MLflow server {reason}; the end of {log}:\n{tail or '(it wrote nothing)'}")
        self.reason = reason
        self.log = log


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether an MLflow server says at `url` (http://host:port) that it is healthy."""
    host, _, port = url.removeprefix("http://").rstrip("/").partition(":")
    connection = http.client.HTTPConnection(host, int(port or 80), timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status == 200 and response.read(16) == b"OK"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class MlflowServer:
    """`mlflow server` on loopback over an SQLite database and an artifact folder, both under `folder`.

    Artifacts go through the server, so that a registered version has an `mlflow-artifacts:/…` source that any host
    can download. A context manager: entering starts it and waits, leaving ends the whole process group.

    Parameters
    ----------
    folder : where `mlflow.db`, `artifacts/` and `server.log` are, created when missing.
    port : the port on 127.0.0.1; None takes a free one.
    allowed_hosts : host headers that are answered besides this server's own address; others get HTTP 403.
    ready_s : seconds that it may take to answer; a busy machine needs 10 to 30.
    """

    def __init__(
        self, folder: str | Path, port: int | None = None, *, allowed_hosts: Sequence[str] = (), ready_s: float = 120.0
    ) -> None:
        self.folder = Path(folder).absolute()
        self.port = port if port is not None else free_port()
        self.log = self.folder / "server.log"
        self._allowed_hosts = tuple(allowed_hosts)
        self._ready_s = ready_s
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """The tracking URI."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The leader of the process group, or None when it is not running."""
        return self._process.pid if self._process is not None else None

    def start(self) -> MlflowServer:
        """Start it and wait until it answers; `MlflowServerFailed` when it does not, with nothing left behind."""
        if self._process is not None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        if _listens(self.port):
            raise MlflowServerFailed(f"cannot start: something already listens on port {self.port}", self.log, "")
        with _one_start_at_a_time(self.folder):
            process = self._spawn()
            try:
                self._wait_until_ready(process)
            except BaseException:
                self.stop()
                raise
        return self

    def _spawn(self) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves a process of 250 MB that nothing here uses
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "models_registry.server", str(os.getpid()), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._process = process  # from now on another thread may stop it, and forget it
        return process

    def command(self) -> list[str]:
        """The `mlflow server` command line."""
        own = [f"{host}:{self.port}" for host in (HOST, "localhost")]
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
            *("--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts")),
            *("--host", HOST, "--port", str(self.port), "--workers", "1"),
            *("--allowed-hosts", ",".join([*own, *self._allowed_hosts])),
            # Workers ask for an alias every second: the access log would grow without end.
            *("--uvicorn-opts", f"--no-access-log --timeout-graceful-shutdown {int(STOP_GRACE_S) - 2}"),
        ]

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._ready_s
        while not answers(self.url):
            if process.poll() is not None:
                raise MlflowServerFailed("ended before it was ready", self.log, self._tail())
            if time.monotonic() > deadline:
                raise MlflowServerFailed(f"did not answer within {self._ready_s:g} s", self.log, self._tail())
            time.sleep(0.1)

    def _tail(self, lines: int = 15) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End the whole group: ask, then after a grace force. Harmless when it is not running.

        From another thread it also ends a `start` that is still waiting, which then raises.
        """
        process, self._process = self._process, None
        if process is None:
            return
        end_group(process, STOP_GRACE_S + 1.0)

    def __enter__(self) -> MlflowServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


@contextlib.contextmanager
def _one_start_at_a_time(folder: Path) -> Iterator[None]:
    """Two servers may share a database, but not create its tables at the same moment."""
    with (folder / ".starting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def guard(parent: int, command: Sequence[str]) -> None:
    """Run `command` in this process's group; end the group when it ends, on SIGTERM, or when `parent` is gone.

    The parent is watched by polling: PR_SET_PDEATHSIG would also fire when the *thread* that started the server ends
    while its process lives on.
    """
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's to handle
    child = subprocess.Popen(command, preexec_fn=end_with_parent)
    while not stopping and child.poll() is None and os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PARENT_POLL_S)
    stopping = True
    os.killpg(0, signal.SIGTERM)
    try:
        print(f"mlflow server ended with exit code {child.wait(STOP_GRACE_S)}", flush=True)
    except subprocess.TimeoutExpired:
        print("mlflow server did not end when asked and is killed", flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]), sys.argv[2:])
