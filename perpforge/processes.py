"""Child processes that never outlive their parent."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from models_registry.processes import end_group, end_with_parent


class ChildFailed(Exception):
    """A child process ended before it was ready: its last lines say why, its log has the rest."""

    def __init__(self, name: str, returncode: int | None, log: Path) -> None:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no output)"
        super().__init__(f"{name} ended with exit code {returncode}; the end of {log}:\n{tail}")
        self.name = name
        self.returncode = returncode


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
                preexec_fn=end_with_parent,
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise `ChildFailed` if it has ended."""
        if self.process.poll() is not None:
            raise ChildFailed(self.name, self.process.returncode, self.log)

    def stop(self, grace_s: float = 15.0) -> int:
        """Ask the whole group to end, then make it; returns the exit code of the first process."""
        return end_group(self.process, grace_s)
