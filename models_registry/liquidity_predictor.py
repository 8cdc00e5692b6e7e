"""`liquidity_predictor`: a window of normalised bars to how far price will reach below and above within the horizon.

Where that is, buy and sell liquidity will be taken: it is told as quantiles in ATR (`reach_quantiles`). First what the
live runtime needs: normalisation, the volume profile that stands in without the network, and the class that runs
either. Then training, export and measure, which import TensorFlow when they are called.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.reach import Reach
from models_registry import liquidity_network
from models_registry.checkpoints import Checkpoint, FitPlan, training_key
from models_registry.errors import InputRejected, check_split
from models_registry.exports import sha256_of
from models_registry.keras_setup import prepare, require
from models_registry.liquidity_network import NetworkShape
from models_registry.manifest import LIQUIDITY, Component, Metric
from models_registry.network_export import (
    ExportConfig,
    NetworkExport,
    NetworkFiles,
    champion,
    origin,
    representative,
    take_weights,
)
from models_registry.reach_metrics import change_of_chances, reach_metrics
from models_registry.reach_quantiles import (
    PROFILE,
    QUANTILES,
    SIDES,
    PlainReach,
    ascending,
    fit_plain,
    offsets,
    pinball,
)
from models_registry.reach_rows import ReachRows, ReachSplit
from models_registry.sessions import TfliteSession
from models_registry.structure_autoencoder import CHANNELS, Progress

Float32 = NDArray[np.float32]

FILES = NetworkFiles(LIQUIDITY)
CURVES_FILE = FILES.curves
UNROLLED = "unrolled"
"""The part that the formats are made of."""

CLIP = 4.0
"""Normalised inputs are limited to this many standard deviations, and then scaled to ±1."""

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Of what the network has to say against the constant quantiles: the one that does best on the validation rows."""


class LiquidityParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime applies around the network, and what a later training goes on from."""

    plain: PlainReach
    """Its `quantiles` are the network's too."""
    mean: list[float] = []
    """Per channel of a bar, of the fitted windows."""
    std: list[float] = []
    pool: int = 1
    """Bars that make one step."""
    steps: int = 0
    offset: list[list[float]] = []
    """`[2, Q]` what is added to the network's outputs: they begin at the constant quantiles."""
    clip: float = CLIP
    strength: float = 1.0
    """What the outputs were multiplied with after the last training; it is in the file."""
    updates: int = 0
    """Trainings that the network has been through."""
    analyses: int = 0
    """Windows that they were fitted to, altogether."""
    history: dict[str, list[float]] = {}
    """The loss curves of the last training."""


def normalise(windows: Float32, parameters: LiquidityParameters, out: Float32 | None = None) -> Float32:
    """Windows `[k, W, C]` as the network takes them, `[k, steps, pool * C]` within ±1; an unknown number is the mean.

    Steps are runs of `pool` bars, the last ends with the window. In `out` when that is given.
    """
    bars, channels = parameters.steps * parameters.pool, len(parameters.mean)
    shape = (len(windows), parameters.steps, parameters.pool * channels)
    result = np.empty(shape, dtype=np.float32) if out is None else out
    flat = result.reshape(len(windows), bars, channels)
    np.subtract(windows[:, windows.shape[1] - bars :], np.asarray(parameters.mean, dtype=np.float32), out=flat)
    flat *= np.float32(1.0 / parameters.clip) / np.asarray(parameters.std, dtype=np.float32)
    np.nan_to_num(flat, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
    np.clip(flat, -1.0, 1.0, out=flat)
    return result


class LiquidityPredictor:
    """The network of a component, or its plain version when it serves none. Rows do not depend on each other.

    `names` are the columns of the decision rows. One caller at a time: the buffers are reused. Raises `ValueError` (of
    msgspec) for parameters that are not valid.
    """

    def __init__(self, folder: Path, component: Component, names: tuple[str, ...]) -> None:
        self._session: TfliteSession | None = None
        self._profile = [names.index(name) for name in PROFILE] if set(PROFILE) <= set(names) else []
        self.parameters: LiquidityParameters | None = None
        if component.parameters:
            self.parameters = msgspec.convert(component.parameters, LiquidityParameters)
        if component.served is None or self.parameters is None:
            return
        self._session = TfliteSession(folder / component.served)
        self._offset = np.asarray(self.parameters.offset, dtype=np.float64)
        self._buffer = np.empty((256, *self._session.row_shape), dtype=np.float32)

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The shares of the quantiles, ascending."""
        return QUANTILES if self.parameters is None else tuple(self.parameters.plain.quantiles)

    def run(self, windows: Float32, decision: Float32) -> Reach:
        """How far price will reach, for windows `[k, W, C]` and decision rows `[k, D]` of the same rows.

        The plain version reads the decision rows, the network the windows. NaN for a plain version that was fitted to
        nothing. Raises `InputRejected` for windows that the network does not take.
        """
        if len(windows) != len(decision):
            raise InputRejected(f"{len(decision)} decision rows, but {len(windows)} windows")
        if self._session is None or self.parameters is None:
            return self._reach(self._plain(decision))
        bars = self.parameters.steps * self.parameters.pool
        if windows.shape[1] < bars or windows.shape[2] != len(self.parameters.mean):
            raise InputRejected(
                f"windows are {windows.shape[1:]}, the bundle's {LIQUIDITY} takes at least {bars} bars of "
                f"{len(self.parameters.mean)} channels"
            )
        if len(windows) > len(self._buffer):
            self._buffer = np.empty((2 * len(windows), *self._session.row_shape), dtype=np.float32)
        rows = normalise(windows, self.parameters, self._buffer[: len(windows)])
        return self._reach(ascending(self._session.run(rows)[0], self._offset))

    def _plain(self, decision: Float32) -> Float32:
        if self.parameters is None:
            return np.full((len(decision), len(SIDES), len(QUANTILES)), np.nan, dtype=np.float32)
        if not self._profile:
            profile = np.full((len(decision), len(PROFILE)), np.nan, dtype=np.float32)
        else:
            profile = decision[:, self._profile]
        return self.parameters.plain.run(profile)

    def _reach(self, found: Float32) -> Reach:
        return Reach(self.quantiles, np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1]))


def plain_component(reason: str, plain: PlainReach | None = None) -> Component:
    """The component of a model that could not be trained: the volume profile as fitted, or nothing known."""
    parameters = {} if plain is None else msgspec.to_builtins(LiquidityParameters(plain=plain))
    return Component(version="none", served=None, format=None, fallback=reason, parameters=parameters)


@dataclass(frozen=True)
class LiquidityConfig(ExportConfig):
    """How the network is trained and exported."""

    seed: int = 7
    quantiles: tuple[float, ...] = QUANTILES
    units: int = 64
    pool: int = 4
    """Bars that make one step."""
    epochs: int = 12
    """At most: training stops when the validation loss has not improved for `patience` epochs."""
    folds: int = 3
    """Blocks of time whose reaches, for the win model, come from a network that was fitted to the others."""
    continued_epochs: int = 4
    """At most, when it continues from the champion; its rate then is a third."""
    patience: int = 3
    batch: int = 512
    learning_rate: float = 1e-3
    most_rows: int = 30_000
    """Fitted at most, each also mirrored; more are thinned evenly in time. The other parts take a third of it each."""
    fewest_rows: int = 500
    chance_tolerance: float = 0.02
    """A format agrees on a window and a usual distance when the chance of reaching it differs by at most this."""


def build(config: LiquidityConfig, window: int, channels: int) -> object:
    """The network to train, on windows of that many bars and channels."""
    return liquidity_network.build(shape_of(config, window, channels))


def shape_of(config: LiquidityConfig, window: int, channels: int) -> NetworkShape:
    """The network's sizes for windows of that many bars and channels."""
    steps = window // config.pool
    return NetworkShape(steps, config.pool * channels, config.units, len(SIDES) * len(config.quantiles))


def train(
    split: ReachSplit, config: LiquidityConfig, folder: Path, progress: Progress, *, initial: Path | None = None
) -> Component:
    """Train, export and judge the network; its files are written to `folder`.

    `initial` is a folder with a champion's files: training continues from its network if that has the same shape.
    Raises `NotEnoughData`, and `TrainingUnavailable` without TensorFlow; a format that cannot be exported is named in
    the component and raises nothing. Interrupted, it goes on from its checkpoint.
    """
    require(LIQUIDITY)
    check_split(LIQUIDITY, config.fewest_rows, len(split.fit), len(split.validation), len(split.holdout))
    plain = fit_plain(split.fit.reach, split.fit.profile, config.quantiles)
    split = split.thinned(config.most_rows)
    prepare(config.seed)
    shape = shape_of(config, *split.fit.windows.shape[1:])
    network = liquidity_network.build(shape)
    known = _champion(initial, network, config)
    parameters = _parameters(split.fit, plain, config) if known is None else known
    epochs, rate, weights = config.epochs, config.learning_rate, ""
    if initial is not None and known is not None:
        epochs, rate, weights = config.continued_epochs, rate / 3, sha256_of(initial / FILES.keras)
        parameters = msgspec.structs.replace(parameters, plain=plain)
    parts = {name: normalise(part.windows, parameters) for name, part in split.parts.items()}
    both = split.fit.mirrored()
    fitted_to = np.concatenate([parts["fit"], normalise(both.windows, parameters)])
    reach = np.concatenate([split.fit.reach, both.reach])
    arrays = {"inputs": fitted_to, "reach": reach, "validation": parts["validation"], "held": split.validation.reach}
    checkpoint = Checkpoint(folder, training_key(LIQUIDITY, config.training, arrays, weights))
    liquidity_network.compile_for(network, np.asarray(parameters.offset), np.asarray(config.quantiles), rate)
    told = liquidity_network.fitted(
        network,
        (fitted_to, reach),
        (parts["validation"], split.validation.reach),
        FitPlan(epochs, config.patience, config.batch, config.seed),
        checkpoint,
        lambda done: progress(f"{LIQUIDITY}: fitting", 0.7 * done / epochs),
    )
    progress(f"{LIQUIDITY}: converting", 0.7)
    parameters = msgspec.structs.replace(
        parameters,
        strength=_temper(network, parts["validation"], split.validation.reach, parameters),
        updates=parameters.updates + 1,
        analyses=parameters.analyses + len(split.fit),
        history=told.curves,
    )
    export = NetworkExport(LIQUIDITY, folder, config)
    export.keep(network)
    metrics: dict[str, Metric] = {}
    if _formats(export, network, shape, parts, parameters, config) is not None:
        raw = export.served().run(parts["holdout"])[0]
        found = ascending(raw, np.asarray(parameters.offset))
        metrics = reach_metrics(split.holdout, found, parameters.plain, config.seed)
    export.record(parameters, told.curves, CHANNELS, _outputs(config))
    checkpoint.discard()
    progress(LIQUIDITY, 1.0)
    note = origin(initial, known is not None)
    return export.component(parameters, metrics=metrics, headline="pinball_loss", note=note)


def _champion(initial: Path | None, network: Any, config: LiquidityConfig) -> LiquidityParameters | None:
    """The parameters of the champion whose weights `network` has been given; None when it is another or has none."""
    stored = champion(initial, FILES)
    if initial is None or stored is None:
        return None
    parameters = msgspec.convert(stored.parameters, LiquidityParameters)
    same = (parameters.pool, parameters.clip, parameters.plain.quantiles) == (config.pool, CLIP, list(config.quantiles))
    return parameters if same and take_weights(network, initial / FILES.keras) else None


def _outputs(config: LiquidityConfig) -> list[str]:
    return [f"{side}_{share:g}" for side in SIDES for share in config.quantiles]


def _parameters(fit: ReachRows, plain: PlainReach, config: LiquidityConfig) -> LiquidityParameters:
    bars = fit.windows.reshape(-1, fit.windows.shape[2]).astype(np.float64)
    return LiquidityParameters(
        plain=plain,
        mean=np.nanmean(bars, axis=0).tolist(),
        std=np.maximum(np.nanstd(bars, axis=0), 1e-6).tolist(),
        pool=config.pool,
        steps=fit.windows.shape[1] // config.pool,
        offset=offsets(np.asarray(plain.constant)).tolist(),
    )


def _temper(network: Any, rows: Float32, reach: Float32, parameters: LiquidityParameters) -> float:
    """Draw the network back towards the constant quantiles as far as validation says; by how much.

    Few weeks hold few independent moves of the market, and what a network makes of them is rather too much.
    """
    raw, offset = np.asarray(network(rows, training=False)), np.asarray(parameters.offset)
    losses = [pinball(reach, ascending(raw * each, offset), parameters.plain.quantiles).mean() for each in STRENGTHS]
    best = STRENGTHS[int(np.argmin(losses))]
    liquidity_network.weaken(network, best)
    return best


def _formats(
    export: NetworkExport,
    network: Any,
    shape: NetworkShape,
    parts: dict[str, Float32],
    parameters: LiquidityParameters,
    config: LiquidityConfig,
) -> str | None:
    """Every format, measured against Keras on held-out windows: what is decided by is how likely distances are."""
    unrolled = export.path(UNROLLED)
    liquidity_network.unrolled(network, shape).save(unrolled)
    rows, offset = parts["holdout"][:2048], np.asarray(parameters.offset)
    expected = ascending(np.asarray(network(rows, training=False)), offset)

    def parity(outputs: list[Float32]) -> tuple[dict[str, float], float]:
        found = ascending(outputs[0], offset)
        change = change_of_chances(found, expected, parameters.plain)
        errors = {"max_error": float(np.abs(found - expected).max()), "chance_p99": float(np.quantile(change, 0.99))}
        return errors, float((change <= config.chance_tolerance).mean())

    served = export.formats(unrolled.name, representative(parts["fit"]), rows, parity)
    unrolled.unlink()
    return served
