"""The training set: labels of the lake joined with the decision rows they were decided on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.barriers import TradePlan
from features.history import DecisionHistory
from features.labels import sample_weight, uniqueness
from features.path_targets import PATH_TARGET, PathTargets, path_targets
from features.regime_inputs import HORIZON_MS, regime_states
from market.bars import Bars
from market.lake import Lake
from models_registry.opportunities import Opportunities
from models_registry.thinning import evenly
from models_registry.training_set import HISTORY as FROM_HISTORY
from models_registry.training_set import LIVE as FROM_LIVE
from models_registry.training_set import PATHS, TrainingSet
from orchestration.label_store import LIVE

FOLDER = "training"
OPPORTUNITIES = "opportunities"
CURRENT = f"{FOLDER}/current.json"
LEARNT = f"{FOLDER}/learnt.json"

_LABELS = """
SELECT symbol, decided_at, opened_at, known_at, direction, kind, outcome, r, quality, source
FROM labels WHERE outcome IN (1, 2, 3) AND decided_at >= ?
QUALIFY row_number() OVER (PARTITION BY symbol, decided_at, direction ORDER BY source = 'live' DESC, known_at) = 1
ORDER BY decided_at, symbol, direction
"""
"""Each position once: what was followed live stands for the same candidate found again in history."""


@dataclass(frozen=True)
class Joined:
    """A training set and what became of the labels."""

    rows: TrainingSet
    live: int
    unmatched: int
    """Labels whose decision row is not in the stored klines: ingest their days."""


def join(
    lake: Lake,
    history: DecisionHistory,
    max_windows: int,
    half_life_days: float | None = None,
    *,
    bars: Mapping[str, Bars] | None = None,
    plan: TradePlan | None = None,
) -> Joined:
    """The labels of the lake with their decision rows and windows, and windows without labels, evenly spaced.

    Labels of history and live ones are weighed by one rule (`features.labels.sample_weight`): uniqueness over all of
    them together, recency from the newest of them. Both kinds of rows get the path of the price over the horizon of
    `plan` from the 1m `bars` that `history` was made of; without bars no path is known.
    """
    start = int(history.time[0]) if len(history) else 0
    labels = lake.query(_LABELS, (start,))
    names = {name: index for index, name in enumerate(history.symbols)}
    symbol = np.array([names.get(str(name), -1) for name in labels.column("symbol").to_pylist()], dtype=np.int32)
    column = {name: labels.column(name).to_numpy() for name in labels.column_names if name not in ("symbol", "source")}
    row = _rows_of(history, column["decided_at"], symbol)
    kept = row >= 0
    share = uniqueness(symbol, column["opened_at"], column["known_at"])
    weight = sample_weight(column["quality"], share, column["known_at"], half_life_days)
    live = np.array([source == LIVE for source in labels.column("source").to_pylist()], dtype=bool)
    unlabelled = np.flatnonzero(history.ready)
    # Twice what is fitted: the later part of them judges.
    unlabelled = unlabelled[evenly(len(unlabelled), 2 * max_windows)]
    horizon = (plan or TradePlan()).horizon_minutes
    followed, unfollowed = (_paths(history, bars or {}, index, horizon) for index in (row[kept], unlabelled))
    rows = TrainingSet.of(
        decision=history.decision[row[kept]],
        windows=history.windows(row[kept]),
        symbol=symbol[kept],
        source=np.where(live, FROM_LIVE, FROM_HISTORY)[kept],
        weight=weight[kept],
        **{
            name: column[name][kept]
            for name in ("direction", "kind", "decided_at", "known_at", "outcome", "r", "quality")
        },
        unlabelled_windows=history.windows(unlabelled),
        unlabelled_at=history.time[unlabelled],
        unlabelled_states=regime_states(history.decision[unlabelled], history.spec.names),
        unlabelled_ahead=_regimes_ahead(history, unlabelled),
        **{name: followed[name] for name in PATHS},
        path_known_at=followed["known_at"],
        **{name: unfollowed[target] for target, name in PATHS.items()},
        unlabelled_known_at=unfollowed["known_at"],
        symbols=history.symbols,
        decision_spec_id=history.spec.id,
        decision_names=history.spec.names,
    )
    return Joined(rows, int(live[kept].sum()), int((~kept).sum()))


def _paths(
    history: DecisionHistory, bars: Mapping[str, Bars], index: NDArray[np.int64], horizon_minutes: int
) -> PathTargets:
    """What came after each of the rows `index`, `[m]` of `PATH_TARGET`."""
    found = np.zeros(len(index), dtype=PATH_TARGET)
    for name in PATHS:
        found[name] = np.nan
    for number, symbol in enumerate(history.symbols):
        mine = np.flatnonzero(history.symbol[index] == number)
        if symbol in bars and mine.size:
            rows = index[mine]
            found[mine] = path_targets(bars[symbol], history.time[rows], history.atr[rows], horizon_minutes)
    return found


def _regimes_ahead(history: DecisionHistory, index: NDArray[np.int64]) -> NDArray[np.int8]:
    """The regime `HORIZON_MS` after each of the rows `index`, int8 [u]; -1 where that row is missing or not ready."""
    later = _rows_of(history, history.time[index] + HORIZON_MS, history.symbol[index])
    regime = regime_states(history.decision[later], history.spec.names)[:, 0]
    known = (later >= 0) & history.ready[later] & np.isfinite(regime)
    return np.where(known, regime, -1).astype(np.int8)


def _rows_of(history: DecisionHistory, time: NDArray[np.int64], symbol: NDArray[np.int32]) -> NDArray[np.int64]:
    """The decision row of each (time, symbol), -1 where there is none. Rows are ordered by both."""
    count = max(len(history.symbols), 1)
    # Times in minutes since the first: with the symbol they make one sortable number.
    keys = (history.time - history.time[:1]) // 60_000 * count + history.symbol
    wanted = (time - history.time[:1]) // 60_000 * count + symbol if len(history) else np.full(len(time), -1)
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    found = (keys[at] == wanted) & (symbol >= 0) if len(keys) else np.zeros(len(time), dtype=bool)
    return np.where(found, at, -1)


class _Pointer(msgspec.Struct, frozen=True):
    data_hash: str


class _Seen(msgspec.Struct, frozen=True):
    live_labels: int


def store(lake: Lake, rows: TrainingSet, live_labels: int = 0) -> str:
    """Keep the set under its hash, for ever, and make it the current one; returns its path.

    `live_labels` is how many of them there were to learn from when it was made, beside it for `keep_learnt`.
    """
    path = f"{FOLDER}/{rows.data_hash}.npz"
    if not lake.exists(path):
        lake.put_bytes(path, rows.to_bytes())
    lake.put_bytes(_seen_path(rows.data_hash), msgspec.json.encode(_Seen(live_labels)))
    lake.put_bytes(CURRENT, msgspec.json.encode(_Pointer(rows.data_hash)))
    return path


def load(lake: Lake, data_hash: str | None = None) -> TrainingSet:
    """The set of that hash, or the current one. `LakeMissing` when there is none: materialise `training_set`."""
    wanted = data_hash or msgspec.json.decode(lake.get_bytes(CURRENT), type=_Pointer).data_hash
    path = f"{FOLDER}/{wanted}.npz"
    return TrainingSet.from_bytes(lake.get_bytes(path), path)


def store_opportunities(lake: Lake, found: Opportunities) -> str:
    """Keep the opportunities under their hash, for ever, and make them the current ones; returns their path."""
    path = f"{OPPORTUNITIES}/{found.data_hash}.npz"
    if not lake.exists(path):
        lake.put_bytes(path, found.to_bytes())
    lake.put_bytes(f"{OPPORTUNITIES}/current.json", msgspec.json.encode(_Pointer(found.data_hash)))
    return path


def load_opportunities(lake: Lake, data_hash: str | None = None) -> Opportunities:
    """Those of that hash, or the current ones. `LakeMissing` when there are none: materialise `opportunities`."""
    pointer = f"{OPPORTUNITIES}/current.json"
    wanted = data_hash or msgspec.json.decode(lake.get_bytes(pointer), type=_Pointer).data_hash
    path = f"{OPPORTUNITIES}/{wanted}.npz"
    return Opportunities.from_bytes(lake.get_bytes(path), path)


def keep_learnt(lake: Lake, data_hash: str) -> int:
    """Enter that a bundle of the models trained on that set is registered; returns the live labels it could learn from.

    The entry lies in the lake, with the labels that it counts: another lake begins anew. A training that did not come
    to a bundle leaves it as it was.
    """
    seen = msgspec.json.decode(lake.get_bytes(_seen_path(data_hash)), type=_Seen)
    lake.put_bytes(LEARNT, msgspec.json.encode(seen))
    return seen.live_labels


def learnt(lake: Lake) -> int:
    """How many live labels the newest bundle could learn from; 0 before there is one."""
    return msgspec.json.decode(lake.get_bytes(LEARNT), type=_Seen).live_labels if lake.exists(LEARNT) else 0


def _seen_path(data_hash: str) -> str:
    return f"{FOLDER}/{data_hash}.json"
