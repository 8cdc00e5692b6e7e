"""The terminal of a long command: its progress on the screen, the noise of its libraries in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


@contextmanager
def output_to(log: Path) -> Iterator[Console]:
    """Send file descriptors 1 and 2 (libraries in C++ write there too) to `log`; yields a console on the old one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept_out, kept_err = os.dup(1), os.dup(2)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as screen, log.open("ab") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        try:
            yield Console(file=screen, soft_wrap=not screen.isatty(), width=None if screen.isatty() else 140)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept_out, 1)
            os.dup2(kept_err, 2)
            os.close(kept_out)
            os.close(kept_err)


@dataclass
class Stages:
    """Named stages in order: one progress line each on a terminal, one printed line each elsewhere."""

    console: Console
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each ended stage took, in the order they ran."""

    def __post_init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextmanager
    def stage(self, name: str, description: str) -> Iterator[Stage]:
        """Run one stage; its seconds are kept under `name` when it ends without an error."""
        started = time.monotonic()
        task = self._progress.add_task(description, total=1.0, detail="")
        stage = Stage(self._progress, task, self.console)
        if not self.console.is_terminal:
            self.console.print(f"… {description}")
        yield stage
        self.seconds[name] = round(time.monotonic() - started, 2)
        self._progress.update(task, completed=1.0)
        if not self.console.is_terminal:
            self.console.print(f"✓ {description} {stage.detail} [{self.seconds[name]:.1f} s]")


@dataclass
class Stage:
    """The handle of the stage that is running."""

    progress: Progress
    task: TaskID
    console: Console
    detail: str = ""
    _printed_tenth: int = 0

    def update(self, fraction: float, detail: str = "") -> None:
        """Show how far the stage is (0 to 1), and a few words about it."""
        self.detail = detail or self.detail
        self.progress.update(self.task, completed=min(fraction, 1.0), detail=self.detail)
        tenth = int(fraction * 4)
        if not self.console.is_terminal and self._printed_tenth < tenth < 4:
            self._printed_tenth = tenth
            self.console.print(f"  {fraction:4.0%} {self.detail}")
