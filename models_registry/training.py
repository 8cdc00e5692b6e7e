"""The training of each model of a bundle: on what, from whose outputs, and what it records of that.

Each model is trained into a folder of its own (`component_folder`), so that one asset can train it and another assemble
the bundle; it records there what it has seen. All share one cut in time (`training_config`).

The win model and the strategy read the autoencoder's latents on rows of the same time. That leaks nothing of the
outcomes, because the autoencoder sees no labels. The feature network and the liquidity predictor do: the rows that the
win model is fitted to have outputs of networks that were fitted to other blocks of time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.reach import Reach
from models_registry import (
    dqn_policy,
    feature_network,
    liquidity_predictor,
    strategy_dqn,
    structure_autoencoder,
    win_classifier,
)
from models_registry.asking import win_probability
from models_registry.checkpoints import Checkpoint
from models_registry.component_folder import fresh, load_component, save_component
from models_registry.continuing import Beginning, StartingPoint
from models_registry.dynamic_features import DynamicColumns
from models_registry.errors import ComponentsDiffer, NotEnoughData, TrainingUnavailable
from models_registry.feature_network import training_features
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.liquidity_predictor import LiquidityConfig, LiquidityParameters, LiquidityPredictor
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    DYNAMIC,
    FEATURE_NETWORK,
    LIQUIDITY,
    REGIME,
    WIN,
    Component,
)
from models_registry.opportunities import Opportunities
from models_registry.optional_training import regimes_in_force
from models_registry.probe import OUTCOME_LOG_LOSS, outcome_probe
from models_registry.provenance import (
    hunting_of,
    of_labels,
    of_opportunities,
    of_reach,
    of_windows,
    reads_of,
)
from models_registry.reach_out_of_fold import out_of_fold
from models_registry.reach_quantiles import fit_plain
from models_registry.reach_rows import ReachRows, ReachSplit
from models_registry.stages import Embedder, embed
from models_registry.strategy_dqn import DqnConfig
from models_registry.structure_autoencoder import Progress, WindowSplit
from models_registry.training_config import TrainingConfig, no_progress, plain, split_of
from models_registry.training_set import Split, TrainingSet, split_in_time
from models_registry.win_classifier import Upstream, WinRows

OUT_OF_FOLD_FILE = "out_of_fold.npy"
"""In the liquidity predictor's folder, not in bundles: `[fit, 2, Q]` the reaches that the win model is fitted to."""


def train_structure_autoencoder(
    rows: TrainingSet,
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
) -> Component:
    """Train the autoencoder into `folder`, from the champion's at `start` where that is given and allowed.

    It takes the unlabelled windows, or the labelled rows' where those are too few. What its latents know of
    outcomes is measured by a probe. Without TensorFlow the component is its plain version, with that reason;
    raises `NotEnoughData` with too few windows.
    """
    folder = fresh(folder)
    settings = replace(config.autoencoder, seed=config.seed)
    split = split_of(rows, config)
    at = rows.unlabelled_at
    windows, seen = _cut_windows(rows.unlabelled_windows, at, split, config)
    if len(windows.fit) < settings.fewest_windows:
        at = rows.decided_at
        windows, seen = _cut_windows(rows.windows, at, split, config)
    begun = Beginning.of(AUTOENCODER, start, split)
    try:
        component = structure_autoencoder.train(windows, settings, folder, progress, initial=begun.initial)
    except TrainingUnavailable as error:
        component = Component(version="none", served=None, format=None, fallback=str(error))
    latents, _ = embed(Embedder(folder, component), rows.windows)
    probe = outcome_probe(rows, split, latents, config.seed)
    if probe is not None:
        component = msgspec.structs.replace(
            component, metrics={OUTCOME_LOG_LOSS: probe, **component.metrics}, headline=OUTCOME_LOG_LOSS
        )
    record = of_windows(rows, split, at[seen], windows.counts, config.seed)
    return save_component(folder, begun.recorded(component, record, split))


def train_feature_network(
    rows: TrainingSet,
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
) -> Component:
    """Train the feature network into `folder`, from the champion's at `start` where that is given and allowed.

    Without TensorFlow or with too few rows the component is its plain version, with that reason.
    """
    folder = fresh(folder)
    settings = replace(config.feature_network or NetworkConfig(), seed=config.seed)
    split = split_of(rows, config)
    begun = Beginning.of(FEATURE_NETWORK, start, split)
    try:
        component = feature_network.train(
            rows, split, settings, folder, progress, embargo_ms=config.embargo_ms, initial=begun.initial
        )
    except (TrainingUnavailable, NotEnoughData) as error:
        component = feature_network.plain_component(str(error))
    record = of_labels(rows, split, config.seed, paths=True, plan=plain(config.plan), costs=plain(config.costs))
    return save_component(folder, begun.recorded(component, record, split))


def train_liquidity_predictor(
    rows: TrainingSet,
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
) -> Component:
    """Train the liquidity predictor into `folder`, from the champion's at `start` where that is given and allowed.

    It takes every window of which is known how far price went afterwards, labelled or not. Beside it are kept the
    reaches of the fitted rows by networks that have not seen them (`training_reach`). Without TensorFlow or with too
    few windows the component is its plain version, with that reason.
    """
    folder = fresh(folder)
    settings = replace(config.liquidity or LiquidityConfig(), seed=config.seed)
    split = split_of(rows, config)
    cut = ReachSplit.cut(ReachRows.of(rows), split.validation_start_ms, split.holdout_start_ms, config.embargo_ms)
    begun = Beginning.of(LIQUIDITY, start, split)
    try:
        component = liquidity_predictor.train(cut, settings, folder, progress, initial=begun.initial)
        if component.served is not None:
            _keep_unseen_reach(rows, split, cut, component, settings, config, folder, progress)
    except (TrainingUnavailable, NotEnoughData) as error:
        fitted = fit_plain(cut.fit.reach, cut.fit.profile, settings.quantiles) if len(cut.fit) else None
        component = liquidity_predictor.plain_component(str(error), fitted)
    record = of_reach(rows, cut, split.holdout_start_ms, config.seed)
    return save_component(folder, begun.recorded(component, record, split))


def _keep_unseen_reach(
    rows: TrainingSet,
    split: Split,
    cut: ReachSplit,
    component: Component,
    settings: LiquidityConfig,
    config: TrainingConfig,
    folder: Path,
    progress: Progress,
) -> None:
    curves = json.loads((folder / liquidity_predictor.CURVES_FILE).read_bytes())
    found = out_of_fold(
        rows.select(split.fit),
        cut.fit,
        settings,
        msgspec.convert(component.parameters, LiquidityParameters),
        folder,
        folds=settings.folds,
        epochs=int(np.argmin(curves["validation"])) + 1,
        embargo_ms=config.embargo_ms,
        on_fold=lambda done: progress(f"{LIQUIDITY}: reaches of rows not seen", done / settings.folds),
    )
    np.save(folder / OUT_OF_FOLD_FILE, found)
    Checkpoint(folder, "").discard()


def training_reach(folder: Path, component: Component, rows: TrainingSet, split: Split) -> Reach:
    """Reaches of labelled rows for a model that is trained on them with the same `split`.

    The fitted rows have those of networks that have not seen what followed them, all others those of the served file.
    The plain version, some dozens of quantiles of all fitted rows, is the same for all.
    """
    model = LiquidityPredictor(folder, component, rows.decision_names)
    parts = [
        model.run(rows.windows[start : start + 4096], rows.decision[start : start + 4096])
        for start in range(0, len(rows), 4096)
    ]
    below, above = (np.concatenate([getattr(part, side) for part in parts]) for side in ("below", "above"))
    if component.served is not None:
        unseen = np.load(folder / OUT_OF_FOLD_FILE, allow_pickle=False)
        below[split.fit], above[split.fit] = unseen[:, 0], unseen[:, 1]
    return Reach(model.quantiles, below, above)


def train_win_classifier(
    rows: TrainingSet,
    below: Mapping[str, str | Path],
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
) -> Component:
    """Train the win model into `folder` on the outputs of the models in the folders `below`, by name.

    The autoencoder must be among them, the feature network, the liquidity predictor and the dynamic features may be.
    Outputs come from the files that are served, through the live runtime, so that the trees never meet other numbers
    than those they were grown on; those of supervised networks on fitted rows come from networks that have not seen
    them. New trees are added to the champion's at `start` where that is given and allowed. Dynamic features follow the
    regimes that they were searched with (the regime predictor `below`). Without xgboost the component is its plain
    version, with that reason; raises `NotEnoughData` with too few rows in any part, and `ComponentsDiffer` for
    supervised networks that were trained on another set: what they say of rows not seen is of its rows.
    """
    folder = fresh(folder)
    split = split_of(rows, config)
    settings = replace(config.win, seed=config.seed)
    loaded = {name: load_component(place) for name, place in below.items()}
    places = {name: Path(place) for name, place in below.items()}
    for name in (FEATURE_NETWORK, LIQUIDITY):
        if name in loaded:
            _check_unseen(name, loaded[name], rows, split)
    data = WinRows.build(rows, split, _upstream(rows, split, places, loaded, config), settings)
    begun = Beginning.of(WIN, start, split, loaded)
    try:
        component = win_classifier.train(data, settings, folder, progress, initial=begun.initial)
    except TrainingUnavailable as unavailable:
        component = win_classifier.plain_component(rows, split, str(unavailable))
    record = of_labels(
        rows,
        split,
        config.seed,
        plan=plain(config.plan),
        costs=plain(config.costs),
        reads=reads_of(WIN, loaded),
        hunting=hunting_of(rows, split, config.hunting),
    )
    return save_component(folder, begun.recorded(component, record, split))


def _check_unseen(name: str, component: Component, rows: TrainingSet, split: Split) -> None:
    """`ComponentsDiffer` when the outputs of rows not seen that a network left are not of these fitted rows."""
    record = component.provenance
    if component.served is None or record is None:
        return
    cut = record.data_hash, record.holdout_start_ms, record.validation_start_ms
    if cut != (rows.data_hash, split.holdout_start_ms, split.validation_start_ms):
        raise ComponentsDiffer(name, f"{name} was trained on another training set, or one that was cut otherwise")


def _upstream(
    rows: TrainingSet,
    split: Split,
    places: Mapping[str, Path],
    loaded: Mapping[str, Component],
    config: TrainingConfig,
) -> Upstream:
    """What the models below the win model say of its rows."""
    latents, error = embed(Embedder(places[AUTOENCODER], loaded[AUTOENCODER]), rows.windows)
    features = reach = dynamic = None
    if FEATURE_NETWORK in loaded:
        features = training_features(places[FEATURE_NETWORK], loaded[FEATURE_NETWORK], rows, split)
    if LIQUIDITY in loaded:
        reach = training_reach(places[LIQUIDITY], loaded[LIQUIDITY], rows, split)
    if DYNAMIC in loaded and loaded[DYNAMIC].served is not None:
        found = DynamicColumns(places[DYNAMIC], str(loaded[DYNAMIC].served), rows.decision_names)
        dynamic = found.columns, found.run(rows.decision, regimes_in_force(rows, config, places.get(REGIME)))
    return Upstream(latents, error, features, reach, dynamic)


def train_strategy_dqn(
    rows: TrainingSet,
    opportunities: Opportunities,
    below: Mapping[str, str | Path],
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
) -> Component:
    """Train the strategy into `folder` on `opportunities`, cut in time as the labelled `rows` are.

    Of the models in the folders `below` it reads the autoencoder's latents. With the win model there too it is compared
    with taking what that one holds for likely, on the opportunities that neither has seen. At `start` is the
    champion's, with its replay buffer, to continue from where that is allowed. Without TensorFlow or with too few
    opportunities the component is its plain version, with that reason.
    """
    folder = fresh(folder)
    settings = config.dqn or DqnConfig()
    settings = replace(settings, learner=replace(settings.learner, seed=config.seed), threshold=config.win.threshold)
    found = opportunities.episodes
    split = split_in_time(
        found.decided_at,
        found.known_at,
        holdout_start_ms=split_of(rows, config).holdout_start_ms,
        validation_fraction=config.validation_fraction,
        embargo_ms=config.embargo_ms,
    )
    loaded = {name: load_component(place) for name, place in below.items()}
    latents, _ = embed(Embedder(Path(below[AUTOENCODER]), loaded[AUTOENCODER]), opportunities.windows)
    begun = Beginning.of(DQN, start, split, loaded)
    try:
        component = strategy_dqn.train(
            opportunities.experience(latents),
            split,
            settings,
            folder,
            progress,
            initial=begun.initial,
            probability=win_probability(opportunities, split.holdout, below) if WIN in loaded else None,
        )
    except (TrainingUnavailable, NotEnoughData) as error:
        component = dqn_policy.plain_component(str(error))
    record = of_opportunities(
        opportunities,
        split,
        config.seed,
        plan=plain(config.plan),
        costs=plain(config.costs),
        reads=reads_of(DQN, loaded),
    )
    return save_component(folder, begun.recorded(component, record, split))


def _cut_windows(
    windows: NDArray[np.float32], at: NDArray[np.int64], split: Split, config: TrainingConfig
) -> tuple[WindowSplit, NDArray[np.bool_]]:
    """The windows that ended at the times `at`, cut; and which of them are not held out."""
    early = at < split.validation_start_ms - config.embargo_ms
    middle = (at >= split.validation_start_ms) & (at < split.holdout_start_ms - config.embargo_ms)
    late = at >= split.holdout_start_ms
    return WindowSplit(windows[early], windows[middle], windows[late], at[late]), early | middle
