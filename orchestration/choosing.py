"""Which of two candidates goes before the gate: the one that continued from the champion, or the one from scratch.

Both are put on the labelled rows of a window that neither was fitted to, stopped or calibrated by: the first part of
what came after everything that either has seen. The gate's window begins where it ends, so what the choice was made by
is not what the winner is judged by.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models_registry.errors import BundleRejected, NotEnoughData
from models_registry.evaluation import EvaluationRecord, evaluate
from models_registry.ledger import Entry
from models_registry.manifest import Manifest
from models_registry.mlflow_rest import RegistryAnswer
from models_registry.registry import Registry
from models_registry.runtime import Predictor
from models_registry.training_set import TrainingSet

BY = "trading_bundle"
SHARE = 1 / 8
"""Of the common unseen window that the choice takes; the gate has the rest."""
FEWEST_ROWS = 100
"""Fewer labelled rows choose nothing: the newer bundle, which has seen more, goes before the gate."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How two candidates compared, rows decided and known in [start_ms, until_ms)."""

    version: str
    """The one that goes before the gate."""
    other: str
    start_ms: int
    until_ms: int
    rows: int
    log_loss: float
    other_log_loss: float
    expectancy: float | None
    """Shown, not decided by: few rows are trades."""
    other_expectancy: float | None

    @property
    def reason(self) -> str:
        """In a sentence."""
        return (
            f"chosen over version {self.other}: log loss {self.log_loss:.5f} against {self.other_log_loss:.5f} on "
            f"{self.rows} rows before the gate's"
        )


def continued(manifest: Manifest) -> bool:
    """Whether any model of the bundle continued from a champion's."""
    records = [part.provenance for part in manifest.components.values()]
    return any(record is not None and record.continued_from is not None for record in records)


def put_up(registry: Registry, version: str, folder: Path, rows: TrainingSet, threshold: float, seed: int) -> str:
    """Make the newly registered `version`, whose files are in `folder`, the challenger, or the better rival of it.

    A rival is a challenger of the other kind: continued where this one is from scratch, or the reverse. The entry in
    the ledger says why. Returns the version that is challenger.
    """
    rival = registry.challenger()
    if rival is None or rival in (version, registry.champion()):
        registry.challenge(version, "registered, to be judged", BY)
        return version
    found = _compared(registry, version, folder, rival, rows, threshold, seed)
    if isinstance(found, str):
        registry.challenge(version, f"registered, to be judged; version {rival} waited before it: {found}", BY)
        return version
    registry.challenge(found.version, found.reason, BY, {"choice": msgspec.to_builtins(found)})
    return found.version


def chosen_until(entries: Sequence[Entry], version: str) -> int:
    """The end (ms) of the windows by which `version` was ever chosen, where a judge's may begin; 0 for none."""
    choices = [entry.details["choice"] for entry in entries if entry.version == version and "choice" in entry.details]
    return max((msgspec.convert(choice, Choice).until_ms for choice in choices), default=0)


def _compared(
    registry: Registry, version: str, folder: Path, rival: str, rows: TrainingSet, threshold: float, seed: int
) -> Choice | str:
    """The choice, or why there is none to make."""
    try:
        with (
            tempfile.TemporaryDirectory() as work,
            Predictor.load(folder) as new,
            Predictor.load(registry.download(rival, Path(work) / rival)) as old,
        ):
            kinds = {continued(bundle.manifest) for bundle in (new, old)}
            if len(kinds) == 1:
                return f"both {'continued from a champion' if kinds.pop() else 'are from scratch'}"
            return _choice({version: new, rival: old}, rows, threshold, seed)
    except (BundleRejected, NotEnoughData) as error:
        return str(error)
    except RegistryAnswer as error:
        if error.status != 404:
            raise
        return "its files are gone from the registry"


def _choice(bundles: dict[str, Predictor], rows: TrainingSet, threshold: float, seed: int) -> Choice | str:
    specs = {bundle.manifest.decision_spec.id for bundle in bundles.values()}
    if specs != {rows.decision_spec_id}:
        return "it has another DecisionSpec"
    training = [bundle.manifest.training for bundle in bundles.values()]
    start = max(max(each.holdout_start_ms, each.last_known_at + 1) for each in training)
    until = start + int(SHARE * max(int(rows.decided_at[-1]) - start, 0))
    before = rows.select(rows.known_at < until)
    records = {
        version: evaluate(bundle, before, start_ms=start, threshold=threshold, seed=seed, fewest=FEWEST_ROWS)
        for version, bundle in bundles.items()
    }
    return chosen(records, start, until)


def chosen(records: dict[str, EvaluationRecord], start_ms: int, until_ms: int) -> Choice:
    """The choice between two records of the same rows: the lower log loss, to which every row adds."""
    (version, best), (other, worse) = sorted(records.items(), key=lambda item: item[1].log_loss)
    return Choice(
        version=version,
        other=other,
        start_ms=start_ms,
        until_ms=until_ms,
        rows=best.rows,
        log_loss=best.log_loss,
        other_log_loss=worse.log_loss,
        expectancy=best.expectancy,
        other_expectancy=worse.expectancy,
    )
