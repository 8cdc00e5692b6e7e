"""How `feature_network` is fitted: its targets, the network, and features of rows whose labels it has not seen.

One row of a training is a decision (time and symbol), whether it was a candidate in one direction or both. What is
not known of it, or was known too late for its part in time, has weight 0 in that head's loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.splits import holdout
from models_registry.checkpoints import (
    FOLDER,
    Checkpoint,
    FitPlan,
    Fitted,
    Rows,
    fit,
    network_state,
    restore_network,
    training_key,
)
from models_registry.errors import NotEnoughData
from models_registry.feature_network_runtime import FEATURES, HEADS, NetworkParameters, normalise, size_of
from models_registry.keras_setup import prepare
from models_registry.manifest import FEATURE_NETWORK
from models_registry.network_export import ExportConfig
from models_registry.principal_components import PrincipalComponents
from models_registry.training_set import TrainingSet

Float32 = NDArray[np.float32]
Index = NDArray[np.int64]

FLAGGED = (0.15, 0.85)
"""A column's being unknown is an input when it is unknown in a share of the fitted rows between these."""


@dataclass(frozen=True)
class NetworkConfig(ExportConfig):
    """How the network is built, trained, exported and judged."""

    seed: int = 7
    hidden: tuple[int, ...] = (384, 96)
    """Units of the nonlinear path. Smaller ones are as good, but INT8 gains less: what a call costs besides outweighs
    the products (2.0 times as fast as fp32 with 128 and 64 units, 3.0 times with these)."""
    dropout: float = 0.3
    l2: float = 1e-4
    epochs: int = 30
    """At most: training stops when the validation loss has not improved for `patience` epochs."""
    patience: int = 4
    batch: int = 128
    learning_rate: float = 7e-4
    continued_epochs: int = 8
    """At most, when it continues from the champion; at `continued_rate`."""
    continued_rate: float = 2e-4
    head_weights: tuple[float, ...] = (1.0, 0.5, 1.0, 1.0)
    """Of the losses, in the order of `HEADS`."""
    folds: int = 4
    """Blocks of time whose features come from a network that was fitted to the others."""
    fewest_fit: int = 300
    """Decisions."""
    fewest_validation: int = 50
    features_tolerance: float = 0.25
    """Parity: 99th percentile of a feature's error, in standard deviations of the fitted rows."""
    outcome_tolerance: float = 0.02
    """Parity: 99th percentile of the change of an outcome head's probability."""


@dataclass(frozen=True)
class Decisions:
    """The decisions of a training set, each once, in order of time."""

    first: Index
    """`[n]` a labelled row of each."""
    of_row: Index
    """`[m]` the decision of each labelled row."""
    decided_at: NDArray[np.int64]
    targets: dict[str, Float32]
    """Per head `[n]`, 0 where it is not known."""
    weights: dict[str, Float32]
    """Per head `[n]`, 0 where the target is not known."""
    known_at: dict[str, NDArray[np.int64]]
    """Per head `[n]`, when the target was known; 0 where it is not."""

    def __len__(self) -> int:
        return len(self.first)

    @property
    def last_known_at(self) -> NDArray[np.int64]:
        """`[n]` when everything that is known of it was known."""
        return np.asarray(np.max([self.decided_at, *self.known_at.values()], axis=0))

    def until(self, head: str, index: Index, before_ms: int) -> Float32:
        """The weights of a head for the decisions `index`, without what was known only from `before_ms` on."""
        weights = np.where(self.known_at[head][index] < before_ms, self.weights[head][index], np.float32(0.0))
        return np.asarray(weights, dtype=np.float32)


def decisions_of(rows: TrainingSet) -> Decisions:
    """The targets of each decision among the labelled rows."""
    keys = np.stack([rows.decided_at, rows.symbol.astype(np.int64)], axis=1)
    _, first, of_row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    of_row = of_row.reshape(-1)
    moves = rows.return_ahead[first]
    path = np.isfinite(moves)
    known = np.where(path, rows.path_known_at[first], 0)
    targets = {
        "rising": (moves > 0).astype(np.float32),
        "size": np.where(path, size_of(np.where(path, moves, 0)), 0).astype(np.float32),
    }
    weights = {name: path.astype(np.float32) for name in targets}
    known_at = dict.fromkeys(targets, known)
    for name, side in (("long", 1), ("short", -1)):
        mine = np.flatnonzero(rows.direction == side)
        at = of_row[mine]
        targets[name], weights[name] = (np.zeros(len(first), dtype=np.float32) for _ in range(2))
        known_at[name] = np.zeros(len(first), dtype=np.int64)
        targets[name][at], weights[name][at] = rows.won[mine], rows.weight[mine]
        known_at[name][at] = rows.known_at[mine]
    return Decisions(first, of_row, rows.decided_at[first], targets, weights, known_at)


def parameters_of(decision: Float32, targets: Float32) -> NetworkParameters:
    """The normalisation of fitted decision rows `[n, D]`, and of the known sizes among their targets."""
    known = np.where(np.isfinite(decision), decision, np.nan).astype(np.float64)
    empty = np.isnan(known).all(axis=0)
    known[:, empty] = 0.0
    low, centre, high = np.nanquantile(known, [0.16, 0.5, 0.84], axis=0)
    # A column that rarely moves has no middle spread; one with wild values has too large a deviation.
    spread, deviation = (high - low) / 2, np.nanstd(known, axis=0)
    scale = np.maximum(spread, deviation / 3)
    missing = np.isnan(decision)
    share = missing.mean(axis=0)
    patterns: dict[bytes, int] = {}
    for column in np.flatnonzero((share > FLAGGED[0]) & (share < FLAGGED[1])):
        # Columns of one origin are unknown together: the first of them says it for all.
        patterns.setdefault(missing[:, column].tobytes(), int(column))
    return NetworkParameters(
        centre=centre.tolist(),
        scale=np.where(scale > 1e-9, scale, 1.0).tolist(),
        flags=sorted(patterns.values()),
        size_centre=float(targets.mean()) if len(targets) else 0.0,
        size_scale=float(max(targets.std(), 1e-3)) if len(targets) else 1.0,
    )


def build(inputs: int, config: NetworkConfig, components: PrincipalComponents | None = None) -> tuple[Any, Any]:
    """The network `[inputs]` to `HEADS`, and the encoder in it, to `[32]` features in (-1, 1).

    The features are a linear path plus a nonlinear one that starts at zero. The linear path starts at the principal
    components of the inputs: networks that are fitted to other rows, or later, begin as the same features and keep
    enough of them that what was learnt on the features of one can read those of another.
    Every layer has a name, since Keras would count them over the process and the names are in the exported file.
    """
    import keras

    layers = keras.layers
    penalty = keras.regularizers.L2(config.l2)
    source = layers.Input((inputs,), name="decision")
    linear = layers.Dense(FEATURES, kernel_regularizer=penalty, name="linear_features")(source)
    hidden = layers.Dropout(config.dropout / 2, seed=config.seed, name="decision_dropout")(source)
    for index, units in enumerate(config.hidden):
        hidden = layers.Dense(units, activation="relu", kernel_regularizer=penalty, name=f"hidden_{index}")(hidden)
        hidden = layers.Dropout(config.dropout, seed=config.seed + 1 + index, name=f"hidden_{index}_dropout")(hidden)
    bent = layers.Dense(FEATURES, kernel_initializer="zeros", name="bent_features")(hidden)
    features = layers.Activation("tanh", name="features")(layers.Add(name="summed_features")([linear, bent]))
    heads = {}
    for index, name in enumerate(HEADS):
        # Small, but not zero: a feature that starts at zero would never be moved by a head that does.
        start = keras.initializers.RandomNormal(stddev=0.05, seed=config.seed + index)
        activation = None if name == "size" else "sigmoid"
        heads[name] = layers.Dense(1, activation=activation, kernel_initializer=start, name=name)(features)
    network = keras.Model(source, heads, name=FEATURE_NETWORK)
    if components is not None:
        # Half a unit of deviation: tanh is nearly linear there, and 8 bits cover its range.
        axes = np.zeros((inputs, FEATURES))
        kept = components.axes / components.scale / 2
        axes[:, : kept.shape[1]] = kept
        network.get_layer("linear_features").set_weights([axes, -(components.mean @ axes)])
    return network, keras.Model(source, features, name=f"{FEATURE_NETWORK}_encoder")


def compile_network(network: Any, config: NetworkConfig, rate: float) -> None:
    """Losses, their weights and the optimizer."""
    import keras

    losses = {name: "huber" if name == "size" else "binary_crossentropy" for name in HEADS}
    weights = dict(zip(HEADS, config.head_weights, strict=True))
    network.compile(keras.optimizers.Adam(rate), loss=losses, loss_weights=weights)


def keras_rows(
    inputs: Float32, decisions: Decisions, index: Index, before_ms: int, parameters: NetworkParameters
) -> Rows:
    """The decisions `index` as the network is fitted to them: what was known before `before_ms` counts."""
    weights = {name: decisions.until(name, index, before_ms) for name in HEADS}
    targets = {name: decisions.targets[name][index][:, None] for name in HEADS}
    targets["size"] = (targets["size"] - np.float32(parameters.size_centre)) / np.float32(parameters.size_scale)
    for name, found in weights.items():
        total = float(found.sum())
        # Each head's weights average one over the rows, so that rare labels are not drowned by the path.
        weights[name] = found * np.float32(len(index) / total) if total else found
    return Rows(inputs[index], targets, weights)


def fit_network(
    network: Any,
    rows: Rows,
    validation: Rows | None,
    config: NetworkConfig,
    folder: Path,
    *more: str,
    continued: bool = False,
    epochs: int | None = None,
    on_epoch: Callable[[int, Fitted], None] = lambda epoch, fitted: None,
) -> Fitted:
    """Fit the compiled `network`, from the checkpoint in `folder` where there is one.

    `more` is what else decides: the weights that it begins with.
    """
    most = epochs or (config.continued_epochs if continued else config.epochs)
    plan = FitPlan(most, config.patience, config.batch, config.seed)
    parts = {"fit": rows} if validation is None else {"fit": rows, "validation": validation}
    arrays = {f"{name}.inputs": part.inputs for name, part in parts.items()}
    for name, part in parts.items():
        arrays |= {f"{name}.target.{head}": values for head, values in part.targets.items()}
        arrays |= {f"{name}.weight.{head}": values for head, values in part.weights.items()}
    key = training_key(FEATURE_NETWORK, config.training, arrays, str(most), *more)
    return fit(network, rows, validation, plan, Checkpoint(folder, key), on_epoch)


def out_of_fold(
    rows: TrainingSet,
    folds: int,
    config: NetworkConfig,
    folder: Path,
    *,
    parameters: NetworkParameters,
    components: PrincipalComponents,
    epochs: int,
    embargo_ms: int,
    on_fold: Callable[[int], None] = lambda done: None,
) -> Float32:
    """Features `[m, 32]` of each row from a network that has seen neither its label nor one that overlaps it.

    The rows are cut into `folds` blocks of time. The network of a block is fitted, for `epochs`, to what was known
    `embargo_ms` before the block's first decision and to what was decided `embargo_ms` after its last outcome. All
    begin as the same features; the normalisation, which knows no label, is shared. Raises `NotEnoughData`.
    """
    decisions = decisions_of(rows)
    inputs = normalise(rows.decision[decisions.first], parameters)
    found = np.empty((len(decisions), FEATURES), dtype=np.float32)
    prepare(config.seed)
    network, encoder = build(inputs.shape[1], config, components)
    compile_network(network, config, config.learning_rate)
    # One network for all blocks, set back before each: to trace its graph takes longer than to fit it to a fold.
    untrained = network_state("untrained", network, network.optimizer)
    for number, block in enumerate(np.array_split(np.arange(len(decisions)), folds)):
        if not len(block):
            continue
        others = other_decisions(decisions, block, embargo_ms)
        if len(others) < config.fewest_fit // 2:
            raise NotEnoughData(f"{FEATURE_NETWORK} without block {number + 1}", len(others), config.fewest_fit // 2)
        restore_network(untrained, "untrained", network, network.optimizer)
        part = keras_rows(inputs, decisions, others, np.iinfo(np.int64).max, parameters)
        fit_network(network, part, None, config, folder / FOLDER / f"fold-{number}", epochs=epochs)
        found[block] = np.asarray(encoder(inputs[block], training=False))
        on_fold(number + 1)
    return found[decisions.of_row]


def other_decisions(decisions: Decisions, block: Index, embargo_ms: int) -> Index:
    """The decisions whose time, from decision to last outcome, is `embargo_ms` or more from that of `block`."""
    start, end = int(decisions.decided_at[block].min()), int(decisions.last_known_at[block].max())
    before = holdout(decisions.decided_at, decisions.last_known_at, start, embargo_ms).train
    after = np.flatnonzero(decisions.decided_at > end + embargo_ms)
    return np.concatenate([before, after])


def encode_parameters(parameters: NetworkParameters, network: Any, **more: Any) -> NetworkParameters:
    """The parameters with the weights of the heads and `more` of them: the counters, the curves."""
    heads = {}
    for name in HEADS:
        kernel, bias = network.get_layer(name).get_weights()
        heads[name] = [*(float(value) for value in kernel[:, 0]), float(bias[0])]
    return msgspec.structs.replace(parameters, heads=heads, **more)
