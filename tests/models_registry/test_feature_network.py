from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features.decision_spec import DECISION_SPEC
from models_registry import feature_network as fn
from models_registry import feature_network_fitting as fitting
from models_registry import keras_setup, network_export
from models_registry.convert import Converted
from models_registry.errors import BundleRejected, InputRejected, NotEnoughData, TrainingUnavailable
from models_registry.exports import sha256_of
from models_registry.feature_network_fitting import NetworkConfig, decisions_of, other_decisions
from models_registry.feature_network_judging import downstream_metrics, head_metrics
from models_registry.feature_network_runtime import (
    CLIP,
    FEATURES,
    HEADS,
    PLAIN,
    FeatureNetwork,
    NetworkParameters,
    head_values,
    normalise,
    plain_features,
)
from models_registry.manifest import Component
from models_registry.principal_components import PrincipalComponents
from models_registry.training_config import TrainingConfig, no_progress, split_of
from models_registry.training_set import Split, TrainingSet
from tests.models_registry import crossed, planted

EMBARGO = TrainingConfig().embargo_ms
CONFIG = NetworkConfig(learning_rate=3e-3, batch=64, epochs=14, hidden=(64, 32), folds=2)
TINY = replace(CONFIG, epochs=3, folds=2, patience=2, hidden=(16,))
PARAMETERS = NetworkParameters(centre=[0.0, 1.0, -2.0], scale=[1.0, 2.0, 0.5], flags=[0, 2])


@dataclass(frozen=True)
class Trained:
    rows: TrainingSet
    split: Split
    folder: Path
    component: Component


def train(rows: TrainingSet, config: NetworkConfig, folder: Path, initial: Path | None = None) -> Trained:
    split = split_of(rows, TrainingConfig())
    component = fn.train(rows, split, config, folder, no_progress, embargo_ms=EMBARGO, initial=initial)
    return Trained(rows, split, folder, component)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(crossed.training_set(), CONFIG, tmp_path_factory.mktemp("network") / "component")


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings end without files for the runtime: their conversion takes most of a small training's time."""

    def crashed(*_: object, **__: object) -> dict[str, Converted]:
        return {name: Converted(name, None, "killed by SIGSEGV") for name in ("tflite_fp32", "tflite_int8")}

    monkeypatch.setattr(network_export, "convert", crashed)
    monkeypatch.setattr(network_export, "save_model", lambda encoder, path: path.write_bytes(b""))


def test_it_finds_what_the_raw_columns_do_not_say(trained: Trained) -> None:
    metrics = trained.component.metrics
    for name in ("outcome_log_loss", "outcome_log_loss_base", "outcome_log_loss_plain", "rising_log_loss"):
        assert metrics[name].skill, name
        improvement = metrics[name].improvement
        assert improvement is not None
        assert improvement > 0.05, name
    assert metrics["size_error"].skill
    assert trained.component.headline == "outcome_log_loss"
    assert metrics["outcome_log_loss"].baseline_name == "the raw decision row, same model"


@pytest.mark.usefixtures("unexported")
@pytest.mark.deep
def test_shuffled_targets_give_no_skill(tmp_path: Path) -> None:
    """Judged as the served file would be: features of rows not seen for the fit, the network's own beyond it."""
    rows = crossed.shuffled(crossed.training_set())
    split = split_of(rows, TrainingConfig())
    component = fn.train(rows, split, replace(CONFIG, epochs=6), tmp_path, no_progress, embargo_ms=EMBARGO)
    assert component.fallback is not None
    import keras

    parameters = msgspec.convert(
        json.loads((tmp_path / fn.FILES.metadata).read_bytes())["parameters"], NetworkParameters
    )
    encoder = keras.models.load_model(tmp_path / fn.FILES.part("encoder"), compile=False)
    features = np.asarray(encoder(normalise(rows.decision, parameters), training=False)).copy()
    features[split.fit] = np.load(tmp_path / fn.OUT_OF_FOLD_FILE)
    found = downstream_metrics(rows, split, features, 0)
    assert not found["outcome_log_loss_base"].skill
    decisions = decisions_of(rows)
    held = np.unique(decisions.of_row[split.holdout])
    heads = head_metrics(features[decisions.first], decisions, held, parameters, 0)
    assert not any(metric.skill for metric in heads.values())


def test_the_served_file_agrees_with_the_network_and_is_small(trained: Trained) -> None:
    component = trained.component
    assert (component.format, component.served) == ("tflite_int8", "feature_network.int8.tflite")
    int8, fp32 = component.formats["tflite_int8"], component.formats["tflite_fp32"]
    assert int8.agreement is not None
    assert int8.agreement >= 0.95
    assert int8.errors["outcome_p99"] <= 0.02
    assert fp32.errors["features_p99"] < 1e-4
    whole = component.formats["tflite_int8_io"]
    assert whole.passed
    assert whole.file == "feature_network.int8_io.tflite"
    assert int8.latency_us
    assert fp32.latency_us


@pytest.mark.deep
def test_the_sizes_of_the_default_make_a_file_of_a_third(tmp_path: Path) -> None:
    """As wide as a decision row: on the few columns of the other tests what comes with a file outweighs it."""
    from models_registry.convert import convert

    _, encoder = fitting.build(len(DECISION_SPEC.names) + 30, NetworkConfig())
    encoder.save(tmp_path / "encoder.keras")
    rows = np.random.default_rng(0).normal(size=(64, len(DECISION_SPEC.names) + 30)).astype(np.float32)
    found = {name: result.path for name, result in convert(tmp_path / "encoder.keras", rows, tmp_path).items()}
    sizes = {name: path.stat().st_size for name, path in found.items() if path is not None}
    assert sizes["tflite_int8"] <= 0.35 * sizes["tflite_fp32"]


def test_what_it_leaves_behind_is_whole(trained: Trained) -> None:
    folder, component = trained.folder, trained.component
    assert not (folder / "checkpoint").exists()
    assert {path.name for path in folder.iterdir()} == {*component.files, fn.OUT_OF_FOLD_FILE}
    assert all(sha256_of(folder / name) == digest for name, digest in component.files.items())
    curves = json.loads((folder / fn.FILES.curves).read_bytes())
    assert len(curves["fit"]) == len(curves["validation"]) >= component.parameters["epochs"]
    with zipfile.ZipFile(folder / fn.FILES.saved_model) as archive:
        assert "saved_model.pb" in archive.namelist()
    assert (component.parameters["updates"], component.parameters["analyses"]) == (1, len(trained.split.fit))


@pytest.mark.usefixtures("unexported")
@pytest.mark.deep
def test_it_goes_on_from_the_champion(trained: Trained, tmp_path: Path) -> None:
    config = replace(CONFIG, continued_epochs=1, folds=2)
    split = split_of(trained.rows, TrainingConfig())
    fn.train(trained.rows, split, config, tmp_path, no_progress, embargo_ms=EMBARGO, initial=trained.folder)
    parameters = json.loads((tmp_path / fn.FILES.metadata).read_bytes())["parameters"]
    assert (parameters["updates"], parameters["analyses"]) == (2, 2 * len(split.fit))
    curves = [json.loads((folder / fn.FILES.curves).read_bytes()) for folder in (trained.folder, tmp_path)]
    assert len(curves[1]["fit"]) == 1
    assert curves[1]["validation"][0] < curves[0]["validation"][0] - 0.1, "it knows what the champion knew"
    other = replace(trained.rows, decision_spec_id="another")
    assert fn._champion(trained.folder, other) is None
    assert fn._champion(tmp_path / "none", trained.rows) is None


def test_results_do_not_depend_on_the_batch(trained: Trained) -> None:
    network = FeatureNetwork(trained.folder, trained.component, trained.rows.decision_names)
    rows = trained.rows.decision[:333]
    whole = network.run(rows)
    parts = np.split(rows, [1, 9, 70, 200])
    assert np.concatenate([network.run(part) for part in parts]).tobytes() == whole.tobytes()
    assert network.run(rows[:0]).shape == (0, FEATURES)
    assert np.abs(whole).max() <= 1
    for head in HEADS:
        values = head_values(whole, network.parameters, head)
        apart = [head_values(part, network.parameters, head) for part in (whole[:5], whole[5:])]
        assert np.concatenate(apart).tobytes() == values.tobytes()


def test_unknown_and_infinite_columns_give_finite_features(trained: Trained) -> None:
    network = FeatureNetwork(trained.folder, trained.component, trained.rows.decision_names)
    rows = np.full((3, len(planted.NAMES)), np.nan, dtype=np.float32)
    rows[1], rows[2] = np.inf, -np.inf
    assert np.isfinite(network.run(rows)).all()


def test_the_runtime_needs_no_tensorflow(trained: Trained) -> None:
    code = f"""
import sys, msgspec, numpy as np
from pathlib import Path
from models_registry.feature_network_runtime import FeatureNetwork
from models_registry.manifest import Component
component = msgspec.json.decode({msgspec.json.encode(trained.component)!r}, type=Component)
network = FeatureNetwork(Path({str(trained.folder)!r}), component, {list(planted.NAMES)!r})
found = network.run(np.zeros((2, 12), np.float32))
assert found.shape == (2, 32)
assert not {{"tensorflow", "keras", "xgboost"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"served": "../x.tflite"}, "not a plain file name"),
        ({"served": "gone.tflite"}, "is missing"),
        ({"served": fn.FILES.curves}, "cannot be loaded"),
        ({"parameters": {"centre": "no"}}, "are not valid"),
        ({"parameters": {"centre": [0.0], "scale": [1.0]}}, "its manifest says"),
    ],
)
def test_a_component_that_does_not_fit_is_rejected(change: dict[str, object], message: str, trained: Trained) -> None:
    component = msgspec.structs.replace(trained.component, **change)
    with pytest.raises(BundleRejected, match=message):
        FeatureNetwork(trained.folder, component, trained.rows.decision_names)


def test_rows_of_other_columns_are_rejected(trained: Trained) -> None:
    with pytest.raises(InputRejected, match="have 3 columns"):
        FeatureNetwork(trained.folder, trained.component, trained.rows.decision_names).run(np.zeros((2, 3), np.float32))


def test_without_a_network_the_indicators_stand_in(trained: Trained) -> None:
    component = fn.plain_component("why")
    assert component.fallback == "why"
    names = DECISION_SPEC.names
    rows = np.random.default_rng(0).normal(0, 30, (5, len(names))).astype(np.float32)
    rows[0] = np.nan
    found = FeatureNetwork(Path(), component, names).run(rows)
    assert found.shape == (5, FEATURES)
    assert set(PLAIN) <= set(names)
    assert not found[0].any()
    at = list(PLAIN).index("5m.rsi_14")
    rows[1, names.index("5m.rsi_14")] = 61.0
    assert plain_features(rows, names)[1, at] == 1.0
    own = fn.training_features(Path(), component, trained.rows, trained.split)
    assert own.shape == (len(trained.rows), FEATURES)


def test_the_fitted_rows_get_features_of_networks_that_have_not_seen_them(trained: Trained) -> None:
    features = fn.training_features(trained.folder, trained.component, trained.rows, trained.split)
    served = FeatureNetwork(trained.folder, trained.component, trained.rows.decision_names).run(trained.rows.decision)
    unseen = np.load(trained.folder / fn.OUT_OF_FOLD_FILE)
    assert np.array_equal(features[trained.split.fit], unseen)
    rest = np.concatenate([trained.split.validation, trained.split.holdout])
    assert np.array_equal(features[rest], served[rest])
    assert not np.array_equal(unseen, served[trained.split.fit])


def test_a_block_is_not_trained_on_what_overlaps_it() -> None:
    rows = crossed.training_set(rows=600)
    decisions = decisions_of(rows)
    for block in np.array_split(np.arange(len(decisions)), 4):
        others = other_decisions(decisions, block, EMBARGO)
        start, end = decisions.decided_at[block].min(), decisions.last_known_at[block].max()
        early = decisions.decided_at[others] < start
        assert (decisions.last_known_at[others][early] + EMBARGO < start).all()
        assert (decisions.decided_at[others][~early] > end + EMBARGO).all()
        assert not np.isin(block, others).any()
        assert len(others) > 300


@pytest.mark.deep
def test_features_do_not_change_with_the_labels_of_their_own_block(tmp_path: Path) -> None:
    rows = crossed.training_set(rows=900)
    first = rows.decided_at < np.median(rows.decided_at) - 12 * planted.HOUR
    turned = replace(
        rows,
        outcome=np.where(first, 3 - rows.outcome, rows.outcome).astype(np.int8),
        return_ahead=np.where(first, -rows.return_ahead, rows.return_ahead).astype(np.float32),
    )
    decision = rows.decision[decisions_of(rows).first]
    parameters = fitting.parameters_of(decision, np.ones(3, np.float32))
    components = PrincipalComponents.fit(normalise(decision, parameters), 12)
    one, other = (
        fitting.out_of_fold(
            each,
            2,
            TINY,
            tmp_path / str(number),
            parameters=parameters,
            components=components,
            epochs=1,
            embargo_ms=EMBARGO,
        )
        for number, each in enumerate((rows, turned))
    )
    assert np.array_equal(one[first], other[first])
    late = rows.decided_at > np.median(rows.decided_at) + 12 * planted.HOUR
    assert not np.array_equal(one[late], other[late])


def test_each_decision_has_the_targets_of_its_candidates() -> None:
    base = planted.training_set(rows=4)
    rows = TrainingSet.of(
        decision=base.decision,
        windows=base.windows,
        direction=[1, -1, 1, -1],
        kind=[1] * 4,
        decided_at=[1000, 1000, 1000, 5000],
        known_at=[2000, 3000, 2500, 6000],
        outcome=[1, 2, 3, 1],
        r=[0.0] * 4,
        weight=[0.5, 0.25, 1.0, 1.0],
        source=[0] * 4,
        quality=[0.5] * 4,
        symbol=[0, 0, 1, 0],
        return_ahead=[2.0, 2.0, np.nan, -1.0],
        path_known_at=[4000, 4000, 0, 9000],
        symbols=("A", "B"),
        decision_spec_id="d",
        decision_names=planted.NAMES,
    )
    found = decisions_of(rows)
    assert found.of_row.tolist() == [0, 0, 1, 2]
    assert found.targets["long"].tolist() == [1, 0, 0]
    assert sorted(found.weights["long"].tolist()) == [0, 0.5, 1.0]
    assert found.weights["short"].tolist() == [0.25, 0, 1.0]
    assert found.targets["short"].tolist() == [0, 0, 1]
    assert found.weights["rising"].tolist() == [1, 0, 1]
    assert found.targets["rising"].tolist() == [1, 0, 0]
    assert found.targets["size"].tolist() == pytest.approx([np.log(3), 0, np.log(2)])
    assert found.until("rising", np.array([0, 1, 2]), 5000).tolist() == [1, 0, 0]
    assert found.until("short", np.array([0, 1, 2]), 3000).tolist() == [0, 0, 0]


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=50, deadline=None)
def test_whatever_comes_in_the_network_gets_bounded_numbers(decision: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        found = normalise(decision, PARAMETERS)
    assert (np.abs(found) <= CLIP).all()
    assert np.array_equal(found[:, 3:], np.isnan(decision[:, [0, 2]]))
    assert not found[:, :3][np.isnan(decision)].any()


def test_columns_that_are_unknown_together_have_one_flag() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    rows[:100, 1] = rows[:100, 2] = np.nan
    rows[:60, 3] = np.nan
    rows[:190, 4] = np.nan
    rows[:, 5] = np.nan
    found = fitting.parameters_of(rows, np.ones(3, np.float32))
    assert found.flags == [1, 3]
    assert (found.centre[5], found.scale[5]) == (0.0, 1.0)


def weights_of(folder: Path, config: NetworkConfig = TINY) -> list[bytes]:
    import keras

    rows = crossed.training_set(rows=900)
    fn.train(rows, split_of(rows, TrainingConfig()), config, folder, no_progress, embargo_ms=EMBARGO)
    network = keras.models.load_model(folder / fn.FILES.keras, compile=False)
    return [values.tobytes() for values in network.get_weights()] + [(folder / fn.OUT_OF_FOLD_FILE).read_bytes()]


def killed(folder: Path) -> None:
    """A training in a process of its own that is killed after its second epoch."""
    code = f"""
import os, signal
from pathlib import Path
from models_registry import feature_network as fn
from tests.models_registry import test_feature_network as here
def progress(stage, fraction):
    if stage.endswith("fitting") and fraction > 1.5 * 0.4 / here.TINY.epochs:
        os.kill(os.getpid(), signal.SIGKILL)
here.no_progress = progress
here.weights_of(Path({str(folder)!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.usefixtures("unexported")
@pytest.mark.deep
def test_the_same_seed_gives_the_same_bits_also_after_sigkill(tmp_path: Path) -> None:
    undisturbed = weights_of(tmp_path / "undisturbed")
    killed(tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoint").exists()
    assert weights_of(tmp_path / "killed") == undisturbed
    assert not (tmp_path / "killed" / "checkpoint").exists()


def test_what_stands_in_the_way_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = crossed.training_set(rows=400)
    split = split_of(rows, TrainingConfig())
    with pytest.raises(NotEnoughData, match="feature_network to fit"):
        fn.train(rows, split, NetworkConfig(), tmp_path, no_progress, embargo_ms=EMBARGO)
    monkeypatch.setattr(keras_setup, "find_spec", lambda name: None)
    with pytest.raises(TrainingUnavailable):
        fn.train(rows, split, NetworkConfig(), tmp_path, no_progress, embargo_ms=EMBARGO)


@pytest.mark.usefixtures("unexported")
@pytest.mark.deep
def test_a_format_that_crashes_is_named(tmp_path: Path) -> None:
    found = train(crossed.training_set(rows=900), replace(TINY, epochs=1), tmp_path).component
    assert found.served is None
    assert found.fallback == "no format is usable: INT8 killed by SIGSEGV; fp32 killed by SIGSEGV"
