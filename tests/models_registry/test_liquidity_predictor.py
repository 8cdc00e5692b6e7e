from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models_registry import keras_setup, liquidity_network, network_export
from models_registry import liquidity_predictor as lp
from models_registry.checkpoints import FOLDER as CHECKPOINT
from models_registry.convert import FP32, INT8, INT8_IO, Converted
from models_registry.errors import InputRejected, NotEnoughData, TrainingUnavailable
from models_registry.liquidity_network import NetworkShape
from models_registry.manifest import Component
from models_registry.reach_metrics import reach_metrics
from models_registry.reach_quantiles import PROFILE, ascending, fit_plain
from models_registry.reach_rows import ReachRows
from models_registry.training_config import no_progress
from tests.models_registry import made_reach

ROOT = Path(__file__).resolve().parents[2]
SPLIT = made_reach.reach_split(made_reach.reach_rows())
SMALL = lp.LiquidityConfig(units=16, pool=8, epochs=25, batch=128, learning_rate=1e-2, fewest_rows=100)
TINY = replace(SMALL, epochs=3, most_rows=300)
NAMES = ("first", *PROFILE)
PLAIN = fit_plain(SPLIT.fit.reach, SPLIT.fit.profile)
CONSTANT = np.asarray(PLAIN.constant, dtype=np.float32)


def decision(rows: ReachRows) -> np.ndarray:
    """Decision rows with the profile of `rows`."""
    return np.concatenate([np.zeros((len(rows), 1), np.float32), rows.profile], axis=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Component]:
    """Read only."""
    folder = tmp_path_factory.mktemp("liquidity")
    return folder, lp.train(SPLIT, SMALL, folder, no_progress)


def without_conversion(patch: pytest.MonkeyPatch) -> None:
    """Conversion fails at once, and no SavedModel is made: for what is not about the exported files."""

    def broken(*_: object, **__: object) -> dict[str, Converted]:
        return {name: Converted(name, None, "killed by SIGSEGV") for name in (FP32, INT8, INT8_IO)}

    patch.setattr(network_export, "convert", broken)
    patch.setattr(network_export, "save_model", lambda network, path: path.touch())


@pytest.fixture
def unconverted(monkeypatch: pytest.MonkeyPatch) -> None:
    without_conversion(monkeypatch)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Component]:
    """Trained by `TINY`, unconverted; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        without_conversion(patch)
        return folder, lp.train(SPLIT, TINY, folder, no_progress)


def stored_in(folder: Path) -> lp.LiquidityParameters:
    """What a later training would go on from."""
    stored = network_export.champion(folder, lp.FILES)
    assert stored is not None
    return msgspec.convert(stored.parameters, lp.LiquidityParameters)


def of_keras(folder: Path, rows: ReachRows) -> np.ndarray:
    """Quantiles of the trained network in `folder`."""
    import keras

    parameters = stored_in(folder)
    network = keras.models.load_model(folder / lp.FILES.keras, compile=False)
    raw = np.asarray(network(lp.normalise(rows.windows, parameters), training=False))
    return ascending(raw, np.asarray(parameters.offset))


def weights(folder: Path) -> bytes:
    """The trained network's numbers."""
    import keras

    network = keras.models.load_model(folder / lp.FILES.keras, compile=False)
    return b"".join(part.tobytes() for part in network.get_weights())


@given(arrays.arrays(np.float32, (3, 35, 5), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=30, deadline=None)
def test_whatever_comes_in_the_network_gets_numbers_within_one(windows: np.ndarray) -> None:
    parameters = lp.LiquidityParameters(plain=PLAIN, mean=[0.0] * 5, std=[1.0] * 5, pool=4, steps=8)
    with np.errstate(over="ignore", invalid="ignore"):
        found = lp.normalise(windows, parameters)
    assert found.shape == (3, 8, 20)
    assert (np.abs(found) <= 1).all()


def test_a_step_is_a_run_of_bars_and_the_last_ends_with_the_window() -> None:
    parameters = lp.LiquidityParameters(plain=PLAIN, mean=[1.0] * 5, std=[2.0] * 5, pool=2, steps=3)
    windows = (np.arange(35) / 35).astype(np.float32).reshape(1, 7, 5)
    windows[0, 6, 4] = np.nan
    expected = ((windows[0, 1:] - 1) / 2 / lp.CLIP).reshape(3, 10)
    expected[2, 9] = 0.0
    assert np.allclose(lp.normalise(windows, parameters)[0], expected)


@pytest.mark.parametrize("steps", [1, 5])
def test_unrolled_it_is_the_same_function(steps: int) -> None:
    shape = NetworkShape(steps, 6, 9, 8)
    keras_setup.prepare(1)
    network = liquidity_network.build(shape)
    rng = np.random.default_rng(0)
    network.set_weights([rng.standard_normal(part.shape) for part in network.get_weights()])
    rows = rng.uniform(-1, 1, (64, steps, 6)).astype(np.float32)
    expected = np.asarray(network(rows))
    assert np.abs(expected).max() > 0.5
    assert np.allclose(np.asarray(liquidity_network.unrolled(network, shape)(rows)), expected, atol=1e-5)


def test_no_count_of_the_process_is_in_the_exported_network() -> None:
    shape = NetworkShape(3, 6, 4, 8)
    keras_setup.prepare(1)
    network = liquidity_network.build(shape)
    first, second = (liquidity_network.unrolled(network, shape).to_json() for _ in range(2))
    assert first == second


def test_it_begins_at_the_constant_quantiles() -> None:
    keras_setup.prepare(1)
    network = lp.build(SMALL, 32, 5)
    parameters = lp._parameters(SPLIT.fit, PLAIN, SMALL)
    raw = np.asarray(network(lp.normalise(SPLIT.fit.windows[:50], parameters)))  # type: ignore[operator]
    assert np.allclose(ascending(raw, np.asarray(parameters.offset)), PLAIN.constant, atol=1e-4)


def test_what_a_network_makes_too_much_of_is_drawn_back() -> None:
    keras_setup.prepare(1)
    network = lp.build(SMALL, 32, 5)
    parameters = lp._parameters(SPLIT.fit, PLAIN, SMALL)
    rows = lp.normalise(SPLIT.validation.windows, parameters)
    head = network.get_layer("steps_of_quantiles")  # type: ignore[attr-defined]
    noise = np.random.default_rng(0).standard_normal((16, 8))
    head.set_weights([noise, np.zeros(8)])
    unrelated = np.random.default_rng(1).permutation(SPLIT.validation.reach)
    assert lp._temper(network, rows, unrelated, parameters) == 0.25
    assert np.allclose(head.get_weights()[0], 0.25 * noise)


def test_a_planted_relation_beats_both_baselines(trained: tuple[Path, Component]) -> None:
    component = trained[1]
    for name in ("pinball_loss", "pinball_loss_below", "pinball_loss_above", "pinball_loss_profile"):
        metric = component.metrics[name]
        assert metric.skill, name
    assert component.metrics["pinball_loss"].rows == len(SPLIT.holdout)
    assert component.metrics["pinball_loss_profile"].rows < len(SPLIT.holdout), "of the rows that have a profile"
    assert not component.metrics["profile_pinball_loss"].skill
    assert component.parameters["strength"] >= 0.75
    assert component.metrics["coverage_0.5"].value == pytest.approx(0.5, abs=0.07)


def test_int8_decides_as_the_original(trained: tuple[Path, Component]) -> None:
    folder, component = trained
    int8, fp32, integers = (component.formats[name] for name in (INT8, FP32, INT8_IO))
    assert int8.passed
    assert int8.agreement is not None
    assert int8.agreement >= 0.98
    assert integers.passed
    assert fp32.errors["max_error"] < 1e-3
    assert fp32.latency_rows == int8.latency_rows == 200
    assert component.served == (int8.file if component.format == INT8 else fp32.file)
    assert set(component.files) == {path.name for path in folder.iterdir()}, "nothing is left behind"


def test_the_runtime_gives_what_was_judged_and_does_not_look_at_the_batch(trained: tuple[Path, Component]) -> None:
    folder, component = trained
    rows = SPLIT.holdout
    predictor = lp.LiquidityPredictor(folder, component, NAMES)
    together = predictor.run(rows.windows, decision(rows))
    assert together.below.shape == (len(rows), 4)
    assert (np.diff(together.above, axis=1) >= 0).all()
    pieces = [
        predictor.run(rows.windows[start : start + 37], decision(rows)[start : start + 37])
        for start in range(0, len(rows), 37)
    ]
    assert together.below.tobytes() == np.concatenate([part.below for part in pieces]).tobytes()
    assert together.above.tobytes() == np.concatenate([part.above for part in pieces]).tobytes()
    found = np.stack([together.below, together.above], axis=1)
    assert reach_metrics(rows, found, PLAIN, SMALL.seed)["pinball_loss"] == component.metrics["pinball_loss"]
    with pytest.raises(InputRejected, match=r"windows are \(16, 5\)"):
        predictor.run(rows.windows[:, :16], decision(rows))
    with pytest.raises(InputRejected, match="decision rows"):
        predictor.run(rows.windows, decision(rows)[1:])


def test_the_runtime_needs_no_tensorflow(trained: tuple[Path, Component]) -> None:
    folder, component = trained
    (folder.parent / "component.json").write_bytes(msgspec.json.encode(component))
    program = """
        import sys, msgspec, numpy as np
        from pathlib import Path
        from models_registry.liquidity_predictor import LiquidityPredictor
        from models_registry.manifest import Component
        folder = Path(sys.argv[1])
        component = msgspec.json.decode((folder.parent / "component.json").read_bytes(), type=Component)
        LiquidityPredictor(folder, component, ()).run(np.zeros((3, 32, 5), np.float32), np.zeros((3, 0), np.float32))
        print(sorted({"tensorflow", "keras", "xgboost", "onnxruntime"} & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_without_the_network_the_volume_profile_stands_in() -> None:
    rows = SPLIT.holdout
    component = lp.plain_component("it was not trained", PLAIN)
    found = lp.LiquidityPredictor(Path(), component, NAMES).run(rows.windows, decision(rows))
    assert np.array_equal(np.stack([found.below, found.above], axis=1), PLAIN.run(rows.profile))
    assert (found.below[np.isnan(rows.profile).all(axis=1)] == CONSTANT[0]).all()
    without = lp.LiquidityPredictor(Path(), component, ("first",)).run(rows.windows, decision(rows)[:, :1])
    assert (without.above == CONSTANT[1]).all()
    nothing = lp.LiquidityPredictor(Path(), lp.plain_component("no data"), NAMES).run(rows.windows, decision(rows))
    assert np.isnan(nothing.below).all()
    assert nothing.below.shape == (len(rows), 4)


@pytest.mark.deep
def test_shuffled_reaches_show_no_skill(tmp_path: Path, unconverted: None) -> None:
    split = made_reach.reach_split(made_reach.reach_rows(told=False))
    lp.train(split, replace(SMALL, epochs=6), tmp_path, no_progress)
    metric = reach_metrics(split.holdout, of_keras(tmp_path, split.holdout), PLAIN, 0)["pinball_loss"]
    assert metric.interval is not None
    assert not metric.skill


@pytest.mark.deep
def test_a_conversion_that_crashes_is_a_failure_of_the_formats(tiny: tuple[Path, Component]) -> None:
    folder, component = tiny
    assert component.served is None
    assert component.fallback == "no format is usable: INT8 killed by SIGSEGV; fp32 killed by SIGSEGV"
    assert component.formats[INT8].failed == "killed by SIGSEGV"
    rows = SPLIT.holdout
    found = lp.LiquidityPredictor(folder, component, NAMES).run(rows.windows, decision(rows))
    assert np.array_equal(found.below, PLAIN.run(rows.profile)[:, 0])


@pytest.mark.deep
def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    tmp_path: Path, tiny: tuple[Path, Component], unconverted: None
) -> None:
    for name, config in {"same": TINY, "other": replace(TINY, seed=8)}.items():
        (tmp_path / name).mkdir()
        lp.train(SPLIT, config, tmp_path / name, no_progress)
    assert weights(tmp_path / "same") == weights(tiny[0])
    assert weights(tmp_path / "other") != weights(tiny[0])


@pytest.mark.deep
def test_a_training_that_was_killed_goes_on_to_the_same_network(
    tmp_path: Path, tiny: tuple[Path, Component], unconverted: None
) -> None:
    """The killed one runs in a process of its own, and dies by SIGKILL when its second epoch is on disk."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from models_registry import liquidity_predictor as lp
        from tests.models_registry.test_liquidity_predictor import SPLIT, TINY
        def progress(stage, fraction):
            if fraction > 0.7 * 1.5 / TINY.epochs:
                os.kill(os.getpid(), signal.SIGKILL)
        lp.train(SPLIT, TINY, Path(sys.argv[1]), progress)
    """
    killed, whole = tmp_path, tiny[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(killed)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (killed / CHECKPOINT).is_dir()
    fractions = []
    lp.train(SPLIT, TINY, killed, lambda stage, fraction: fractions.append(fraction))
    assert weights(killed) == weights(whole)
    assert (killed / lp.FILES.curves).read_text() == (whole / lp.FILES.curves).read_text()
    assert not (killed / CHECKPOINT).exists()
    assert sum(fraction < 0.7 - 1e-9 for fraction in fractions) == 0, "only the last epoch was left to fit"


@pytest.mark.deep
def test_a_later_training_goes_on_from_the_champion(
    tmp_path: Path, tiny: tuple[Path, Component], unconverted: None
) -> None:
    folders = [tiny[0], tmp_path / "next", tmp_path / "other"]
    for folder in folders[1:]:
        folder.mkdir()
    lp.train(SPLIT, TINY, folders[1], no_progress, initial=folders[0])
    stored = [stored_in(folder) for folder in folders[:2]]
    assert [(each.updates, each.analyses) for each in stored] == [(1, 300), (2, 600)]
    assert stored[0].mean == stored[1].mean
    losses = [
        reach_metrics(SPLIT.validation, of_keras(folder, SPLIT.validation), PLAIN, 0)["pinball_loss"].value
        for folder in folders[:2]
    ]
    assert losses[1] < losses[0]  # type: ignore[operator]
    lp.train(SPLIT, replace(TINY, units=8), folders[2], no_progress, initial=folders[0])
    stored_anew = stored_in(folders[2])
    assert stored_anew.updates == 1, "another shape is trained anew"


def test_too_few_rows_and_no_tensorflow_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotEnoughData, match="liquidity_predictor to fit"):
        lp.train(SPLIT, replace(SMALL, fewest_rows=10_000), tmp_path, no_progress)
    monkeypatch.setattr(keras_setup, "find_spec", lambda name: None)
    with pytest.raises(TrainingUnavailable, match="tensorflow is not installed"):
        lp.train(SPLIT, SMALL, tmp_path, no_progress)
