"""Reaches that the win model is fitted to come from networks that have seen nothing of the rows' time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.reach import Reach
from models_registry import liquidity_predictor, reach_out_of_fold, training
from models_registry.component_folder import load_component
from models_registry.errors import NotEnoughData
from models_registry.liquidity_predictor import CURVES_FILE, LiquidityConfig, LiquidityParameters
from models_registry.manifest import Component
from models_registry.reach_out_of_fold import _apart, out_of_fold
from models_registry.reach_quantiles import fit_plain
from models_registry.reach_rows import ReachRows, ReachSplit
from models_registry.training import OUT_OF_FOLD_FILE, train_liquidity_predictor, training_reach
from models_registry.training_config import TrainingConfig, split_of
from models_registry.training_set import Split, TrainingSet
from tests.models_registry import planted

HOUR = planted.HOUR
EMBARGO = 4 * HOUR
SETTINGS = LiquidityConfig(folds=3, fewest_rows=100)
CONFIG = TrainingConfig(liquidity=SETTINGS)
Q = len(SETTINGS.quantiles)


def with_paths(rows: int = 900, windows: int = 1500, seed: int = 3) -> TrainingSet:
    """A training set of which it is known how far price went within four hours."""
    made = planted.training_set(rows=rows, windows=windows, seed=seed)
    rng = np.random.default_rng(seed)
    labelled, unlabelled = (rng.gamma(2.0, 1.0, (2, count)).astype(np.float32) for count in (rows, windows))
    return replace(
        made,
        path_known_at=made.decided_at + 4 * HOUR,
        unlabelled_known_at=made.unlabelled_at + 4 * HOUR,
        reach_below=labelled[0],
        reach_above=labelled[1],
        unlabelled_below=unlabelled[0],
        unlabelled_above=unlabelled[1],
    )


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    return with_paths()


@pytest.fixture(scope="module")
def cut(rows: TrainingSet) -> tuple[Split, ReachSplit]:
    split = split_of(rows, CONFIG)
    return split, ReachSplit.cut(ReachRows.of(rows), split.validation_start_ms, split.holdout_start_ms, EMBARGO)


hours = st.integers(0, 300)


@given(
    at=st.lists(hours, min_size=1, max_size=60),
    lasts=st.lists(st.integers(1, 30), min_size=60, max_size=60),
    block=st.lists(st.tuples(hours, st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=5),
    embargo=st.integers(0, 8),
)
def test_only_rows_an_embargo_apart_from_a_blocks_time_are_learnt_from(
    at: list[int], lasts: list[int], block: list[tuple[int, int, int]], embargo: int
) -> None:
    """A row's time is from its window's end until its reach was known; a block's until its last outcome or path was."""
    ends = np.sort(np.asarray(at, dtype=np.int64))
    known = ends + lasts[: len(ends)]
    nothing = np.ones(len(ends))
    fit = ReachRows.known(np.zeros((len(ends), 1, 5), np.float32), nothing, nothing, ends * HOUR, known * HOUR)
    decided, outcome, path = (np.asarray(each, dtype=np.int64) for each in zip(*sorted(block), strict=True))
    made = planted.training_set(rows=len(block), windows=1)
    part = replace(
        made,
        decided_at=decided * HOUR,
        known_at=(decided + outcome) * HOUR,
        path_known_at=np.where(path > 0, (decided + path) * HOUR, 0),
    )
    start, end = decided.min(), (decided + np.maximum(outcome, path)).max()
    before, after = start - known, ends - end
    assert np.array_equal(_apart(fit, part, embargo * HOUR), np.maximum(before, after) > embargo)


class Fitted:
    """Stands for the network: notes what it is fitted to, and says of every window the number of the fold."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.to: list[ReachRows] = []
        monkeypatch.setattr(reach_out_of_fold, "_Network", lambda config, window: self)

    def fitted(self, others: ReachRows, windows: np.ndarray, *_: object) -> np.ndarray:
        self.to.append(others)
        return np.full((len(windows), 2, Q), len(self.to), dtype=np.float32)


def test_every_block_has_reaches_of_a_network_that_has_not_seen_its_time(
    rows: TrainingSet, cut: tuple[Split, ReachSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Fitted(monkeypatch)
    split, parts = cut
    learnt = rows.select(split.fit)
    parameters = LiquidityParameters(plain=fit_plain(parts.fit.reach, parts.fit.profile))
    found = out_of_fold(learnt, parts.fit, SETTINGS, parameters, tmp_path, folds=3, epochs=1, embargo_ms=EMBARGO)
    assert found.shape == (len(learnt), 2, Q)
    told = found[:, 0, 0]
    assert (np.diff(told) >= 0).all()
    assert set(told) == {1.0, 2.0, 3.0}
    for number, others in enumerate(network.to, 1):
        block = learnt.select(told == number)
        ends = max(block.known_at.max(), block.path_known_at.max())
        early = others.at < block.decided_at.min()
        assert (others.known_at[early] < block.decided_at.min() - EMBARGO).all()
        assert (others.at[~early] > ends + EMBARGO).all()
        assert len(others) > len(parts.fit) / 2


def test_a_block_without_enough_beside_it_is_an_error(
    rows: TrainingSet, cut: tuple[Split, ReachSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Fitted(monkeypatch)
    split, parts = cut
    parameters = LiquidityParameters(plain=fit_plain(parts.fit.reach, parts.fit.profile))
    learnt = rows.select(split.fit)
    with pytest.raises(NotEnoughData, match="liquidity_predictor without block 1"):
        out_of_fold(learnt, parts.fit, SETTINGS, parameters, tmp_path, folds=1, epochs=1, embargo_ms=EMBARGO)


def served(parameters: LiquidityParameters) -> Component:
    return Component(version="1", served="f", format="x", parameters=msgspec.to_builtins(parameters))


def test_the_reaches_kept_are_of_the_fitted_rows_by_networks_of_the_fitted_windows(
    rows: TrainingSet, cut: tuple[Split, ReachSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, parts = cut
    parameters = LiquidityParameters(plain=fit_plain(parts.fit.reach, parts.fit.profile))

    def train(given: ReachSplit, config: LiquidityConfig, folder: Path, *_: object, **__: object) -> Component:
        (folder / CURVES_FILE).write_text(json.dumps({"validation": [3.0, 1.0, 2.0]}))
        return served(parameters)

    asked: dict[str, object] = {}

    def unseen(learnt: TrainingSet, fit: ReachRows, *_: object, **how: object) -> np.ndarray:
        asked.update(how, learnt=learnt, fit=fit)
        return np.arange(len(learnt) * 2 * Q, dtype=np.float32).reshape(-1, 2, Q)

    monkeypatch.setattr(liquidity_predictor, "train", train)
    monkeypatch.setattr(training, "out_of_fold", unseen)
    train_liquidity_predictor(rows, CONFIG, tmp_path)
    learnt, fit = asked["learnt"], asked["fit"]
    assert isinstance(learnt, TrainingSet)
    assert isinstance(fit, ReachRows)
    assert np.array_equal(learnt.decided_at, rows.decided_at[split.fit])
    assert np.array_equal(fit.at, parts.fit.at)
    assert (fit.known_at <= split.validation_start_ms - EMBARGO).all()
    assert (asked["embargo_ms"], asked["epochs"], asked["folds"]) == (EMBARGO, 2, 3)
    assert np.load(tmp_path / OUT_OF_FOLD_FILE).shape == (len(split.fit), 2, Q)

    # The win model meets them on the rows that it is fitted to, and the served file's on all others.
    class Served:
        quantiles = SETTINGS.quantiles

        def __init__(self, *_: object) -> None:
            pass

        def run(self, windows: np.ndarray, decision: np.ndarray) -> Reach:
            nothing = np.full((len(windows), Q), -1.0, dtype=np.float32)
            return Reach(self.quantiles, nothing, nothing.copy())

    monkeypatch.setattr(training, "LiquidityPredictor", Served)
    reach = training_reach(tmp_path, load_component(tmp_path), rows, split)
    kept = np.load(tmp_path / OUT_OF_FOLD_FILE)
    others = np.setdiff1d(np.arange(len(rows)), split.fit)
    assert len(others) > 100
    for side, number in ((reach.below, 0), (reach.above, 1)):
        assert np.array_equal(side[split.fit], kept[:, number])
        assert (side[others] == -1).all()


times = st.lists(st.integers(0, 200), min_size=1, max_size=80)


@given(at=times, validation=st.integers(20, 120), more=st.integers(1, 80))
def test_windows_are_cut_with_the_embargo_before_either_later_part(at: list[int], validation: int, more: int) -> None:
    ends = np.sort(np.asarray(at, dtype=np.int64)) * HOUR
    start, judged = validation * HOUR, (validation + more) * HOUR
    nothing = np.empty(0, dtype=np.int64)
    split = Split(nothing, nothing, nothing, validation_start_ms=start, holdout_start_ms=judged)
    windows = ends.astype(np.float32).reshape(-1, 1, 1)
    found, seen = training._cut_windows(windows, ends, split, CONFIG)
    assert np.array_equal(found.fit, windows[ends < start - EMBARGO])
    assert np.array_equal(found.validation, windows[(ends >= start) & (ends < judged - EMBARGO)])
    assert np.array_equal(found.holdout, windows[ends >= judged])
    assert found.holdout_at.tolist() == ends[ends >= judged].tolist()
    assert seen.sum() == len(found.fit) + len(found.validation)
