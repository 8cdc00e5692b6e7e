"""How good a candidate looks before any model has seen it: four numbers in [0, 1] and their mean.

| dimension | 1 means | 0 means |
|---|---|---|
| `alignment` | every timeframe's EMA21 slopes the trade's way | every one slopes against it |
| `volume` | far more volume than usual (z-score >= 2) | far less (z-score <= -1) |
| `volatility` | the ATR is four times the costs of a round trip | it is half of them |
| `room` | three ATR to the swing that stands in the way, or none in the way | the swing is right there |

What is unknown counts as 0.5. Plain arithmetic on each row by itself, so a batch can be split anyhow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec

Column = NDArray[np.float32]

VERSION = 1
"""Raised whenever the same decision rows would give other numbers; part of the `DecisionSpec`'s `id`."""

ROUND_TRIP = np.float32(0.0012)
"""Fee, spread and slippage of a round trip as a fraction of the price, by which volatility is judged."""

NEUTRAL = np.float32(0.5)


def _scaled(value: Column, low: float, high: float) -> Column:
    """`value` from [low, high] to [0, 1], clipped; NaN becomes neutral."""
    scaled = np.clip((value - np.float32(low)) / np.float32(high - low), np.float32(0), np.float32(1))
    return np.where(np.isnan(scaled), NEUTRAL, scaled)


def dimensions(
    decision: NDArray[np.float32], direction: NDArray[np.int8], spec: DecisionSpec = DECISION_SPEC
) -> dict[str, Column]:
    """Each dimension by its name, float32 [k], for decision rows [k, D] and directions [k]."""
    side = np.asarray(direction).astype(np.float32)

    def column(name: str) -> Column:
        return decision[:, spec.index(name)]

    alignment = np.zeros(len(decision), dtype=np.float32)
    for timeframe in spec.timeframes:
        alignment += _scaled(side * column(f"{timeframe}.ema_21_slope"), -0.1, 0.1)
    first = spec.timeframes[0]
    ahead = np.where(side > 0, column(f"{first}.swing_high_distance"), column(f"{first}.swing_low_distance"))
    return {
        "alignment": alignment / np.float32(len(spec.timeframes)),
        "volume": _scaled(column(f"{first}.volume_zscore"), -1.0, 2.0),
        "volatility": _scaled(column(f"{first}.atr_14_fraction") / ROUND_TRIP, 0.5, 4.0),
        # A swing that price has passed no longer stands in the way.
        "room": np.where(ahead < 0, np.float32(1), _scaled(ahead, 0.0, 3.0)),
    }


def quality(
    decision: NDArray[np.float32], direction: NDArray[np.int8], spec: DecisionSpec = DECISION_SPEC
) -> NDArray[np.float32]:
    """The mean of the dimensions, float32 [k] in [0, 1]."""
    total = np.zeros(len(decision), dtype=np.float32)
    parts = dimensions(decision, direction, spec)
    for part in parts.values():
        total += part
    return total / np.float32(len(parts))
