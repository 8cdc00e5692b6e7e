"""The whole way from bars to a judged strategy finds what is there, and nothing where nothing is.

Synthetic bars, decision rows, episodes of both directions, the cut in time, double Q-learning, and the greedy policy
played on held-out opportunities beside never trading. A look ahead anywhere on that way shows as profit on the market
without an edge; that it would show is itself tested. The latents are the plain version's.
"""

from __future__ import annotations

import pytest

from features.barriers import CostModel, TradePlan
from features.episodes import episodes
from features.history import DecisionHistory
from models_registry.dqn_experience import Experience
from models_registry.manifest import Metric
from models_registry.policy_value import greedy
from models_registry.strategy_dqn import HEADLINE, DqnConfig, fit, judge
from models_registry.structure_autoencoder import statistical_features
from models_registry.training_config import no_progress
from models_registry.training_set import split_in_time
from orchestration.label_store import History
from tests.control_markets import leak_in_the_join, market_history

pytestmark = pytest.mark.deep

DAYS = 90
"""What is learnt from 30 days trades so seldom that the interval includes zero on four planted markets of six."""
HOUR = 3_600_000


def experience_of(market: History, rows: DecisionHistory | None = None) -> Experience:
    """What the strategy learns from; it sees the decision rows as `rows` has them."""
    found = episodes(market.rows, market.bars, market.funding, TradePlan(), CostModel())
    seen = market.rows if rows is None else rows
    return Experience.of(
        found, seen.decision, lambda at: statistical_features(seen.windows(at)), market.rows.spec.names
    )


def judged(given: Experience) -> Metric:
    """R per opportunity beside never trading, on the last quarter of the time."""
    at = given.episodes.decided_at
    split = split_in_time(
        at,
        given.episodes.known_at,
        holdout_start_ms=int(at[-1] - (at[-1] - at[0]) * 0.25),
        validation_fraction=0.2,
        embargo_ms=4 * HOUR,
    )
    found = fit(given, split, DqnConfig(), no_progress)
    held = given.select(split.holdout)
    metric = judge(held.episodes, greedy(held.episodes, found.values(held)), DqnConfig())[HEADLINE]
    assert metric.rows > 1000
    return metric


@pytest.fixture(scope="module")
def without_edge() -> History:
    return market_history("none", DAYS)


def test_a_planted_edge_is_found() -> None:
    assert judged(experience_of(market_history("planted", DAYS))).skill


def test_without_an_edge_there_is_no_skill(without_edge: History) -> None:
    assert not judged(experience_of(without_edge)).skill


def test_one_bar_of_look_ahead_would_show_as_skill(without_edge: History) -> None:
    assert judged(experience_of(without_edge, leak_in_the_join(without_edge.rows))).skill
