"""Scores by hand, and intervals that are wrong as seldom as they say: of overlapping labels, and of few trades."""

from __future__ import annotations

import numpy as np
import pytest

from models_registry.statistics import (
    BLOCK_MS,
    auc,
    block_index,
    block_sums,
    calibration_error,
    difference_interval,
    drawdown,
    ratio_interval,
    student_t,
)


def overlapping_means(days: int, overlap: int, rng: np.random.Generator, runs: int) -> np.ndarray:
    """The intervals of the mean of labels that each last `overlap` bars, whose true mean is 0; [runs, low and high]."""
    found = []
    for _ in range(runs):
        steps = rng.standard_t(4, days * 288 + overlap)
        path = np.concatenate([[0.0], np.cumsum(steps)])
        label = (path[overlap:] - path[:-overlap])[: days * 288]
        time = np.flatnonzero(rng.random(label.size) < 0.3)
        starts, block = block_index(time.astype(np.int64) * 300_000)
        interval = ratio_interval(
            block_sums(block, label[time], len(starts)),
            block_sums(block, np.ones(len(time)), len(starts)),
            seed=0,
            draws=400,
        )
        found.append((interval.low, interval.high))
    return np.asarray(found)


@pytest.mark.parametrize("minutes", [60, 120, 240])
@pytest.mark.parametrize("days", [2, 3, 6, 10])
def test_intervals_cover_the_truth_although_labels_overlap(days: int, minutes: int) -> None:
    """2.5 % a side is meant; the bound is three standard errors of so many runs above what is reached."""
    runs = 1500 if days < 10 else 600
    low, high = overlapping_means(days, minutes // 5, np.random.default_rng(days + minutes), runs).T
    assert not np.isnan(low).any()
    above, below = np.mean(low > 0), np.mean(high < 0)
    assert max(above, below) < 0.045
    assert above + below > 0.03, "wider than need be"


def test_rows_taken_as_independent_would_not_cover() -> None:
    """The control: blocks of one bar ignore the overlap, and the interval is far too narrow."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(60):
        path = np.cumsum(rng.standard_normal(1000))
        label = path[48:] - path[:-48]
        interval = ratio_interval(label, np.ones(label.size), seed=0, draws=200)
        wrong += interval.low > 0 or interval.high < 0
    assert wrong > 20


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(1)
    common, rows = rng.standard_normal(60), np.full(60, 10.0)
    first, second = common + 0.1 + 0.01 * rng.standard_normal(60), common + 0.01 * rng.standard_normal(60)
    pair = difference_interval((first, rows), (second, rows), seed=0)
    alone = ratio_interval(first, rows, seed=0)
    assert pair.value == pytest.approx(0.01, abs=0.002)
    assert pair.low > 0
    assert pair.high - pair.low < 0.2 * (alone.high - alone.low)


def test_trades_in_few_of_the_blocks_count_as_few() -> None:
    """Forty blocks of candidates, but of trades only what lies in some of them."""
    rng = np.random.default_rng(3)
    r, everywhere, few = rng.standard_normal(40), np.ones(40), np.zeros(40)
    few[[2, 7, 8, 15, 30]] = 9
    spread, rare = ratio_interval(r, everywhere, seed=0), ratio_interval(r * few, few, seed=0)
    assert spread.known
    assert not rare.known
    assert not difference_interval((r * few, few), (r, everywhere), seed=0).known
    assert not ratio_interval(r * few, everywhere, seed=0).known, "nor does it tell more of all candidates"
    few[::4] = 9
    some = ratio_interval(r * few, few, seed=0)
    assert some.known
    assert some.high - some.low > 1.5 * (spread.high - spread.low)
    assert difference_interval((r * few, few), (r, everywhere), seed=0).known


TRADES = {"coin": (1.0, -1.0), "target and stop": (1.25, -1.05)}


def trades_in(blocks: int, trades: int, payoff: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sums of R and numbers of trades by block: each trade alone in its block, worth nothing on average."""
    won, lost = TRADES[payoff]
    r, count = np.zeros(blocks), np.zeros(blocks)
    at = rng.choice(blocks, trades, replace=False)
    ends = np.where(rng.random(trades) < -lost / (won - lost), won, lost)
    r[at], count[at] = ends + 0.05 * rng.standard_normal(trades), 1
    return r, count


@pytest.mark.parametrize("payoff", TRADES)
@pytest.mark.parametrize("trades", [12, 16, 24, 40, 130])
def test_intervals_of_few_trades_in_many_blocks_keep_their_error_rate(trades: int, payoff: str) -> None:
    """A month of blocks: of R a trade, R an opportunity, and R a trade beside a baseline that always trades."""
    rng, runs = np.random.default_rng(trades), 400
    wrong = np.zeros((3, 2))
    for _ in range(runs):
        r, count = trades_in(180, trades, payoff, rng)
        many = rng.poisson(30, 180) + 1.0
        other = np.sqrt(many) * rng.standard_normal(180)
        found = (
            ratio_interval(r, count, seed=0, draws=400),
            ratio_interval(r, many, seed=0, draws=400),
            difference_interval((r, count), (other, many), seed=0, draws=400),
        )
        assert all(each.known for each in found)
        wrong += [[each.low > 0, each.high < 0] for each in found]
    assert wrong.max() / runs < 0.05  # 2.5 % are meant, and three standard errors of so many runs


@pytest.mark.parametrize("trades", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("blocks", [20, 180, 3000])
def test_of_trades_that_may_all_end_alike_there_is_no_interval(trades: int, blocks: int) -> None:
    r, count = trades_in(blocks, trades, "coin", np.random.default_rng(trades))
    many = np.full(blocks, 30.0)
    for found in (
        ratio_interval(r, count, seed=0),
        ratio_interval(r, many, seed=0),
        difference_interval((r, count), (many - 30, many), seed=0),
        difference_interval((r, count), (np.ones(blocks), many), seed=0),
    ):
        assert found.pair is None
        assert np.isfinite(found.value)


def test_two_neighbouring_trades_are_no_evidence() -> None:
    r, count = np.zeros(180), np.zeros(180)
    r[[90, 91]], count[[90, 91]] = (1.0, 1.1), 1
    assert ratio_interval(r, count, seed=0).pair is None


def test_few_blocks_give_no_interval() -> None:
    for blocks in (5, 9):
        found = ratio_interval(np.ones(blocks), np.ones(blocks), seed=0)
        assert found.value == 1
        assert found.pair is None
    assert ratio_interval(np.ones(10), np.ones(10), seed=0).known


def test_students_quantiles_are_those_of_the_tables() -> None:
    table = {2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042, 100: 1.984}
    for degrees, quantile in table.items():
        assert student_t(0.975, degrees) == pytest.approx(quantile, abs=0.02)


def test_auc_agrees_with_counting_pairs() -> None:
    rng = np.random.default_rng(2)
    won, score = rng.random(60) < 0.4, rng.integers(0, 8, 60) / 8
    pairs = score[won][:, None] - score[~won]
    assert auc(won, score) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert np.isnan(auc(np.ones(3, bool), score[:3]))


def test_calibration_error_and_drawdown_by_hand() -> None:
    won = np.array([True] * 5 + [False] * 5)
    assert calibration_error(won, np.full(10, 0.5)) == pytest.approx(0.5)
    assert calibration_error(won, won.astype(float)) == 0
    assert drawdown(np.array([-1.0, 2.0, -0.5, -1.0, 3.0])) == 1.5
    assert drawdown(np.empty(0)) == 0


def test_blocks_lie_on_a_fixed_grid() -> None:
    time = np.array([5, BLOCK_MS - 1, BLOCK_MS, 3 * BLOCK_MS + 7], dtype=np.int64)
    starts, block = block_index(time)
    assert starts.tolist() == [0, BLOCK_MS, 3 * BLOCK_MS]
    assert block.tolist() == [0, 0, 1, 2]
