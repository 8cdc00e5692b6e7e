"""`structure_autoencoder`: a window of normalised bars to 16 latents, and how unlike the training data it is.

First what the live runtime needs of it: normalisation, the reconstruction error and the plain version that stands
in when there is no network. Then its training, export and measure, which import TensorFlow when they are called.

Nothing is decided on latents directly, so that a format agrees with Keras is said of what is made of them: whether
the window is unlike the training data, and on which side of its median each latent lies. A tree that reads latents
asks for no more than a side, and the median is where most windows are near to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry import autoencoder_network
from models_registry.autoencoder_network import AutoencoderShape
from models_registry.checkpoints import Checkpoint, FitPlan, training_key
from models_registry.errors import check_split
from models_registry.exports import sha256_of
from models_registry.keras_setup import prepare, require
from models_registry.manifest import AUTOENCODER, Component, Metric
from models_registry.network_export import (
    ExportConfig,
    NetworkExport,
    NetworkFiles,
    champion,
    origin,
    representative,
    take_weights,
)
from models_registry.principal_components import PrincipalComponents
from models_registry.statistics import block_index, block_sums, ratio_interval

Float32 = NDArray[np.float32]
Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction of it that is done."""

FILES = NetworkFiles(AUTOENCODER)
KERAS_FILE = FILES.keras

LATENTS = 16
CLIP = 8.0
"""Normalised inputs are limited to this many standard deviations: INT8 has one input scale per tensor."""
CHANNELS = ("open", "high", "low", "close", "volume")
"""Of a bar: moves in ATR against the close before it, and the volume's z-score."""
EXAMPLES = (0.1, 0.5, 0.9)
"""The held-out windows that a person is shown: those at these quantiles of the reconstruction error."""


class Example(msgspec.Struct, frozen=True):
    """A held-out window and what the served file made of it: where the close went, in ATR, bar by bar."""

    window: list[float]
    reconstruction: list[float]


class AutoencoderParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network, and what a later training goes on from."""

    mean: list[float]
    """Per channel, of the fitted windows."""
    std: list[float]
    limit: float
    """Reconstruction errors above it are unlike anything in training: the worker abstains."""
    clip: float = CLIP
    updates: int = 0
    """Trainings that the network has been through."""
    analyses: int = 0
    """Windows that they were fitted to, altogether."""
    history: dict[str, list[float]] = {}
    """The loss curves of the last training."""
    channel_errors: dict[str, tuple[float, float]] = {}
    """Held out, by channel: the mean squared error of the served file and of principal components."""
    examples: list[Example] = []


def normalise(windows: Float32, parameters: AutoencoderParameters, out: Float32 | None = None) -> Float32:
    """Windows `[k, W, channels]` as the network takes them: standardised per channel, clipped, NaN as the mean.

    `out` is written to and returned when given.
    """
    mean = np.asarray(parameters.mean, dtype=np.float32)
    scaled = np.subtract(windows, mean, out=out)
    scaled *= np.float32(1.0) / np.asarray(parameters.std, dtype=np.float32)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=parameters.clip, neginf=-parameters.clip)
    return np.clip(scaled, -parameters.clip, parameters.clip, out=scaled)


def reconstruction_error(normalised: Float32, reconstruction: Float32, out: Float32 | None = None) -> Float32:
    """Mean squared error `[k]` of each window, in variances of its channels.

    The squares of the differences are left in `out` when it is given; it may be `reconstruction` itself.
    """
    difference = np.subtract(normalised, reconstruction, out=out)
    squares = np.square(difference, out=difference).reshape(len(normalised), math.prod(normalised.shape[1:]))
    return np.asarray(squares.mean(axis=1), dtype=np.float32)


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

    Channels are those of `CHANNELS`.
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
class AutoencoderConfig(ExportConfig):
    """How the network is trained and exported."""

    seed: int = 7
    hidden: tuple[int, ...] = (512, 384)
    """Units of the encoder's nonlinear path, and of the decoder's the other way round. Smaller ones are nearly as good,
    but INT8 gains less: what a call costs besides outweighs the products."""
    epochs: int = 20
    """At most: training stops when the validation loss has not improved for `patience` epochs."""
    continued_epochs: int = 6
    """At most, when it continues from the champion; its rate then is half."""
    patience: int = 3
    batch: int = 512
    learning_rate: float = 5e-4
    most_windows: int = 30_000
    """Fitted at most; more are thinned evenly in time. Validation and holdout take a third of it each."""
    fewest_windows: int = 500
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
        return WindowSplit(
            representative(self.fit, most),
            representative(self.validation, other),
            representative(self.holdout, other),
            representative(self.holdout_at, other),
        )


def train(
    windows: WindowSplit, config: AutoencoderConfig, folder: Path, progress: Progress, *, initial: Path | None = None
) -> Component:
    """Train, export and judge the network; its files are written to `folder`.

    No label is used. The network is fitted to `fit`, stopped early on `validation` and judged on `holdout`
    against principal components of the same fitted windows. `initial` is a folder with a champion's files: training
    continues from its network and normalisation if that has the same layers. Raises `NotEnoughData`, and
    `TrainingUnavailable` without TensorFlow; a format that cannot be exported is named in the component and raises
    nothing. Interrupted, it goes on from its checkpoint.
    """
    require(AUTOENCODER)
    check_split(AUTOENCODER, config.fewest_windows, len(windows.fit), len(windows.validation), len(windows.holdout))
    windows = windows.thinned(config.most_windows)
    begun = _begun(windows, config, initial)
    network, parts = begun.network, begun.parts
    rate, epochs = config.learning_rate, config.epochs
    if begun.digest:
        rate, epochs = rate / 2, config.continued_epochs
    arrays: dict[str, NDArray[Any] | None] = {"fit": parts["fit"], "validation": parts["validation"]}
    checkpoint = Checkpoint(folder, training_key(AUTOENCODER, config.training, arrays, begun.digest))
    told = autoencoder_network.fitted(
        network,
        parts["fit"],
        parts["validation"],
        rate,
        FitPlan(epochs, config.patience, config.batch, config.seed),
        checkpoint,
        lambda done: progress(f"{AUTOENCODER}: fitting", 0.7 * done / epochs),
    )
    progress(f"{AUTOENCODER}: converting", 0.7)
    export = NetworkExport(AUTOENCODER, folder, config)
    encoder, decoder = autoencoder_network.halves(network)
    export.keep(network, encoder=encoder, decoder=decoder)
    parameters = msgspec.structs.replace(
        begun.parameters,
        updates=begun.parameters.updates + 1,
        analyses=begun.parameters.analyses + len(windows.fit),
        history=told.curves,
    )
    metrics: dict[str, Metric] = {}
    if _formats(export, network, parts, config) is not None:
        progress(f"{AUTOENCODER}: judging", 0.95)
        parameters, metrics = _judged(export, parts, begun.components, parameters, windows.holdout_at, config)
    outputs = [f"latent_{index:02d}" for index in range(LATENTS)]
    export.record(parameters, told.curves, CHANNELS, [*outputs, "reconstruction"])
    checkpoint.discard()
    progress(AUTOENCODER, 1.0)
    note = origin(initial, bool(begun.digest))
    return export.component(parameters, metrics=metrics, headline="reconstruction_error", note=note)


@dataclass(frozen=True)
class _Begun:
    """A training before its first epoch."""

    network: Any
    parameters: AutoencoderParameters
    parts: dict[str, Float32]
    """Normalised."""
    components: PrincipalComponents
    """Of the fitted windows."""
    digest: str
    """Of the champion's network; empty when it is trained from scratch."""


def _begun(windows: WindowSplit, config: AutoencoderConfig, initial: Path | None) -> _Begun:
    prepare(config.seed)
    begun = _built(windows, config, _normalisation(windows.fit))
    stored = champion(initial, FILES)
    if initial is None or stored is None:
        return begun
    known = msgspec.convert(stored.parameters, AutoencoderParameters)
    if len(known.mean) != windows.fit.shape[2] or not take_weights(begun.network, initial / FILES.keras):
        return begun
    # The champion's weights belong to its normalisation.
    begun = _built(windows, config, known)
    take_weights(begun.network, initial / FILES.keras)
    return replace(begun, digest=sha256_of(initial / FILES.keras))


def _built(windows: WindowSplit, config: AutoencoderConfig, parameters: AutoencoderParameters) -> _Begun:
    parts = {name: normalise(getattr(windows, name), parameters) for name in windows.counts}
    components = PrincipalComponents.fit(parts["fit"], LATENTS)
    shape = AutoencoderShape(windows.fit.shape[1], windows.fit.shape[2], config.hidden)
    return _Begun(autoencoder_network.build(shape, components), parameters, parts, components, "")


def _normalisation(fit: Float32) -> AutoencoderParameters:
    bars = fit.reshape(-1, fit.shape[2]).astype(np.float64)
    return AutoencoderParameters(
        mean=np.nanmean(bars, axis=0).tolist(),
        std=np.maximum(np.nanstd(bars, axis=0), 1e-6).tolist(),
        limit=0.0,
    )


def _formats(export: NetworkExport, network: Any, parts: dict[str, Float32], config: AutoencoderConfig) -> str | None:
    """Every format, measured against Keras: fitted windows say where the limits are, held-out ones are decided on."""
    fit, held = representative(parts["fit"], 2048), parts["holdout"][:2048]
    rows, seen = np.concatenate([fit, held]), len(fit)
    latents, reconstruction = (np.asarray(output) for output in network(rows, training=False))
    spread, middle = latents[:seen].std(axis=0) + 1e-6, np.median(latents[:seen], axis=0)

    def unlike(error: Float32) -> NDArray[np.bool_]:
        return np.asarray(error[seen:] > np.quantile(error[:seen], config.unlike_quantile))

    expected = reconstruction_error(rows, reconstruction)
    sides, verdicts = latents[seen:] > middle, unlike(expected)

    def parity(outputs: list[Float32]) -> tuple[dict[str, float], float]:
        difference = np.abs(outputs[0] - latents)[seen:]
        error = reconstruction_error(rows, outputs[1])
        relative = np.abs(error / np.maximum(expected, 1e-6) - 1)[seen:]
        same_side = float(((outputs[0][seen:] > middle) == sides).mean())
        same_verdict = float((unlike(error) == verdicts).mean())
        errors = {
            "max_error": float(difference.max()),
            "latents_p99": float(np.quantile(difference / spread, 0.99)),
            "reconstruction_error_p99": float(np.quantile(relative, 0.99)),
            "other_side": 1 - same_side,
            "other_verdict": 1 - same_verdict,
        }
        return errors, min(same_side, same_verdict)

    limits = {"latents_p99": config.latents_tolerance, "reconstruction_error_p99": config.error_tolerance}
    return export.formats(FILES.keras, representative(parts["fit"]), rows, parity, limits)


def _judged(
    export: NetworkExport,
    parts: dict[str, Float32],
    components: PrincipalComponents,
    parameters: AutoencoderParameters,
    holdout_at: NDArray[np.int64],
    config: AutoencoderConfig,
) -> tuple[AutoencoderParameters, dict[str, Metric]]:
    """The limit of the served file, what it is worth on held-out windows, and what a person is shown of it."""
    session, held = export.served(), parts["holdout"]
    fitted_error = reconstruction_error(parts["fit"], session.run(parts["fit"])[1])
    reconstruction = session.run(held)[1]
    error, baseline = reconstruction_error(held, reconstruction), components.error(held)
    by_channel = (
        np.square(held - reconstruction).mean(axis=(0, 1)),
        np.square(held - components.reconstruction(held)).mean(axis=(0, 1)),
    )
    order = np.argsort(error, kind="stable")
    shown = [int(order[round(share * (len(order) - 1))]) for share in EXAMPLES]
    parameters = msgspec.structs.replace(
        parameters,
        limit=float(np.quantile(fitted_error, config.unlike_quantile)),
        channel_errors={
            name: (float(own), float(other)) for name, own, other in zip(CHANNELS, *by_channel, strict=False)
        },
        examples=[_example(held, reconstruction, parameters, at) for at in shown],
    )
    return parameters, _metrics(error, baseline, holdout_at, config.seed)


def _example(held: Float32, reconstruction: Float32, parameters: AutoencoderParameters, at: int) -> Example:
    close = CHANNELS.index("close")

    def path(window: Float32) -> list[float]:
        moves = window[:, close].astype(np.float64) * parameters.std[close] + parameters.mean[close]
        return [round(float(value), 3) for value in np.cumsum(moves)]

    return Example(path(held[at]), path(reconstruction[at]))


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
        sums=saved.sums,
        rows=len(error),
        blocks=len(starts),
        note="mean squared error of held-out windows, in variances of their channels, of the served file",
    )
    return {"reconstruction_error": metric}
