"""Which bars of a wave may reach the features, and what is said of the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, FLOWS, MINUTE_MS, PRICES, Bars, check_next, fault
from market.errors import BarRejected as Rejected
from market.kernels_cache import compiler
from trading_worker.events import AnyEvent, BarRejected, BarRevised, BarValues
from trading_worker.wave import MinuteBars

njit = compiler("market", "features", "trading_worker")

NEVER = -MINUTE_MS
"""`open_time` in `last` of a symbol that has had no bar."""


class Screened(NamedTuple):
    """The bars that passed, each row at most once, and the events of those that did not."""

    rows: NDArray[np.int64]
    bars: Bars
    events: list[AnyEvent]
    refused: tuple[int, ...]
    """Rows of which a bar did not pass and none did."""


@njit
def _possible(bar: Any) -> bool:
    """Whether `market.bars.fault` finds nothing."""
    prices = (
        bar.low > 0.0
        and bar.low <= bar.open
        and bar.open <= bar.high
        and bar.low <= bar.close
        and bar.close <= bar.high
        and bar.high < np.inf
    )
    flows = bar.volume >= 0.0 and bar.volume < np.inf
    # What a source does not record is NaN, and NaN is not negative.
    return (
        prices
        and flows
        and not (bar.quote_volume < 0.0 or bar.trades < 0.0 or bar.taker_buy_base < 0.0 or bar.taker_buy_quote < 0.0)
    )


@njit
def _screen(time_ms: int, rows: NDArray[np.int64], bars: Bars, last: Bars, passed: NDArray[np.bool_]) -> bool:
    """Mark the bars that pass; returns whether all do."""
    every = True
    before = -1
    for i in range(rows.size):
        row = rows[i]
        ok = (
            before < row
            and 0 <= row < last.size
            and bars[i].close_time == time_ms
            and bars[i].open_time == time_ms - MINUTE_MS + 1
            and bars[i].open_time > last[row].open_time
            and _possible(bars[i])
        )
        passed[i] = ok
        every = every and ok
        if ok:
            before = row
    return every


@njit
def _remember(rows: NDArray[np.int64], bars: Bars, last: Bars) -> None:
    for i in range(rows.size):
        last[rows[i]] = bars[i]


def no_bars(symbols: int) -> Bars:
    """What `screen` takes as `last` when there has been no bar: BAR[S]."""
    last = np.empty(symbols, dtype=BAR)
    for name in PRICES + FLOWS:
        last[name] = np.nan
    last["open_time"] = last["close_time"] = NEVER
    return last


def screen(minute: MinuteBars, symbols: tuple[str, ...], last: Bars) -> Screened:
    """Sort out one minute's bars and note those that pass in `last` BAR[S], the last bar of every symbol.

    A bar passes when its symbol is known, it closes with the minute, it is later than its symbol's last bar and
    it is a possible kline. One that repeats the last bar's time with other values is a revision: both are
    written down, and the bar that was used stays.
    """
    # Read-only arrays would be compiled for once more.
    bars = np.require(minute.bars, requirements=["C", "W"])
    rows = np.require(minute.rows, np.int64, ["C", "W"])
    passed = np.empty(rows.size, dtype=np.bool_)
    if _screen(minute.time_ms, rows, bars, last, passed):
        _remember(rows, bars, last)
        return Screened(rows, bars, [], ())
    used = {int(row): bar for row, bar in zip(rows[passed], bars[passed], strict=True)}
    events = [
        _about(minute.time_ms, int(row), bar, symbols, last, used)
        for row, bar in zip(rows[~passed], bars[~passed], strict=True)
    ]
    refused = sorted({int(row) for row in rows[~passed] if 0 <= row < len(symbols)} - used.keys())
    accepted = Screened(rows[passed].copy(), bars[passed].copy(), events, tuple(refused))
    _remember(accepted.rows, accepted.bars, last)
    return accepted


def _about(
    time_ms: int, row: int, bar: np.void, symbols: tuple[str, ...], last: Bars, used: dict[int, np.void]
) -> AnyEvent:
    """What is to be said of a bar that did not pass."""
    open_time = int(bar["open_time"])
    if not 0 <= row < len(symbols):
        return BarRejected(
            time_ms=time_ms, symbol=f"row {row}", open_time=open_time, reason="it is of no symbol of this worker"
        )
    known = last[row]
    if row in used and open_time >= int(used[row]["open_time"]):
        known = used[row]
    symbol = symbols[row]
    same_time = open_time == int(known["open_time"])
    if same_time and fault(bar) is None and _differs(known, bar):
        return BarRevised(
            time_ms=time_ms, symbol=symbol, open_time=open_time, used=BarValues.of(known), revised=BarValues.of(bar)
        )
    try:
        before = int(known["open_time"])
        check_next(symbol, bar, None if before == NEVER else before)
    except Rejected as error:
        return BarRejected(time_ms=time_ms, symbol=symbol, open_time=open_time, reason=error.reason)
    return BarRejected(
        time_ms=time_ms, symbol=symbol, open_time=open_time, reason="it is not the minute that closes with its wave"
    )


def _differs(known: np.void, bar: np.void) -> bool:
    """Whether the values differ. A bar of which only the time is known (a warm start) differs from none."""
    return bool(np.isfinite(known["close"])) and known.tobytes() != bar.tobytes()
