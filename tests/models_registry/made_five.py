"""A small bundle of all five models, each trained for a moment on made-up rows: what the runtime is tried with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features.episodes import Episodes
from models_registry import assembling
from models_registry.assembling import TrainedBundle
from models_registry.convert import FP32, INT8
from models_registry.dqn_learner import LearnerConfig
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.fitness import NETWORKS
from models_registry.liquidity_predictor import LiquidityConfig
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Manifest
from models_registry.opportunities import Opportunities
from models_registry.strategy_dqn import DqnConfig
from models_registry.training import (
    no_progress,
    train_feature_network,
    train_liquidity_predictor,
    train_strategy_dqn,
    train_win_classifier,
)
from models_registry.training_config import TrainingConfig
from models_registry.training_set import TrainingSet
from tests.in_process_conversion import convert_here
from tests.models_registry import made_episodes, planted

NEVER_REFUSED = 1e9
"""A parity that every format passes: what is served here need not be good."""


def config_of(small: TrainingConfig) -> TrainingConfig:
    """The settings of `small`, with the other three models as small as they can be."""
    return replace(
        small,
        feature_network=NetworkConfig(
            hidden=(16,),
            epochs=1,
            batch=256,
            folds=2,
            features_tolerance=NEVER_REFUSED,
            outcome_tolerance=NEVER_REFUSED,
            agreement=0.0,
        ),
        liquidity=LiquidityConfig(units=8, pool=8, epochs=1, folds=2, batch=256, fewest_rows=100, agreement=0.0),
        dqn=DqnConfig(
            learner=LearnerConfig(hidden=(16,), passes=1, portion=256, batch=128, fewest_replayed=200),
            fewest_opportunities=100,
            agreement=0.0,
        ),
    )


def with_paths(rows: TrainingSet, seed: int = 4) -> TrainingSet:
    """The same rows and windows, with made-up moves after each."""
    rng = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for prefix, count in (("", len(rows)), ("unlabelled_", len(rows.unlabelled_at))):
        ahead = rng.standard_normal(count).astype(np.float32)
        made[f"{prefix}reach_below" if not prefix else "unlabelled_below"] = np.abs(ahead) + np.float32(0.1)
        made[f"{prefix}reach_above" if not prefix else "unlabelled_above"] = np.abs(ahead) + np.float32(0.2)
        made["return_ahead" if not prefix else "unlabelled_return"] = ahead
    made["path_known_at"] = rows.decided_at + 4 * planted.HOUR
    made["unlabelled_known_at"] = rows.unlabelled_at + 4 * planted.HOUR
    return replace(rows, **made)


def opportunities(rows: TrainingSet, count: int = 600, seed: int = 5) -> Opportunities:
    """Made-up trades over the time and with the columns of `rows`."""
    rng = np.random.default_rng(seed)
    days = (rows.decided_at[-1] - rows.decided_at[0]) / (24 * planted.HOUR)
    episodes: Episodes = made_episodes.experience(count, days=float(days)).episodes
    states = 3 * count
    decision = rng.standard_normal((states, len(rows.decision_names))).astype(np.float32)
    return Opportunities(
        episodes,
        decision,
        planted.windows_of(states, rng),
        np.ones((count, 2), dtype=np.uint8),
        rng.random((count, 2)).astype(np.float32),
        rows.decision_names,
        rows.decision_spec_id,
    )


def five_models(rows: TrainingSet, trained: TrainedBundle, small: TrainingConfig, folder: Path) -> TrainedBundle:
    """The bundle, in `folder`/bundle; its autoencoder is that of `trained`, which was fitted to the same windows."""
    rows, config = with_paths(rows), config_of(small)
    own = assembling.models_folder(trained.folder) / AUTOENCODER
    places = {AUTOENCODER: own, **{name: folder / name for name in (FEATURE_NETWORK, LIQUIDITY, WIN, DQN)}}
    with pytest.MonkeyPatch.context() as patch:
        convert_here(patch)
        train_feature_network(rows, config, places[FEATURE_NETWORK])
        train_liquidity_predictor(rows, config, places[LIQUIDITY])
        below = {name: places[name] for name in (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY)}
        train_win_classifier(rows, below, config, places[WIN])
        train_strategy_dqn(rows, opportunities(rows), {**below, WIN: places[WIN]}, config, places[DQN], no_progress)
    return assembling.assemble(rows, config, places, folder / "bundle")


def in_int8(manifest: Manifest) -> Manifest:
    """Every network served as INT8; which is faster is chance with networks as small as these."""
    parts = dict(manifest.components)
    for name in NETWORKS:
        passed = {kind: msgspec.structs.replace(parts[name].formats[kind], passed=True) for kind in (INT8, FP32)}
        formats = parts[name].formats | passed
        parts[name] = msgspec.structs.replace(parts[name], served=passed[INT8].file, format=INT8, formats=formats)
    return msgspec.structs.replace(manifest, components=parts)
