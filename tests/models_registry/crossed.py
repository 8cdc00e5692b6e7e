"""A training set whose outcomes follow a product of two columns, which no linear model of the columns can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models_registry.training_set import STOP, TARGET, TrainingSet
from tests.models_registry import planted


def training_set(rows: int = 3000, edge: float = 2.0, seed: int = 3) -> TrainingSet:
    """`planted` rows; the move within four hours follows feature 0 times feature 1, and with it who wins."""
    base = planted.training_set(rows=rows, edge=0.0, seed=seed, windows=10)
    random = np.random.default_rng(seed + 1)
    product = np.nan_to_num(base.decision[:, 0]) * np.nan_to_num(base.decision[:, 1])
    won = random.random(rows) < 1 / (1 + np.exp(-edge * product * base.direction))
    move = np.clip(edge * product, -4, 4) + random.standard_normal(rows)
    return replace(
        base,
        outcome=np.where(won, TARGET, STOP).astype(np.int8),
        r=np.where(won, 1.25, -1.05).astype(np.float32),
        return_ahead=move.astype(np.float32),
        path_known_at=base.decided_at + 4 * planted.HOUR,
    )


def shuffled(rows: TrainingSet, seed: int = 9) -> TrainingSet:
    """The same rows with each other's outcomes and paths."""
    order = np.random.default_rng(seed).permutation(len(rows))
    names = ("outcome", "r", "return_ahead")
    return replace(rows, **{name: getattr(rows, name)[order] for name in names})
