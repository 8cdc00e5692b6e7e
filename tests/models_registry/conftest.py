"""One small bundle, trained once for all tests that need real model files."""

from __future__ import annotations

import os

# Before TensorFlow or OpenMP start: the tests share their cores.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from models_registry.assembling import TrainedBundle, train_bundle
from models_registry.structure_autoencoder import AutoencoderConfig
from models_registry.training_config import TrainingConfig
from models_registry.training_set import TrainingSet
from models_registry.win_classifier import WinConfig
from tests.models_registry import made_five, planted

SMALL = TrainingConfig(
    autoencoder=AutoencoderConfig(epochs=4, most_windows=2000, batch=128),
    win=WinConfig(rounds=120, threads=1, learning_rate=0.08),
    plan={"stop_atr": 1.5, "target_atr": 2.0, "horizon_minutes": 240},
    costs={"fee_bps": 5.0},
    parent="1",
    code_version="test",
)


@pytest.fixture(scope="session")
def planted_set() -> TrainingSet:
    return planted.training_set()


@pytest.fixture(scope="session")
def trained(planted_set: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> TrainedBundle:
    """Read only: tests that change files copy the folder first."""
    return train_bundle(planted_set, SMALL, tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="session")
def five(planted_set: TrainingSet, trained: TrainedBundle, tmp_path_factory: pytest.TempPathFactory) -> TrainedBundle:
    """All five models served; read only, like `trained`."""
    return made_five.five_models(planted_set, trained, SMALL, tmp_path_factory.mktemp("five"))
