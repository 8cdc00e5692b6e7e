from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models_registry import keras_setup, network_export
from models_registry import structure_autoencoder as ae
from models_registry.assembling import TrainedBundle
from models_registry.autoencoder_network import AutoencoderShape, build, fitted, halves
from models_registry.checkpoints import FOLDER as CHECKPOINT
from models_registry.checkpoints import FitPlan
from models_registry.component_folder import load_component
from models_registry.convert import FORMATS, Converted
from models_registry.errors import NotEnoughData
from models_registry.exports import choose, latencies_us
from models_registry.manifest import AUTOENCODER, Component, FormatReport
from models_registry.principal_components import PrincipalComponents
from models_registry.training import train_structure_autoencoder
from models_registry.training_config import no_progress
from models_registry.training_set import TrainingSet
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

SHAPE = AutoencoderShape(window=32, channels=5, hidden=(48, 24))
PARAMETERS = ae.AutoencoderParameters(mean=[0.0, 1.0, -1.0, 0.0, 0.5], std=[1.0, 2.0, 2.0, 1.0, 0.5], limit=1.0)
WINDOWS = planted.windows_of(600, np.random.default_rng(1))
TINY = ae.AutoencoderConfig(epochs=3, batch=64, most_windows=400, fewest_windows=100, hidden=(48, 24))


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversion fails at once, and no SavedModel is made: for what is not about the exported files."""

    def broken(*_: object, **__: object) -> dict[str, Converted]:
        return {name: Converted(name, None, "killed by SIGSEGV") for name in FORMATS}

    monkeypatch.setattr(network_export, "convert", broken)
    monkeypatch.setattr(network_export, "save_model", lambda network, path: path.touch())


def window_split(windows: np.ndarray = WINDOWS) -> ae.WindowSplit:
    at = planted.START + np.arange(len(windows), dtype=np.int64) * planted.HOUR
    return ae.WindowSplit(windows[:400], windows[400:500], windows[500:], at[500:])


@given(arrays.arrays(np.float32, (3, 32, 5), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=30, deadline=None)
def test_whatever_comes_in_the_network_gets_bounded_numbers(windows: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = ae.normalise(windows, PARAMETERS)
    assert (np.abs(found) <= ae.CLIP).all()
    with np.errstate(all="ignore"):
        assert ae.statistical_features(np.clip(windows, -100, 100)).shape == (3, ae.LATENTS)


def test_normalised_windows_are_standard_by_channel() -> None:
    windows = np.random.default_rng(0).normal(PARAMETERS.mean, PARAMETERS.std, (4000, 32, 5)).astype(np.float32)
    found = ae.normalise(windows, PARAMETERS)
    assert np.abs(found.mean(axis=(0, 1))).max() < 0.02
    assert np.abs(found.std(axis=(0, 1)) - 1).max() < 0.02


def test_the_statistics_say_what_their_names_say() -> None:
    window = np.zeros((1, 32, 5), dtype=np.float32)
    window[0, :, 3] = np.where(np.arange(32) < 16, 1.0, -0.5)
    window[0, :, 1], window[0, :, 2] = 1.0, -1.0
    window[0, 0, 4] = np.nan
    found = dict(zip(ae.STATISTICS, ae.statistical_features(window)[0], strict=True))
    assert found["close_sum"] == 8
    assert found["close_sum_recent"] == -4
    assert found["up_fraction"] == 0.5
    assert found["below_peak"] == 8
    assert found["range_mean"] == 2
    assert found["volume_mean"] == 0


def test_principal_components_are_the_best_linear_compression() -> None:
    rng = np.random.default_rng(2)
    rows = (rng.standard_normal((500, 3)) @ rng.standard_normal((3, 20))).astype(np.float32)
    assert PrincipalComponents.fit(rows, 3).error(rows).max() < 1e-8
    two = PrincipalComponents.fit(rows, 2)
    assert np.allclose(two.axes.T @ two.axes, np.eye(2))
    other = np.linalg.qr(rng.standard_normal((20, 2)))[0]
    centred = rows - rows.mean(axis=0)
    assert two.error(rows).mean() < np.square(centred - centred @ other @ other.T).mean()


def test_training_starts_at_its_baseline() -> None:
    windows = ae.normalise(WINDOWS, PARAMETERS)
    components = PrincipalComponents.fit(windows, ae.LATENTS)
    latents, reconstruction = build(SHAPE, components)(windows, training=False)
    assert np.allclose(
        ae.reconstruction_error(windows, np.asarray(reconstruction)), components.error(windows), atol=1e-4
    )
    assert np.allclose(np.asarray(latents).std(axis=0), 1.0, atol=0.02)


def test_the_served_file_is_judged_beside_the_principal_components(trained: TrainedBundle) -> None:
    component = trained.manifest.components[AUTOENCODER]
    metric = component.metrics["reconstruction_error"]
    assert component.format == "tflite_int8"
    assert component.formats["tflite_int8"].errors["latents_p99"] < 0.25
    assert component.formats["tflite_int8"].bytes <= 0.35 * component.formats["tflite_fp32"].bytes
    assert component.formats["tflite_fp32"].errors["latents_p99"] < 1e-4
    assert metric.baseline_name == "PCA with 16 components"
    assert metric.value is not None
    assert metric.baseline is not None
    assert metric.improvement == pytest.approx(metric.baseline - metric.value, abs=1e-6)
    assert metric.interval is not None


def test_a_network_worse_than_its_baseline_shows_no_skill() -> None:
    at = planted.START + np.arange(300, dtype=np.int64) * planted.HOUR
    error = np.full(300, 0.5, np.float32) + np.random.default_rng(0).normal(0, 0.01, 300).astype(np.float32)
    metric = ae._metrics(error, error - np.float32(0.05), at, 0)["reconstruction_error"]
    assert metric.improvement == pytest.approx(-0.05, abs=1e-6)
    assert not metric.skill


def test_the_same_seed_gives_the_same_network() -> None:
    parts = {"fit": WINDOWS[:300], "validation": WINDOWS[300:400]}
    components = PrincipalComponents.fit(parts["fit"], ae.LATENTS)

    def weights(seed: int) -> list[bytes]:
        keras_setup.prepare(seed)
        network = build(SHAPE, components)
        fitted(network, parts["fit"], parts["validation"], 1e-3, FitPlan(1, 1, 64, seed))
        return [part.tobytes() for part in network.get_weights()]

    assert weights(7) == weights(7) != weights(8)


def test_no_count_of_the_process_is_in_the_network() -> None:
    """Else a second training in a process would export other bytes."""
    components = PrincipalComponents.fit(ae.normalise(WINDOWS, PARAMETERS), ae.LATENTS)
    first, second = (build(SHAPE, components).to_json() for _ in range(2))
    assert first == second


def test_when_no_format_can_be_exported_the_plain_version_stands_in(tmp_path: Path, unexported: None) -> None:
    component = ae.train(window_split(), TINY, tmp_path, no_progress)
    assert component.served is None
    assert component.fallback == "no format is usable: INT8 killed by SIGSEGV; fp32 killed by SIGSEGV"
    assert component.formats["tflite_int8"].failed == "killed by SIGSEGV"


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Component]:
    """Trained by `TINY`; read only."""
    folder = tmp_path_factory.mktemp("autoencoder")
    return folder, ae.train(window_split(), TINY, folder, no_progress)


def test_a_format_agrees_when_windows_are_as_strange_and_on_the_same_sides(component: tuple[Path, Component]) -> None:
    formats = component[1].formats
    assert set(formats) == {"tflite_fp32", "tflite_int8", "tflite_int8_io"}
    for name, found in formats.items():
        assert found.passed, name
        assert found.agreement == pytest.approx(1 - max(found.errors["other_side"], found.errors["other_verdict"]))
        assert found.latency_us
    assert formats["tflite_fp32"].agreement == 1
    assert formats["tflite_int8"].agreement is not None
    assert 0.98 <= formats["tflite_int8"].agreement < 1


def test_what_it_leaves_behind_is_whole(component: tuple[Path, Component]) -> None:
    import keras

    folder, found = component
    assert {path.name for path in folder.iterdir()} == set(found.files)
    assert zipfile.is_zipfile(folder / ae.FILES.saved_model)
    stored = network_export.champion(folder, ae.FILES)
    assert stored is not None
    assert (stored.inputs, stored.outputs[-1]) == (list(ae.CHANNELS), "reconstruction")
    parameters = msgspec.convert(stored.parameters, ae.AutoencoderParameters)
    assert parameters == msgspec.convert(found.parameters, ae.AutoencoderParameters)
    assert (parameters.updates, parameters.analyses) == (1, 400)
    assert set(parameters.channel_errors) == set(ae.CHANNELS)
    windows = ae.normalise(WINDOWS[:9], parameters)
    whole, encoder, decoder = (
        keras.models.load_model(folder / file, compile=False)
        for file in (ae.FILES.keras, ae.FILES.part("encoder"), ae.FILES.part("decoder"))
    )
    latents, reconstruction = whole(windows)
    assert np.array_equal(encoder(windows), latents)
    assert np.array_equal(decoder(latents), reconstruction)


def test_the_halves_share_the_weights_of_the_whole() -> None:
    components = PrincipalComponents.fit(ae.normalise(WINDOWS, PARAMETERS), ae.LATENTS)
    network = build(SHAPE, components)
    encoder, decoder = halves(network)
    assert len(encoder.weights) + len(decoder.weights) == len(network.weights)
    assert {id(part) for half in (encoder, decoder) for part in half.weights} == {id(part) for part in network.weights}


@pytest.mark.deep
def test_a_later_training_goes_on_from_the_champion(
    component: tuple[Path, Component], tmp_path: Path, unexported: None
) -> None:
    """With its normalisation, and from where it had come; other layers are trained anew."""
    folder = component[0]
    other = window_split(WINDOWS + np.float32(0.5))
    ae.train(other, replace(TINY, continued_epochs=1), tmp_path, no_progress, initial=folder)
    first, second = (parameters_in(each) for each in (folder, tmp_path))
    assert (second.updates, second.analyses) == (2, 800)
    assert second.mean == first.mean
    again = tmp_path / "again"
    again.mkdir()
    ae.train(window_split(), replace(TINY, continued_epochs=1), again, no_progress, initial=folder)
    assert parameters_in(again).history["validation"][0] < first.history["validation"][0]
    wider = tmp_path / "wider"
    wider.mkdir()
    ae.train(other, replace(TINY, hidden=(32,), epochs=1), wider, no_progress, initial=folder)
    assert parameters_in(wider).updates == 1
    assert parameters_in(wider).mean != first.mean


@pytest.mark.deep
def test_a_training_that_was_killed_goes_on_to_the_same_network(tmp_path: Path, unexported: None) -> None:
    """The killed one runs in a process of its own, and dies by SIGKILL when its second epoch is on disk."""
    program = """
        import os, signal, sys
        from pathlib import Path
        from tests.models_registry.test_autoencoder import TINY, ae, window_split
        def progress(stage, fraction):
            if fraction > 0.7 * 1.5 / TINY.epochs:
                os.kill(os.getpid(), signal.SIGKILL)
        ae.train(window_split(), TINY, Path(sys.argv[1]), progress)
    """
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    whole.mkdir()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(killed)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (killed / CHECKPOINT).is_dir()
    told: list[float] = []
    ae.train(window_split(), TINY, whole, no_progress)
    ae.train(window_split(), TINY, killed, lambda stage, fraction: told.append(fraction))
    assert weights_in(killed) == weights_in(whole)
    assert parameters_in(killed) == parameters_in(whole)
    assert not (killed / CHECKPOINT).exists()
    assert sum(fraction < 0.7 - 1e-9 for fraction in told) == 0, "only the last epoch was left to fit"


def parameters_in(folder: Path) -> ae.AutoencoderParameters:
    stored = network_export.champion(folder, ae.FILES)
    assert stored is not None
    return msgspec.convert(stored.parameters, ae.AutoencoderParameters)


def weights_in(folder: Path) -> list[bytes]:
    import keras

    network = keras.models.load_model(folder / ae.FILES.keras, compile=False)
    return [part.tobytes() for part in network.get_weights()]


def test_without_tensorflow_the_plain_version_stands_in(
    planted_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_setup, "find_spec", lambda name: None)
    component = train_structure_autoencoder(planted_set, SMALL, tmp_path)
    assert component.fallback == "structure_autoencoder cannot be trained: tensorflow is not installed"
    assert load_component(tmp_path) == component


def test_too_few_windows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="structure_autoencoder to fit: 400 rows, at least 500 are needed"):
        ae.train(window_split(), ae.AutoencoderConfig(), tmp_path, no_progress)


def test_thinning_keeps_the_order_and_the_whole_time() -> None:
    thin = window_split().thinned(90)
    assert [len(part) for part in (thin.fit, thin.validation, thin.holdout, thin.holdout_at)] == [90, 30, 30, 30]
    assert (np.diff(thin.holdout_at) > 0).all()
    place = [int(np.flatnonzero((WINDOWS[:400] == window).all(axis=(1, 2)))[0]) for window in thin.fit]
    assert [len(part) for part in np.split(place, np.searchsorted(place, [100, 200, 300]))] == pytest.approx(
        [22.5] * 4, abs=0.6
    )


@pytest.mark.parametrize(
    ("int8", "fp32", "quantise", "chosen", "why"),
    [
        (10.0, 30.0, True, "tflite_int8", "passes parity"),
        (11.0, 10.0, True, "tflite_fp32", "INT8 is not faster"),
        (10.0, 10.0, True, "tflite_fp32", "INT8 is not faster"),
        (9.0, 10.0, True, "tflite_int8", "is faster than fp32"),
        (10.0, 30.0, False, "tflite_fp32", "switched off"),
        (None, 30.0, True, "tflite_fp32", "INT8 is not usable: it broke"),
        (10.0, None, True, "tflite_int8", "fp32 is not usable: it broke"),
        (None, None, True, None, "no format"),
    ],
)
def test_what_is_served_and_why(
    int8: float | None, fp32: float | None, quantise: bool, chosen: str | None, why: str
) -> None:
    formats = {
        name: FormatReport(passed=latency is not None, latency_us=latency, failed=None if latency else "it broke")
        for name, latency in (("tflite_int8", int8), ("tflite_fp32", fp32))
    }
    found, reason = choose(formats, quantise)
    assert found == chosen
    assert why in reason


def test_measuring_takes_turns_and_forgives_a_disturbed_round() -> None:
    """Time advances by what each call says; one round of nine is a hundred times slower for everybody."""
    now, order = [0.0], []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds * (100 if len(order) // 4 == 3 else 1)

    calls = {"a": partial(call, "a", 2e-6), "b": partial(call, "b", 3e-6)}
    found = latencies_us(calls, rounds=9, repeats=2, clock=lambda: now[0])
    assert found == pytest.approx({"a": 2.0, "b": 3.0})
    assert "".join(order) == "aabb" * 9
