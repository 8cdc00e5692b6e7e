"""The whole graph, from klines to champion and from live labels to the next bundle, on a small market."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from typer.testing import CliRunner

from features.labels import LabelTable
from market.bars import DAY_MS
from market.klines_store import day_start
from market.lake import Lake
from models_registry.continuing import analyses_of, updates_of
from models_registry.convert import INT8
from models_registry.ledger import Ledger
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Manifest, decode
from models_registry.mlflow_rest import BUNDLE_MODEL
from models_registry.registry import Registry
from models_registry.runtime import MODELS
from models_registry.trial_log import TrialLog
from orchestration.definitions import definitions
from orchestration.gate_settings import GateSettings
from orchestration.ingest import ingest_funding, universes
from orchestration.jobs import CONTINUE, INGEST, LEARN
from orchestration.label_store import read_history
from orchestration.reproducing import reproduce
from orchestration.resources import LakeResource, TrainingSettings
from orchestration.run import MaterialisationFailed, Materialised, instance, materialise, resources
from orchestration.sensors import RANGE_END, RANGE_START, retrain_on_live_labels
from perpforge.commands.bundle import bundle_app
from tests.in_process_conversion import convert_here
from tests.mlflow_server import emptied_server
from tests.orchestration.journals import label, publish_positions
from tests.orchestration.markets import SOURCE, START, days, ingest, synthetic

LEFT = (AUTOENCODER, DQN)
"""What the second training leaves as it is: to fit and convert them again would prove nothing more, and take long."""
HISTORY, LIVE = days(8), days(2, first=13)
TOO_FEW = "too few blocks of time to say what this sample could have shown"
"""A day and a half is held out, in blocks of four hours."""
SMALL = TrainingSettings(epochs=1, max_windows=800, rounds=20, fewest_rows=60, holdout_hours=36, most_opportunities=900)
SMALLER = GateSettings(evidence="not_worse", fewest_positions=10, fewest_days=0.5, strategy_mode="ict")


class Built:
    """A home folder in which the retraining that the sensor asks for was run once, from nothing but live labels."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lake = Lake(str(home / "lake"))
        with ThreadPoolExecutor(1) as pool:
            server = pool.submit(emptied_server)  # it takes ten seconds, in a process of its own
            self.table = self._labels()
            known = np.flatnonzero(self.table.labels["known_at"] < START + len(HISTORY) * DAY_MS)
            publish_positions(
                self.lake, home / "journal", self.table, known[np.linspace(0, len(known) - 1, 40).astype(int)]
            )
            self.run("live_labels", url="http://127.0.0.1:9")  # it needs no registry
            import tensorflow  # noqa: F401 - meanwhile
        self.url = server.result().url
        self.request = self.look()
        assert isinstance(self.request, dg.RunRequest), self.request
        with instance(home) as kept:
            job = definitions(self.resources(self.url)).resolve_job_def("retrain")
            self.retrained = job.execute_in_process(instance=kept, tags=dict(self.request.tags))

    def _labels(self) -> LabelTable:
        """How the candidates of all days end, from a lake of their own: this one is still empty."""
        lake, dates = Lake(str(self.home / "elsewhere")), [*HISTORY, *LIVE]
        ingest(lake, synthetic(), dates)
        ingest_funding(lake, synthetic(), dates, universes(lake, dates))
        return label(read_history(lake, 90))

    def look(self) -> dg.RunRequest | str:
        """What the sensor says, of the runs that this home has had."""
        with instance(self.home) as kept, pytest.MonkeyPatch.context() as environment:
            environment.setenv("RETRAIN_AFTER_LABELS", "40")
            context = dg.build_sensor_context(kept, resources={"lake": LakeResource(uri=self.lake.uri)})
            found = retrain_on_live_labels(context)
        return str(found.skip_message) if isinstance(found, dg.SkipReason) else found

    @property
    def registry(self) -> Registry:
        return Registry(self.url, self.home / "registry" / "ledger.jsonl")

    @property
    def shown(self) -> dict[str, dict[str, object]]:
        """What each asset said of itself when the job ran."""
        return {
            event.materialization.asset_key.to_user_string(): {
                name: value.value for name, value in event.materialization.metadata.items()
            }
            for event in self.retrained.get_asset_materialization_events()
        }

    def resources(self, url: str) -> dict[str, object]:
        return resources(self.home, source=SOURCE, tracking_uri=url, training=SMALL, gate=SMALLER)

    def run(
        self,
        *selection: str,
        dates: list[str] | None = None,
        url: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> Materialised:
        return materialise(
            selection,
            home=self.home,
            resources=self.resources(url or self.url),
            days=(dates[0], dates[-1]) if dates else None,
            config=config,
        )

    def manifest(self, version: str) -> Manifest:
        folder = self.registry.download(version, self.home / "downloaded" / version)
        return decode((folder / "manifest.json").read_bytes())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with pytest.MonkeyPatch.context() as patch:
        convert_here(patch)
        yield Built(tmp_path_factory.mktemp("home"))


def test_the_retraining_that_the_sensor_asks_for_runs_the_whole_graph(built: Built) -> None:
    assert isinstance(built.request, dg.RunRequest)
    assert (built.request.tags[RANGE_START], built.request.tags[RANGE_END]) == (HISTORY[0], HISTORY[-1])
    assert built.retrained.success
    assert set(built.shown) == {*INGEST, "live_labels", *LEARN}
    assert built.shown["training_set"]["live_labels"] == 40
    assert built.shown["training_set"]["live_labels_seen"] == built.shown["trading_bundle"]["live_labels_seen"] == 40
    assert built.look() == f"0 of 40 new live labels, in days up to {HISTORY[-1]}"


def test_the_first_bundle_becomes_champion_by_bootstrap(built: Built) -> None:
    checks = {found.check_name: found.passed for found in built.retrained.get_asset_check_evaluations()}
    assert checks == {"klines_are_sound": True, "bundle_is_whole": True, "networks_are_quantised": True}
    assert built.shown["champion"]["promoted"] is True
    assert built.shown["champion"]["rule"] == "bootstrap"
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
    assert set(manifest.components) == set(MODELS)
    for name in MODELS:
        assert manifest.components[name].version.isdecimal()
        assert manifest.components[name].served is not None
    registered = built.registry.list()[-1]
    assert registered.tags["data_hash"] == manifest.training.data_hash
    assert registered.tags["gate"] == "promoted by bootstrap"


def test_every_training_is_a_trial_and_scores_say_what_they_are_worth(built: Built) -> None:
    assert built.shown["trading_bundle"]["trials"] == built.shown["bundle_evaluation"]["trials"] == 1
    assert built.shown["bundle_evaluation"]["challenger_log_loss_deflated"] == TOO_FEW
    (first,) = TrialLog(built.home / "registry" / "trials.jsonl").entries()[:1]
    assert first.run == built.retrained.run_id
    assert first.data_hash == built.manifest("1").training.data_hash


def test_a_bundle_is_shown_with_what_its_scores_are_worth(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEDGER_PATH", raising=False)
    shown = CliRunner().invoke(bundle_app, ["show", "1", "--mlflow", built.url, "--home", str(built.home)])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    place = next(number for number, line in enumerate(lines) if line.strip().startswith("log_loss "))
    assert lines[place + 1].strip() == TOO_FEW


def test_assets_show_tables_and_plots(built: Built) -> None:
    shown = built.shown
    assert "| log_loss |" in str(shown["win_classifier"]["metrics"])
    small = built.manifest("1").components[AUTOENCODER].formats[INT8]
    assert small.agreement is not None
    assert f"| tflite_int8 | yes | {small.agreement:.1%} | {small.bytes:,} |" in str(
        shown["structure_autoencoder"]["formats"]
    )
    assert shown["structure_autoencoder"]["data_hash"] == built.manifest("1").training.data_hash
    assert "| win_classifier | log_loss |" in str(shown["trading_bundle"]["scores"])
    for asset, plot in (
        ("klines", "closes"),
        ("labels", "outcomes"),
        ("training_set", "labels_a_day"),
        ("structure_autoencoder", "plot_loss"),
        ("win_classifier", "plot_calibration"),
        ("bundle_evaluation", "running_r"),
    ):
        assert str(shown[asset][plot]).startswith("!["), (asset, plot)


def test_the_same_models_again_are_the_same_bundle(built: Built) -> None:
    before, trials = len(built.registry.list()), TrialLog(built.home / "registry" / "trials.jsonl").count()
    made = built.run("trading_bundle", "bundle_evaluation", "champion")
    assert len(built.registry.list()) == before
    assert made.metadata["trading_bundle"]["trials"] == trials + 1
    assert made.metadata["champion"]["promoted"] is False
    assert made.metadata["champion"]["champion"] == built.registry.champion()


def test_live_labels_come_back_into_the_next_bundle(built: Built, tmp_path: Path) -> None:
    built.run(*INGEST, dates=LIVE)
    decided_live = np.flatnonzero(built.table.labels["decided_at"] >= day_start(LIVE[0]))
    publish_positions(built.lake, tmp_path / "journal", built.table, decided_live[:60], worker="second")
    made = built.run("live_labels", *(name for name in LEARN if name not in LEFT), config=CONTINUE)
    assert made.metadata["starting_point"]["continue_from"] == "1"
    for name in (FEATURE_NETWORK, LIQUIDITY, WIN):
        assert (made.metadata[name]["continued_from"], made.metadata[name]["updates"]) == ("1", 2), name
    assert made.metadata["live_labels"]["labels"] == 100
    assert made.metadata["training_set"]["live_labels"] == 100
    second = made.metadata["trading_bundle"]["version"]
    assert second != "1"
    manifest = built.manifest(second)
    assert manifest.parent == "1"
    assert manifest.training.live_labels > built.manifest("1").training.live_labels > 0
    assert manifest.training.last_known_at > built.manifest("1").training.last_known_at
    first, win = built.manifest("1").components[WIN], manifest.components[WIN]
    assert updates_of(win) == updates_of(first) + 1 == 2
    assert analyses_of(win) > 2 * analyses_of(first) > 0
    assert win.parameters["trees"] > first.parameters["trees"]
    verdict = made.metadata["champion"]
    assert verdict["rule"] == "not_worse"
    assert verdict["promoted"] == (built.registry.champion() == second)
    assert verdict["promoted"] != (built.registry.challenger() == second)
    assert built.registry.ledger.verify() >= 3
    found = made.metadata["bundle_evaluation"]
    assert found["champion_rows"] == found["challenger_rows"]
    assert found["champion_days"] == found["challenger_days"] > 1
    assert found["champion_positions"] > 0
    assert found["challenger_latency_ms"] > 0


def test_a_removed_alias_is_no_first_bundle(built: Built) -> None:
    """Workers keep the bundle they have, and the gate measures against it."""
    from mlflow import MlflowClient

    champion = built.registry.champion()
    MlflowClient(built.url).delete_registered_model_alias(BUNDLE_MODEL, "champion")
    made = built.run("trading_bundle", "bundle_evaluation", "champion").metadata
    assert made["bundle_evaluation"]["champion"] == champion
    assert made["champion"]["rule"] == "not_worse"
    assert f"the ledger's last champion, {champion}" in made["champion"]["reasons"]
    assert made["champion"]["promoted"] == (built.registry.champion() is not None)


def test_a_bundle_that_was_tampered_with_is_not_judged(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the version of this run that is looked at; which one is the newest is not asked."""
    download = Registry.download

    def tampered(self: Registry, version: str, folder: str | Path) -> Path:
        files = download(self, version, folder)
        if version == made:
            served = next(path for path in files.iterdir() if path.suffix == ".onnx")
            served.write_bytes(served.read_bytes() + b"\0")
        return files

    made = str(built.run("trading_bundle").metadata["trading_bundle"]["version"])
    monkeypatch.setattr(Registry, "download", tampered)
    monkeypatch.setattr(Registry, "list", lambda self: pytest.fail("which version is the newest does not matter"))
    before = built.registry.ledger.verify()
    with pytest.raises(MaterialisationFailed, match="win_classifier") as failed:
        built.run("trading_bundle", "bundle_evaluation", "champion")
    assert failed.value.step == "bundle_is_whole"
    assert built.registry.ledger.verify() == before


@pytest.mark.deep
def test_every_model_continues_from_the_champion_and_the_bundle_is_reproduced(built: Built) -> None:
    """From the recorded data, settings and parent the same files come out."""
    champion = built.registry.champion()
    assert champion is not None
    built.run(*INGEST, dates=days(4, first=13))  # later days to calibrate and judge by than the champion has seen
    made = built.run(*LEARN, config=CONTINUE).metadata
    version = str(made["trading_bundle"]["version"])
    manifest, before = built.manifest(version), built.manifest(champion)
    for name in MODELS:
        record = manifest.components[name].provenance
        assert record is not None
        assert record.continued_from == champion, name
        assert updates_of(manifest.components[name]) == updates_of(before.components[name]) + 1, name
        assert analyses_of(manifest.components[name]) > analyses_of(before.components[name]), name
    found = reproduce(built.lake, built.registry, version)
    assert [each.name for each in found if not (each.same and each.reproduced)] == []
    assert {each.name for each in found} == set(MODELS)
