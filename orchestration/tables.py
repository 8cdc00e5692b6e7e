"""What a component shows in the Dagster UI, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models_registry.manifest import Component


def metric_table(component: Component) -> str:
    """The metrics as Markdown: each beside its baseline, with the interval of the improvement."""
    lines = ["| metric | value | baseline | improvement, 95 % | rows |", "|---|---|---|---|---|"]
    for name, metric in component.metrics.items():
        span = "–" if metric.interval is None else f"{metric.interval[0]:+.4g} to {metric.interval[1]:+.4g}"
        baseline = "–" if metric.baseline is None else f"{metric.baseline:.4g} ({metric.baseline_name})"
        value = "–" if metric.value is None else f"{metric.value:.4g}"
        lines.append(f"| {name} | {value} | {baseline} | {span} | {metric.rows} |")
    return "\n".join(lines)


def search_table(component: Component) -> str:
    """What was tried for dynamic features in each regime, as Markdown, and what was kept."""
    from models_registry.dynamic_features import report_of

    report = report_of(component)
    lines = [
        "| regime | rows | blocks | tried | best ratio | enough would be | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in report.regimes:
        best, bar = ("–" if n is None else f"{n:.2f}" for n in (part.best_ratio, part.bar))
        lines.append(f"| {part.regime} | {part.rows} | {part.blocks} | {part.tried} | {best} | {bar} | {part.kept} |")
    lines += ["", *(f"- {each.regime}, {each.corrected:.2f}: `{each.text}`" for each in report.kept)]
    return "\n".join(lines)


def format_table(component: Component) -> str:
    """The exported formats as Markdown."""
    lines = ["| format | passed | bytes | µs a call | largest error |", "|---|---|---|---|---|"]
    for name, found in component.formats.items():
        passed = "yes" if found.passed else f"no: {found.failed}"
        numbers = [found.bytes, found.latency_us, found.max_error]
        lines.append(f"| {name} | {passed} | " + " | ".join("–" if n is None else f"{n:.4g}" for n in numbers) + " |")
    return "\n".join(lines)
