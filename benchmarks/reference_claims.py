"""The reference's five optimisation claims beside what is measured here, from the rows of the other benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.report import Row
from benchmarks.small_bundle import small_bundle
from models_registry.convert import FP32, INT8
from models_registry.runtime import read_manifest

SOURCES = ("incremental_cache", "front", "state_store")
"""Benchmarks whose rows are set beside the claims."""

Line = tuple[str, str, str, str]
"""The optimisation, what the reference claims, what is measured, and against what."""


def show(rows: Mapping[str, list[Row]]) -> None:
    """Print the table from the rows of `SOURCES`, by benchmark."""
    table = Table(title="The reference's optimisation claims, beside what is measured")
    for column in ("optimisation", "claimed", "measured", "against"):
        table.add_column(column)
    for line in lines(rows):
        table.add_row(*line)
    Console(width=160).print(table)


def lines(rows: Mapping[str, list[Row]]) -> list[Line]:
    """The table's lines."""
    return [
        *_quantised(),
        *(_cache(row) for row in rows["incremental_cache"]),
        *(
            ("batched single questions", "10 to 20 times", f"{row.ratio:,.1f} times", row.baseline_name)
            for row in rows["front"]
        ),
        _mapped(_named(rows["state_store"], "vectors")),
        ("smart monitoring", "60 to 80 % less CPU", "not built yet", "every position at once a second"),
    ]


def _quantised() -> Iterable[Line]:
    """Of each network, from the table of formats that its training measured in the live runtime."""
    for name, part in read_manifest(small_bundle().folder).components.items():
        small, whole = part.formats.get(INT8), part.formats.get(FP32)
        if small is None or whole is None or small.speedup is None or small.bytes is None or whole.bytes is None:
            continue
        measured = f"{small.speedup:.1f} times as fast, {1 - small.bytes / whole.bytes:.0%} smaller file"
        claimed = "3 to 5 times as fast, 75 % less memory"
        yield f"INT8 {name}", claimed, measured, f"fp32 of the same runtime, {small.latency_rows} rows"


def _cache(row: Row) -> Line:
    saved = f"{1 - row.measured / row.baseline:.1%} less time"
    return "incremental features", "80 % less time", saved, row.baseline_name


def _mapped(row: Row) -> Line:
    saved = f"{1 - row.measured / row.baseline:.0%} less memory"
    return "memory-mapped vectors", "50 to 70 % less memory", saved, row.baseline_name


def _named(rows: Iterable[Row], part: str) -> Row:
    return next(row for row in rows if part in row.name)
