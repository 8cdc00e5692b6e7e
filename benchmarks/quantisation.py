"""INT8 against fp32 in the same runtime, and fp32 in ONNX Runtime, for each network at the live batch.

The four networks in their default sizes, trained shortly on a made market. First each file must say what Keras says:
fp32 to rounding, INT8 by the decisions that it shares on held-out rows. Then all are timed by turns in one process,
one thread each, so that what else the machine does falls on all of them alike.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.report import Row
from benchmarks.small_bundle import SETTINGS, small_bundle, small_market, training_rows
from models_registry import feature_network_runtime, liquidity_network, liquidity_predictor, structure_autoencoder
from models_registry.component_folder import load_component
from models_registry.convert import FP32, INT8
from models_registry.dqn_learner import LearnerConfig
from models_registry.dqn_policy import DqnParameters
from models_registry.dqn_policy import normalise as normalise_states
from models_registry.exports import LATENCY_ROWS, latencies_us
from models_registry.feature_network_fitting import NetworkConfig
from models_registry.feature_network_runtime import NetworkParameters
from models_registry.liquidity_predictor import LiquidityConfig, LiquidityParameters
from models_registry.manifest import AUTOENCODER, DQN, FEATURE_NETWORK, LIQUIDITY, Component
from models_registry.network_export import NetworkFiles
from models_registry.opportunities import Opportunities
from models_registry.quantised_decisions import MOST_CHANGE
from models_registry.runtime import read_manifest
from models_registry.sessions import TfliteSession
from models_registry.strategy_dqn import DqnConfig
from models_registry.structure_autoencoder import AutoencoderConfig, AutoencoderParameters
from models_registry.training import (
    train_feature_network,
    train_liquidity_predictor,
    train_strategy_dqn,
    train_structure_autoencoder,
)
from models_registry.training_config import TrainingConfig

Rows = np.ndarray

GOALS = {AUTOENCODER: 3.0, FEATURE_NETWORK: 2.5, DQN: 2.5, LIQUIDITY: 1.5}
"""How many times as fast as fp32 INT8 should be."""
LEAST_AGREEMENT = 0.98
ROUNDS = 41


@dataclass(frozen=True)
class Network:
    """A trained network and a live batch as it takes it."""

    name: str
    folder: Path
    component: Component
    keras_file: str
    batch: Rows

    def session(self, name: str) -> TfliteSession:
        """A format, loaded."""
        return TfliteSession(self.folder / str(self.component.formats[name].file))


def run() -> list[Row]:
    """Parity of every file with Keras, then the times."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for network in networks(Path(folder) / "networks") for row in measured(network)]
    return [*rows, _decisions()]


def _decisions() -> Row:
    """What INT8 changes in the decisions of a whole bundle."""
    found = read_manifest(small_bundle().folder).quantised
    assert found is not None, "the bundle serves no INT8"
    return Row(
        "change of win probability, INT8 to fp32, 99th percentile",
        found.win_probability_p99,
        "",
        MOST_CHANGE,
        "the most that it may be",
        f"largest {found.win_probability_max:.3g}; {found.actions_agreement:.1%} of actions agree; {found.rows} rows",
        at_most=MOST_CHANGE,
    )


def networks(folder: Path, seed: int = 3) -> list[Network]:
    """All four, trained into `folder`; about two minutes on one core."""
    market = small_market(seed)
    rows, history = training_rows(market, folder), market.rows
    found = Opportunities.of(history, market.bars, market.funding, SETTINGS.plan(), SETTINGS.costs(), most=4000)
    config = TrainingConfig(
        seed=seed,
        autoencoder=AutoencoderConfig(epochs=3, most_windows=6_000),
        feature_network=NetworkConfig(epochs=2, folds=2),
        liquidity=LiquidityConfig(epochs=2, folds=2, most_rows=2000),
        dqn=DqnConfig(learner=LearnerConfig(passes=2)),
        plan=vars(SETTINGS.plan()),
        costs=vars(SETTINGS.costs()),
    )
    train_structure_autoencoder(rows, config, folder / AUTOENCODER)
    train_feature_network(rows, config, folder / FEATURE_NETWORK)
    train_liquidity_predictor(rows, config, folder / LIQUIDITY)
    train_strategy_dqn(rows, found, {AUTOENCODER: folder / AUTOENCODER}, config, folder / DQN)
    live = np.flatnonzero(history.ready)[-LATENCY_ROWS:]
    windows, decision = history.windows(live), history.decision[live]
    latents = np.zeros((len(found.decision), structure_autoencoder.LATENTS), dtype=np.float32)
    states = found.experience(latents).states()[-LATENCY_ROWS:]
    batches: dict[str, Callable[[Component], Rows]] = {
        AUTOENCODER: lambda part: structure_autoencoder.normalise(windows, _of(part, AutoencoderParameters)),
        FEATURE_NETWORK: lambda part: feature_network_runtime.normalise(decision, _of(part, NetworkParameters)),
        LIQUIDITY: lambda part: liquidity_predictor.normalise(windows, _of(part, LiquidityParameters)),
        DQN: lambda part: normalise_states(states, _of(part, DqnParameters)),
    }
    made = []
    for name, batch in batches.items():
        component, files = load_component(folder / name), NetworkFiles(name)
        keras_file = files.part("encoder") if name == FEATURE_NETWORK else files.keras
        made.append(Network(name, folder / name, component, keras_file, batch(component)))
    return made


def _of(component: Component, kind: Any) -> Any:
    return msgspec.convert(component.parameters, kind)


def measured(network: Network) -> list[Row]:
    """The network's lines: its INT8 file against its fp32 file, and against ONNX Runtime."""
    import keras

    from benchmarks.keras_to_onnx import to_onnx

    model = keras.models.load_model(network.folder / network.keras_file, compile=False)
    graph = _without_loop(model) if network.name == LIQUIDITY else model
    int8, fp32 = network.component.formats[INT8], network.component.formats[FP32]
    assert int8.passed, f"{network.name}: {int8.failed}"
    assert int8.agreement is not None
    assert int8.agreement >= LEAST_AGREEMENT
    calls: dict[str, Callable[[], list[Rows]]] = {
        name: partial(network.session(name).run, network.batch) for name in (FP32, INT8)
    }
    calls["onnx"] = partial(_onnx_session(to_onnx(graph)).run, None, {"source": network.batch})
    expected = _fewest_dimensions_first(model(network.batch))
    for name in (FP32, "onnx"):
        for mine, keras_s in zip(_fewest_dimensions_first(calls[name]()), expected, strict=True):
            assert np.allclose(mine, keras_s, atol=1e-4 * max(1.0, np.abs(keras_s).max())), f"{network.name}, {name}"
    took = latencies_us(calls, rounds=ROUNDS)
    assert int8.bytes
    assert fp32.bytes
    note = f"{int8.bytes / fp32.bytes:.0%} of the size, {int8.agreement:.1%} agree"
    if network.name == LIQUIDITY:
        note += f", unrolled {int8.bytes / 1000:.0f} kB"
    what = f"{network.name} INT8, {len(network.batch)} rows"
    return [
        Row(
            what,
            took[INT8],
            "µs",
            took[FP32],
            "fp32, same runtime and graph",
            note,
            least_ratio=GOALS[network.name],
        ),
        Row(what, took[INT8], "µs", took["onnx"], "fp32 in ONNX Runtime, same graph"),
    ]


def _without_loop(model: Any) -> Any:
    steps, width = model.input_shape[1:]
    units = model.get_layer("recurrence").units
    shape = liquidity_network.NetworkShape(steps, width, units, model.output_shape[1])
    return liquidity_network.unrolled(model, shape)


def _onnx_session(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _fewest_dimensions_first(outputs: Any) -> list[Rows]:
    every = outputs if isinstance(outputs, list | tuple) else [outputs]
    return sorted((np.asarray(output) for output in every), key=np.ndim)
