"""Challenger against champion: both on the same rows that neither has seen, and what follows from it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec

from market.lake import Lake
from models_registry.errors import BundleRejected, NotEnoughData
from models_registry.evaluation import EvaluationRecord, evaluate
from models_registry.gate import GateRules, Verdict, judge
from models_registry.mlflow_rest import RegistryAnswer
from models_registry.registry import Registry, RunRecord
from models_registry.runtime import Predictor
from models_registry.training_set import TrainingSet

BY = "gate"


class Comparison(msgspec.Struct, frozen=True):
    """Two bundles on one window. `unjudged` says why the champion could not be put on it; then nothing is decided."""

    challenger_version: str
    champion_version: str | None
    challenger: EvaluationRecord | None
    champion: EvaluationRecord | None
    unjudged: str | None = None


def path_of(version: str) -> str:
    """Where the comparison of a challenger lies in the lake."""
    return f"evaluations/{version}.json"


def measure_of(registry: Registry) -> str | None:
    """The version that a challenger must not be worse than; None only while there never was a champion.

    Where the alias is missing (removed by hand) workers keep the bundle they have: the ledger's last champion.
    """
    return registry.champion() or registry.ledger.before(None)


def compare(registry: Registry, rows: TrainingSet, threshold: float, seed: int) -> Comparison | None:
    """Evaluate the challenger and the bundle of `measure_of` on one held-out window; None when there is no challenger.

    The window begins where the challenger's holdout does, or after the last label that the champion has seen,
    whichever is later.
    """
    version, champion_version = registry.challenger(), measure_of(registry)
    if version is None:
        return None
    with tempfile.TemporaryDirectory() as folder, _loaded(registry, version, folder) as challenger:
        start = challenger.manifest.training.holdout_start_ms
        if champion_version is None:
            return Comparison(version, None, _on(challenger, rows, start, threshold, seed), None)
        try:
            with _loaded(registry, champion_version, folder) as champion:
                if champion.manifest.decision_spec.id != rows.decision_spec_id:
                    why = (
                        f"the champion was trained on {champion.manifest.decision_spec.id}, of which there are no rows"
                    )
                    return Comparison(version, champion_version, None, None, why)
                start = max(start, champion.manifest.training.last_known_at + 1)
                judged, incumbent = (_on(each, rows, start, threshold, seed) for each in (challenger, champion))
                return Comparison(version, champion_version, judged, incumbent)
        except (NotEnoughData, BundleRejected) as error:
            return Comparison(version, champion_version, None, None, str(error))
        except RegistryAnswer as error:
            if error.status != 404:
                raise
            why = f"the last champion, version {champion_version}, is gone from the registry: promote a bundle by hand"
            return Comparison(version, champion_version, None, None, why)


def _on(bundle: Predictor, rows: TrainingSet, from_ms: int, threshold: float, seed: int) -> EvaluationRecord:
    return evaluate(bundle, rows, start_ms=from_ms, threshold=threshold, seed=seed)


def _loaded(registry: Registry, version: str, folder: str) -> Predictor:
    return Predictor.load(registry.download(version, Path(folder) / version))


def save(lake: Lake, comparison: Comparison) -> str:
    """Keep the comparison; returns its path."""
    return lake.put_bytes(path_of(comparison.challenger_version), msgspec.json.encode(comparison))


def load(lake: Lake, version: str) -> Comparison:
    """The comparison of a challenger. `LakeMissing` when there is none: materialise `bundle_evaluation`."""
    return msgspec.json.decode(lake.get_bytes(path_of(version)), type=Comparison)


@dataclass(frozen=True)
class Decision:
    """What the gate made of a challenger."""

    version: str
    champion: str | None
    """Afterwards."""
    promoted: bool
    rule: str
    reasons: tuple[str, ...]


def decide(registry: Registry, comparison: Comparison, rules: GateRules | None = None) -> Decision:
    """Ask the gate, then move the alias or leave the bundle as challenger; both are entered in the ledger."""
    version, current = comparison.challenger_version, measure_of(registry)
    unjudged = comparison.unjudged
    if current != comparison.champion_version:
        unjudged = f"it was compared with {comparison.champion_version}, which is no longer the champion"
    if comparison.challenger is None or unjudged:
        why = [f"not judged: {unjudged}"]
        verdict = Verdict(promoted=False, rule="not_worse", reasons=why, failed=why, numbers={})
    else:
        verdict = judge(comparison.champion, comparison.challenger, rules)
    reasons = list(verdict.reasons)
    if current is not None and registry.champion() is None:
        reasons.insert(0, f"no bundle has the alias champion: the measure is the ledger's last champion, {current}")
    details = {"verdict": msgspec.to_builtins(verdict)}
    if verdict.promoted:
        registry.promote(version, f"gate: {verdict.rule}", BY, details)
    else:
        registry.challenge(version, f"gate: {'; '.join(verdict.failed)}", BY, details)
    outcome = "promoted" if verdict.promoted else "stays challenger"
    registry.note(version, RunRecord(tags={"gate": f"{outcome} by {verdict.rule}", "reasons": "\n".join(reasons)}))
    return Decision(version, registry.champion(), verdict.promoted, verdict.rule, tuple(reasons))
