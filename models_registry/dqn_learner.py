"""Double deep Q-learning from recorded transitions: a target network, and replay by surprise.

The value of an action is what is got until the next decision and, discounted by the bars until then, what the best
action there is worth, which the network chooses and the target network values (van Hasselt, Guez and Silver 2016). The
target network follows slowly (Lillicrap and others 2016, section 3): it is an average of the last few hundred batches.
What outcomes alone would teach is mostly noise, and in the average less of it is left, so that is the network which is
judged and served.

One pass streams every transition once, in a seeded order, through the replay buffer; after each portion a batch is
drawn from it. At the end the buffer holds an even sample of the past: what a later training begins with, so that it
does not forget what it is not shown again.

The network starts with all values 0, and 0 is what skip is worth by definition: no transition is of skip, so nothing
ever moves its value. Before it has learnt anything the policy is to skip and to hold, and a training that finds nothing
on the validation transitions leaves it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.episodes import END, Transitions
from models_registry.checkpoints import (
    Arrays,
    Checkpoint,
    CheckpointRefused,
    Refusal,
    TrainingState,
    network_state,
    restore_network,
)
from models_registry.errors import ReplayUnreadable
from models_registry.keras_setup import prepare
from models_registry.manifest import DQN
from models_registry.replay_buffer import CAPACITY, Batch, ReplayBuffer

Float32 = NDArray[np.float32]

CHUNK = 8192
"""States valued in one call."""
REPLAY = "replay."
"""Prefix of the buffer's arrays in a checkpoint."""


@dataclass(frozen=True)
class LearnerConfig:
    """How the network learns."""

    seed: int = 7
    hidden: tuple[int, ...] = (192, 96)
    dropout: float = 0.3
    """Of the inputs and of every hidden layer, while it learns."""
    passes: int = 10
    """At most: it stops when the validation loss has not improved for `patience` passes."""
    patience: int = 3
    batch: int = 256
    portion: int = 128
    """New transitions between two batches."""
    fewest_replayed: int = 2_000
    """Transitions that the buffer holds before the first batch is drawn, if there are so many."""
    capacity: int = CAPACITY
    alpha: float = 0.6
    beta: float = 0.4
    """At first; it grows to 1 by the last pass."""
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    discount: float = 0.999
    """A bar of the deciding timeframe: 0.95 over the four hours that a trade may last."""
    target_rate: float = 3e-3
    """Share of the way to the learning network that the target network goes after every batch."""


@dataclass(frozen=True)
class Problem:
    """What is learnt: `n` states as the network takes them, and transitions between them."""

    states: Float32
    """`[n, S]`, normalised."""
    masks: NDArray[np.bool_]
    """`[n, A]` which actions there are."""
    fit: Transitions
    validation: Transitions

    def batch(self, steps: Transitions, discount: float) -> Batch:
        """Transitions as the buffer takes them."""
        ends = steps.next == END
        following = np.where(ends, 0, steps.next)
        return Batch(
            state=self.states[steps.state],
            action=steps.action,
            reward=steps.reward.astype(np.float32),
            next_state=np.where(ends[:, None], np.float32(0), self.states[following]),
            next_mask=self.masks[following] & ~ends[:, None],
            discount=np.asarray(discount**steps.bars, dtype=np.float32),
        )


@dataclass
class Learnt:
    """What a training came to."""

    network: Any
    """The target network, with the weights of its best pass."""
    replay: ReplayBuffer
    curves: dict[str, list[float]] = field(default_factory=dict)
    """`fit` and `validation` losses and what `watch` says, one number a pass; the first is of the untrained network."""
    batches: int = 0
    best: float = math.inf
    best_pass: int = 0
    resumed_from: int = 0
    """Passes that were taken over from a checkpoint."""

    @property
    def passes(self) -> int:
        """How many were made, those of the checkpoint among them."""
        return max(len(self.curves.get("validation", ())) - 1, 0)


Watch = Callable[[Float32], dict[str, float]]
"""Given the values `[n, A]` of every state after a pass: numbers for the curves."""


def build(width: int, actions: int, hidden: tuple[int, ...], dropout: float = 0.0, seed: int = 0) -> Any:
    """The network: states `[width]` to values `[actions]`, all of them 0 at first.

    Every layer has a name, since Keras would count them over the process and the names are in the exported file.
    """
    import keras

    source = keras.layers.Input((width,), name="state")
    layer = keras.layers.Dropout(dropout, seed=seed, name="some_columns")(source)
    for index, size in enumerate(hidden):
        layer = keras.layers.Dense(size, activation="relu", name=f"hidden_{index}")(layer)
        layer = keras.layers.Dropout(dropout, seed=seed + index + 1, name=f"some_of_{index}")(layer)
    values = keras.layers.Dense(actions, kernel_initializer="zeros", name="values")(layer)
    return keras.Model(source, values, name=DQN)


def values_of(network: Any, states: Float32) -> Float32:
    """The network's values `[n, A]` of states `[n, S]`."""
    parts = [np.asarray(network(states[at : at + CHUNK], training=False)) for at in range(0, len(states), CHUNK)]
    return np.concatenate(parts) if parts else np.empty((0, network.output_shape[1]), dtype=np.float32)


def temporal_difference(values: Float32, masks: NDArray[np.bool_], steps: Transitions, discount: float) -> float:
    """Mean squared difference of each transition's value to what it came to, by the same values; NaN without any."""
    if not len(steps):
        return math.nan
    ends = steps.next == END
    ahead = np.where(masks, values, -np.inf).max(axis=1)[np.where(ends, 0, steps.next)]
    goal = steps.reward + np.where(ends, 0.0, discount**steps.bars * ahead)
    return float(np.square(goal - values[steps.state, steps.action]).mean())


def learn(
    problem: Problem,
    config: LearnerConfig,
    *,
    checkpoint: Checkpoint | None = None,
    start: tuple[Any, ReplayBuffer | None] | None = None,
    watch: Watch = lambda values: {},
    on_pass: Callable[[int, Learnt], None] = lambda done, learnt: None,
) -> Learnt:
    """Learn the values of `problem`, from the checkpoint where there is one.

    `start` is a network (and its replay buffer) to continue from. `on_pass(done, learnt)` is called when the pass is on
    disk. The checkpoint stays: its owner discards it when everything that follows is done.
    """
    prepare(config.seed)
    width, actions = problem.states.shape[1], problem.masks.shape[1]
    network = build(width, actions, config.hidden, config.dropout, config.seed) if start is None else start[0]
    replay = start[1] if start is not None else None
    if replay is None or replay.width != width:
        replay = ReplayBuffer(width, actions, capacity=config.capacity, alpha=config.alpha, seed=config.seed)
    run = _Run(problem, config, network, replay)
    if checkpoint is None or not checkpoint.resume(lambda state: run.restore(state, checkpoint.path)):
        run.note(math.nan, watch)
    while run.goes_on:
        run.note(run.one_pass(), watch)
        if checkpoint is not None:
            checkpoint.save(run.state())
        on_pass(run.learnt.passes, run.learnt)
    restore_network(run.best, "best", run.learnt.network)
    return run.learnt


class _Run:
    """One training under way."""

    def __init__(self, problem: Problem, config: LearnerConfig, network: Any, replay: ReplayBuffer) -> None:
        import keras

        self.problem, self.config = problem, config
        target = keras.models.clone_model(network)
        target.set_weights(network.get_weights())
        self.network = network
        self.optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
        self.optimizer.build(network.trainable_variables)
        self.learnt = Learnt(target, replay)
        self.best = network_state("best", target)
        self.portions = math.ceil(len(problem.fit) / config.portion)
        self._step = _compiled(network, target, self.optimizer, config.target_rate)

    @property
    def goes_on(self) -> bool:
        """Whether there is another pass."""
        passes = self.learnt.passes
        return passes < self.config.passes and passes - self.learnt.best_pass < max(self.config.patience, 1)

    def one_pass(self) -> float:
        """Every transition once through the buffer; the mean loss of the batches drawn meanwhile."""
        config, learnt, fit = self.config, self.learnt, self.problem.fit
        order = np.random.default_rng((config.seed, learnt.passes)).permutation(len(fit))
        enough = min(config.fewest_replayed, len(fit) // 2)
        losses = []
        for number, at in enumerate(range(0, len(fit), config.portion)):
            learnt.replay.add(self.problem.batch(fit.select(order[at : at + config.portion]), config.discount))
            if len(learnt.replay) < enough:
                continue
            done = (learnt.passes + number / self.portions) / config.passes
            drawn = learnt.replay.draw(config.batch, config.beta + (1 - config.beta) * min(done, 1.0))
            loss, error = self._step(*vars(drawn.batch).values(), drawn.weight)
            learnt.replay.update(drawn.index, np.asarray(error))
            losses.append(float(loss))
            learnt.batches += 1
        return float(np.mean(losses)) if losses else math.nan

    def note(self, loss: float, watch: Watch) -> None:
        """Enter a pass in the curves, and keep its weights if it is the best so far."""
        values = values_of(self.learnt.network, self.problem.states)
        found = temporal_difference(values, self.problem.masks, self.problem.validation, self.config.discount)
        for name, number in {"fit": loss, "validation": found, **watch(values)}.items():
            self.learnt.curves.setdefault(name, []).append(number)
        if found < self.learnt.best:
            self.learnt.best, self.learnt.best_pass = found, self.learnt.passes
            self.best = network_state("best", self.learnt.network)

    def state(self) -> TrainingState:
        """Everything that decides the next pass."""
        learnt = self.learnt
        arrays: Arrays = {
            **network_state("network", self.network, self.optimizer),
            **network_state("target", learnt.network),
            **self.best,
            **{f"{REPLAY}{name}": values for name, values in learnt.replay.arrays().items()},
        }
        record = {
            "curves": learnt.curves,
            "batches": learnt.batches,
            "best": learnt.best,
            "best_pass": learnt.best_pass,
        }
        return TrainingState(arrays, record)

    def restore(self, state: TrainingState, path: Path) -> bool:
        """Take up what `state` gave, read from `path`; raises `CheckpointRefused` for another network's."""
        stored = {name.removeprefix(REPLAY): part for name, part in state.arrays.items() if name.startswith(REPLAY)}
        best = {name: part for name, part in state.arrays.items() if name.startswith("best.")}
        try:
            replay = ReplayBuffer.of_arrays(stored, path)
            learnt = replace(self.learnt, replay=replay, **state.record)
            if {name: part.shape for name, part in best.items()} != {
                name: part.shape for name, part in self.best.items()
            }:
                raise ValueError("the best pass' weights are of another network")
            restore_network(state.arrays, "target", learnt.network)
            restore_network(state.arrays, "network", self.network, self.optimizer)
        except (KeyError, TypeError, ValueError, ReplayUnreadable) as error:
            raise CheckpointRefused(path, Refusal.OTHER_NETWORK, str(error)) from error
        self.learnt, self.best = learnt, best
        self.learnt.resumed_from = learnt.passes
        return True


def _compiled(network: Any, target: Any, optimizer: Any, rate: float) -> Callable[..., tuple[Any, Any]]:
    """One batch: the loss, and how far off each transition was."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(
        state: Any, action: Any, reward: Any, next_state: Any, next_mask: Any, discount: Any, weight: Any
    ) -> tuple[Any, Any]:
        # One network chooses and the other values: the errors of one do not pick themselves.
        chosen = tf.argmax(tf.where(next_mask, network(next_state), -np.inf), axis=1)
        ahead = tf.gather(target(next_state), chosen, batch_dims=1)
        goal = reward + tf.where(tf.reduce_any(next_mask, axis=1), discount * ahead, 0.0)
        with tf.GradientTape() as tape:
            found = tf.gather(network(state, training=True), tf.cast(action, tf.int32), batch_dims=1)
            error = goal - found
            loss = tf.reduce_mean(weight * tf.square(error))
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        for slow, quick in zip(target.trainable_variables, network.trainable_variables, strict=True):
            slow.assign_add(rate * (quick - slow))
        return loss, error

    return step  # type: ignore[no-any-return]
