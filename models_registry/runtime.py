"""The inference runtime of the worker and of replay: a bundle's models behind one call.

It needs `ai-edge-litert` and `onnxruntime`, never TensorFlow or xgboost, and no compiled kernels of features. Each
session has one thread, and those that do not wait for each other run side by side in two: the liquidity predictor
beside the autoencoder and the feature network, then one half of the win model's candidates beside the other. A batch
too small to be worth the hand-over is run in the caller's thread alone.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.actions import ACTIONS, POSITION_NAMES, action_mask
from features.reach import Reach
from models_registry.convert import FP32, INT8
from models_registry.dqn_policy import DqnPolicy
from models_registry.dqn_state import state_matrix
from models_registry.dynamic_features import NONE_IN_BUNDLE, DynamicColumns, unknown
from models_registry.errors import BundleRejected, InputRejected
from models_registry.feature_network_runtime import FeatureNetwork
from models_registry.liquidity_predictor import LiquidityPredictor
from models_registry.manifest import (
    AUTOENCODER,
    DQN,
    DYNAMIC,
    FEATURE_NETWORK,
    LIQUIDITY,
    MANIFEST_FILE,
    REGIME,
    WIN,
    Component,
    Manifest,
    decode,
)
from models_registry.regime_predictor import RegimePredictor
from models_registry.stages import FEWEST_BESIDE, Embedder, Scorer, liquidity_predictor, policy, session
from models_registry.win_inputs import Candidates

Float32 = NDArray[np.float32]
T = TypeVar("T")

NO_ACTION = -1
"""`Prediction.action` where the strategy is replaced by its plain version, which needs the rules' signals."""

MODELS = (AUTOENCODER, FEATURE_NETWORK, LIQUIDITY, WIN, DQN)
"""Every bundle's; one that it lacks is replaced by its plain version."""


@dataclass(frozen=True)
class Seen:
    """What the models before the win model say of `k` decision rows."""

    latents: Float32
    """`[k, 16]`"""
    error: Float32
    """`[k]` reconstruction error; NaN when the autoencoder is replaced by its plain version."""
    features: Float32
    """`[k, 32]` of the feature network."""
    reach: Reach
    """How far price will reach; NaN where a plain version knows nothing."""


@dataclass(frozen=True)
class Prediction:
    """What the bundle says of one wave: `k` decision rows, `m` candidates on them."""

    latents: Float32
    """`[k, 16]`"""
    reconstruction_error: Float32
    """`[k]`; NaN when the autoencoder is replaced by its plain version."""
    unlike: NDArray[np.bool_]
    """`[k]`: the window is unlike the training data, so the worker abstains."""
    win_probability: Float32
    """`[m]`, calibrated: target before stop."""
    features: Float32
    """`[k, 32]` discovered features."""
    reach: Reach
    """Of the rows, quantiles in ATR."""
    action: NDArray[np.int64]
    """`[k]` what the strategy would do, of skip, long and short (`features.episodes`); `NO_ACTION` by the plain version
    unless the rules' signals are given."""
    action_value: Float32
    """`[k, 5]` in R; NaN by the plain version, and for actions that a flat strategy has not."""


class Predictor:
    """A loaded bundle. Results are the same bits however a batch is split.

    One caller at a time: the buffers are reused, and a lock makes a second caller wait.
    `bundle.verify` decides whether a bundle may be used; this class loads what it is given.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.fallbacks: dict[str, str] = manifest.fallbacks
        missing = Component(version="none", served=None, format=None, fallback="the bundle has no such model")
        for name in MODELS:
            if name not in manifest.components:
                self.fallbacks[name] = str(missing.fallback)
        parts = {name: manifest.components.get(name, missing) for name in (*MODELS, DYNAMIC, REGIME)}
        self.formats: dict[str, str] = {
            name: f"its plain version: {self.fallbacks[name]}" if name in self.fallbacks else str(parts[name].format)
            for name in MODELS
        }
        """How each of them runs: the format of its file, or why its plain version stands in."""
        names = manifest.decision_spec.names
        self._lock = threading.RLock()
        self._embedder: Embedder | None = Embedder(folder, parts[AUTOENCODER])
        self._features = FeatureNetwork(folder, parts[FEATURE_NETWORK], names)
        self._liquidity: LiquidityPredictor = liquidity_predictor(folder, parts[LIQUIDITY], names)
        self._policy: DqnPolicy = policy(folder, parts[DQN], names)
        self._scorer: Scorer | None = Scorer(folder, parts[WIN], names)
        self._check_quantiles(folder)
        self._dynamic = self._load_dynamic(folder, parts[DYNAMIC])
        self._regimes: RegimePredictor | None = None
        if parts[REGIME].served is not None:
            self._regimes = session(folder, str(parts[REGIME].served), RegimePredictor.load)
        # The caller's thread is the second.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def _check_quantiles(self, folder: Path) -> None:
        wanted = tuple(self._open(self._scorer).parameters.quantiles)
        if wanted and wanted != self._liquidity.quantiles:
            raise BundleRejected(folder, f"{WIN} was trained with other quantiles than {LIQUIDITY} has")

    def _load_dynamic(self, folder: Path, component: Component) -> DynamicColumns | None:
        """The dynamic features, which must be those that the win model was trained with."""
        wanted = self._open(self._scorer).parameters.dynamic
        if component.served is None:
            if wanted:
                self.fallbacks.setdefault(DYNAMIC, NONE_IN_BUNDLE)
            return None
        found = DynamicColumns(folder, component.served, self.manifest.decision_spec.names)
        if wanted and found.columns != wanted:
            raise BundleRejected(folder, f"{WIN} was trained with other {DYNAMIC} than {component.served} has")
        return found

    @classmethod
    def load(cls, folder: str | Path, *, quantised: bool = True) -> Predictor:
        """Load the bundle in `folder`; `BundleRejected` when a file is missing or is not what it should be.

        Not `quantised` serves the networks as fp32 instead of INT8 where the bundle has such files (`in_fp32`).
        """
        promoted = read_manifest(folder)
        if quantised:
            return cls(Path(folder), promoted)
        found = cls(Path(folder), in_fp32(promoted))
        for name, part in promoted.components.items():
            if part.format == INT8 and name in found.formats:
                found.formats[name] += _switched_off(part, found.manifest.components[name])
        return found

    def predict(
        self,
        decision: Float32,
        windows: Float32,
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: Float32 | None = None,
        signal: NDArray[np.int8] | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> Prediction:
        """Predict one wave.

        `decision [k, D]` and `windows [k, W, 5]` are the wave's rows; candidate `i` of `m` is at row `index[i]`
        with `direction[i]` (+1 long, -1 short), `kind[i]` and `quality[i]`. Kind and quality must be given when
        the win model was trained with them (`needs`), else `InputRejected`; so for shapes that do not fit.
        `signal [k]` is the rules', which the strategy's plain version follows. `regime [k]` is the regime in force by
        which dynamic features are known or not, None the rows' own; not `dynamic` leaves them unknown.
        """
        with self._lock:
            seen = self.see(decision, windows)
            probability = self.score(
                decision, seen, index, direction, kind=kind, quality=quality, regime=regime, dynamic=dynamic
            )
            value, action = self.act(decision, seen.latents, signal=signal)
            return Prediction(
                latents=seen.latents,
                reconstruction_error=seen.error,
                unlike=self._open(self._embedder).unlike(seen.error),
                win_probability=probability,
                features=seen.features,
                reach=seen.reach,
                action=action,
                action_value=value,
            )

    def see(self, decision: Float32, windows: Float32) -> Seen:
        """The first stage alone, of decision rows `[k, D]` and their windows `[k, W, 5]`."""
        if len(decision) != len(windows):
            raise InputRejected(f"{len(decision)} decision rows, but {len(windows)} windows")
        windows = np.ascontiguousarray(windows, dtype=np.float32)
        with self._lock:
            embedder = self._open(self._embedder)
            if len(decision) < FEWEST_BESIDE:
                latents, error = embedder.run(windows)
                return Seen(latents, error, self._features.run(decision), self._liquidity.run(windows, decision))
            reach = self._pool.submit(self._liquidity.run, windows, decision)
            try:
                latents, error = embedder.run(windows)
                features = self._features.run(decision)
            finally:
                # Whatever happened here, its buffers must be free before anybody asks again.
                wait([reach])
            return Seen(latents, error, features, reach.result())

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The shares of the reach's quantiles, ascending."""
        return self._liquidity.quantiles

    def reach(self, decision: Float32, windows: Float32) -> Reach:
        """What the liquidity predictor alone says of decision rows `[k, D]` and their windows `[k, W, 5]`."""
        with self._lock:
            self._open(self._embedder)
            return self._liquidity.run(np.ascontiguousarray(windows, dtype=np.float32), decision)

    def act(
        self,
        decision: Float32,
        latents: Float32,
        position: Float32 | None = None,
        signal: NDArray[np.int8] | None = None,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """The strategy alone: values `[k, 5]` in R and the best actions `[k]` in positions `[k, 5]`, None when flat.

        `position` has the columns of `features.episodes.POSITION_NAMES`, `latents` are those of the rows' windows. Of
        the plain version the values are NaN, and without the rules' `signal [k]` its actions are `NO_ACTION`.
        """
        if position is None:
            position = np.zeros((len(decision), len(POSITION_NAMES)), dtype=np.float32)
        mask = action_mask(position[:, 0])
        with self._lock:
            self._open(self._embedder)
            if not self._policy.served and signal is None:
                nothing = np.full((len(decision), len(ACTIONS)), np.nan, dtype=np.float32)
                return nothing, np.full(len(decision), NO_ACTION, dtype=np.int64)
            values, action = self._policy.run(state_matrix(decision, latents, position), mask, signal)
        return np.where(mask, values, np.float32(np.nan)), action

    def score(
        self,
        decision: Float32,
        seen: Seen,
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: Float32 | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> Float32:
        """The win model alone: calibrated probabilities `[m]`, from what the first stage has seen."""
        with self._lock:
            scorer = self._open(self._scorer)
            given = Candidates(
                decision=decision,
                latents=seen.latents,
                error=seen.error,
                row=index,
                direction=direction,
                kind=kind,
                quality=quality,
                features=seen.features,
                reach=seen.reach,
                dynamic=self._dynamic_columns(decision, regime, dynamic, len(scorer.parameters.dynamic)),
            )
            return scorer.run(given, self._pool)

    def _dynamic_columns(
        self, decision: Float32, regime: NDArray[np.int8] | None, dynamic: bool, wanted: int
    ) -> Float32 | None:
        """The dynamic features as the win model takes them; None when it takes none."""
        if not wanted:
            return None
        if self._dynamic is None or not dynamic:
            return unknown(len(decision), wanted)
        return self._dynamic.run(decision, regime)

    @property
    def dynamic_columns(self) -> DynamicColumns | None:
        """The dynamic features of the bundle; None when it has none."""
        return self._dynamic

    @property
    def regime_predictor(self) -> RegimePredictor | None:
        """The regime predictor; None when the bundle has none, or its plain version stands in."""
        return self._regimes

    def regimes(self, decision: Float32, windows: Float32) -> NDArray[np.float64] | None:
        """Probabilities `[k, 3]` of ranging, trending and volatile ahead; NaN for rows with an unknown input.

        None without the model: what ADX and Bollinger width say now stands in (`regime_predictor.in_force`).
        """
        if self._regimes is None:
            return None
        return self._regimes.run(decision, windows, self.manifest.decision_spec.names)

    @staticmethod
    def _open(stage: T | None) -> T:
        if stage is None:
            raise InputRejected("the predictor is closed")
        return stage

    @property
    def needs(self) -> frozenset[str]:
        """Which of `kind` and `quality` must be given to `predict`."""
        component = self.manifest.components.get(WIN)
        if self._scorer is None or component is None or component.served is None:
            return frozenset()
        return frozenset(self._scorer.parameters.inputs) & {"kind", "quality"}

    def close(self) -> None:
        """Release the sessions; a later prediction raises `InputRejected`."""
        with self._lock:
            self._embedder = None
            self._scorer = None
            self._pool.shutdown()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def in_fp32(manifest: Manifest) -> Manifest:
    """The manifest with the fp32 file of every network that it serves as INT8; as it is where none passed its parity.

    The models that read a network were trained on the outputs of its INT8 file. What that changes is bounded by the
    parity that both files have passed; a bundle that was trained with `ENABLE_QUANTIZATION=false` has no such seam.
    """
    parts = {}
    for name, part in manifest.components.items():
        whole = part.formats.get(FP32)
        if part.format == INT8 and whole is not None and whole.passed and whole.file in part.files:
            part = msgspec.structs.replace(part, served=whole.file, format=FP32)
        parts[name] = part
    return msgspec.structs.replace(manifest, components=parts)


def _switched_off(promoted: Component, served: Component) -> str:
    """Why a network that was promoted as INT8 runs as it does when quantisation is switched off."""
    if served.format == promoted.format:
        return ", although quantisation is switched off: the bundle has no fp32 file that passed its parity"
    return f", promoted as {promoted.format}: quantisation is switched off"


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of the bundle in `folder`, or `BundleRejected`."""
    path = Path(folder) / MANIFEST_FILE
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        raise BundleRejected(folder, f"it has no {MANIFEST_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleRejected(folder, f"its {MANIFEST_FILE} cannot be read: {error}") from error
