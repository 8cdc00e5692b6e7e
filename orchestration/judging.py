"""Challenger against champion: both on the same rows and bars that neither has seen, and what follows from it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from features.decision_spec import DECISION_SPEC
from market.lake import Lake
from models_registry.demotion import demoted_until
from models_registry.errors import BundleRejected, NotEnoughData
from models_registry.evaluation import EvaluationRecord, evaluate
from models_registry.fitness import fitness, integrity
from models_registry.gate import Fitness, GateRules, Verdict, judge, refuse
from models_registry.mlflow_rest import RegistryAnswer
from models_registry.registry import Registry, RunRecord
from models_registry.runtime import Predictor
from models_registry.training_set import TrainingSet
from orchestration.choosing import chosen_until
from orchestration.replaying import replayed
from trading_worker.replay import Progress
from trading_worker.settings import EngineSettings

BY = "gate"


class Comparison(msgspec.Struct, frozen=True):
    """Two bundles on one window. `unjudged` says why they could not be put on it; then nothing is decided."""

    challenger_version: str
    champion_version: str | None
    challenger: EvaluationRecord | None
    champion: EvaluationRecord | None
    unjudged: str | None = None
    fitness: Fitness | None = None
    """The challenger's."""

    @property
    def records(self) -> dict[str, EvaluationRecord]:
        """Those of the two that were judged, by their role."""
        both = {"champion": self.champion, "challenger": self.challenger}
        return {role: record for role, record in both.items() if record is not None}


@dataclass(frozen=True)
class Bench:
    """What bundles are judged on."""

    lake: Lake
    rows: TrainingSet
    engine: EngineSettings
    """How the replay trades; its least confidence is also the threshold of the labelled rows."""
    seed: int
    progress: Progress | None = None


def path_of(version: str) -> str:
    """Where the comparison of a challenger lies in the lake."""
    return f"evaluations/{version}.json"


def measure_of(registry: Registry) -> str | None:
    """The version that a challenger must not be worse than; None only while there never was a champion.

    Where the alias is missing (removed by hand) workers keep the bundle they have: the ledger's last champion.
    """
    return registry.champion() or registry.ledger.before(None)


def compare(registry: Registry, bench: Bench) -> Comparison | None:
    """Evaluate the challenger and the bundle of `measure_of` on one held-out window; None when there is no challenger.

    The window begins where the challenger's holdout does, after the last label that the champion has seen, after the
    outcomes for which the challenger was demoted before, or after the window by which it was chosen: whichever is
    latest.
    """
    version, champion_version = registry.challenger(), measure_of(registry)
    if version is None:
        return None

    def unjudged(why: str, found: Fitness | None = None) -> Comparison:
        return Comparison(version, champion_version, None, None, why, found)

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as opened:
        files = registry.download(version, Path(folder) / version)
        broken = integrity(files, DECISION_SPEC)
        if broken is not None:
            return unjudged(f"integrity: {broken}", Fitness(integrity=broken))
        challenger = opened.enter_context(_loaded(files))
        found = fitness(challenger, bench.rows)
        start = max(
            challenger.manifest.training.holdout_start_ms,
            (demoted_until(registry.ledger.entries(), version) or -1) + 1,
            chosen_until(registry.ledger.entries(), version),
        )
        try:
            if champion_version is None:
                (record,) = _on([challenger], bench, start)
                return Comparison(version, None, record, None, fitness=found)
            champion = opened.enter_context(
                _loaded(registry.download(champion_version, Path(folder) / champion_version))
            )
            if champion.manifest.decision_spec.id != bench.rows.decision_spec_id:
                spec = champion.manifest.decision_spec.id
                return unjudged(f"the champion was trained on {spec}, of which there are no rows", found)
            start = max(start, champion.manifest.training.last_known_at + 1)
            judged, incumbent = _on([challenger, champion], bench, start)
        except (NotEnoughData, BundleRejected) as error:
            return unjudged(str(error), found)
        except RegistryAnswer as error:
            if error.status != 404:
                raise
            why = f"the last champion, version {champion_version}, is gone from the registry: promote a bundle by hand"
            return unjudged(why, found)
        return Comparison(version, champion_version, judged, incumbent, fitness=found)


def _on(bundles: Sequence[Predictor], bench: Bench, from_ms: int) -> list[EvaluationRecord]:
    """The records of bundles on the labelled rows and the bars from `from_ms` on."""
    records = [
        evaluate(each, bench.rows, start_ms=from_ms, threshold=bench.engine.min_confidence, seed=bench.seed)
        for each in bundles
    ]
    trades = replayed(bench.lake, bundles, from_ms, bench.engine, seed=bench.seed, progress=bench.progress)
    return [msgspec.structs.replace(record, replay=each) for record, each in zip(records, trades, strict=True)]


def _loaded(files: Path) -> Predictor:
    return Predictor.load(files)


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


def decide(registry: Registry, comparison: Comparison, rules: GateRules) -> Decision:
    """Ask the gate, then move the alias or leave the bundle as challenger; both are entered in the ledger."""
    version, current = comparison.challenger_version, measure_of(registry)
    verdict = _verdict(registry, comparison, current, rules)
    reasons = list(verdict.reasons)
    if current is not None and registry.champion() is None:
        reasons.insert(0, f"no bundle has the alias champion: the measure is the ledger's last champion, {current}")
    details: dict[str, object] = {"verdict": msgspec.to_builtins(verdict)}
    if verdict.promoted:
        registry.promote(version, f"gate: {verdict.rule}", BY, details)
    else:
        registry.challenge(version, f"gate: {'; '.join(verdict.failed)}", BY, details)
    outcome = "promoted" if verdict.promoted else "stays challenger"
    registry.note(version, RunRecord(tags={"gate": f"{outcome} by {verdict.rule}", "reasons": "\n".join(reasons)}))
    return Decision(version, registry.champion(), verdict.promoted, verdict.rule, tuple(reasons))


def _verdict(registry: Registry, comparison: Comparison, current: str | None, rules: GateRules) -> Verdict:
    if current != comparison.champion_version:
        return refuse(f"it was compared with {comparison.champion_version}, which is no longer the champion", rules)
    if comparison.challenger is None or comparison.fitness is None:
        return refuse(comparison.unjudged or "it was not evaluated", rules)
    until = demoted_until(registry.ledger.entries(), comparison.challenger_version)
    return judge(comparison.champion, comparison.challenger, comparison.fitness, rules, demoted_until_ms=until)
