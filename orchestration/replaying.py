"""The lake's bars through the engine that trades live, for the gate: what bundles would have traded in a window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.barriers import TARGET
from features.decision import DecisionState
from market.bars import DAY_MS, MINUTE_MS
from market.klines_store import day_start, read_all, read_all_funding, stored_dates
from market.lake import Lake
from models_registry.errors import NotEnoughData
from models_registry.trade_record import TradeRecord, Trades, trade_record
from trading_worker.decisions import PredictorLike, bundle_plan
from trading_worker.events import PositionClosed, PositionLost
from trading_worker.replay import Progress, ReplayResult, replay_together
from trading_worker.settings import EngineSettings
from trading_worker.shell.warmup import warm_from_lake

FUNDING_BEFORE_MS = DAY_MS
"""How much earlier than the window fundings are read: the last ones before it say when the next is due."""


def replayed(
    lake: Lake,
    predictors: Sequence[PredictorLike],
    start_ms: int,
    settings: EngineSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[TradeRecord]:
    """What each bundle's positions come to from the first whole minute at `start_ms` to the end of the stored days.

    The window's bars are read once and the features warmed once, as a worker warms them, for all bundles together.
    Positions count that were decided a horizon, the longest of any bundle's, before the bars end. Raises
    `NotEnoughData` when there are fewer bars, and `SwapRefused` for a bundle of another DecisionSpec.
    """
    start_ms = -(-start_ms // MINUTE_MS) * MINUTE_MS
    stored = stored_dates(lake)
    stored_until = day_start(stored[-1]) + DAY_MS if stored else start_ms
    bars = read_all(lake, start_ms, stored_until) if stored_until > start_ms else {}
    end_ms = max((int(each["open_time"][-1]) + MINUTE_MS for each in bars.values()), default=start_ms)
    horizon = max(bundle_plan(each).horizon_minutes for each in predictors)
    if end_ms - start_ms <= horizon * MINUTE_MS:
        raise NotEnoughData("a replay, in minutes", (end_ms - start_ms) // MINUTE_MS, horizon + 1)
    funding = read_all_funding(lake, start_ms - FUNDING_BEFORE_MS, end_ms, list(bars))
    state = DecisionState(tuple(bars), incremental=settings.incremental_cache)
    warm_from_lake(lake, state, start_ms)
    results = replay_together(
        bars, funding, predictors, settings, state=state, start_ms=start_ms, end_ms=end_ms, progress=progress
    )
    return [_record(result, start_ms, end_ms - horizon * MINUTE_MS, seed) for result in results]


def _record(result: ReplayResult, start_ms: int, decided_until_ms: int, seed: int) -> TradeRecord:
    lost = [event for event in result.events if isinstance(event, PositionLost)]
    return trade_record(
        trades_of(result.closed),
        start_ms=start_ms,
        decided_until_ms=decided_until_ms,
        symbols=result.symbols,
        lost=sum(event.decided_at < decided_until_ms for event in lost),
        seed=seed,
    )


def trades_of(closed: Sequence[PositionClosed]) -> Trades:
    """Closed positions as the record takes them."""
    return Trades(
        decided_at=np.array([event.decided_at for event in closed], dtype=np.int64),
        opened_at=np.array([event.opened_at for event in closed], dtype=np.int64),
        known_at=np.array([event.known_at for event in closed], dtype=np.int64),
        r=np.array([event.r for event in closed], dtype=np.float64),
        won=np.array([event.outcome == TARGET for event in closed], dtype=np.bool_),
    )
