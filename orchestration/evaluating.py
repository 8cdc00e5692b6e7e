"""The walk-forward evaluation of the models, kept in the lake fold by fold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from market.lake import Lake
from models_registry.manifest import encode
from models_registry.opportunities import Opportunities
from models_registry.structure_autoencoder import Progress
from models_registry.training_config import TrainingConfig
from models_registry.training_set import TrainingSet
from models_registry.walk_forward import Evaluating, FoldResult, ModelEvaluation, WalkForward, evaluation_key, walk


def path_of(key: str) -> str:
    """Where an evaluation lies in the lake; its folds lie in the folder of that name.

    >>> path_of("0123")
    'evaluations/models-0123.json'
    """
    return f"evaluations/models-{key}.json"


def evaluate_models(
    lake: Lake,
    rows: TrainingSet,
    opportunities: Opportunities | None,
    config: TrainingConfig,
    plan: WalkForward,
    trials: int,
    progress: Progress,
) -> ModelEvaluation:
    """Judge the models on every fold that is not in the lake already, and keep the whole."""
    key = evaluation_key(rows, opportunities, config, plan)
    folder = path_of(key).removesuffix(".json")

    def known(name: str) -> FoldResult | None:
        path = f"{folder}/{name}.json"
        return msgspec.json.decode(lake.get_bytes(path), type=FoldResult) if lake.exists(path) else None

    def keep(name: str, result: FoldResult) -> None:
        lake.put_bytes(f"{folder}/{name}.json", encode(result))

    with tempfile.TemporaryDirectory(prefix="evaluation-") as work:
        running = Evaluating(rows, opportunities, config, plan, Path(work), progress)
        found = walk(running, trials, known, keep)
    lake.put_bytes(path_of(key), encode(found))
    return found
