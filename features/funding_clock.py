"""What is known of a symbol's funding at a time, by one rule for history and live."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from market.bars import MINUTE_MS
from market.funding import Fundings

LONGEST_MS = 8 * 60 * MINUTE_MS
"""The venue's longest funding interval, assumed where only one funding is known or one was missed."""

UNKNOWN_MS = -1
"""`next_ms` when no funding has been seen."""


class FundingKnown(NamedTuple):
    """What is known at a time: the last charged rate, and when the next is due."""

    rate: NDArray[np.float64]
    """NaN when no funding has been seen."""
    next_ms: NDArray[np.int64]
    """On a whole minute, always later than the time asked for; `UNKNOWN_MS` when no funding has been seen."""


def funding_known(funding: Fundings, time_ms: ArrayLike) -> FundingKnown:
    """What the fundings of one symbol tell at `time_ms` (one time or several), from the past alone.

    The last rate is that of the last funding at or before the time. The next is due one interval after
    it, the interval being the one observed last, at most eight hours; fundings that should have come
    since are passed over. Fundings may be a few milliseconds off, so they count as of their minute.

    >>> from market.funding import from_columns
    >>> known = funding_known(from_columns([3, 14_400_002], [0.0001, 0.0002]), [14_400_000, 14_459_999])
    >>> known.rate.tolist(), (known.next_ms / 3_600_000).tolist()
    ([0.0001, 0.0002], [8.0, 8.0])
    """
    times = np.atleast_1d(np.asarray(time_ms, dtype=np.int64))
    if funding.size == 0:
        return FundingKnown(np.full(times.shape, np.nan), np.full(times.shape, UNKNOWN_MS, dtype=np.int64))
    charged = funding["funding_time"]
    minutes = charged // MINUTE_MS * MINUTE_MS
    # The interval observed at each funding; the first has none behind it.
    intervals = np.full(charged.shape, LONGEST_MS, dtype=np.int64)
    intervals[1:] = np.clip(np.diff(minutes), MINUTE_MS, LONGEST_MS)
    at = np.searchsorted(charged, times, side="right") - 1
    seen = np.maximum(at, 0)
    passed = np.maximum((times - minutes[seen]) // intervals[seen], 0)
    next_ms = minutes[seen] + (passed + 1) * intervals[seen]
    rate = funding["funding_rate"][seen]
    return FundingKnown(np.where(at >= 0, rate, np.nan), np.where(at >= 0, next_ms, UNKNOWN_MS))
