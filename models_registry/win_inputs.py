"""The win model's input matrix: one function for training and for the live runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.reach import Reach
from models_registry.errors import InputRejected
from models_registry.feature_network_runtime import FEATURES
from models_registry.structure_autoencoder import LATENTS

Float32 = NDArray[np.float32]

INPUTS = (
    "decision",
    "aligned_decision",
    "latents",
    "aligned_latents",
    "reconstruction_error",
    "direction",
    "kind",
    "quality",
)
"""The groups of columns that every model is given.

The aligned groups are the column less its centre, times the direction: what rising prices are to a long, falling
ones are to a short. Events are candidates in both directions, so a column that tells where the price will go has no
marginal relation to winning, and trees, which split on one column at a time, would hardly find it.
"""

FEATURE_INPUTS = ("features", "aligned_features")
"""The groups that a model trained with a feature network is given besides."""

REACH_INPUTS = ("reach",)
"""The group that a model trained with a liquidity predictor is given besides: the quantiles against the candidate
(below a long), then those with it. So it is aligned by itself."""

DYNAMIC_INPUTS = ("dynamic", "aligned_dynamic")
"""The groups that a model trained with dynamic features is given besides: they are unknown outside their regime."""


def columns(
    inputs: Sequence[str], names: Sequence[str], dynamic: Sequence[str] = (), quantiles: Sequence[float] = ()
) -> list[str]:
    """The names of the matrix' columns, from those of the decision row and of the dynamic features, and `quantiles`.

    >>> columns(["decision", "aligned_decision", "direction"], ["5m.rsi_14"])
    ['5m.rsi_14', '5m.rsi_14 aligned', 'direction']
    >>> columns(["reach"], [], quantiles=[0.5, 0.9])
    ['reach_against_50', 'reach_against_90', 'reach_with_50', 'reach_with_90']
    """
    known = (*INPUTS, *FEATURE_INPUTS, *REACH_INPUTS, *DYNAMIC_INPUTS)
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise InputRejected(f"unknown inputs {', '.join(unknown)}: the win model knows {', '.join(known)}")
    groups = {
        "decision": list(names),
        "latents": [f"latent_{index:02d}" for index in range(LATENTS)],
        "features": [f"feature_{index:02d}" for index in range(FEATURES)],
        "reach": [f"reach_{side}_{round(100 * share)}" for side in ("against", "with") for share in quantiles],
        "dynamic": list(dynamic),
    }
    result: list[str] = []
    for name in inputs:
        group = groups.get(name.removeprefix("aligned_"))
        if group is None:
            result.append(name)
        else:
            result += [f"{column} aligned" for column in group] if name.startswith("aligned_") else group
    return result


class Candidates(NamedTuple):
    """`m` candidates on `k` decision rows, and what the models before this one said of the rows."""

    decision: Float32
    """`[k, D]`"""
    latents: Float32
    """`[k, 16]`"""
    error: Float32
    """`[k]` reconstruction error."""
    row: NDArray[np.int64]
    """`[m]` the row that each candidate is at."""
    direction: NDArray[np.int8]
    """`[m]` +1 long, -1 short."""
    kind: NDArray[np.uint8] | None
    """`[m]`"""
    quality: Float32 | None
    """`[m]`"""
    features: Float32 | None = None
    """`[k, 32]` of the feature network."""
    reach: Reach | None = None
    """Of the rows, from the liquidity predictor."""
    dynamic: Float32 | None = None
    """`[k, E]` the dynamic features."""


def fill_matrix(out: Float32, inputs: Sequence[str], given: Candidates, centre: Mapping[str, Float32]) -> None:
    """Write the inputs of `m` candidates into `out [m, columns]`.

    What is not finite becomes NaN, which the trees take as missing. Raises `InputRejected` for anything that the model
    needs and was not given.
    """
    groups = {"decision": given.decision, "latents": given.latents}
    more = {"features": given.features, "dynamic": given.dynamic}
    groups |= {name: values for name, values in more.items() if values is not None}
    singles = {"direction": given.direction, "kind": given.kind, "quality": given.quality}
    at = 0
    for name in inputs:
        group = groups.get(name.removeprefix("aligned_"))
        if group is not None:
            into = out[:, at : at + group.shape[1]]
            into[:] = group[given.row]
            if name.startswith("aligned_"):
                into -= centre[name.removeprefix("aligned_")]
                into *= given.direction[:, None]
            at += group.shape[1]
            continue
        if name == "reach" and given.reach is not None:
            width = len(given.reach.quantiles)
            long = (given.direction > 0)[:, None]
            below, above = given.reach.below[given.row], given.reach.above[given.row]
            out[:, at : at + width] = np.where(long, below, above)
            out[:, at + width : at + 2 * width] = np.where(long, above, below)
            at += 2 * width
            continue
        single = given.error[given.row] if name == "reconstruction_error" else singles.get(name)
        if single is None:
            raise InputRejected(f"the bundle's win model was trained with {name!r}: give it to the prediction")
        out[:, at] = single
        at += 1
    out[~np.isfinite(out)] = np.nan


def medians(values: Float32) -> Float32:
    """By column over what is finite; 0 for a column that never is."""
    known = np.where(np.isfinite(values), values, np.nan)
    known[:, np.isnan(known).all(axis=0)] = 0.0
    return np.asarray(np.nanmedian(known, axis=0) if len(known) else np.zeros(values.shape[1]), dtype=np.float32)
