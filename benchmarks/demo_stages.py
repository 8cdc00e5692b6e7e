"""The demo's wall time, stage by stage, against the five minutes that it may take on two cores."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.report import Row
from perpforge.demo.summary import Summary

LIMIT_S = 300.0


def run() -> list[Row]:
    """A whole demo in a folder of its own; that it ended with 0 is the parity."""
    with tempfile.TemporaryDirectory() as folder:
        summary_file = Path(folder) / "summary.json"
        command = [
            sys.executable,
            "-m",
            "perpforge",
            "demo",
            "--home",
            f"{folder}/home",
            "--summary",
            str(summary_file),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        summary = msgspec.json.decode(summary_file.read_bytes(), type=Summary)
    whole = sum(summary.stages.values())
    rows = [Row("demo, all stages", whole, "s", LIMIT_S, "the five minutes it may take")]
    for name, seconds in summary.stages.items():
        rows.append(Row(f"demo, {name}", seconds, "s", whole, "all stages together", f"{seconds / whole:.0%}"))
    return rows
