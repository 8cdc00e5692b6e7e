"""The whole way from bars to a judged win model finds what is there, and nothing where nothing is.

Each part is tested by itself elsewhere. Here they run as the platform runs them: synthetic bars, decision rows, labels,
their join in the lake, the cut in time, the win model, its held-out log loss against the base rate. A look ahead
anywhere on that way shows as skill on the market without an edge; that it would show is itself tested, with
one bar of look-ahead on purpose. The autoencoder is its plain version, so that TensorFlow is not needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.history import DecisionHistory, decision_history
from market.bars import DAY_MS
from market.lake import Lake
from market.sources.synthetic import Edge, SyntheticMarket
from models_registry.component_folder import COMPONENT_FILE
from models_registry.manifest import AUTOENCODER, Component, Metric, encode
from models_registry.training import train_win_classifier
from models_registry.training_set import TrainingSet
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join

SEED, SYMBOLS, DAYS = 7, 10, 30
SETTINGS = TrainingSettings(seed=SEED, holdout_hours=144, rounds=150, max_windows=100)
LEAKED = "5m.return_1"
"""Neither candidates nor their quality read it, so a leak into it leaves the labels as they are."""


def market_history(edge: Edge) -> History:
    market = SyntheticMarket(SEED, SYMBOLS, edge)
    stretch = market.start_ms, market.start_ms + DAYS * DAY_MS
    bars = {symbol: market.klines(symbol, *stretch) for symbol in market.symbols()}
    funding = {symbol: market.funding(symbol, *stretch) for symbol in market.symbols()}
    return History(DAYS, bars, funding, decision_history(bars, funding))


def next_bar(rows: DecisionHistory, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's `values` as they will be one bar later, NaN where there is none."""
    later = np.full_like(values, np.nan)
    order = np.lexsort((rows.time, rows.symbol))
    now, then = order[:-1], order[1:]
    follows = (rows.symbol[then] == rows.symbol[now]) & (rows.time[then] - rows.time[now] == rows.spec.steps[0])
    later[now[follows]] = values[then[follows]]
    return later


def leak_in_a_column(rows: DecisionHistory) -> DecisionHistory:
    """Decision rows in which one feature is that of the next bar."""
    decision = rows.decision.copy()
    column = rows.spec.index(LEAKED)
    decision[:, column] = next_bar(rows, decision[:, column])
    return replace(rows, decision=decision)


def leak_in_the_join(rows: DecisionHistory) -> DecisionHistory:
    """What a join that is one bar late would find: the whole decision row of the next bar."""
    return replace(rows, decision=next_bar(rows, rows.decision))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    lake, history = Lake(str(tmp_path_factory.mktemp("planted"))), market_history("planted")
    store_history_labels(lake, history, SETTINGS)
    return join(lake, history.rows, SETTINGS.max_windows).rows


@pytest.fixture(scope="module")
def without_edge() -> History:
    return market_history("none")


@pytest.fixture(scope="module")
def labelled(without_edge: History, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The lake with the labels of the market without an edge."""
    lake = Lake(str(tmp_path_factory.mktemp("none")))
    store_history_labels(lake, without_edge, SETTINGS)
    return lake


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[TrainingSet], Metric]:
    """Trains a win model and gives its held-out log loss against the base rate."""

    def judge(rows: TrainingSet) -> Metric:
        plain = tmp_path / "autoencoder"
        plain.mkdir()
        none = Component(version="none", served=None, format=None, fallback="the plain version is enough here")
        (plain / COMPONENT_FILE).write_bytes(encode(none))
        config = SETTINGS.config(int(rows.decided_at[-1]))
        found = train_win_classifier(rows, {AUTOENCODER: plain}, config, tmp_path / "win").metrics["log_loss"]
        assert found.rows is not None
        assert found.rows > 1000
        return found

    return judge


def skill(found: Metric) -> bool:
    """Whether the whole interval of the improvement is above zero: the rule by which the manifest speaks of skill."""
    assert found.interval is not None
    return found.interval[0] > 0


def test_a_planted_edge_is_found(planted: TrainingSet, judged: Callable[[TrainingSet], Metric]) -> None:
    assert skill(judged(planted))


def test_shuffled_outcomes_give_no_skill(planted: TrainingSet, judged: Callable[[TrainingSet], Metric]) -> None:
    order = np.random.default_rng(SEED).permutation(len(planted))
    assert not skill(judged(replace(planted, outcome=planted.outcome[order], r=planted.r[order])))


def test_without_an_edge_there_is_no_skill(
    without_edge: History, labelled: Lake, judged: Callable[[TrainingSet], Metric]
) -> None:
    assert not skill(judged(join(labelled, without_edge.rows, SETTINGS.max_windows).rows))


@pytest.mark.parametrize("leak", [leak_in_a_column, leak_in_the_join])
def test_one_bar_of_look_ahead_would_show_as_skill(
    leak: Callable[[DecisionHistory], DecisionHistory],
    without_edge: History,
    labelled: Lake,
    judged: Callable[[TrainingSet], Metric],
) -> None:
    assert skill(judged(join(labelled, leak(without_edge.rows), SETTINGS.max_windows).rows))
