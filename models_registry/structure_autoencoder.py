"""`structure_autoencoder`: a window of normalised bars to 16 latents, and how unlike the training data it is.

First what the live runtime needs of it: normalisation, the reconstruction error and the plain version that stands
in when there is no network. Then its training, export and measure, which import TensorFlow when they are called.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.convert import convert
from models_registry.errors import NotEnoughData, TrainingUnavailable
from models_registry.exports import LATENCY_ROWS, choose, report, sha256_of, with_latencies
from models_registry.manifest import AUTOENCODER, Component, FormatReport, Metric
from models_registry.principal_components import PrincipalComponents
from models_registry.sessions import TfliteSession
from models_registry.statistics import block_index, block_sums, ratio_interval

Float32 = NDArray[np.float32]
Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction of it that is done."""

KERAS_FILE = f"{AUTOENCODER}.keras"
"""The trained network: what a later training continues from."""

LATENTS = 16
CLIP = 8.0
"""Normalised inputs are limited to this many standard deviations: INT8 has one input scale per tensor."""


class AutoencoderParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network."""

    mean: list[float]
    """Per channel, of the fitted windows."""
    std: list[float]
    limit: float
    """Reconstruction errors above it are unlike anything in training: the worker abstains."""
    clip: float = CLIP
    history: dict[str, list[float]] = {}
    """The loss curves of the training."""


def normalise(windows: Float32, parameters: AutoencoderParameters) -> Float32:
    """Windows `[k, W, channels]` as the network takes them: standardised per channel, clipped, NaN as the mean."""
    mean = np.asarray(parameters.mean, dtype=np.float32)
    scale = np.float32(1.0) / np.asarray(parameters.std, dtype=np.float32)
    scaled = (windows - mean) * scale
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=parameters.clip, neginf=-parameters.clip)
    return np.clip(scaled, -parameters.clip, parameters.clip, out=scaled)


def reconstruction_error(normalised: Float32, reconstruction: Float32) -> Float32:
    """Mean squared error `[k]` of each window, in variances of its channels."""
    difference = (normalised - reconstruction).reshape(len(normalised), math.prod(normalised.shape[1:]))
    return np.asarray(np.square(difference).mean(axis=1), dtype=np.float32)


STATISTICS = (
    "close_sum",
    "close_sum_recent",
    "close_std",
    "close_std_recent_ratio",
    "close_absolute",
    "close_skew",
    "close_autocovariance",
    "up_fraction",
    "below_peak",
    "above_trough",
    "peak_age",
    "range_mean",
    "range_recent_ratio",
    "volume_mean",
    "volume_recent",
    "volume_with_move",
)
"""The columns of `statistical_features`; `recent` is the last quarter of the window."""


def statistical_features(windows: Float32) -> Float32:
    """The plain version of the latents: 16 statistics `[k, 16]` of windows `[k, W, 5]`, NaN taken as 0.

    Channels are open, high, low and close moves in ATR and the volume's z-score.
    """
    values = np.nan_to_num(windows, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
    high, low, close, volume = (np.ascontiguousarray(values[:, :, channel]) for channel in (1, 2, 3, 4))
    recent = max(values.shape[1] // 4, 1)
    path = np.cumsum(close, axis=1)
    std = close.std(axis=1)
    safe = np.maximum(std, 1e-6)
    centred = close - close.mean(axis=1, keepdims=True)
    spread = high - low
    spread_mean = spread.mean(axis=1)
    columns = (
        path[:, -1],
        close[:, -recent:].sum(axis=1),
        std,
        close[:, -recent:].std(axis=1) / safe,
        np.abs(close).mean(axis=1),
        (centred**3).mean(axis=1) / safe**3,
        (centred[:, 1:] * centred[:, :-1]).mean(axis=1) / safe**2,
        (close > 0).mean(axis=1),
        path.max(axis=1) - path[:, -1],
        path[:, -1] - path.min(axis=1),
        1.0 - path.argmax(axis=1) / max(values.shape[1] - 1, 1),
        spread_mean,
        spread[:, -recent:].mean(axis=1) / np.maximum(spread_mean, 1e-6),
        volume.mean(axis=1),
        volume[:, -recent:].mean(axis=1),
        (volume * np.abs(close)).mean(axis=1),
    )
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class AutoencoderConfig:
    """How the network is trained and exported."""

    seed: int = 7
    epochs: int = 20
    """At most: training stops when the validation loss has not improved for `patience` epochs."""
    patience: int = 3
    batch: int = 512
    learning_rate: float = 2e-3
    most_windows: int = 30_000
    """Fitted at most; more are thinned evenly in time. Validation and holdout take a third of it each."""
    fewest_windows: int = 500
    quantise: bool = True
    """Serve INT8 when it passes; `ENABLE_QUANTIZATION`."""
    time_limit_s: float = 180.0
    """Of one conversion subprocess."""
    latents_tolerance: float = 0.25
    """Parity: 99th percentile of a latent's error, in standard deviations of the fitted windows."""
    error_tolerance: float = 0.05
    """Parity: 99th percentile of the relative difference of the reconstruction error."""
    unlike_quantile: float = 0.995
    """Of the fitted windows' reconstruction errors: beyond it a window counts as unlike them."""


@dataclass(frozen=True)
class WindowSplit:
    """Windows `[n, W, channels]` in order of time, cut as the win model's rows are."""

    fit: Float32
    validation: Float32
    holdout: Float32
    holdout_at: NDArray[np.int64]
    """Times of the holdout windows, ms: the blocks of its interval."""

    @property
    def counts(self) -> dict[str, int]:
        """How many windows each part has."""
        return {"fit": len(self.fit), "validation": len(self.validation), "holdout": len(self.holdout)}

    def thinned(self, most: int) -> WindowSplit:
        """At most `most` windows to fit and a third of it in the other parts, evenly spaced."""
        other = max(most // 3, 1)
        kept = _spaced(len(self.holdout), other)
        return WindowSplit(
            self.fit[_spaced(len(self.fit), most)],
            self.validation[_spaced(len(self.validation), other)],
            self.holdout[kept],
            self.holdout_at[kept],
        )


def _spaced(rows: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, rows - 1, min(rows, most)).round().astype(np.int64)) if rows else np.arange(0)


def train(windows: WindowSplit, config: AutoencoderConfig, folder: Path, progress: Progress) -> Component:
    """Train, export and judge the network; its files are written to `folder`.

    No label is used. The network is fitted to `fit`, stopped early on `validation` and judged on `holdout`
    against principal components of the same fitted windows. Raises `NotEnoughData`, and `TrainingUnavailable`
    without TensorFlow; a format that cannot be exported is named in the component and raises nothing.
    """
    if find_spec("tensorflow") is None:
        raise TrainingUnavailable(AUTOENCODER, "tensorflow")
    for what, part in (("fit", windows.fit), ("be stopped early", windows.validation), ("be judged", windows.holdout)):
        need = config.fewest_windows if part is windows.fit else config.fewest_windows // 10
        if len(part) < need:
            raise NotEnoughData(f"{AUTOENCODER} to {what}", len(part), need)
    windows = windows.thinned(config.most_windows)
    flat = windows.fit.reshape(-1, windows.fit.shape[2]).astype(np.float64)
    parameters = AutoencoderParameters(
        mean=np.nanmean(flat, axis=0).tolist(),
        std=np.maximum(np.nanstd(flat, axis=0), 1e-6).tolist(),
        limit=float("inf"),
    )
    parts = {name: normalise(getattr(windows, name), parameters) for name in ("fit", "validation", "holdout")}
    components = PrincipalComponents.fit(parts["fit"], LATENTS)
    network, history = _fit(parts, components, config, progress)
    progress(f"{AUTOENCODER}: converting", 0.8)
    formats = _export(network, parts, config, folder)
    served, why = choose(formats, config.quantise)
    files = {found.file: found.sha256 for found in formats.values() if found.file and found.sha256}
    files[KERAS_FILE] = sha256_of(folder / KERAS_FILE)
    if served is None:
        progress(AUTOENCODER, 1.0)
        return Component(version="none", served=None, format=None, formats=formats, files=files, fallback=why)
    session = TfliteSession(folder / str(formats[served].file))
    error = {name: reconstruction_error(part, session.run(part)[1]) for name, part in parts.items() if len(part)}
    parameters = msgspec.structs.replace(
        parameters, limit=float(np.quantile(error["fit"], config.unlike_quantile)), history=history
    )
    progress(AUTOENCODER, 1.0)
    return Component(
        version=str(formats[served].sha256)[:12],
        served=formats[served].file,
        format=served,
        formats=formats,
        files=files,
        metrics=_metrics(error["holdout"], components.error(parts["holdout"]), windows.holdout_at, config.seed),
        headline="reconstruction_error",
        parameters=msgspec.to_builtins(parameters),
        note=why,
    )


def build(window: int, channels: int, components: PrincipalComponents) -> Any:
    """The network: `[W, channels]` to `[latents, reconstruction]`.

    Encoder and decoder are each a linear path and a nonlinear one that is added to it. The linear paths start
    as the principal components, whitened so that every latent has about unit variance (one INT8 scale serves
    all), and the nonlinear ones end in zeros: training starts at the baseline and can only leave it upwards.
    Every layer has a name, since Keras would count them over the process and the names are in the exported file.
    """
    import keras

    layers = keras.layers
    source = layers.Input((window, channels), name="window")
    linear = layers.Dense(LATENTS, name="linear_latents")(layers.Flatten(name="flat_window")(source))
    hidden = layers.Conv1D(32, 5, strides=2, padding="same", activation="relu", name="wide_moves")(source)
    hidden = layers.Conv1D(48, 3, strides=2, padding="same", activation="relu", name="longer_moves")(hidden)
    hidden = layers.Dense(64, activation="relu", name="encoded")(layers.Flatten(name="flat_moves")(hidden))
    bent = layers.Dense(LATENTS, kernel_initializer="zeros", name="bent_latents")(hidden)
    latents = layers.Add(name="latents")([linear, bent])
    flat = layers.Dense(window * channels, name="linear_reconstruction")(latents)
    hidden = layers.Dense(128, activation="relu", name="decoded")(latents)
    bent = layers.Dense(window * channels, kernel_initializer="zeros", name="bent_reconstruction")(hidden)
    reconstruction = layers.Reshape((window, channels), name="reconstruction")(
        layers.Add(name="flat_reconstruction")([flat, bent])
    )
    network = keras.Model(source, [latents, reconstruction], name=AUTOENCODER)
    mean, axes, scale = components.mean, components.axes, components.scale
    network.get_layer("linear_latents").set_weights([axes / scale, -(mean @ axes) / scale])
    network.get_layer("linear_reconstruction").set_weights([(axes * scale).T, mean])
    return network


def _fit(
    parts: dict[str, Float32], components: PrincipalComponents, config: AutoencoderConfig, progress: Progress
) -> tuple[Any, dict[str, list[float]]]:
    # Read at TensorFlow's import; its notes on the processor would drown the caller's progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    window, channels = parts["fit"].shape[1:]
    network = build(window, channels, components)
    trained = keras.Model(network.input, network.outputs[1])
    trained.compile(keras.optimizers.Adam(config.learning_rate), loss="mse")
    stop = keras.callbacks.EarlyStopping("val_loss", patience=config.patience, restore_best_weights=True)
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress(f"{AUTOENCODER}: fitting", 0.8 * (epoch + 1) / config.epochs)
    )
    history = trained.fit(
        parts["fit"],
        parts["fit"],
        validation_data=(parts["validation"], parts["validation"]),
        epochs=config.epochs,
        batch_size=config.batch,
        callbacks=[stop, tell],
        verbose=0,
    ).history
    return network, {
        "fit": [float(value) for value in history["loss"]],
        "validation": [float(value) for value in history["val_loss"]],
    }


def _export(
    network: Any, parts: dict[str, Float32], config: AutoencoderConfig, folder: Path
) -> dict[str, FormatReport]:
    """Every format, measured against Keras on held-out windows."""
    network.save(folder / KERAS_FILE)
    representative = parts["fit"][_spaced(len(parts["fit"]), 512)]
    converted = convert(folder / KERAS_FILE, representative, folder, time_limit_s=config.time_limit_s)
    rows = parts["holdout"][:2048]
    latents, reconstruction = (np.asarray(output) for output in network(rows, training=False))
    spread = np.asarray(network(representative, training=False)[0]).std(axis=0) + 1e-6
    expected_error = reconstruction_error(rows, reconstruction)
    batch = np.resize(rows, (LATENCY_ROWS, *rows.shape[1:]))
    sessions: dict[str, TfliteSession] = {}
    formats = {}
    for name, result in converted.items():
        if result.path is None:
            formats[name] = FormatReport(passed=False, failed=result.failed)
            continue
        path = result.path.rename(folder / f"{AUTOENCODER}.{name.removeprefix('tflite_')}.tflite")
        sessions[name] = TfliteSession(path)
        found_latents, found = sessions[name].run(rows)
        difference = np.abs(found_latents - latents) / spread
        relative = np.abs(reconstruction_error(rows, found) / np.maximum(expected_error, 1e-6) - 1)
        errors = {
            "max_error": float(difference.max()),
            "latents_p99": float(np.quantile(difference, 0.99)),
            "reconstruction_error_p99": float(np.quantile(relative, 0.99)),
        }
        limits = {"latents_p99": config.latents_tolerance, "reconstruction_error_p99": config.error_tolerance}
        formats[name] = report(path, errors, limits)
    return with_latencies(formats, {name: partial(session.run, batch) for name, session in sessions.items()})


def _metrics(error: Float32, baseline: Float32, holdout_at: NDArray[np.int64], seed: int) -> dict[str, Metric]:
    starts, block = block_index(holdout_at)
    saved = ratio_interval(
        block_sums(block, baseline - error, len(starts)), block_sums(block, np.ones(len(block)), len(starts)), seed=seed
    )
    metric = Metric(
        value=float(error.mean()),
        baseline=float(baseline.mean()),
        baseline_name=f"PCA with {LATENTS} components",
        improvement=saved.value,
        interval=saved.pair,
        rows=len(error),
        blocks=len(starts),
        note="mean squared error of held-out windows, in variances of their channels, of the served file",
    )
    return {"reconstruction_error": metric}
