"""Where the price goes after a decision: its move over the horizon and how far it reaches below and above.

The path is that of a position (`features.barriers`) without stop, target and costs. It begins at the open of the next
minute, the entry, and ends at the close of the first bar that closes at or after the horizon; a minute that is missing
before that leaves it unknown. Distances are in ATR of the decision, so that symbols and times compare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.engine import as_bars
from features.kernels_cache import njit
from market.bars import MINUTE_MS, Bars

PATH_TARGET = np.dtype(
    [
        ("return_ahead", "<f8"),  # last close less entry, in ATR
        ("reach_below", "<f8"),  # entry less the lowest low, in ATR, at least 0
        ("reach_above", "<f8"),  # highest high less the entry, in ATR, at least 0
        ("known_at", "<i8"),  # close_time of the last minute; 0 where the path is not known, and the others NaN
    ]
)
"""What came of one decision."""

PathTargets = NDArray[np.void]
"""An array of `PATH_TARGET`."""


@njit
def _follow(
    bars: Bars,
    first: NDArray[np.int64],
    decided_at: NDArray[np.int64],
    atr: NDArray[np.float64],
    horizon_ms: int,
    found: Any,
) -> None:
    for i in range(found.size):
        if not 0.0 < atr[i] < np.inf:
            continue
        time, expiry = decided_at[i], decided_at[i] + horizon_ms
        low, high = np.inf, -np.inf
        for at in range(first[i], bars.size):
            bar = bars[at]
            if bar.open_time != time + 1:
                break
            time = bar.close_time
            low, high = min(low, bar.low), max(high, bar.high)
            if time >= expiry:
                entry = bars[first[i]].open
                found[i].return_ahead = (bar.close - entry) / atr[i]
                found[i].reach_below = max(entry - low, 0.0) / atr[i]
                found[i].reach_above = max(high - entry, 0.0) / atr[i]
                found[i].known_at = time
                break


def path_targets(bars: Bars, decided_at: ArrayLike, atr: ArrayLike, horizon_minutes: int) -> PathTargets:
    """The paths after decisions of one symbol, `[n]` of `PATH_TARGET`.

    `bars` are its 1m bars ascending in time; `decided_at` int64 [n] the close times of the deciding bars, in any
    order; `atr` float64 [n] their ATR in price, NaN where it is not warm; the horizon is that of the trade plan.
    A path that the bars do not reach the end of is unknown.
    """
    bars = as_bars(bars)
    times = np.require(np.atleast_1d(decided_at), np.int64, ["C", "W"])
    scale = np.require(np.broadcast_to(np.asarray(atr, dtype=np.float64), times.shape), np.float64, ["C", "W"])
    found = np.zeros(times.size, dtype=PATH_TARGET)
    for name in ("return_ahead", "reach_below", "reach_above"):
        found[name] = np.nan
    first = np.searchsorted(bars["open_time"], times, side="right").astype(np.int64)
    _follow(bars, first, times, scale, horizon_minutes * MINUTE_MS, found)
    return found
