"""An engine of a full universe for benchmarks: few synthetic symbols' bars under many names."""

from __future__ import annotations

import numpy as np

from features.decision import DecisionState
from market.bars import MINUTE_MS, Bars
from market.sources import open_source
from trading_worker.engine import Engine
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.replay import plain_predictor
from trading_worker.settings import EngineSettings
from trading_worker.wave import Wave

SYMBOLS = 200
SOURCES = 6
"""Symbols whose bars are drawn: what is measured does not depend on the prices."""


class Universe:
    """`symbols` with `warm` minutes behind them and `minutes` of waves to come."""

    def __init__(self, warm: int, minutes: int, symbols: int = SYMBOLS) -> None:
        source = open_source(f"synthetic:seed=3,symbols={SOURCES}")
        coverage = source.coverage(source.symbols()[0])
        assert coverage is not None
        self.start_ms = coverage[0] + warm * MINUTE_MS
        end_ms = self.start_ms + minutes * MINUTE_MS
        drawn = [source.klines(symbol, coverage[0], end_ms) for symbol in source.symbols()]
        self.bars: dict[str, Bars] = {f"COIN{i}USDT": drawn[i % SOURCES] for i in range(symbols)}
        self.symbols = tuple(self.bars)
        self.waves: tuple[Wave, ...] = tuple(
            recorded_waves(self.bars, {}, self.symbols, Stretch(self.start_ms, end_ms))
        )

    def state(self, *, incremental: bool = True) -> DecisionState:
        """A state that has seen the minutes of the warm-up."""
        state = DecisionState(self.symbols, incremental=incremental)
        state.catch_up({name: bars[bars["open_time"] < self.start_ms] for name, bars in self.bars.items()})
        return state

    def engine(self, state: DecisionState | None = None, *, incremental: bool = True) -> Engine:
        """An engine on `state`, that signals whatever it can; a blank one without."""
        settings = EngineSettings("self_learning", min_confidence=0.0, incremental_cache=incremental)
        return Engine(self.symbols, plain_predictor(), settings, state=state)


def percentile(seconds: np.ndarray, q: float) -> float:
    """A quantile of `report.seconds`, in milliseconds."""
    return float(np.quantile(seconds, q)) * 1e3
