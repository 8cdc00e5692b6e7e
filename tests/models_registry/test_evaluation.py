from __future__ import annotations

import msgspec
import pytest

from models_registry.assembling import TrainedBundle
from models_registry.errors import NotEnoughData, WindowAlreadySeen
from models_registry.evaluation import EvaluationRecord, evaluate, predict_rows
from models_registry.gate import Fitness, GateRules, judge
from models_registry.manifest import encode
from models_registry.runtime import Predictor
from models_registry.statistics import log_loss
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
    assert msgspec.json.decode(encode(found), type=EvaluationRecord) == found
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
