"""Decision rows live: minutes in, one wave of rows out at every close of the deciding timeframe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features import decision_rows
from features.benchmark_beta import BetaWindow
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.engine import FeatureEngine, NotWarm, as_bars
from features.errors import BarOutOfOrder, BarsUnusable, StateMismatch
from features.fold import fold_series, fold_wave
from features.funding_clock import FundingKnown, funding_known
from features.window_engine import WindowEngine
from market.bars import BAR, MINUTE_MS, Bars

__all__ = ["DecisionState", "DecisionWave", "FundingKnown", "funding_known"]


@dataclass(frozen=True)
class DecisionWave:
    """What the models see at one close: a row for each symbol that has a bar."""

    time_ms: int
    """close_time of the bars."""
    rows: NDArray[np.int64]
    """[k] which symbols, ascending."""
    absent: NDArray[np.int64]
    """The other symbols: a minute of their bar is missing."""
    decision: NDArray[np.float32]
    """[k, D]"""
    windows: NDArray[np.float32]
    """[k, W, C], the last bar last; NaN where there was no bar."""
    close: NDArray[np.float64]
    """[k] price"""
    atr: NDArray[np.float64]
    """[k] ATR14 of the deciding timeframe, in price; NaN until warm."""
    ready: NDArray[np.bool_]
    """[k] whether the deciding timeframe has all that a row waits for (`Feature.required`), and the window is full.
    The longer timeframes may still be NaN."""


class DecisionState:
    """All that is remembered of a universe between two minutes.

    From the same first minute it gives the rows of `features.history.decision_history`, to the bit. With
    `incremental=False` every row is computed anew from the window of bars that it needs (`WindowEngine`): the same
    rows within the tolerance to which features forget, at about a hundred times the cost.
    """

    def __init__(
        self, symbols: tuple[str, ...], spec: DecisionSpec = DECISION_SPEC, *, incremental: bool = True
    ) -> None:
        self.symbols = tuple(symbols)
        self.spec = spec
        self.incremental = incremental
        count, features = len(self.symbols), len(spec.base.names)
        self._steps = np.array(spec.steps, dtype=np.int64)
        engine = FeatureEngine if incremental else WindowEngine
        self._engines = [engine([f"{s} {name}" for s in symbols], spec.base) for name in spec.timeframes]
        self._partial = np.zeros((count, len(spec.timeframes)), dtype=BAR)
        self._filled = np.zeros((count, len(spec.timeframes)), dtype=np.int64)
        self._latest = np.full((len(spec.timeframes), count, features), np.nan, dtype=np.float32)
        self._latest_time = np.full((len(spec.timeframes), count), -1, dtype=np.int64)
        self._ring = np.full((count, spec.window, len(spec.window_names)), np.nan, dtype=np.float32)
        self._ring_at = np.zeros(count, dtype=np.int64)
        self._betas = BetaWindow(self.symbols, spec)
        self._last_time = np.full(count, -1, dtype=np.int64)
        self._time = np.full(1, -1, dtype=np.int64)

    @property
    def time_ms(self) -> int:
        """The last minute taken in, as its close_time; -1 before the first."""
        return int(self._time[0])

    @property
    def last_times(self) -> NDArray[np.int64]:
        """close_time of each symbol's last minute, int64 [S]; -1 where there was none."""
        return self._last_time.copy()

    def not_warm(self) -> tuple[NotWarm, ...]:
        """Each series, of every timeframe, that has not all that a ready row waits for, and why."""
        return tuple(cold for engine in self._engines for cold in engine.not_warm())

    def on_minute(
        self,
        time_ms: int,
        rows: NDArray[np.int64],
        bars: Bars,
        funding_rate: NDArray[np.float64],
        next_funding_ms: NDArray[np.int64],
    ) -> DecisionWave | None:
        """Take in the 1m bars that closed at `time_ms`; a wave when that closes a bar of the deciding timeframe.

        `rows` int64 [k] ascending says whose `bars` they are. `funding_rate` float64 [S] and
        `next_funding_ms` int64 [S] are what `funding_known` tells at `time_ms` (NaN and -1 for nothing).
        Raises `BarsUnusable` or `BarOutOfOrder` before anything has changed.
        """
        bars = as_bars(bars)
        rows = np.require(rows, np.int64, ["C", "W"])
        self._check(time_ms, rows, bars)
        self._time[0] = time_ms
        self._last_time[rows] = time_ms
        whole = np.zeros((rows.size, len(self._steps)), dtype=np.bool_)
        fold_wave(self._partial, self._filled, rows, bars, self._steps, whole)
        if (time_ms + 1) % self._steps[0]:
            return None
        # Longer timeframes first, so that a bar that closes now is already in the row.
        for index in range(len(self._steps) - 1, 0, -1):
            closed = rows[whole[:, index]]
            if closed.size:
                bars_closed = self._partial[closed, index]
                self._latest[index, closed] = self._engines[index].update(closed, bars_closed)
                self._latest_time[index, closed] = time_ms
        present = rows[whole[:, 0]]
        return self._decide(time_ms, present, funding_rate[present], next_funding_ms[present])

    def _decide(
        self, time_ms: int, rows: NDArray[np.int64], funding_rate: NDArray[np.float64], next_ms: NDArray[np.int64]
    ) -> DecisionWave:
        """The wave of `rows`, whose bars of the deciding timeframe are whole."""
        spec = self.spec
        bars = self._partial[rows, 0]
        base = self._engines[0].update(rows, bars)
        self._ring[rows, self._ring_at[rows]] = base[:, list(spec.window_columns)]
        self._ring_at[rows] = (self._ring_at[rows] + 1) % spec.window
        ordered = (self._ring_at[rows][:, None] + np.arange(spec.window)) % spec.window
        windows = self._ring[rows[:, None], ordered]

        decision = np.empty((rows.size, len(spec.names)), dtype=np.float32)
        times = np.full(rows.size, time_ms, dtype=np.int64)
        decision[:, spec.timeframe_block(spec.timeframes[0])] = base
        for index in range(1, len(spec.timeframes)):
            latest, latest_time = self._latest[index, rows], self._latest_time[index, rows]
            decision_rows.fill_longer(decision, index, latest, latest_time, times, spec)
        betas = self._betas.wave(time_ms, rows, bars)
        decision_rows.fill_cross_section(decision, np.array([0, rows.size]), betas, spec)
        decision_rows.fill_calendar(decision, times, spec)
        decision_rows.fill_funding(decision, times, funding_rate, next_ms, spec)
        return DecisionWave(
            time_ms=time_ms,
            rows=rows,
            absent=np.setdiff1d(np.arange(len(self.symbols)), rows),
            decision=decision,
            windows=windows,
            close=bars["close"].copy(),
            atr=decision_rows.price_atr(base, bars["close"], spec),
            ready=decision_rows.complete(base, spec) & np.isfinite(windows).all(axis=(1, 2)),
        )

    def catch_up(self, bars: Mapping[str, Bars]) -> None:
        """Take in a stretch of 1m bars at once, without waves: the state that `on_minute` would have reached.

        Each symbol's bars ascend and come after its last one. Raises `BarOutOfOrder` or `BarsUnusable`;
        symbols before the offender have then been taken in.
        """
        for symbol, minutes in bars.items():
            row = self._row_of(symbol)
            if not minutes.size:
                continue
            self._check_series(row, as_bars(minutes))
            folded = fold_series(self._partial[row], self._filled[row], minutes, self.spec.steps)
            for index, closed in enumerate(folded):
                values = self._engines[index].extend(row, closed, self.spec.window if index == 0 else 1)
                if index == 0:
                    self._remember_window(row, values, closed.size)
                    self._betas.catch_up(row, closed)
                elif closed.size:
                    self._latest[index, row] = values[-1]
                    self._latest_time[index, row] = closed["close_time"][-1]
            self._last_time[row] = minutes["close_time"][-1]
            self._time[0] = max(self.time_ms, int(self._last_time[row]))

    def _remember_window(self, row: int, values: NDArray[np.float32], bars: int) -> None:
        """Put `values`, the last of `bars` rows, into the symbol's ring, where one at a time would have put them."""
        width = self.spec.window
        kept = values[:, list(self.spec.window_columns)]
        end = int(self._ring_at[row]) + bars
        self._ring[row, np.arange(end - len(kept), end) % width] = kept
        self._ring_at[row] = end % width

    def _row_of(self, symbol: str) -> int:
        try:
            return self.symbols.index(symbol)
        except ValueError:
            raise BarsUnusable(f"{symbol} is none of the {len(self.symbols)} symbols of this state") from None

    def _check(self, time_ms: int, rows: NDArray[np.int64], bars: Bars) -> None:
        if rows.shape != bars.shape:
            raise BarsUnusable(f"{rows.size} rows for {bars.size} bars")
        if rows.size and (rows[0] < 0 or rows[-1] >= len(self.symbols) or (np.diff(rows) <= 0).any()):
            raise BarsUnusable(f"rows ascend within the {len(self.symbols)} symbols, these are {rows.tolist()}")
        wrong = np.flatnonzero((bars["close_time"] != time_ms) | (bars["open_time"] != time_ms - MINUTE_MS + 1))
        if wrong.size:
            at = int(wrong[0])
            raise BarsUnusable(f"not the minute that closed at {time_ms}: it opens at {bars['open_time'][at]}", at)
        late = np.flatnonzero(self._last_time[rows] >= time_ms)
        if time_ms <= self.time_ms or late.size:
            at = int(late[0]) if late.size else 0
            name = self.symbols[rows[at]] if rows.size else "the wave"
            raise BarOutOfOrder(name, at, time_ms - MINUTE_MS + 1, self.time_ms - MINUTE_MS + 1)

    def _check_series(self, row: int, bars: Bars) -> None:
        opens = bars["open_time"]
        if (bars["close_time"] - opens + 1 != MINUTE_MS).any():
            raise BarsUnusable(f"bars of {self.symbols[row]} are not 1m bars")
        before = np.concatenate(([self._last_time[row]], opens[:-1]))
        late = np.flatnonzero(opens <= before)
        if late.size:
            at = int(late[0])
            raise BarOutOfOrder(self.symbols[row], at, int(opens[at]), int(before[at]))

    def snapshot(self) -> dict[str, NDArray[np.generic]]:
        """A copy of everything, as arrays that `numpy.savez` keeps without pickling."""
        return {name: array.copy() for name, array in self.arrays().items()}

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What `snapshot` copies, itself: for somebody who keeps it before the next minute changes it."""
        return {"spec": np.array(self.spec.id), "symbols": np.array(self.symbols), **self._arrays()}

    def blank(self) -> DecisionState:
        """A state of the same kind that has seen nothing."""
        return DecisionState(self.symbols, self.spec, incremental=self.incremental)

    def restore(self, snapshot: Mapping[str, NDArray[np.generic]]) -> None:
        """Continue from a `snapshot` as if nothing had happened; `StateMismatch` if it is of something else."""
        if str(snapshot["spec"]) != self.spec.id:
            raise StateMismatch("specification", str(snapshot["spec"]), self.spec.id)
        if tuple(snapshot["symbols"].tolist()) != self.symbols:
            raise StateMismatch("universe", snapshot["symbols"].tolist(), list(self.symbols))
        mine = self._arrays()
        for name, array in mine.items():
            if name not in snapshot:
                raise StateMismatch(name, "not there", _kind(array))
            stored = snapshot[name]
            if stored.shape != array.shape or stored.dtype != array.dtype:
                raise StateMismatch(name, _kind(stored), _kind(array))
        for name, array in mine.items():
            array[...] = snapshot[name]

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        """Every array that is part of the state, by the name that it has in a snapshot."""
        kept = "state" if self.incremental else "bars"
        states = {f"{name}.{kept}": e.state for name, e in zip(self.spec.timeframes, self._engines, strict=True)}
        return {
            **states,
            "partial": self._partial,
            "filled": self._filled,
            "latest": self._latest,
            "latest_time": self._latest_time,
            "ring": self._ring,
            "ring_at": self._ring_at,
            "beta.returns": self._betas.returns,
            "beta.times": self._betas.times,
            "beta.closes": self._betas.closes,
            "beta.closed": self._betas.closed,
            "last_time": self._last_time,
            "time": self._time,
        }


def _kind(array: NDArray[np.generic]) -> str:
    """Type and shape of an array, for an error."""
    name = "records" if array.dtype.names else str(array.dtype)
    return f"{name}{list(array.shape)}"
