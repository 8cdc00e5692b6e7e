"""`strategy_dqn` as a component: what it learns, how it is exported and served, what stands in for it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from features import DECISION_SPEC
from features.episodes import ACTIONS, HOLD, LONG, POSITION_NAMES, SHORT, SKIP, action_mask
from models_registry import keras_setup, network_export, strategy_dqn
from models_registry.convert import Converted, convert
from models_registry.dqn_experience import Experience, state_matrix, state_names
from models_registry.dqn_learner import LearnerConfig, build
from models_registry.dqn_policy import CLIP, DqnParameters, DqnPolicy, normalise, plain_actions, plain_component
from models_registry.errors import InputRejected, NotEnoughData, TrainingUnavailable
from models_registry.manifest import Component, encode
from models_registry.policy_value import greedy, masked
from models_registry.sessions import TfliteSession
from models_registry.strategy_dqn import HEADLINE, DqnConfig, calibrated, fit, spaced, train
from models_registry.training_set import Split
from tests.models_registry.made_episodes import cut, experience, shuffled

SMALL = DqnConfig(
    learner=LearnerConfig(hidden=(96, 48), passes=8, portion=64, batch=128, learning_rate=1e-3, target_rate=0.01),
    fewest_opportunities=100,
)
GIVEN = experience()


def quiet(stage: str, fraction: float) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strategy")


@pytest.fixture(scope="module")
def component(folder: Path) -> Component:
    probability = np.where(GIVEN.episodes.signal[:, None] == [1, -1], 0.5, np.nan)
    return train(GIVEN, cut(GIVEN), SMALL, folder, quiet, probability=probability)


@pytest.fixture(scope="module")
def policy(folder: Path, component: Component) -> DqnPolicy:
    return DqnPolicy(folder, component)


def held_out() -> Experience:
    return GIVEN.select(cut(GIVEN).holdout)


def test_a_planted_edge_is_learnt(component: Component) -> None:
    for name in ("always_skip", "random", "rules", "win_threshold"):
        assert component.metrics[f"r_per_opportunity_vs_{name}"].skill, name
    assert component.headline == HEADLINE
    assert component.metrics[HEADLINE].baseline == 0
    # The win model's threshold takes just the rules' signals here.
    assert component.metrics["r_per_trade_vs_win_threshold"] == msgspec.structs.replace(
        component.metrics["r_per_trade_vs_rules"], baseline_name="win threshold"
    )
    validation = component.parameters["history"]["validation"]
    assert min(validation) < 0.9 * validation[0]


def test_closing_early_is_part_of_it(policy: DqnPolicy) -> None:
    """The column that tells the rest of an open trade is heeded: holding all of them would give less."""
    judged = held_out()
    values, _ = policy.run(judged.states(), judged.masks())
    holding = values.copy()
    holding[:, HOLD] = np.inf
    managed, held = greedy(judged.episodes, values), greedy(judged.episodes, holding)
    assert managed.trades.tolist() == held.trades.tolist()
    assert managed.per_opportunity > held.per_opportunity + 0.05


def test_the_formats_are_measured(component: Component, folder: Path) -> None:
    int8, fp32 = component.formats["tflite_int8"], component.formats["tflite_fp32"]
    assert component.format == "tflite_int8"
    assert int8.agreement is not None
    assert 0.98 <= int8.agreement <= 1
    assert fp32.agreement == 1
    assert fp32.max_error is not None
    assert fp32.max_error < 1e-4
    assert int8.latency_rows == 200
    integers = component.formats["tflite_int8_io"]
    assert integers.passed
    assert integers.latency_us is not None
    for found in (int8, fp32, integers):
        assert found.file is not None
        assert (folder / found.file).stat().st_size == found.bytes
    assert not list((folder).glob("checkpoint*"))


@pytest.mark.deep
def test_the_network_of_live_size_shrinks_to_a_third(tmp_path: Path) -> None:
    """The default layers over a default decision row."""
    rng = np.random.default_rng(0)
    width = len(state_names(DECISION_SPEC.names))
    network = build(width, 5, LearnerConfig().hidden)
    network.get_layer("values").set_weights([rng.standard_normal((LearnerConfig().hidden[-1], 5)), np.zeros(5)])
    network.save(tmp_path / "network.keras")
    rows = rng.standard_normal((64, width)).astype(np.float32)
    size = {name: found.path for name, found in convert(tmp_path / "network.keras", rows, tmp_path).items()}
    int8, fp32 = size["tflite_int8"], size["tflite_fp32"]
    assert int8 is not None
    assert fp32 is not None
    assert int8.stat().st_size <= 0.35 * fp32.stat().st_size


def test_its_files(component: Component, folder: Path) -> None:
    assert set(component.files) == {
        *("strategy_dqn.keras", "strategy_dqn.json", "strategy_dqn.replay.npz", "strategy_dqn.curves.json"),
        *("strategy_dqn.saved_model.zip", "strategy_dqn.int8.tflite", "strategy_dqn.fp32.tflite"),
        "strategy_dqn.int8_io.tflite",
    }
    assert "saved_model.pb" in zipfile.ZipFile(folder / "strategy_dqn.saved_model.zip").namelist()
    curves = json.loads((folder / "strategy_dqn.curves.json").read_text())
    wanted = {"fit", "validation", "mean_long", "mean_short", "mean_hold", "mean_close", "r_per_opportunity", "trades"}
    assert set(curves) == wanted
    assert len({len(curve) for curve in curves.values()}) == 1
    assert curves["fit"][0] is None
    metadata = network_export.champion(folder, strategy_dqn.FILES)
    assert metadata is not None
    assert (metadata.inputs, metadata.outputs) == (GIVEN.names, list(ACTIONS))
    stored = msgspec.convert(metadata.parameters, DqnParameters)
    assert msgspec.to_builtins(stored) == component.parameters
    assert stored.names[-5:] == list(POSITION_NAMES)
    assert (stored.updates, stored.analyses) == (1, len(cut(GIVEN).fit))
    assert encode(component)


def test_what_is_served_agrees_with_keras(folder: Path, policy: DqnPolicy) -> None:
    import keras

    judged = held_out()
    values, actions = policy.run(judged.states(), judged.masks())
    network = keras.models.load_model(folder / "strategy_dqn.keras", compile=False)
    expected = np.asarray(network(normalise(judged.states(), policy.parameters), training=False))
    expected = expected * np.array(policy.parameters.value_scale, dtype=np.float32)
    assert (masked(expected, judged.masks()) == actions).mean() >= 0.98
    assert (values[:, SKIP] == 0).all()
    assert judged.masks()[np.arange(len(actions)), actions].all()


def test_results_do_not_depend_on_the_batch(policy: DqnPolicy) -> None:
    judged = held_out()
    states, masks = judged.states()[-500:], judged.masks()[-500:]
    whole = policy.run(states, masks)
    for size in (1, 7, 64, 200, 333):
        parts = [policy.run(states[at : at + size], masks[at : at + size]) for at in range(0, 500, size)]
        assert np.concatenate([part[0] for part in parts]).tobytes() == whole[0].tobytes()
        assert np.concatenate([part[1] for part in parts]).tobytes() == whole[1].tobytes()
    none = policy.run(states[:0], masks[:0])
    assert none[0].shape == (0, 5)


def test_what_does_not_fit_is_refused(policy: DqnPolicy) -> None:
    mask = action_mask(np.zeros(3))
    states = np.zeros((3, len(policy.parameters.names)), dtype=np.float32)
    with pytest.raises(InputRejected, match="have 4 columns"):
        policy.run(states[:, :4], mask)
    with pytest.raises(InputRejected, match="without an action"):
        policy.run(states, mask & False)
    with pytest.raises(InputRejected, match="mask"):
        policy.run(states, mask[:2])


def test_the_runtime_needs_no_tensorflow(folder: Path, component: Component) -> None:
    (folder / "component.json").write_bytes(encode(component))
    script = f"""
import sys
from pathlib import Path
import msgspec, numpy as np
from features.episodes import action_mask
from models_registry.dqn_policy import DqnPolicy
from models_registry.manifest import Component
folder = Path({str(folder)!r})
policy = DqnPolicy(folder, msgspec.json.decode((folder / "component.json").read_bytes(), type=Component))
policy.run(np.full((3, len(policy.parameters.names)), np.nan, np.float32), action_mask(np.array([0, 1, -1])))
assert not {{"tensorflow", "keras"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.deep
def test_it_continues_from_a_champion(folder: Path, component: Component) -> None:
    """With its weights, normalisation, buffer and counters, for fewer passes."""
    more = experience(900, seed=9)
    found = fit(more, cut(more), SMALL, quiet, initial=folder)
    scratch = fit(more, cut(more), SMALL, quiet)
    champion = msgspec.convert(component.parameters, DqnParameters)
    assert found.continued
    assert not scratch.continued
    assert found.parameters.centre == champion.centre
    assert (found.parameters.updates, found.parameters.batches > champion.batches) == (2, True)
    assert found.parameters.analyses == champion.analyses + len(cut(more).fit)
    assert found.learnt.passes <= SMALL.learner.passes * SMALL.continued_passes + 1 < scratch.learnt.passes
    assert found.learnt.replay.added > 10_000
    first, untrained = (each.learnt.curves["validation"][0] for each in (found, scratch))
    assert first < 0.9 * untrained
    other = replace(more, decision_names=(*more.decision_names[:-1], "5m.other"))
    assert not fit(
        other, cut(other), replace(SMALL, learner=replace(SMALL.learner, passes=1)), quiet, initial=folder
    ).continued


@pytest.mark.deep
def test_shuffled_rewards_give_no_skill() -> None:
    given = shuffled(GIVEN)
    split = cut(given)
    found = fit(given, split, SMALL, quiet)
    judged = given.select(split.holdout)
    metrics = strategy_dqn.judge(judged.episodes, greedy(judged.episodes, found.values(judged)), SMALL)
    assert not metrics[HEADLINE].skill


@pytest.mark.deep
def test_the_same_seed_gives_the_same_component(tmp_path: Path) -> None:
    short = replace(SMALL, learner=replace(SMALL.learner, passes=1))
    split = cut(GIVEN)
    first, second = (fit(GIVEN, split, short, quiet) for _ in range(2))
    assert [w.tobytes() for w in first.network.get_weights()] == [w.tobytes() for w in second.network.get_weights()]
    assert first.parameters == second.parameters


def test_the_calibration_finds_what_values_are_worth() -> None:
    episodes = GIVEN.episodes
    values = np.zeros((episodes.states, 5), dtype=np.float32)
    noise = np.random.default_rng(5).standard_normal((len(episodes), 2))
    values[: len(episodes), LONG : SHORT + 1] = (episodes.r + 0.1) / 0.25
    assert calibrated(episodes, values) == pytest.approx((-0.1, 0.25), abs=1e-3)
    values[: len(episodes), LONG : SHORT + 1] = noise
    intercept, slope = calibrated(episodes, values)
    assert slope < 0.05
    assert intercept == pytest.approx(episodes.r.mean(), abs=0.02)
    assert calibrated(episodes.select(np.arange(5)), values[:15]) == (0.0, 1.0)


def test_the_plain_version_follows_the_rules(tmp_path: Path) -> None:
    plain = DqnPolicy(tmp_path, plain_component("for a test"))
    mask = action_mask(np.array([0, 0, 0, 1]))
    mask[1, SHORT] = False
    values, actions = plain.run(np.zeros((4, 3), dtype=np.float32), mask, np.array([1, -1, 0, -1]))
    assert actions.tolist() == [LONG, SKIP, SKIP, HOLD]
    assert np.isnan(values).all()
    with pytest.raises(InputRejected, match="follows the rule signal"):
        plain.run(np.zeros((4, 3), dtype=np.float32), mask)


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(-1, 1)), min_size=1, max_size=20))
def test_the_plain_version_never_leaves_the_mask(rows: list[tuple[int, int]]) -> None:
    signal, direction = (np.array(part) for part in zip(*rows, strict=True))
    mask = action_mask(direction)
    assert mask[np.arange(len(rows)), plain_actions(signal, mask)].all()


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
@settings(max_examples=40, deadline=None)
def test_whatever_comes_in_the_network_gets_bounded_numbers(state: np.ndarray) -> None:
    parameters = DqnParameters(
        names=list("abcd"), centre=[0.0, 1.0, -1.0, 0.5], spread=[1.0, 2.0, 0.5, 1.0], value_scale=[1.0] * 5
    )
    before = state.copy()
    with np.errstate(over="ignore", invalid="ignore"):
        found = normalise(state, parameters)
    assert (np.abs(found) <= CLIP).all()
    assert (found[np.isnan(before)] == 0).all()
    assert state.tobytes() == before.tobytes()


def test_states_are_their_rows_latents_and_positions() -> None:
    states, episodes = GIVEN.states(), GIVEN.episodes
    assert states.shape == (episodes.states, len(GIVEN.names))
    assert np.array_equal(states[0, :10], GIVEN.decision[episodes.row[0]], equal_nan=True)
    assert np.array_equal(states[-1, 10:26], GIVEN.latents[episodes.step_row[-1]])
    assert np.array_equal(states[-1, 26:], episodes.step_position[-1])
    part = GIVEN.select(np.array([5, 9]))
    assert np.array_equal(part.states()[1], states[9], equal_nan=True)
    out = np.empty((1, 8), dtype=np.float32)
    parts = np.ones((1, 2), np.float32), np.full((1, 1), 2, np.float32), np.full((1, 5), 3, np.float32)
    assert state_matrix(*parts, out) is out
    assert out.tolist() == [[1, 1, 2, 3, 3, 3, 3, 3]]
    with pytest.raises(ValueError, match="latents are"):
        Experience(episodes, GIVEN.decision, GIVEN.latents[:1], GIVEN.decision_names)


def test_when_no_format_can_be_exported_the_rules_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> dict[str, Converted]:
        return {name: Converted(name, None, "killed by SIGSEGV") for name in ("tflite_fp32", "tflite_int8")}

    monkeypatch.setattr(network_export, "convert", broken)
    short = replace(SMALL, learner=replace(SMALL.learner, passes=1))
    found = train(GIVEN, cut(GIVEN), short, tmp_path, quiet)
    assert found.fallback == "no format is usable: INT8 killed by SIGSEGV; fp32 killed by SIGSEGV"
    assert found.formats["tflite_int8"].failed == "killed by SIGSEGV"


def test_without_tensorflow_there_is_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_setup, "find_spec", lambda name: None)
    with pytest.raises(TrainingUnavailable, match="tensorflow is not installed"):
        train(GIVEN, cut(GIVEN), SMALL, tmp_path, quiet)


def test_too_few_opportunities_are_counted(tmp_path: Path) -> None:
    split = cut(GIVEN)
    few = Split(split.fit[:80], split.validation, split.holdout, split.validation_start_ms, split.holdout_start_ms)
    with pytest.raises(NotEnoughData, match="strategy_dqn to fit: 80 rows, at least 100"):
        train(GIVEN, few, SMALL, tmp_path, quiet)


def test_thinning_keeps_order_and_the_whole_time() -> None:
    rows = np.arange(100, 200)
    assert spaced(rows, 500) is rows
    thin = spaced(rows, 10)
    assert (thin // 10).tolist() == list(range(10, 20))


def test_one_interpreter_runs_what_is_served(folder: Path, component: Component) -> None:
    assert component.served is not None
    assert TfliteSession(folder / component.served).row_shape == (len(GIVEN.names),)
