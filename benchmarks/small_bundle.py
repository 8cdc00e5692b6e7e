"""A bundle to time: the real models on a short synthetic market, built by the same steps as any other."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.candidates import EVENT
from features.history import DecisionHistory, decision_history
from features.quality import quality
from market.bars import DAY_MS
from market.lake import Lake
from market.sources import open_source
from models_registry.assembling import train_bundle
from models_registry.opportunities import Opportunities
from models_registry.training_set import TrainingSet
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join

DAYS = 16
SYMBOLS = 4
MOST_ROWS = 3_000
"""Labels that are learnt from."""
SETTINGS = TrainingSettings(epochs=1, max_windows=1_500, rounds=150, most_opportunities=1_200, fewest_rows=150)
"""Networks of the size that is served, hardly trained: what they have learnt does not change what they cost."""


@dataclass(frozen=True)
class SmallBundle:
    """A trained bundle and the decision rows of its market."""

    folder: Path
    """Of the models: their own folders lie in `folder`.models."""
    history: DecisionHistory


@dataclass(frozen=True)
class AskedWave:
    """One wave's rows, and a long and a short candidate on each: what `Predictor.predict` is given."""

    decision: NDArray[np.float32]
    windows: NDArray[np.float32]
    index: NDArray[np.int64]
    direction: NDArray[np.int8]
    kind: NDArray[np.uint8]
    quality: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.decision)


@cache
def small_bundle() -> SmallBundle:
    """The five models, trained once a process; about a minute on two cores. Its folder goes when the process ends."""
    folder = Path(_kept().name) / "bundle"
    return build(folder)


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="perpforge-bench-")


def build(folder: Path, seed: int = 3) -> SmallBundle:
    """Train a bundle into `folder`, with its models and labels beside it."""
    market = small_market(seed)
    rows = training_rows(market, folder)
    rows = rows.select(np.unique(np.linspace(0, len(rows) - 1, MOST_ROWS).astype(np.int64)))
    chances = Opportunities.of(
        market.rows,
        market.bars,
        market.funding,
        SETTINGS.plan(),
        SETTINGS.costs(),
        most=SETTINGS.most_opportunities,
    )
    config = SETTINGS.config(int(rows.decided_at[-1]))
    assert config.feature_network is not None
    assert config.liquidity is not None
    config = replace(
        config,
        feature_network=replace(config.feature_network, folds=2),
        liquidity=replace(config.liquidity, folds=2),
    )
    return SmallBundle(train_bundle(rows, config, folder, opportunities=chances).folder, market.rows)


def small_market(seed: int) -> History:
    """`DAYS` of `SYMBOLS` symbols of a made market, with their decision rows."""
    source = open_source(f"synthetic:seed={seed},symbols={SYMBOLS}")
    coverage = source.coverage(source.symbols()[0])
    assert coverage is not None
    start, end = coverage[0], coverage[0] + DAYS * DAY_MS
    bars = {symbol: source.klines(symbol, start, end) for symbol in source.symbols()}
    funding = {symbol: source.funding(symbol, start, end) for symbol in source.symbols()}
    return History(DAYS, bars, funding, decision_history(bars, funding))


def training_rows(market: History, folder: Path) -> TrainingSet:
    """The labelled rows of the market and windows without labels; their lake lies beside `folder`."""
    lake = Lake(str(folder.with_name(f"{folder.name}.lake")))
    store_history_labels(lake, market, SETTINGS)
    return join(lake, market.rows, SETTINGS.max_windows, bars=market.bars, plan=SETTINGS.plan()).rows


def asked_wave(history: DecisionHistory, rows: int) -> AskedWave:
    """The last `rows` decision rows that are ready, each a candidate both ways."""
    ready = np.flatnonzero(history.ready)[-rows:]
    index = np.repeat(np.arange(len(ready)), 2)
    direction = np.tile(np.array([1, -1], dtype=np.int8), len(ready))
    decision = history.decision[ready]
    kind = np.full(len(index), EVENT, dtype=np.uint8)
    score = quality(decision[index], direction)
    return AskedWave(decision, history.windows(ready), index, direction, kind, score)
