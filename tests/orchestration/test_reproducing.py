"""A bundle trained again from what it records: the same, or what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from market.lake import Lake
from models_registry import structure_autoencoder
from models_registry.assembling import assemble, train_model
from models_registry.errors import BundleRejected, DataGone, TrainingConfigUnreadable, TrainingUnavailable
from models_registry.manifest import AUTOENCODER, MANIFEST_FILE, WIN
from models_registry.training_config import models_of
from orchestration import reproducing, training_data
from orchestration.reproducing import Rebuilt, reproduce
from orchestration.resources import TrainingSettings
from perpforge.cli import app
from tests.models_registry import planted

SETTINGS = TrainingSettings(rounds=20, fewest_rows=100, holdout_hours=72.0)
LEFT_OUT = ("feature_network", "liquidity_predictor", "strategy_dqn")


class Registry:
    """Bundles in folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def download(self, version: str, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder / version, folder))


class Home:
    """A lake with a training set, and a registered bundle of the models trained on it."""

    def __init__(self, folder: Path) -> None:
        self.lake, self.registry = Lake(str(folder / "lake")), Registry(folder / "bundles")
        rows = planted.training_set(windows=50)
        self.path = training_data.store(self.lake, rows)
        self.hash = rows.data_hash
        config = TrainingSettings(**SETTINGS.model_dump() | dict.fromkeys(LEFT_OUT, False)).config(
            int(rows.decided_at[-1]), parent="1"
        )
        parts: dict[str, Path] = {}
        for name in models_of(config):
            train_model(name, rows, parts, config, folder / "parts" / name)
            parts[name] = folder / "parts" / name
        assemble(rows, config, parts, folder / "bundles" / "2")

    def manifest(self) -> dict:  # type: ignore[type-arg]
        return json.loads((self.registry.folder / "2" / MANIFEST_FILE).read_bytes())

    def change(self, manifest: dict) -> None:  # type: ignore[type-arg]
        (self.registry.folder / "2" / MANIFEST_FILE).write_text(json.dumps(manifest))

    def reproduce(self) -> dict[str, Rebuilt]:
        return {found.name: found for found in reproduce(self.lake, self.registry, "2")}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def without_tensorflow() -> pytest.MonkeyPatch:  # type: ignore[misc]
    """The autoencoder is its plain version: it takes no time, and there is one model fewer that could differ."""

    def unavailable(*_: object, **__: object) -> None:
        raise TrainingUnavailable(AUTOENCODER, "tensorflow")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure_autoencoder, "train", unavailable)
        yield patch


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, without_tensorflow: pytest.MonkeyPatch) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def home(built: Home, tmp_path: Path) -> Home:
    """A copy to change."""
    copied = object.__new__(Home)
    shutil.copytree(built.registry.folder.parent, tmp_path / "home")
    copied.lake, copied.registry = Lake(str(tmp_path / "home" / "lake")), Registry(tmp_path / "home" / "bundles")
    copied.path, copied.hash = built.path, built.hash
    return copied


def test_the_same_data_and_settings_give_the_same_models(built: Home) -> None:
    found = built.reproduce()
    sha256 = built.manifest()["components"][WIN]["formats"]["onnx"]["sha256"]
    assert str(found[WIN]) == f"{WIN}: the same file {sha256[:12]}"
    assert str(found[AUTOENCODER]) == f"{AUTOENCODER}: the same plain version"
    assert all(each.reproduced for each in found.values())
    assert found[WIN].differences == {"win_probability": (0.0, 1e-4)}


def test_another_seed_gives_another_model(home: Home) -> None:
    manifest = home.manifest()
    manifest["components"][WIN]["provenance"]["seed"] += 1
    home.change(manifest)
    found = home.reproduce()
    assert not found[WIN].same
    assert not found[WIN].reproduced
    assert f"{WIN}: another file; win_probability differs by 0." in str(found[WIN])
    assert found[AUTOENCODER].reproduced


def test_a_small_difference_is_within_the_tolerance(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another processor would round."""
    golden_differences = reproducing.golden_differences
    monkeypatch.setattr(
        reproducing, "golden_differences", lambda *given: golden_differences(*given) | {"win_probability": 9e-5}
    )
    monkeypatch.setattr(reproducing, "_same", lambda *_: False)
    found = home.reproduce()[WIN]
    assert found.reproduced
    assert str(found) == f"{WIN}: another file; win_probability differs by 9e-05, tolerance 0.0001"


def test_data_that_the_lake_has_not_is_named_before_anything_is_trained(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproducing, "train_model", lambda *_, **__: pytest.fail("trained"))
    (Path(home.lake.uri) / home.path).unlink()
    with pytest.raises(DataGone, match=f"structure_autoencoder was trained on the data {home.hash}, which the lake"):
        home.reproduce()


def test_settings_of_another_version_are_refused(home: Home) -> None:
    manifest = home.manifest()
    del manifest["config"]["win"]["depth"]
    home.change(manifest)
    with pytest.raises(TrainingConfigUnreadable, match=r"missing: win\.depth"):
        home.reproduce()


def test_a_bundle_without_records_is_refused(home: Home) -> None:
    manifest = home.manifest()
    manifest["components"][WIN]["provenance"] = None
    home.change(manifest)
    with pytest.raises(BundleRejected, match="win_classifier does not say what it was trained on"):
        home.reproduce()


def test_a_continued_model_begins_with_its_parents(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's files come from the registry, whoever is champion today."""
    manifest = home.manifest()
    manifest["components"][WIN]["provenance"]["continued_from"] = "1"
    home.change(manifest)
    shutil.copytree(home.registry.folder / "2", home.registry.folder / "1")
    given = {}

    def trained(name: str, *arguments: object, start: object, **more: object) -> object:
        given[name] = start
        return train_model(name, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reproducing, "train_model", trained)
    assert home.reproduce()[WIN].same
    assert given[AUTOENCODER] is None
    assert given[WIN].bundle == "1"  # type: ignore[union-attr]


@pytest.fixture
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that has bundle 2."""

    class Known:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def list(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(version="2")]

    monkeypatch.setattr("models_registry.registry.Registry", Known)


@pytest.mark.usefixtures("_known")
@pytest.mark.parametrize(("same", "difference", "code"), [(True, 0.0, 0), (False, 1e-5, 0), (False, 0.5, 1)])
def test_the_exit_code_says_whether_it_is_reproduced(
    monkeypatch: pytest.MonkeyPatch, same: bool, difference: float, code: int
) -> None:
    rebuilt = Rebuilt(WIN, "a" * 64, same, {"win_probability": (difference, 1e-4)})
    monkeypatch.setattr(reproducing, "reproduce", lambda *_: [rebuilt])
    done = CliRunner().invoke(app, ["bundle", "reproduce", "2", "--mlflow", "http://127.0.0.1:9", "--lake", "nowhere"])
    assert done.exit_code == code, done.output
    assert str(rebuilt) in done.output
    assert done.output.strip().endswith("is reproduced" if code == 0 else "is not reproduced")


@pytest.mark.usefixtures("_known")
def test_what_cannot_be_trained_again_has_a_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise DataGone(WIN, "f" * 64, "training/f.npz")

    monkeypatch.setattr(reproducing, "reproduce", gone)
    done = CliRunner().invoke(app, ["bundle", "reproduce", "2", "--mlflow", "http://127.0.0.1:9", "--lake", "nowhere"])
    assert done.exit_code == 2
    assert "f" * 64 in done.output


def test_golden_outputs_that_are_unknown_on_one_side_differ() -> None:
    assert not Rebuilt(WIN, "a", True, {"win_probability": (np.inf, 1e-4)}).reproduced
