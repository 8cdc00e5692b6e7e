"""How long something takes: a count, a sum, the last, a maximum and quantiles, in constant memory."""

from __future__ import annotations

import math

_PER_DOUBLING = 8
_FIRST_S = 1e-6
_BUCKETS = 36 * _PER_DOUBLING


class Delays:
    """Delays in seconds. Quantiles are right to 9 %: buckets are an eighth of a doubling wide.

    >>> delays = Delays()
    >>> for seconds in (0.1, 0.2, 2.0):
    ...     delays.add(seconds)
    >>> delays.count, delays.worst_s, round(delays.quantile(0.5), 1)
    (3, 2.0, 0.2)
    """

    __slots__ = ("_buckets", "count", "last_s", "sum_s", "worst_s")

    def __init__(self) -> None:
        self.count = 0
        self.sum_s = 0.0
        self.worst_s = 0.0
        self.last_s = math.nan
        self._buckets = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        """One more; less than nothing counts as nothing."""
        self.last_s = seconds = max(seconds, 0.0)
        self.count += 1
        self.sum_s += seconds
        self.worst_s = max(self.worst_s, seconds)
        place = 0 if seconds <= _FIRST_S else int(math.log2(seconds / _FIRST_S) * _PER_DOUBLING) + 1
        self._buckets[min(place, _BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float:
        """The delay that `share` of all do not exceed, seconds; NaN when there were none."""
        if not self.count:
            return math.nan
        wanted, found = share * self.count, 0
        for place, count in enumerate(self._buckets):
            found += count
            if found >= wanted and count:
                return min(self.worst_s, _FIRST_S * math.exp2(place / _PER_DOUBLING))
        return self.worst_s
