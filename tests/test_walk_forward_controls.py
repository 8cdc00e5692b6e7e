"""The five models, walked forward in time, find what is there and nothing where nothing is.

From bars to the table, by the plan of the evaluation that is shipped: synthetic markets of symbols in step, decision
rows, labels, opportunities, four networks and the trees trained from scratch on one in three decisions before each of
four folds, and going on from the fold before; and what is pooled of the folds. Networks are served as fp32, since what
INT8 changes is measured elsewhere and quantising them takes longer than all else. What each model is held to is the
metric that asks whether it knows anything of the market: the autoencoder's probe, the feature network's downstream
model, the reach beside constant quantiles, the win probability beside the base rate, the strategy beside never trading.
One feature that is a bar ahead shows as skill on a market that has nothing to find, in the models that read decision
rows; that it does is itself tested, since a check that cannot shout is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from features.episodes import Episodes
from features.history import DecisionHistory
from market.lake import Lake
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN
from models_registry.opportunities import Opportunities
from models_registry.pooling import PooledMetric
from models_registry.training_set import TrainingSet
from models_registry.walk_forward import Evaluating, WalkForward, walk
from orchestration.label_store import History, store_history_labels
from orchestration.resources import TrainingSettings
from orchestration.training_data import join
from tests.control_markets import SEED, leak_in_a_column, market_history

pytestmark = [pytest.mark.deep, pytest.mark.timeout(3600)]

DAYS = 90
"""In 60 the strategy's interval of a planted edge, going on from fold to fold, still includes zero."""
SETTINGS = TrainingSettings(seed=SEED, rounds=150, max_windows=3000, quantise=False)
PLAN = WalkForward()

KNOWS = {
    AUTOENCODER: "outcome_log_loss",
    FEATURE_NETWORK: "outcome_log_loss_base",
    LIQUIDITY: "pinball_loss",
    WIN: "log_loss",
    DQN: "r_per_opportunity_vs_always_skip",
}
OF_OUTCOMES = (AUTOENCODER, FEATURE_NETWORK, WIN, DQN)
"""How far price will reach can be told a little without an edge, since volatility lasts."""


@dataclass(frozen=True)
class Learnt:
    """What is learnt from."""

    rows: TrainingSet
    opportunities: Opportunities


def learnt(history: History, folder: Path, seen: Callable[[DecisionHistory], DecisionHistory] | None = None) -> Learnt:
    """As the assets make it; the models see the decision rows as `seen` gives them."""
    lake = Lake(str(folder))
    store_history_labels(lake, history, SETTINGS)
    shown = history.rows if seen is None else seen(history.rows)
    plan, costs = SETTINGS.plan(), SETTINGS.costs()
    rows = join(lake, shown, SETTINGS.max_windows, bars=history.bars, plan=plan).rows
    # Which rows are opportunities must not change with what is leaked into them.
    found = Opportunities.of(history.rows, history.bars, history.funding, plan, costs, most=SETTINGS.most_opportunities)
    if seen is not None:
        at = {key: row for row, key in enumerate(zip(shown.time.tolist(), shown.symbol.tolist(), strict=True))}
        found = replace(found, decision=shown.decision[_rows_of(found, history, at)])
    return Learnt(rows, found)


def _rows_of(found: Opportunities, history: History, at: dict[tuple[int, int], int]) -> np.ndarray:
    """The row of the history that each decision row of the opportunities is."""
    step_ms = history.rows.spec.steps[0]
    own = found.episodes
    place = np.empty(len(found.decision), dtype=np.int64)
    for row, time, symbol in zip(own.row, own.decided_at.tolist(), own.symbol.tolist(), strict=True):
        place[row] = at[time, symbol]
    opportunity = own.step_trade // 2
    times = own.decided_at[opportunity] + own.step_bars.astype(np.int64) * step_ms
    for row, time, symbol in zip(own.step_row, times.tolist(), own.symbol[opportunity].tolist(), strict=True):
        place[row] = at[time, symbol]
    return place


def shuffled(given: Learnt) -> Learnt:
    """The same rows with each other's outcomes, paths and trades."""
    rng = np.random.default_rng(SEED)
    rows, own = given.rows, given.opportunities.episodes
    order, windows = rng.permutation(len(rows)), rng.permutation(len(rows.unlabelled_at))
    mixed = replace(
        rows,
        **{name: getattr(rows, name)[order] for name in ("outcome", "r", "return_ahead", "reach_below", "reach_above")},
        unlabelled_below=rows.unlabelled_below[windows],
        unlabelled_above=rows.unlabelled_above[windows],
        unlabelled_return=rows.unlabelled_return[windows],
    )
    # Trades are shuffled whole, and what is seen while they are open besides.
    trades = own.select(rng.permutation(len(own)))
    told = {each.name: getattr(trades, each.name) for each in fields(Episodes)}
    told["step_row"] = rng.permutation(own.step_row)
    kept = {name: getattr(own, name) for name in ("row", "symbol", "decided_at", "known_at", "signal")}
    return Learnt(mixed, replace(given.opportunities, episodes=Episodes(**(told | kept))))


@dataclass(frozen=True)
class Walked:
    """The metric of each model that says whether it knows anything, over all folds."""

    from_scratch: dict[str, PooledMetric]
    prequential: dict[str, PooledMetric]


def walked(given: Learnt, work: Path) -> Walked:
    config = SETTINGS.config(int(given.rows.decided_at[-1]))
    found = walk(Evaluating(given.rows, given.opportunities, config, PLAN, work))
    assert PLAN.folds >= 4
    assert PLAN.every == 3
    assert [fold.anew for fold in found.continued] == [{}] * PLAN.folds, "a model did not go on"
    return Walked(*(_told(pooled) for pooled in (found.from_scratch, found.prequential)))


def _told(found: dict[str, dict[str, PooledMetric]]) -> dict[str, PooledMetric]:
    assert set(KNOWS) <= set(found), "a plain version stood in for a model"
    told = {model: found[model][name] for model, name in KNOWS.items()}
    for model, metric in told.items():
        assert len(metric.folds) == PLAN.folds
        assert metric.rows > 1000
        # A strategy that found nothing trades hardly ever, of which there is nothing to say.
        assert metric.interval is not None or model == DQN, model
    return told


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    return learnt(market_history("planted", DAYS), tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def without_edge() -> History:
    return market_history("none", DAYS)


def skilled(found: dict[str, PooledMetric]) -> set[str]:
    return {model for model, metric in found.items() if metric.skill}


def test_a_planted_edge_is_found(planted: Learnt, tmp_path: Path) -> None:
    found = walked(planted, tmp_path)
    assert skilled(found.from_scratch) == set(KNOWS)
    assert skilled(found.prequential) == set(KNOWS)


def test_shuffled_labels_give_no_skill(planted: Learnt, tmp_path: Path) -> None:
    found = walked(shuffled(planted), tmp_path)
    assert skilled(found.from_scratch) == set()
    assert skilled(found.prequential) == set()


def test_without_an_edge_no_model_knows_outcomes(without_edge: History, tmp_path: Path) -> None:
    found = walked(learnt(without_edge, tmp_path / "lake"), tmp_path)
    assert skilled(found.from_scratch) & set(OF_OUTCOMES) == set()
    assert skilled(found.prequential) & set(OF_OUTCOMES) == set()


def test_one_bar_of_look_ahead_shouts(without_edge: History, tmp_path: Path) -> None:
    found = walked(learnt(without_edge, tmp_path / "lake", leak_in_a_column), tmp_path)
    assert {FEATURE_NETWORK, WIN, DQN} <= skilled(found.from_scratch)
    assert {FEATURE_NETWORK, WIN, DQN} <= skilled(found.prequential)
