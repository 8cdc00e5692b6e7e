"""`perpforge replay`: recorded bars through the live engine."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from trading_worker.replay import ReplayResult, replay_command
from trading_worker.settings import load


def run_replay(
    klines: str,
    bundle: Path | None,
    start_ms: int | None,
    end_ms: int | None,
    symbols: tuple[str, ...],
    journal: Path | None,
    as_json: bool,
) -> None:
    """Replay, then print the digest and what became of the signals. Strategy and limits come from the environment."""
    environment = load()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replay", total=None)
        result = replay_command(
            klines,
            bundle,
            start_ms=start_ms,
            end_ms=end_ms,
            symbols=symbols,
            settings=environment.engine(),
            quantised=environment.enable_quantization,
            journal=journal,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(result.summary()), indent=2).decode())
    else:
        _show(result)


def _show(result: ReplayResult) -> None:
    console = Console()
    summary = result.summary()
    console.print(
        f"{summary['symbols']} symbols, {summary['start']} to {summary['end']}: {summary['waves']:,} waves, "
        f"{summary['bars']:,} bars, {summary['bars_per_second']:,.0f} bars/s"
    )
    outcomes = Table("outcome", "positions", "mean R")
    for name, outcome in result.outcomes.items():
        outcomes.add_row(name, f"{outcome.count:,}", f"{outcome.mean_r:+.3f}")
    console.print(outcomes)
    console.print(f"digest {result.digest}")
