"""How far price reaches, by quantiles, and the chance that they give a level of being reached within the horizon.

Quantiles say how far price goes with which chance: it reaches the median with one half, the 0.9 quantile with one
tenth. Between them, and from price itself (chance 1) to the first, the logarithm of the chance is linear in the
distance; beyond the last it goes on as between the last two. So the chance falls as that of waiting times with a
constant rate between neighbouring quantiles: excursions of prices have about such a tail, which a chance that stays at
that of the last quantile, or a straight line to some end, has not.

The chance of the quantile `q` at its own distance is 1 - q; nowhere does it rise with the distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NARROWEST_ATR = 1e-6
"""Quantiles that are nearer to each other than this count as that far apart."""


@dataclass(frozen=True)
class Reach:
    """What a liquidity model says of how far price will go within its horizon, in ATR from the close, by quantiles."""

    quantiles: tuple[float, ...]
    """Ascending, between 0 and 1."""
    below: NDArray[np.float32]
    """[k, Q] how far down, ascending along Q, >= 0."""
    above: NDArray[np.float32]
    """[k, Q] how far up."""


def chance_of_reaching(
    distance: NDArray[np.floating], quantiles: tuple[float, ...], reach: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The chance `[k]`, float32 from 0 to 1, that price reaches as far as `distance` (ATR, >= 0) within the horizon.

    `quantiles` are Q >= 1 ascending shares between 0 and 1; `reach [k, Q]` is how far price goes by them, in ATR,
    ascending along Q, the horizon being that of what gave it. A distance of 0 or less is reached already. NaN where the
    distance or any of the quantiles is NaN. Raises `ValueError` for shares that do not ascend between 0 and 1, or
    another shape.

    >>> chance_of_reaching(np.array([0.0, 1.0, 3.0, 5.0]), (0.5, 0.75), np.array([[1.0, 3.0]] * 4)).tolist()
    [1.0, 0.5, 0.25, 0.125]
    """
    known = _checked(quantiles, reach, len(distance))
    asked = np.maximum(np.asarray(distance, dtype=np.float64), 0.0)
    # In float64, and rounded at the end: a logarithm's last bit may depend on the processor.
    logarithm = np.log1p(-np.asarray(quantiles, dtype=np.float64))
    near, chance_near = np.zeros(len(asked)), 0.0
    found = np.full(len(asked), np.nan)
    slope = np.zeros(len(asked))
    for index, chance_far in enumerate(logarithm):
        far = np.maximum(known[:, index], near + NARROWEST_ATR)
        slope = (chance_far - chance_near) / (far - near)
        here = np.isnan(found) & (asked <= far)
        found = np.where(here, chance_near + slope * (asked - near), found)
        near, chance_near = far, chance_far
    beyond = np.isnan(found) & np.isfinite(near)
    found = np.where(beyond, chance_near + slope * (asked - near), found)
    unknown = np.isnan(known).any(axis=1)
    return np.where(unknown, np.nan, np.exp(np.minimum(found, 0.0))).astype(np.float32)


def _checked(quantiles: tuple[float, ...], reach: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    shares = np.asarray(quantiles, dtype=np.float64)
    if shares.ndim != 1 or not shares.size or not (np.diff(shares, prepend=0.0, append=1.0) > 0).all():
        raise ValueError(f"quantiles ascend between 0 and 1, these are {quantiles}")
    if reach.shape != (count, shares.size):
        raise ValueError(f"reach is {reach.shape} for {count} distances and {shares.size} quantiles")
    return np.asarray(reach, dtype=np.float64)
