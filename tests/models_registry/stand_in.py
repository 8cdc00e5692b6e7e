"""Converters that die, hang or lie, as a command and as what a fork calls; nothing is imported that a fork lacks."""

from __future__ import annotations

import runpy
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

SCRIPT = """
    import fcntl, json, os, pathlib, signal, sys, time
    model, data, folder, *formats = sys.argv[1:]
    def finish(name, failed=None, size=5000):
        pathlib.Path(folder, f"{name}.tflite").write_bytes(b"x" * size)
        print(json.dumps({"format": name, "failed": failed}), flush=True)
    for name in formats:
        BODY
"""


def script(body: str) -> str:
    """A converter that does `body` for each format `name`."""
    return textwrap.dedent(SCRIPT).replace("BODY", body)


def command(body: str) -> list[str]:
    """It as a command."""
    return [sys.executable, "-c", script(body)]


def child(body: str, folder: Path) -> Callable[[Sequence[str]], None]:
    """It as what a fork calls; its script is put into `folder`."""
    path = folder / "stand_in_script.py"
    path.write_text(script(body))
    return partial(run, str(path))


def run(path: str, arguments: Sequence[str]) -> None:
    """Run the script as the main program."""
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")
