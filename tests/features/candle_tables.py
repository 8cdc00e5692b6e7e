"""Candle tables: 1m bars written as text, and the trade that is followed through them."""

from __future__ import annotations

import numpy as np

from features.barriers import CostModel, TradePlan, run
from market import funding
from market.bars import Bars, from_columns

MINUTE = 60_000
DECIDED = 10 * MINUTE - 1
FREE = CostModel(0.0, 0.0, 0.0)
COSTLY = CostModel(fee_bps=10.0, spread_bps=20.0, slippage_bps=10.0)
"""An entry is 0.2 % against us (half the spread, and the slippage), a stop 0.1 %, the fee 0.1 % a side."""
PLAN = TradePlan(stop_atr=1.5, target_atr=2.0, horizon_minutes=5)
"""Decided at 100 with an ATR of 2: a long has its stop at 97 and its target at 104, a short 103 and 96."""


def candles(text: str) -> Bars:
    """Bars from lines of `minute open high low close`; minute 0 is the first after the decision."""
    lines = [[float(cell) for cell in line.split()] for line in text.strip().splitlines()]
    minute, open_, high, low, close = (list(column) for column in zip(*lines, strict=True))
    opens = [DECIDED + 1 + int(at) * MINUTE for at in minute]
    return from_columns(
        {"open_time": opens, "open": open_, "high": high, "low": low, "close": close, "volume": [1.0] * len(opens)}
    )


def charged(*fundings: tuple[int, float]) -> funding.Fundings:
    """Fundings from (minute, rate), each a few milliseconds into its minute, as the venue stamps them."""
    times = [DECIDED + 1 + minute * MINUTE + 7 for minute, _ in fundings]
    return funding.from_columns(times, [rate for _, rate in fundings])


def follow(
    direction: int,
    bars: Bars,
    costs: CostModel = FREE,
    rates: funding.Fundings | None = None,
    plan: TradePlan = PLAN,
    close: float = 100.0,
    atr: float = 2.0,
) -> np.void:
    """The position decided at `close` with that ATR, as far as the bars tell."""
    positions = plan.positions(0, direction, DECIDED, close, atr)
    run(positions, bars, funding.empty() if rates is None else rates, costs)
    result: np.void = positions[0]
    return result
