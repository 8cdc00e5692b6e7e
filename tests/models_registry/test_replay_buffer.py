"""Replay: what is kept, what is drawn how often, and that a stored buffer goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models_registry.errors import ReplayUnreadable
from models_registry.replay_buffer import SMALLEST_ERROR, Batch, ReplayBuffer

steady = settings(deadline=None, derandomize=True, max_examples=40)


def batch(count: int, first: int = 0, width: int = 3) -> Batch:
    """Transitions whose every part tells their number."""
    number = np.arange(first, first + count)
    return Batch(
        state=np.repeat(number[:, None] / 100, width, axis=1).astype(np.float32),
        action=(number % 5).astype(np.int8),
        reward=number.astype(np.float32),
        next_state=-np.repeat(number[:, None] / 100, width, axis=1).astype(np.float32),
        next_mask=(number[:, None] + np.arange(5)) % 2 == 0,
        discount=np.full(count, 0.9, dtype=np.float32),
    )


def filled(count: int, capacity: int = 50, seed: int = 1, alpha: float = 0.6) -> ReplayBuffer:
    buffer = ReplayBuffer(3, 5, capacity=capacity, alpha=alpha, seed=seed)
    buffer.add(batch(count))
    return buffer


def test_the_oldest_go_first() -> None:
    buffer = ReplayBuffer(3, 5, capacity=10)
    for start in range(0, 25, 5):
        buffer.add(batch(5, start))
    assert (len(buffer), buffer.added) == (10, 25)
    assert set(buffer.draw(1000, 0.5).batch.reward.tolist()) == set(range(15, 25))


def test_what_comes_out_is_what_went_in() -> None:
    drawn = filled(40).draw(64, 1.0)
    number = drawn.batch.reward.astype(int)
    expected = batch(40)
    assert drawn.batch.state.dtype == np.float32
    assert np.abs(drawn.batch.state - expected.state[number]).max() < 1e-3
    assert np.abs(drawn.batch.next_state - expected.next_state[number]).max() < 1e-3
    assert np.array_equal(drawn.batch.action, expected.action[number])
    assert np.array_equal(drawn.batch.next_mask, expected.next_mask[number])


def test_chances_follow_the_errors_and_weights_undo_them() -> None:
    buffer = filled(4, alpha=0.5)
    error = np.array([0.0, 1.0, 4.0, 9.0])
    buffer.update(np.arange(4), error)
    wanted = np.sqrt(error + SMALLEST_ERROR)
    drawn = buffer.draw(200_000, 1.0)
    share = np.bincount(drawn.index, minlength=4) / 200_000
    assert share == pytest.approx(wanted / wanted.sum(), abs=1e-4)
    # Weighted, each counts alike: the mean over draws is that over the transitions.
    total = np.bincount(drawn.index, drawn.weight, minlength=4)
    assert total / total.sum() == pytest.approx(np.full(4, 0.25), rel=0.02)
    assert buffer.draw(100, 0.0).weight.tolist() == [1.0] * 100


def test_new_ones_are_met_before_known_ones() -> None:
    buffer = filled(20)
    buffer.update(np.arange(20), np.full(20, 0.01))
    buffer.update(np.array([3]), np.array([5.0]))
    buffer.add(batch(5, 100))
    priorities = buffer.priorities
    assert (priorities[20:] == priorities.max()).all()
    assert priorities[3] == priorities.max()


def test_without_priorities_it_draws_evenly() -> None:
    buffer = filled(50, alpha=0.0)
    buffer.update(np.arange(50), np.random.default_rng(0).random(50))
    share = np.bincount(buffer.draw(50_000, 0.4).index, minlength=50)
    assert share.min() == share.max() == 1000


@steady
@given(st.integers(1, 120), st.integers(1, 60), st.integers(0, 5), st.lists(st.floats(0, 1e6), max_size=40))
def test_whatever_was_learnt_draws_are_of_what_is_held(count: int, drawn: int, seed: int, errors: list[float]) -> None:
    buffer = filled(count, seed=seed)
    index = np.arange(min(len(errors), len(buffer)))
    buffer.update(index, np.array(errors)[: len(index)])
    found = buffer.draw(drawn, 0.7)
    assert ((found.index >= 0) & (found.index < len(buffer))).all()
    assert ((found.weight > 0) & (found.weight <= 1)).all()
    assert set(found.batch.reward.astype(int)) <= set(range(max(count - 50, 0), count))


def test_a_stored_buffer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    buffer = filled(70)
    buffer.update(buffer.draw(16, 0.5).index, np.random.default_rng(1).random(16))
    buffer.save(tmp_path / "replay.npz")
    other = ReplayBuffer.load(tmp_path / "replay.npz")
    other.save(tmp_path / "again.npz")
    assert (tmp_path / "replay.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    for _ in range(5):
        first, second = buffer.draw(16, 0.5), other.draw(16, 0.5)
        assert first.index.tobytes() == second.index.tobytes()
        assert first.weight.tobytes() == second.weight.tobytes()
        assert first.batch.state.tobytes() == second.batch.state.tobytes()
        for each in (buffer, other):
            each.update(first.index, first.weight * 3)
            each.add(batch(7, 200))
    assert buffer.priorities.tobytes() == other.priorities.tobytes()


def test_the_same_seed_draws_the_same() -> None:
    first, second, third = (filled(40, seed=seed).draw(32, 0.5).index.tolist() for seed in (1, 1, 2))
    assert first == second != third


def test_what_is_no_buffer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    with pytest.raises(ReplayUnreadable, match="No such file"):
        ReplayBuffer.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ReplayUnreadable):
        ReplayBuffer.load(path)
    filled(20).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReplayUnreadable):
        ReplayBuffer.load(path)
    arrays = filled(20).arrays()
    with pytest.raises(ReplayUnreadable, match="priority has 3 rows, not 20"):
        ReplayBuffer.of_arrays(arrays | {"priority": arrays["priority"][:3]})
    with pytest.raises(ValueError, match="empty"):
        ReplayBuffer(3, 5).draw(1, 0.5)
