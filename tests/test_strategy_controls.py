"""The whole way from bars to a judged strategy finds what is there, and nothing where nothing is.

Synthetic bars, decision rows, episodes of both directions, the cut in time, double Q-learning, and the greedy policy
played on held-out opportunities beside never trading. A look ahead anywhere on that way shows as profit on the market
without an edge; that it would show is itself tested. The latents are the plain version's.
"""

from __future__ import annotations

import numpy as np
import pytest

from features.barriers import CostModel, TradePlan
from features.episodes import episodes
from features.history import DecisionHistory, decision_history
from market.bars import DAY_MS, Bars
from market.funding import Fundings
from market.sources.synthetic import Edge, SyntheticMarket
from models_registry.dqn_experience import Experience
from models_registry.manifest import Metric
from models_registry.policy_value import greedy
from models_registry.strategy_dqn import HEADLINE, DqnConfig, fit, judge
from models_registry.structure_autoencoder import statistical_features
from models_registry.training_config import no_progress
from models_registry.training_set import split_in_time

pytestmark = pytest.mark.deep

SEED, SYMBOLS, DAYS = 7, 10, 30
HOUR = 3_600_000
Market = tuple[dict[str, Bars], dict[str, Fundings], DecisionHistory]


def market_of(edge: Edge) -> Market:
    market = SyntheticMarket(SEED, SYMBOLS, edge)
    stretch = market.start_ms, market.start_ms + DAYS * DAY_MS
    bars = {symbol: market.klines(symbol, *stretch) for symbol in market.symbols()}
    funding = {symbol: market.funding(symbol, *stretch) for symbol in market.symbols()}
    return bars, funding, decision_history(bars, funding)


def experience_of(market: Market, decision: np.ndarray | None = None) -> Experience:
    bars, funding, history = market
    found = episodes(history, bars, funding, TradePlan(), CostModel())
    rows = history.decision if decision is None else decision
    return Experience.of(found, rows, lambda at: statistical_features(history.windows(at)), history.spec.names)


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
def without_edge() -> Market:
    return market_of("none")


def test_a_planted_edge_is_found() -> None:
    assert judged(experience_of(market_of("planted"))).skill


def test_without_an_edge_there_is_no_skill(without_edge: Market) -> None:
    assert not judged(experience_of(without_edge)).skill


def test_one_bar_of_look_ahead_would_show_as_skill(without_edge: Market) -> None:
    """Decision rows as a join that is one bar late would find them."""
    history = without_edge[2]
    later = np.full_like(history.decision, np.nan)
    order = np.lexsort((history.time, history.symbol))
    now, then = order[:-1], order[1:]
    follows = history.symbol[then] == history.symbol[now]
    later[now[follows]] = history.decision[then[follows]]
    assert judged(experience_of(without_edge, later)).skill
