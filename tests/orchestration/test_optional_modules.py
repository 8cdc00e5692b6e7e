"""The regime predictor and hunts on the training side: only where they are switched on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.candidates import HUNT
from features.regime_inputs import HORIZON_MS
from market.lake import Lake
from models_registry.manifest import REGIME
from models_registry.regime_predictor import RegimePredictor
from models_registry.runtime import MODELS
from models_registry.terms import hunting_terms
from models_registry.training_config import models_of
from orchestration import training_data
from orchestration.artifacts import get_folder
from orchestration.ingest import ingest_funding, universes
from orchestration.label_store import History, read_history, store_history_labels
from orchestration.model_folders import folder_of
from orchestration.resources import TrainingSettings, from_environment
from orchestration.run import Materialised, materialise, resources
from tests.models_registry.test_regime_predictor import market
from tests.orchestration.markets import days, ingest, synthetic

ON = TrainingSettings(market_regime_prediction=True, liquidity_hunting=True, holdout_hours=48)
OFF = TrainingSettings()


def run(home: Path, training: TrainingSettings) -> Materialised:
    given = resources(home, source="synthetic:seed=1,symbols=1", training=training)
    return materialise(("regime_predictor",), home=home, resources=given)


def test_switched_on_a_predictor_is_trained_and_belongs_to_bundles(tmp_path: Path) -> None:
    lake, rows = Lake(str(tmp_path / "lake")), market(1.5)
    training_data.store(lake, rows)
    said = run(tmp_path, ON).metadata["regime_predictor"]
    assert said["served"] == f"{REGIME}.json"
    assert "persistence" in str(said["metrics"])
    assert set(models_of(ON.config(int(rows.decided_at[-1])))) == {*MODELS, REGIME}
    get_folder(lake, folder_of(REGIME), tmp_path / "model")
    assert RegimePredictor.load(tmp_path / "model" / f"{REGIME}.json").lookback == 10


def test_switched_off_none_is_trained_and_an_old_one_is_left_out(tmp_path: Path) -> None:
    training_data.store(Lake(str(tmp_path / "lake")), market(1.5))
    run(tmp_path, ON)
    assert run(tmp_path, OFF).metadata["regime_predictor"] == {"served": "switched off"}
    assert set(models_of(OFF.config(0))) == set(MODELS)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, History]:
    lake, dates = Lake(str(tmp_path_factory.mktemp("lake"))), days(6)
    ingest(lake, synthetic(), dates)
    ingest_funding(lake, synthetic(), dates, universes(lake, dates))
    return lake, read_history(lake, 90)


def test_hunts_are_labelled_only_with_the_switch(stored: tuple[Lake, History]) -> None:
    lake, history = stored
    without, found = (store_history_labels(lake, history, settings) for settings in (OFF, ON))
    hunts = found.labels["kind"] == HUNT
    assert not (without.labels["kind"] == HUNT).any()
    assert hunts.any()
    assert {1, -1} == set(np.unique(found.labels["direction"][hunts]).tolist())
    joined = training_data.join(lake, history.rows, 100)
    assert (joined.rows.kind == HUNT).sum() == hunts.sum()


def test_the_training_set_has_the_regime_of_an_hour_later(stored: tuple[Lake, History]) -> None:
    lake, history = stored
    store_history_labels(lake, history, OFF)
    rows = training_data.join(lake, history.rows, 400).rows
    every = history.rows
    regime = every.decision[:, every.spec.index("5m.regime")]
    told = {(int(time), float(now)) for time, now, ready in zip(every.time, regime, every.ready, strict=True) if ready}
    known = rows.unlabelled_ahead >= 0
    assert known.mean() > 0.9
    assert not known[rows.unlabelled_at > every.time[-1] - HORIZON_MS].any(), "history ends before that"
    for at, ahead in zip(rows.unlabelled_at[known], rows.unlabelled_ahead[known], strict=True):
        assert (int(at) + HORIZON_MS, float(ahead)) in told
    assert np.isfinite(rows.unlabelled_states).all()


def test_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    off = from_environment()["training"].config(0)  # type: ignore[attr-defined]
    assert (off.regime, off.hunting) == (None, {})
    for name, value in {
        "ENABLE_MARKET_REGIME_PREDICTION": "true",
        "REGIME_PREDICTION_THRESHOLD": "0.8",
        "REGIME_PREDICTION_LOOKBACK": "12",
        "ENABLE_LIQUIDITY_HUNTING": "true",
        "LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD": "0.5",
        "LIQUIDITY_SLIPPAGE_TOLERANCE": "0.002",
    }.items():
        monkeypatch.setenv(name, value)
    training = from_environment()["training"]
    on = training.config(0)  # type: ignore[attr-defined]
    assert (on.regime.threshold, on.regime.lookback) == (0.8, 12)
    assert on.hunting == hunting_terms(training.hunting())  # type: ignore[attr-defined]
    assert (on.hunting["threshold"], on.hunting["tolerance"]) == (0.5, 0.002)
