"""Registering and promoting, against a real MLflow server."""

from __future__ import annotations

import base64
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from models_registry.errors import BundleRejected, LedgerBroken
from models_registry.mlflow_rest import BUNDLE_MODEL, RegistryAnswer, RegistryUnreachable
from models_registry.registry import NothingToRollBack, PromotionRefused, Registry, RunRecord
from tests.mlflow_server import emptied_server

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Clock:
    """Counts up by one at every look."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


def whole(folder: Path) -> None:
    if json.loads((folder / "manifest.json").read_bytes()).get("broken"):
        raise BundleRejected(folder, "a hash does not match")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(emptied_server().url, tmp_path / "ledger.jsonl", verify=whole, clock=Clock())


def bundle(tmp_path: Path, name: str, **fields: object) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"bundle_version": name, **fields}))
    (folder / "model.bin").write_bytes(name.encode() * 100)
    return folder


def register(registry: Registry, tmp_path: Path, *names: str) -> list[str]:
    return [registry.register(bundle(tmp_path, name)) for name in names]


def by_hand(registry: Registry, version: str, alias: str = "champion") -> None:
    MlflowClient(registry.tracking_uri).set_registered_model_alias(BUNDLE_MODEL, alias, version)


def test_an_empty_registry(registry: Registry) -> None:
    assert registry.champion() is None
    assert registry.challenger() is None
    assert registry.list() == []
    assert registry.reconcile() == ()
    with pytest.raises(NothingToRollBack):
        registry.rollback("none yet", "test")


def test_a_version_has_its_files_numbers_and_plots(registry: Registry, tmp_path: Path) -> None:
    record = RunRecord(
        metrics={"log_loss": 0.61, "undefined": float("nan")},
        parameters={"rows": 10, "seed": 7},
        tags={"decision_spec": "d1"},
        plots={"calibration": PIXEL},
    )
    version = registry.register(bundle(tmp_path, "a"), record)
    (listed,) = registry.list()
    assert (listed.version, listed.aliases) == (version, ())
    assert listed.tags["decision_spec"] == "d1"
    assert listed.source.startswith("mlflow-artifacts:/")
    client = MlflowClient(registry.tracking_uri)
    run = client.get_run(listed.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["log_loss"] == 0.61
    assert run.data.params == {"rows": "10", "seed": "7"}
    assert [item.path for item in client.list_artifacts(listed.run_id, "plots")] == ["plots/calibration.png"]
    files = registry.download(version, tmp_path / "again")
    assert {path.name for path in files.iterdir()} == {"manifest.json", "model.bin"}
    assert (files / "model.bin").read_bytes() == b"a" * 100


def test_registering_the_same_bundle_again_gives_its_version(registry: Registry, tmp_path: Path) -> None:
    folder = bundle(tmp_path, "a")
    assert registry.register(folder) == registry.register(folder)
    assert len(registry.list()) == 1


def numbering(folder: Path) -> Callable[[str], None]:
    def number(version: str) -> None:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"bundle_version": version}))

    return number


def test_a_bundle_knows_its_number(registry: Registry, tmp_path: Path) -> None:
    for expected in ("1", "2"):
        folder = bundle(tmp_path, f"bundle-{expected}")
        assert registry.register(folder, number=numbering(folder)) == expected
        files = registry.download(expected, tmp_path / "again")
        assert json.loads((files / "manifest.json").read_bytes())["bundle_version"] == expected


def test_a_number_that_a_deleted_version_had_is_not_given_again(registry: Registry, tmp_path: Path) -> None:
    client = MlflowClient(registry.tracking_uri)
    _, two = register(registry, tmp_path, "one", "two")
    client.delete_model_version(BUNDLE_MODEL, two)
    folder = bundle(tmp_path, "three")
    version = registry.register(folder, number=numbering(folder))
    assert int(version) > int(two)
    files = registry.download(version, tmp_path / "again")
    assert json.loads((files / "manifest.json").read_bytes())["bundle_version"] == version


def test_a_numbered_bundle_that_is_registered_again_is_found(registry: Registry, tmp_path: Path) -> None:
    first, again = bundle(tmp_path, "first"), tmp_path / "again"
    shutil.copytree(first, again)
    version = registry.register(first, number=numbering(first))
    assert registry.register(again, number=numbering(again)) == version


def test_a_judgement_is_noted_on_the_bundle(registry: Registry, tmp_path: Path) -> None:
    (version,) = register(registry, tmp_path, "one")
    registry.note(version, RunRecord(metrics={"expectancy": 0.1}, tags={"gate": "promoted"}, plots={"curve": PIXEL}))
    (listed,) = registry.list()
    assert listed.tags["gate"] == "promoted"
    run = MlflowClient(registry.tracking_uri).get_run(listed.run_id)
    assert run.data.metrics["expectancy"] == 0.1


def test_a_component_is_a_model_of_its_own(registry: Registry, tmp_path: Path) -> None:
    client = MlflowClient(registry.tracking_uri)
    folder = bundle(tmp_path, "component")
    versions = []
    for content in ("{}", '{"version": "x"}', '{"version": "x"}'):
        (folder / "component.json").write_text(f"{content}\n{tmp_path}")
        versions.append(registry.register_component("structure_autoencoder", folder))
    first, second, again = versions
    assert int(second) == int(first) + 1
    assert again == second
    assert client.get_model_version("structure_autoencoder", second).source.startswith("mlflow-artifacts:/")
    assert registry.list() == []


def test_promotion_moves_the_alias_and_is_entered(registry: Registry, tmp_path: Path) -> None:
    one, two = register(registry, tmp_path, "one", "two")
    first = registry.promote(one, "the first bundle", "gate", {"rule": "bootstrap"})
    assert (first.version, first.previous, first.details) == (one, None, {"rule": "bootstrap"})
    registry.challenge(two, "not better yet", "gate")
    assert (registry.champion(), registry.challenger()) == (one, two)
    second = registry.promote(two, "demo", "override")
    assert (registry.champion(), registry.challenger()) == (two, None)
    assert (second.previous, second.reason, second.by) == (one, "demo", "override")
    assert [bundle.aliases for bundle in registry.list()] == [("champion",), ()]
    assert registry.ledger.who_was_champion(second.time_ms - 1) == one
    assert registry.ledger.who_was_champion(second.time_ms) == two


def test_rollback_goes_back_to_the_champion_before(registry: Registry, tmp_path: Path) -> None:
    one, two, three = register(registry, tmp_path, "one", "two", "three")
    for version in (one, two, three):
        registry.promote(version, "better", "gate")
    assert registry.rollback("it loses", "me").version == two
    assert registry.rollback("it loses too", "me").version == one
    assert registry.champion() == one
    with pytest.raises(NothingToRollBack):
        registry.rollback("further", "me")


def test_a_demotion_is_a_rollback_of_its_own_name_and_of_that_champion_only(registry: Registry, tmp_path: Path) -> None:
    one, two, three = register(registry, tmp_path, "one", "two", "three")
    for version in (one, two):
        registry.promote(version, "better", "gate")
    assert registry.demote(one, "live record", "sensor") is None, "it is not champion"
    entry = registry.demote(two, "live record", "sensor", {"live": 1})
    assert entry is not None
    assert (entry.action, entry.version, entry.previous, entry.by) == ("demotion", one, two, "sensor")
    assert registry.champion() == one
    with pytest.raises(NothingToRollBack):
        registry.demote(one, "live record", "sensor")
    registry.promote(three, "better", "gate")
    by_hand(registry, two)
    assert registry.demote(three, "live record", "sensor") is None, "a person was quicker"
    assert [(each.action, each.version) for each in registry.ledger.entries()][-1] == ("found", two)


def test_a_version_whose_files_do_not_verify_is_refused(registry: Registry, tmp_path: Path) -> None:
    (good,) = register(registry, tmp_path, "good")
    registry.promote(good, "first", "gate")
    bad = registry.register(bundle(tmp_path, "bad", broken=True))
    with pytest.raises(PromotionRefused, match="a hash does not match"):
        registry.promote(bad, "better", "gate")
    assert registry.champion() == good
    assert registry.ledger.verify() == 1


def test_an_unknown_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    register(registry, tmp_path, "one")
    with pytest.raises(RegistryAnswer):
        registry.promote("999", "better", "me")
    assert registry.champion() is None


def test_a_move_by_hand_is_found_and_can_be_rolled_back(registry: Registry, tmp_path: Path) -> None:
    one, two = register(registry, tmp_path, "one", "two")
    registry.promote(one, "first", "gate")
    by_hand(registry, two)
    (entry,) = registry.reconcile()
    assert (entry.action, entry.version, entry.previous) == ("found", two, one)
    assert registry.reconcile() == ()
    assert registry.rollback("the hand slipped", "me").version == one


def test_a_move_by_hand_just_before_a_promotion_is_not_lost(registry: Registry, tmp_path: Path) -> None:
    one, two, three = register(registry, tmp_path, "one", "two", "three")
    registry.promote(one, "first", "gate")
    by_hand(registry, two)
    registry.promote(three, "better", "gate")
    assert [(entry.action, entry.version) for entry in registry.ledger.entries()] == [
        ("promote", one), ("found", two), ("promote", three),
    ]  # fmt: skip


def test_nothing_moves_while_the_ledger_is_broken(registry: Registry, tmp_path: Path) -> None:
    one, two = register(registry, tmp_path, "one", "two")
    registry.promote(one, "first", "gate")
    path = registry.ledger.path
    path.write_bytes(path.read_bytes().replace(b'"by":"gate"', b'"by":"nobody"'))
    with pytest.raises(LedgerBroken):
        registry.promote(two, "better", "gate")
    assert registry.champion() == one


def test_a_silent_server_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        registry = Registry(f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path / "ledger.jsonl")
        with pytest.raises(RegistryUnreachable):
            registry.champion()
        with pytest.raises(RegistryUnreachable):
            registry.register(bundle(tmp_path, "a"))


def test_only_a_server_will_do(tmp_path: Path) -> None:
    with pytest.raises(RegistryAnswer, match="through an MLflow server"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "ledger.jsonl")
