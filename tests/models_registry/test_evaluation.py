from __future__ import annotations

import numpy as np
import pytest

from models_registry.assembling import TrainedBundle
from models_registry.errors import NotEnoughData, WindowAlreadySeen
from models_registry.evaluation import decode_record, evaluate, predict_rows
from models_registry.gate import Fitness, GateRules, judge
from models_registry.manifest import encode
from models_registry.runtime import Predictor
from models_registry.statistics import (
    BLOCK_MS,
    auc,
    block_index,
    block_sums,
    calibration_error,
    difference_interval,
    drawdown,
    log_loss,
    ratio_interval,
    student_t,
)
from models_registry.training_set import TrainingSet


@pytest.fixture(scope="module")
def predictor(trained: TrainedBundle) -> Predictor:
    return Predictor.load(trained.folder)


@pytest.fixture(scope="module")
def start(trained: TrainedBundle) -> int:
    return trained.manifest.training.holdout_start_ms


def test_a_record_agrees_with_the_rows_it_sums(predictor: Predictor, planted_set: TrainingSet, start: int) -> None:
    found = evaluate(predictor, planted_set, start_ms=start, threshold=0.4)
    held = planted_set.select(planted_set.decided_at >= start)
    p = predict_rows(predictor, held)
    assert found.rows == len(held) == sum(found.blocks.rows)
    assert found.base_rate == pytest.approx(held.won.mean())
    assert found.log_loss == pytest.approx(log_loss(held.won, p).mean())
    assert sum(found.blocks.log_loss) == pytest.approx(found.log_loss * found.rows)
    assert found.improvement == pytest.approx(found.base_log_loss - found.log_loss)
    assert found.trades == int((p >= 0.4).sum()) == sum(found.blocks.trades)
    assert found.expectancy == pytest.approx(held.r[p >= 0.4].mean())
    assert sum(found.blocks.trade_r) == pytest.approx(held.r[p >= 0.4].sum(), rel=1e-5)
    assert found.skill
    assert found.improvement_interval[0] < found.improvement < found.improvement_interval[1]
    assert decode_record(encode(found)) == found
    assert found.metrics()["log_loss"].skill


def test_the_manifests_metrics_are_those_of_the_served_bundle(
    trained: TrainedBundle, predictor: Predictor, planted_set: TrainingSet, start: int
) -> None:
    found = evaluate(predictor, planted_set, start_ms=start)
    metric = trained.manifest.components["win_classifier"].metrics["log_loss"]
    assert found.log_loss == pytest.approx(metric.value, abs=1e-6)
    assert found.improvement_interval == pytest.approx(metric.interval, abs=0.01)


def test_a_window_the_bundle_has_seen_is_refused(predictor: Predictor, planted_set: TrainingSet) -> None:
    with pytest.raises(WindowAlreadySeen):
        evaluate(predictor, planted_set, start_ms=predictor.manifest.training.last_known_at)


def test_a_window_with_too_few_rows_is_refused(predictor: Predictor, planted_set: TrainingSet, start: int) -> None:
    with pytest.raises(NotEnoughData, match="the evaluation window: 0 rows"):
        evaluate(predictor, planted_set, start_ms=start, end_ms=start)
    with pytest.raises(NotEnoughData, match="at least 10000"):
        evaluate(predictor, planted_set, start_ms=start, fewest=10_000)


def test_a_threshold_nobody_reaches_means_no_trades(predictor: Predictor, planted_set: TrainingSet, start: int) -> None:
    found = evaluate(predictor, planted_set, start_ms=start, threshold=1.1)
    assert (found.trades, found.expectancy, found.drawdown) == (0, None, 0.0)


def test_a_bundle_is_not_worse_than_itself(predictor: Predictor, planted_set: TrainingSet, start: int) -> None:
    found = evaluate(predictor, planted_set, start_ms=start)
    verdict = judge(found, found, Fitness(latency_ms=1.0), GateRules(evidence="not_worse"))
    assert verdict.failed == ["not replayed: expectancies cannot be compared"]
    assert verdict.numbers["log_loss_difference"] == 0


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
@pytest.mark.parametrize("days", [1, 2, 3, 6, 10])
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
    """Twelve blocks of candidates, but of trades only what lies in two of them."""
    rng = np.random.default_rng(3)
    r, everywhere = rng.standard_normal(12), np.ones(12)
    few = np.zeros(12)
    few[[2, 7]] = 9
    spread, rare = ratio_interval(r, everywhere, seed=0), ratio_interval(r * few, few, seed=0)
    assert spread.known
    assert not rare.known
    assert not difference_interval((r * few, few), (r, everywhere), seed=0).known
    few[[0, 4, 10]] = 9
    some = ratio_interval(r * few, few, seed=0)
    assert some.known
    assert some.high - some.low > spread.high - spread.low


def test_few_blocks_give_no_interval() -> None:
    found = ratio_interval(np.ones(5), np.ones(5), seed=0)
    assert found.value == 1
    assert found.pair is None
    rare = np.zeros(40)
    rare[3] = 1
    assert ratio_interval(rare, rare, seed=0).pair in (None, (1.0, 1.0))


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
