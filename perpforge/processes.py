"""Child processes that never outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """A child process ended before it was ready: its last lines say why, its log has the rest."""

    def __init__(self, name: str, returncode: int | None, log: Path) -> None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no output)"
        super().__init__(f"{name} ended with exit code {returncode}; the end of {log}:\n{tail}")
        self.name = name
        self.returncode = returncode


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM what Ctrl-C is, a KeyboardInterrupt, so that either ends every child in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _die_with_parent() -> None:
    """In the child, before exec: ask Linux to end it when its parent dies, however the parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One running child with a process group of its own, so that what it starts ends with it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Child:
        """Start `command`; its output goes to `log`, its environment is ours plus `environment`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise `ChildFailed` if it has ended."""
        if self.process.poll() is not None:
            raise ChildFailed(self.name, self.process.returncode, self.log)

    def stop(self, grace_s: float = 15.0) -> int:
        """Ask the whole group to end, then make it; returns the exit code of the first process."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                continue
            break
        # The first process is gone; what it started may not be.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()
