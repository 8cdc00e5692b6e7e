"""The gate is a pure function of two records: every verdict here is stated in block sums."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models_registry.errors import RecordsDiffer, WindowAlreadySeen
from models_registry.evaluation import BlockSums, EvaluationRecord
from models_registry.gate import GateRules, judge
from models_registry.statistics import BLOCK_MS

BLOCKS = 40
RNG = np.random.default_rng(5)
LOSS = 20 * (0.68 + 0.02 * RNG.standard_normal(BLOCKS))
R = 2.0 * RNG.standard_normal(BLOCKS)


def record(
    bundle: str = "1",
    better: float = 0.0,
    richer: float = 0.0,
    noise: float = 0.0,
    rows: int = 20,
    blocks: int = BLOCKS,
    trades: int = 10,
    **changes: object,
) -> EvaluationRecord:
    """A record of `blocks` blocks; `better` nats a row and `richer` R a trade than the plain one."""
    wobble = noise * np.random.default_rng(len(bundle)).standard_normal(blocks)
    loss = LOSS[:blocks] - rows * better + wobble
    trade_r = R[:blocks] + trades * richer
    fields = {
        "bundle": bundle,
        "decision_spec": "d1",
        "start_ms": 1_000_000,
        "end_ms": 1_000_000 + blocks * BLOCK_MS,
        "last_known_at": 999_999,
        "rows": rows * blocks,
        "rows_hash": "same",
        "base_rate": 0.4,
        "log_loss": float(loss.sum() / (rows * blocks)),
        "base_log_loss": 0.68,
        "improvement": better,
        "improvement_interval": (better - 0.01, better + 0.01),
        "auc": 0.5,
        "calibration_error": 0.02,
        "threshold": 0.35,
        "trades": trades * blocks,
        "expectancy": float(trade_r.sum() / (trades * blocks)) if trades else None,
        "expectancy_interval": None,
        "expectancy_all": 0.0,
        "expectancy_gain_interval": None,
        "drawdown": 1.0,
        "block_ms": BLOCK_MS,
        "blocks": BlockSums(
            start_ms=[block * BLOCK_MS for block in range(blocks)],
            rows=[rows] * blocks,
            log_loss=loss.tolist(),
            base_log_loss=[0.68 * rows] * blocks,
            r=[0.0] * blocks,
            trades=[trades] * blocks,
            trade_r=trade_r.tolist(),
        ),
    }
    return EvaluationRecord(**{**fields, **changes})


def test_the_first_bundle_is_promoted_by_the_rule_named_for_it() -> None:
    verdict = judge(None, record(better=-0.02))
    assert verdict.promoted
    assert verdict.rule == "bootstrap"
    assert "no champion yet" in verdict.reasons[0]
    assert "no skill shown" in verdict.reasons[1]
    assert "skill" in judge(None, record(better=0.02)).reasons[1]


def test_a_better_challenger_is_promoted_with_its_numbers() -> None:
    verdict = judge(record("1"), record("2", better=0.004, richer=0.1, noise=0.05))
    assert verdict.promoted
    assert verdict.rule == "not_worse"
    assert len(verdict.reasons) == 3
    assert verdict.numbers["log_loss_difference"] == pytest.approx(0.004, abs=0.002)
    assert 0 < verdict.numbers["log_loss_difference_low"] < verdict.numbers["log_loss_difference_high"]
    assert verdict.numbers["expectancy_difference"] == pytest.approx(0.1)
    assert verdict.failed == []


def test_an_equal_challenger_is_promoted() -> None:
    assert judge(record("1"), record("2")).promoted


def test_a_higher_log_loss_stays_challenger() -> None:
    verdict = judge(record("1"), record("2", better=-0.001))
    assert not verdict.promoted
    assert ": worse by 0.00100 (" in verdict.reasons[1]
    assert verdict.failed == [verdict.reasons[1]]
    tolerated = judge(record("1"), record("2", better=-0.001), GateRules(tolerance=0.002))
    assert tolerated.promoted
    assert tolerated.reasons[1].endswith("within the tolerance of 0.002")


def test_an_expectancy_shown_to_be_lower_stays_challenger() -> None:
    verdict = judge(record("1"), record("2", better=0.01, richer=-0.3))
    assert not verdict.promoted
    assert verdict.numbers["expectancy_difference_high"] < 0
    assert ": lower by 0.300 (" in verdict.reasons[2]
    assert verdict.reasons[2].endswith(", shown to be worse")
    assert verdict.failed == [verdict.reasons[2]]


def test_a_lower_expectancy_within_chance_is_not_held_against_it() -> None:
    few = {"trades": 1, "richer": -0.05}
    champion = record("1", trades=1)
    challenger = record("2", better=0.01, **few)
    spread = np.random.default_rng(0).standard_normal(BLOCKS)
    blocks = msgspec.structs.replace(
        challenger.blocks, trade_r=(np.asarray(challenger.blocks.trade_r) + spread).tolist()
    )
    challenger = msgspec.structs.replace(
        challenger, blocks=blocks, expectancy=float(np.sum(blocks.trade_r) / sum(blocks.trades))
    )
    assert judge(champion, challenger).promoted


def test_too_few_rows_stay_challenger_however_good() -> None:
    verdict = judge(record("1", rows=2), record("2", rows=2, better=0.2, richer=1.0))
    assert not verdict.promoted
    assert "80 held-out rows" in verdict.reasons[0]
    assert "too few: it stays challenger" in verdict.reasons[0]
    assert verdict.failed == [verdict.reasons[0]]


def test_too_few_blocks_leave_the_interval_open_and_say_so() -> None:
    verdict = judge(record("1", blocks=4, rows=50), record("2", blocks=4, rows=50, better=0.01))
    assert verdict.promoted
    assert "too few blocks for an interval" in verdict.reasons[1]
    assert verdict.numbers["log_loss_difference_low"] is None


def test_a_challenger_that_never_trades_does_not_replace_one_that_does() -> None:
    assert not judge(record("1"), record("2", better=0.01, trades=0)).promoted
    assert judge(record("1", trades=0), record("2", better=0.01)).promoted
    assert judge(record("1", trades=0), record("2", trades=0)).promoted


def test_a_window_that_either_has_seen_is_refused() -> None:
    for champion, challenger in ((1_000_000, 0), (0, 1_000_000)):
        with pytest.raises(WindowAlreadySeen, match="cannot judge it"):
            judge(record("1", last_known_at=champion), record("2", last_known_at=challenger))
    with pytest.raises(WindowAlreadySeen):
        judge(None, record("2", last_known_at=1_000_000))


def test_records_of_other_rows_or_thresholds_are_refused() -> None:
    with pytest.raises(RecordsDiffer, match="different rows"):
        judge(record("1"), record("2", rows_hash="other"))
    with pytest.raises(RecordsDiffer, match=r"at the threshold 0\.35"):
        judge(record("1"), record("2", threshold=0.5))


def test_the_verdict_is_a_function_of_the_records() -> None:
    pair = record("1"), record("2", better=0.003, noise=0.2)
    assert judge(*pair) == judge(*pair)
