"""From quantiles of the reach to the chance of a level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.reach import chance_of_reaching

QUANTILES = (0.25, 0.5, 0.75, 0.9)
STEPS = st.lists(st.floats(0.0, 20.0), min_size=4, max_size=4)


def chances(distance: list[float], reach: list[float]) -> np.ndarray:
    return chance_of_reaching(np.array(distance), QUANTILES, np.array([reach] * len(distance)))


def test_a_quantile_is_reached_with_what_it_leaves() -> None:
    reach = [1.4, 3.1, 5.7, 8.9]
    assert np.allclose(chances(reach, reach), [0.75, 0.5, 0.25, 0.1])


@given(STEPS, st.lists(st.floats(-1.0, 200.0), min_size=2, max_size=20))
@settings(max_examples=200, deadline=None)
def test_what_is_farther_is_never_likelier(steps: list[float], distances: list[float]) -> None:
    found = chances(sorted(distances), np.cumsum(steps).tolist())
    assert (np.diff(found) <= 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()


@given(STEPS, STEPS, st.floats(0.0, 60.0))
@settings(max_examples=200, deadline=None)
def test_who_reaches_farther_by_every_quantile_is_likelier_there(
    steps: list[float], more: list[float], distance: float
) -> None:
    near = np.cumsum(steps)
    first, second = chances([distance], near.tolist())[0], chances([distance], (near + np.cumsum(more)).tolist())[0]
    # Not in the tail: how steep it falls depends on the last two quantiles alone.
    if distance <= near[-1]:
        assert second >= first - 1e-5


def test_an_exponential_reach_is_known_everywhere_exactly() -> None:
    reach = (-3.0 * np.log1p(-np.array(QUANTILES))).tolist()
    distance = np.array([0.0, 0.3, 2.0, 4.0, 9.0, 30.0])
    assert np.allclose(chances(distance.tolist(), reach), np.exp(-distance / 3.0), atol=1e-6)


def test_what_lies_behind_price_is_reached_and_the_unknown_is_unknown() -> None:
    reach = [1.0, 2.0, 3.0, 4.0]
    found = chances([-2.0, 0.0, np.nan, 1e9], reach)
    assert found[:2].tolist() == [1.0, 1.0]
    assert np.isnan(found[2])
    assert found[3] == 0.0
    assert np.isnan(chances([1.0], [1.0, np.nan, 3.0, 4.0])[0])
    assert np.isnan(chances([1.0], [np.nan] * 4)[0])


def test_equal_quantiles_divide_by_nothing() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = chances([0.0, 0.5, 2.0, 2.1], [0.0, 0.0, 2.0, 2.0])
    assert found[0] == 1.0
    assert np.isfinite(found).all()
    assert (np.diff(found) <= 0).all()


def test_rows_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(1)
    reach = np.cumsum(rng.exponential(2.0, (203, 4)), axis=1).astype(np.float32)
    distance = rng.exponential(4.0, 203).astype(np.float32)
    together = chance_of_reaching(distance, QUANTILES, reach)
    apart = [chance_of_reaching(distance[i : i + 7], QUANTILES, reach[i : i + 7]) for i in range(0, 203, 7)]
    assert together.tobytes() == np.concatenate(apart).tobytes()


def test_it_is_calibrated_for_rows_with_their_own_scale() -> None:
    """A mixture of half-normal reaches, whose true quantiles are known: chances come out as often as they say."""
    rng = np.random.default_rng(2)
    scale = np.exp(0.5 * rng.standard_normal(40_000))
    outcome = scale * np.abs(rng.standard_normal(40_000))
    reach = scale[:, None] * np.array([0.31864, 0.67449, 1.15035, 1.64485])
    for distance in (0.3, 1.0, 2.0, 4.0):
        found = chance_of_reaching(np.full(40_000, distance), QUANTILES, reach)
        assert found.mean() == pytest.approx((outcome >= distance).mean(), abs=0.02)


@pytest.mark.parametrize("quantiles", [(), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (0.9, 0.1)])
def test_quantiles_that_are_none_are_refused(quantiles: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        chance_of_reaching(np.ones(2), quantiles, np.ones((2, len(quantiles))))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="for 3 distances and 2 quantiles"):
        chance_of_reaching(np.ones(3), (0.5, 0.9), np.ones((2, 2)))
