"""Windows whose last bars say how far price will reach, or say nothing."""

from __future__ import annotations

import numpy as np

from models_registry.reach_rows import ReachRows, ReachSplit
from tests.models_registry import planted

HOUR = planted.HOUR
DAYS = 30


def reach_rows(count: int = 3000, told: bool = True, seed: int = 5) -> ReachRows:
    """Rows evenly over `DAYS`; the reach is a half-normal number times how wide the last eight bars were, if `told`.

    Every tenth window has an unknown bar; every other row has a volume profile, which says nothing.
    """
    rng = np.random.default_rng(seed)
    windows = planted.windows_of(count, rng)
    width = (windows[:, -8:, 1] - windows[:, -8:, 2]).mean(axis=1)
    reach = width[:, None] * np.abs(rng.standard_normal((count, 2))) * np.array([2.0, 1.5])
    if not told:
        reach = reach[rng.permutation(count)]
    windows[::10, 3] = np.nan
    at = planted.START + np.linspace(0, DAYS * 24 * HOUR, count).astype(np.int64)
    profile = np.abs(rng.standard_normal((count, 4))).astype(np.float32) * np.array([1, -1, 1, -1], np.float32)
    profile[::2] = np.nan
    return ReachRows.known(windows, reach[:, 0], reach[:, 1], at, at + 4 * HOUR, profile)


def reach_split(rows: ReachRows) -> ReachSplit:
    """The last third of the time judges, the sixth before it validates."""
    start = planted.START
    return ReachSplit.cut(rows, start + DAYS * 12 * HOUR, start + DAYS * 16 * HOUR, 4 * HOUR)
