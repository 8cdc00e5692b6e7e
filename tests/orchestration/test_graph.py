"""The whole graph, from klines to champion and from live labels to the next bundle, on a small market."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from market.klines_store import day_start
from market.lake import Lake
from models_registry.ledger import Ledger
from models_registry.manifest import AUTOENCODER, WIN, Manifest, decode
from models_registry.registry import Registry
from orchestration.jobs import INGEST, LEARN
from orchestration.label_store import read_history
from orchestration.resources import TrainingSettings
from orchestration.run import Materialised, materialise, resources
from tests.mlflow_server import emptied_server
from tests.orchestration.journals import label, publish_positions
from tests.orchestration.markets import SOURCE, days

HISTORY, LIVE = days(8), days(2, first=13)
SMALL = TrainingSettings(epochs=1, max_windows=800, rounds=20, fewest_rows=60, holdout_hours=36)


class Built:
    """A home folder in which the graph was materialised once."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = emptied_server().url
        self.lake = Lake(str(home / "lake"))
        self.first = self.run(*INGEST, "live_labels", *LEARN, dates=HISTORY)

    @property
    def registry(self) -> Registry:
        return Registry(self.url, self.home / "registry" / "ledger.jsonl")

    def run(self, *selection: str, dates: list[str] | None = None) -> Materialised:
        return materialise(
            selection,
            home=self.home,
            resources=resources(self.home, source=SOURCE, tracking_uri=self.url, training=SMALL),
            days=(dates[0], dates[-1]) if dates else None,
        )

    def manifest(self, version: str) -> Manifest:
        folder = self.registry.download(version, self.home / "downloaded" / version)
        return decode((folder / "manifest.json").read_bytes())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("home"))


def test_the_first_bundle_becomes_champion_by_bootstrap(built: Built) -> None:
    made = built.first
    assert set(made.metadata) == {*INGEST, "live_labels", *LEARN}
    assert made.checks == {"klines_are_sound": True, "bundle_is_whole": True}
    assert made.metadata["champion"]["promoted"] is True
    assert made.metadata["champion"]["rule"] == "bootstrap"
    first = Ledger(built.home / "registry" / "ledger.jsonl").entries()
    assert [(entry.action, entry.alias, entry.version) for entry in first[:2]] == [
        ("challenge", "challenger", "1"), ("promote", "champion", "1"),
    ]  # fmt: skip
    assert first[1].by == "gate"
    assert first[1].details["verdict"]["promoted"] is True  # type: ignore[index]


def test_the_bundle_has_its_numbers_and_its_components_too(built: Built) -> None:
    manifest = built.manifest("1")
    assert manifest.bundle_version == "1"
    assert manifest.fallbacks == {}
    assert manifest.training.rows > 200
    for name in (AUTOENCODER, WIN):
        assert manifest.components[name].version.isdecimal()
        assert manifest.components[name].served is not None
    registered = built.registry.list()[-1]
    assert registered.tags["data_hash"] == manifest.training.data_hash
    assert registered.tags["gate"] == "promoted by bootstrap"


def test_assets_show_tables_and_plots(built: Built) -> None:
    shown = built.first.metadata
    assert "| log_loss |" in shown["win_classifier"]["metrics"]
    assert "tflite_int8" in shown["structure_autoencoder"]["formats"]
    for asset, plot in (
        ("klines", "closes"),
        ("labels", "outcomes"),
        ("training_set", "labels_a_day"),
        ("structure_autoencoder", "plot_loss"),
        ("win_classifier", "plot_calibration"),
        ("bundle_evaluation", "running_r"),
    ):
        assert shown[asset][plot].startswith("!["), (asset, plot)


def test_the_same_models_again_are_the_same_bundle(built: Built) -> None:
    before = len(built.registry.list())
    made = built.run("trading_bundle", "bundle_evaluation", "champion")
    assert len(built.registry.list()) == before
    assert made.metadata["champion"]["promoted"] is False
    assert made.metadata["champion"]["champion"] == built.registry.champion()


def test_live_labels_come_back_into_the_next_bundle(built: Built, tmp_path: Path) -> None:
    built.run(*INGEST, dates=LIVE)
    table = label(read_history(built.lake, 90))
    decided_live = np.flatnonzero(table.labels["decided_at"] >= day_start(LIVE[0]))
    publish_positions(built.lake, tmp_path / "journal", table, decided_live[:60])
    # The autoencoder stays as it is: converting it again would take half of this file's time.
    made = built.run("live_labels", *(name for name in LEARN if name != "structure_autoencoder"))
    assert made.metadata["live_labels"]["labels"] == 60
    assert made.metadata["training_set"]["live_labels"] == 60
    second = made.metadata["trading_bundle"]["version"]
    assert second != "1"
    manifest = built.manifest(second)
    assert manifest.parent == "1"
    assert manifest.training.live_labels > 0
    assert manifest.training.last_known_at > built.manifest("1").training.last_known_at
    verdict = made.metadata["champion"]
    assert verdict["rule"] == "not_worse"
    assert verdict["promoted"] == (built.registry.champion() == second)
    assert verdict["promoted"] != (built.registry.challenger() == second)
    assert built.registry.ledger.verify() >= 3
    assert made.metadata["bundle_evaluation"]["champion_rows"] == made.metadata["bundle_evaluation"]["challenger_rows"]
