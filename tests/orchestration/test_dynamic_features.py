"""Dynamic features in the graph: only where they are switched on, and in the bundle with the model that has them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from market.lake import Lake
from models_registry.assembling import assemble
from models_registry.component_folder import load_component, save_component
from models_registry.manifest import AUTOENCODER, DYNAMIC, WIN, Component
from models_registry.provenance import of_labels
from models_registry.training_config import models_of, split_of
from models_registry.training_set import TrainingSet
from orchestration import environment, training_data
from orchestration.artifacts import get_folder, put_folder
from orchestration.model_folders import folder_of
from orchestration.resources import TrainingSettings, from_environment
from orchestration.run import Materialised, materialise, resources
from tests.models_registry import moves

SMALL = {"dynamic_features": True, "holdout_hours": 7 * 24.0, "rounds": 20, "fewest_rows": 100} | dict.fromkeys(
    ("feature_network", "liquidity_predictor", "strategy_dqn"), False
)
ON = TrainingSettings(**SMALL)


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    return moves.training_set(edge=2.5)


@pytest.fixture
def home(tmp_path: Path, rows: TrainingSet) -> Path:
    """A home with a training set and the plain version of an autoencoder, as assets leave them."""
    lake = Lake(str(tmp_path / "lake"))
    training_data.store(lake, rows)
    config = ON.config(int(rows.decided_at[-1]))
    plain = Component(version="none", served=None, format=None, fallback="left out by the test")
    folder = tmp_path / "autoencoder"
    folder.mkdir()
    save_component(
        folder, msgspec.structs.replace(plain, provenance=of_labels(rows, split_of(rows, config), config.seed))
    )
    put_folder(lake, folder_of(AUTOENCODER), folder)
    return tmp_path


def run(home: Path, training: TrainingSettings) -> Materialised:
    given = resources(home, source="synthetic:seed=1,symbols=1", training=training)
    return materialise(("dynamic_features", "win_classifier"), home=home, resources=given)


def test_switched_on_they_are_searched_for_learnt_with_and_assembled(home: Path, rows: TrainingSet) -> None:
    made = run(home, ON)
    said = made.metadata["dynamic_features"]
    assert said["served"] == "dynamic_features.json"
    assert moves.PLANTED in str(said["search"])
    assert "| ranging |" in str(said["search"])
    assert "corrected_information_ratio" in str(said["metrics"])
    lake, config = Lake(str(home / "lake")), ON.config(int(rows.decided_at[-1]))
    folders = {name: home / "parts" / name for name in models_of(config)}
    assert set(folders) == {AUTOENCODER, WIN, DYNAMIC}
    for name, folder in folders.items():
        get_folder(lake, folder_of(name), folder)
    assert load_component(folders[WIN]).parameters["dynamic"] == load_component(folders[DYNAMIC]).parameters["columns"]
    assembled = assemble(rows, config, folders, home / "bundle").manifest
    assert f"{DYNAMIC}.corrected_information_ratio" in assembled.metrics


def test_switched_off_nothing_is_searched_for(home: Path, rows: TrainingSet) -> None:
    run(home, ON)
    off = TrainingSettings(**{**SMALL, "dynamic_features": False})
    made = run(home, off)
    assert made.metadata["dynamic_features"] == {"served": "switched off"}
    config = off.config(int(rows.decided_at[-1]))
    assert config.dynamic is None
    assert set(models_of(config)) == {AUTOENCODER, WIN}
    get_folder(Lake(str(home / "lake")), folder_of(WIN), home / "win")
    assert load_component(home / "win").parameters["dynamic"] == []


def test_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_environment()["training"].config(0).dynamic is None  # type: ignore[attr-defined]
    monkeypatch.setenv("ENABLE_DYNAMIC_FEATURES", "True")
    monkeypatch.setenv("DYNAMIC_FEATURE_MIN_SHARPE", "0.5")
    monkeypatch.setenv("DYNAMIC_FEATURE_MAX_COUNT", "3")
    found = from_environment()["training"].config(0).dynamic  # type: ignore[attr-defined]
    assert (found.min_sharpe, found.max_count, found.seed) == (0.5, 3, 7)
    monkeypatch.setenv("ENABLE_DYNAMIC_FEATURES", "perhaps")
    with pytest.raises(ValueError, match="ENABLE_DYNAMIC_FEATURES=perhaps is not allowed"):
        environment.switch("ENABLE_DYNAMIC_FEATURES")
