"""Regimes by name, and what is read of a decision row to foretell them: `regime_inputs` without its kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RANGING, TRENDING, VOLATILE = 0, 1, 2
"""Values of the column `regime`."""
REGIMES = ("ranging", "trending", "volatile")
"""Their names, by value."""

HORIZON_MS = 3_600_000
"""How far ahead the regime to come is: an hour, about as long as a regime lasts and shorter than a trade may."""

STATES = (
    "regime",
    "regime_bars",
    "adx_14",
    "plus_di_14",
    "minus_di_14",
    "bollinger_width_20",
    "atr_14_fraction",
    "volatility_ratio",
)
"""The columns of the deciding timeframe that are read, in the order of `regime_states`."""

_OF_PATH = ("efficiency", "directedness", "mean_range", "span", "spread")
INPUTS = (
    *(f"is_{name}" for name in REGIMES),
    *(f"{name}_{part}" for name in REGIMES for part in ("bars", "adx", "directed", "width")),
    "volatility_ratio",
    *_OF_PATH,
    *(f"half_{name}" for name in _OF_PATH),
)
"""The names of the inputs, in order."""

FEWEST_BARS = 4
"""Least `lookback`: half of it still has a path."""


def regime_states(decision: NDArray[np.float32], names: Sequence[str], timeframe: str = "5m") -> NDArray[np.float32]:
    """The columns `STATES` of decision rows [k, D] whose columns are `names`, float32 [k, 8].

    NaN throughout when the rows have no such columns, as those of a specification without a regime.
    """
    at = {name: index for index, name in enumerate(names)}
    wanted = [at.get(f"{timeframe}.{name}", -1) for name in STATES]
    if -1 in wanted:
        return np.full((len(decision), len(STATES)), np.nan, dtype=np.float32)
    return np.ascontiguousarray(decision[:, wanted], dtype=np.float32)
