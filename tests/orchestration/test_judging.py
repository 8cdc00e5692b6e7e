"""Who a challenger is measured against, and what the ledger is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from market.lake import Lake
from models_registry.demotion import LIVE_UNTIL, tenure
from models_registry.errors import NotEnoughData
from models_registry.evaluation import EvaluationRecord
from models_registry.gate import Fitness, GateRules
from models_registry.ledger import Ledger
from models_registry.mlflow_rest import RegistryAnswer
from models_registry.registry import Registry as RealRegistry
from models_registry.registry import RunRecord
from orchestration import judging
from orchestration.choosing import Choice
from orchestration.judging import Bench, Comparison, compare, decide, measure_of
from tests.models_registry.test_gate import FIT, record
from trading_worker.settings import EngineSettings

RULES = GateRules()


class Registry(RealRegistry):
    """The real registry's moves and ledger over aliases that are kept here: no server."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.aliases: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.noted: dict[str, RunRecord] = {}
        self._clock = iter(range(1_000)).__next__
        self.live: int | None = None
        self._live_until = lambda: self.live

    def _alias(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def _point(self, alias: str, version: str | None) -> None:
        self.aliases.pop(alias, None)
        if version is not None:
            self.aliases[alias] = version

    def _check(self, version: str) -> None:
        pass

    def note(self, version: str, record: RunRecord) -> None:
        self.noted[version] = record

    def download(self, version: str, folder: str | Path) -> Path:
        if version in self.deleted:
            raise RegistryAnswer("http://registry", 404, "RESOURCE_DOES_NOT_EXIST", "no such version")
        return Path(folder)


SEEN = {"2": 30}
"""When the last label that a version has seen was known; 9 for the others."""


class Bundle:
    """A loaded bundle that says no more than its name."""

    def __init__(self, version: str) -> None:
        self.version = version
        training = type("Training", (), {"holdout_start_ms": 10, "last_known_at": SEEN.get(version, 9)})()
        spec = type("Spec", (), {"id": "d"})()
        self.manifest = type("Manifest", (), {"training": training, "decision_spec": spec})()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        pass


QUALITY = {"1": 0.0, "2": 0.004, "3": -0.01, "4": 0.008}
"""Nats by which each version is better than the first."""


@pytest.fixture
def asked() -> list[int]:
    """From when on bundles were judged, in order."""
    return []


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[int]) -> Registry:
    """Versions are loaded as no more than their names, and judged by `QUALITY`."""

    def on(bundles: list[Bundle], _: Bench, start_ms: int) -> list[EvaluationRecord]:
        asked.append(start_ms)
        return [record(bundle.version, better=QUALITY[bundle.version]) for bundle in bundles]

    monkeypatch.setattr(judging, "_on", on)
    monkeypatch.setattr(judging, "_loaded", lambda files: Bundle(files.name))
    monkeypatch.setattr(judging, "integrity", lambda files, spec: None)
    monkeypatch.setattr(judging, "fitness", lambda bundle, rows: FIT)
    return Registry(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Bench:
    labelled = type("Rows", (), {"decision_spec_id": "d"})()
    return Bench(Lake(str(tmp_path / "lake")), labelled, EngineSettings(), 7)


def judge(registry: Registry, rows: Bench, version: str) -> judging.Decision:
    registry.challenge(version, "registered, to be judged", "trading_bundle")
    found = compare(registry, rows)
    assert found is not None
    return decide(registry, found, RULES)


def test_only_the_first_bundle_ever_is_promoted_by_bootstrap(registry: Registry, rows: Bench) -> None:
    assert judge(registry, rows, "1").rule == "bootstrap"
    second = judge(registry, rows, "2")
    assert (second.rule, second.promoted) == ("better", True)


@pytest.mark.parametrize("first", [True, False])
def test_a_bundle_for_whose_window_there_is_no_data_is_left_unjudged(
    registry: Registry, rows: Bench, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        judge(registry, rows, "1")

    def nothing(*given: object) -> list[EvaluationRecord]:
        raise NotEnoughData("the evaluation window", 0, 100)

    monkeypatch.setattr(judging, "_on", nothing)
    found = judge(registry, rows, "2")
    assert not found.promoted
    assert any("not enough data for the evaluation window: 0 rows" in reason for reason in found.reasons)
    assert registry.challenger() == "2"
    assert registry.champion() == (None if first else "1")


def test_a_champion_whose_alias_was_removed_is_the_measure_still(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    judge(registry, rows, "2")
    del registry.aliases["champion"]
    assert measure_of(registry) == "2"
    found = judge(registry, rows, "3")
    assert (found.rule, found.promoted, found.champion) == ("better", False, None)
    assert found.reasons[0] == "no bundle has the alias champion: the measure is the ledger's last champion, 2"
    # Removing it was entered meanwhile; a better bundle takes the place all the same.
    assert [entry.action for entry in registry.ledger.entries()].count("found") == 1
    assert judge(registry, rows, "4").champion == "4"


def test_a_champion_that_is_gone_altogether_leaves_it_to_a_person(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    registry.aliases.clear()
    registry.deleted.add("1")
    found = judge(registry, rows, "2")
    assert not found.promoted
    assert found.reasons[-1].endswith("version 1, is gone from the registry: promote a bundle by hand")


def test_a_registry_in_trouble_decides_nothing(
    registry: Registry, rows: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge(registry, rows, "1")
    registry.challenge("2", "registered", "trading_bundle")

    def broken(version: str, folder: str | Path) -> Path:
        if version == "1":
            raise RegistryAnswer("http://registry", 500, "INTERNAL_ERROR", "out of disk")
        return Path(folder)

    monkeypatch.setattr(registry, "download", broken)
    with pytest.raises(RegistryAnswer, match="out of disk"):
        compare(registry, rows)


def test_the_ledger_says_why_a_challenger_was_refused(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "2")
    found = judge(registry, rows, "3")
    entry = registry.ledger.entries()[-1]
    assert entry.reason.startswith("gate: log loss 0.")
    assert ": worse by 0.01400 (" in entry.reason
    assert "; evidence: no interval" in entry.reason
    assert any("expectancy" in reason for reason in found.reasons)
    assert registry.noted["3"].tags["gate"] == "stays challenger by better"


def test_a_comparison_with_another_champion_is_not_acted_on(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    old = Comparison("3", None, record("3"), None)
    found = decide(registry, old, RULES)
    assert not found.promoted
    assert registry.ledger.entries()[-1].reason == (
        "gate: not judged: it was compared with None, which is no longer the champion"
    )


def test_the_window_begins_after_what_either_has_seen_and_after_a_demotion(
    registry: Registry, rows: Bench, asked: list[int]
) -> None:
    judge(registry, rows, "1")
    judge(registry, rows, "2")
    registry.demote("2", "live record", "test", {LIVE_UNTIL: 500_000})
    assert registry.champion() == "1"
    judge(registry, rows, "2")
    assert asked == [10, 10, 500_001]


def test_the_window_begins_after_what_the_champion_has_seen(registry: Registry, rows: Bench, asked: list[int]) -> None:
    judge(registry, rows, "2")
    judge(registry, rows, "4")
    assert asked == [10, 31]


def test_the_window_begins_after_the_one_by_which_the_challenger_was_chosen(
    registry: Registry, rows: Bench, asked: list[int]
) -> None:
    judge(registry, rows, "1")
    choice = Choice(
        version="4", other="3", start_ms=11, until_ms=75, rows=200, log_loss=0.6, other_log_loss=0.61,
        expectancy=None, other_expectancy=None,
    )  # fmt: skip
    registry.challenge("4", choice.reason, "trading_bundle", {"choice": msgspec.to_builtins(choice)})
    assert judge(registry, rows, "4").promoted, "put up again without a choice: the old one counts still"
    assert asked[-1] == 75
    judge(registry, rows, "3")
    assert asked[-1] < 75, "not of the other, which nothing was chosen by"


def test_a_demoted_bundle_is_not_promoted_again_by_the_evidence_of_before(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    judge(registry, rows, "2")
    registry.demote("2", "live record", "test", {LIVE_UNTIL: 2_000_000})
    again = judge(registry, rows, "2")
    assert not again.promoted
    assert registry.champion() == "1"
    assert any("it was demoted once" in reason for reason in again.reasons)


@pytest.mark.parametrize(
    ("unfit", "words"),
    [(Fitness(latency_ms=99.0, latency_rows=200), "too slow"), (Fitness(), "was not measured")],
)
def test_the_first_bundle_must_be_fit_too(
    registry: Registry, rows: Bench, monkeypatch: pytest.MonkeyPatch, unfit: Fitness, words: str
) -> None:
    monkeypatch.setattr(judging, "fitness", lambda bundle, rows: unfit)
    found = judge(registry, rows, "1")
    assert (found.rule, found.promoted, found.champion) == ("bootstrap", False, None)
    assert words in registry.ledger.entries()[-1].reason


def test_a_bundle_that_is_not_whole_is_not_even_loaded(
    registry: Registry, rows: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "integrity", lambda files, spec: "model.onnx is missing")
    monkeypatch.setattr(judging, "_loaded", lambda files: pytest.fail("it was loaded"))
    found = judge(registry, rows, "1")
    assert not found.promoted
    assert found.reasons == ("not judged: integrity: model.onnx is missing",)


def test_a_promotion_keeps_what_the_live_record_is_held_to(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    (entry,) = (each for each in registry.ledger.entries() if each.action == "promote" and each.version == "1")
    numbers = entry.details["verdict"]["numbers"]  # type: ignore[index]
    assert numbers["expectancy_low"] < numbers["expectancy"] < numbers["expectancy_high"]
    assert LIVE_UNTIL not in entry.details, "no live outcome yet"


def counted_from(registry: Registry) -> int | None:
    """From when on the champion's live outcomes count."""
    found = tenure(registry.ledger.entries())
    assert found is not None
    return found.counted_from_ms


@pytest.mark.parametrize("by", ["the command line", "the UI"])
def test_what_was_lost_in_an_earlier_tenure_does_not_count_after_a_move_by_hand(
    registry: Registry, rows: Bench, by: str
) -> None:
    judge(registry, rows, "1")
    registry.live = 500
    judge(registry, rows, "2")
    assert counted_from(registry) == 500
    for newest, version in ((900, "1"), (1_500, "2")):
        registry.live = newest
        if by == "the UI":
            registry.aliases["champion"] = version
            registry.reconcile()
        elif version == "1":
            registry.rollback("it loses", "me")
        else:
            registry.promote(version, "I trust it", "me")
        assert registry.champion() == version
        assert counted_from(registry) == newest, "what bundle 2 lost until 900 belongs to its first tenure"
    registry.live = 2_000
    registry.promote("2", "I still do", "me")
    assert counted_from(registry) == 1_500, "it was champion already"


def test_who_gave_a_champion_back_in_the_ui_is_not_overruled_by_its_demotion(registry: Registry, rows: Bench) -> None:
    judge(registry, rows, "1")
    judge(registry, rows, "2")
    registry.aliases["champion"] = "1"
    registry.reconcile()
    assert registry.ledger.before("1") is None, "bundle 2 was taken back"


def test_a_comparison_comes_back_from_the_lake_as_it_was(registry: Registry, rows: Bench) -> None:
    registry.challenge("1", "registered", "trading_bundle")
    found = compare(registry, rows)
    assert found is not None
    judging.save(rows.lake, found)
    assert judging.load(rows.lake, "1") == found
