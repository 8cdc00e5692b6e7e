"""Who a challenger is measured against, and what the ledger is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from models_registry.evaluation import EvaluationRecord
from models_registry.ledger import Ledger
from models_registry.mlflow_rest import RegistryAnswer
from models_registry.registry import Registry as RealRegistry
from models_registry.registry import RunRecord
from models_registry.training_set import TrainingSet
from orchestration import judging
from orchestration.judging import Comparison, compare, decide, measure_of
from tests.models_registry.test_gate import record


class Registry(RealRegistry):
    """The real registry's moves and ledger over aliases that are kept here: no server."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.aliases: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.noted: dict[str, RunRecord] = {}
        self._clock = iter(range(1_000)).__next__

    def _alias(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def _move(self, alias, version, action, reason, by, details=None):  # type: ignore[no-untyped-def]
        from models_registry.ledger import Move

        previous = self.aliases.pop(alias, None)
        if version is not None:
            self.aliases[alias] = version
        return self.ledger.append(
            Move(
                action=action, alias=alias, version=version, previous=previous, reason=reason, by=by,
                details=details or {},
            ),
            time_ms=self._clock(),
        )  # fmt: skip

    def _check(self, version: str) -> None:
        pass

    def note(self, version: str, record: RunRecord) -> None:
        self.noted[version] = record

    def download(self, version: str, folder: str | Path) -> Path:
        if version in self.deleted:
            raise RegistryAnswer("http://registry", 404, "RESOURCE_DOES_NOT_EXIST", "no such version")
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder)


class Bundle:
    """A loaded bundle that says no more than its name."""

    def __init__(self, version: str) -> None:
        self.version = version
        training = type("Training", (), {"holdout_start_ms": 10, "last_known_at": 9})()
        spec = type("Spec", (), {"id": "d"})()
        self.manifest = type("Manifest", (), {"training": training, "decision_spec": spec})()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Versions 1 and 2 were champions; version 2 is nearly as good as 3 is bad."""
    quality = {"1": 0.0, "2": 0.004, "3": -0.01}

    def on(bundle: Bundle, *_: object) -> EvaluationRecord:
        return record(bundle.version, better=quality[bundle.version])

    def loaded(registry: Registry, version: str, folder: str) -> Bundle:
        registry.download(version, Path(folder) / version)
        return Bundle(version)

    monkeypatch.setattr(judging, "_on", on)
    monkeypatch.setattr(judging, "_loaded", loaded)
    return Registry(tmp_path)


@pytest.fixture
def rows() -> TrainingSet:
    return type("Rows", (), {"decision_spec_id": "d"})()  # type: ignore[return-value]


def judge(registry: Registry, rows: TrainingSet, version: str) -> judging.Decision:
    registry.challenge(version, "registered, to be judged", "trading_bundle")
    found = compare(registry, rows, 0.35, 7)
    assert found is not None
    return decide(registry, found)


def test_only_the_first_bundle_ever_is_promoted_by_bootstrap(registry: Registry, rows: TrainingSet) -> None:
    assert judge(registry, rows, "1").rule == "bootstrap"
    second = judge(registry, rows, "2")
    assert (second.rule, second.promoted) == ("not_worse", True)


def test_a_champion_whose_alias_was_removed_is_the_measure_still(registry: Registry, rows: TrainingSet) -> None:
    judge(registry, rows, "1")
    judge(registry, rows, "2")
    del registry.aliases["champion"]
    assert measure_of(registry) == "2"
    found = judge(registry, rows, "3")
    assert (found.rule, found.promoted, found.champion) == ("not_worse", False, None)
    assert found.reasons[0] == "no bundle has the alias champion: the measure is the ledger's last champion, 2"
    # Removing it was entered meanwhile; a better bundle takes the place all the same.
    assert [entry.action for entry in registry.ledger.entries()].count("found") == 1
    assert judge(registry, rows, "2").champion == "2"


def test_a_champion_that_is_gone_altogether_leaves_it_to_a_person(registry: Registry, rows: TrainingSet) -> None:
    judge(registry, rows, "1")
    registry.aliases.clear()
    registry.deleted.add("1")
    found = judge(registry, rows, "2")
    assert not found.promoted
    assert found.reasons[-1].endswith("version 1, is gone from the registry: promote a bundle by hand")


def test_a_registry_in_trouble_decides_nothing(
    registry: Registry, rows: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(registry, rows, "1")
    registry.challenge("2", "registered", "trading_bundle")

    def broken(version: str, folder: str | Path) -> Path:
        if version == "1":
            raise RegistryAnswer("http://registry", 500, "INTERNAL_ERROR", "out of disk")
        return Path(folder)

    monkeypatch.setattr(registry, "download", broken)
    with pytest.raises(RegistryAnswer, match="out of disk"):
        compare(registry, rows, 0.35, 7)


def test_the_ledger_says_why_a_challenger_was_refused(registry: Registry, rows: TrainingSet) -> None:
    judge(registry, rows, "2")
    found = judge(registry, rows, "3")
    entry = registry.ledger.entries()[-1]
    assert entry.reason == f"gate: {found.reasons[1]}"
    assert ": worse by 0.01400 (" in entry.reason
    assert "expectancy" in found.reasons[2]
    assert registry.noted["3"].tags["gate"] == "stays challenger by not_worse"


def test_a_comparison_with_another_champion_is_not_acted_on(registry: Registry, rows: TrainingSet) -> None:
    judge(registry, rows, "1")
    old = Comparison("3", None, record("3"), None)
    found = decide(registry, old)
    assert not found.promoted
    assert registry.ledger.entries()[-1].reason == (
        "gate: not judged: it was compared with None, which is no longer the champion"
    )
