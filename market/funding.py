"""Funding of perpetual contracts: what longs pay shorts, and when."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FUNDING = np.dtype([("funding_time", "<i8"), ("funding_rate", "<f8")])
"""One funding of one symbol: the time at which it was charged (ms UTC, the venue may be a few
milliseconds late) and its rate as a fraction of notional; a long pays it when it is positive."""

Fundings = NDArray[np.void]
"""A one-dimensional array of `FUNDING`, ascending in `funding_time`."""


def empty() -> Fundings:
    """No fundings."""
    return np.empty(0, dtype=FUNDING)


def from_columns(funding_time: object, funding_rate: object) -> Fundings:
    """Fundings from two equally long sequences, sorted by time.

    >>> from_columns([28_800_003, 0], [0.0001, -0.0002])["funding_rate"].tolist()
    [-0.0002, 0.0001]
    """
    times = np.asarray(funding_time, dtype=np.int64)
    fundings = np.empty(times.size, dtype=FUNDING)
    fundings["funding_time"] = times
    fundings["funding_rate"] = np.asarray(funding_rate, dtype=np.float64)
    return fundings[np.argsort(times, kind="stable")]


def between(fundings: Fundings, start_ms: int, end_ms: int) -> Fundings:
    """Those charged in [start_ms, end_ms)."""
    first, last = np.searchsorted(fundings["funding_time"], (start_ms, end_ms))
    return fundings[first:last]
