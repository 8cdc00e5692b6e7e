"""Volume and flow: how much was traded, by whose initiative, and at what average price.

| feature | formula | unit | range | warm-up |
|---|---|---|---|---|
| `volume_zscore` | (volume - mean48) / deviation48 | deviations | ±6.9 | 48 |
| `taker_imbalance` | 2 taker_buy_base / volume - 1 | fraction | ±1 | 1 |
| `vwap_distance_48` | (close - sum48(typical volume) / sum48(volume)) / ATR14 | ATR | ±100 | 160 |

Equal volumes have z-score 0. A bar without volume has imbalance 0, NaN when the source does not say
who took. A window without volume has VWAP distance 0. Typical is (high + low + close) / 3.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import deviation_of, in_atr, mean_of, ratio, wilder_warmup
from features.families.shared import HISTORY
from features.kernels_cache import njit
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BARS = 48


@njit
def volume_flow(state: Slice, out: Slice, volume: float, taker_buy_base: float, volumes: Slice) -> None:
    """Volume z-score and taker imbalance. No state of its own."""
    mean = mean_of(volumes, HISTORY - BARS)
    out[0] = ratio(volume - mean, deviation_of(volumes, HISTORY - BARS, mean))
    if np.isnan(taker_buy_base):
        out[1] = np.nan
    elif volume > 0.0:
        out[1] = min(max(2.0 * taker_buy_base / volume - 1.0, -1.0), 1.0)
    else:
        out[1] = 0.0


@njit
def vwap(state: Slice, out: Slice, close: float, atr: float, typicals: Slice, volumes: Slice) -> None:
    """Distance to the volume-weighted average price of the window. No state of its own."""
    total = 0.0
    weighted = 0.0
    for i in range(HISTORY - BARS, HISTORY):
        total += volumes[i]
        weighted += volumes[i] * typicals[i]
    out[0] = in_atr(close - weighted / total, atr) if total > 0.0 else 0.0


_BOUND = (BARS - 1) / math.sqrt(BARS - 1)

VOLUME = Family(
    "volume",
    (
        Feature("volume_zscore", BARS, "(volume - mean48) / deviation48", "deviations", -_BOUND, _BOUND),
        Feature("taker_imbalance", 1, "2 taker_buy_base / volume - 1", "fraction", -1.0, 1.0, nan=True),
    ),
    0,
    volume_flow,
)
VWAP = Family(
    "vwap",
    (Feature("vwap_distance_48", wilder_warmup(14), "(close - VWAP48) / ATR14", "ATR", -100.0, 100.0),),
    0,
    vwap,
)
