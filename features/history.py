"""Decision rows of a stretch of history: the rows that `DecisionState` would have given, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features import decision_rows
from features.benchmark_beta import BetaWindow
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.engine import compute
from features.errors import BarsUnusable
from features.fold import fold_series
from features.funding_clock import funding_known
from market import funding as no_funding
from market.bars import BAR, MINUTE_MS, Bars
from market.funding import Fundings


@dataclass(frozen=True)
class DecisionHistory:
    """Decision rows of several symbols, ordered by (time, symbol)."""

    symbols: tuple[str, ...]
    spec: DecisionSpec
    time: NDArray[np.int64]
    """[N] close_time of the deciding bar."""
    symbol: NDArray[np.int32]
    """[N] index into `symbols`."""
    decision: NDArray[np.float32]
    """[N, D]"""
    close: NDArray[np.float64]
    """[N] price"""
    atr: NDArray[np.float64]
    """[N] ATR14 of the deciding timeframe, in price; NaN until warm."""
    ready: NDArray[np.bool_]
    """[N] whether the deciding timeframe is warm and the window full."""
    _bars: NDArray[np.float32] = field(repr=False)
    """[N, C] the window's columns of every bar, by symbol, then time."""
    _bar: NDArray[np.int64] = field(repr=False)
    """[N] where each row's own bar is in `_bars`."""
    _first: NDArray[np.int64] = field(repr=False)
    """[S] where each symbol begins in `_bars`."""

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self.time.size)

    def windows(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """The windows of the rows at `index`, float32 [m, W, C], made when asked for; NaN where there was no bar."""
        index = np.asarray(index)
        at = self._bar[index][:, None] + np.arange(1 - self.spec.window, 1)
        missing = at < self._first[self.symbol[index]][:, None]
        windows = self._bars[np.where(missing, 0, at)]
        windows[missing] = np.nan
        return windows


@dataclass(frozen=True)
class _Series:
    """What one symbol contributes: its bars and rows per timeframe."""

    bars: list[Bars]
    rows: list[NDArray[np.float32]]


def _series(minutes: Bars, spec: DecisionSpec) -> _Series:
    if (minutes["close_time"] - minutes["open_time"] + 1 != MINUTE_MS).any():
        raise BarsUnusable("decision rows are made from 1m bars")
    late = np.flatnonzero(np.diff(minutes["open_time"]) <= 0)
    if late.size:
        raise BarsUnusable("not after the minute before it", int(late[0]) + 1)
    partial = np.zeros(len(spec.steps), dtype=BAR)
    folded = fold_series(partial, np.zeros(len(spec.steps), dtype=np.int64), minutes, spec.steps)
    return _Series(folded, [compute(bars, spec.base) for bars in folded])


def _block(series: _Series, funding: Fundings, spec: DecisionSpec) -> NDArray[np.float32]:
    """One symbol's decision rows, all but the cross-section."""
    times = series.bars[0]["close_time"]
    block = np.empty((times.size, len(spec.names)), dtype=np.float32)
    block[:, spec.timeframe_block(spec.timeframes[0])] = series.rows[0]
    for index in range(1, len(spec.timeframes)):
        closed = series.bars[index]["close_time"]
        at = np.searchsorted(closed, times, side="right") - 1
        if closed.size:
            rows, closed_at = series.rows[index][at], np.where(at >= 0, closed[at], -1)
        else:
            rows = np.full((times.size, len(spec.base.names)), np.nan, dtype=np.float32)
            closed_at = np.full(times.size, -1, dtype=np.int64)
        decision_rows.fill_longer(block, index, rows, closed_at, times, spec)
    decision_rows.fill_calendar(block, times, spec)
    decision_rows.fill_funding(block, times, *funding_known(funding, times), spec)
    return block


def _full_windows(rows: NDArray[np.float32], spec: DecisionSpec) -> NDArray[np.bool_]:
    """Which rows of one symbol have a whole window behind them."""
    finite = np.isfinite(rows[:, list(spec.window_columns)]).all(axis=1)
    total = np.zeros(spec.window + len(rows), dtype=np.int64)
    total[spec.window :] = np.cumsum(finite)
    return np.asarray(total[spec.window :] - total[: len(rows)] == spec.window)


def decision_history(
    bars: Mapping[str, Bars], funding: Mapping[str, Fundings], spec: DecisionSpec = DECISION_SPEC
) -> DecisionHistory:
    """The decision rows of 1m `bars`, per symbol in ascending time; a symbol without `funding` has none known.

    Bit for bit the rows of a `DecisionState` over the same symbols that took the same minutes one by one.
    Raises `BarsUnusable` when a symbol's bars are not ascending 1m bars.
    """
    symbols = tuple(bars)
    every = [_series(bars[symbol], spec) for symbol in symbols]
    sizes = [series.bars[0].size for series in every]
    first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    time = np.concatenate([series.bars[0]["close_time"] for series in every] or [np.empty(0, np.int64)])
    symbol = np.repeat(np.arange(len(symbols), dtype=np.int32), sizes)
    # By time, and within it by symbol: the sort is stable and they come by symbol.
    order = np.argsort(time, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)

    decision = np.empty((time.size, len(spec.names)), dtype=np.float32)
    close, atr = np.empty(time.size), np.empty(time.size)
    ready = np.empty(time.size, dtype=np.bool_)
    window = BetaWindow(symbols, spec)
    moves = np.empty(time.size, dtype=np.float32)
    for index, series in enumerate(every):
        here = place[first[index] : first[index + 1]]
        known = funding.get(symbols[index], no_funding.empty())
        decision[here] = _block(series, known, spec)
        moves[here] = window.moves(index, series.bars[0])
        close[here] = series.bars[0]["close"]
        atr[here] = decision_rows.price_atr(series.rows[0], series.bars[0]["close"], spec)
        ready[here] = decision_rows.complete(series.rows[0], spec) & _full_windows(series.rows[0], spec)
    time = time[order]
    starts = np.concatenate((np.flatnonzero(np.diff(time, prepend=-1)), [time.size])).astype(np.int64)
    betas = window.history(time[starts[:-1]], starts, symbol[order].astype(np.int64), moves)
    decision_rows.fill_cross_section(decision, starts, betas, spec)
    columns = list(spec.window_columns)
    window_bars = [series.rows[0][:, columns] for series in every] or [np.empty((0, len(columns)), np.float32)]
    return DecisionHistory(
        symbols, spec, time, symbol[order], decision, close, atr, ready, np.concatenate(window_bars), order, first[:-1]
    )
