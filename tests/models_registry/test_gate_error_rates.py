"""How often gate and demotion are wrong, and right, on made trades whose truth is known.

The trades of all symbols rise and fall together in blocks of four hours, and two bundles share most of their positions.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models_registry.demotion import judge_live
from models_registry.evaluation import EvaluationRecord
from models_registry.gate import GateRules, judge
from models_registry.statistics import BLOCK_MS
from models_registry.trade_record import DAY_MS, TradeRecord, Trades, trade_record
from tests.models_registry.test_gate import FIT, NOT_WORSE, record

TARGET_R, STOP_R, MEAN_R = 1.2, -1.05, 0.05
A_DAY, DAYS, ROWS = 70, 6, 76
BLOCKS = DAYS * DAY_MS // BLOCK_MS


class Market:
    """Times and common luck of the positions of some days."""

    def __init__(self, rng: np.random.Generator, days: int) -> None:
        self.rng, self.days = rng, days
        self.time = np.sort(rng.uniform(0, days * DAY_MS, rng.poisson(A_DAY * days))).astype(np.int64)
        self.luck = 0.35 * rng.standard_normal(days * DAY_MS // BLOCK_MS + 1)[self.time // BLOCK_MS]
        self.dice = rng.random(self.time.size)

    def trades(self, mean_r: float, *, shared: float = 1.0) -> Trades:
        """What a bundle of that mean R takes of it, `shared` of the outcomes being the market's own."""
        rng = self.rng
        dice = np.where(rng.random(self.time.size) < shared, self.dice, rng.random(self.time.size))
        won = dice < np.clip((mean_r + self.luck - STOP_R) / (TARGET_R - STOP_R), 0, 1)
        r = np.where(won, TARGET_R, STOP_R)
        return Trades(self.time, self.time, self.time + BLOCK_MS // 2, r, won)


def over(trades: Trades, days: int) -> TradeRecord:
    return trade_record(trades, start_ms=0, decided_until_ms=days * DAY_MS, symbols=10)


def pair(rng: np.random.Generator, richer: float, better: float) -> tuple[EvaluationRecord, EvaluationRecord]:
    """Champion and challenger, who gains `richer` R a position and `better` nats a row in truth."""
    market = Market(rng, DAYS)
    first, second = (over(market.trades(MEAN_R + gain, shared=0.7), DAYS) for gain in (0, richer))
    champion = record("1", blocks=BLOCKS, rows=ROWS, last_known_at=-1, start_ms=0, replay=first)
    noise = ROWS * rng.normal(0, 0.02, BLOCKS) + np.sqrt(ROWS) * rng.normal(0, 0.05, BLOCKS)
    loss = np.asarray(champion.blocks.log_loss) + noise - ROWS * better
    blocks = msgspec.structs.replace(champion.blocks, log_loss=loss.tolist())
    challenger = msgspec.structs.replace(
        champion, bundle="2", blocks=blocks, log_loss=float(loss.sum()) / champion.rows, replay=second
    )
    return champion, challenger


def promoted(rules: GateRules, runs: int, richer: float = 0.0, better: float = 0.0) -> float:
    rng = np.random.default_rng(0)
    return float(np.mean([judge(*pair(rng, richer, better), FIT, rules).promoted for _ in range(runs)]))


def test_a_challenger_that_is_no_better_is_seldom_promoted() -> None:
    assert promoted(GateRules(), 200) < 0.08
    assert promoted(NOT_WORSE, 100) > 0.2, "without evidence it often would be"


def test_one_that_is_better_mostly_is() -> None:
    assert promoted(GateRules(), 80, better=0.02) > 0.7
    assert promoted(GateRules(tolerance=0.01), 80, richer=0.4) > 0.7


def demoted(runs: int, worse: float, days: int) -> float:
    """The share of champions that fall in so many live days, looked at every day, `worse` R a position than shown."""
    rng = np.random.default_rng(1)

    def falls() -> bool:
        promised = over(Market(rng, DAYS).trades(MEAN_R), DAYS).expectancy_interval
        live = Market(rng, days).trades(MEAN_R - worse)
        return any(judge_live(promised, over(live, day)).demote for day in range(1, days + 1))

    return float(np.mean([falls() for _ in range(runs)]))


@pytest.mark.deep
def test_a_champion_that_lives_as_promised_keeps_its_place_though_it_is_looked_at_daily() -> None:
    assert demoted(150, worse=0.0, days=30) < 0.05


def test_one_that_loses_half_an_r_a_position_falls() -> None:
    assert demoted(20, worse=0.5, days=10) > 0.8
