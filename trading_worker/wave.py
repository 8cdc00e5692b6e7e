"""The wave: the one-minute bars that closed at one time, with what is known of funding at that time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, Bars


@dataclass(frozen=True, slots=True, eq=False)
class MinuteBars:
    """Bars of one minute: `rows` int64[k] ascending, `bars` BAR[k], all closed at `time_ms`."""

    time_ms: int
    rows: NDArray[np.int64]
    bars: Bars


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """One minute's closed bars of the engine's symbols, complete or cut at a deadline.

    Parameters
    ----------
    time_ms
        Close time of the minute (`open_time + 59_999`), int64 milliseconds UTC.
    rows
        int64[k], the symbols' positions in `Engine.symbols`, ascending. A row may come twice when the
        source sends an earlier bar again; the engine sorts that out.
    bars
        BAR[k], one for each of `rows`.
    funding_rate
        float64[S], the rate of each symbol's last funding by `time_ms` (a fraction of notional), NaN if none is known.
        This and the next are what `features.funding_clock.funding_known` tells, in history too.
    next_funding_ms
        int64[S], when each symbol is charged next, -1 if not known.
    funding_now
        float64[S], the rate charged inside this minute, NaN where none is.
    late_funding
        (row, time, rate) of fundings that were charged in an earlier minute and became known only now, in order.
    absent
        Symbols that should have had a bar and did not (by the deadline, when live).
    late
        Bars that were absent from earlier waves, ascending in time, each older than its symbol's bar in `bars`. They
        are fed first, so that features and positions see every minute; nothing is decided on them.
    unknown
        (symbol, open_time) of bars of symbols that the engine does not have: journaled as rejected.
    """

    time_ms: int
    rows: NDArray[np.int64]
    bars: Bars
    funding_rate: NDArray[np.float64]
    next_funding_ms: NDArray[np.int64]
    funding_now: NDArray[np.float64]
    absent: tuple[str, ...] = ()
    late: tuple[MinuteBars, ...] = ()
    unknown: tuple[tuple[str, int], ...] = ()
    late_funding: tuple[tuple[int, int, float], ...] = ()

    @staticmethod
    def of(
        symbols: Sequence[str],
        time_ms: int,
        bars: Mapping[str, np.void],
        funding_rate: NDArray[np.float64] | None = None,
        next_funding_ms: NDArray[np.int64] | None = None,
        funding_now: NDArray[np.float64] | None = None,
        absent: tuple[str, ...] = (),
    ) -> Wave:
        """A wave from one `BAR` scalar per symbol, in any order; symbols that `symbols` lacks go to `unknown`."""
        row_of = {symbol: row for row, symbol in enumerate(symbols)}
        known = sorted((row_of[symbol], bar) for symbol, bar in bars.items() if symbol in row_of)
        count = len(row_of)
        return Wave(
            time_ms=time_ms,
            rows=np.array([row for row, _ in known], dtype=np.int64),
            bars=np.array([bar for _, bar in known], dtype=BAR),
            funding_rate=np.full(count, np.nan) if funding_rate is None else funding_rate,
            next_funding_ms=np.full(count, -1, dtype=np.int64) if next_funding_ms is None else next_funding_ms,
            funding_now=np.full(count, np.nan) if funding_now is None else funding_now,
            absent=absent,
            unknown=tuple((s, int(bar["open_time"])) for s, bar in sorted(bars.items()) if s not in row_of),
        )
