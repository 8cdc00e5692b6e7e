"""`win_classifier`: a candidate and everything known at its decision to the probability of target before stop.

This module holds what the live runtime needs of it: the input matrix, which training builds with the same
function, the calibration, and the plain version. Training is in `win_classifier_training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.calibration import Calibration, Platt, sigmoid
from models_registry.errors import InputRejected
from models_registry.structure_autoencoder import LATENTS

Float32 = NDArray[np.float32]

INPUTS = ("decision", "latents", "reconstruction_error", "direction", "kind", "quality")
"""The groups of columns that the model may be given, in this order."""


class QualityLogistic(msgspec.Struct, frozen=True):
    """The plain version: `sigmoid(intercept + slope * quality)`.

    The default is a prior, not a fit: about 0.40 at quality 0.5, between 0.31 and 0.50 at the ends.
    """

    intercept: float = -0.8
    slope: float = 0.8

    def apply(self, quality: Float32) -> NDArray[np.float64]:
        """Probabilities `[m]`; an unknown quality counts as the middle, 0.5."""
        known = np.where(np.isfinite(quality), quality, np.float32(0.5)).astype(np.float64)
        return sigmoid(self.intercept + self.slope * known)


class WinParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the trees."""

    inputs: list[str] = msgspec.field(default_factory=lambda: list(INPUTS))
    calibration: Calibration = Platt()
    fallback: QualityLogistic = QualityLogistic()
    trees: int = 0
    history: dict[str, list[float]] = {}
    """The loss curves of the training."""
    importance: dict[str, float] = {}
    """Share of the total gain by column, the largest thirty."""
    reliability: list[tuple[float, float, int]] = []
    """Held-out calibration bins: mean predicted, share won, rows."""


def columns(inputs: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names of the matrix' columns.

    >>> columns(["decision", "direction"], ["5m.rsi_14"])
    ['5m.rsi_14', 'direction']
    """
    unknown = [name for name in inputs if name not in INPUTS]
    if unknown:
        raise InputRejected(f"unknown inputs {', '.join(unknown)}: the win model knows {', '.join(INPUTS)}")
    result: list[str] = []
    for name in inputs:
        if name == "decision":
            result += names
        elif name == "latents":
            result += [f"latent_{index:02d}" for index in range(LATENTS)]
        else:
            result.append(name)
    return result


def fill_matrix(
    out: Float32,
    inputs: Sequence[str],
    decision: Float32,
    latents: Float32,
    error: Float32,
    index: NDArray[np.int64],
    direction: NDArray[np.int8],
    kind: NDArray[np.uint8] | None,
    quality: Float32 | None,
) -> None:
    """Write the matrix of `m` candidates into `out [m, columns]`.

    Row `i` is a candidate at row `index[i]` of `decision [k, D]`, `latents [k, 16]` and `error [k]`.
    What is not finite becomes NaN, which the trees take as missing.
    """
    at = 0
    for name in inputs:
        if name == "decision":
            out[:, at : at + decision.shape[1]] = decision[index]
            at += decision.shape[1]
        elif name == "latents":
            out[:, at : at + LATENTS] = latents[index]
            at += LATENTS
        else:
            single = {"direction": direction, "kind": kind, "quality": quality}.get(name)
            if name == "reconstruction_error":
                single = error[index]
            if single is None:
                raise InputRejected(f"the bundle's win model was trained with {name!r}: give it to the prediction")
            out[:, at] = single
            at += 1
    out[~np.isfinite(out)] = np.nan
