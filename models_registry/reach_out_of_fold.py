"""Reaches for the win model to learn from: of networks that have not seen what followed the rows.

The liquidity predictor is fitted to how far price went, and the win model to who got there first. Were the trees grown
on the quantiles of windows that the network was fitted to, they would trust it for what it has by heart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models_registry import liquidity_network
from models_registry.checkpoints import FOLDER, Checkpoint, FitPlan, network_state, restore_network, training_key
from models_registry.errors import NotEnoughData
from models_registry.keras_setup import prepare
from models_registry.liquidity_predictor import LiquidityConfig, LiquidityParameters, normalise, shape_of
from models_registry.manifest import LIQUIDITY
from models_registry.reach_quantiles import ascending, offsets, quantiles_of
from models_registry.reach_rows import ReachRows
from models_registry.training_set import TrainingSet

Float32 = NDArray[np.float32]


def out_of_fold(
    rows: TrainingSet,
    fit: ReachRows,
    config: LiquidityConfig,
    parameters: LiquidityParameters,
    folder: Path,
    *,
    folds: int,
    epochs: int,
    embargo_ms: int,
    on_fold: Callable[[int], None] = lambda done: None,
) -> Float32:
    """Quantiles `[m, 2, Q]` of the labelled `rows`, each from a network that has seen nothing of its time.

    The rows are cut into `folds` blocks of time. The network of a block is fitted, for `epochs`, to the rows of `fit`
    whose reach was known `embargo_ms` before the block's first decision, or which ended `embargo_ms` after its last
    path was known. The normalisation, which knows no reach, and the strength are those of `parameters`. Interrupted, it
    goes on from the checkpoints in `folder`. Raises `NotEnoughData`.
    """
    found = np.empty((len(rows), 2, len(config.quantiles)), dtype=np.float32)
    network = _Network(config, rows.windows.shape[1:])
    for number, block in enumerate(np.array_split(np.arange(len(rows)), folds)):
        if not len(block):
            continue
        part = rows.select(block)
        others = fit.select(_apart(fit, part, embargo_ms)).thinned(config.most_rows)
        if len(others) < config.fewest_rows // 2:
            raise NotEnoughData(f"{LIQUIDITY} without block {number + 1}", len(others), config.fewest_rows // 2)
        at = folder / FOLDER / f"fold-{number}"
        found[block] = network.fitted(others, part.windows, parameters, at, epochs)
        on_fold(number + 1)
    return found


def _apart(fit: ReachRows, block: TrainingSet, embargo_ms: int) -> NDArray[np.bool_]:
    """Which rows have nothing to do with the time of the block."""
    start = int(block.decided_at.min())
    end = int(max(block.known_at.max(), block.path_known_at.max()))
    return np.asarray((fit.known_at < start - embargo_ms) | (fit.at > end + embargo_ms))


class _Network:
    """One network for all blocks, set back before each: to trace its graph takes longer than to fit it to a fold."""

    def __init__(self, config: LiquidityConfig, window: tuple[int, ...]) -> None:
        self._config = config
        prepare(config.seed)
        self._network = liquidity_network.build(shape_of(config, *window))
        nothing = np.zeros((2, len(config.quantiles)))
        shares = np.asarray(config.quantiles)
        self._offset = liquidity_network.compile_for(self._network, nothing, shares, config.learning_rate)
        self._untrained = network_state("untrained", self._network, self._network.optimizer)

    def fitted(
        self, others: ReachRows, windows: Float32, parameters: LiquidityParameters, folder: Path, epochs: int
    ) -> Float32:
        """The quantiles of `windows` by the network fitted to `others`."""
        config, network = self._config, self._network
        restore_network(self._untrained, "untrained", network, network.optimizer)
        offset = offsets(quantiles_of(others.reach, config.quantiles))
        self._offset.assign(offset)
        both = others.mirrored()
        inputs = np.concatenate([normalise(others.windows, parameters), normalise(both.windows, parameters)])
        reach = np.concatenate([others.reach, both.reach])
        key = training_key(LIQUIDITY, config.training, {"inputs": inputs, "reach": reach}, str(epochs))
        plan = FitPlan(epochs, epochs, config.batch, config.seed)
        liquidity_network.fitted(network, (inputs, reach), None, plan, Checkpoint(folder, key), lambda done: None)
        liquidity_network.weaken(network, parameters.strength)
        raw = [
            np.asarray(network(normalise(windows[start : start + 4096], parameters), training=False))
            for start in range(0, len(windows), 4096)
        ]
        return ascending(np.concatenate(raw), offset)
