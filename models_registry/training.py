"""From a training set to a bundle: the order of the models, their splits, and what the manifest records.

Each model is trained into a folder of its own with a `component.json`, so that one asset can train it and another
assemble the bundle; it records there what it has seen. Both models share one cut in time:

    fit | embargo | validation (stops early, calibrates) | embargo | holdout (judges only)

The win model reads the autoencoder's latents on rows of the same time. That leaks nothing of the outcomes, because
the autoencoder sees no labels; and neither sees anything of the holdout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry import bundle, dynamic_features, regime_predictor, structure_autoencoder, win_classifier
from models_registry.dynamic_features import DynamicColumns
from models_registry.dynamic_selection import DynamicConfig
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.manifest import (
    AUTOENCODER,
    DYNAMIC,
    REGIME,
    WIN,
    Component,
    Manifest,
    SpecPin,
    encode,
)
from models_registry.probe import OUTCOME_LOG_LOSS, outcome_probe
from models_registry.provenance import (
    dynamic_identity,
    hunting_of,
    identity,
    merged,
    of_labels,
    of_regimes,
    of_windows,
    together,
)
from models_registry.regime_predictor import RegimeConfig, RegimePredictor, in_force
from models_registry.runtime import Embedder
from models_registry.structure_autoencoder import AutoencoderConfig, Progress, WindowSplit
from models_registry.training_set import Split, TrainingSet, split_in_time
from models_registry.win_classifier import WinConfig, WinRows

COMPONENT_FILE = "component.json"
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training gives, besides the data."""

    seed: int = 7
    """Of every model; their own seeds are replaced by it."""
    holdout_start_ms: int | None = None
    """The holdout begins at this decision time; None leaves out the last `holdout_fraction` of the rows."""
    holdout_fraction: float = 0.2
    validation_fraction: float = 0.2
    """Of the rows before the holdout."""
    embargo_ms: int = 4 * HOUR_MS
    """Between the parts: as long as a label may last, and longer than a window looks back."""
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    win: WinConfig = field(default_factory=WinConfig)
    regime: RegimeConfig | None = None
    """None trains no regime predictor, and the bundle has none."""
    dynamic: DynamicConfig | None = None
    """None searches for no dynamic features, and the bundle has none."""
    plan: Mapping[str, float] = field(default_factory=dict)
    """The trade plan that the labels follow, recorded in the manifest; so are `costs`."""
    costs: Mapping[str, float] = field(default_factory=dict)
    hunting: Mapping[str, float] = field(default_factory=dict)
    """`terms.hunting_terms` of the settings by which candidates hunt liquidity; empty when none does."""
    parent: str | None = None
    """The bundle in use when this one was trained."""
    code_version: str = "unknown"
    bundle_version: str | None = None
    """None names the bundle by its components' versions; the registry gives it its number."""
    created_ms: int | None = None
    """None takes the last decision's time, so that equal data gives an equal manifest."""


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle on disk."""

    folder: Path
    manifest: Manifest


def no_progress(stage: str, fraction: float) -> None:
    """Says nothing."""


def split_of(rows: TrainingSet, config: TrainingConfig) -> Split:
    """The cut in time that every model of this training uses; `NotEnoughData` for an empty set."""
    if not len(rows):
        raise NotEnoughData("a training", 0, 1)
    start = config.holdout_start_ms
    if start is None:
        start = int(rows.decided_at[min(int(len(rows) * (1 - config.holdout_fraction)), len(rows) - 1)])
    return split_in_time(
        rows.decided_at,
        rows.known_at,
        holdout_start_ms=start,
        validation_fraction=config.validation_fraction,
        embargo_ms=config.embargo_ms,
    )


def train_structure_autoencoder(
    rows: TrainingSet, config: TrainingConfig, folder: str | Path, progress: Progress = no_progress
) -> Component:
    """Train the autoencoder into `folder`.

    It takes the unlabelled windows, or the labelled rows' where those are too few. What its latents know of
    outcomes is measured by a probe. Without TensorFlow the component is its plain version, with that reason;
    raises `NotEnoughData` with too few windows.
    """
    folder = _fresh(folder)
    settings = replace(config.autoencoder, seed=config.seed)
    split = split_of(rows, config)
    at = rows.unlabelled_at
    windows, seen = _cut_windows(rows.unlabelled_windows, at, split, config)
    if len(windows.fit) < settings.fewest_windows:
        at = rows.decided_at
        windows, seen = _cut_windows(rows.windows, at, split, config)
    try:
        component = structure_autoencoder.train(windows, settings, folder, progress)
    except TrainingUnavailable as error:
        component = Component(version="none", served=None, format=None, fallback=str(error))
    latents, _ = _embed(Embedder(folder, component), rows.windows)
    probe = outcome_probe(rows, split, latents, config.seed)
    if probe is not None:
        component = msgspec.structs.replace(
            component, metrics={OUTCOME_LOG_LOSS: probe, **component.metrics}, headline=OUTCOME_LOG_LOSS
        )
    record = of_windows(rows, split, at[seen], windows.counts, config.seed)
    return _save(folder, msgspec.structs.replace(component, provenance=record))


def train_win_classifier(
    rows: TrainingSet,
    autoencoder: str | Path,
    config: TrainingConfig,
    folder: str | Path,
    progress: Progress = no_progress,
    *,
    dynamic: str | Path | None = None,
    regime: str | Path | None = None,
) -> Component:
    """Train the win model into `folder` on the latents of the component in the folder `autoencoder`.

    The latents come from the file that is served, through the live runtime, so that the trees never meet other
    numbers than those they were grown on. So do dynamic features, which are given when the component in the folder
    `dynamic` has kept any, on the regimes that it was searched with (`regime` as there). Without xgboost the
    component is its plain version, with that reason; raises `NotEnoughData` with too few rows in any part.
    """
    folder = _fresh(folder)
    split = split_of(rows, config)
    settings = replace(config.win, seed=config.seed)
    first = load_component(autoencoder)
    latents, error = _embed(Embedder(Path(autoencoder), first), rows.windows)
    chosen = None if dynamic is None else load_component(dynamic)
    extra = None
    if dynamic is not None and chosen is not None and chosen.served is not None:
        found = DynamicColumns(Path(dynamic), chosen.served, rows.decision_names)
        extra = found.columns, found.run(rows.decision, regimes_in_force(rows, config, regime))
    data = WinRows.build(rows, split, latents, error, settings, extra)
    try:
        component = win_classifier.train(data, settings, folder, progress)
    except TrainingUnavailable as unavailable:
        component = win_classifier.plain_component(rows, split, str(unavailable))
    record = of_labels(
        rows,
        split,
        config.seed,
        plan=_plain(config.plan),
        costs=_plain(config.costs),
        reads=identity(first),
        reads_dynamic=dynamic_identity(chosen),
        hunting=hunting_of(rows, split, config.hunting),
    )
    return _save(folder, msgspec.structs.replace(component, provenance=record))


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
    folder = _fresh(folder)
    settings = replace(config.dynamic or DynamicConfig(), seed=config.seed)
    split = split_of(rows, config)
    component = dynamic_features.train(rows, split, settings, folder, regimes_in_force(rows, config, regime))
    predictor = None if regime is None else load_component(regime)
    record = of_labels(
        rows,
        split,
        config.seed,
        validated=False,
        plan=_plain(config.plan),
        costs=_plain(config.costs),
        reads=identity(predictor),
    )
    progress(DYNAMIC, 1.0)
    return _save(folder, msgspec.structs.replace(component, provenance=record))


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
    folder = _fresh(folder)
    settings = config.regime or RegimeConfig()
    start = split_of(rows, config).holdout_start_ms
    split = regime_predictor.split_regimes(rows, start, settings, config.embargo_ms)
    try:
        component = regime_predictor.train(rows, split, settings, config.seed, folder)
    except (TrainingUnavailable, NotEnoughData) as error:
        component = regime_predictor.plain_component(str(error))
    record = of_regimes(rows, split, start, config.seed)
    progress(REGIME, 1.0)
    return _save(folder, msgspec.structs.replace(component, provenance=record))


def assemble(
    rows: TrainingSet, config: TrainingConfig, components: Mapping[str, str | Path], out_folder: str | Path
) -> TrainedBundle:
    """Join trained components (name to folder) into a bundle at `out_folder`, which must not exist.

    What the manifest says of the training is what the components recorded; `rows` may be a later training set of the
    same DecisionSpec, and gives the golden inputs only. Raises `ComponentsDiffer` when the components do not belong
    together; it names the one to train again.
    """
    loaded = {name: load_component(folder) for name, folder in components.items()}
    records = together(loaded, rows.decision_spec_id)
    training, labelled = merged(records), records.get(WIN)
    files = {file: Path(components[name]) / file for name, part in loaded.items() for file in part.files}
    manifest = Manifest(
        bundle_version=config.bundle_version or _content_name(loaded, training.data_hash),
        created_ms=int(rows.decided_at[-1]) if config.created_ms is None else config.created_ms,
        parent=config.parent,
        code_version=config.code_version,
        decision_spec=SpecPin(id=rows.decision_spec_id, names=list(rows.decision_names)),
        plan=_plain(config.plan) if labelled is None else labelled.plan,
        costs=_plain(config.costs) if labelled is None else labelled.costs,
        hunting={} if labelled is None else labelled.hunting,
        training=training,
        components=loaded,
        golden=None,
        metrics={
            f"{name}.{part.headline}": part.metrics[part.headline] for name, part in loaded.items() if part.headline
        },
    )
    return TrainedBundle(Path(out_folder), bundle.write(out_folder, manifest, files, golden_inputs(rows)))


def train_bundle(
    rows: TrainingSet, config: TrainingConfig, out_folder: str | Path, progress: Progress = no_progress
) -> TrainedBundle:
    """Train the models and assemble them at `out_folder`; their own folders lie in `out_folder`.models."""
    work = Path(out_folder).with_name(f"{Path(out_folder).name}.models")
    folders = {name: work / name for name in (AUTOENCODER, WIN)}
    if config.regime is not None:
        folders[REGIME] = work / REGIME
        train_regime_predictor(rows, config, folders[REGIME], progress)
    regime = folders.get(REGIME)
    if config.dynamic is not None:
        folders[DYNAMIC] = work / DYNAMIC
        train_dynamic_features(rows, config, folders[DYNAMIC], progress, regime=regime)
    train_structure_autoencoder(rows, config, folders[AUTOENCODER], progress)
    train_win_classifier(
        rows,
        folders[AUTOENCODER],
        config,
        folders[WIN],
        progress,
        dynamic=folders.get(DYNAMIC),
        regime=regime,
    )
    trained = assemble(rows, config, folders, out_folder)
    progress("bundle", 1.0)
    return trained


def golden_inputs(rows: TrainingSet, count: int = bundle.GOLDEN_ROWS) -> dict[str, NDArray[Any]]:
    """Inputs for the golden outputs: rows evenly spaced over the set, every one a candidate on itself."""
    chosen = rows.select(np.unique(np.linspace(0, len(rows) - 1, count).astype(np.int64)))
    return {
        "decision": chosen.decision,
        "windows": chosen.windows,
        "index": np.arange(len(chosen), dtype=np.int64),
        "direction": chosen.direction,
        "kind": chosen.kind,
        "quality": chosen.quality,
    }


def load_component(folder: str | Path) -> Component:
    """The component that a training wrote into `folder`."""
    return msgspec.json.decode((Path(folder) / COMPONENT_FILE).read_bytes(), type=Component)


def _cut_windows(
    windows: NDArray[np.float32], at: NDArray[np.int64], split: Split, config: TrainingConfig
) -> tuple[WindowSplit, NDArray[np.bool_]]:
    """The windows that ended at the times `at`, cut; and which of them are not held out."""
    early = at < split.validation_start_ms - config.embargo_ms
    middle = (at >= split.validation_start_ms) & (at < split.holdout_start_ms - config.embargo_ms)
    late = at >= split.holdout_start_ms
    return WindowSplit(windows[early], windows[middle], windows[late], at[late]), early | middle


def _embed(embedder: Embedder, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    parts = [embedder.run(windows[start : start + 8192]) for start in range(0, len(windows), 8192)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _plain(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items()}


def _content_name(components: Mapping[str, Component], data_hash: str) -> str:
    content = repr((sorted((name, part.version) for name, part in components.items()), data_hash))
    return f"unregistered-{hashlib.sha256(content.encode()).hexdigest()[:10]}"


def _fresh(folder: str | Path) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Its presence says that the component is whole; an interrupted training leaves none.
    (folder / COMPONENT_FILE).unlink(missing_ok=True)
    return folder


def _save(folder: Path, component: Component) -> Component:
    partial = folder / f".{COMPONENT_FILE}.partial"
    partial.write_bytes(encode(component))
    partial.replace(folder / COMPONENT_FILE)
    return component
