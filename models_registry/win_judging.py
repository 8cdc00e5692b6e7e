"""What the win model is worth on held-out candidates, and by which columns it tells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.calibration import fit_platt
from models_registry.logistic import StandardLogistic
from models_registry.manifest import Metric, finite
from models_registry.statistics import (
    Scored,
    auc,
    base_rate,
    block_index,
    calibration_error,
    improvement,
    log_loss,
    selection,
)
from models_registry.thinning import evenly
from models_registry.training_set import Split, TrainingSet

Float32 = NDArray[np.float32]


def importance(booster: Any, names: list[str]) -> dict[str, float]:
    """Share of the total gain by column, the largest thirty."""
    gains = {names[int(key[1:])]: float(gain) for key, gain in booster.get_score(importance_type="total_gain").items()}
    total = sum(gains.values()) or 1.0
    largest = sorted(gains.items(), key=lambda item: (-item[1], item[0]))[:30]
    return {name: gain / total for name, gain in largest}


def logistic(matrix: Float32, rows: TrainingSet, split: Split) -> NDArray[np.float64]:
    """Held-out probabilities of the logistic regression on the same columns.

    It has what the trees have: the validation rows choose its penalty and calibrate it.
    """
    won, weight = rows.won, rows.weight
    fit = split.fit[evenly(len(split.fit), 8000)]
    models = [StandardLogistic(matrix[fit], won[fit], weight[fit], ridge) for ridge in (0.01, 0.1, 1.0)]
    v = split.validation
    found = [model.predict(matrix[v]) for model in models]
    best = int(np.argmin([np.average(log_loss(won[v], p), weights=weight[v]) for p in found]))
    return fit_platt(found[best], won[v], weight[v]).apply(models[best].predict(matrix[split.holdout]))


def win_metrics(scored: Scored, logistic: NDArray[np.float64], threshold: float, seed: int) -> dict[str, Metric]:
    """Held-out metrics beside the base rate, the `logistic` probabilities and every candidate.

    A candidate is traded from the probability `threshold` on.
    """
    base = base_rate(scored.won)
    value = float(log_loss(scored.won, scored.probability).mean())
    rows, blocks = len(scored.won), len(block_index(scored.decided_at)[0])

    def against(name: str, baseline: NDArray[np.float64]) -> Metric:
        found = improvement(scored, baseline, seed)
        loss = float(log_loss(scored.won, baseline).mean())
        return Metric(
            value=value,
            baseline=loss,
            baseline_name=name,
            improvement=found.value,
            interval=found.pair,
            sums=found.sums,
            rows=rows,
            blocks=blocks,
        )

    def trades(chosen: NDArray[np.bool_], note: str) -> Metric:
        taken, gain = selection(scored, chosen, seed)
        return Metric(
            value=finite(taken.value),
            baseline=float(scored.r.mean()),
            baseline_name="every candidate",
            improvement=finite(gain.value),
            interval=gain.pair,
            sums=gain.sums,
            rows=int(chosen.sum()),
            blocks=blocks,
            note=f"mean R net of costs {note}",
        )

    best_fifth = scored.probability >= np.quantile(scored.probability, 0.8)
    return {
        "log_loss": against("the held-out base rate", base),
        "log_loss_logistic": against("logistic regression on the same columns", logistic),
        "auc": Metric(
            value=finite(auc(scored.won, scored.probability)),
            baseline=finite(auc(scored.won, logistic)),
            baseline_name="logistic regression on the same columns",
            rows=rows,
            blocks=blocks,
        ),
        "calibration_error": Metric(value=calibration_error(scored.won, scored.probability), rows=rows, blocks=blocks),
        "expectancy": trades(scored.probability >= threshold, f"from probability {threshold:g}"),
        "expectancy_best_fifth": trades(best_fifth, "of the fifth with the highest probability"),
    }
