"""Quantiles of the reach as plain numbers, and the rows that they are of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models_registry.reach_metrics import CONSTANT, Judged, coverage_metrics, pinball_metric, reach_metrics
from models_registry.reach_quantiles import (
    PROFILE,
    QUANTILES,
    ascending,
    fit_plain,
    offsets,
    pinball,
    quantiles_of,
)
from models_registry.reach_rows import ReachRows, ReachSplit
from models_registry.training_set import TrainingSet
from tests.models_registry import made_reach, planted

NUMBERS = st.floats(-50, 50, width=32)


@given(arrays.arrays(np.float32, (3, 8), elements=NUMBERS), arrays.arrays(np.float64, (2, 4), elements=NUMBERS))
@settings(max_examples=100, deadline=None)
def test_no_numbers_make_quantiles_cross(raw: np.ndarray, offset: np.ndarray) -> None:
    found = ascending(raw, offset)
    assert found.shape == (3, 2, 4)
    assert (found >= 0).all()
    assert (np.diff(found, axis=2) >= 0).all()


@given(st.lists(st.floats(0, 30), min_size=8, max_size=8))
@settings(max_examples=100, deadline=None)
def test_without_a_network_the_offsets_are_the_quantiles(steps: list[float]) -> None:
    wanted = np.cumsum(np.reshape(steps, (2, 4)), axis=1)
    # Equal quantiles are set apart by a thousandth.
    assert np.abs(ascending(np.zeros((1, 8)), offsets(wanted))[0] - wanted).max() < 0.005


def test_the_loss_is_least_at_the_true_quantiles() -> None:
    reach = np.random.default_rng(0).exponential(2.0, (4000, 2))
    true = quantiles_of(reach, QUANTILES)
    least = pinball(reach, true, QUANTILES).mean(axis=0)
    for change in (-0.3, -0.05, 0.05, 0.3):
        assert (pinball(reach, true + change, QUANTILES).mean(axis=0) > least).all()


def test_the_profile_says_what_followed_rows_alike_and_the_constants_stand_elsewhere() -> None:
    rng = np.random.default_rng(1)
    near = rng.random(8000) < 0.5
    reach = np.stack([np.where(near, 1.0, 4.0), np.full(8000, 2.0)], axis=1) * rng.random((8000, 2))
    node = np.where(near, -0.5, -3.0) - 0.1 * rng.random(8000)
    profile = np.stack([np.full(8000, -1.0), np.full(8000, 1.0), np.full(8000, np.nan), node], axis=1)
    plain = fit_plain(reach, profile.astype(np.float32))
    found = plain.run(np.array([[-1, 1, np.nan, -0.55], [-1, 1, np.nan, -3.05], [-1, 1, np.nan, np.nan]], np.float32))
    assert found[:, 0, 1] == pytest.approx([0.5, 2.0, np.quantile(reach[:, 0], 0.5)], abs=0.1)
    # Nothing is above, neither node nor edge: there is no estimate of that side.
    assert np.allclose(found[:, 1], np.quantile(reach[:, 1], QUANTILES), atol=1e-6)
    assert plain.groups[1] == []
    metrics = reach_metrics(
        ReachRows.known(
            np.zeros((8000, 1, 5), np.float32),
            reach[:, 0],
            reach[:, 1],
            planted.START + np.arange(8000) * 300_000,
            planted.START + np.arange(8000) * 300_000 + 1,
            profile.astype(np.float32),
        ),
        plain.run(profile.astype(np.float32)),
        plain,
        seed=0,
    )
    assert metrics["profile_pinball_loss"].skill
    assert metrics["pinball_loss_below"].skill
    assert metrics["pinball_loss_profile"].improvement == 0.0


def test_few_or_equal_estimates_make_fewer_groups() -> None:
    reach = np.random.default_rng(2).random((500, 2))
    same = np.tile(np.array([1, -1, 1, -1], np.float32), (500, 1))
    assert fit_plain(reach[:300], same[:300]).groups == [[], []]
    plain = fit_plain(reach, same)
    assert np.isfinite(plain.run(same)).all()
    assert np.allclose(plain.run(same)[0], quantiles_of(reach, QUANTILES), atol=1e-6)
    assert fit_plain(reach, None).groups == [[], []]


def test_metrics_say_by_how_much_and_how_often() -> None:
    rng = np.random.default_rng(3)
    scale = np.exp(0.6 * rng.standard_normal(6000))
    reach = scale[:, None] * rng.exponential(1.0, (6000, 2))
    at = planted.START + np.arange(6000, dtype=np.int64) * 300_000
    judged = Judged(reach, at, QUANTILES, 0)
    constant = quantiles_of(reach, QUANTILES)
    true = np.broadcast_to(scale[:, None, None] * -np.log1p(-np.array(QUANTILES)), (6000, 2, 4))
    better = pinball_metric(judged, true, constant, CONSTANT)
    assert better.skill
    assert better.value is not None
    assert better.baseline is not None
    assert better.improvement == pytest.approx(better.baseline - better.value)
    worse = pinball_metric(judged, true * 3, constant, CONSTANT)
    assert worse.interval is not None
    assert worse.interval[1] < 0
    calibrated = coverage_metrics(judged, true, constant)
    assert calibrated["coverage_0.9"].value == pytest.approx(0.9, abs=0.02)
    assert calibrated["coverage_0.9"].note.startswith("should be 0.9, 95 % interval 0.8")
    assert coverage_metrics(judged, true * 3, constant)["calibration_error"].value > 0.1  # type: ignore[operator]


def test_unknown_reaches_are_left_out_and_the_rest_is_in_order_of_time() -> None:
    at = np.array([30, 10, 20, 40], dtype=np.int64)
    below, above = np.array([3.0, 1.0, np.nan, 4.0]), np.array([3.0, 1.0, 2.0, np.nan])
    rows = ReachRows.known(
        np.arange(4, dtype=np.float32)[:, None, None] * np.ones((4, 2, 5), np.float32), below, above, at, at + 1
    )
    assert rows.at.tolist() == [10, 30]
    assert rows.reach[:, 0].tolist() == [1.0, 3.0]
    assert rows.windows[:, 0, 0].tolist() == [1.0, 0.0]
    assert np.isnan(rows.profile).all()


def test_a_market_mirrored_twice_is_itself() -> None:
    rows = made_reach.reach_rows(50)
    once = rows.mirrored()
    assert np.array_equal(once.mirrored().windows, rows.windows, equal_nan=True)
    assert np.array_equal(once.reach[:, 0], rows.reach[:, 1])
    known = np.isfinite(once.windows).all(axis=(1, 2))
    assert (once.windows[known, :, 1] >= once.windows[known, :, 2]).all(), "a high is above its low upside down too"
    assert np.array_equal(once.windows[:, :, 4], rows.windows[:, :, 4], equal_nan=True)


def test_what_is_known_within_the_embargo_is_in_no_part() -> None:
    rows = made_reach.reach_rows(1000)
    cut = made_reach.reach_split(rows)
    hour = made_reach.HOUR
    assert cut.fit.known_at.max() <= cut.validation.at.min() - 4 * hour
    assert cut.validation.known_at.max() <= cut.holdout.at.min() - 4 * hour
    assert sum(len(part) for part in cut.parts.values()) < len(rows)
    thin = cut.thinned(90)
    assert [len(part) for part in thin.parts.values()] == [90, 30, len(cut.holdout)]
    assert isinstance(thin, ReachSplit)


def test_a_training_set_gives_every_window_with_a_known_path_once() -> None:
    names = (*PROFILE, "other")
    rows = TrainingSet.of(
        decision=np.arange(20.0).reshape(4, 5),
        windows=np.zeros((4, 2, 5)),
        direction=[-1, 1, 1, 1],
        kind=[1] * 4,
        decided_at=[60_000, 60_000, 60_000, 120_000],
        known_at=[120_000] * 4,
        outcome=[1] * 4,
        r=[1.0] * 4,
        weight=[1.0] * 4,
        source=[0] * 4,
        quality=[0.5] * 4,
        symbol=[0, 0, 1, 0],
        reach_below=[1.0, 1.0, 2.0, np.nan],
        reach_above=[5.0, 5.0, 6.0, np.nan],
        path_known_at=[180_000, 180_000, 180_000, 0],
        unlabelled_windows=np.ones((2, 2, 5)),
        unlabelled_at=[0, 90_000],
        unlabelled_below=[3.0, 4.0],
        unlabelled_above=[7.0, 8.0],
        unlabelled_known_at=[150_000, 200_000],
        symbols=("A", "B"),
        decision_spec_id="d",
        decision_names=names,
    )
    found = ReachRows.of(rows)
    assert found.at.tolist() == [0, 60_000, 60_000, 90_000]
    assert found.reach.tolist() == [[3.0, 7.0], [1.0, 5.0], [2.0, 6.0], [4.0, 8.0]]
    assert found.known_at.tolist() == [150_000, 180_000, 180_000, 200_000]
    assert np.isfinite(found.profile).all(axis=1).tolist() == [False, True, True, False]
    assert found.profile[2].tolist() == rows.decision[2, :4].tolist()
