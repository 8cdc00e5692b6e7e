"""Compiles every kernel before it is needed, so that no first wave waits for it."""

from __future__ import annotations

import numpy as np

from features import barriers, decision, engine, history
from features.decision_spec import DECISION_SPEC
from features.labels import label_history
from market import bars as market_bars
from market import funding
from market.bars import BAR, MINUTE_MS


def compile_all() -> None:
    """Compile, or load from the cache, every kernel of `market.bars` and of this package.

    It calls each public way in once on a few bars, so the compiled signatures are those that are used.
    """
    minutes = np.zeros(60, dtype=BAR)
    minutes["open_time"] = np.arange(60) * MINUTE_MS
    minutes["close_time"] = minutes["open_time"] + MINUTE_MS - 1
    for name in ("open", "high", "low", "close", "volume"):
        minutes[name] = 1.0
    market_bars.resample(minutes, "5m")
    engine.FeatureEngine(1).update(np.zeros(1, dtype=np.int64), minutes[:1])
    none = funding.empty()
    rows = history.decision_history({"ANY": minutes}, {"ANY": none}, DECISION_SPEC)
    costs, plan = barriers.CostModel(), barriers.TradePlan()
    label_history(rows, {"ANY": minutes}, {"ANY": none}, plan, costs)
    decision.DecisionState(("ANY",), DECISION_SPEC).catch_up({"ANY": minutes})
    state = decision.DecisionState(("ANY",), DECISION_SPEC)
    row, nothing = np.zeros(1, dtype=np.int64), np.full(1, np.nan)
    for index in range(5):
        minute = minutes[index : index + 1]
        state.on_minute(int(minute["close_time"][0]), row, minute, nothing, np.full(1, -1, dtype=np.int64))
    positions = plan.positions(0, 1, MINUTE_MS - 1, 1.0, 0.1)
    barriers.advance(positions, row, minutes[1:2], nothing, costs)
