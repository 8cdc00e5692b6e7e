"""Compiling the worker's own kernels ahead of time."""

from __future__ import annotations

import numpy as np

from features.barriers import CostModel
from market.bars import MINUTE_MS, from_columns
from trading_worker.events import Signal
from trading_worker.screening import no_bars, screen
from trading_worker.virtual_positions import VirtualPositions
from trading_worker.wave import MinuteBars


def compile_all() -> None:
    """Compile every kernel of this package into the cache, by running each once on one bar.

    Those of `features` and `market` are compiled by `features.compile_all`.
    """
    one = [1.0]
    bars = from_columns({"open_time": [0], "open": one, "high": one, "low": one, "close": one, "volume": one})
    row = np.zeros(1, dtype=np.int64)
    screen(MinuteBars(MINUTE_MS - 1, row, bars), ("A",), no_bars(1))
    positions = VirtualPositions(("A",), CostModel())
    positions.add(
        Signal(
            time_ms=0, position_id="A-0-1", symbol="A", strategy="", direction=1, kind=1, reference=1.0, atr=1.0,
            stop=0.5, target=2.0, expiry_ms=1, confidence=0.5, quality=0.5, reconstruction_error=None, bundle="",
            decision_spec="", fallbacks=(),
        )
    )  # fmt: skip
    positions.on_prices(1, row, np.ones(1))
