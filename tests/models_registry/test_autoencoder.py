from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models_registry import structure_autoencoder as ae
from models_registry.assembling import TrainedBundle
from models_registry.component_folder import load_component
from models_registry.convert import Converted
from models_registry.errors import NotEnoughData
from models_registry.exports import choose, latencies_us
from models_registry.manifest import AUTOENCODER, FormatReport
from models_registry.principal_components import PrincipalComponents
from models_registry.training import no_progress, train_structure_autoencoder
from models_registry.training_set import TrainingSet
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

PARAMETERS = ae.AutoencoderParameters(mean=[0.0, 1.0, -1.0, 0.0, 0.5], std=[1.0, 2.0, 2.0, 1.0, 0.5], limit=1.0)
WINDOWS = planted.windows_of(600, np.random.default_rng(1))
TINY = ae.AutoencoderConfig(epochs=1, batch=64, most_windows=400, fewest_windows=100)


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
    latents, reconstruction = ae.build(32, 5, components)(windows, training=False)
    assert np.allclose(
        ae.reconstruction_error(windows, np.asarray(reconstruction)), components.error(windows), atol=1e-4
    )
    assert np.allclose(np.asarray(latents).std(axis=0), 1.0, atol=0.02)


def test_the_served_file_is_judged_beside_the_principal_components(trained: TrainedBundle) -> None:
    component = trained.manifest.components[AUTOENCODER]
    metric = component.metrics["reconstruction_error"]
    assert component.format == "tflite_int8"
    assert component.formats["tflite_int8"].errors["latents_p99"] < 0.25
    assert component.formats["tflite_int8"].bytes < 0.5 * component.formats["tflite_fp32"].bytes
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
    first, second = (ae._fit(parts, components, TINY, no_progress)[0].get_weights() for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    other = ae._fit(parts, components, replace(TINY, seed=8), no_progress)[0].get_weights()
    assert any(a.tobytes() != b.tobytes() for a, b in zip(first, other, strict=True))


def test_no_count_of_the_process_is_in_the_network() -> None:
    """Else a second training in a process would export other bytes."""
    components = PrincipalComponents.fit(ae.normalise(WINDOWS, PARAMETERS), ae.LATENTS)
    first, second = (ae.build(32, 5, components).to_json() for _ in range(2))
    assert first == second


def test_when_no_format_can_be_exported_the_plain_version_stands_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> dict[str, Converted]:
        return {name: Converted(name, None, "killed by SIGSEGV") for name in ("tflite_fp32", "tflite_int8")}

    monkeypatch.setattr(ae, "convert", broken)
    component = ae.train(window_split(), TINY, tmp_path, no_progress)
    assert component.served is None
    assert component.fallback == "no format is usable: INT8 killed by SIGSEGV; fp32 killed by SIGSEGV"
    assert component.formats["tflite_int8"].failed == "killed by SIGSEGV"


def test_without_tensorflow_the_plain_version_stands_in(
    planted_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ae, "find_spec", lambda name: None)
    component = train_structure_autoencoder(planted_set, SMALL, tmp_path)
    assert component.fallback == "structure_autoencoder cannot be trained: tensorflow is not installed"
    assert load_component(tmp_path) == component


def test_too_few_windows_are_counted(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match="structure_autoencoder to fit: 400 rows, at least 500 are needed"):
        ae.train(window_split(), ae.AutoencoderConfig(), tmp_path, no_progress)


def test_thinning_keeps_the_order_and_the_ends() -> None:
    thin = window_split().thinned(90)
    assert [len(part) for part in (thin.fit, thin.validation, thin.holdout, thin.holdout_at)] == [90, 30, 30, 30]
    assert (np.diff(thin.holdout_at) > 0).all()
    assert np.array_equal(thin.fit[-1], WINDOWS[399])


@pytest.mark.parametrize(
    ("int8", "fp32", "quantise", "chosen", "why"),
    [
        (10.0, 30.0, True, "tflite_int8", "passes parity"),
        (11.0, 10.0, True, "tflite_int8", "not slower"),
        (10.0, 10.0, True, "tflite_int8", "not slower"),
        (30.0, 10.0, True, "tflite_fp32", "INT8 is slower"),
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
