"""The network of `liquidity_predictor`: an LSTM over short runs of bars, how it is fitted, and its form for export.

It is trained as Keras' LSTM. TFLite cannot quantise its loop, so for export the same weights stand in a graph without
one (`unrolled`). That graph joins each step's input with the last state and has a layer a gate: of the forms that give
the same numbers it is the quickest, since sums of gates and pieces cut out of one wide layer cost more than they do.
Both take inputs within ±1, the range of the states that they are joined with: INT8 has one scale for the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.checkpoints import Checkpoint, FitPlan, Fitted, Rows, fit
from models_registry.manifest import LIQUIDITY

GATES = ("i", "f", "c", "o")
"""Input, forget, candidate and output, in the order of Keras' weights."""


@dataclass(frozen=True)
class NetworkShape:
    """The sizes of the network."""

    steps: int
    width: int
    """Numbers of a step: the channels of its bars."""
    units: int
    outputs: int


def build(shape: NetworkShape) -> Any:
    """The network to train: `[steps, width]` to `[outputs]`.

    Its last layer begins as zeros: the quantiles that are made of its outputs then are the constant ones, so training
    starts at that baseline and can only leave it upwards.
    """
    import keras

    layers = keras.layers
    source = layers.Input((shape.steps, shape.width), name="bars")
    state = layers.LSTM(shape.units, name="recurrence")(source)
    outputs = layers.Dense(shape.outputs, kernel_initializer="zeros", name="steps_of_quantiles")(state)
    return keras.Model(source, outputs, name=LIQUIDITY)


def weaken(network: Any, strength: float) -> None:
    """Multiply all outputs with `strength`, for good."""
    head = network.get_layer("steps_of_quantiles")
    head.set_weights([strength * part for part in head.get_weights()])


def unrolled(network: Any, shape: NetworkShape) -> Any:
    """The same function without a loop, for export.

    Its names are short, since the file repeats them with every operation.
    """
    import keras

    layers = keras.layers
    keras.utils.clear_session(free_memory=False)
    source = layers.Input((shape.steps, shape.width), name="x")
    first = [layers.Dense(shape.units, name=f"{gate}0") for gate in GATES]
    later = [layers.Dense(shape.units, name=gate) for gate in GATES]
    hidden = memory = None
    for step, bars in enumerate(keras.ops.unstack(source, shape.steps, axis=1)):
        joined = bars if hidden is None else layers.Concatenate(name=f"j{step}")([bars, hidden])
        entered, forgot, candidate, given = (
            layers.Activation("tanh" if gate == "c" else "sigmoid", name=f"{gate}_{step}")(layer(joined))
            for gate, layer in zip(GATES, first if hidden is None else later, strict=True)
        )
        added = layers.Multiply(name=f"a{step}")([entered, candidate])
        if memory is None:
            memory = added
        else:
            kept = layers.Multiply(name=f"k{step}")([forgot, memory])
            memory = layers.Add(name=f"m{step}")([kept, added])
        bounded = layers.Activation("tanh", name=f"b{step}")(memory)
        hidden = layers.Multiply(name=f"h{step}")([given, bounded])
    head = layers.Dense(shape.outputs, name="q")
    whole = keras.Model(source, head(hidden), name="r")
    _copy_weights(network, first, later, head)
    return whole


def _copy_weights(network: Any, first: list[Any], later: list[Any], head: Any) -> None:
    kernel, recurrent, bias = (np.asarray(part) for part in network.get_layer("recurrence").get_weights())
    pieces = zip(*(np.split(part, len(GATES), axis=-1) for part in (kernel, recurrent, bias)), strict=True)
    for at_first, at_later, (of_bars, of_state, of_bias) in zip(first, later, pieces, strict=True):
        at_first.set_weights([of_bars, of_bias])
        if at_later.built:  # it is not where there is one step
            at_later.set_weights([np.concatenate([of_bars, of_state]), of_bias])
    head.set_weights(network.get_layer("steps_of_quantiles").get_weights())


def compile_for(network: Any, offset: NDArray[np.floating], shares: NDArray[np.floating], rate: float) -> Any:
    """Ready to fit: the pinball loss of the quantiles that `reach_quantiles.ascending` makes of the outputs.

    Returns the variable that holds the offset: what is assigned to it counts from then on.
    """
    import keras
    import tensorflow as tf

    start = tf.Variable(offset, trainable=False, dtype=tf.float32)
    share = tf.constant(shares, tf.float32)
    form = (-1, *offset.shape)

    def loss(reach: Any, raw: Any) -> Any:
        error = reach[:, :, None] - tf.cumsum(tf.nn.softplus(tf.reshape(raw, form) + start), axis=2)
        return tf.reduce_mean(tf.maximum(share * error, (share - 1.0) * error), axis=(1, 2))

    network.compile(keras.optimizers.Adam(rate), loss=loss)
    return start


def fitted(
    network: Any,
    rows: tuple[NDArray[np.float32], NDArray[np.float32]],
    validation: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
    plan: FitPlan,
    checkpoint: Checkpoint,
    on_epoch: Callable[[int], None],
) -> Fitted:
    """Fit the compiled network to inputs and reaches, from its checkpoint where there is one.

    Without validation rows it goes through all epochs.
    """
    held = None if validation is None else Rows(*validation)
    return fit(network, Rows(*rows), held, plan, checkpoint, lambda done, _: on_epoch(done))
