"""The layout of a home folder, and the environment that points every part at it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARKER = ".perpforge-demo"
"""Says that a demo made the folder, so that the next one may replace it."""

DAGSTER_PORT, MLFLOW_PORT, WORKER_PORT = 3000, 5000, 8080
"""Where `perpforge up` serves its pages, on loopback."""


def environment(home: Path, mlflow_url: str) -> dict[str, str]:
    """The variables under which assets, worker and UI work in `home`."""
    return {
        "DAGSTER_HOME": str(home / "dagster"),
        "LAKE_URI": str(home / "lake"),
        "STATE_DIR": str(home / "worker"),
        "LEDGER_PATH": str(home / "registry" / "ledger.jsonl"),
        "MLFLOW_HOME": str(home / "mlflow"),
        "MLFLOW_TRACKING_URI": mlflow_url,
    }


class HomeBusy(Exception):
    """Another command works in the home folder: end it, or choose another folder."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"another perpforge demo or perpforge up works in {home}: end it, or choose another --home")


class HomeForeign(Exception):
    """The home folder holds what no demo made: it is not removed."""

    def __init__(self, home: Path) -> None:
        super().__init__(f"{home} holds files that no demo made: choose another --home")


@contextmanager
def holding(home: Path) -> Iterator[None]:
    """Keep other commands out of `home` meanwhile; `HomeBusy` if one is in it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home.with_name(f"{home.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HomeBusy(home) from None
        yield
    finally:
        os.close(descriptor)


def start_clean(home: Path) -> None:
    """Replace what an earlier demo left in `home` by an empty, marked folder; `HomeForeign` if no demo made it.

    The old folder is moved aside before it is removed: an interruption leaves no half that the next run would refuse.
    """
    old, new = home.with_name(f"{home.name}.old"), home.with_name(f"{home.name}.new")
    for leftover in (old, new):
        shutil.rmtree(leftover, ignore_errors=True)
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise HomeForeign(home)
    (new / "logs").mkdir(parents=True)
    (new / MARKER).write_text("A demo wrote this folder; the next one removes it.\n")
    if home.exists():
        home.rename(old)
    new.rename(home)
    shutil.rmtree(old, ignore_errors=True)
