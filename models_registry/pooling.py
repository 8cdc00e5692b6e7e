"""One metric over the folds of a walk-forward: what they come to, and what that is worth after so many trials.

Each fold counts alike in the means and their spread. The improvement is of all folds' rows together, with an interval
over their blocks of time, all symbols together; it is deflated by the number of bundles that were ever trained. Of a
model's metrics its headline is a claim, and only claims have a verdict (`trials`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models_registry.manifest import Metric, finite
from models_registry.statistics import difference_interval
from models_registry.trials import deflate


class PooledMetric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric over several folds, in its own unit; null where no fold has it."""

    value: float | None
    """The mean of the folds."""
    spread: float | None
    """The folds' standard deviation (of a sample); null with fewer than two."""
    baseline: float | None
    baseline_name: str
    improvement: float | None
    """Over the baseline, of all rows together; positive is better, whatever the metric's sign."""
    interval: tuple[float, float] | None
    """Its 95 % interval; null when there are too few blocks to say."""
    folds: list[float | None]
    """The value in each fold."""
    rows: int
    blocks: int
    trials: int
    deflated: float | None
    """The improvement less what the best of so many trials without skill is expected to show."""
    claims: int
    """Made in the same evaluation."""
    shown: bool | None
    """Whether the deflated improvement is above zero at the level of one of so many claims; null for what is none."""
    smallest_detectable: float | None
    """The true improvement that this many blocks would have shown, as a claim, with a chance of 80 %."""
    note: str = ""

    @property
    def skill(self) -> bool:
        """Whether the whole interval of the improvement lies above zero, before it is deflated."""
        return self.interval is not None and self.interval[0] > 0


def pool(metrics: Sequence[Metric], *, trials: int, seed: int, claims: int = 1, claimed: bool = True) -> PooledMetric:
    """The metric of each fold, in order of time, as one. Raises `ValueError` without any fold, trial or claim.

    `claimed` says whether it is one of the `claims` of its evaluation.
    """
    if not metrics:
        raise ValueError("no fold has this metric")
    values = [metric.value for metric in metrics]
    known = [value for value in values if value is not None]
    baselines = [metric.baseline for metric in metrics if metric.baseline is not None]
    improvement, interval, blocks = _together(metrics, seed)
    found = deflate(np.nan if improvement is None else improvement, interval, trials, claims)
    return PooledMetric(
        value=float(np.mean(known)) if known else None,
        spread=float(np.std(known, ddof=1)) if len(known) > 1 else None,
        baseline=float(np.mean(baselines)) if baselines else None,
        baseline_name=metrics[-1].baseline_name,
        improvement=improvement,
        interval=interval,
        folds=values,
        rows=sum(metric.rows for metric in metrics),
        blocks=blocks,
        trials=trials,
        deflated=finite(found.deflated),
        claims=claims,
        shown=found.shown if claimed else None,
        smallest_detectable=finite(found.smallest_detectable),
        note=metrics[-1].note,
    )


def _together(metrics: Sequence[Metric], seed: int) -> tuple[float | None, tuple[float, float] | None, int]:
    """The improvement over all blocks of all folds, its interval, and how many blocks that were."""
    parts = [metric.sums for metric in metrics if metric.sums is not msgspec.UNSET and metric.sums]
    if not parts:
        return None, None, sum(metric.blocks for metric in metrics)
    joined = [np.concatenate([part[place] for part in parts]) for place in range(4)]
    found = difference_interval((joined[0], joined[1]), (joined[2], joined[3]), seed=seed)
    return finite(found.value), found.pair, found.blocks


def claims_of(folds: Sequence[Mapping[str, Mapping[str, Metric]]], headlines: Mapping[str, str]) -> int:
    """How many models have an improvement by their headline, in any of the folds."""
    return sum(
        any(name in fold.get(model, {}) and fold[model][name].improvement is not None for fold in folds)
        for model, name in headlines.items()
    )


def pool_all(
    folds: Sequence[Mapping[str, Mapping[str, Metric]]],
    *,
    trials: int,
    seed: int,
    headlines: Mapping[str, str],
    claims: int,
) -> dict[str, dict[str, PooledMetric]]:
    """Every metric of every model over the folds that have it, by model and name in the order of their coming.

    `headlines` name the metric of each model that is a claim, one of `claims`.
    """
    names: dict[str, dict[str, None]] = {}
    for fold in folds:
        for model, metrics in fold.items():
            names.setdefault(model, {}).update(dict.fromkeys(metrics))
    return {
        model: {
            name: pool(
                [fold[model][name] for fold in folds if name in fold.get(model, {})],
                trials=trials,
                seed=seed,
                claims=max(claims, 1),
                claimed=headlines.get(model) == name,
            )
            for name in wanted
        }
        for model, wanted in names.items()
    }
