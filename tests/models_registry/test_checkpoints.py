from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models_registry.checkpoints import (
    Checkpoint,
    CheckpointRefused,
    FitPlan,
    Fitted,
    Refusal,
    Rows,
    TrainingState,
    fit,
    network_state,
    restore_network,
    training_key,
)

PLAN = FitPlan(epochs=5, patience=3, batch=32, seed=3)
ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1], dtype=np.int64)}


def problem() -> tuple[Rows, Rows]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((240, 4)).astype(np.float32)
    y = (x[:, :1] - 0.5 * x[:, 1:2] + 0.3 * rng.standard_normal((240, 1))).astype(np.float32)
    rows = Rows(x, {"y": y}, {"y": np.ones(240, np.float32)})
    return rows.ordered(np.arange(160)), rows.ordered(np.arange(160, 240))


def network(width: int = 6) -> Any:
    """With dropout: its random state must go on where it was."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(5)
    tf.config.experimental.enable_op_determinism()
    source = keras.layers.Input((4,), name="x")
    hidden = keras.layers.Dense(width, activation="relu", name="hidden")(source)
    hidden = keras.layers.Dropout(0.3, name="drop")(hidden)
    model = keras.Model(source, {"y": keras.layers.Dense(1, name="y")(hidden)}, name="small")
    model.compile(keras.optimizers.Adam(0.01), loss={"y": "mse"})
    return model


def trained(at: Path | Checkpoint | None, **more: Any) -> tuple[Any, Fitted]:
    model = network()
    return model, fit(model, *problem(), PLAN, Checkpoint(at, "k") if isinstance(at, Path) else at, **more)


def bits(model: Any) -> list[bytes]:
    return [values.tobytes() for values in network_state("n", model, model.optimizer).values()]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[bytes], Fitted]:
    model, fitted = trained(None)
    return bits(model), fitted


def killed(folder: Path, when: str) -> None:
    """A training in a process of its own that is killed: after its second epoch, or while it writes the third's."""
    code = f"""
import os, signal, sys
from pathlib import Path
from tests.models_registry import test_checkpoints as here
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def between(done, fitted):
    if done == 2:
        kill() if {when!r} == "between" else setattr(here.os, "fsync", kill)
here.trained(Path({str(folder)!r}), on_epoch=between)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.parametrize("when", [pytest.param("between", marks=pytest.mark.deep), "writing"])
def test_a_training_that_was_killed_goes_on_to_the_same_network(
    when: str, undisturbed: tuple[list[bytes], Fitted], tmp_path: Path
) -> None:
    killed(tmp_path, when)
    checkpoint = Checkpoint(tmp_path, "k")
    model, fitted = trained(checkpoint)
    assert fitted.resumed_from == 2
    assert checkpoint.refused is None
    assert fitted.curves == undisturbed[1].curves
    assert bits(model) == undisturbed[0]


def test_a_finished_fit_is_taken_up_as_it_ended(undisturbed: tuple[list[bytes], Fitted], tmp_path: Path) -> None:
    """Killed while it was exported: nothing is fitted again."""
    trained(tmp_path)
    epochs: list[int] = []
    model, fitted = trained(tmp_path, on_epoch=lambda done, _: epochs.append(done))
    assert epochs == []
    assert fitted.resumed_from == fitted.epochs == undisturbed[1].epochs
    assert bits(model)[:5] == undisturbed[0][:5]
    Checkpoint(tmp_path, "k").discard()
    assert not (tmp_path / "checkpoint").exists()


def test_a_spoilt_checkpoint_is_refused_and_training_starts_anew(
    undisturbed: tuple[list[bytes], Fitted], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path, "k")
    trained(checkpoint)
    path = checkpoint.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    model, fitted = trained(checkpoint)
    assert checkpoint.refused is not None
    assert checkpoint.refused.refusal is Refusal.SPOILT
    assert fitted.resumed_from == 0
    assert bits(model) == undisturbed[0]
    assert [said.getMessage() for said in caplog.records] == [f"the training begins anew: {checkpoint.refused}"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "k")
    fit(network(3), *problem(), PLAN, checkpoint)
    trained(checkpoint)
    assert checkpoint.refused is not None
    assert checkpoint.refused.refusal is Refusal.OTHER_NETWORK


def test_it_stops_when_validation_gets_no_better_and_keeps_the_best() -> None:
    model = network()
    rows, validation = problem()
    contrary = Rows(validation.inputs, {"y": -3 * validation.targets["y"]}, validation.weights)
    fitted = fit(model, rows, contrary, FitPlan(epochs=20, patience=2, batch=32, seed=1))
    assert fitted.epochs == fitted.best_epoch + 3 < 20
    assert fitted.best == min(fitted.curves["validation"])
    loss = model.evaluate(contrary.inputs, contrary.targets, sample_weight=contrary.weights, verbose=0)
    assert loss == pytest.approx(fitted.best, rel=1e-6)


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_cut_file_is_spoilt(length: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "k")
    checkpoint.save(TrainingState(ARRAYS, {}))
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:length])
    with pytest.raises(CheckpointRefused) as refused:
        checkpoint.load()
    assert refused.value.refusal is Refusal.SPOILT


def test_arrays_and_generators_come_back_as_they_were(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "k")
    assert checkpoint.load() is None
    generator = np.random.default_rng(3)
    generator.random(5)
    checkpoint.save(TrainingState(ARRAYS, {"random": generator.bit_generator.state, "step": 7}))
    state = checkpoint.load()
    assert state is not None
    assert all(state.arrays[name].tobytes() == values.tobytes() for name, values in ARRAYS.items())
    other = np.random.default_rng()
    other.bit_generator.state = state.record["random"]
    assert other.random() == generator.random()
    with pytest.raises(CheckpointRefused) as refused:
        Checkpoint(tmp_path, "other").load()
    assert refused.value.refusal is Refusal.OTHER_TRAINING


def test_nothing_is_set_when_one_array_is_missing() -> None:
    model = network()
    before, state = bits(model), network_state("n", model)
    state.pop("n.3")
    with pytest.raises(ValueError, match=r"n\.3 is missing"):
        restore_network({name: values + 1 for name, values in state.items()}, "n", model)
    assert bits(model) == before


def test_the_key_tells_trainings_apart() -> None:
    keys = {
        training_key("a", PLAN, ARRAYS),
        training_key("b", PLAN, ARRAYS),
        training_key("a", FitPlan(5, 3, 32, 4), ARRAYS),
        training_key("a", PLAN, {**ARRAYS, "b": np.array([2], dtype=np.int64)}),
        training_key("a", PLAN, ARRAYS, "from the champion"),
    }
    assert len(keys) == 5
