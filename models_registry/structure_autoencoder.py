"""`structure_autoencoder`: a window of normalised bars to 16 latents, and how unlike the training data it is.

This module holds what the live runtime needs of it: normalisation, the reconstruction error and the plain
version that stands in when no network was trained. Training is in `structure_autoencoder_training`.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

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
    difference = (normalised - reconstruction).reshape(len(normalised), -1)
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
