"""What components, bundles and their judgement show in the Dagster UI: Markdown and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg

from market.errors import utc

if TYPE_CHECKING:
    from models_registry.evaluation import EvaluationRecord
    from models_registry.manifest import Component, Manifest, TrainingRecord
    from models_registry.trade_record import TradeRecord
    from orchestration.judging import Comparison


def metric_table(component: Component) -> str:
    """The metrics as Markdown: each beside its baseline, with the interval of the improvement and the smallest one that
    the sample would have shown four times in five."""
    from models_registry.trials import smallest_detectable, standard_error

    lines = [
        "| metric | value | baseline | improvement, 95 % | smallest detectable | rows |",
        "|---|---|---|---|---|---|",
    ]
    for name, metric in component.metrics.items():
        span = "–" if metric.interval is None else f"{metric.interval[0]:+.4g} to {metric.interval[1]:+.4g}"
        least = "–" if metric.interval is None else f"{smallest_detectable(standard_error(metric.interval)):.2g}"
        baseline = "–" if metric.baseline is None else f"{metric.baseline:.4g} ({metric.baseline_name})"
        value = "–" if metric.value is None else f"{metric.value:.4g}"
        lines.append(f"| {name} | {value} | {baseline} | {span} | {least} | {metric.rows} |")
    return "\n".join(lines)


def bundle_table(manifest: Manifest, trials: int) -> str:
    """Every score of a bundle's models as Markdown, with what it is worth as the newest of so many trials.

    A verdict has only each model's headline, as one of so many claims.
    """
    from models_registry.trials import deflate

    claims = max(1, sum(part.headline is not None for part in manifest.components.values()))
    lines = [
        f"| model | metric | value | baseline | improvement | deflated by {trials} | smallest detectable |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, part in manifest.components.items():
        for name, metric in part.metrics.items():
            value = "–" if metric.value is None else f"{metric.value:.4g}"
            baseline = "–" if metric.baseline is None else f"{metric.baseline:.4g} ({metric.baseline_name})"
            worth = "– | – | –"
            if metric.improvement is not None and metric.interval is not None:
                found = deflate(metric.improvement, metric.interval, trials, claims)
                span = f"{metric.improvement:+.2g} ({metric.interval[0]:+.2g} … {metric.interval[1]:+.2g})"
                verdict = "" if name != part.headline else ", shown" if found.shown else ", not shown"
                worth = f"{span} | {found.deflated:+.2g}{verdict} | {found.smallest_detectable:.2g}"
            lines.append(f"| {model} | {name} | {value} | {baseline} | {worth} |")
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
    lines = [
        "| format | passed | decisions that agree | bytes | µs a call | times as fast as fp32 | largest error |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in component.formats.items():
        passed = "yes" if found.passed else f"no: {found.failed}"
        agree = "–" if found.agreement is None else f"{found.agreement:.1%}"
        size = "–" if found.bytes is None else f"{found.bytes:,}"
        numbers = [found.latency_us, found.speedup, found.max_error]
        shown = " | ".join("–" if n is None else f"{n:.4g}" for n in numbers)
        lines.append(f"| {name} | {passed} | {agree} | {size} | {shown} |")
    return "\n".join(lines)


def seen(record: TrainingRecord) -> dict[str, str | int]:
    """What a training has seen, for the metadata of an asset and the parameters of a run."""
    return {
        "trained_from": utc(record.start_ms),
        "trained_to": utc(record.end_ms),
        "last_outcome_known_at": utc(record.last_known_at),
        "held_out_from": utc(record.holdout_start_ms),
        "rows": record.rows,
        "data_hash": record.data_hash,
    }


def judged(found: Comparison, trials: int) -> dict[str, dg.RawMetadataValue]:
    """How challenger and champion fared on their window, and what it is worth as the newest of so many trials."""
    records = found.records
    claims = sum(score.improvement is not None for record in records.values() for score in record.metrics().values())
    shown: dict[str, dg.RawMetadataValue] = {
        "challenger": found.challenger_version,
        "champion": found.champion_version or "none",
        "trials": trials,
    }
    if found.unjudged:
        shown["unjudged"] = found.unjudged
    for role, record in records.items():
        shown |= _scored(role, record, trials, claims)
        if record.replay is not None:
            shown |= _replayed(role, record.replay)
    if found.fitness is not None and found.fitness.latency_ms is not None:
        shown["challenger_latency_ms"] = found.fitness.latency_ms
    return shown


def _scored(role: str, record: EvaluationRecord, trials: int, claims: int) -> dict[str, dg.RawMetadataValue]:
    from models_registry.evaluation_table import trial_words

    worth = {name: trial_words(score, trials, claims) for name, score in record.metrics().items()}
    return {
        **{f"{role}_{name}_deflated": words for name, words in worth.items() if words},
        f"{role}_rows": record.rows,
        f"{role}_log_loss": record.log_loss,
        f"{role}_calibration_error": record.calibration_error,
    }


def _replayed(role: str, trades: TradeRecord) -> dict[str, dg.RawMetadataValue]:
    return {
        f"{role}_positions": trades.positions,
        f"{role}_expectancy": "no positions" if trades.expectancy is None else trades.expectancy,
        f"{role}_hit_rate": "no positions" if trades.hit_rate is None else trades.hit_rate,
        f"{role}_drawdown": trades.drawdown,
        f"{role}_positions_a_day": trades.turnover,
        f"{role}_days": trades.days,
    }
