"""A state of the strategy as the network takes it: columns side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.actions import POSITION_NAMES
from models_registry.structure_autoencoder import LATENTS

Float32 = NDArray[np.float32]

LATENT_NAMES = tuple(f"latent_{index:02d}" for index in range(LATENTS))


def state_names(decision_names: tuple[str, ...] | list[str]) -> list[str]:
    """The columns of a state: the decision row, the latents of its window, the position."""
    return [*decision_names, *LATENT_NAMES, *POSITION_NAMES]


def state_matrix(decision: Float32, latents: Float32, position: Float32, out: Float32 | None = None) -> Float32:
    """States `[k, S]` from decision rows `[k, D]`, latents `[k, 16]` and positions `[k, 5]`, in `out` when given."""
    width = decision.shape[1] + latents.shape[1]
    if out is None:
        out = np.empty((len(decision), width + position.shape[1]), dtype=np.float32)
    out[:, : decision.shape[1]] = decision
    out[:, decision.shape[1] : width] = latents
    out[:, width:] = position
    return out
