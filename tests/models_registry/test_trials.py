"""Scores that are the best of many."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models_registry.trials import bound, deflate, expected_largest, smallest_detectable, standard_error


@pytest.mark.parametrize("trials", [2, 5, 30, 400])
def test_the_expected_largest_is_that_of_a_simulation(trials: int) -> None:
    best = np.random.default_rng(5).standard_normal((20_000, trials)).max(axis=1)
    # The formula is an approximation from extreme values: within 0.06 for few trials.
    assert expected_largest(trials) == pytest.approx(float(best.mean()), abs=0.06)


def test_the_best_of_trials_without_skill_is_hardly_ever_shown() -> None:
    rng = np.random.default_rng(8)
    error, shown, plainly = 0.01, 0, 0
    for _ in range(400):
        best = float(rng.normal(0, error, 25).max())
        found = deflate(best, (best - 1.96 * error, best + 1.96 * error), 25)
        shown += found.shown
        plainly += best - 1.96 * error > 0
    assert plainly > 120  # not deflated, a good part of such searches would be called skill
    assert shown < 12


def test_one_trial_is_not_deflated() -> None:
    found = deflate(0.02, (0.005, 0.035), 1)
    assert found.deflated == 0.02
    assert found.shown


@pytest.mark.parametrize(("trials", "claims"), [(1, 1), (1, 10), (20, 1), (20, 10)])
def test_the_smallest_detectable_effect_is_shown_four_times_in_five(trials: int, claims: int) -> None:
    error = 0.01
    true = smallest_detectable(error, trials, claims)
    seen = np.random.default_rng(3).normal(true, error, 5_000)
    found = [deflate(one, (one - 1.96 * error, one + 1.96 * error), trials, claims).shown for one in seen.tolist()]
    assert float(np.mean(found)) == pytest.approx(0.8, abs=0.02)


def test_a_report_of_many_claims_without_skill_seldom_shows_any() -> None:
    rng = np.random.default_rng(6)
    any_shown = any_plainly = 0
    for _ in range(1000):
        scores = rng.normal(0, 1, 10).tolist()
        any_shown += any(deflate(score, (score - 1.96, score + 1.96), 1, 10).shown for score in scores)
        any_plainly += any(score > 1.96 for score in scores)
    assert any_plainly > 180  # each at its own level, a fifth of such reports would show something
    assert any_shown < 40


def test_without_an_interval_nothing_is_shown() -> None:
    found = deflate(5.0, None, 3)
    assert math.isnan(standard_error(None))
    assert math.isnan(found.deflated)
    assert not found.shown


def test_no_trial_is_no_report() -> None:
    with pytest.raises(ValueError, match="0 trials"):
        expected_largest(0)
    with pytest.raises(ValueError, match="0 claims"):
        bound(0)
