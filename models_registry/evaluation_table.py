"""An evaluation of the models as Markdown: every metric beside its baseline, and what it is worth after all trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models_registry.manifest import Metric
from models_registry.pooling import PooledMetric
from models_registry.trials import deflate
from models_registry.walk_forward import FoldResult, ModelEvaluation

HEAD = (
    "| metric | folds, mean ± spread | baseline | better by, 95 % | deflated; a claim: shown? | smallest detectable |",
    "|---|---|---|---|---|---|",
)


def evaluation_markdown(found: ModelEvaluation) -> str:
    """The whole evaluation: a table of every fold from scratch, and one of the models that go on."""
    parts = [*_about(found), "", *table(found.from_scratch), *_left_out(found.folds)]
    if found.continued:
        parts += ["", "Judged prequentially: each fold predicted before it is learnt from, going on from the last.", ""]
        parts += [*table(found.prequential), *_left_out(found.continued)]
    return "\n".join(parts) + "\n"


def table(pooled: Mapping[str, Mapping[str, PooledMetric]]) -> list[str]:
    """The lines of the table of some models."""
    lines = list(HEAD)
    for model, metrics in pooled.items():
        lines.append(f"| **{model}** | | | | | |")
        lines += [_line(name, metric) for name, metric in metrics.items()]
    return lines


def _line(name: str, metric: PooledMetric) -> str:
    value = _number(metric.value) + ("" if metric.spread is None else f" ± {metric.spread:.2g}")
    baseline = "–" if metric.baseline is None else f"{_number(metric.baseline)} {metric.baseline_name}"
    if metric.improvement is None or metric.deflated is None or metric.smallest_detectable is None:
        verdict = "–" if metric.improvement is None or metric.shown is None else "not shown"
        return f"| {name} | {value} | {baseline} | {_better(metric)} | {verdict} | – |"
    verdict = f"{metric.deflated:+.2g}{_verdict(metric.shown)}"
    return f"| {name} | {value} | {baseline} | {_better(metric)} | {verdict} | {metric.smallest_detectable:.2g} |"


def _verdict(shown: bool | None) -> str:
    return "" if shown is None else ", shown" if shown else ", not shown"


def _better(metric: PooledMetric) -> str:
    if metric.improvement is None:
        return "–"
    span = "too few blocks" if metric.interval is None else f"{metric.interval[0]:+.2g} … {metric.interval[1]:+.2g}"
    return f"{metric.improvement:+.2g} ({span})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _about(found: ModelEvaluation) -> list[str]:
    from market.errors import utc

    judged = [fold.fold for fold in found.folds if fold.failed is None]
    span = f"{utc(judged[0].start_ms)} to {utc(judged[-1].end_ms)}" if judged else "no time"
    return [
        f"{len(judged)} folds, each from scratch, over {span}; deflated by {_counted(found.trials, 'trial')}. Positive "
        f"is better than the baseline. One metric of each model is a claim, {_counted(found.claims, 'claim')} here and "
        "prequentially, and is shown only at a level divided by their number; the others are told without a verdict, "
        "and of so many intervals some lie above or below zero by chance."
    ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _left_out(folds: Sequence[FoldResult]) -> list[str]:
    lines = [f"- Fold {each.fold.number + 1}: {each.failed}" for each in folds if each.failed is not None]
    lines += [
        f"- Fold {each.fold.number + 1}, {model}: the plain version stood in, {why}"
        for each in folds
        for model, why in each.fallbacks.items()
    ]
    lines += [
        f"- Fold {each.fold.number + 1}, {model}: began anew, {why}"
        for each in folds
        for model, why in each.anew.items()
    ]
    return ["", *lines] if lines else []


def trial_words(metric: Metric, trials: int, claims: int = 1, claimed: bool = True) -> str:
    """What an improvement is worth after so many trials, in words; empty for a metric without one.

    A verdict has only what is `claimed`, as one of so many `claims`.

    >>> trial_words(Metric(value=0.6, improvement=0.02, interval=(0.001, 0.039)), 20)
    'deflated by 20 trials +0.0016, not shown; the smallest effect that this sample could have shown is 0.046'
    """
    if metric.improvement is None:
        return ""
    if metric.interval is None:
        return "too few blocks of time to say what this sample could have shown"
    found = deflate(metric.improvement, metric.interval, trials, claims)
    among = f" as one of {claims} claims" if claimed and claims > 1 else ""
    return (
        f"deflated by {_counted(trials, 'trial')} {found.deflated:+.2g}{_verdict(found.shown if claimed else None)}"
        f"{among}; the smallest effect that this sample could have shown is {found.smallest_detectable:.2g}"
    )
