"""The gate is a pure function of two records and a bundle's fitness: every verdict is stated in block sums."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.errors import RecordsDiffer, WindowAlreadySeen
from models_registry.evaluation import BlockSums, EvaluationRecord
from models_registry.gate import Fitness, GateRules, Verdict, judge, refuse
from models_registry.statistics import BLOCK_MS
from models_registry.trade_record import DAY_MS, TradeBlocks, TradeRecord

BLOCKS = 40
RNG = np.random.default_rng(5)
LOSS = 20 * (0.68 + 0.02 * RNG.standard_normal(BLOCKS))
R = 2.0 * RNG.standard_normal(BLOCKS)
FIT = Fitness(latency_ms=1.2, latency_rows=200)
NOT_WORSE = GateRules(evidence="not_worse")
START = 1_000_000


def trades(richer: float = 0.0, positions: int = 10, blocks: int = BLOCKS, **changes: object) -> TradeRecord:
    """A record of `blocks` blocks of `positions` each, each `richer` R better than the plain one."""
    r = R[:blocks] + positions * richer
    count = positions * blocks
    fields = {
        "start_ms": START,
        "decided_until_ms": START + blocks * BLOCK_MS,
        "symbols": 4,
        "positions": count,
        "lost": 0,
        "expectancy": float(r.sum() / count) if count else None,
        "expectancy_interval": (float(r.sum() / count) - 0.1, float(r.sum() / count) + 0.1) if count else None,
        "total_r": float(r.sum()),
        "hit_rate": 0.5 if count else None,
        "drawdown": 8.0,
        "turnover": count * DAY_MS / (blocks * BLOCK_MS),
        "exposure": 2.0,
        "block_ms": BLOCK_MS,
        "blocks": TradeBlocks(
            start_ms=[START + block * BLOCK_MS for block in range(blocks)],
            positions=[positions] * blocks,
            r=r.tolist() if count else [0.0] * blocks,
        ),
    }
    return TradeRecord(**{**fields, **changes})


def record(
    bundle: str = "1",
    better: float = 0.0,
    richer: float = 0.0,
    noise: float = 0.0,
    rows: int = 20,
    blocks: int = BLOCKS,
    positions: int = 10,
    replay: TradeRecord | None = None,
    **changes: object,
) -> EvaluationRecord:
    """A record of `blocks` blocks; `better` nats a row and `richer` R a position than the plain one."""
    wobble = noise * np.random.default_rng(len(bundle)).standard_normal(blocks)
    loss = LOSS[:blocks] - rows * better + wobble
    fields = {
        "bundle": bundle,
        "decision_spec": "d1",
        "start_ms": START,
        "end_ms": START + blocks * BLOCK_MS,
        "last_known_at": START - 1,
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
        "trades": 0,
        "expectancy": None,
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
            trades=[0] * blocks,
            trade_r=[0.0] * blocks,
        ),
        "replay": trades(richer, positions, blocks) if replay is None else replay,
    }
    return EvaluationRecord(**{**fields, **changes})


def against(challenger: EvaluationRecord, rules: GateRules | None = None, **champion: object) -> Verdict:
    """The verdict on a fit challenger against the plain champion."""
    return judge(record("1", **champion), challenger, FIT, rules)  # type: ignore[arg-type]


def saying(verdict: Verdict, words: str) -> str:
    """The one reason with these words."""
    (reason,) = (each for each in verdict.reasons if words in each)
    return reason


def test_the_first_bundle_is_promoted_by_the_rule_named_for_it() -> None:
    verdict = judge(None, record(better=-0.02), FIT)
    assert verdict.promoted
    assert verdict.rule == "bootstrap"
    assert "no champion yet" in verdict.reasons[0]
    assert "no skill shown" in verdict.reasons[1]
    assert "skill" in judge(None, record(better=0.02), FIT).reasons[1]
    assert verdict.numbers["expectancy_low"] is not None, "what its live record is held to"


def test_a_better_challenger_is_promoted_with_its_numbers() -> None:
    verdict = against(record("2", better=0.004, richer=0.1, noise=0.05))
    assert verdict.promoted
    assert verdict.rule == "better"
    assert verdict.failed == []
    assert verdict.numbers["log_loss_difference"] == pytest.approx(0.004, abs=0.002)
    assert 0 < verdict.numbers["log_loss_difference_low"] < verdict.numbers["log_loss_difference_high"]
    assert verdict.numbers["expectancy_difference"] == pytest.approx(0.1)
    assert verdict.numbers["expectancy"] == pytest.approx(record("2", richer=0.1).replay.expectancy)
    assert verdict.numbers["positions"] == 400


def test_an_equal_challenger_has_no_evidence_and_is_promoted_only_where_none_is_asked_for() -> None:
    refused = against(record("2"))
    assert not refused.promoted
    assert refused.failed == [
        "evidence: no interval of log loss or expectancy lies above zero, so nothing shows that it is better"
    ]
    assert against(record("2"), NOT_WORSE).promoted


@pytest.mark.parametrize("way", [{"better": 0.002}, {"richer": 0.05}])
def test_either_of_log_loss_and_expectancy_is_evidence(way: dict[str, float]) -> None:
    assert against(record("2", **way)).promoted  # type: ignore[arg-type]


def test_a_gain_that_chance_explains_is_no_evidence() -> None:
    noisy = record("2", better=0.0005, noise=2.0)
    verdict = against(noisy, GateRules(tolerance=0.1))
    assert verdict.numbers["log_loss_difference_low"] < 0 < verdict.numbers["log_loss_difference_high"]
    assert len(verdict.failed) == 1
    assert verdict.failed[0].startswith("evidence: ")


def test_a_higher_log_loss_stays_challenger() -> None:
    verdict = against(record("2", better=-0.001, richer=0.1))
    assert not verdict.promoted
    assert ": worse by 0.00100 (" in verdict.failed[0]
    assert len(verdict.failed) == 1
    tolerated = against(record("2", better=-0.001, richer=0.1), GateRules(tolerance=0.002))
    assert tolerated.promoted
    assert saying(tolerated, "log loss 0").endswith("within the tolerance of 0.002")


def test_an_expectancy_shown_to_be_lower_stays_challenger() -> None:
    verdict = against(record("2", better=0.01, richer=-0.3))
    assert not verdict.promoted
    assert verdict.numbers["expectancy_difference_high"] < 0
    (reason,) = verdict.failed
    assert ": lower by 0.300 (" in reason
    assert reason.endswith(", shown to be worse")


def test_a_lower_expectancy_within_chance_is_not_held_against_it() -> None:
    spread = np.random.default_rng(0).standard_normal(BLOCKS) * 10
    plain = trades(-0.02)
    r = np.asarray(plain.blocks.r) + spread - spread.mean()
    blocks = msgspec.structs.replace(plain.blocks, r=r.tolist())
    noisy = msgspec.structs.replace(plain, blocks=blocks, expectancy=float(r.sum() / plain.positions))
    verdict = against(record("2", better=0.01, replay=noisy))
    assert verdict.numbers["expectancy_difference"] == pytest.approx(-0.02)
    assert verdict.promoted


@pytest.mark.parametrize(
    ("small", "words"),
    [
        ({"rows": 2}, "80 held-out rows"),
        ({"positions": 7}, "280 closed positions in 6.7 replayed days"),
        ({"blocks": 29, "positions": 20}, "580 closed positions in 4.8 replayed days"),
    ],
)
def test_too_small_a_sample_stays_challenger_however_good(small: dict[str, int], words: str) -> None:
    verdict = against(record("2", better=0.2, richer=1.0, **small), **small)  # type: ignore[arg-type]
    assert not verdict.promoted
    (reason,) = verdict.failed
    assert words in reason
    assert reason.endswith("too few: it stays challenger")


def test_the_sample_that_is_asked_for_is_enough() -> None:
    rules = GateRules(fewest_rows=800, fewest_positions=400, fewest_days=40 / 6)
    assert against(record("2", better=0.2, richer=1.0), rules).promoted


def test_too_few_blocks_leave_the_interval_open_and_are_no_evidence() -> None:
    small = {"blocks": 4, "rows": 50, "positions": 100}
    rules = GateRules(fewest_days=0.1)
    verdict = against(record("2", better=0.01, richer=0.1, **small), rules, **small)  # type: ignore[arg-type]
    assert "too few blocks for an interval" in saying(verdict, "log loss 0")
    assert verdict.numbers["log_loss_difference_low"] is None
    assert [reason[:9] for reason in verdict.failed] == ["evidence:"]
    lower = record("2", better=0.01, richer=-0.01, **small)  # type: ignore[arg-type]
    worse = against(lower, msgspec.structs.replace(rules, evidence="not_worse"), **small)
    assert worse.failed == [saying(worse, "nothing says that it is chance")]


def test_a_challenger_that_never_trades_does_not_replace_one_that_does() -> None:
    rules = GateRules(fewest_positions=0)
    idle = {"positions": 0}
    assert not against(record("2", better=0.01, positions=0), rules).promoted
    assert against(record("2", better=0.01, positions=0), rules, **idle).promoted
    richer = against(record("2", better=0.01, richer=0.4), rules, **idle)
    assert richer.promoted
    assert "against 0 R, as the champion closed no position" in saying(richer, "expectancy")
    poorer = against(record("2", better=0.01, richer=-0.4), rules, **idle)
    assert poorer.failed == [saying(poorer, "shown to be worse")]


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"calibration_error": 0.0401}, "worse calibrated"),
        ({"replay": trades(0.1, drawdown=12.01)}, "too deep"),
        ({"replay": trades(0.1, turnover=120.1)}, "another way of trading"),
        ({"replay": trades(0.1, turnover=29.9)}, "another way of trading"),
    ],
)
def test_what_is_out_of_bounds_stays_challenger(worse: dict[str, object], words: str) -> None:
    verdict = against(record("2", better=0.01, **worse))  # type: ignore[arg-type]
    (reason,) = verdict.failed
    assert words in reason
    bounds = {"calibration_error": 0.04, "replay": trades(0.1, drawdown=12.0, turnover=120.0)}
    assert against(record("2", better=0.01, **bounds)).promoted  # type: ignore[arg-type]


def test_a_champion_that_was_lucky_does_not_forbid_every_drawdown() -> None:
    lucky = trades(drawdown=0.5)
    assert against(record("2", better=0.01, replay=trades(0.1, drawdown=10.0)), replay=lucky).promoted
    assert not against(record("2", better=0.01, replay=trades(0.1, drawdown=10.1)), replay=lucky).promoted


def test_without_a_replay_nobody_takes_a_champions_place() -> None:
    never = msgspec.structs.replace(record("2", better=0.1), replay=None)
    assert against(never).failed == ["not replayed: expectancies cannot be compared"]


@pytest.mark.parametrize(
    ("unfit", "words"),
    [
        (Fitness(integrity="model.onnx is missing"), "model.onnx is missing"),
        (Fitness(unfit_formats={"win_classifier": "onnx did not pass"}, latency_ms=1.0), "onnx did not pass"),
        (Fitness(unfit_decisions="INT8 decides otherwise", latency_ms=1.0), "INT8 decides otherwise"),
        (Fitness(latency_ms=15.01, latency_rows=200), "too slow"),
        (Fitness(), "it was not measured"),
    ],
)
def test_an_unfit_bundle_is_promoted_by_no_rule(unfit: Fitness, words: str) -> None:
    better = record("2", better=0.02, richer=0.2)
    for champion in (None, record("1")):
        verdict = judge(champion, better, unfit)
        assert not verdict.promoted
        (reason,) = verdict.failed
        assert words in reason
        assert judge(champion, better, Fitness(latency_ms=15.0, latency_rows=200)).promoted


def test_a_demoted_bundle_needs_evidence_from_after_its_demotion() -> None:
    pair = record("1"), record("2", better=0.01, richer=0.2)
    again = judge(*pair, FIT, demoted_until_ms=START)
    assert again.failed == ["it was demoted once; the window is not later than the outcomes it was demoted for"]
    assert judge(*pair, FIT, demoted_until_ms=START - 1).promoted


def test_what_could_not_be_judged_is_refused() -> None:
    verdict = refuse("the champion is gone", NOT_WORSE)
    assert (verdict.promoted, verdict.rule, verdict.failed) == (
        False, "not_worse", ["not judged: the champion is gone"],
    )  # fmt: skip


def test_a_window_that_either_has_seen_is_refused() -> None:
    for champion, challenger in ((START, 0), (0, START)):
        with pytest.raises(WindowAlreadySeen, match="cannot judge it"):
            judge(record("1", last_known_at=champion), record("2", last_known_at=challenger), FIT)
    with pytest.raises(WindowAlreadySeen):
        judge(None, record("2", last_known_at=START), FIT)


def test_records_of_other_rows_bars_or_thresholds_are_refused() -> None:
    with pytest.raises(RecordsDiffer, match="different rows"):
        judge(record("1"), record("2", rows_hash="other"), FIT)
    with pytest.raises(RecordsDiffer, match=r"at the threshold 0\.35"):
        judge(record("1"), record("2", threshold=0.5), FIT)
    with pytest.raises(RecordsDiffer, match="different bars"):
        judge(record("1"), record("2", replay=trades(symbols=5)), FIT)


@given(
    better=st.floats(-0.05, 0.05),
    richer=st.floats(-0.5, 0.5),
    noise=st.floats(0, 2),
    drawdown=st.floats(0, 40),
    latency=st.floats(0, 40),
    evidence=st.sampled_from(["better", "not_worse"]),
)
def test_promotion_means_that_nothing_failed_and_evidence_asks_for_more(
    better: float, richer: float, noise: float, drawdown: float, latency: float, evidence: str
) -> None:
    challenger = record("2", better=better, noise=noise, replay=trades(richer, drawdown=drawdown))
    fitness = Fitness(latency_ms=latency, latency_rows=200)
    rules = GateRules(evidence=evidence)  # type: ignore[arg-type]
    verdict = judge(record("1"), challenger, fitness, rules)
    assert verdict == judge(record("1"), challenger, fitness, rules)
    assert verdict.promoted == (not verdict.failed)
    assert set(verdict.failed) <= set(verdict.reasons)
    if verdict.promoted:
        assert verdict.numbers["log_loss_difference"] >= 0
        assert verdict.numbers["expectancy_difference_high"] >= 0
        assert drawdown <= 12
        assert latency <= 15
        assert judge(record("1"), challenger, fitness, NOT_WORSE).promoted, "not_worse asks for less"
