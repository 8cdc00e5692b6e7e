"""What each model has seen, and whether models belong in one bundle.

A component may be trained days before the bundle that it is assembled into, and the training set moves on meanwhile.
So it carries its own record, and the record of a bundle is made of its components' and of nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.candidates import HUNT
from features.regimes import HORIZON_MS
from models_registry.errors import ComponentsDiffer
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    DYNAMIC,
    FEATURE_NETWORK,
    LIQUIDITY,
    REGIME,
    WIN,
    Component,
    Provenance,
    TrainingRecord,
)
from models_registry.opportunities import Opportunities
from models_registry.reach_rows import ReachSplit
from models_registry.regime_predictor import RegimeSplit
from models_registry.training_set import LIVE, Split, TrainingSet

PLAIN = "plain"
"""The identity of a plain version that is code and not data, and of a model that a bundle does not have."""

READABLE = {
    DYNAMIC: (REGIME,),
    WIN: (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, DYNAMIC),
    DQN: (AUTOENCODER,),
}
"""Which models' outputs a model may be trained on; what is read stands before what reads it."""

_READ_BY_RUNTIME = ("mean", "std", "clip", "centre", "scale", "flags", "offset", "pool", "steps", "plain")
"""Of a component's parameters, those that decide what it gives; the others count or tell."""

_READ_BY_PLAIN = ("plain",)
"""The same of plain versions: the liquidity predictor's is fitted."""


def identity(model: Component | None) -> str:
    """What makes two models give the same outputs: the served file, the normalisation around it, and what it reads.

    None, a bundle without one, is the plain version.
    """
    if model is None:
        return PLAIN
    decides = _READ_BY_RUNTIME if model.served is not None else _READ_BY_PLAIN
    around = {name: model.parameters[name] for name in decides if name in model.parameters}
    if model.served is None and not around:
        return PLAIN
    file = None if model.served is None else model.files[model.served]
    reads = {} if model.provenance is None else model.provenance.reads
    return hashlib.sha256(msgspec.json.encode([file, around, reads], order="sorted")).hexdigest()


def reads_of(name: str, components: Mapping[str, Component]) -> dict[str, str]:
    """The identities of those `components` that the model `name` may read, but for plain versions that are code."""
    found = {other: identity(components[other]) for other in READABLE[name] if other in components}
    return {other: value for other, value in found.items() if value != PLAIN}


def of_labels(
    rows: TrainingSet, split: Split, seed: int, *, validated: bool = True, paths: bool = False, **more: Any
) -> Provenance:
    """The record of a model fitted to the labels before the holdout; `more` are further fields of it.

    Not `validated` is one that has not seen the validation rows either. With `paths` it has seen where price went over
    the whole horizon, which is known later than the outcome.
    """
    seen = np.concatenate([split.fit, split.validation]) if validated else split.fit
    known_at = np.maximum(rows.known_at, rows.path_known_at) if paths else rows.known_at
    return _record(
        rows,
        split,
        rows.decided_at[seen],
        known_at[seen],
        live_labels=int((rows.source[seen] == LIVE).sum()),
        splits={name: len(getattr(split, name)) for name in ("fit", "validation", "holdout")},
        seed=seed,
        **more,
    )


def hunting_of(rows: TrainingSet, split: Split, settings: Mapping[str, float]) -> dict[str, float]:
    """What a record says of hunting: how many of the labels seen hunt liquidity, and the settings; {} for none."""
    seen = np.concatenate([split.fit, split.validation])
    count = int((rows.kind[seen] == HUNT).sum())
    return {"rows": float(count), **{name: float(value) for name, value in settings.items()}} if count else {}


def of_windows(
    rows: TrainingSet, split: Split, at: NDArray[np.int64], splits: Mapping[str, int], seed: int
) -> Provenance:
    """The record of a model fitted to windows without labels, those that ended at the times `at`."""
    return _record(rows, split, at, at, live_labels=0, splits=dict(splits), seed=seed)


def of_regimes(rows: TrainingSet, split: RegimeSplit, holdout_start_ms: int, seed: int) -> Provenance:
    """The record of the regime predictor: each regime that it has seen was known an hour after its row."""
    at = rows.unlabelled_at[np.concatenate([split.fit, split.validation])]
    counts = {name: len(part) for name, part in split._asdict().items()}
    return Provenance(
        start_ms=int(at.min(initial=holdout_start_ms)),
        end_ms=int(at.max(initial=0)) or holdout_start_ms,
        last_known_at=int(at.max(initial=-HORIZON_MS)) + HORIZON_MS,
        rows=len(at),
        live_labels=0,
        data_hash=rows.data_hash,
        seed=seed,
        holdout_start_ms=holdout_start_ms,
        splits=counts,
        decision_spec=rows.decision_spec_id,
    )


def of_reach(rows: TrainingSet, split: ReachSplit, holdout_start_ms: int, seed: int) -> Provenance:
    """The record of the liquidity predictor, fitted to windows with what followed them."""
    at, known_at = (
        np.concatenate([getattr(part, name) for part in (split.fit, split.validation)]) for name in ("at", "known_at")
    )
    return Provenance(
        start_ms=int(at.min(initial=holdout_start_ms)),
        end_ms=int(at.max()) if len(at) else holdout_start_ms,
        last_known_at=int(known_at.max(initial=0)),
        rows=len(at),
        live_labels=0,
        data_hash=rows.data_hash,
        seed=seed,
        holdout_start_ms=holdout_start_ms,
        splits={name: len(part) for name, part in split.parts.items()},
        decision_spec=rows.decision_spec_id,
    )


def of_opportunities(opportunities: Opportunities, split: Split, seed: int, **more: Any) -> Provenance:
    """The record of the strategy; its `data_hash` is that of the opportunities."""
    seen = np.concatenate([split.fit, split.validation])
    found = opportunities.episodes
    return Provenance(
        start_ms=int(found.decided_at[seen].min(initial=split.holdout_start_ms)),
        end_ms=int(found.decided_at[seen].max()) if len(seen) else split.holdout_start_ms,
        last_known_at=int(found.known_at[seen].max(initial=0)),
        rows=len(seen),
        live_labels=0,
        data_hash=opportunities.data_hash,
        seed=seed,
        holdout_start_ms=split.holdout_start_ms,
        splits={name: len(getattr(split, name)) for name in ("fit", "validation", "holdout")},
        decision_spec=opportunities.decision_spec_id,
        **more,
    )


def _record(
    rows: TrainingSet, split: Split, decided_at: NDArray[np.int64], known_at: NDArray[np.int64], **more: Any
) -> Provenance:
    return Provenance(
        start_ms=int(decided_at.min(initial=split.holdout_start_ms)),
        end_ms=int(decided_at.max()) if len(decided_at) else split.holdout_start_ms,
        last_known_at=int(known_at.max(initial=0)),
        rows=len(decided_at),
        data_hash=rows.data_hash,
        holdout_start_ms=split.holdout_start_ms,
        decision_spec=rows.decision_spec_id,
        **more,
    )


def together(components: Mapping[str, Component], decision_spec: str) -> dict[str, Provenance]:
    """The components' records, once it is certain that they belong in one bundle of `decision_spec`.

    Raises `ComponentsDiffer`, which names the asset to materialise again, for a component without a record or of
    another DecisionSpec, and for one that was trained on the outputs of another model than the one beside it
    (`READABLE`).
    """
    records = {}
    for name, component in components.items():
        record = component.provenance
        if record is None:
            raise ComponentsDiffer(name, f"{name} does not say what it was trained on")
        if record.decision_spec != decision_spec:
            raise ComponentsDiffer(
                name,
                f"{name} was trained on the DecisionSpec {record.decision_spec}, the training set is {decision_spec}",
            )
        records[name] = record
    for name, readable in READABLE.items():
        if name in records:
            for other in readable:
                _check_reads(name, records[name].reads.get(other, PLAIN), other, identity(components.get(other)))
    return records


def _check_reads(name: str, reads: str, other: str, present: str) -> None:
    if reads != present:
        raise ComponentsDiffer(
            name, f"{name} was trained on another {other} ({_short(reads)}) than the present ({_short(present)})"
        )


def merged(records: Mapping[str, Provenance]) -> TrainingRecord:
    """The record of a bundle: what the win model has seen (or the only model), and the reach of all.

    A judge must begin after everything that any component has seen, so the latest times count.
    """
    parts = list(records.values())
    main = records.get(WIN, parts[-1])
    return TrainingRecord(
        start_ms=min(part.start_ms for part in parts),
        end_ms=max(part.end_ms for part in parts),
        last_known_at=max(part.last_known_at for part in parts),
        rows=main.rows,
        live_labels=main.live_labels,
        data_hash=main.data_hash,
        seed=main.seed,
        holdout_start_ms=max(part.holdout_start_ms for part in parts),
        splits=main.splits,
    )


def _short(identity: str) -> str:
    return "none" if identity == PLAIN else identity[:12]
