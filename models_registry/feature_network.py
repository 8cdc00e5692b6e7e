"""`feature_network`: a decision row to 32 features that tell what comes of it, pooled over symbols.

An embedding with supervised heads: whether the price will have risen at the horizon, how far it will have gone, and
whether a long or a short will win. The served file gives the features; the heads are linear and judge them. Models
that are trained on the features must take, for the rows that the network was fitted to, those of networks that have
not seen them (`training_features`). Training, export and measure import TensorFlow when they are called.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.checkpoints import Checkpoint, Fitted, Rows
from models_registry.errors import check_parts
from models_registry.exports import sha256_of
from models_registry.feature_network_fitting import (
    Decisions,
    NetworkConfig,
    build,
    compile_network,
    decisions_of,
    encode_parameters,
    fit_network,
    keras_rows,
    out_of_fold,
    parameters_of,
)
from models_registry.feature_network_judging import OUTCOMES, downstream_metrics, head_metrics, head_reliability
from models_registry.feature_network_runtime import (
    FEATURES,
    FeatureNetwork,
    NetworkParameters,
    head_values,
    normalise,
)
from models_registry.keras_setup import prepare, require
from models_registry.manifest import FEATURE_NETWORK, Component, Metric
from models_registry.network_export import (
    NetworkExport,
    NetworkFiles,
    champion,
    origin,
    representative,
    take_weights,
)
from models_registry.principal_components import PrincipalComponents
from models_registry.structure_autoencoder import Progress
from models_registry.training_set import Split, TrainingSet

Float32 = NDArray[np.float32]

FILES = NetworkFiles(FEATURE_NETWORK)
OUT_OF_FOLD_FILE = "out_of_fold.npy"
"""In the component's folder, not in bundles: `[fit, 32]` the features that the win model is fitted to."""


@dataclass(frozen=True)
class _Parts:
    """Decisions by part of time."""

    decisions: Decisions
    fit: NDArray[np.int64]
    validation: NDArray[np.int64]
    holdout: NDArray[np.int64]

    @classmethod
    def of(cls, rows: TrainingSet, split: Split) -> _Parts:
        decisions = decisions_of(rows)
        parts = (np.unique(decisions.of_row[part]) for part in (split.fit, split.validation, split.holdout))
        return cls(decisions, *parts)

    def check(self, config: NetworkConfig) -> None:
        """Raises `NotEnoughData` when a part has too few decisions."""
        check_parts(
            FEATURE_NETWORK,
            fit=(len(self.fit), config.fewest_fit),
            validation=(len(self.validation), config.fewest_validation),
            holdout=(len(self.holdout), config.fewest_validation),
        )


@dataclass(frozen=True)
class _Work:
    """One training."""

    rows: TrainingSet
    split: Split
    parts: _Parts
    config: NetworkConfig
    folder: Path
    progress: Progress
    embargo_ms: int
    initial: Path | None
    """The champion that it continues from."""
    before: NetworkParameters | None
    """The champion's parameters."""
    parameters: NetworkParameters
    inputs: Float32
    """`[n, inputs]` the decisions as the network takes them."""
    components: PrincipalComponents
    """Of the fitted inputs."""

    def tell(self, stage: str, fraction: float) -> None:
        """Progress of a stage of this training."""
        self.progress(f"{FEATURE_NETWORK}: {stage}", fraction)


def train(
    rows: TrainingSet,
    split: Split,
    config: NetworkConfig,
    folder: Path,
    progress: Progress,
    *,
    embargo_ms: int,
    initial: Path | None = None,
) -> Component:
    """Train, export and judge the network; its files are written to `folder`.

    Fitted to the split's fit part, stopped early on its validation part, judged on its holdout. `initial` is the
    folder of a component to continue from: its weights and normalisation are taken over when its columns are these.
    Raises `NotEnoughData`, and `TrainingUnavailable` without TensorFlow; a format that cannot be exported is named in
    the component and raises nothing.
    """
    require(FEATURE_NETWORK)
    work = _prepared(rows, split, config, folder, progress, embargo_ms, initial)
    network, encoder, fitted, work = _fit(work)
    before = work.before or NetworkParameters(centre=[], scale=[])
    parameters = encode_parameters(
        work.parameters,
        network,
        updates=before.updates + 1,
        analyses=before.analyses + len(work.parts.fit),
        epochs=before.epochs + fitted.best_epoch + 1,
        history=fitted.curves,
    )
    np.save(folder / OUT_OF_FOLD_FILE, _unseen(work, min(max(parameters.epochs, 1), config.epochs)))
    work.tell("converting", 0.7)
    export = NetworkExport(FEATURE_NETWORK, folder, config)
    export.keep(network, saved_model=encoder, encoder=encoder)
    served = _formats(export, encoder, work, parameters)
    note = origin(initial, work.before is not None)
    # The normalisation belongs to what the file gives.
    around = [parameters.centre, parameters.scale, parameters.flags]
    metrics: dict[str, Metric] = {}
    if served is not None:
        work.tell("judging", 0.9)
        parameters, metrics = _judged(export.component(parameters, around=around), work, parameters)
    outputs = [f"feature_{index:02d}" for index in range(FEATURES)]
    export.record(parameters, fitted.curves, rows.decision_names, outputs, rows.decision_spec_id)
    Checkpoint(folder, "").discard()
    progress(FEATURE_NETWORK, 1.0)
    return export.component(parameters, metrics=metrics, headline="outcome_log_loss", around=around, note=note)


def plain_component(why: str) -> Component:
    """The component of a network that could not be trained: 32 technical indicators stand in."""
    return Component(version="none", served=None, format=None, fallback=why)


def training_features(folder: Path, component: Component, rows: TrainingSet, split: Split) -> Float32:
    """Features `[m, 32]` of labelled rows for a model that is trained on them with the same `split`.

    The fitted rows have those of networks that have not seen their labels, all others those of the served file. The
    plain version, which sees no label, is the same for all.
    """
    found = np.concatenate(
        [
            FeatureNetwork(folder, component, rows.decision_names).run(rows.decision[start : start + 4096])
            for start in range(0, len(rows), 4096)
        ]
    )
    if component.served is not None:
        found[split.fit] = np.load(folder / OUT_OF_FOLD_FILE, allow_pickle=False)
    return found


def _champion(initial: Path | None, rows: TrainingSet) -> NetworkParameters | None:
    """The parameters of the component to continue from; None when there is none or it takes other columns."""
    stored = champion(initial, FILES)
    if stored is None or (stored.decision_spec, stored.inputs) != (rows.decision_spec_id, list(rows.decision_names)):
        return None
    return msgspec.convert(stored.parameters, NetworkParameters)


def _prepared(
    rows: TrainingSet,
    split: Split,
    config: NetworkConfig,
    folder: Path,
    progress: Progress,
    embargo_ms: int,
    initial: Path | None,
) -> _Work:
    parts = _Parts.of(rows, split)
    parts.check(config)
    folder.mkdir(parents=True, exist_ok=True)
    before = _champion(initial, rows)
    decisions, decision = parts.decisions, rows.decision[parts.decisions.first]
    sizes = decisions.targets["size"][parts.fit][decisions.weights["size"][parts.fit] > 0]
    # The champion's weights belong to its normalisation.
    parameters = before or parameters_of(decision[parts.fit], sizes)
    inputs = normalise(decision, parameters)
    return _Work(
        rows=rows,
        split=split,
        parts=parts,
        config=config,
        folder=folder,
        progress=progress,
        embargo_ms=embargo_ms,
        initial=initial if before else None,
        before=before,
        parameters=parameters,
        inputs=inputs,
        components=PrincipalComponents.fit(inputs[parts.fit], min(FEATURES, inputs.shape[1])),
    )


def _fit(work: _Work) -> tuple[Any, Any, Fitted, _Work]:
    """The network, its encoder, how fitting them went, and the training: of a champion with other layers no word."""
    prepare(work.config.seed)
    network, encoder = build(work.inputs.shape[1], work.config, work.components)
    weights = ""
    if work.initial is not None and take_weights(network, work.initial / FILES.keras):
        weights = sha256_of(work.initial / FILES.keras)
    elif work.initial is not None:
        work = replace(work, initial=None, before=None)

    def part(index: NDArray[np.int64], next_part_ms: int) -> Rows:
        return keras_rows(work.inputs, work.parts.decisions, index, next_part_ms - work.embargo_ms, work.parameters)

    continued = work.initial is not None
    compile_network(network, work.config, work.config.continued_rate if continued else work.config.learning_rate)
    fitted = fit_network(
        network,
        part(work.parts.fit, work.split.validation_start_ms),
        part(work.parts.validation, work.split.holdout_start_ms),
        work.config,
        work.folder,
        weights,
        continued=work.initial is not None,
        on_epoch=lambda done, _: work.tell("fitting", 0.4 * done / work.config.epochs),
    )
    return network, encoder, fitted, work


def _unseen(work: _Work, epochs: int) -> Float32:
    """`[fit, 32]` the fitted rows' features of networks that have not seen them, fitted as long as the served one."""
    stage = "features of rows not seen"
    work.tell(stage, 0.4)
    return out_of_fold(
        work.rows.select(work.split.fit),
        work.config.folds,
        work.config,
        work.folder,
        parameters=work.parameters,
        components=work.components,
        epochs=epochs,
        embargo_ms=work.embargo_ms,
        on_fold=lambda done: work.tell(stage, 0.4 + 0.3 * done / work.config.folds),
    )


def _formats(export: NetworkExport, encoder: Any, work: _Work, parameters: NetworkParameters) -> str | None:
    """Every format of the encoder, measured against Keras on held-out decisions.

    What is decided by the features is the side of the base rate that an outcome head says a candidate is on.
    """
    inputs, parts, config = work.inputs, work.parts, work.config
    calibration, held = inputs[representative(parts.fit)], inputs[parts.holdout]
    expected = np.asarray(encoder(held, training=False))
    spread = np.asarray(encoder(calibration, training=False)).std(axis=0) + 1e-6
    base = {head: _rate(parts.decisions, parts.fit, head) for head in OUTCOMES}
    told = {head: head_values(expected, parameters, head) for head in base}

    def parity(outputs: list[Float32]) -> tuple[dict[str, float], float]:
        found = outputs[0]
        mine = {head: head_values(found, parameters, head) for head in base}
        changed = np.concatenate([np.abs(mine[head] - told[head]) for head in base])
        agreed = np.mean([((mine[head] >= base[head]) == (told[head] >= base[head])).mean() for head in base])
        errors = {
            "max_error": float(np.abs(found - expected).max()),
            "features_p99": float(np.quantile(np.abs(found - expected) / spread, 0.99)),
            "outcome_p99": float(np.quantile(changed, 0.99)),
        }
        return errors, float(agreed)

    limits = {"features_p99": config.features_tolerance, "outcome_p99": config.outcome_tolerance}
    return export.formats(FILES.part("encoder"), calibration, held, parity, limits)


def _rate(decisions: Decisions, index: NDArray[np.int64], head: str) -> float:
    """How often the outcome came, among the decisions `index` that were such a candidate."""
    weights = decisions.weights[head][index]
    return float(np.average(decisions.targets[head][index], weights=weights)) if weights.sum() else 0.5


def _judged(
    component: Component, work: _Work, parameters: NetworkParameters
) -> tuple[NetworkParameters, dict[str, Metric]]:
    """What the served file is worth on held-out rows, and how well its outcome heads are calibrated there."""
    rows, decisions, held = work.rows, work.parts.decisions, work.parts.holdout
    features = training_features(work.folder, component, rows, work.split)
    metrics = downstream_metrics(rows, work.split, features, work.config.seed)
    own = features[decisions.first]
    metrics |= head_metrics(own, decisions, held, parameters, work.config.seed)
    bins = {head: head_reliability(own, decisions, held, parameters, head) for head in OUTCOMES}
    return msgspec.structs.replace(parameters, reliability=bins), metrics
