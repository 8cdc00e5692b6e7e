"""Folds of a walk-forward as one."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models_registry.component_folder import (
    BY_BLOCK_FILE,
    COMPONENT_FILE,
    load_component,
    metrics_by_block,
    save_component,
)
from models_registry.evaluation_table import table
from models_registry.manifest import Component, Metric, encode
from models_registry.pooling import claims_of, pool, pool_all
from models_registry.statistics import BLOCK_MS, block_index, block_sums, ratio_interval

RNG = np.random.default_rng(4)


def metric(better: np.ndarray, at: np.ndarray, seed: int = 1) -> Metric:
    """A metric of rows that are `better` by so much than the baseline, which is 1."""
    starts, block = block_index(at)
    found = ratio_interval(
        block_sums(block, better, len(starts)), block_sums(block, np.ones(len(at)), len(starts)), seed=seed
    )
    return Metric(
        value=float(1 - better.mean()),
        baseline=1.0,
        baseline_name="one",
        improvement=found.value,
        interval=found.pair,
        rows=len(at),
        blocks=len(starts),
        sums=found.sums,
    )


def folds(count: int, mean: float, rows: int = 400) -> tuple[list[Metric], np.ndarray, np.ndarray]:
    """Metrics of `count` folds in a row, with all of their rows."""
    at = np.sort(RNG.integers(0, count * 20 * BLOCK_MS, count * rows))
    better = mean + RNG.standard_normal(len(at))
    fold = at // (20 * BLOCK_MS)
    return [metric(better[fold == number], at[fold == number]) for number in range(count)], better, at


def test_the_improvement_and_its_interval_are_those_of_all_rows_in_one() -> None:
    parts, better, at = folds(4, 0.1)
    found, whole = pool(parts, trials=1, seed=1), metric(better, at)
    assert found.improvement == pytest.approx(whole.improvement)
    assert found.interval == pytest.approx(whole.interval)
    assert (found.rows, found.blocks) == (whole.rows, whole.blocks)


def test_folds_count_alike_in_the_mean_and_its_spread() -> None:
    one = msgspec.structs.replace(folds(1, 0.0)[0][0], value=1.0, rows=10_000)
    found = pool([one, msgspec.structs.replace(one, value=2.0, rows=1)], trials=1, seed=1)
    assert found.value == 1.5
    assert found.spread == pytest.approx(np.std([1.0, 2.0], ddof=1))
    assert found.folds == [1.0, 2.0]


def test_many_trials_take_away_what_their_search_explains() -> None:
    parts, _, _ = folds(4, 0.07)
    one, many = (pool(parts, trials=trials, seed=1) for trials in (1, 500))
    assert one.skill
    assert one.shown
    assert one.deflated == one.improvement
    assert many.skill
    assert not many.shown
    assert many.deflated is not None
    assert one.improvement is not None
    assert many.deflated < one.improvement
    assert many.smallest_detectable is not None
    assert one.smallest_detectable is not None
    assert many.smallest_detectable > one.smallest_detectable


def test_many_claims_ask_more_of_each_and_what_is_none_has_no_verdict() -> None:
    parts, _, _ = folds(4, 0.07)
    one, many = (pool(parts, trials=1, seed=1, claims=claims) for claims in (1, 10**6))
    assert (one.shown, many.shown) == (True, False)
    assert (one.deflated, one.interval) == (many.deflated, many.interval)
    told = pool(parts, trials=1, seed=1, claimed=False)
    assert told.shown is None
    assert told.skill


def test_the_headline_of_each_model_is_a_claim() -> None:
    parts, _, _ = folds(2, 0.5)
    given = [{"a": {"x": part, "y": part}, "b": {"z": Metric(value=1.0)}, "c": {"x": part}} for part in parts]
    headlines = {"a": "y", "b": "z", "c": "x", "d": "x"}
    assert claims_of(given, headlines) == 2, "b's has no improvement to claim, and d was not trained"
    found = pool_all(given, trials=1, seed=1, headlines=headlines, claims=2)
    assert {(model, name): metric.shown for model, names in found.items() for name, metric in names.items()} == {
        ("a", "x"): None,
        ("a", "y"): True,
        ("b", "z"): False,
        ("c", "x"): True,
    }


def test_no_skill_is_shown_where_there_is_none() -> None:
    shown = [bool(pool(folds(4, 0.0, rows=60)[0], trials=1, seed=1).shown) for _ in range(60)]
    assert sum(shown) <= 6  # 2.5 % a side, and what chance adds to sixty tries


def test_one_trade_shows_nothing() -> None:
    r, trades = np.zeros(180), np.zeros(180)
    r[40], trades[40] = 1.1, 1
    sums = (r.tolist(), trades.tolist(), [0.0] * 180, [1.0] * 180)
    found = pool([Metric(value=1.1, improvement=1.1, sums=sums)], trials=1, seed=1)
    assert (found.improvement, found.interval, found.shown) == (1.1, None, False)
    assert found.smallest_detectable is None
    told = pool([Metric(value=1.1, improvement=1.1, sums=sums)], trials=1, seed=1, claimed=False)
    lines = table({"a": {"x": found, "y": told}})
    assert lines[-2] == "| x | 1.1 | – | +1.1 (too few blocks) | not shown | – |"
    assert lines[-1] == "| y | 1.1 | – | +1.1 (too few blocks) | – | – |"


def test_metrics_without_sums_have_a_mean_and_no_improvement() -> None:
    found = pool([Metric(value=0.5, blocks=3), Metric(value=None, blocks=3)], trials=1, seed=1)
    assert (found.value, found.spread, found.improvement, found.interval) == (0.5, None, None, None)
    assert (found.blocks, found.shown) == (6, False)


def test_a_metric_is_pooled_over_the_folds_that_have_it() -> None:
    one, two = {"a": {"x": Metric(value=1.0)}}, {"a": {"x": Metric(value=2.0), "y": Metric(value=3.0)}, "b": {}}
    found = pool_all([one, two], trials=1, seed=1, headlines={}, claims=0)
    assert {model: list(names) for model, names in found.items()} == {"a": ["x", "y"], "b": []}
    assert found["a"]["x"].folds == [1.0, 2.0]
    assert found["a"]["y"].folds == [3.0]
    with pytest.raises(ValueError, match="no fold"):
        pool([], trials=1, seed=1)


def test_sums_are_kept_beside_the_component_and_never_in_it(tmp_path: Path) -> None:
    whole = folds(1, 0.1)[0][0]
    given = Component(version="1", served="f", format="x", metrics={"loss": whole, "other": Metric(value=1.0)})
    kept = save_component(tmp_path, given)
    assert kept == load_component(tmp_path)
    assert b"sums" not in (tmp_path / COMPONENT_FILE).read_bytes()
    assert b"sums" not in encode(kept)
    assert set(json.loads((tmp_path / BY_BLOCK_FILE).read_bytes())) == {"loss"}
    found = metrics_by_block(tmp_path)
    assert found["loss"] == whole
    assert found["other"].sums is msgspec.UNSET


def test_sums_that_an_older_training_left_do_not_stay(tmp_path: Path) -> None:
    save_component(tmp_path, Component(version="1", served="f", format="x", metrics={"loss": folds(1, 0.1)[0][0]}))
    save_component(tmp_path, Component(version="2", served="f", format="x", metrics={"loss": Metric(value=1.0)}))
    assert metrics_by_block(tmp_path)["loss"].sums is msgspec.UNSET
