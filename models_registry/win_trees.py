"""How the trees of `win_classifier` are grown: round by round, from a checkpoint or a champion where there is one.

Trees that are grown on after a kill are bit for bit those of an undisturbed growth: every few rounds all that xgboost
keeps besides the trees (sums of leaves, the state of the column sampler) is begun anew from them, killed or not, and a
round is seeded by its own number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.checkpoints import Checkpoint, CheckpointRefused, Refusal, TrainingState

Float32 = NDArray[np.float32]

BOOSTER = "booster"
"""The trees in a checkpoint, as xgboost writes them."""
PARTS = ("fit", "validation")


@dataclass(frozen=True)
class TreeRows:
    """Rows that trees are grown on or stopped by."""

    matrix: Float32
    """`[n, columns]`, NaN for missing."""
    won: NDArray[np.bool_]
    weight: NDArray[np.floating]


@dataclass(frozen=True)
class GrowthPlan:
    """What a growth does."""

    settings: Mapping[str, Any]
    """Of xgboost; `seed` among them."""
    rounds: int
    """At most."""
    patience: int
    """Rounds without a better validation loss after which it stops."""
    threads: int
    stretch: int = 25
    """Rounds between two checkpoints."""


@dataclass
class Grown:
    """What a growth came to."""

    booster: Any
    """After `grow` the trees of the best round, and those that it began with."""
    begun: int = 0
    """Rounds of the trees that it began with."""
    curves: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    """Losses by part, a number a round; of trees that it began with the first is theirs."""
    best: float = math.inf
    best_round: int = 0
    """Rounds grown then."""
    resumed_from: int = 0
    """Rounds that were taken over from a checkpoint."""

    @property
    def rounds(self) -> int:
        """How many were grown, those of the checkpoint among them."""
        return self.booster.num_boosted_rounds() - self.begun  # type: ignore[no-any-return]


def grow(
    fit: TreeRows,
    validation: TreeRows,
    plan: GrowthPlan,
    checkpoint: Checkpoint | None = None,
    start: bytes | None = None,
    on_round: Callable[[int], None] = lambda done: None,
) -> Grown:
    """Grow trees on `fit` until `validation` gets no better, from the trees in `start` (xgboost's own file) if given.

    The checkpoint stays: its owner discards it when everything that follows is done.
    """
    import xgboost

    parts = [
        (xgboost.DMatrix(rows.matrix, label=rows.won, weight=rows.weight, nthread=plan.threads), name)
        for rows, name in ((fit, "fit"), (validation, "validation"))
    ]
    first = float(np.clip(np.average(fit.won, weights=fit.weight), 0.01, 0.99))
    grown = _begun(plan, parts, start, first)
    if checkpoint is not None:
        path, begun = checkpoint.path, grown.begun
        grown = checkpoint.resume(lambda state: _taken_up(path, state, plan, parts, begun)) or grown
    while grown.rounds < plan.rounds and grown.rounds - grown.best_round < max(plan.patience, 1):
        grown.booster.update(parts[0][0], grown.begun + grown.rounds)
        _note(grown, parts)
        if grown.rounds % plan.stretch == 0:
            if checkpoint is not None:
                checkpoint.save(_state(grown))
            grown.booster = _booster(plan, parts, _trees(grown.booster))
        on_round(grown.rounds)
    grown.booster = grown.booster[: grown.begun + grown.best_round]
    return grown


def _booster(plan: GrowthPlan, parts: list[Any], trees: bytes | None, first: float | None = None) -> Any:
    import xgboost

    settings = {**plan.settings, "nthread": plan.threads, "seed_per_iteration": True}
    matrices = [matrix for matrix, _ in parts]
    if trees is None:
        return xgboost.Booster({**settings, "base_score": first}, matrices)
    # The score that loaded trees begin with is their own; which columns they draw must not repeat.
    booster = xgboost.Booster(settings, matrices, model_file=bytearray(trees))
    booster.set_param({"seed": int(settings["seed"]) + booster.num_boosted_rounds()})
    return booster


def _begun(plan: GrowthPlan, parts: list[Any], start: bytes | None, first: float) -> Grown:
    grown = Grown(_booster(plan, parts, start, first))
    if start is not None:
        grown.begun = grown.booster.num_boosted_rounds()
        _note(grown, parts)
    return grown


def _note(grown: Grown, parts: list[Any]) -> None:
    told = grown.booster.eval_set(parts, grown.rounds)
    losses = {item.partition("-")[0]: float(item.rpartition(":")[2]) for item in told.split()[1:]}
    for part in PARTS:
        grown.curves[part].append(losses[part])
    if losses["validation"] < grown.best:
        grown.best, grown.best_round = losses["validation"], grown.rounds


def _trees(booster: Any) -> bytes:
    return bytes(booster.save_raw("ubj"))


def _state(grown: Grown) -> TrainingState:
    record = {"curves": grown.curves, "best": grown.best, "best_round": grown.best_round}
    return TrainingState({BOOSTER: np.frombuffer(_trees(grown.booster), dtype=np.uint8)}, record)


def _taken_up(path: Path, state: TrainingState, plan: GrowthPlan, parts: list[Any], begun: int) -> Grown:
    import xgboost

    try:
        booster = _booster(plan, parts, state.arrays[BOOSTER].tobytes())
        found = Grown(booster, begun, **state.record)
    except (KeyError, TypeError, xgboost.core.XGBoostError) as error:
        raise CheckpointRefused(path, Refusal.OTHER_NETWORK, str(error)) from error
    found.resumed_from = found.rounds
    return found
