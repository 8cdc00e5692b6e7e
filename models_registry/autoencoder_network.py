"""The network of `structure_autoencoder`: how it is built, cut into encoder and decoder, and fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.checkpoints import Checkpoint, FitPlan, Fitted, Rows, fit
from models_registry.manifest import AUTOENCODER
from models_registry.principal_components import PrincipalComponents

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class AutoencoderShape:
    """The sizes of the network."""

    window: int
    """Bars."""
    channels: int
    hidden: tuple[int, ...]
    """Units of the encoder's nonlinear path; the decoder's are the same, the other way round."""


def build(shape: AutoencoderShape, components: PrincipalComponents) -> Any:
    """The network: `[window, channels]` to `[latents, reconstruction]`.

    Encoder and decoder are each a linear path and a nonlinear one that is added to it. The linear paths start
    as the principal components, whitened so that every latent has about unit variance (one INT8 scale serves
    all), and the nonlinear ones end in zeros: training starts at the baseline and can only leave it upwards.
    Every layer has a name, since Keras would count them over the process and the names are in the exported file.
    """
    import keras

    layers = keras.layers
    size, latent = shape.window * shape.channels, components.axes.shape[1]
    source = layers.Input((shape.window, shape.channels), name="window")
    flat = layers.Flatten(name="flat_window")(source)
    linear = layers.Dense(latent, name="linear_latents")(flat)
    bent = layers.Dense(latent, kernel_initializer="zeros", name="bent_latents")(_hidden(flat, shape.hidden, "encoded"))
    latents = layers.Add(name="latents")([linear, bent])
    linear = layers.Dense(size, name="linear_reconstruction")(latents)
    bent = layers.Dense(size, kernel_initializer="zeros", name="bent_reconstruction")(
        _hidden(latents, shape.hidden[::-1], "decoded")
    )
    reconstruction = layers.Reshape((shape.window, shape.channels), name="reconstruction")(
        layers.Add(name="flat_reconstruction")([linear, bent])
    )
    network = keras.Model(source, [latents, reconstruction], name=AUTOENCODER)
    mean, axes, scale = components.mean, components.axes, components.scale
    network.get_layer("linear_latents").set_weights([axes / scale, -(mean @ axes) / scale])
    network.get_layer("linear_reconstruction").set_weights([(axes * scale).T, mean])
    return network


def _hidden(layer: Any, units: tuple[int, ...], name: str) -> Any:
    import keras

    for index, size in enumerate(units):
        layer = keras.layers.Dense(size, activation="relu", name=f"{name}_{index}")(layer)
    return layer


def halves(network: Any) -> tuple[Any, Any]:
    """Encoder, windows to latents, and decoder, latents to windows; the weights are the network's own."""
    import keras

    latents, reconstruction = network.outputs
    encoder = keras.Model(network.input, latents, name=f"{AUTOENCODER}_encoder")
    return encoder, keras.Model(latents, reconstruction, name=f"{AUTOENCODER}_decoder")


def fitted(
    network: Any,
    rows: Float32,
    validation: Float32,
    rate: float,
    plan: FitPlan,
    checkpoint: Checkpoint | None = None,
    on_epoch: Callable[[int], None] = lambda done: None,
) -> Fitted:
    """Fit the network to give normalised windows back, from its checkpoint where there is one."""
    import keras

    trained = keras.Model(network.input, network.outputs[1])
    trained.compile(keras.optimizers.Adam(rate), loss="mse")
    told = Rows(rows, rows), Rows(validation, validation)
    return fit(trained, *told, plan, checkpoint, lambda done, _: on_epoch(done))
