"""1m bars folded into longer ones as they close, several timeframes at once.

The same rule as `market.bars.resample`, kept as a state: a bucket of which a minute is missing
yields no bar, and a whole one yields its bar with its last minute.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.engine import as_bars
from features.kernels_cache import njit
from market.bars import BAR, MINUTE_MS, Bars

Counts = NDArray[np.int64]


@njit
def _fold_bar(partial: Any, filled: Counts, at: int, bar: Any, step: int) -> bool:
    """Add a minute to bucket partial[at], of which `filled[at]` minutes are in; whether it is now whole."""
    start = bar.open_time // step * step
    if filled[at] == 0 or partial[at].open_time != start:
        partial[at] = bar
        partial[at].open_time = start
        partial[at].close_time = start + step - 1
        filled[at] = 1
    else:
        bucket = partial[at]
        bucket.high = max(bucket.high, bar.high)
        bucket.low = min(bucket.low, bar.low)
        bucket.close = bar.close
        bucket.volume += bar.volume
        bucket.quote_volume += bar.quote_volume
        bucket.trades += bar.trades
        bucket.taker_buy_base += bar.taker_buy_base
        bucket.taker_buy_quote += bar.taker_buy_quote
        filled[at] += 1
    if filled[at] * MINUTE_MS == step:
        filled[at] = 0
        return True
    return False


@njit
def fold_wave(partial: Bars, filled: Counts, rows: Counts, bars: Bars, steps: Counts, whole: NDArray[np.bool_]) -> None:
    """One minute of several symbols: `whole` [k, T] says which buckets it completed, their bars are in `partial`."""
    for i in range(rows.size):
        for t in range(steps.size):
            whole[i, t] = _fold_bar(partial[rows[i]], filled[rows[i]], t, bars[i], steps[t])


@njit
def _fold_series(partial: Bars, filled: Counts, bars: Bars, steps: Counts, out: Bars, counts: Counts) -> None:
    for i in range(bars.size):
        for t in range(steps.size):
            if _fold_bar(partial, filled, t, bars[i], steps[t]):
                out[t, counts[t]] = partial[t]
                counts[t] += 1


def fold_series(partial: Bars, filled: Counts, bars: Bars, steps: tuple[int, ...]) -> list[Bars]:
    """Minutes of one symbol in order: the bars that they complete, per timeframe. `partial` and `filled` move on."""
    counts = np.zeros(len(steps), dtype=np.int64)
    out = np.empty((len(steps), bars.size * MINUTE_MS // min(steps) + 1), dtype=BAR)
    _fold_series(partial, filled, as_bars(bars), np.array(steps, dtype=np.int64), out, counts)
    return [out[t, : counts[t]].copy() for t in range(len(steps))]
