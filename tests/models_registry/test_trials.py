"""Scores that are the best of many."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models_registry.trials import deflate, expected_largest, smallest_detectable, standard_error


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


def test_the_smallest_detectable_effect_is_detected_four_times_in_five() -> None:
    error = 0.01
    seen = np.random.default_rng(3).normal(smallest_detectable(error), error, 20_000)
    assert float((seen - 1.96 * error > 0).mean()) == pytest.approx(0.8, abs=0.01)


def test_without_an_interval_nothing_is_shown() -> None:
    found = deflate(5.0, None, 3)
    assert math.isnan(standard_error(None))
    assert math.isnan(found.deflated)
    assert not found.shown


def test_no_trial_is_no_report() -> None:
    with pytest.raises(ValueError, match="0 trials"):
        expected_largest(0)
