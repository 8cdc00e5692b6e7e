"""The learner on processes whose best policy is known, and that an interruption changes nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.episodes import CLOSE, END, HOLD, LONG, SHORT, SKIP, Transitions, action_mask
from models_registry.checkpoints import Checkpoint
from models_registry.dqn_learner import (
    LearnerConfig,
    Learnt,
    Problem,
    _compiled,
    build,
    learn,
    temporal_difference,
    values_of,
)
from models_registry.policy_value import masked

QUICK = LearnerConfig(
    seed=1,
    hidden=(16,),
    dropout=0.0,
    passes=12,
    patience=12,
    portion=16,
    batch=32,
    fewest_replayed=64,
    capacity=300,
    learning_rate=1e-2,
    weight_decay=0.0,
    discount=0.99,
    target_rate=0.05,
)

STEPS = [
    # state, action, reward, next, bars: an entry that costs, and what is gained by holding it
    (0, LONG, -0.2, 3, 1),
    (3, HOLD, 1.0, END, 0),
    (3, CLOSE, 0.0, END, 0),
    # nothing to be had in either direction
    (1, LONG, -0.2, 4, 1),
    (0, SHORT, -0.3, 4, 1),
    (1, SHORT, -0.1, END, 0),
    (4, HOLD, -1.0, END, 0),
    (4, CLOSE, 0.0, END, 0),
    # worth it if it came at once, but it comes after thirty bars
    (2, LONG, -0.6, 5, 30),
    (2, SHORT, -0.1, END, 0),
    (5, HOLD, 0.7, END, 0),
    (5, CLOSE, 0.0, END, 0),
]
BEST = [LONG, SKIP, SKIP, HOLD, CLOSE, HOLD]


def made(copies: int = 40) -> Problem:
    """Six states, each a column of its own: three flat ones and three open ones."""
    state, action, reward, following, bars = (np.array(part) for part in zip(*(STEPS * copies), strict=True))
    steps = Transitions(state, action.astype(np.int8), reward.astype(np.float64), following, bars.astype(np.float64))
    masks = action_mask(np.array([0, 0, 0, 1, 1, 1]))
    return Problem(np.eye(6, dtype=np.float32), masks, steps, steps.select(np.arange(len(STEPS))))


@pytest.fixture(scope="module")
def learnt() -> Learnt:
    return learn(made(), QUICK)


def test_the_best_policy_of_a_known_process_is_learnt(learnt: Learnt) -> None:
    problem = made()
    values = values_of(learnt.network, problem.states)
    assert masked(values, problem.masks).tolist() == BEST
    assert values[0, LONG] == pytest.approx(-0.2 + 0.99, abs=0.05)
    assert values[1, LONG] == pytest.approx(-0.2, abs=0.05)
    # 0.6 now for 0.7 after thirty bars: without the discount it would be taken.
    assert values[2, LONG] == pytest.approx(-0.6 + 0.99**30 * 0.7, abs=0.05)
    assert learnt.curves["validation"][-1] < 0.01 < learnt.curves["validation"][0]


def test_skip_is_worth_nothing_and_stays_so(learnt: Learnt) -> None:
    assert (values_of(learnt.network, np.random.default_rng(0).random((50, 6)).astype(np.float32))[:, SKIP] == 0).all()


def test_before_it_has_learnt_it_skips_and_holds() -> None:
    problem = made()
    untrained = learn(problem, replace(QUICK, passes=0))
    assert not values_of(untrained.network, problem.states).any()
    assert untrained.passes == untrained.batches == 0


def test_the_buffer_holds_the_newest(learnt: Learnt) -> None:
    assert len(learnt.replay) == QUICK.capacity
    assert learnt.replay.added == learnt.passes * 40 * len(STEPS)


def test_one_network_chooses_and_the_other_values() -> None:
    import keras

    network, target = build(1, 5, ()), build(1, 5, ())
    network.get_layer("values").set_weights([np.zeros((1, 5)), np.array([9, 1, 3, 2, 5.0])])
    target.get_layer("values").set_weights([np.zeros((1, 5)), np.array([7, 40, 30, 20, 10.0])])
    step = _compiled(network, target, keras.optimizers.SGD(0.0), 0.5)
    one = np.ones((3, 1), dtype=np.float32)
    loss, error = step(
        one,
        np.array([LONG, LONG, LONG], dtype=np.int8),
        np.array([0.5, 0.5, 0.5], dtype=np.float32),
        one,
        np.array([[0, 0, 0, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=bool),
        np.array([0.5, 0.5, 0.5], dtype=np.float32),
        np.array([1.0, 0.5, 0.0], dtype=np.float32),
    )
    # The network likes closing (5) and skipping (9) best, which the target values at 10 and 7; the third ends.
    expected = np.array([0.5 + 0.5 * 10 - 1, 0.5 + 0.5 * 7 - 1, 0.5 - 1])
    assert np.asarray(error) == pytest.approx(expected)
    assert float(loss) == pytest.approx((expected[0] ** 2 + 0.5 * expected[1] ** 2) / 3)
    # And then it goes half the way.
    assert target.get_layer("values").get_weights()[1] == pytest.approx([8, 20.5, 16.5, 11, 7.5])


def test_the_temporal_difference_by_hand() -> None:
    problem = made(1)
    values = np.zeros((6, 5), dtype=np.float32)
    values[3] = [9, 9, 9, 1, 0]  # only hold and close count
    first = problem.fit.select(np.array([0]))
    assert temporal_difference(values, problem.masks, first, 0.99) == pytest.approx((-0.2 + 0.99) ** 2)
    assert np.isnan(temporal_difference(values, problem.masks, first.select(np.array([], dtype=int)), 0.99))


@pytest.mark.deep
def test_the_same_seed_gives_the_same_network(learnt: Learnt) -> None:
    again, other = learn(made(), QUICK), learn(made(), replace(QUICK, seed=2))
    assert [w.tobytes() for w in again.network.get_weights()] == [w.tobytes() for w in learnt.network.get_weights()]
    assert [w.tobytes() for w in other.network.get_weights()] != [w.tobytes() for w in learnt.network.get_weights()]


def test_it_stops_when_it_gets_no_better() -> None:
    found = learn(made(), replace(QUICK, passes=60, patience=2, learning_rate=0.0))
    assert found.passes == 2
    assert found.best_pass == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from dataclasses import replace
from models_registry.checkpoints import Checkpoint
from models_registry.dqn_learner import learn
from tests.models_registry.test_dqn_learner import RESUMED, made

def kill(done, learnt):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

learn(made(), RESUMED, checkpoint=Checkpoint(Path(sys.argv[1]), "key"), on_pass=kill)
"""
RESUMED = replace(QUICK, dropout=0.2, passes=4)


@pytest.mark.deep
def test_after_sigkill_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    whole = learn(made(), RESUMED)
    resumed = learn(made(), RESUMED, checkpoint=Checkpoint(tmp_path, "key"))
    assert resumed.resumed_from == 2
    assert [w.tobytes() for w in resumed.network.get_weights()] == [w.tobytes() for w in whole.network.get_weights()]
    assert resumed.curves["validation"] == whole.curves["validation"]
    assert resumed.curves["fit"][1:] == whole.curves["fit"][1:]
    ours, theirs = resumed.replay.arrays(), whole.replay.arrays()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path) -> None:
    learn(made(), replace(QUICK, passes=1), checkpoint=Checkpoint(tmp_path, "key"))
    checkpoint = Checkpoint(tmp_path, "other")
    assert learn(made(), replace(QUICK, passes=1), checkpoint=checkpoint).resumed_from == 0
    assert "other data" in str(checkpoint.refused)
    checkpoint = Checkpoint(tmp_path, "other")
    assert learn(made(), replace(QUICK, passes=1, hidden=(8,)), checkpoint=checkpoint).resumed_from == 0
    assert "do not fit" in str(checkpoint.refused)


def test_it_continues_from_a_network_and_its_buffer(learnt: Learnt) -> None:
    weights = [each.copy() for each in learnt.network.get_weights()]
    import keras

    network = keras.models.clone_model(learnt.network)
    network.set_weights(weights)
    added = learnt.replay.added
    found = learn(made(), replace(QUICK, passes=1), start=(network, learnt.replay))
    assert found.curves["validation"][0] < 0.01
    assert found.replay.added == added + 40 * len(STEPS)
