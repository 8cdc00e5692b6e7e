"""Each symbol's opens at whole hours, for fundings that become known after they were charged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market.bars import Bars

HOUR_MS = 3_600_000
HOURS = 9
"""As far back as fundings are asked for, and one more."""

HOUR_OPEN = np.dtype([("open_time", "<i8"), ("open", "<f8")])


class HourOpens:
    """The first price of each whole hour of the last `HOURS`, by symbol.

    The venue charges at whole hours, at the price of that time. `table` HOUR_OPEN [S, HOURS] is a ring by hour.

    >>> from market.bars import BAR
    >>> bars = np.zeros(1, dtype=BAR)
    >>> bars["open_time"], bars["open"] = 8 * HOUR_MS, 101.5
    >>> opens = HourOpens(2)
    >>> opens.note(np.array([1]), bars)
    >>> opens.at(1, 8 * HOUR_MS), opens.at(0, 8 * HOUR_MS)
    (101.5, None)
    """

    def __init__(self, symbols: int) -> None:
        self.table = np.zeros((symbols, HOURS), dtype=HOUR_OPEN)
        self.table["open_time"] = -1

    def note(self, rows: NDArray[np.int64], bars: Bars) -> None:
        """Keep the opens of those of `bars` BAR[k], of the symbols `rows` int64[k], that begin an hour."""
        whole = np.flatnonzero(bars["open_time"] % HOUR_MS == 0)
        if whole.size:
            times = bars["open_time"][whole]
            place = rows[whole], times // HOUR_MS % HOURS
            self.table["open_time"][place], self.table["open"][place] = times, bars["open"][whole]

    def at(self, row: int, time_ms: int) -> float | None:
        """The open of the minute that began at `time_ms`; None when it began no hour, or is not known any more."""
        kept = self.table[row, time_ms // HOUR_MS % HOURS]
        return float(kept["open"]) if kept["open_time"] == time_ms else None
