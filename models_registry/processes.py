"""What every child process needs: a free port, and an end of its whole group that it cannot outlive."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_parent() -> None:
    """In the child, before exec: ask Linux for SIGTERM when its parent dies, however the parent dies.

    What a parent ignores its children ignore too, also after exec. A process that a script starts in the background
    ignores SIGINT, and Dagster makes SIGTERM what SIGINT is: so both are what they were made for again.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_group(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """Ask the group that `process` leads to end, then make it; returns the leader's exit code.

    The leader may be gone before what it started: so the group is killed in any case.
    """
    _signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_s)
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
