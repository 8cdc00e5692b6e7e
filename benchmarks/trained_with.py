"""The models of a bundle asked by keras and xgboost, which trained them: what the runtime stands beside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.small_bundle import AskedWave
from models_registry import dqn_policy, feature_network_runtime, liquidity_predictor, structure_autoencoder
from models_registry.dqn_policy import DqnParameters
from models_registry.dqn_state import state_matrix
from models_registry.feature_network_runtime import NetworkParameters
from models_registry.liquidity_predictor import LiquidityParameters
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, WIN
from models_registry.reach_quantiles import ascending
from models_registry.runtime import Prediction, Predictor
from models_registry.structure_autoencoder import AutoencoderParameters
from models_registry.win_classifier import WinParameters
from models_registry.win_inputs import Candidates, columns, fill_matrix

Float32 = NDArray[np.float32]

KERAS = {
    AUTOENCODER: f"{AUTOENCODER}.keras",
    FEATURE_NETWORK: f"{FEATURE_NETWORK}.encoder.keras",
    LIQUIDITY: f"{LIQUIDITY}.keras",
    DQN: f"{DQN}.keras",
}
TREES = f"{WIN}.ubj"

INT8_SPREAD = 0.1
"""Most mean error of what is served against Keras, in spreads of the output: what INT8 rounds away."""


@dataclass(frozen=True)
class Trained:
    """The four networks and the trees, and what they are given for one wave."""

    networks: dict[str, Any]
    inputs: dict[str, Float32]
    """Normalised, `[rows, ...]`, by network."""
    trees: Any
    matrix: Float32
    """`[candidates, columns]`"""

    def batch(self) -> None:
        """The wave, by `keras.predict` on the batch of each network and xgboost on all candidates."""
        for name, network in self.networks.items():
            network.predict(self.inputs[name], verbose=0)
        self.trees.inplace_predict(self.matrix)

    def row(self, index: int) -> None:
        """One row and its two candidates."""
        for name, network in self.networks.items():
            network.predict(self.inputs[name][index : index + 1], verbose=0)
        self.trees.inplace_predict(self.matrix[2 * index : 2 * index + 2])


def trained(folder: Path, predictor: Predictor, wave: AskedWave) -> Trained:
    """The bundle's own Keras and xgboost files, after checking that the runtime gives what they give."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import xgboost

    assert predictor.fallbacks == {}, predictor.fallbacks
    said = predictor.predict(
        wave.decision, wave.windows, wave.index, wave.direction, kind=wave.kind, quality=wave.quality
    )
    networks = {name: keras.models.load_model(folder / file, compile=False) for name, file in KERAS.items()}
    trees = xgboost.Booster(model_file=folder / TREES)
    trees.set_param({"nthread": 2})
    parameters = {name: part.parameters for name, part in predictor.manifest.components.items()}
    position = np.zeros((len(wave), 5), dtype=np.float32)
    state = state_matrix(wave.decision, said.latents, position)
    inputs = {
        AUTOENCODER: structure_autoencoder.normalise(
            wave.windows, msgspec.convert(parameters[AUTOENCODER], AutoencoderParameters)
        ),
        FEATURE_NETWORK: feature_network_runtime.normalise(
            wave.decision, msgspec.convert(parameters[FEATURE_NETWORK], NetworkParameters)
        ),
        LIQUIDITY: liquidity_predictor.normalise(
            wave.windows, msgspec.convert(parameters[LIQUIDITY], LiquidityParameters)
        ),
        DQN: dqn_policy.normalise(state, msgspec.convert(parameters[DQN], DqnParameters)),
    }
    found = Trained(networks, inputs, trees, _matrix(parameters[WIN], wave, said))
    _parity(found, parameters, said)
    return found


def _matrix(parameters: dict[str, Any], wave: AskedWave, said: Prediction) -> Float32:
    """The win model's inputs, from what the first stage has said."""
    win = msgspec.convert(parameters, WinParameters)
    given = Candidates(
        wave.decision,
        said.latents,
        said.reconstruction_error,
        wave.index,
        wave.direction,
        wave.kind,
        wave.quality,
        said.features,
        said.reach,
    )
    width = len(columns(win.inputs, [f"{i}" for i in range(wave.decision.shape[1])], win.dynamic, win.quantiles))
    matrix = np.empty((len(wave.index), width), dtype=np.float32)
    fill_matrix(matrix, win.inputs, given, {name: np.float32(values) for name, values in win.centre.items()})
    return matrix


def _parity(asked: Trained, parameters: dict[str, dict[str, Any]], said: Prediction) -> None:
    """The served files say what the trained ones say: trees to rounding, networks to INT8's."""
    outputs = {name: network.predict(asked.inputs[name], verbose=0) for name, network in asked.networks.items()}
    both = outputs[AUTOENCODER]
    latents = min(both, key=lambda part: part.ndim) if isinstance(both, list | tuple) else both
    offset = np.asarray(parameters[LIQUIDITY]["offset"])
    values = outputs[DQN] * np.asarray(parameters[DQN]["value_scale"], dtype=np.float32)
    pairs = {
        AUTOENCODER: (said.latents, latents),
        FEATURE_NETWORK: (said.features, outputs[FEATURE_NETWORK]),
        LIQUIDITY: (np.stack([said.reach.below, said.reach.above], axis=1), ascending(outputs[LIQUIDITY], offset)),
        DQN: (said.action_value[:, :3], values[:, :3]),
    }
    for name, (served, expected) in pairs.items():
        error = float(np.abs(served - expected).mean() / max(float(expected.std()), 1e-6))
        assert error < INT8_SPREAD, f"the served {name} differs from Keras by {error:.2g} spreads"
    win = msgspec.convert(parameters[WIN], WinParameters)
    expected = win.calibration.apply(asked.trees.inplace_predict(asked.matrix))
    assert float(np.abs(said.win_probability - expected).max()) < 1e-5, "the served win model differs from xgboost"
