"""Logistic regression by Newton's method: for calibration, for the plain fallback and as a baseline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def fit_logistic(
    x: Floats, won: NDArray[np.bool_], weight: Floats, ridge: float, iterations: int = 25
) -> NDArray[np.float64]:
    """Coefficients `[1 + columns]`, the intercept first, of the penalised maximum likelihood.

    `ridge` penalises `ridge / 2 * sum(weight) * coefficient ** 2` of every column but the intercept, so it
    means the same at any number of rows; columns are expected on a common scale.

    >>> x = np.array([[0.0], [0.0], [1.0], [1.0]])
    >>> fit_logistic(x, np.array([True, False, True, True]), np.ones(4), ridge=0.1).shape
    (2,)
    """
    design = np.column_stack([np.ones(len(x)), np.asarray(x, dtype=np.float64)])
    w = np.asarray(weight, dtype=np.float64)
    y = np.asarray(won, dtype=np.float64)
    penalty = np.full(design.shape[1], ridge * w.sum())
    penalty[0] = 1e-9 * w.sum()
    coefficients = np.zeros(design.shape[1])
    for _ in range(iterations):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        gradient = design.T @ (w * (y - p)) - penalty * coefficients
        curvature = (design * (w * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design
        step = np.linalg.solve(curvature + np.diag(penalty), gradient)
        # A Newton step from far away can overshoot; a bounded one still converges.
        coefficients += step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    return coefficients


class StandardLogistic:
    """Logistic regression on median-imputed, standardised columns: the baseline of the win model."""

    def __init__(self, x: Floats, won: NDArray[np.bool_], weight: Floats, ridge: float = 1e-3) -> None:
        values = np.where(np.isfinite(x), x, np.nan).astype(np.float64)
        empty = np.isnan(values).all(axis=0)
        values[:, empty] = 0.0
        self.median = np.nanmedian(values, axis=0)
        values = np.where(np.isnan(values), self.median, values)
        self.mean, std = values.mean(axis=0), values.std(axis=0)
        self.std = np.where(std > 1e-12, std, 1.0)
        self.coefficients = fit_logistic(self._scale(values), won, weight, ridge)

    def _scale(self, values: Floats) -> NDArray[np.float64]:
        # Wild values of one row must not decide a linear model.
        return np.asarray(np.clip((values - self.mean) / self.std, -8.0, 8.0))

    def predict(self, x: Floats) -> NDArray[np.float64]:
        """Probabilities `[m]` of rows `[m, columns]`; missing values take the training median."""
        values = np.where(np.isfinite(x), x, self.median).astype(np.float64)
        return np.asarray(1.0 / (1.0 + np.exp(-(self.coefficients[0] + self._scale(values) @ self.coefficients[1:]))))
