from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry import convert
from models_registry import win_classifier as win
from models_registry.calibration import Isotonic, Platt, fit, fit_isotonic, fit_platt
from models_registry.checkpoints import FOLDER as CHECKPOINT
from models_registry.convert import ONNX, Converted, file_of
from models_registry.errors import InputRejected, NotEnoughData
from models_registry.logistic import StandardLogistic, fit_logistic
from models_registry.manifest import AUTOENCODER, Component, Metric, component_digest
from models_registry.structure_autoencoder import statistical_features
from models_registry.training import train_win_classifier
from models_registry.training_config import no_progress, split_of
from models_registry.training_set import TrainingSet
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

CONFIG = SMALL.win


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """The conversion without a process of its own, whose start takes most of a small training's time."""

    def in_place(model: Path, rows: np.ndarray, folder: Path, formats: object, **_: object) -> dict[str, Converted]:
        path = folder / file_of(ONNX)
        path.write_bytes(convert._to_onnx(str(model), rows))
        return {ONNX: Converted(ONNX, path, None)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(win, "convert", in_place)
        yield


def rows_of(rows: TrainingSet, config: win.WinConfig = CONFIG) -> win.WinRows:
    latents = statistical_features(rows.windows)
    upstream = win.Upstream(latents, np.full(len(rows), np.nan, np.float32))
    return win.WinRows.build(rows, split_of(rows, SMALL), upstream, config)


def train(rows: TrainingSet, folder: Path, config: win.WinConfig = CONFIG) -> Component:
    return win.train(rows_of(rows, config), config, folder, no_progress)


def skill(component: Component) -> Metric:
    return component.metrics["log_loss"]


def test_a_planted_relation_is_found(planted_set: TrainingSet, tmp_path: Path) -> None:
    component = train(planted_set, tmp_path)
    assert skill(component).skill
    assert component.metrics["auc"].value > 0.65
    gain = component.metrics["expectancy_best_fifth"]
    assert gain.interval is not None
    assert gain.interval[0] > 0
    assert component.formats["onnx"].max_error < 1e-5
    shares = component.parameters["importance"]
    # The planted quality is the same thing again, clipped.
    assert set(sorted(shares, key=shares.get)[-2:]) == {"5m.feature_0 aligned", "quality"}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shuffled_labels_give_no_skill(planted_set: TrainingSet, tmp_path: Path, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(len(planted_set))
    mixed = replace(planted_set, outcome=planted_set.outcome[shuffled], r=planted_set.r[shuffled])
    component = train(mixed, tmp_path)
    assert not skill(component).skill
    assert not component.metrics["expectancy_best_fifth"].skill


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_without_an_edge_there_is_no_skill(tmp_path: Path, seed: int) -> None:
    assert not skill(train(planted.training_set(edge=0.0, seed=seed), tmp_path)).skill


def test_the_same_seed_gives_the_same_trees(planted_set: TrainingSet, tmp_path: Path) -> None:
    versions = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        versions.append(train(planted_set, tmp_path / name, replace(CONFIG, seed=seed)).version)
    assert versions[0] == versions[1] != versions[2]


def test_the_file_agrees_with_the_trees(planted_set: TrainingSet, tmp_path: Path) -> None:
    component = train(planted_set, tmp_path)
    found = component.formats["onnx"]
    assert found.agreement == 1
    assert found.latency_us
    assert found.speedup == 1, "it is the fp32 format of its runtime"
    assert found.original_us
    assert found.original_us != found.latency_us
    assert {path.name for path in tmp_path.iterdir()} == set(component.files)
    assert set(component.files) == {f"win_classifier.{end}" for end in ("onnx", "ubj", "json", "curves.json")}
    strict = train(planted_set, tmp_path, replace(CONFIG, agreement=1.1))
    assert "agreement 1 is below 1.1" in str(strict.fallback)


def test_a_conversion_that_crashes_leaves_the_plain_version(
    planted_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(win, "convert", lambda *_, **__: {ONNX: Converted(ONNX, None, "killed by SIGSEGV")})
    component = train(planted_set, tmp_path)
    assert component.fallback == "the ONNX file is not usable: killed by SIGSEGV"
    assert component.formats["onnx"].failed == "killed by SIGSEGV"
    assert win.XGBOOST_FILE in component.files, "a later training can go on from it"


@pytest.mark.deep
def test_the_conversion_has_a_process_of_its_own(planted_set: TrainingSet, tmp_path: Path) -> None:
    train(planted_set, tmp_path)
    rows = rows_of(planted_set).matrix[:64]
    found = convert.convert(tmp_path / win.XGBOOST_FILE, rows, tmp_path, (ONNX,))[ONNX]
    assert found.path is not None
    assert found.path.read_bytes() == (tmp_path / win.ONNX_FILE).read_bytes()


@pytest.mark.deep
def test_growth_that_was_killed_goes_on_to_the_same_trees(planted_set: TrainingSet, tmp_path: Path) -> None:
    """The killed one runs in a process of its own, and dies by SIGKILL in its fourth stretch."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from tests.models_registry import planted, test_win_classifier as here
        def progress(stage, fraction):
            if fraction > 0.8 * 85 / here.CONFIG.rounds:
                os.kill(os.getpid(), signal.SIGKILL)
        here.win.train(here.rows_of(planted.training_set()), here.CONFIG, Path(sys.argv[1]), progress)
    """
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    whole.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(killed)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (killed / CHECKPOINT).is_dir()
    told: list[float] = []
    data = rows_of(planted_set)
    found = win.train(data, CONFIG, killed, lambda stage, fraction: told.append(fraction))
    assert component_digest(found) == component_digest(train(planted_set, whole))
    assert (killed / win.XGBOOST_FILE).read_bytes() == (whole / win.XGBOOST_FILE).read_bytes()
    assert min(told) > 0.8 * 75 / CONFIG.rounds, "it went on where it was"
    assert not (killed / CHECKPOINT).exists()


def test_a_later_training_adds_trees_to_the_champions(planted_set: TrainingSet, tmp_path: Path) -> None:
    """Its trees were grown about its own medians, so rows are aligned about those."""
    folders = [tmp_path / name for name in ("first", "next", "other")]
    for folder in folders:
        folder.mkdir()
    first = train(planted_set, folders[0], replace(CONFIG, rounds=30))
    moved = replace(planted_set, decision=planted_set.decision + np.float32(0.05))
    found = win.train(rows_of(moved), replace(CONFIG, continued_rounds=20), folders[1], no_progress, initial=folders[0])
    before, after = (msgspec.convert(each.parameters, win.WinParameters) for each in (first, found))
    assert (after.updates, after.analyses) == (2, 2 * before.analyses)
    assert before.trees < after.trees <= before.trees + 20
    assert after.centre == before.centre
    assert len(after.history["validation"]) == 21
    assert min(after.history["validation"]) <= after.history["validation"][0]
    assert found.note == "continued from the champion"
    bare = replace(CONFIG, inputs=("decision", "direction"), rounds=5)
    anew = win.train(rows_of(planted_set, bare), bare, folders[2], no_progress, initial=folders[0])
    assert anew.parameters["updates"] == 1
    assert anew.note.startswith("trained anew")


def test_a_champion_that_cannot_be_bettered_is_left_as_it_is(planted_set: TrainingSet, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = train(planted_set, tmp_path / "first")
    (tmp_path / "next").mkdir()
    won = np.random.default_rng(0).permutation(len(planted_set))
    noise = replace(planted_set, outcome=planted_set.outcome[won])
    found = win.train(rows_of(noise), CONFIG, tmp_path / "next", no_progress, initial=tmp_path / "first")
    assert found.parameters["trees"] >= first.parameters["trees"]


def test_an_export_that_disagrees_is_replaced_by_the_plain_version(planted_set: TrainingSet, tmp_path: Path) -> None:
    component = train(planted_set, tmp_path, replace(CONFIG, parity=-1.0))
    assert component.served is None
    assert "the ONNX file is not usable: max_error" in str(component.fallback)
    assert component.parameters["fallback"]["slope"] > 0.5


def test_without_xgboost_the_plain_version_stands_in(
    planted_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(win, "find_spec", lambda name: None if name == "xgboost" else object())
    autoencoder = tmp_path / "autoencoder"
    autoencoder.mkdir()
    plain = Component(version="none", served=None, format=None, fallback="not trained")
    (autoencoder / "component.json").write_bytes(__import__("msgspec").json.encode(plain))
    component = train_win_classifier(planted_set, {AUTOENCODER: autoencoder}, SMALL, tmp_path / "win")
    assert component.fallback == "win_classifier cannot be trained: xgboost is not installed"
    assert component.parameters["fallback"]["slope"] > 0.5


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("fewest_fit", "win_classifier to fit: 1510 rows, at least 9999 are needed"),
        ("fewest_validation", "to be stopped early: 354 rows"),
        ("fewest_holdout", "to be judged: 480 rows"),
    ],
)
def test_too_few_rows_are_counted(planted_set: TrainingSet, tmp_path: Path, part: str, message: str) -> None:
    with pytest.raises(NotEnoughData, match=message):
        train(planted_set, tmp_path, replace(CONFIG, **{part: 9999}))


def test_the_matrix_holds_what_its_columns_say(planted_set: TrainingSet) -> None:
    data = rows_of(planted_set)
    names = win.columns(CONFIG.inputs, planted_set.decision_names)
    assert data.matrix.shape == (len(planted_set), len(names))
    assert np.array_equal(data.matrix[:, names.index("direction")], planted_set.direction)
    assert np.array_equal(data.matrix[:, names.index("kind")], planted_set.kind)
    assert np.array_equal(data.matrix[:, names.index("5m.feature_3")], planted_set.decision[:, 3], equal_nan=True)
    assert np.isnan(data.matrix[:, names.index("reconstruction_error")]).all()
    with pytest.raises(InputRejected, match="unknown inputs astrology"):
        win.columns(["astrology"], [])


def test_what_rises_for_a_long_falls_for_a_short(planted_set: TrainingSet) -> None:
    data = rows_of(planted_set)
    names = win.columns(CONFIG.inputs, planted_set.decision_names)
    plain = planted_set.decision[:, 3]
    aligned = data.matrix[:, names.index("5m.feature_3 aligned")]
    centre = np.nanmedian(plain[data.split.fit])
    assert np.allclose(aligned, (plain - centre) * planted_set.direction, atol=1e-6, equal_nan=True)


def test_trees_that_see_no_aligned_columns_find_less(planted_set: TrainingSet, tmp_path: Path) -> None:
    """Events are candidates in both directions: what tells the direction has no marginal relation to winning."""
    bare = ("decision", "direction")
    without = train(planted_set, tmp_path, replace(CONFIG, inputs=bare))
    with_them = train(planted_set, tmp_path, replace(CONFIG, inputs=(*bare, "aligned_decision")))
    assert with_them.metrics["auc"].value > without.metrics["auc"].value


def test_what_is_not_finite_is_missing(planted_set: TrainingSet) -> None:
    decision = planted_set.decision.copy()
    decision[0, 0], decision[1, 0] = np.inf, -np.inf
    matrix = rows_of(replace(planted_set, decision=decision)).matrix
    assert np.isnan(matrix[:2, 0]).all()


def test_better_quality_never_means_less_confidence(planted_set: TrainingSet) -> None:
    split = split_of(planted_set, SMALL)
    assert win.fit_plain(planted_set, split).slope > 0
    backwards = win.fit_plain(replace(planted_set, quality=-planted_set.quality), split)
    assert backwards.slope == 0
    rate = planted_set.won[np.concatenate([split.fit, split.validation])].mean()
    assert backwards.apply(np.zeros(1, np.float32))[0] == pytest.approx(rate, abs=0.03)
    unknown = win.fit_plain(replace(planted_set, quality=np.full_like(planted_set.quality, np.nan)), split)
    assert unknown == win.QualityLogistic()
    middle = unknown.apply(np.array([np.nan, 0.5], np.float32))
    assert middle[0] == middle[1]


PROBABILITIES = st.lists(st.floats(0, 1), min_size=2, max_size=50)


@given(PROBABILITIES, st.integers(0, 2**32 - 1), st.sampled_from(["platt", "isotonic"]))
def test_calibration_never_reverses_the_order(probabilities: list[float], seed: int, kind: str) -> None:
    p = np.asarray(probabilities)
    won = np.random.default_rng(seed).random(len(p)) < 0.5
    fitted = (fit_platt if kind == "platt" else fit_isotonic)(p, won, np.ones(len(p)))
    found = fitted.apply(np.sort(p))
    assert (np.diff(found) >= -1e-12).all()
    assert ((found > 0) & (found < 1)).all()


def test_calibration_recovers_a_known_distortion() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.05, 0.95, 60_000)
    won = rng.random(len(true)) < true
    distorted = Platt(slope=2.0, intercept=0.7).apply(true)
    for fitted in (fit_platt(distorted, won, np.ones(len(true))), fit_isotonic(distorted, won, np.ones(len(true)))):
        assert np.abs(fitted.apply(distorted) - true).mean() < 0.015
    assert isinstance(fit(distorted, won, np.ones(len(true))), Isotonic)
    assert isinstance(fit(distorted[:500], won[:500], np.ones(500)), Platt)


def test_a_relation_the_wrong_way_calibrates_to_the_base_rate() -> None:
    rng = np.random.default_rng(1)
    p = rng.random(2000)
    fitted = fit_platt(p, rng.random(2000) > p, np.ones(2000))
    assert fitted.slope == 0
    assert fitted.apply(p).std() < 1e-12


def test_logistic_regression_recovers_its_coefficients() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((20_000, 2))
    won = rng.random(len(x)) < 1 / (1 + np.exp(-(0.3 + x @ [1.0, -0.5])))
    assert np.allclose(fit_logistic(x, won, np.ones(len(x)), ridge=0.0), [0.3, 1.0, -0.5], atol=0.06)
    holes = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    holes = np.column_stack([holes, np.full(len(x), np.nan)])
    found = StandardLogistic(holes, won, np.ones(len(x))).predict(holes)
    assert np.corrcoef(found, x @ [1.0, -0.5])[0, 1] > 0.8
