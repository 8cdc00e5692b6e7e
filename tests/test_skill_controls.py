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

from features.history import DecisionHistory
from market.lake import Lake
from models_registry.component_folder import COMPONENT_FILE
from models_registry.manifest import AUTOENCODER, Component, Metric, encode
from models_registry.training import train_win_classifier
from models_registry.training_set import TrainingSet
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join
from tests.control_markets import SEED, leak_in_a_column, leak_in_the_join, market_history

DAYS = 30
SETTINGS = TrainingSettings(seed=SEED, holdout_hours=144, rounds=150, max_windows=100)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    lake, history = Lake(str(tmp_path_factory.mktemp("planted"))), market_history("planted", DAYS)
    store_history_labels(lake, history, SETTINGS)
    return join(lake, history.rows, SETTINGS.max_windows).rows


@pytest.fixture(scope="module")
def without_edge() -> History:
    return market_history("none", DAYS)


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
