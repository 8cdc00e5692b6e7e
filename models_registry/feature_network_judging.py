"""What discovered features are worth: one downstream model on them and on the raw columns they are made of.

The downstream model is the logistic regression that is the win model's own baseline. Its fitted rows have features of
networks that have not seen their labels; its validation rows, which choose its penalty and calibrate it, and the
held-out rows those of the network that is served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models_registry.calibration import fit_platt
from models_registry.feature_network_fitting import Decisions
from models_registry.feature_network_runtime import NetworkParameters, head_values, plain_features
from models_registry.logistic import StandardLogistic
from models_registry.manifest import Metric
from models_registry.statistics import (
    Scored,
    base_rate,
    block_index,
    block_sums,
    improvement,
    log_loss,
    ratio_interval,
    reliability,
)
from models_registry.thinning import evenly
from models_registry.training_set import Split, TrainingSet

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

OUTCOMES = ("long", "short")
"""The heads that tell the outcome of a candidate."""
RIDGES = (0.01, 0.1, 1.0)
MOST_FIT = 8000
"""Rows that the downstream model is fitted to."""


@dataclass(frozen=True)
class Downstream:
    """One downstream model: what it says of the held-out rows."""

    probability: Float64
    loss: float


def downstream(rows: TrainingSet, split: Split, columns: Sequence[Float32], medians: Sequence[Float32]) -> Downstream:
    """Held-out probabilities of a win by groups of columns `[m, G]` about their `medians`, by direction too."""
    side = rows.direction[:, None].astype(np.float32)
    parts = [side]
    for group, centre in zip(columns, medians, strict=True):
        parts += [group, (group - centre) * side]
    x, won, weight = np.concatenate(parts, axis=1), rows.won, rows.weight
    fit, v = split.fit, split.validation
    fit = fit[evenly(len(fit), MOST_FIT)]
    models = [StandardLogistic(x[fit], won[fit], weight[fit], ridge) for ridge in RIDGES]
    predicted = [model.predict(x[v]) for model in models]
    best = int(np.argmin([np.average(log_loss(won[v], p), weights=weight[v]) for p in predicted]))
    calibrated = fit_platt(predicted[best], won[v], weight[v]).apply(models[best].predict(x[split.holdout]))
    return Downstream(calibrated, float(log_loss(won[split.holdout], calibrated).mean()))


def downstream_metrics(rows: TrainingSet, split: Split, features: Float32, seed: int) -> dict[str, Metric]:
    """Log loss on held-out candidates with `features` `[m, 32]`, beside the raw columns, both, and the indicators."""
    raw = rows.decision
    plain = plain_features(raw, rows.decision_names)
    groups = {name: (values, _medians(values[split.fit])) for name, values in
              (("raw", raw), ("features", features), ("plain", plain))}  # fmt: skip

    def model(*names: str) -> Downstream:
        return downstream(rows, split, [groups[name][0] for name in names], [groups[name][1] for name in names])

    alone, others = model("features"), {"raw": model("raw"), "plain": model("plain")}
    both, held = model("raw", "features"), rows.select(split.holdout)
    base = Downstream(base_rate(held.won), float(log_loss(held.won, base_rate(held.won)).mean()))
    return {
        "outcome_log_loss": _against(held, alone, others["raw"], "the raw decision row, same model", seed),
        "outcome_log_loss_added": _against(held, both, others["raw"], "the raw decision row alone, same model", seed),
        "outcome_log_loss_plain": _against(held, alone, others["plain"], "32 technical indicators, same model", seed),
        "outcome_log_loss_base": _against(held, alone, base, "the held-out base rate", seed),
    }


def _medians(values: Float32) -> Float32:
    known = np.where(np.isfinite(values), values, np.nan)
    known[:, np.isnan(known).all(axis=0)] = 0.0
    return np.asarray(np.nanmedian(known, axis=0), dtype=np.float32)


def _against(held: TrainingSet, model: Downstream, baseline: Downstream, name: str, seed: int) -> Metric:
    scored = Scored(held.decided_at, held.known_at, held.won, held.r, model.probability)
    found = improvement(scored, baseline.probability, seed)
    return Metric(
        value=model.loss,
        baseline=baseline.loss,
        baseline_name=name,
        improvement=found.value,
        interval=found.pair,
        sums=found.sums,
        rows=len(held),
        blocks=len(block_index(held.decided_at)[0]),
        note="logistic regression on the features and the features times the direction, calibrated",
    )


def head_metrics(
    features: Float32, decisions: Decisions, held: NDArray[np.int64], parameters: NetworkParameters, seed: int
) -> dict[str, Metric]:
    """What the heads themselves say of held-out decisions: log loss and squared error beside the best constant.

    `features [n, 32]` and `held` are of the decisions; a head without known targets among them has no metric.
    """
    found: dict[str, Metric] = {}
    for head, name in (("rising", "rising_log_loss"), ("long", "long_log_loss"), ("short", "short_log_loss")):
        known = held[decisions.weights[head][held] > 0]
        if len(known):
            won = decisions.targets[head][known] > 0.5
            losses = log_loss(won, head_values(features[known], parameters, head))
            found[name] = _score(losses, log_loss(won, base_rate(won)), decisions.decided_at[known], seed,
                                 "the held-out base rate", "nats")  # fmt: skip
    known = held[decisions.weights["size"][held] > 0]
    if len(known):
        size = decisions.targets["size"][known].astype(np.float64)
        error = np.square(size - head_values(features[known], parameters, "size"))
        found["size_error"] = _score(error, np.square(size - size.mean()), decisions.decided_at[known], seed,
                                     "the held-out mean", "mean squared error of log(1 + ATR)")  # fmt: skip
    return found


def head_reliability(
    features: Float32, decisions: Decisions, held: NDArray[np.int64], parameters: NetworkParameters, head: str
) -> list[tuple[float, float, int]]:
    """Calibration bins, as of `statistics.reliability`, of an outcome head on held-out decisions of known outcome."""
    known = held[decisions.weights[head][held] > 0]
    return reliability(decisions.targets[head][known] > 0.5, head_values(features[known], parameters, head))


def _score(losses: Float64, baseline: Float64, at: NDArray[np.int64], seed: int, name: str, note: str) -> Metric:
    starts, block = block_index(at)
    count = block_sums(block, np.ones(len(at)), len(starts))
    better = ratio_interval(block_sums(block, baseline - losses, len(starts)), count, seed=seed)
    return Metric(
        value=float(losses.mean()),
        baseline=float(baseline.mean()),
        baseline_name=name,
        improvement=better.value,
        interval=better.pair,
        sums=better.sums,
        rows=len(at),
        blocks=len(starts),
        note=note,
    )
