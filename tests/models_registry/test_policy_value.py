"""What policies get on episodes that can be worked by hand, and the intervals beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.barriers import VOID
from features.episodes import CLOSE, HOLD, LONG, SHORT, SKIP, Episodes
from models_registry.policy_value import (
    always_skip,
    by_probability,
    greedy,
    masked,
    mean_values,
    play,
    policy_metrics,
    rules,
    uniform,
)
from tests.models_registry import made_episodes

BIG = made_episodes.experience(1200).episodes


def three() -> Episodes:
    """Three opportunities; the trades of the first are decided on twice and once, those of the others never."""
    return replace(
        BIG.select(np.arange(3)),
        signal=np.array([1, -1, 0], dtype=np.int8),
        r=np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 0.0]]),
        outcome=np.array([[1, 2], [3, 3], [1, VOID]], dtype=np.int8),
        first=np.array([0, 2, 3, 3, 3, 3, 3]),
        step_row=np.zeros(3, dtype=np.int64),
        step_bars=np.array([3.0, 6.0, 3.0]),
        step_mark=np.array([0.1, 0.2, -0.3]),
        step_closed=np.array([0.15, 0.25, -0.35]),
        step_position=np.array([[1, 0, 0, 0, 0]] * 2 + [[-1, 0, 0, 0, 0]], dtype=np.float32),
    )


def test_the_rules_take_their_signals_and_hold() -> None:
    played = rules(three())
    assert played.r.tolist() == [1.0, 0.25, 0.0]
    assert played.trades.tolist() == [1, 1, 0]
    assert played.per_trade == pytest.approx(0.625)


def test_the_greedy_policy_closes_at_the_first_close() -> None:
    values = np.zeros((6, 5), dtype=np.float32)
    values[0, LONG] = values[2, SHORT] = 1.0
    values[1, [LONG, SHORT]] = -1.0
    values[0, HOLD] = 9.0  # no action of a flat state
    values[4, CLOSE] = 0.1
    played = greedy(three(), values)
    # Held at the first decision, closed at the second; the short of the third opportunity is never taken.
    assert played.r.tolist() == [0.25, 0.0, 0.0]
    assert played.trades.tolist() == [1, 0, 0]


def test_values_of_zero_do_nothing() -> None:
    assert greedy(three(), np.zeros((6, 5), dtype=np.float32)).r.tolist() == [0, 0, 0]
    mask = np.array([[True] * 3 + [False] * 2, [False] * 3 + [True] * 2])
    assert masked(np.zeros((2, 5)), mask).tolist() == [SKIP, HOLD]


def test_dice_in_expectation() -> None:
    """Long of the first: 0.15 half the time, else 0.25 or 1 alike; its short -0.35 or -2."""
    played = uniform(three())
    first = (0.5 * 0.15 + 0.5 * (0.5 * 0.25 + 0.5 * 1.0)) + (0.5 * -0.35 + 0.5 * -2.0)
    assert played.r == pytest.approx([first / 3, 0.75 / 3, 3.0 / 3])
    assert played.trades == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_dice_thrown_often_come_to_their_expectation() -> None:
    episodes, rng = BIG.select(np.arange(60)), np.random.default_rng(1)
    total = np.zeros(60)
    for _ in range(3000):
        entry = rng.integers(-1, 2, 60)
        total += play(episodes, entry, rng.random(len(episodes.step_row)) < 0.5).r
    assert np.abs(total / 3000 - uniform(episodes).r).max() < 0.12
    assert total.mean() / 3000 == pytest.approx(uniform(episodes).per_opportunity, abs=0.01)


def test_the_win_model_takes_the_likelier_direction() -> None:
    probability = np.array([[0.4, 0.6], [0.2, np.nan], [np.nan, np.nan]])
    assert by_probability(three(), probability, 0.35).r.tolist() == [-2.0, 0.0, 0.0]
    assert by_probability(three(), probability, 0.1).r.tolist() == [-2.0, 0.5, 0.0]


def test_knowing_shows_and_guessing_does_not() -> None:
    knowing = play(BIG, np.where(BIG.r[:, 0] > BIG.r[:, 1], 1, -1))
    baselines = {"always_skip": always_skip(BIG), "random": uniform(BIG), "rules": rules(BIG)}
    found = policy_metrics(BIG, knowing, baselines, 0)
    assert set(found) == {f"r_per_{unit}_vs_{name}" for unit in ("opportunity", "trade") for name in baselines}
    assert all(metric.skill for metric in found.values())
    guessing = play(BIG, np.random.default_rng(2).integers(-1, 2, len(BIG)))
    found = policy_metrics(BIG, guessing, baselines, 0)
    assert not any(metric.skill for metric in found.values())
    metric = found["r_per_trade_vs_rules"]
    assert metric.value is not None
    assert metric.baseline is not None
    assert metric.improvement == pytest.approx(metric.value - metric.baseline)


def test_never_trading_has_no_r_a_trade() -> None:
    found = policy_metrics(BIG, always_skip(BIG), {"always_skip": always_skip(BIG), "rules": rules(BIG)}, 0)
    assert found["r_per_opportunity_vs_always_skip"].value == 0
    for name in ("always_skip", "rules"):
        assert found[f"r_per_trade_vs_{name}"].value is None
        assert found[f"r_per_trade_vs_{name}"].interval is None


def test_mean_values_are_of_the_states_that_have_the_action() -> None:
    values = np.arange(30, dtype=np.float32).reshape(6, 5)
    assert mean_values(three(), values) == {"long": 6.0, "short": 7.0, "hold": 23.0, "close": 24.0}
