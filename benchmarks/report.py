"""How a benchmark measures and what it prints: the measured number, its baseline and their ratio, from one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One line of the report. `baseline` is what a plainer way costs, in the same unit, in the same run."""

    name: str
    measured: float
    unit: str
    baseline: float
    baseline_name: str
    note: str = ""
    least_ratio: float | None = None
    """The ratio that is wanted at least."""
    at_most: float | None = None
    """The number that is wanted at most, in the row's unit."""

    @property
    def ratio(self) -> float:
        """How many times the baseline's cost is the measured one's."""
        return self.baseline / self.measured

    @property
    def wanted(self) -> str:
        """What is wanted and whether it was met; empty where nothing is."""
        found = []
        if self.least_ratio is not None:
            found.append((f"at least {self.least_ratio:,g}×", self.ratio >= self.least_ratio))
        if self.at_most is not None:
            found.append((f"at most {self.at_most:,.4g} {self.unit}", self.measured <= self.at_most))
        return "; ".join(f"{words}: {'met' if met else 'MISSED'}" for words, met in found)


def seconds(call: Callable[[], object], repeats: int) -> np.ndarray:
    """The wall time of each of `repeats` calls, after one that is not counted."""
    call()
    taken = np.empty(repeats)
    for i in range(repeats):
        started = time.perf_counter()
        call()
        taken[i] = time.perf_counter() - started
    return taken


def alternately(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """The wall times of calls that take turns, so that what else the machine does falls on all of them alike.

    Each is called once before that.
    """
    for call in calls.values():
        call()
    taken = {name: np.empty(repeats) for name in calls}
    for i in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            taken[name][i] = time.perf_counter() - started
    return taken


def fastest_ms(seconds: np.ndarray) -> float:
    """The fastest of some calls, in milliseconds: what it takes when nothing else wants the cores."""
    return float(np.min(seconds)) * 1e3


def median_ms(seconds: np.ndarray) -> float:
    """The median, in milliseconds."""
    return float(np.median(seconds)) * 1e3


def show(rows: list[Row]) -> None:
    """Print the rows as one table."""
    table = Table(title="Benchmarks: parity was asserted before each was timed")
    for column in ("what", "measured", "baseline", "ratio", "against", "wanted", "note"):
        table.add_column(column, justify="right" if column in ("measured", "baseline", "ratio") else "left")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.measured:,.4g} {row.unit}",
            f"{row.baseline:,.4g} {row.unit}",
            f"{row.ratio:,.1f}×",
            row.baseline_name,
            row.wanted,
            row.note,
        )
    Console(width=160).print(table)
