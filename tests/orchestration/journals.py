"""Journals as a worker would have written and published them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.barriers import CostModel, TradePlan
from features.labels import LabelTable, label_history, position_id
from market.lake import Lake
from orchestration.label_store import History
from trading_worker.events import BundleRefused, Event, PositionClosed
from trading_worker.journal import Journal
from trading_worker.shell.publish import publish

WHOLE = ("decided_at", "opened_at", "known_at", "direction", "kind", "outcome")
NUMBERS = ("entry", "stop", "target", "exit_price", "r", "best", "worst", "quality")


def closed(table: LabelTable, index: int, bundle: str = "1") -> PositionClosed:
    """The event of a position that ended as the label at `index` says."""
    label = table.labels[index]
    symbol = table.symbols[label["symbol"]]
    decided_at, direction = int(label["decided_at"]), int(label["direction"])
    return PositionClosed(
        time_ms=int(label["known_at"]),
        position_id=position_id(symbol, decided_at, direction),
        symbol=symbol,
        **{name: int(label[name]) for name in ("decided_at", "opened_at", "known_at", "direction", "kind", "outcome")},
        **{
            name: float(label[name])
            for name in ("entry", "stop", "target", "exit_price", "r", "best", "worst", "quality")
        },
        funding=0.0,
        confidence=0.5,
        strategy="self_learning",
        bundle=bundle,
        decision_spec="d",
    )


def label(history: History) -> LabelTable:
    return label_history(history.rows, history.bars, history.funding, TradePlan(), CostModel())


def publish_positions(lake: Lake, folder: Path, table: LabelTable, rows: np.ndarray, worker: str = "w") -> None:
    """One epoch of a worker's journal with these positions, in segments of a few, all published."""
    with Journal(folder, worker, segment_bytes=4096) as journal:
        noise: Event = BundleRefused(time_ms=0, bundle="9", reason="not a label")
        for index in rows:
            journal.extend([noise, closed(table, int(index))])
            journal.commit()
        journal.rotate()
        for segment in journal.closed():
            publish(lake, segment)
