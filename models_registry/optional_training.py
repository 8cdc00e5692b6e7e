"""The training of the optional models: the regime predictor and the dynamic features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry import dynamic_features, regime_predictor
from models_registry.component_folder import fresh, load_component, save_component
from models_registry.dynamic_selection import DynamicConfig
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.manifest import DYNAMIC, REGIME, Component
from models_registry.provenance import of_labels, of_regimes, reads_of
from models_registry.regime_predictor import RegimeConfig, RegimePredictor, in_force
from models_registry.structure_autoencoder import Progress
from models_registry.training_config import TrainingConfig, no_progress, plain, split_of
from models_registry.training_set import TrainingSet


def train_dynamic_features(
    rows: TrainingSet,
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    regime: str | Path | None = None,
) -> Component:
    """Search for dynamic features and store what is kept in `folder`; the component says what was tried.

    They follow the regime of the decision rows or, where the component in the folder `regime` predicts it, the one
    in force.
    """
    folder = fresh(folder)
    settings = replace(config.dynamic or DynamicConfig(), seed=config.seed)
    split = split_of(rows, config)
    component = dynamic_features.train(rows, split, settings, folder, regimes_in_force(rows, config, regime))
    predictor = None if regime is None else load_component(regime)
    record = of_labels(
        rows,
        split,
        config.seed,
        validated=False,
        plan=plain(config.plan),
        costs=plain(config.costs),
        reads={} if predictor is None else reads_of(DYNAMIC, {REGIME: predictor}),
    )
    progress(DYNAMIC, 1.0)
    return save_component(folder, msgspec.structs.replace(component, provenance=record))


def regimes_in_force(rows: TrainingSet, config: TrainingConfig, regime: str | Path | None) -> NDArray[np.int8] | None:
    """The regime in force on each row `[m]`, as the worker takes it; None where that is what the row says.

    Rows of the time that the predictor in the folder `regime` has seen have none of its forecasts, which were fitted
    to what they would foretell: there the row says it.
    """
    component = None if regime is None else load_component(regime)
    if regime is None or component is None or component.served is None:
        return None
    model = RegimePredictor.load(Path(regime) / component.served)
    threshold = (config.regime or RegimeConfig()).threshold
    names = rows.decision_names
    probabilities = model.run(rows.decision, rows.windows, names)
    if component.provenance is not None:
        probabilities[rows.decided_at <= component.provenance.last_known_at] = np.nan
    return in_force(rows.decision, names, probabilities, threshold).state


def train_regime_predictor(
    rows: TrainingSet, config: TrainingConfig, folder: str | Path, progress: Progress = no_progress
) -> Component:
    """Train the regime predictor into `folder`, on the unlabelled rows of an earlier block of time.

    With too few of them, without scikit-learn or without skill the component is its plain version, with that reason:
    it is optional, and nothing else waits for it.
    """
    folder = fresh(folder)
    settings = config.regime or RegimeConfig()
    start = split_of(rows, config).holdout_start_ms
    split = regime_predictor.split_regimes(rows, start, settings, config.embargo_ms)
    try:
        component = regime_predictor.train(rows, split, settings, config.seed, folder)
    except (TrainingUnavailable, NotEnoughData) as error:
        component = regime_predictor.plain_component(str(error))
    record = of_regimes(rows, split, start, config.seed)
    progress(REGIME, 1.0)
    return save_component(folder, msgspec.structs.replace(component, provenance=record))
