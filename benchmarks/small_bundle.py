"""A bundle to time: the real models on a short synthetic market, built by the same steps as any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from features.history import DecisionHistory, decision_history
from market.bars import DAY_MS
from market.lake import Lake
from market.sources import open_source
from models_registry.assembling import train_bundle
from models_registry.structure_autoencoder import AutoencoderConfig
from models_registry.training_config import TrainingConfig
from models_registry.win_classifier import WinConfig
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join

DAYS = 20
SYMBOLS = 6
MOST_WINDOWS = 6_000
"""That the autoencoder is fitted to."""


@dataclass(frozen=True)
class SmallBundle:
    """A trained bundle and the decision rows of its market."""

    folder: Path
    history: DecisionHistory


def small_bundle(folder: Path, seed: int = 3) -> SmallBundle:
    """Train one into `folder`, with its models and labels beside it; about half a minute on one core."""
    source = open_source(f"synthetic:seed={seed},symbols={SYMBOLS}")
    coverage = source.coverage(source.symbols()[0])
    assert coverage is not None
    start, end = coverage[0], coverage[0] + DAYS * DAY_MS
    bars = {symbol: source.klines(symbol, start, end) for symbol in source.symbols()}
    funding = {symbol: source.funding(symbol, start, end) for symbol in source.symbols()}
    history = decision_history(bars, funding)
    settings = TrainingSettings(max_windows=MOST_WINDOWS)
    lake = Lake(str(folder.with_name(f"{folder.name}.lake")))
    store_history_labels(lake, History(DAYS, bars, funding, history), settings)
    rows = join(lake, history, settings.max_windows).rows
    config = TrainingConfig(
        seed=seed,
        autoencoder=AutoencoderConfig(epochs=3, most_windows=MOST_WINDOWS),
        win=WinConfig(rounds=100),
        plan=vars(settings.plan()),
        costs=vars(settings.costs()),
    )
    return SmallBundle(train_bundle(rows, config, folder).folder, history)
