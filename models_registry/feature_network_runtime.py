"""What the live runtime needs of `feature_network`: normalisation, the served file, and the plain version.

The plain version are 32 technical indicators of the decision row, each standardised by a constant, so that they are
the same numbers in every bundle and need no training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import FEATURE_NETWORK, Component
from models_registry.sessions import TfliteSession

Float32 = NDArray[np.float32]

FEATURES = 32
CLIP = 4.0
"""Normalised inputs are limited to this many deviations: INT8 has one input scale per tensor."""
HEADS = ("rising", "size", "long", "short")
"""What the features are trained to tell, each by a linear head: that the price will have risen at the horizon (logit),
how far it will have gone either way (`size_of`), and that a long or short candidate will win (logits)."""

PLAIN: dict[str, tuple[float, float]] = {
    "5m.ema_21_distance": (0.0, 1.3),
    "5m.ema_50_distance": (0.0, 2.1),
    "5m.ema_200_distance": (0.0, 4.5),
    "5m.macd_histogram": (0.0, 0.21),
    "5m.adx_14": (23.0, 10.0),
    "5m.plus_di_14": (21.0, 7.5),
    "5m.minus_di_14": (21.0, 7.5),
    "5m.linreg_slope_20": (0.0, 0.15),
    "5m.linreg_r2_20": (0.42, 0.35),
    "5m.return_1": (0.0, 0.0014),
    "5m.return_5": (0.0, 0.0031),
    "5m.return_20": (0.0, 0.0063),
    "5m.return_60": (0.0, 0.011),
    "5m.atr_14_fraction": (0.0022, 0.0012),
    "5m.bollinger_position_20": (0.0, 0.71),
    "5m.bollinger_width_20": (0.0086, 0.0061),
    "5m.realised_volatility_20": (0.0014, 0.0008),
    "5m.volatility_ratio": (0.91, 0.33),
    "5m.rsi_14": (50.0, 11.0),
    "5m.stochastic_rsi_14": (50.0, 47.0),
    "5m.cci_20": (0.0, 115.0),
    "5m.mfi_14": (50.0, 20.0),
    "5m.volume_zscore": (-0.32, 0.8),
    "5m.obv_slope_20": (0.0, 0.28),
    "5m.chaikin_money_flow_20": (0.0, 0.15),
    "5m.vwap_distance_48": (0.0, 2.3),
    "15m.rsi_14": (50.0, 11.5),
    "15m.ema_50_distance": (0.0, 2.1),
    "15m.adx_14": (24.0, 10.5),
    "1h.rsi_14": (50.0, 11.5),
    "1h.ema_50_distance": (0.0, 2.0),
    "1h.atr_14_fraction": (0.0085, 0.004),
}
"""The columns of the plain version, with the centre and the deviation of each: the median and half the distance of the
16th and 84th percentile over six symbols of 2025, rounded, and 0 or 50 where the indicator is symmetrical."""


class NetworkParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network."""

    centre: list[float]
    """Per column of the decision row: the median of the fitted rows."""
    scale: list[float]
    flags: list[int] = []
    """The columns whose being unknown is an input of its own."""
    clip: float = CLIP
    heads: dict[str, list[float]] = {}
    """Of each head 32 weights and, last, the intercept."""
    size_centre: float = 0.0
    size_scale: float = 1.0
    """`size_of` is standardised by these before it is learnt."""
    updates: int = 0
    """How many trainings made these weights, each continuing from the last."""
    analyses: int = 0
    """How many decision rows they have been fitted to, over all of them."""
    epochs: int = 0
    """How often they have been through the rows of each."""
    history: dict[str, list[float]] = {}
    """The loss curves of the last training."""
    reliability: dict[str, list[tuple[float, float, int]]] = {}
    """Held-out calibration bins of the outcome heads: mean predicted, share won, rows."""


def size_of(move: NDArray[np.floating]) -> Float32:
    """The size of a move in ATR as it is learnt, `log(1 + |move|)`: a few runaway markets must not decide."""
    return np.asarray(np.log1p(np.abs(move)), dtype=np.float32)


def normalise(decision: Float32, parameters: NetworkParameters, out: Float32 | None = None) -> Float32:
    """Decision rows `[k, D]` as the network takes them, `[k, D + flags]`: standardised, clipped, NaN as the median.

    `out` is written to and returned when given.
    """
    width, limit = decision.shape[1], parameters.clip
    if out is None:
        out = np.empty((len(decision), width + len(parameters.flags)), dtype=np.float32)
    scaled = out[:, :width]
    np.subtract(decision, np.asarray(parameters.centre, dtype=np.float32), out=scaled)
    scaled *= np.float32(1.0) / np.asarray(parameters.scale, dtype=np.float32)
    if parameters.flags:
        np.isnan(decision[:, parameters.flags], out=out[:, width:], casting="unsafe")
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=limit, neginf=-limit)
    np.clip(scaled, -limit, limit, out=scaled)
    return out


def plain_features(decision: Float32, names: Sequence[str]) -> Float32:
    """The plain version `[k, 32]` of decision rows `[k, D]`; 0 where a column is unknown or there is none."""
    out = np.zeros((len(decision), FEATURES), dtype=np.float32)
    at = {name: index for index, name in enumerate(names)}
    for position, (name, (centre, scale)) in enumerate(PLAIN.items()):
        if name in at:
            out[:, position] = (decision[:, at[name]] - np.float32(centre)) / np.float32(scale)
    np.nan_to_num(out, copy=False, nan=0.0, posinf=CLIP, neginf=-CLIP)
    return np.clip(out, -CLIP, CLIP, out=out)


def head_values(features: Float32, parameters: NetworkParameters, head: str) -> NDArray[np.float64]:
    """What one of `HEADS` says `[k]` of features `[k, 32]`: a probability, for `size` the expected `size_of`."""
    weights = np.asarray(parameters.heads[head], dtype=np.float64)
    # Not as a product of matrices: its sums are ordered differently for another number of rows.
    total = (features.astype(np.float64) * weights[:-1]).sum(axis=1) + weights[-1]
    if head == "size":
        return np.asarray(total * parameters.size_scale + parameters.size_centre)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(total, -30, 30))))


class FeatureNetwork:
    """The network, or its plain version when `component` has none: decision rows to 32 discovered features.

    `names` are the columns of the decision rows. Not safe for concurrent calls: the buffer is reused.
    """

    def __init__(self, folder: Path, component: Component, names: Sequence[str]) -> None:
        self._names = list(names)
        self._session: TfliteSession | None = None
        if component.served is None:
            return
        try:
            self.parameters = msgspec.convert(component.parameters, NetworkParameters)
        except msgspec.ValidationError as error:
            raise BundleRejected(folder, f"the parameters of {FEATURE_NETWORK} are not valid: {error}") from error
        if Path(component.served).name != component.served:
            raise BundleRejected(folder, f"{component.served!r} is not a plain file name")
        try:
            self._session = TfliteSession(folder / component.served)
        except FileNotFoundError:
            raise BundleRejected(folder, f"{component.served} is missing") from None
        except Exception as error:  # the runtime raises its own kinds for a bad file
            raise BundleRejected(folder, f"{component.served} cannot be loaded: {error}") from error
        width = len(self._names) + len(self.parameters.flags)
        sizes = {len(self.parameters.centre), len(self.parameters.scale)}
        if self._session.row_shape != (width,) or sizes != {len(self._names)}:
            raise BundleRejected(
                folder, f"{component.served} takes {self._session.row_shape}, its manifest says {width} columns"
            )
        if any(not 0 <= column < len(self._names) for column in self.parameters.flags):
            raise BundleRejected(folder, f"{FEATURE_NETWORK} flags a column that there is not")
        self._buffer = np.empty((256, width), dtype=np.float32)

    def run(self, decision: Float32) -> Float32:
        """Features `[k, 32]` of decision rows `[k, D]`; a row's result does not depend on the other rows."""
        if decision.shape[1:] != (len(self._names),):
            columns, known = decision.shape[-1], len(self._names)
            raise InputRejected(f"decision rows have {columns} columns, the bundle's have {known}")
        if self._session is None:
            return plain_features(decision, self._names)
        if len(decision) > len(self._buffer):
            self._buffer = np.empty((2 * len(decision), self._buffer.shape[1]), dtype=np.float32)
        return self._session.run(normalise(decision, self.parameters, self._buffer[: len(decision)]))[0]
