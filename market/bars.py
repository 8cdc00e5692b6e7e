"""The bar: its dtype, its intervals, what makes one valid, and resampling.

A bar is one closed kline. `open_time` is its first millisecond and `close_time` its last
(`open_time + interval - 1`, as the venue writes it), so a bar is known from `close_time` on.
Prices and volumes are float64. What a source does not record is NaN, except `quote_volume`,
which is then `close * volume`; `trades` is NaN in that case, which marks the estimate.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.errors import BarRejected, SourceUnreadable, UnknownInterval
from market.kernels_cache import njit

PRICES = ("open", "high", "low", "close")
FLOWS = ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote")
OPTIONAL = ("quote_volume", "trades", "taker_buy_base", "taker_buy_quote")

BAR = np.dtype([("open_time", "<i8"), ("close_time", "<i8")] + [(name, "<f8") for name in PRICES + FLOWS])
"""One closed kline of one series. The symbol is the series', not the bar's."""

Bars = NDArray[np.void]
"""A one-dimensional array of `BAR`, ascending in `open_time`."""

MINUTE_MS = 60_000
DAY_MS = 86_400_000

INTERVAL_MS: dict[str, int] = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS,
    "2h": 120 * MINUTE_MS,
    "4h": 240 * MINUTE_MS,
    "6h": 360 * MINUTE_MS,
    "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS,
    "1d": DAY_MS,
}
"""Length of each interval in milliseconds. All divide a UTC day."""


def interval_ms(name: str) -> int:
    """The length of an interval in milliseconds; `UnknownInterval` if the venue has no such interval.

    >>> interval_ms("15m")
    900000
    """
    try:
        return INTERVAL_MS[name]
    except KeyError:
        raise UnknownInterval(name, tuple(INTERVAL_MS)) from None


def empty() -> Bars:
    """No bars."""
    return np.empty(0, dtype=BAR)


def from_columns(columns: dict[str, Any], interval: str = "1m") -> Bars:
    """Bars from named columns (any sequence, None for null). Absent optional columns follow the module's rule."""
    open_time = np.asarray(columns["open_time"], dtype=np.int64)
    bars = np.empty(open_time.size, dtype=BAR)
    bars["open_time"] = open_time
    bars["close_time"] = open_time + interval_ms(interval) - 1
    for name in PRICES + FLOWS:
        values = columns.get(name)
        bars[name] = np.nan if values is None else np.asarray(values, dtype=np.float64)
    missing = np.isnan(bars["quote_volume"])
    bars["quote_volume"][missing] = (bars["close"] * bars["volume"])[missing]
    return bars


def read(path: str | Path) -> Bars:
    """One recorded file (Parquet, or the archive's CSV or zip) as bars in ascending `open_time`.

    The interval is taken from the file name (`BTCUSDT-1m-….parquet`).
    Raises `SourceUnreadable` when the file is not such a recording.
    """
    from market.sources.recorded import read_file

    return read_file(Path(path))


def fault(bar: np.void) -> str | None:
    """Why a bar by itself is not a possible kline, or None.

    >>> bars = from_columns(dict(open_time=[0], open=[1], high=[0.5], low=[0.9], close=[1], volume=[3]))
    >>> fault(bars[0])
    'high 0.5 < low 0.9'
    """
    # As plain numbers at once: it is asked of every bar that a stream closes.
    open_time, close_time, open_, high, low, close, *flows = bar.item()
    if not all(map(math.isfinite, (open_, high, low, close, flows[0]))):
        return "a price or the volume is not a finite number"
    if min(open_, high, low, close) <= 0:
        return "a price is not positive"
    if high < low:
        return f"high {high:g} < low {low:g}"
    if not (low <= open_ <= high and low <= close <= high):
        return f"open {open_:g} or close {close:g} lies outside low {low:g} to high {high:g}"
    if any(flow < 0 for flow in flows):
        return "a volume is negative"
    if close_time <= open_time:
        return "it closes before it opens"
    return None


def check_next(symbol: str, bar: np.void, previous_open_time: int | None) -> None:
    """Raise `BarRejected` when `bar` cannot follow the series' last bar or is not a possible kline."""
    open_time = int(bar["open_time"])
    if previous_open_time is not None and open_time == previous_open_time:
        raise BarRejected(symbol, open_time, "it repeats the last bar")
    if previous_open_time is not None and open_time < previous_open_time:
        raise BarRejected(symbol, open_time, "it is older than the last bar")
    reason = fault(bar)
    if reason is not None:
        raise BarRejected(symbol, open_time, reason)


def validate(symbol: str, bars: Bars) -> Bars:
    """`bars`, after checking every one of them in order; the first fault raises `BarRejected`."""
    ok = np.ones(bars.size, dtype=bool)
    for name in (*PRICES, "volume"):
        ok &= np.isfinite(bars[name])
    for name in PRICES:
        ok &= (bars["low"] <= bars[name]) & (bars[name] <= bars["high"]) & (bars[name] > 0)
    for name in FLOWS:
        ok &= ~(bars[name] < 0)
    ok &= bars["close_time"] > bars["open_time"]
    ok[1:] &= np.diff(bars["open_time"]) > 0
    if not ok.all():
        index = int(np.argmin(ok))
        check_next(symbol, bars[index], int(bars["open_time"][index - 1]) if index else None)
        raise SourceUnreadable(symbol, f"bar {index} breaks a rule that no message names")
    return bars


def gaps(bars: Bars, interval: str = "1m") -> list[tuple[int, int]]:
    """Missing stretches inside the bars' coverage, as [from, to) in open times.

    >>> one = [1, 1]
    >>> bars = from_columns(dict(open_time=[0, 180_000], open=one, high=one, low=one, close=one, volume=one))
    >>> gaps(bars)
    [(60000, 180000)]
    """
    step = interval_ms(interval)
    times = bars["open_time"]
    where = np.flatnonzero(np.diff(times) > step)
    return [(int(times[i]) + step, int(times[i + 1])) for i in where]


@njit
def _resample(bars: Bars, out: Bars, step: int, source_step: int) -> int:
    """Fold complete buckets of `bars` into `out`; returns how many."""
    per_bucket = step // source_step
    count = 0
    filled = 0
    bucket = np.int64(-1)
    for i in range(bars.size):
        start = bars[i]["open_time"] // step * step
        if start != bucket:
            bucket = start
            filled = 0
            out[count] = bars[i]
            out[count]["open_time"] = start
            out[count]["close_time"] = start + step - 1
        else:
            out[count]["high"] = max(out[count]["high"], bars[i]["high"])
            out[count]["low"] = min(out[count]["low"], bars[i]["low"])
            out[count]["close"] = bars[i]["close"]
            out[count]["volume"] += bars[i]["volume"]
            out[count]["quote_volume"] += bars[i]["quote_volume"]
            out[count]["trades"] += bars[i]["trades"]
            out[count]["taker_buy_base"] += bars[i]["taker_buy_base"]
            out[count]["taker_buy_quote"] += bars[i]["taker_buy_quote"]
        filled += 1
        if filled == per_bucket:
            count += 1
            bucket = np.int64(-1)
    return count


def resample(bars: Bars, interval: str, source: str = "1m") -> Bars:
    """`bars` of interval `source` folded into longer ones, closed and complete bars only.

    A bucket of which any source bar is missing yields no bar: it is absent, never filled. So the
    partial buckets at the edges of a recording vanish, and live, where a bucket ends with its last
    source bar, gives the same bars.
    """
    step, source_step = interval_ms(interval), interval_ms(source)
    if step % source_step or step < source_step:
        raise UnknownInterval(f"{interval} from {source}", tuple(INTERVAL_MS))
    if step == source_step:
        return bars.copy()
    out = np.empty(bars.size // (step // source_step) + 2, dtype=BAR)
    # An incomplete bucket is overwritten by the next, so the spare slot is never part of the result.
    count: int = _resample(bars, out, step, source_step)
    return out[:count].copy()
