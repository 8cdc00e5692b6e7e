"""Monotone maps from a model's raw probability to a calibrated one, applied in numpy.

The live runtime applies them from the manifest, so they are plain typed records. Both are non-decreasing by
construction: calibration must never reverse the model's order.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.logistic import fit_logistic

Floats = NDArray[np.floating]
EDGE = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one row cannot cost an infinite log loss."""


class Platt(msgspec.Struct, frozen=True, tag="platt"):
    """`sigmoid(slope * logit(p) + intercept)`, slope >= 0 (Platt 1999, on log odds)."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, probability: Floats) -> NDArray[np.float64]:
        """Calibrated probabilities, same shape, float64."""
        return sigmoid(self.slope * logit(probability) + self.intercept)


class Isotonic(msgspec.Struct, frozen=True, tag="isotonic"):
    """Linear interpolation between the knots of an isotonic regression (pool adjacent violators)."""

    x: list[float]
    y: list[float]

    def apply(self, probability: Floats) -> NDArray[np.float64]:
        """Calibrated probabilities, same shape, float64; constant beyond the outer knots."""
        values = np.interp(np.asarray(probability, dtype=np.float64), self.x, self.y)
        return np.clip(values, EDGE, 1 - EDGE)


Calibration = Platt | Isotonic


def sigmoid(x: Floats) -> NDArray[np.float64]:
    """`1 / (1 + exp(-x))` in float64, limited to `[EDGE, 1 - EDGE]`."""
    bound = np.log(1 / EDGE - 1)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(np.asarray(x, dtype=np.float64), -bound, bound))))


def logit(probability: Floats) -> NDArray[np.float64]:
    """Log odds in float64, of probabilities limited to `[EDGE, 1 - EDGE]`."""
    p = np.clip(np.asarray(probability, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1.0 - p)))


def fit_platt(probability: Floats, won: NDArray[np.bool_], weight: Floats) -> Platt:
    """The Platt map of least log loss on these rows.

    A relation that points the wrong way gives slope 0: the map is then the rows' base rate, which says
    nothing about any row, rather than the reverse of what the model learnt.
    """
    coefficients = fit_logistic(logit(probability)[:, None], won, weight, ridge=1e-6)
    if coefficients[1] >= 0:
        return Platt(slope=float(coefficients[1]), intercept=float(coefficients[0]))
    rate = np.average(won, weights=weight)
    return Platt(slope=0.0, intercept=float(logit(np.asarray([rate]))[0]))


def fit_isotonic(probability: Floats, won: NDArray[np.bool_], weight: Floats, knots: int = 50) -> Isotonic:
    """Isotonic regression by pooling adjacent violators, thinned to at most `knots` knots."""
    order = np.argsort(probability, kind="stable")
    levels: list[tuple[float, float, float]] = []  # sum of weight, of weight * won, of weight * probability
    for p, y, w in zip(
        np.asarray(probability, dtype=np.float64)[order], won[order], np.asarray(weight, np.float64)[order], strict=True
    ):
        level = (w, w * y, w * p)
        while levels and levels[-1][1] * level[0] >= level[1] * levels[-1][0]:
            before = levels.pop()
            level = (before[0] + level[0], before[1] + level[1], before[2] + level[2])
        levels.append(level)
    table = np.asarray(levels)
    chosen = np.unique(np.linspace(0, len(table) - 1, min(knots, len(table))).round().astype(int))
    return Isotonic(
        x=(table[chosen, 2] / table[chosen, 0]).tolist(),
        y=np.clip(table[chosen, 1] / table[chosen, 0], EDGE, 1 - EDGE).tolist(),
    )


def fit(probability: Floats, won: NDArray[np.bool_], weight: Floats, isotonic_from: int = 20_000) -> Calibration:
    """Platt, or isotonic from `isotonic_from` rows on, where its freedom no longer fits noise."""
    if len(won) >= isotonic_from:
        return fit_isotonic(probability, won, weight)
    return fit_platt(probability, won, weight)
