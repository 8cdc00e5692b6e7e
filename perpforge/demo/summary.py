"""What the demo did, as a table for a person and as JSON for a program."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One number on held-out data beside its baseline. Every score here is better when lower."""

    metric: float | None
    metric_name: str
    baseline: float | None
    baseline_name: str
    interval: tuple[float, float] | None
    """95 % interval of the improvement over the baseline (baseline minus model): wholly above zero is skill. None
    when the held-out window is too short to say."""
    rows: int

    @property
    def skill(self) -> bool:
        """Whether the sample shows an improvement over the baseline."""
        return self.interval is not None and self.interval[0] > 0


class ModelScore(Score, frozen=True, kw_only=True):
    """How well one model tells wins from losses, in data it has not seen."""

    served: str
    """The format that the worker runs, or the fallback's name."""
    compression: Score | None = None
    """Of an autoencoder: how well it compresses windows. That it does says nothing about the market's edge."""


class BundleReport(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle and what the gate said of it."""

    version: str
    promoted: bool
    rule: str
    """The gate's rule that decided: `bootstrap`, `not_worse`, …"""
    reasons: tuple[str, ...]
    override: str | None
    """The reason of a promotion against the gate, or None."""
    training_rows: int
    live_labels: int
    models: dict[str, ModelScore]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the demo has to show."""

    market: str
    edge: str
    seed: int
    symbols: int
    bars: int
    features: int
    """Columns of a decision row."""
    models: dict[str, ModelScore]
    """The models of the first bundle, whose held-out window is the longest."""
    bundles: tuple[BundleReport, ...]
    gate: dict[str, str] = {}
    """The gate's settings that were made smaller for the demo: what it asked in place of what."""
    signals: int
    positions: int
    """Virtual positions that were closed, or taken and are still open."""
    outcomes: dict[str, int]
    mean_r: float | None
    """Mean R of the closed positions, net of fees, spread, slippage and funding; None when none closed."""
    live_labels: int
    swap_ms: float
    waves: int
    waves_missed: int
    stages: dict[str, float]
    """Seconds of each stage, in order."""
    pages: dict[str, str]
    """How to open each page."""

    def write(self, path: Path) -> None:
        """Write the summary as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))


def _verdict(bundle: BundleReport) -> str:
    if bundle.override is not None:
        return f"refused by the gate, promoted by an override with the reason “{bundle.override}”"
    return f"promoted by the gate ({bundle.rule})" if bundle.promoted else f"stays challenger ({bundle.rule})"


def _facts(summary: Summary) -> list[tuple[str, str]]:
    mean_r = "no closed position" if summary.mean_r is None else f"{summary.mean_r:+.3f} R net of costs"
    outcomes = ", ".join(f"{name} {count}" for name, count in summary.outcomes.items()) or "none"
    return [
        ("market", f"{summary.market}, {summary.symbols} symbols, edge: {summary.edge}, seed {summary.seed}"),
        ("one-minute bars", f"{summary.bars:,}"),
        ("decision features", f"{summary.features}"),
        ("signals", f"{summary.signals:,}"),
        ("virtual positions", f"{summary.positions:,} ({outcomes})"),
        ("mean outcome", mean_r),
        ("live labels returned", f"{summary.live_labels:,}"),
        ("hot swap", f"{summary.swap_ms:.1f} ms between two waves"),
        ("waves", f"{summary.waves:,} decided, {summary.waves_missed} missed"),
        ("wall time", f"{sum(summary.stages.values()):.0f} s"),
    ]


def _model_lines(bundle: BundleReport) -> list[tuple[str, str, str, str, str]]:
    lines = []
    for name, score in bundle.models.items():
        lines.append(_line(f"{name} ({score.served})", score, "skill", "no skill shown"))
        if score.compression is not None:
            lines.append(_line("  as compression, not skill", score.compression, "better", "not shown to be better"))
    return lines


def _line(name: str, score: Score, yes: str, no: str) -> tuple[str, str, str, str, str]:
    value = "–" if score.metric is None else f"{score.metric_name} {score.metric:.4f}"
    baseline = "–" if score.baseline is None else f"{score.baseline_name} {score.baseline:.4f}"
    interval = "–" if score.interval is None else f"{score.interval[0]:+.4f} … {score.interval[1]:+.4f}"
    return name, value, baseline, interval, yes if score.skill else no


def show(summary: Summary, console: Console) -> None:
    """Print the summary as tables."""
    facts = Table(title="perpforge demo", show_header=False, title_justify="left")
    for name, value in _facts(summary):
        facts.add_row(name, value)
    console.print(facts)
    models = Table(title="Models on data they have not seen (lower is better)", title_justify="left")
    for column in ("bundle", "model", "score", "baseline", "improvement, 95 %", "verdict"):
        models.add_column(column)
    for bundle in summary.bundles:
        for line in _model_lines(bundle):
            models.add_row(bundle.version, *line)
    console.print(models)
    gate = Table(title="The gate", title_justify="left")
    for column in ("bundle", "verdict", "why"):
        gate.add_column(column)
    for bundle in summary.bundles:
        gate.add_row(bundle.version, _verdict(bundle), "\n".join(bundle.reasons))
    console.print(gate)
    if summary.gate:
        made = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in summary.gate.items())
        console.print(f"The demo has one day to judge by, so it asks less of the gate than the defaults do: {made}.")
    if summary.edge == "none":
        skilled = [f"{name} of bundle {b.version}" for b in summary.bundles for name, s in b.models.items() if s.skill]
        if skilled:
            console.print(
                f"This market has no edge, so the skill that {', '.join(skilled)} showed is chance or a fault."
            )
        else:
            console.print("This market has no edge, and the models found none.")
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in summary.stages.items())
    console.print(f"Stages: {stages}")
    for name, how in summary.pages.items():
        console.print(f"{name}: {how}")
