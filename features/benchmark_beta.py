"""How symbols move with the benchmark: beta and residual return, from the waves of the last hours.

| column | meaning | range |
|---|---|---|
| `cross.btc_beta` | covariance with the benchmark's return over its variance, over the last `beta_waves` waves | ±100 |
| `cross.btc_residual` | this bar's return - beta × the benchmark's | fraction |

A pair is made of two returns over the same bar of the deciding timeframe, each from the bar right before it: a symbol
that is absent from a wave, or was from the one before, makes none, and so for the benchmark. Beta is NaN with fewer
pairs in the window than `beta_fewest`, or while the benchmark has not moved; the residual is NaN when this bar made no
pair as well. The benchmark's own beta is 1 and its residual 0.

The window is kept as one row of returns per wave, at a place given by the wave's time alone, and summed afresh in that
order at every wave: nothing drifts, and where a state began is forgotten with the window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DecisionSpec
from features.families.numeric import LIMIT, NEGLIGIBLE, clip
from features.kernels_cache import njit
from market.bars import Bars

Floats = NDArray[np.float64]
Returns = NDArray[np.float32]
Integers = NDArray[np.int64]


class Betas(NamedTuple):
    """Both columns of a wave's rows, or of the rows of several waves."""

    beta: Returns
    residual: Returns


@njit
def _move(bar: Any, closes: Floats, closed: Integers, at: int) -> float:
    """The return of a bar from the one right before it, else NaN. A bar that cannot be (`origins.possible`) is none."""
    possible = bar.low > 0.0 and bar.low <= bar.open <= bar.high and bar.low <= bar.close <= bar.high
    if not (possible and bar.high < np.inf and 0.0 <= bar.volume < np.inf):
        return np.nan
    before = closes[at]
    follows = closed[at] + 1 == bar.open_time and before > 0.0
    closes[at] = bar.close
    closed[at] = bar.close_time
    return (bar.close - before) / before if follows else np.nan


@njit
def _wave_moves(bars: Bars, rows: Integers, closes: Floats, closed: Integers, out: Returns) -> None:
    """Returns of one bar of each of several symbols."""
    for i in range(rows.size):
        out[i] = _move(bars[i], closes, closed, rows[i])


@njit
def _series_moves(bars: Bars, closes: Floats, closed: Integers, at: int, out: Returns) -> None:
    """Returns of consecutive bars of one symbol."""
    for i in range(bars.size):
        out[i] = _move(bars[i], closes, closed, at)


@njit
def _begin_wave(ring: Returns, times: Integers, time: int, step: int) -> int:
    """The place of a wave in the ring, cleared for it."""
    at = (time + 1) // step % times.size
    times[at] = time
    for s in range(ring.shape[1]):
        ring[at, s] = np.nan
    return at


@njit
def _sum_pairs(ring: Returns, times: Integers, oldest: int, benchmark: int, sums: Floats) -> None:
    """Per symbol over the waves after `oldest`: pairs, and the sums of x, y, xx and xy, where x is the benchmark."""
    sums[:] = 0.0
    for at in range(times.size):
        x = float(ring[at, benchmark])
        if times[at] <= oldest or np.isnan(x):
            continue
        for s in range(ring.shape[1]):
            y = float(ring[at, s])
            paired = y == y
            sums[0, s] += 1.0 if paired else 0.0
            sums[1, s] += x if paired else 0.0
            sums[2, s] += y if paired else 0.0
            sums[3, s] += x * x if paired else 0.0
            sums[4, s] += x * y if paired else 0.0


@njit
def _beta(sums: Floats, s: int, fewest: int) -> float:
    """The slope of a symbol's returns over the benchmark's."""
    n = sums[0, s]
    spread = n * sums[3, s] - sums[1, s] * sums[1, s]
    if n < fewest or spread <= NEGLIGIBLE * n * sums[3, s]:
        return np.nan
    return clip((n * sums[4, s] - sums[1, s] * sums[2, s]) / spread, LIMIT)


@njit
def _waves(
    ring: Returns,
    times: Integers,
    sums: Floats,
    wave_times: Integers,
    starts: Integers,
    rows: Integers,
    moves: Returns,
    step: int,
    benchmark: int,
    fewest: int,
    beta: Returns,
    residual: Returns,
) -> None:
    """Waves in order of time, each of the rows from its start to the next one's."""
    for wave in range(wave_times.size):
        time = wave_times[wave]
        at = _begin_wave(ring, times, time, step)
        for i in range(starts[wave], starts[wave + 1]):
            ring[at, rows[i]] = moves[i]
        if benchmark >= 0:
            _sum_pairs(ring, times, time - times.size * step, benchmark, sums)
        for i in range(starts[wave], starts[wave + 1]):
            slope = _beta(sums, rows[i], fewest) if benchmark >= 0 else np.nan
            beta[i] = slope
            residual[i] = moves[i] - slope * ring[at, benchmark] if benchmark >= 0 else np.nan


class BetaWindow:
    """The returns of a universe in its last waves. Its four arrays are all that it remembers."""

    def __init__(self, symbols: tuple[str, ...], spec: DecisionSpec) -> None:
        self._spec = spec
        self._benchmark = symbols.index(spec.benchmark) if spec.benchmark in symbols else -1
        self._sums = np.zeros((5, len(symbols)))
        self.returns = np.full((spec.beta_waves, len(symbols)), np.nan, dtype=np.float32)
        """[waves, S] NaN where no return was made."""
        self.times = np.full(spec.beta_waves, -1, dtype=np.int64)
        """[waves] close_time of each row's wave; -1 for none yet."""
        self.closes = np.zeros(len(symbols))
        """[S] price of each symbol's last bar."""
        self.closed = np.full(len(symbols), -1, dtype=np.int64)
        """[S] its close_time."""

    def wave(self, time_ms: int, rows: Integers, bars: Bars) -> Betas:
        """Take in the bars that closed at `time_ms`; both columns of `rows`."""
        moves = np.empty(rows.size, dtype=np.float32)
        if not rows.size:
            return Betas(moves, moves)
        bars = np.require(bars, requirements=["C", "W"])
        _wave_moves(bars, rows, self.closes, self.closed, moves)
        starts = np.array([0, rows.size], dtype=np.int64)
        return self._run(np.array([time_ms], dtype=np.int64), starts, rows, moves)

    def catch_up(self, row: int, bars: Bars) -> None:
        """Take in consecutive bars of one symbol, without an answer: the arrays that `wave` would have left."""
        moves = self.moves(row, bars)
        width, step = self.times.size, self._spec.steps[0]
        for time, move in zip(bars["close_time"][-width:].tolist(), moves[-width:], strict=True):
            at = (time + 1) // step % width
            if self.times[at] < time:
                _begin_wave(self.returns, self.times, time, step)
            if self.times[at] == time:
                self.returns[at, row] = move

    def moves(self, row: int, bars: Bars) -> Returns:
        """The returns of consecutive bars of one symbol, float32 [n]; NaN where none is made."""
        out = np.empty(bars.size, dtype=np.float32)
        _series_moves(np.require(bars, requirements=["C", "W"]), self.closes, self.closed, row, out)
        return out

    def history(self, wave_times: Integers, starts: Integers, rows: Integers, moves: Returns) -> Betas:
        """Both columns of the rows of consecutive waves, from the `moves` of all symbols by (time, symbol).

        Wave w has the rows from `starts[w]` to `starts[w + 1]`.
        """
        return self._run(wave_times, starts, rows, moves)

    def _run(self, wave_times: Integers, starts: Integers, rows: Integers, moves: Returns) -> Betas:
        beta, residual = np.empty_like(moves), np.empty_like(moves)
        spec = self._spec
        _waves(
            self.returns,
            self.times,
            self._sums,
            wave_times,
            starts,
            rows,
            moves,
            spec.steps[0],
            self._benchmark,
            spec.beta_fewest,
            beta,
            residual,
        )
        return Betas(beta, residual)
