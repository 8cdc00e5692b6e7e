"""Children end with their parent, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from perpforge.processes import Child, ChildFailed

SLEEPER = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
PARENT = """
import sys, time
from pathlib import Path
from perpforge.processes import Child
child = Child.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], Path(sys.argv[1]))
print(child.process.pid, flush=True)
time.sleep(600)
"""


def test_stop_ends_the_whole_group(tmp_path: Path) -> None:
    code = SLEEPER + "print(p.pid, flush=True); import time; time.sleep(600)"
    child = Child.start("family", [sys.executable, "-c", code], tmp_path / "log")
    while not (text := (tmp_path / "log").read_text()):
        child.check()
    grandchild = psutil.Process(int(text))
    child.stop()
    gone, alive = psutil.wait_procs([grandchild], timeout=10)
    assert gone
    assert not alive


def test_a_child_of_a_parent_that_ignores_signals_ends_all_the_same(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        child = Child.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log")
        assert child.stop() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    child = Child.start("loser", [sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path / "log")
    child.process.wait()
    with pytest.raises(ChildFailed, match=r"loser ended with exit code 1.*\n.*no such luck"):
        child.check()


def test_a_killed_parent_takes_its_children_along(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    gone, alive = psutil.wait_procs([child], timeout=10)
    assert gone
    assert not alive
