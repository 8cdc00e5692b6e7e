"""What an unsupervised representation knows of outcomes: a linear probe on it, judged like any other model.

The autoencoder is fitted to windows, not to outcomes, so its reconstruction error says how well it compresses
and nothing about the market. The probe says the other thing: whether latents tell wins from losses at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models_registry.logistic import StandardLogistic
from models_registry.manifest import Metric
from models_registry.statistics import Scored, base_rate, block_index, improvement, log_loss
from models_registry.training_set import TARGET, Split, TrainingSet

OUTCOME_LOG_LOSS = "outcome_log_loss"
RIDGE = 1e-2
"""Penalty of the probe's coefficients: the columns are many for what a few weeks of labels can show."""
FEWEST_ROWS = 50
"""In either part; below, a probe says nothing."""


def outcome_probe(rows: TrainingSet, split: Split, latents: NDArray[np.float32], seed: int) -> Metric | None:
    """Log loss of a logistic model of the outcome on `latents` [m, L], beside the held-out base rate.

    Its columns are the direction, the latents, and the latents times the direction, since what is good for a long
    is bad for a short. Fitted before the holdout, scored on it; None when either part has too few rows or one
    kind of outcome only.
    """
    fit = np.concatenate([split.fit, split.validation])
    won = np.asarray(rows.outcome == TARGET)
    if min(len(fit), len(split.holdout)) < FEWEST_ROWS or len(np.unique(won[fit])) < 2:
        return None
    side = rows.direction[:, None].astype(np.float64)
    columns = np.concatenate([side, latents, latents * side], axis=1)
    probe = StandardLogistic(columns[fit], won[fit], rows.weight[fit], ridge=RIDGE)
    held = split.holdout
    scored = Scored(rows.decided_at[held], rows.known_at[held], won[held], rows.r[held], probe.predict(columns[held]))
    base = base_rate(scored.won)
    found = improvement(scored, base, seed)
    return Metric(
        value=float(log_loss(scored.won, scored.probability).mean()),
        baseline=float(log_loss(scored.won, base).mean()),
        baseline_name="the held-out base rate",
        improvement=found.value,
        interval=found.pair,
        sums=found.sums,
        rows=len(held),
        blocks=len(block_index(scored.decided_at)[0]),
        note="a logistic model of the outcome on the latents alone: what they know of the market",
    )
