"""A bundle to time: the real models on a short synthetic market, built by the same steps as any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features import DECISION_SPEC
from features.barriers import CostModel, TradePlan
from features.history import DecisionHistory, decision_history
from features.labels import LabelTable, label_history
from market.sources import open_source
from models_registry.structure_autoencoder import AutoencoderConfig
from models_registry.training import TrainingConfig, train_bundle
from models_registry.training_set import HISTORY, TrainingSet
from models_registry.win_classifier import WinConfig

DAYS = 20
SYMBOLS = 6


@dataclass(frozen=True)
class SmallBundle:
    """A trained bundle and the decision rows of its market."""

    folder: Path
    history: DecisionHistory


def small_bundle(folder: Path, seed: int = 3) -> SmallBundle:
    """Train one into `folder`; about half a minute on one core."""
    source = open_source(f"synthetic:seed={seed},symbols={SYMBOLS}")
    coverage = source.coverage(source.symbols()[0])
    assert coverage is not None
    start, end = coverage[0], coverage[0] + DAYS * 86_400_000
    bars = {symbol: source.klines(symbol, start, end) for symbol in source.symbols()}
    funding = {symbol: source.funding(symbol, start, end) for symbol in source.symbols()}
    history = decision_history(bars, funding)
    rows = _training_set(history, label_history(history, bars, funding, TradePlan(), CostModel()))
    config = TrainingConfig(
        seed=seed,
        autoencoder=AutoencoderConfig(epochs=3, most_windows=6_000),
        win=WinConfig(rounds=100),
        plan=vars(TradePlan()),
        costs=vars(CostModel()),
    )
    return SmallBundle(train_bundle(rows, config, folder).folder, history)


def _training_set(history: DecisionHistory, table: LabelTable) -> TrainingSet:
    labels = table.labels
    row = labels["row"]
    ready = np.flatnonzero(history.ready)[::3]
    return TrainingSet.of(
        decision=history.decision[row],
        windows=history.windows(row),
        source=np.full(len(row), HISTORY),
        **{
            name: labels[name]
            for name in ("symbol", "direction", "kind", "decided_at", "known_at", "outcome", "r", "quality", "weight")
        },
        unlabelled_windows=history.windows(ready),
        unlabelled_at=history.time[ready],
        symbols=history.symbols,
        decision_spec_id=DECISION_SPEC.id,
        decision_names=DECISION_SPEC.names,
    )
