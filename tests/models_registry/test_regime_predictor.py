"""The regime predictor: skill that is there is found and used, none is invented, and the bundle carries it whole."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.regime_inputs import HORIZON_MS, INPUTS, STATES
from models_registry.assembling import assemble, train_bundle
from models_registry.bundle import verify
from models_registry.component_folder import load_component
from models_registry.errors import BundleRejected, TrainingUnavailable
from models_registry.manifest import AUTOENCODER, REGIME, WIN, Component, component_digest
from models_registry.optional_training import regimes_in_force, train_regime_predictor
from models_registry.regime_predictor import (
    PREDICTED,
    PRESENT,
    UNKNOWN,
    RegimeConfig,
    RegimePredictor,
    RegimeWeights,
    in_force,
    split_regimes,
    transitions,
)
from models_registry.runtime import Predictor
from models_registry.training_config import TrainingConfig
from models_registry.training_set import TrainingSet, concatenate
from tests.models_registry import planted
from tests.models_registry.conftest import SMALL

NAMES = tuple(f"5m.{name}" for name in STATES)
ROWS = 6000
CONFIG = replace(SMALL, regime=RegimeConfig())


@cache
def market(edge: float, seed: int = 5, rows: int = ROWS) -> TrainingSet:
    """Rows whose regime an hour later is the present one more often than not, and by `edge` what the ADX says."""
    base = planted.training_set(rows=400, windows=rows)
    random = np.random.default_rng(seed)
    at = np.sort(planted.START + random.integers(0, 20 * 24 * planted.HOUR, rows)) // 300_000 * 300_000
    states = np.abs(random.normal(1, 0.3, (rows, len(STATES)))).astype(np.float32)
    now = random.integers(0, 3, rows)
    states[:, 0], states[:, 1] = now, random.integers(0, 40, rows)
    states[:, 2] = random.uniform(10, 40, rows)
    likely = np.full((rows, 3), 0.2)
    likely[np.arange(rows), now] += 0.4
    likely[:, 1] *= np.exp(edge * (states[:, 2] - 25) / 15)
    likely /= likely.sum(axis=1, keepdims=True)
    ahead = (random.random(rows)[:, None] > likely.cumsum(axis=1)).sum(axis=1)
    count = len(base)
    decision = np.concatenate([base.decision, states[random.integers(0, rows, count)]], axis=1)
    return replace(
        base,
        decision=decision,
        decision_names=(*planted.NAMES, *NAMES),
        unlabelled_windows=planted.windows_of(rows, random),
        unlabelled_at=at,
        unlabelled_states=states,
        unlabelled_ahead=ahead.astype(np.int8),
    )


@pytest.fixture(scope="module")
def skilled(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingSet, Path, Component]:
    rows, folder = market(1.5), tmp_path_factory.mktemp("regime")
    return rows, folder, train_regime_predictor(rows, CONFIG, folder)


@pytest.fixture(scope="module")
def model(skilled: tuple[TrainingSet, Path, Component]) -> RegimePredictor:
    return RegimePredictor.load(skilled[1] / f"{REGIME}.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of all three, the first two plain: they are not what is tested."""
    rows = market(1.5)
    work = tmp_path_factory.mktemp("whole")
    train_regime_predictor(rows, CONFIG, work / REGIME)
    return assemble(rows, CONFIG, {REGIME: work / REGIME}, work / "bundle").folder


class TestTraining:
    def test_a_relation_beyond_persistence_is_found_and_used(
        self, skilled: tuple[TrainingSet, Path, Component]
    ) -> None:
        _, folder, component = skilled
        assert component.fallback is None
        assert (folder / str(component.served)).is_file()
        loss, hits = component.metrics["log_loss"], component.metrics["hits"]
        assert loss.skill
        assert loss.value is not None
        assert loss.baseline is not None
        assert loss.value < loss.baseline
        assert hits.value is not None
        assert hits.value > 0.6, "0.70 was asked of the probability"

    @pytest.mark.parametrize("seed", [5, 6, 7])
    def test_persistence_alone_is_no_skill(self, seed: int, tmp_path: Path) -> None:
        component = train_regime_predictor(market(0.0, seed), CONFIG, tmp_path)
        assert component.served is None
        assert "no skill: log loss better than persistence by" in str(component.fallback)
        assert "log_loss" in component.metrics, "what was measured is told all the same"

    def test_too_little_history_gives_the_plain_version_with_that_reason(self, tmp_path: Path) -> None:
        component = train_regime_predictor(market(1.5, rows=600), CONFIG, tmp_path)
        assert "not enough data for regime_predictor to fit" in str(component.fallback)
        assert component.provenance is not None

    def test_rows_without_a_regime_give_it_too(self, tmp_path: Path) -> None:
        component = train_regime_predictor(planted.training_set(rows=400), CONFIG, tmp_path)
        assert "0 rows" in str(component.fallback)

    def test_equal_data_gives_an_equal_component(
        self, skilled: tuple[TrainingSet, Path, Component], tmp_path: Path
    ) -> None:
        again = train_regime_predictor(market(1.5), CONFIG, tmp_path)
        assert component_digest(again) == component_digest(skilled[2])

    def test_it_sees_an_earlier_block_only_and_says_so(self, skilled: tuple[TrainingSet, Path, Component]) -> None:
        rows, folder, component = skilled
        record = load_component(folder).provenance
        assert record is not None
        assert record == component.provenance
        start, end = int(rows.unlabelled_at[0]), record.holdout_start_ms
        assert record.last_known_at == record.end_ms + HORIZON_MS
        assert record.last_known_at < start + (end - start) / 2
        assert record.rows == record.splits["fit"] + record.splits["validation"]
        assert record.data_hash == rows.data_hash

    def test_what_is_trained_after_it_meets_no_forecast_of_the_time_that_it_has_seen(
        self, skilled: tuple[TrainingSet, Path, Component]
    ) -> None:
        rows, folder, component = skilled
        assert component.provenance is not None
        seen = rows.decided_at <= component.provenance.last_known_at
        always = replace(CONFIG, regime=replace(CONFIG.regime or RegimeConfig(), threshold=0.0))
        found = regimes_in_force(rows, always, folder)
        assert found is not None
        own = in_force(rows.decision, rows.decision_names, None, 0.0).state
        np.testing.assert_array_equal(found[seen], own[seen])
        assert 0.2 < seen.mean() < 0.8
        assert (found[~seen] != own[~seen]).any()

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.floats(0.2, 1.0), st.floats(0.1, 0.9), st.integers(0, 12))
    def test_no_part_knows_of_a_later_one(self, earlier: float, validation: float, embargo_hours: int) -> None:
        rows = market(0.0, rows=300)
        start = int(rows.unlabelled_at[-50])
        config = RegimeConfig(earlier=earlier, validation=validation)
        split = split_regimes(rows, start, config, embargo_hours * planted.HOUR)
        at = rows.unlabelled_at
        for former, latter in ((split.fit, split.validation), (split.fit, split.holdout)):
            if len(former) and len(latter):
                assert at[former].max() + HORIZON_MS + embargo_hours * planted.HOUR < at[latter].min()
        if len(split.validation):
            assert at[split.validation].max() + HORIZON_MS < start <= at[split.holdout].min()


class TestRuntime:
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(cut=st.integers(0, 90))
    def test_a_batch_can_be_split_anyhow(
        self, cut: int, model: RegimePredictor, skilled: tuple[TrainingSet, Path, Component]
    ) -> None:
        rows = skilled[0]
        states, windows = rows.unlabelled_states[:90], rows.unlabelled_windows[:90]
        all_at_once = model.run(states, windows, NAMES)
        parts = [model.run(states[part], windows[part], NAMES) for part in (slice(0, cut), slice(cut, 90))]
        assert np.concatenate(parts).tobytes() == all_at_once.tobytes()
        assert np.allclose(all_at_once.sum(axis=1), 1.0)

    def test_it_is_the_model_that_the_library_fitted(
        self, model: RegimePredictor, skilled: tuple[TrainingSet, Path, Component]
    ) -> None:
        weights = msgspec.json.decode((skilled[1] / f"{REGIME}.json").read_bytes(), type=RegimeWeights)
        random = np.random.default_rng(0)
        inputs = random.normal(0, 1, (50, len(INPUTS))).astype(np.float32)
        scaled = np.clip((inputs - np.array(weights.mean)) / np.array(weights.std), -8, 8)
        total = scaled @ np.array(weights.weights) + np.array(weights.intercept)
        expected = np.exp(total) / np.exp(total).sum(axis=1, keepdims=True)
        assert np.allclose(model.of_inputs(inputs), expected, atol=1e-12)

    def test_an_unknown_input_gives_no_forecast(
        self, model: RegimePredictor, skilled: tuple[TrainingSet, Path, Component]
    ) -> None:
        states = skilled[0].unlabelled_states[:2].copy()
        states[0, 2] = np.nan
        found = model.run(states, skilled[0].unlabelled_windows[:2], NAMES)
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()

    def test_no_rows_give_none(self, model: RegimePredictor) -> None:
        empty = model.run(np.empty((0, len(NAMES)), np.float32), np.empty((0, 32, 5), np.float32), NAMES)
        assert empty.shape == (0, 3)

    @pytest.mark.parametrize(
        "change",
        [
            {"inputs": ["one"]},
            {"weights": [[0.0, 0.0, 0.0]]},
            {"intercept": [0.0, float("inf"), 0.0]},
            {"std": [0.0] * len(INPUTS)},
        ],
    )
    def test_weights_that_cannot_be_used_are_refused(self, change: dict[str, object]) -> None:
        count = len(INPUTS)
        good = RegimeWeights(
            lookback=10,
            horizon_ms=HORIZON_MS,
            inputs=list(INPUTS),
            mean=[0.0] * count,
            std=[1.0] * count,
            weights=[[0.0] * 3] * count,
            intercept=[0.0] * 3,
        )
        RegimePredictor(good)
        with pytest.raises(ValueError, match=r"inputs|finite|positive"):
            RegimePredictor(msgspec.structs.replace(good, **change))


class TestInForce:
    def rows(self, *regimes: float) -> np.ndarray:
        decision = np.ones((len(regimes), len(NAMES)), dtype=np.float32)
        decision[:, 0] = regimes
        return decision

    def test_the_forecast_from_the_threshold_on_and_the_present_below_it(self) -> None:
        ahead = np.array([[0.7, 0.2, 0.1], [0.69, 0.21, 0.1], [0.1, 0.1, 0.8]])
        found = in_force(self.rows(1, 1, 1), NAMES, ahead, 0.7)
        assert found.state.tolist() == [0, 1, 2]
        assert found.predicted.tolist() == [True, False, True]
        assert found.probability[0] == np.float32(0.7)
        assert [found.source(row) for row in range(3)] == [PREDICTED, PRESENT, PREDICTED]

    def test_without_a_model_the_present(self) -> None:
        found = in_force(self.rows(2, np.nan, 0), NAMES, None, 0.7)
        assert found.state.tolist() == [2, UNKNOWN, 0]
        assert not found.predicted.any()

    def test_where_there_is_no_forecast_the_present(self) -> None:
        found = in_force(self.rows(2), NAMES, np.full((1, 3), np.nan), 0.0)
        assert (found.state.tolist(), found.predicted.tolist()) == ([2], [False])

    def test_rows_without_a_regime_have_none(self) -> None:
        assert in_force(self.rows(1, 2), NAMES[1:], None, 0.7).state.tolist() == [UNKNOWN, UNKNOWN]


class TestBundle:
    def test_it_travels_in_the_bundle(self, whole: Path, skilled: tuple[TrainingSet, Path, Component]) -> None:
        manifest = verify(whole, None)
        with Predictor.load(whole) as predictor:
            rows = skilled[0]
            found = predictor.regimes(rows.decision[:20], rows.windows[:20])
        assert REGIME in manifest.components
        assert REGIME not in manifest.fallbacks
        assert manifest.golden is not None
        with np.load(whole / manifest.golden.file) as golden:
            assert golden["regime_probability"].shape[1] == 3
        assert found is not None
        assert found.shape == (20, 3)
        assert predictor.regime_predictor is not None
        assert predictor.regime_predictor.lookback == 10

    def test_a_changed_weight_is_refused(self, whole: Path, tmp_path: Path) -> None:
        folder = tmp_path / "bundle"
        folder.mkdir()
        for file in whole.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        path = folder / f"{REGIME}.json"
        path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
        with pytest.raises(BundleRejected, match="sha256"):
            verify(folder, None)

    def test_a_bundle_without_it_predicts_none_and_lacks_nothing(self, tmp_path: Path) -> None:
        rows = market(1.5)
        train_regime_predictor(rows, CONFIG, tmp_path / "unused")
        plain = Component(version="none", served=None, format=None, fallback="no skill")
        with Predictor(tmp_path, _manifest(rows, plain)) as predictor:
            assert predictor.regimes(rows.decision[:3], rows.windows[:3]) is None
            assert predictor.fallbacks[REGIME] == "no skill"
        with Predictor(tmp_path, _manifest(rows, None)) as predictor:
            assert REGIME not in predictor.fallbacks

    def test_it_is_trained_when_the_training_asks_for_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unavailable(*_: object, **__: object) -> Component:
            raise TrainingUnavailable("this model", "the library")

        monkeypatch.setattr("models_registry.structure_autoencoder.train", unavailable)
        monkeypatch.setattr("models_registry.win_classifier.train", unavailable)
        for regime, expected in ((None, {AUTOENCODER, WIN}), (RegimeConfig(), {AUTOENCODER, WIN, REGIME})):
            made = train_bundle(market(1.5), replace(CONFIG, regime=regime), tmp_path / f"bundle-{regime is None}")
            assert set(made.manifest.components) == expected


def _manifest(rows: TrainingSet, regime: Component | None):  # type: ignore[no-untyped-def]
    from models_registry.manifest import Manifest, SpecPin, TrainingRecord

    record = TrainingRecord(
        start_ms=0, end_ms=0, last_known_at=0, rows=0, live_labels=0, data_hash="", seed=0, holdout_start_ms=0
    )
    return Manifest(
        bundle_version="1",
        created_ms=0,
        parent=None,
        code_version="test",
        decision_spec=SpecPin(id=rows.decision_spec_id, names=list(rows.decision_names)),
        plan={},
        costs={},
        training=record,
        components={} if regime is None else {REGIME: regime},
        golden=None,
    )


def test_how_often_each_regime_followed_each_never_says_never() -> None:
    found = transitions(np.array([2, 2]), np.array([2, 2]))
    assert found[2].tolist() == pytest.approx([0.2, 0.2, 0.6])
    assert found[0].tolist() == pytest.approx([1 / 3] * 3)


def test_sets_of_before_and_joined_sets_keep_what_is_known_of_regimes() -> None:
    rows = market(1.0, rows=50)
    again = TrainingSet.from_bytes(rows.to_bytes())
    assert again.data_hash == rows.data_hash
    both = concatenate([rows, market(1.0, seed=9, rows=30)])
    assert len(both.unlabelled_states) == len(both.unlabelled_ahead) == 80
    assert (planted.training_set(rows=20).unlabelled_ahead == -1).all()


def test_the_configuration_of_a_training_has_none_by_default() -> None:
    assert TrainingConfig().regime is None
