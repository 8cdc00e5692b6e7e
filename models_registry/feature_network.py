"""`feature_network`: a decision row to 32 features that tell what comes of it, pooled over symbols.

An embedding with supervised heads: whether the price will have risen at the horizon, how far it will have gone, and
whether a long or a short will win. The served file gives the features; the heads are linear and judge them. Models
that are trained on the features must take, for the rows that the network was fitted to, those of networks that have
not seen them (`training_features`). Training, export and measure import TensorFlow when they are called.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.checkpoints import Checkpoint, Fitted, Rows
from models_registry.convert import FORMATS, INT8_IO, convert
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.exports import LATENCY_ROWS, choose, report, sha256_of, with_latencies
from models_registry.feature_network_fitting import (
    Decisions,
    NetworkConfig,
    build,
    decisions_of,
    encode_parameters,
    fit_network,
    keras_rows,
    out_of_fold,
    parameters_of,
    prepare,
)
from models_registry.feature_network_judging import downstream_metrics, head_metrics
from models_registry.feature_network_runtime import (
    FEATURES,
    FeatureNetwork,
    NetworkParameters,
    head_values,
    normalise,
)
from models_registry.manifest import FEATURE_NETWORK, Component, FormatReport
from models_registry.principal_components import PrincipalComponents
from models_registry.sessions import TfliteSession, run_integers
from models_registry.structure_autoencoder import Progress
from models_registry.training_set import Split, TrainingSet

Float32 = NDArray[np.float32]

NETWORK_FILE = f"{FEATURE_NETWORK}.keras"
"""The trained network with its heads: what a later training continues from."""
ENCODER_FILE = f"{FEATURE_NETWORK}.encoder.keras"
SAVED_MODEL_FILE = f"{FEATURE_NETWORK}.saved_model.zip"
"""The encoder as a SavedModel, in one file: a bundle holds plain files."""
METADATA_FILE = f"{FEATURE_NETWORK}.json"
CURVES_FILE = f"{FEATURE_NETWORK}.curves.json"
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
        for what, part, need in (
            ("fit", self.fit, config.fewest_fit),
            ("be stopped early", self.validation, config.fewest_validation),
            ("be judged", self.holdout, config.fewest_validation),
        ):
            if len(part) < need:
                raise NotEnoughData(f"{FEATURE_NETWORK} to {what}", len(part), need)


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
    if find_spec("tensorflow") is None:
        raise TrainingUnavailable(FEATURE_NETWORK, "tensorflow")
    work = _prepared(rows, split, config, folder, progress, embargo_ms, initial)
    network, encoder, fitted = _fit(work)
    before = work.before or NetworkParameters(centre=[], scale=[])
    parameters = encode_parameters(
        work.parameters,
        network,
        updates=before.updates + 1,
        analyses=before.analyses + len(work.parts.fit),
        epochs=before.epochs + fitted.best_epoch + 1,
    )
    np.save(folder / OUT_OF_FOLD_FILE, _unseen(work, min(max(parameters.epochs, 1), config.epochs)))
    work.tell("converting", 0.7)
    formats = _export(network, encoder, work, parameters)
    component = _component(formats, parameters, rows, fitted.curves, config, folder)
    work.tell("judging", 0.9)
    if component.served is not None:
        component = _judged(component, work)
    Checkpoint(folder, "").discard()
    progress(FEATURE_NETWORK, 1.0)
    return component


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
    if initial is None or not (initial / NETWORK_FILE).exists() or not (initial / METADATA_FILE).exists():
        return None
    stored = json.loads((initial / METADATA_FILE).read_bytes())
    if stored["decision_spec"] != rows.decision_spec_id or stored["inputs"] != list(rows.decision_names):
        return None
    return msgspec.convert(stored["parameters"], NetworkParameters)


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


def _fit(work: _Work) -> tuple[Any, Any, Fitted]:
    """The network, its encoder and how fitting them went."""
    prepare(work.config.seed)
    network, encoder = build(work.inputs.shape[1], work.config, work.components)
    weights = ""
    if work.initial is not None:
        import keras

        champion = keras.models.load_model(work.initial / NETWORK_FILE, compile=False)
        network.set_weights(champion.get_weights())
        weights = sha256_of(work.initial / NETWORK_FILE)

    def part(index: NDArray[np.int64], next_part_ms: int) -> Rows:
        return keras_rows(work.inputs, work.parts.decisions, index, next_part_ms - work.embargo_ms, work.parameters)

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
    return network, encoder, fitted


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


def _export(network: Any, encoder: Any, work: _Work, parameters: NetworkParameters) -> dict[str, FormatReport]:
    """Every format of the encoder, measured against Keras on held-out decisions."""
    inputs, parts, config, folder = work.inputs, work.parts, work.config, work.folder
    network.save(folder / NETWORK_FILE)
    encoder.save(folder / ENCODER_FILE)
    _save_model(encoder, folder / SAVED_MODEL_FILE)
    fit = parts.fit[np.unique(np.linspace(0, len(parts.fit) - 1, 512).astype(np.int64))]
    kinds = (*FORMATS, INT8_IO)
    converted = convert(folder / ENCODER_FILE, inputs[fit], folder, kinds, time_limit_s=config.time_limit_s)
    held = inputs[parts.holdout]
    expected = np.asarray(encoder(held, training=False))
    spread = np.asarray(encoder(inputs[fit], training=False)).std(axis=0) + 1e-6
    batch = np.resize(held, (LATENCY_ROWS, held.shape[1]))
    base = {head: _rate(parts.decisions, parts.fit, head) for head in ("long", "short")}
    told = {head: head_values(expected, parameters, head) for head in base}
    sessions: dict[str, TfliteSession] = {}
    formats = {}
    for name, result in converted.items():
        if result.path is None:
            formats[name] = FormatReport(passed=False, failed=result.failed)
            continue
        path = result.path.rename(folder / f"{FEATURE_NETWORK}.{name.removeprefix('tflite_')}.tflite")
        if name == INT8_IO:
            found = run_integers(path, held)[0]
        else:
            sessions[name] = TfliteSession(path)
            found = sessions[name].run(held)[0]
        difference = np.abs(found - expected) / spread
        mine = {head: head_values(found, parameters, head) for head in base}
        changed = np.concatenate([np.abs(mine[head] - told[head]) for head in base])
        agreed = np.mean([((mine[head] >= base[head]) == (told[head] >= base[head])).mean() for head in base])
        errors = {
            "max_error": float(np.abs(found - expected).max()),
            "features_p99": float(np.quantile(difference, 0.99)),
            "outcome_p99": float(np.quantile(changed, 0.99)),
            "disagreement": float(1 - agreed),
        }
        limits = {
            "features_p99": config.features_tolerance,
            "outcome_p99": config.outcome_tolerance,
            "disagreement": config.disagreement,
        }
        formats[name] = msgspec.structs.replace(report(path, errors, limits), agreement=float(agreed))
    return with_latencies(formats, {name: partial(session.run, batch) for name, session in sessions.items()})


def _rate(decisions: Decisions, index: NDArray[np.int64], head: str) -> float:
    """How often the outcome came, among the decisions `index` that were such a candidate."""
    weights = decisions.weights[head][index]
    return float(np.average(decisions.targets[head][index], weights=weights)) if weights.sum() else 0.5


def _save_model(encoder: Any, path: Path) -> None:
    with TemporaryDirectory() as scratch:
        encoder.export(scratch, verbose=False)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(scratch).rglob("*")):
                if file.is_file():
                    # Without the time of writing.
                    archive.writestr(zipfile.ZipInfo(str(file.relative_to(scratch))), file.read_bytes())


def _component(
    formats: dict[str, FormatReport],
    parameters: NetworkParameters,
    rows: TrainingSet,
    curves: dict[str, list[float]],
    config: NetworkConfig,
    folder: Path,
) -> Component:
    plain = msgspec.to_builtins(parameters)
    metadata = {
        "decision_spec": rows.decision_spec_id,
        "inputs": list(rows.decision_names),
        "outputs": [f"feature_{index:02d}" for index in range(FEATURES)],
        "parameters": plain,
    }
    (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=1, sort_keys=True) + "\n")
    (folder / CURVES_FILE).write_text(json.dumps(curves, indent=1, sort_keys=True) + "\n")
    served, why = choose(formats, config.quantise)
    files = {found.file: found.sha256 for found in formats.values() if found.file and found.sha256}
    for file in (NETWORK_FILE, ENCODER_FILE, SAVED_MODEL_FILE, METADATA_FILE, CURVES_FILE):
        files[file] = sha256_of(folder / file)
    if served is None:
        return Component(version="none", served=None, format=None, formats=formats, files=files, fallback=why)
    # The normalisation belongs to what the file gives.
    content = str(formats[served].sha256) + json.dumps([parameters.centre, parameters.scale, parameters.flags])
    return Component(
        version=hashlib.sha256(content.encode()).hexdigest()[:12],
        served=formats[served].file,
        format=served,
        formats=formats,
        files=files,
        parameters=plain,
        note=why,
    )


def _judged(component: Component, work: _Work) -> Component:
    """The component with what the served file is worth on held-out rows."""
    rows, decisions = work.rows, work.parts.decisions
    features = training_features(work.folder, component, rows, work.split)
    parameters = msgspec.convert(component.parameters, NetworkParameters)
    metrics = downstream_metrics(rows, work.split, features, work.config.seed)
    metrics |= head_metrics(features[decisions.first], decisions, work.parts.holdout, parameters, work.config.seed)
    return msgspec.structs.replace(component, metrics=metrics, headline="outcome_log_loss")
