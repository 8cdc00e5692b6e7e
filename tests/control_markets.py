"""Made markets with and without an edge, and features that look one bar ahead on purpose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.history import DecisionHistory, decision_history
from market.bars import DAY_MS
from market.sources.synthetic import Edge, SyntheticMarket
from orchestration.label_store import History

SEED, SYMBOLS = 7, 10
LEAKED = "5m.return_1"
"""Neither candidates nor their quality read it, so a leak into it leaves the labels as they are."""


def market_history(edge: Edge, days: int) -> History:
    """So many days of ten symbols in step, with their decision rows."""
    market = SyntheticMarket(SEED, SYMBOLS, edge)
    stretch = market.start_ms, market.start_ms + days * DAY_MS
    bars = {symbol: market.klines(symbol, *stretch) for symbol in market.symbols()}
    funding = {symbol: market.funding(symbol, *stretch) for symbol in market.symbols()}
    return History(days, bars, funding, decision_history(bars, funding))


def leak_in_a_column(rows: DecisionHistory) -> DecisionHistory:
    """Decision rows in which one feature is that of the next bar."""
    decision = rows.decision.copy()
    column = rows.spec.index(LEAKED)
    decision[:, column] = _next_bar(rows, decision[:, column])
    return replace(rows, decision=decision)


def leak_in_the_join(rows: DecisionHistory) -> DecisionHistory:
    """What a join that is one bar late would find: the whole decision row of the next bar."""
    return replace(rows, decision=_next_bar(rows, rows.decision))


def _next_bar(rows: DecisionHistory, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's `values` as they will be one bar later, NaN where there is none."""
    later = np.full_like(values, np.nan)
    order = np.lexsort((rows.time, rows.symbol))
    now, then = order[:-1], order[1:]
    follows = (rows.symbol[then] == rows.symbol[now]) & (rows.time[then] - rows.time[now] == rows.spec.steps[0])
    later[now[follows]] = values[then[follows]]
    return later
