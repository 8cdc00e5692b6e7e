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
from features.regime_inputs import HORIZON_MS
from models_registry.errors import ComponentsDiffer
from models_registry.manifest import AUTOENCODER, DYNAMIC, REGIME, WIN, Component, Provenance, TrainingRecord
from models_registry.regime_predictor import RegimeSplit
from models_registry.training_set import LIVE, Split, TrainingSet

PLAIN = "plain"
"""The identity of the autoencoder's plain version: it is code, not data."""

_READ_BY_RUNTIME = ("mean", "std", "clip")


def identity(model: Component | None) -> str:
    """What makes two autoencoders give the same latents: the served file and the normalisation before it.

    So for regime predictors, whose file is all. None, a bundle without one, is the plain version.
    """
    if model is None or model.served is None:
        return PLAIN
    around = {name: model.parameters.get(name) for name in _READ_BY_RUNTIME}
    content = msgspec.json.encode([model.files[model.served], around], order="sorted")
    return hashlib.sha256(content).hexdigest()


def dynamic_identity(dynamic: Component | None) -> str | None:
    """What makes two sets of dynamic features give the same columns: the expressions, and whose regimes they follow.

    None where there are none: then nothing can have been trained with them.
    """
    if dynamic is None or dynamic.served is None or dynamic.provenance is None:
        return None
    content = msgspec.json.encode([dynamic.files[dynamic.served], dynamic.provenance.reads])
    return hashlib.sha256(content).hexdigest()


def of_labels(rows: TrainingSet, split: Split, seed: int, *, validated: bool = True, **more: Any) -> Provenance:
    """The record of a model fitted to the labels before the holdout; `more` are further fields of it.

    Not `validated` is one that has not seen the validation rows either.
    """
    seen = np.concatenate([split.fit, split.validation]) if validated else split.fit
    return _record(
        rows,
        split,
        rows.decided_at[seen],
        rows.known_at[seen],
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
    another DecisionSpec, for a win model that was trained on the latents of another autoencoder or with other dynamic
    features, and for dynamic features that follow the regimes of another predictor.
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
    if DYNAMIC in records:
        _check_reads(DYNAMIC, records[DYNAMIC].reads, REGIME, identity(components.get(REGIME)))
    if WIN in records:
        _check_reads(WIN, records[WIN].reads, AUTOENCODER, identity(components.get(AUTOENCODER)))
        _check_reads(WIN, records[WIN].reads_dynamic, DYNAMIC, dynamic_identity(components.get(DYNAMIC)))
    return records


def _check_reads(name: str, reads: str | None, other: str, present: str | None) -> None:
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


def _short(identity: str | None) -> str:
    return "none" if identity is None else identity[:12]
