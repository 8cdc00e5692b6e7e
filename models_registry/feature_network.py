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

from models_registry.checkpoints import Checkpoint
from models_registry.convert import convert
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
from models_registry.sessions import TfliteSession
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
        return cls(decisions, *(np.unique(decisions.of_row[part]) for part in (split.fit, split.validation, split.holdout)))  # fmt: skip  # noqa: E501


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
    parts = _Parts.of(rows, split)
    for what, part, need in (
        ("fit", parts.fit, config.fewest_fit),
        ("be stopped early", parts.validation, config.fewest_validation),
        ("be judged", parts.holdout, config.fewest_validation),
    ):
        if len(part) < need:
            raise NotEnoughData(f"{FEATURE_NETWORK} to {what}", len(part), need)
    folder.mkdir(parents=True, exist_ok=True)
    before = _champion(initial, rows)
    decisions, decision = parts.decisions, rows.decision[parts.decisions.first]
    sizes = decisions.targets["size"][parts.fit][decisions.weights["size"][parts.fit] > 0]
    parameters = before or parameters_of(decision[parts.fit], sizes)
    inputs = normalise(decision, parameters)
    components = PrincipalComponents.fit(inputs[parts.fit], min(FEATURES, inputs.shape[1]))
    network, encoder, fitted = _fit(rows, inputs, parts, split, components, parameters, config, folder, progress,
                                    embargo_ms, initial if before else None)  # fmt: skip
    parameters = encode_parameters(
        parameters,
        network,
        updates=(before.updates if before else 0) + 1,
        analyses=(before.analyses if before else 0) + len(parts.fit),
        epochs=fitted.best_epoch + 1,
    )
    progress(f"{FEATURE_NETWORK}: features of rows not seen", 0.4)
    own = rows.select(split.fit)
    unseen = out_of_fold(
        own,
        config.folds,
        config,
        folder,
        parameters=parameters,
        components=components,
        epochs=max(fitted.best_epoch + 1, 1) if before is None else config.continued_epochs,
        embargo_ms=embargo_ms,
        on_fold=lambda done: progress(f"{FEATURE_NETWORK}: features of rows not seen", 0.4 + 0.3 * done / config.folds),
    )
    np.save(folder / OUT_OF_FOLD_FILE, unseen)
    progress(f"{FEATURE_NETWORK}: converting", 0.7)
    formats = _export(network, encoder, inputs, parts, parameters, config, folder)
    component = _component(formats, parameters, rows, fitted.curves, config, folder)
    progress(f"{FEATURE_NETWORK}: judging", 0.9)
    if component.served is not None:
        component = _judged(component, rows, split, parts, config, folder)
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


def _fit(
    rows: TrainingSet,
    inputs: Float32,
    parts: _Parts,
    split: Split,
    components: PrincipalComponents,
    parameters: NetworkParameters,
    config: NetworkConfig,
    folder: Path,
    progress: Progress,
    embargo_ms: int,
    initial: Path | None,
) -> tuple[Any, Any, Any]:
    prepare(config.seed)
    network, encoder = build(inputs.shape[1], config, components)
    weights = ""
    if initial is not None:
        import keras

        champion = keras.models.load_model(initial / NETWORK_FILE, compile=False)
        network.set_weights(champion.get_weights())
        weights = sha256_of(initial / NETWORK_FILE)
    fitted = fit_network(
        network,
        keras_rows(inputs, parts.decisions, parts.fit, split.validation_start_ms - embargo_ms, parameters),
        keras_rows(inputs, parts.decisions, parts.validation, split.holdout_start_ms - embargo_ms, parameters),
        config,
        folder,
        weights,
        continued=initial is not None,
        on_epoch=lambda done, _: progress(f"{FEATURE_NETWORK}: fitting", 0.4 * done / config.epochs),
    )
    return network, encoder, fitted


def _export(
    network: Any,
    encoder: Any,
    inputs: Float32,
    parts: _Parts,
    parameters: NetworkParameters,
    config: NetworkConfig,
    folder: Path,
) -> dict[str, FormatReport]:
    """Every format of the encoder, measured against Keras on held-out decisions."""
    network.save(folder / NETWORK_FILE)
    encoder.save(folder / ENCODER_FILE)
    _save_model(encoder, folder / SAVED_MODEL_FILE)
    fit = parts.fit[np.unique(np.linspace(0, len(parts.fit) - 1, 512).astype(np.int64))]
    converted = convert(folder / ENCODER_FILE, inputs[fit], folder, time_limit_s=config.time_limit_s)
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


def _judged(
    component: Component, rows: TrainingSet, split: Split, parts: _Parts, config: NetworkConfig, folder: Path
) -> Component:
    """The component with what the served file is worth on held-out rows."""
    features = training_features(folder, component, rows, split)
    parameters = msgspec.convert(component.parameters, NetworkParameters)
    metrics = downstream_metrics(rows, split, features, config.seed)
    own = features[parts.decisions.first]
    metrics |= head_metrics(own, parts.decisions, parts.holdout, parameters, config.seed)
    return msgspec.structs.replace(component, metrics=metrics, headline="outcome_log_loss")
