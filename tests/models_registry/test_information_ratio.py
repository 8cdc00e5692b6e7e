"""The arithmetic of the walk forward and of its correction for many tries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry import information_ratio as ratios
from models_registry.information_ratio import Ratio

HOUR = 3_600_000


def test_the_coefficient_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 12, 200).astype(float), rng.standard_normal(200)
    ranked = [np.array([(v < w).sum() + ((w == v).sum() - 1) / 2 for w in v]) for v in (x, y)]
    assert ratios.rank_correlation(x, y) == pytest.approx(np.corrcoef(*ranked)[0, 1])
    assert ratios.rank_correlation(np.exp(x), y) == pytest.approx(ratios.rank_correlation(x, y))
    assert ratios.rank_correlation(np.ones(5), np.arange(5.0)) == 0.0


@given(seed=st.integers(0, 10**6), block_hours=st.integers(1, 48))
def test_no_two_blocks_share_an_outcome(seed: int, block_hours: int) -> None:
    rng = np.random.default_rng(seed)
    decided = np.sort(rng.integers(0, 200 * HOUR, 150))
    known = decided + rng.integers(0, 6 * HOUR, 150)
    blocks = ratios.whole_blocks(decided, known, block_hours * HOUR)
    for earlier, later in itertools.pairwise(blocks):
        assert known[earlier].max() < decided[later].min()
    for rows in blocks:
        assert len(set(decided[rows] // (block_hours * HOUR)) | set(known[rows] // (block_hours * HOUR))) == 1


def test_a_block_with_few_known_values_or_little_before_it_has_no_coefficient() -> None:
    values, target = np.tile(np.arange(100.0), 3), np.tile(np.arange(100.0) - 49.5, 3)
    values[100:195] = np.nan
    found = ratios.coefficients(values, target, [np.arange(100), np.arange(100, 200), np.arange(200, 300)])
    assert np.isnan(found[:2]).all()
    assert found[2] == pytest.approx(1.0, abs=0.1), "in line with what came before"
    reversed_ = ratios.coefficients(-values, target, [np.arange(100), np.arange(200, 300)])
    assert reversed_[1] == pytest.approx(-1.0, abs=0.01)


def test_the_coefficient_reads_nothing_of_later_blocks() -> None:
    rng = np.random.default_rng(2)
    values, target = rng.standard_normal(400), rng.standard_normal(400)
    blocks = np.split(np.arange(400), 8)
    before = ratios.coefficients(values, target, blocks)
    values[250:], target[250:] = -7.0, 9.0
    assert np.array_equal(ratios.coefficients(values, target, blocks)[:5], before[:5], equal_nan=True)


def test_a_random_walk_does_not_seem_to_turn_back() -> None:
    """Momentum knows nothing of a random walk. A correlation within each block says that it does: the control."""
    rng = np.random.default_rng(3)
    ahead, block = 24, 72
    moves = rng.standard_normal(400 * block + 2 * ahead)
    total = np.concatenate([[0.0], np.cumsum(moves)])
    now = np.arange(ahead, ahead + 400 * block)
    momentum, target = total[now] - total[now - ahead], total[now + ahead] - total[now]
    blocks = [rows[rows % block < block - ahead] for rows in np.split(np.arange(400 * block), 400)]
    found = ratios.coefficients(momentum, target, blocks)[2:]
    within = np.array([ratios.rank_correlation(momentum[rows], target[rows]) for rows in blocks])

    def errors(values: np.ndarray) -> float:
        return float(values.mean() / (values.std(ddof=1) / math.sqrt(len(values))))

    assert abs(errors(found)) < 3
    assert errors(within) < -8


def test_the_sign_comes_from_the_blocks_before() -> None:
    coefficient = np.array([-0.1, -0.2, -0.1, *np.tile([-0.3, -0.1], 8)])
    found = ratios.walk_forward(coefficient)
    scored = -coefficient[len(coefficient) - found.blocks :]
    assert (found.sign, found.blocks) == (-1.0, 19 - math.ceil(19 / 4))
    assert found.mean == pytest.approx(0.2, abs=0.02)
    assert found.per_block == pytest.approx(scored.mean() / scored.std(ddof=1))
    # A number whose direction turns around is punished where it turns.
    turned = np.concatenate([np.full(10, 0.2), np.full(10, -0.2)]) + np.tile([0.01, -0.01], 10)
    assert ratios.walk_forward(turned).mean < 0


def test_too_few_blocks_have_no_ratio() -> None:
    few = ratios.walk_forward(np.random.default_rng(0).standard_normal(14))
    assert not few.known
    assert math.isnan(ratios.corrected(few, 10))
    assert math.isinf(ratios.bar(few.blocks, 10, 0.0))
    assert ratios.walk_forward(np.full(30, 0.1)).known is False, "what does not move has no ratio"


@given(blocks=st.integers(13, 900), tries=st.integers(1, 5000), least=st.floats(-0.2, 0.5))
def test_the_bar_is_where_the_corrected_ratio_is_enough(blocks: int, tries: int, least: float) -> None:
    bar = ratios.bar(blocks, tries, least)
    if math.isinf(bar):
        assert ratios.corrected(Ratio(100.0, blocks, 0.1), tries) < max(least, 0) + 100
    else:
        assert ratios.corrected(Ratio(bar, blocks, 0.1), tries) == pytest.approx(least, abs=1e-6)
        assert ratios.corrected(Ratio(bar + 0.1, blocks, 0.1), tries) > least
    assert bar <= ratios.bar(blocks, tries + 1, least)


def test_the_corrected_ratio_keeps_its_promise_without_skill() -> None:
    """Of many searches without anything to find, few find anything: at most the stated share, and not none at all."""
    rng = np.random.default_rng(5)
    searches, tries, blocks = 300, 50, 40
    found = 0
    for _ in range(searches):
        best = max(
            ratios.corrected(ratios.walk_forward(rng.standard_normal(blocks) * 0.1), tries) for _ in range(tries)
        )
        found += best > 0
    # 5 % of 300 are 15; more than 25 has a chance below 1 %.
    assert 0 < found <= 25


def test_without_the_correction_it_would_not() -> None:
    """The control of the control: the best of fifty tries beats the bar of a single one nearly always."""
    rng = np.random.default_rng(6)
    found = sum(
        max(ratios.corrected(ratios.walk_forward(rng.standard_normal(40) * 0.1), 1) for _ in range(50)) > 0
        for _ in range(50)
    )
    assert found > 35
