"""Where a series begins, in plain numpy: a second opinion on what the compiled step does.

A bar counts from its series' origin. A bar that cannot be (see `possible`) has no row and leaves the
count as it was; after more than `max_gap` missing bars the next bar is a new origin.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from market.bars import FLOWS, PRICES, Bars


def possible(bars: Bars) -> NDArray[np.bool_]:
    """Which bars can be, bool [n]: finite prices above zero with open and close within low to high, a finite volume."""
    low, high = bars["low"], bars["high"]
    can = (low > 0.0) & (high < np.inf) & (bars["volume"] >= 0.0) & (bars["volume"] < np.inf)
    for name in ("open", "close"):
        can &= (low <= bars[name]) & (bars[name] <= high)
    return np.asarray(can)


def counts(bars: Bars, max_gap: int) -> NDArray[np.int64]:
    """Bars since the origin at each bar, itself included, int64 [n]; 0 at a bar that cannot be.

    >>> from market.bars import from_columns
    >>> times, one = [0, 60_000, 240_000, 600_000], [1.0] * 4
    >>> bars = from_columns(dict(open_time=times, open=one, high=one, low=one, close=one, volume=one))
    >>> counts(bars, max_gap=2).tolist()
    [1, 2, 3, 1]
    """
    out = np.zeros(bars.size, dtype=np.int64)
    kept = np.flatnonzero(possible(bars))
    if not kept.size:
        return out
    times = bars["open_time"][kept]
    interval = bars["close_time"][kept] - times + 1
    fresh = np.concatenate(([True], np.diff(times) > (max_gap + 1) * interval[1:]))
    place = np.arange(kept.size)
    start = np.maximum.accumulate(np.where(fresh, place, 0))
    out[kept] = place - start + 1
    return out


def stretches(bars: Bars, max_gap: int) -> list[tuple[int, int]]:
    """The series between origins, as [start, stop) in bars."""
    count = counts(bars, max_gap)
    starts = np.flatnonzero(count == 1).tolist()
    return list(pairwise([*starts, bars.size]))


def with_holes(bars: Bars, max_gap: int) -> Bars:
    """A copy with everything that can go missing: a gap that is bridged, an impossible bar, a gap that is not.

    They lie at two fifths, half and three fifths of the series; one too short for them comes back whole.
    """
    size = bars.size
    if size < 10 * (max_gap + 2):
        return bars.copy()
    holed = bars.copy()
    for name in (*PRICES, *FLOWS):
        holed[name][size // 2] = np.nan
    missing = [*range(size * 2 // 5, size * 2 // 5 + max_gap), *range(size * 3 // 5, size * 3 // 5 + max_gap + 1)]
    return np.delete(holed, missing)
