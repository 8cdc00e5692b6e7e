"""From trained components to a bundle on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry import bundle
from models_registry.component_folder import COMPONENT_FILE, load_component
from models_registry.continuing import StartingPoint
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    DYNAMIC,
    FEATURE_NETWORK,
    LIQUIDITY,
    REGIME,
    WIN,
    Component,
    Manifest,
    SpecPin,
)
from models_registry.opportunities import Opportunities
from models_registry.optional_training import train_dynamic_features, train_regime_predictor
from models_registry.provenance import merged, together
from models_registry.quantised_decisions import decision_change
from models_registry.structure_autoencoder import Progress
from models_registry.training import (
    train_feature_network,
    train_liquidity_predictor,
    train_strategy_dqn,
    train_structure_autoencoder,
    train_win_classifier,
)
from models_registry.training_config import TrainingConfig, models_of, no_progress, plain
from models_registry.training_set import TrainingSet


@dataclass(frozen=True)
class TrainedBundle:
    """A bundle on disk."""

    folder: Path
    manifest: Manifest


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
        plan=plain(config.plan) if labelled is None else labelled.plan,
        costs=plain(config.costs) if labelled is None else labelled.costs,
        hunting={} if labelled is None else labelled.hunting,
        training=training,
        components=loaded,
        golden=None,
        config=config.as_json(),
        metrics={
            f"{name}.{part.headline}": part.metrics[part.headline] for name, part in loaded.items() if part.headline
        },
    )
    manifest = bundle.write(out_folder, manifest, files, golden_inputs(rows))
    manifest = msgspec.structs.replace(manifest, quantised=decision_change(out_folder, manifest, rows))
    bundle.rewrite_manifest(out_folder, manifest)
    return TrainedBundle(Path(out_folder), manifest)


def train_bundle(
    rows: TrainingSet,
    config: TrainingConfig,
    out_folder: str | Path,
    progress: Progress = no_progress,
    *,
    opportunities: Opportunities | None = None,
) -> TrainedBundle:
    """Train the models and assemble them at `out_folder`; their own folders lie in `out_folder`.models.

    What `config` has no settings for is not trained; the strategy needs `opportunities` besides.
    """
    folders = train_models(rows, config, models_folder(out_folder), progress, opportunities=opportunities)
    trained = assemble(rows, config, folders, out_folder)
    progress("bundle", 1.0)
    return trained


def models_folder(out_folder: str | Path) -> Path:
    """Where `train_bundle` keeps the components' own folders."""
    return Path(out_folder).with_name(f"{Path(out_folder).name}.models")


def train_models(
    rows: TrainingSet,
    config: TrainingConfig,
    work: Path,
    progress: Progress = no_progress,
    *,
    opportunities: Opportunities | None = None,
    starts: Mapping[str, StartingPoint] | None = None,
    resume: bool = False,
    on_trained: Callable[[str], None] = lambda name: None,
) -> dict[str, Path]:
    """Train every model that `config` has settings for into its folder in `work`; the folders by name.

    The strategy needs `opportunities` besides. Those that `starts` names continue from there, where that is allowed. To
    `resume` is to leave a model that is whole in its folder as it is: only for a `work` folder that belongs to these
    rows and this `config` alone. `on_trained` is told each model's name when it is done.
    """
    folders: dict[str, Path] = {}
    for name in models_of(config):
        if name == DQN and opportunities is None:
            continue
        if not (resume and (work / name / COMPONENT_FILE).exists()):
            start = (starts or {}).get(name)
            train_model(name, rows, folders, config, work / name, progress, start=start, opportunities=opportunities)
            on_trained(name)
        folders[name] = work / name
    return folders


def train_model(
    name: str,
    rows: TrainingSet,
    below: Mapping[str, Path],
    config: TrainingConfig,
    folder: Path,
    progress: Progress = no_progress,
    *,
    start: StartingPoint | None = None,
    opportunities: Opportunities | None = None,
) -> Component:
    """Train the model `name` into `folder`, on the outputs of those in the folders `below` that it reads.

    The strategy is trained on `opportunities`; raises `ValueError` without. What searches anew every time takes no
    `start`.
    """
    if name == REGIME:
        return train_regime_predictor(rows, config, folder, progress)
    if name == DYNAMIC:
        return train_dynamic_features(rows, config, folder, progress, regime=below.get(REGIME))
    if name == WIN:
        return train_win_classifier(rows, below, config, folder, progress, start=start)
    if name == DQN:
        if opportunities is None:
            raise ValueError(f"{DQN} is trained on opportunities, and there are none")
        return train_strategy_dqn(rows, opportunities, below, config, folder, progress, start=start)
    train = {
        AUTOENCODER: train_structure_autoencoder,
        FEATURE_NETWORK: train_feature_network,
        LIQUIDITY: train_liquidity_predictor,
    }[name]
    return train(rows, config, folder, progress, start=start)


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


def _content_name(components: Mapping[str, Component], data_hash: str) -> str:
    content = repr((sorted((name, part.version) for name, part in components.items()), data_hash))
    return f"unregistered-{hashlib.sha256(content.encode()).hexdigest()[:10]}"
