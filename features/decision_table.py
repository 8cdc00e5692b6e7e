"""A market of several symbols, and all that models see of it as one table: what `decision_proofs` compares.

A table's columns are those of the decision row, then the window beside it (`window.31.bar_open_move` is the oldest
bar's, `window.0.…` the row's own), the `atr` in price and whether the row is `ready`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from features.decision import DecisionState, DecisionWave
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.funding_clock import funding_known
from features.history import decision_history
from market import funding as no_funding
from market.bars import Bars
from market.funding import Fundings

EXTRA = ("atr", "ready")
"""The last columns of a table."""


@dataclass(frozen=True)
class Market:
    """1m bars and fundings of several symbols; a symbol may have none of either."""

    bars: Mapping[str, Bars]
    fundings: Mapping[str, Fundings]

    @property
    def symbols(self) -> tuple[str, ...]:
        """The universe, in order."""
        return tuple(self.bars)

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """close_time of every minute that any symbol has, int64 [M] ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(bars["close_time"] for bars in self.bars.values())]))

    def between(self, start_ms: int, stop_ms: int) -> Market:
        """What happened from `start_ms` to before `stop_ms`: bars that lie wholly within, fundings charged."""
        bars = {s: b[(b["open_time"] >= start_ms) & (b["close_time"] < stop_ms)] for s, b in self.bars.items()}
        return Market(bars, {s: no_funding.between(f, start_ms, stop_ms) for s, f in self.fundings.items()})

    def before(self, time_ms: int) -> Market:
        """What was known right before `time_ms`."""
        return self.between(0, time_ms)

    def since(self, time_ms: int) -> Market:
        """What somebody knows who came at `time_ms`."""
        return self.between(time_ms, np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Table:
    """Decision rows with their windows, ordered by (time, symbol)."""

    names: tuple[str, ...]
    symbols: tuple[str, ...]
    time: NDArray[np.int64]
    """[N] close_time of the deciding bar."""
    symbol: NDArray[np.int64]
    """[N] index into `symbols`."""
    values: NDArray[np.float32]
    """[N, K]"""

    def before(self, time_ms: int) -> Table:
        """The rows known before `time_ms`."""
        return self.take(self.time < time_ms)

    def take(self, rows: NDArray[np.bool_]) -> Table:
        """Some of the rows."""
        return Table(self.names, self.symbols, self.time[rows], self.symbol[rows], self.values[rows])

    def column(self, name: str) -> int:
        """The place of a column."""
        return self.names.index(name)


def names_of(spec: DecisionSpec) -> tuple[str, ...]:
    """The columns of a table."""
    lags = range(spec.window - 1, -1, -1)
    return (*spec.names, *(f"window.{lag}.{name}" for lag in lags for name in spec.window_names), *EXTRA)


def _joined(
    decision: NDArray[np.float32], windows: NDArray[np.float32], atr: NDArray[np.float64], ready: NDArray[np.bool_]
) -> NDArray[np.float32]:
    flat = windows.reshape(len(windows), windows.shape[1] * windows.shape[2])
    return np.concatenate((decision, flat, np.stack((atr, ready), axis=1).astype(np.float32)), axis=1)


def history_table(market: Market, spec: DecisionSpec = DECISION_SPEC) -> Table:
    """The table of history."""
    history = decision_history(market.bars, market.fundings, spec)
    windows = history.windows(np.arange(len(history)))
    values = _joined(history.decision, windows, history.atr, history.ready)
    return Table(names_of(spec), market.symbols, history.time, history.symbol.astype(np.int64), values)


def waves_table(waves: Sequence[DecisionWave], symbols: tuple[str, ...], spec: DecisionSpec = DECISION_SPEC) -> Table:
    """The table of live waves, in order of time."""
    parts = [_joined(wave.decision, wave.windows, wave.atr, wave.ready) for wave in waves]
    names = names_of(spec)
    return Table(
        names,
        symbols,
        np.repeat(np.array([wave.time_ms for wave in waves], np.int64), [wave.rows.size for wave in waves]),
        np.concatenate([np.empty(0, np.int64), *(wave.rows for wave in waves)]),
        np.concatenate([np.empty((0, len(names)), np.float32), *parts]),
    )


class Minutes:
    """A market by the minute, as a worker receives it."""

    def __init__(self, market: Market) -> None:
        every = np.concatenate(list(market.bars.values()))
        row = np.repeat(np.arange(len(market.bars)), [bars.size for bars in market.bars.values()])
        order = np.lexsort((row, every["close_time"]))
        self._bars, self._row = every[order], row[order]
        self.times, starts = np.unique(self._bars["close_time"], return_index=True)
        self._edges = np.append(starts, row.size)
        known = [funding_known(market.fundings.get(s, no_funding.empty()), self.times) for s in market.symbols]
        self._rate = np.array([each.rate for each in known])
        self._next = np.array([each.next_ms for each in known])

    def feed(self, state: DecisionState, start: int, stop: int) -> Iterator[DecisionWave]:
        """The waves with rows in them that minutes `start` to `stop` of `times` bring about."""
        for at in range(start, stop):
            part = slice(self._edges[at], self._edges[at + 1])
            rate, due = self._rate[:, at].copy(), self._next[:, at].copy()
            wave = state.on_minute(int(self.times[at]), self._row[part], self._bars[part], rate, due)
            if wave is not None and wave.rows.size:
                yield wave
