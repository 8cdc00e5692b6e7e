"""What a bar looks like before it closes: a path through the minute that respects its open, high, low and close.

The path has four corners, evenly spaced in time: open, the extreme that lies against the bar's direction, the other
extreme, close. So a rising bar falls to its low first, and a falling bar rises to its high first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, FLOWS, PRICES, Bars

FLOWS_PER_UNIT = 1000.0
"""Volumes of an unfinished bar are rounded down to a thousandth, trades to whole ones."""


def so_far(bars: Bars, fraction: float, price_decimals: NDArray[np.int64]) -> Bars:
    """`bars` as they were when `fraction` (0 to below 1) of their time had passed.

    `price_decimals[i]` decimals are kept of the last price of `bars[i]`; it never leaves the bar's range. As
    `fraction` grows the high never falls, the low never rises and volumes never shrink.

    >>> bars = np.zeros(1, dtype=BAR)
    >>> for name, value in {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0}.items(): bars[name] = value
    >>> [so_far(bars, f, np.array([2]))[["open", "high", "low", "close"]].item() for f in (0.0, 0.5, 0.9)]
    [(10.0, 10.0, 10.0, 10.0), (10.0, 10.5, 9.0, 10.5), (10.0, 12.0, 9.0, 11.3)]
    """
    open_, high, low, close = (bars[name] for name in PRICES)
    rising = close >= open_
    first, second = np.where(rising, low, high), np.where(rising, high, low)
    leg = min(int(fraction * 3), 2)
    part = fraction * 3 - leg
    start, stop = ((open_, first), (first, second), (second, close))[leg]
    scale = 10.0**price_decimals
    last = np.clip(np.round((start + (stop - start) * part) * scale) / scale, low, high)
    seen = (open_, last) if leg == 0 else (open_, first, last) if leg == 1 else (high, low)
    now = bars.copy()
    now["high"], now["low"], now["close"] = np.max(seen, axis=0), np.min(seen, axis=0), last
    for name in FLOWS:
        per_unit = 1.0 if name == "trades" else FLOWS_PER_UNIT
        now[name] = np.floor(bars[name] * fraction * per_unit) / per_unit
    return now


def fold(bars: Bars, open_time: int, step: int) -> Bars:
    """The bars of a bucket that has not ended (at least one) as one bar of that bucket."""
    out = np.empty(1, dtype=BAR)
    out["open_time"], out["close_time"] = open_time, open_time + step - 1
    out["open"], out["close"] = bars["open"][0], bars["close"][-1]
    out["high"], out["low"] = bars["high"].max(), bars["low"].min()
    for name in FLOWS:
        out[name] = bars[name].sum()
    return out
