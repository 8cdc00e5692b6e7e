"""Labels in the lake: those of history, and those that the workers' positions brought."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from features.history import DecisionHistory, decision_history
from features.labels import LabelTable, label_history, sample_weight, uniqueness
from market.bars import DAY_MS, Bars
from market.funding import Fundings
from market.klines_store import day_start, read_all, read_all_funding, stored_dates
from market.lake import Lake
from orchestration.resources import TrainingSettings

LIVE, HISTORY = "live", "history"
CLOSED = "position_closed"


@dataclass(frozen=True)
class History:
    """Everything that decisions and labels are made from: a stretch of stored klines and fundings."""

    days: int
    bars: Mapping[str, Bars]
    funding: Mapping[str, Fundings]
    rows: DecisionHistory


def read_history(lake: Lake, days: int) -> History:
    """The newest `days` of stored klines, with their decision rows.

    Rows are computed here rather than read: it takes a tenth of a second a million bars, and gives the windows too.
    """
    stored = stored_dates(lake)[-days:]
    start, end = (day_start(stored[0]), day_start(stored[-1]) + DAY_MS) if stored else (0, 0)
    bars = read_all(lake, start, end) if stored else {}
    funding = read_all_funding(lake, start, end, list(bars)) if stored else {}
    return History(len(stored), bars, funding, decision_history(bars, funding))


def store_history_labels(lake: Lake, history: History, settings: TrainingSettings) -> LabelTable:
    """Label every candidate of `history`, in place of the history labels that the lake holds."""
    table = label_history(
        history.rows,
        history.bars,
        history.funding,
        settings.plan(),
        settings.costs(),
        half_life_days=settings.half_life(),
        hunting=settings.hunting(),
    )
    lake.put("labels", pa.table(table.columns()), {"source": HISTORY})
    return table


@dataclass(frozen=True)
class Ingested:
    """What the journals in the lake came to."""

    segments: int
    labels: int
    added: int
    """Labels that were not there before."""
    newest_known_at: int | None
    mean_r: float | None
    ticks_disagree: int
    """Positions of which the price updates told another barrier than the 1m bars."""


def ingest_journals(lake: Lake) -> Ingested:
    """Make labels of every closed position in the published journals, one file per worker and epoch.

    A file is a function of that epoch's segments alone, so doing it again gives the same file, and a segment that is
    published twice counts once: records are told apart by (worker, epoch, sequence).
    """
    before = count_live(lake)
    rows = lake.query(
        "SELECT worker, epoch, sequence, any_value(event) AS event FROM journal WHERE kind = ? "
        "GROUP BY worker, epoch, sequence ORDER BY worker, epoch, sequence",
        (CLOSED,),
    ).to_pylist()
    epochs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        event = json.loads(row["event"]) | {"worker": row["worker"], "epoch": row["epoch"], "sequence": row["sequence"]}
        epochs.setdefault((row["worker"], row["epoch"]), []).append(event)
    for (worker, epoch), events in epochs.items():
        lake.put("labels", _live_table(events), {"source": LIVE}, f"{worker}-{epoch}.parquet")
    every = [event for events in epochs.values() for event in events]
    labels = count_live(lake)
    return Ingested(
        segments=len(lake.files("journal")),
        labels=labels,
        added=labels - before,
        newest_known_at=max((event["known_at"] for event in every), default=None),
        mean_r=float(np.mean([event["r"] for event in every])) if every else None,
        ticks_disagree=sum(bool(event.get("ticks_disagree")) for event in every),
    )


def _live_table(events: list[dict[str, Any]]) -> pa.Table:
    numbers = ("entry", "stop", "target", "r", "best", "worst", "quality", "confidence", "ticks_best", "ticks_worst")
    whole = ("decided_at", "opened_at", "known_at", "sequence", "ticks_outcome", "ticks_touched_at")
    text = ("position_id", "symbol", "bundle", "strategy", "decision_spec", "worker", "epoch")
    kinds = (
        dict.fromkeys(numbers, pa.float64())
        | dict.fromkeys(whole, pa.int64())
        | dict.fromkeys(text, pa.string())
        | {"direction": pa.int8(), "kind": pa.uint8(), "outcome": pa.int8(), "ticks_disagree": pa.bool_()}
    )
    columns = {name: pa.array([event.get(name) for event in events], kind) for name, kind in kinds.items()}
    names = [event["symbol"] for event in events]
    code = {name: index for index, name in enumerate(sorted(set(names)))}
    share = uniqueness(
        np.array([code[name] for name in names], dtype=np.int32),
        np.array([event["opened_at"] for event in events], dtype=np.int64),
        np.array([event["known_at"] for event in events], dtype=np.int64),
    )
    quality = np.array([event["quality"] for event in events], dtype=np.float64)
    known = np.array([event["known_at"] for event in events], dtype=np.int64)
    # Of this epoch by itself and without recency: a file hangs on nothing else. A training weighs all labels together.
    return pa.table(columns | {"weight": pa.array(sample_weight(quality, share, known), pa.float64())})


def count_live(lake: Lake, span: tuple[int, int] | None = None) -> int:
    """How many positions have a live label; one that two workers followed counts once.

    With a `span`, only those whose outcome was known in [start, end), ms.
    """
    start, end = span or (0, np.iinfo(np.int64).max)
    sql = "SELECT count(DISTINCT position_id) AS n FROM labels WHERE source = ? AND known_at >= ? AND known_at < ?"
    return int(lake.query(sql, (LIVE, start, end)).to_pylist()[0]["n"])


def count_learnable(lake: Lake, requested: tuple[str, str] | None = None) -> int:
    """How many live labels lie in the stored days, and in the `requested` ones (first and last) once they are stored.

    The others cannot be learnt from: they have no decision rows. The span grows with the days that are stored, and
    the count with it, so the difference of two counts is what came in between.
    """
    days = [*stored_dates(lake), *(requested or ())]
    return count_live(lake, (day_start(min(days)), day_start(max(days)) + DAY_MS)) if days else 0


def live_span(lake: Lake) -> tuple[int, int] | None:
    """From the first decision to the last outcome of the live labels, ms; None without any."""
    found = lake.query(
        "SELECT min(decided_at) AS first, max(known_at) AS last FROM labels WHERE source = ?", (LIVE,)
    ).to_pylist()[0]
    return None if found["first"] is None else (int(found["first"]), int(found["last"]))


def live_until(lake: Lake) -> int | None:
    """When the newest live outcome was known, ms; None without any."""
    span = live_span(lake)
    return None if span is None else span[1]
