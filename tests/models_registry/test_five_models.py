"""The runtime with all five models served."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.actions import HOLD, LONG, SHORT, SKIP
from models_registry import bundle
from models_registry.assembling import TrainedBundle
from models_registry.convert import FP32, INT8
from models_registry.errors import BundleRejected, InputRejected
from models_registry.fitness import NETWORKS
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN, Component, Manifest
from models_registry.runtime import MODELS, NO_ACTION, Prediction, Predictor, in_fp32
from models_registry.training_set import TrainingSet
from tests.models_registry.made_five import in_int8

ROWS = 150
OUTPUTS = ("latents", "reconstruction_error", "unlike", "win_probability", "features", "action", "action_value")


@pytest.fixture(scope="module")
def predictor(five: TrainedBundle) -> Predictor:
    return Predictor.load(five.folder)


def predict(predictor: Predictor, rows: TrainingSet, part: slice) -> Prediction:
    """Every row of the part, as a candidate both ways: enough of them for two threads."""
    count = len(rows.decided_at[part])
    index = np.repeat(np.arange(count), 2)
    direction = np.tile(np.array([1, -1], np.int8), count)
    return predictor.predict(
        rows.decision[part],
        rows.windows[part],
        index,
        direction,
        kind=np.repeat(rows.kind[part], 2),
        quality=np.repeat(rows.quality[part], 2),
    )


def outputs(found: Prediction) -> dict[str, np.ndarray]:
    return {
        **{name: getattr(found, name) for name in OUTPUTS},
        "reach_below": found.reach.below,
        "reach_above": found.reach.above,
    }


def without(manifest: Manifest, *names: str) -> Manifest:
    """The manifest with these models replaced by their plain versions."""
    plain = Component(version="none", served=None, format=None, fallback="left out by the test")
    return msgspec.structs.replace(manifest, components=manifest.components | dict.fromkeys(names, plain))


def test_all_five_are_served_and_nothing_falls_back(predictor: Predictor, planted_set: TrainingSet) -> None:
    assert predictor.fallbacks == {}
    assert set(predictor.formats) == set(MODELS)
    assert {predictor.formats[name] for name in NETWORKS} <= {INT8, FP32}
    assert predictor.formats[WIN] == "onnx"
    found = predict(predictor, planted_set, slice(0, ROWS))
    assert found.features.shape == (ROWS, 32)
    assert (found.reach.below >= 0).all()
    assert (np.diff(found.reach.above, axis=1) >= 0).all()
    assert set(found.action.tolist()) <= {SKIP, LONG, SHORT}
    assert np.isfinite(found.action_value[:, :HOLD]).all()
    assert np.isnan(found.action_value[:, HOLD:]).all()
    assert np.array_equal(found.action, np.nanargmax(found.action_value, axis=1))
    assert found.win_probability.shape == (2 * ROWS,)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=6))
def test_results_are_the_same_bits_however_a_batch_is_split(
    cuts: list[int], predictor: Predictor, planted_set: TrainingSet
) -> None:
    whole = outputs(predict(predictor, planted_set, slice(0, ROWS)))
    parts = [
        outputs(predict(predictor, planted_set, slice(a, b))) for a, b in itertools.pairwise([0, *sorted(cuts), ROWS])
    ]
    for name, expected in whole.items():
        assert np.concatenate([part[name] for part in parts]).tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("missing", MODELS)
def test_a_missing_model_is_replaced_and_named(
    missing: str, predictor: Predictor, five: TrainedBundle, planted_set: TrainingSet
) -> None:
    whole = outputs(predict(predictor, planted_set, slice(0, 40)))
    with Predictor(five.folder, without(five.manifest, missing)) as other:
        found = outputs(predict(other, planted_set, slice(0, 40)))
        assert other.fallbacks == {missing: "left out by the test"}
        assert other.formats[missing] == "its plain version: left out by the test"
        own = {
            AUTOENCODER: {"latents", "reconstruction_error", "unlike", "win_probability", "action", "action_value"},
            FEATURE_NETWORK: {"features", "win_probability"},
            LIQUIDITY: {"reach_below", "reach_above", "win_probability"},
            WIN: {"win_probability"},
            DQN: {"action", "action_value"},
        }[missing]
        for name in set(whole) - own:
            assert found[name].tobytes() == whole[name].tobytes(), name
        if missing == DQN:
            assert (found["action"] == NO_ACTION).all()
            signal = np.array([1, -1, 0], np.int8)
            _, action = other.act(planted_set.decision[:3], found["latents"][:3], signal=signal)
            assert action.tolist() == [LONG, SHORT, SKIP]


def test_the_bundle_verifies_and_every_golden_output_is_checked(five: TrainedBundle, tmp_path: Path) -> None:
    manifest = bundle.verify(five.folder, None)
    with np.load(five.folder / bundle.GOLDEN_FILE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name in ("latents", "features", "reach_below", "reach_above", "win_probability", "action_value"):
        folder = shutil.copytree(five.folder, tmp_path / name)
        data = bundle._npz({**arrays, name: np.where(np.isnan(arrays[name]), np.nan, arrays[name] * 1.5 + 0.5)})
        (folder / bundle.GOLDEN_FILE).write_bytes(data)
        assert manifest.golden is not None
        changed = msgspec.structs.replace(manifest.golden, sha256=bundle.sha256_of(folder / bundle.GOLDEN_FILE))
        bundle.rewrite_manifest(folder, msgspec.structs.replace(manifest, golden=changed))
        with pytest.raises(BundleRejected, match="golden"):
            bundle.verify(folder, None)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_file_that_is_none_is_refused(model: str, content: bytes | None, five: TrainedBundle, tmp_path: Path) -> None:
    folder = shutil.copytree(five.folder, tmp_path / "bundle")
    file = folder / str(five.manifest.components[model].served)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(BundleRejected, match=file.name):
        Predictor(folder, five.manifest)
    with pytest.raises(BundleRejected, match=file.name):
        bundle.verify(folder, None)


def test_the_file_of_another_network_is_no_autoencoder(five: TrainedBundle, tmp_path: Path) -> None:
    folder = shutil.copytree(five.folder, tmp_path / "bundle")
    parts = five.manifest.components
    shutil.copy(folder / str(parts[FEATURE_NETWORK].served), folder / str(parts[AUTOENCODER].served))
    with pytest.raises(BundleRejected, match="16 latents"):
        Predictor(folder, five.manifest)


def test_a_wave_larger_than_the_buffers_is_the_same_bits(predictor: Predictor, planted_set: TrainingSet) -> None:
    few = predictor.see(planted_set.decision[:ROWS], planted_set.windows[:ROWS])
    times = 600 // ROWS + 1
    many = predictor.see(
        np.tile(planted_set.decision[:ROWS], (times, 1)), np.tile(planted_set.windows[:ROWS], (times, 1, 1))
    )
    assert len(many.latents) > 2 * 256
    assert many.latents[-ROWS:].tobytes() == few.latents.tobytes()
    assert many.error[-ROWS:].tobytes() == few.error.tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_parameters_that_are_none_are_refused(model: str, five: TrainedBundle) -> None:
    part = msgspec.structs.replace(five.manifest.components[model], parameters={"centre": "nothing", "plain": 3})
    broken = msgspec.structs.replace(five.manifest, components=five.manifest.components | {model: part})
    with pytest.raises(BundleRejected):
        Predictor(five.folder, broken)


def test_without_quantisation_the_fp32_files_are_served(
    five: TrainedBundle, planted_set: TrainingSet, tmp_path: Path
) -> None:
    folder = shutil.copytree(five.folder, tmp_path / "bundle")
    manifest = in_int8(five.manifest)
    bundle.rewrite_manifest(folder, manifest)
    with Predictor.load(folder) as promoted, Predictor.load(folder, quantised=False) as whole:
        assert {promoted.formats[name] for name in NETWORKS} == {INT8}
        assert {whole.formats[name] for name in NETWORKS} == {
            f"{FP32}, promoted as {INT8}: quantisation is switched off"
        }
        assert whole.manifest == in_fp32(manifest)
        assert whole.manifest.components[WIN] == manifest.components[WIN]
        ours, theirs = (outputs(predict(each, planted_set, slice(0, ROWS))) for each in (whole, promoted))
    # Of the same networks, so near; of other files, so not the same.
    for name in ("latents", "features"):
        assert 0 < np.abs(ours[name] - theirs[name]).mean() < 0.1 * theirs[name].std()


def test_a_format_that_has_not_passed_is_not_served_instead(five: TrainedBundle) -> None:
    promoted = in_int8(five.manifest)
    part = promoted.components[DQN]
    failed = msgspec.structs.replace(part.formats[FP32], passed=False)
    changed = msgspec.structs.replace(part, formats=part.formats | {FP32: failed})
    manifest = msgspec.structs.replace(promoted, components=promoted.components | {DQN: changed})
    assert {name: in_fp32(manifest).components[name].format for name in NETWORKS} == {
        AUTOENCODER: FP32,
        FEATURE_NETWORK: FP32,
        LIQUIDITY: FP32,
        DQN: INT8,
    }


def test_closing_waits_for_who_is_predicting_and_refuses_the_next(
    five: TrainedBundle, planted_set: TrainingSet
) -> None:
    predictor = Predictor.load(five.folder)
    expected = outputs(predict(predictor, planted_set, slice(0, ROWS)))
    begun, refused, wrong = threading.Barrier(5), [], []

    def ask() -> None:
        begun.wait()
        while True:
            try:
                found = outputs(predict(predictor, planted_set, slice(0, ROWS)))
            except InputRejected as error:
                refused.append(str(error))
                return
            wrong.extend(name for name, values in found.items() if values.tobytes() != expected[name].tobytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    predictor.close()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert refused == ["the predictor is closed"] * 4
    with pytest.raises(InputRejected, match="closed"):
        predictor.act(planted_set.decision[:1], np.zeros((1, 16), np.float32))


def test_a_row_that_is_refused_leaves_the_predictor_as_it_was(predictor: Predictor, planted_set: TrainingSet) -> None:
    expected = outputs(predict(predictor, planted_set, slice(0, ROWS)))
    with pytest.raises(InputRejected):
        predictor.see(planted_set.decision[:ROWS, 1:], planted_set.windows[:ROWS])
    with pytest.raises(InputRejected):
        predictor.see(planted_set.decision[:ROWS], planted_set.windows[:ROWS, 1:])
    found = outputs(predict(predictor, planted_set, slice(0, ROWS)))
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_predicting_with_five_models_needs_nothing_that_trains_or_compiles(five: TrainedBundle) -> None:
    script = f"""
        import sys

        HEAVY = {{"tensorflow", "keras", "xgboost", "mlflow", "sklearn", "pandas", "onnx", "scipy", "numba"}}

        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in HEAVY:
                    raise ImportError(f"{{name}} is not for the runtime")

        sys.meta_path.insert(0, Refuse())
        import numpy as np
        from models_registry import bundle, runtime

        bundle.verify({str(five.folder)!r}, None)
        predictor = runtime.Predictor.load({str(five.folder)!r})
        width = len(predictor.manifest.decision_spec.names)
        found = predictor.predict(
            np.zeros((200, width), np.float32), np.zeros((200, 32, 5), np.float32), np.arange(200),
            np.ones(200, np.int8), kind=np.ones(200, np.uint8), quality=np.ones(200, np.float32),
        )
        assert np.isfinite(found.win_probability).all() and not predictor.fallbacks
        assert not HEAVY & {{name.partition(".")[0] for name in sys.modules}}
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
