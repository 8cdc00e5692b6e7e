"""The inference runtime of the worker and of replay: a bundle's models behind one call.

It needs `ai-edge-litert` and `onnxruntime`, never TensorFlow or xgboost. The win model reads the autoencoder's
latents, so the two run one after the other; each session has one thread, and 200 rows take a millisecond or two,
which a pool would not shorten.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.dynamic_features import NONE_IN_BUNDLE, DynamicColumns, unknown
from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import AUTOENCODER, DYNAMIC, MANIFEST_FILE, REGIME, WIN, Component, Manifest, decode
from models_registry.regime_predictor import RegimePredictor
from models_registry.sessions import OnnxSession, TfliteSession
from models_registry.structure_autoencoder import (
    LATENTS,
    AutoencoderParameters,
    normalise,
    reconstruction_error,
    statistical_features,
)
from models_registry.win_classifier import WinParameters
from models_registry.win_inputs import Candidates, columns, fill_matrix

Float32 = NDArray[np.float32]
T = TypeVar("T")


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


class Embedder:
    """The autoencoder, or its plain version when `component` has none: windows to latents and error."""

    def __init__(self, folder: Path, component: Component) -> None:
        self._session: TfliteSession | None = None
        if component.served is not None:
            self.parameters = parameters(folder, AUTOENCODER, component, AutoencoderParameters)
            self._session = session(folder, component.served, TfliteSession)

    def run(self, windows: Float32) -> tuple[Float32, Float32]:
        """Latents `[k, 16]` and reconstruction error `[k]` of windows `[k, W, 5]`."""
        if self._session is None:
            return statistical_features(windows), np.full(len(windows), np.nan, dtype=np.float32)
        if windows.shape[1:] != self._session.row_shape:
            raise InputRejected(
                f"windows are {windows.shape[1:]}, the bundle's autoencoder takes {self._session.row_shape}"
            )
        normalised = normalise(windows, self.parameters)
        latents, reconstruction = self._session.run(normalised)
        return latents, reconstruction_error(normalised, reconstruction)

    def unlike(self, error: Float32) -> NDArray[np.bool_]:
        """Which errors `[k]` lie beyond the limit; never any without the network."""
        if self._session is None:
            return np.zeros(len(error), dtype=np.bool_)
        return np.asarray(error > np.float32(self.parameters.limit))


class Scorer:
    """The win model, or its plain version when `component` has none."""

    def __init__(self, folder: Path, component: Component, names: list[str]) -> None:
        self.parameters = parameters(folder, WIN, component, WinParameters)
        self._session: OnnxSession | None = None
        self._width = len(names)
        self._centre = {name: np.asarray(values, dtype=np.float32) for name, values in self.parameters.centre.items()}
        self._buffer = np.empty((0, 0), dtype=np.float32)
        if component.served is not None:
            self._session = session(folder, component.served, OnnxSession)
            width = len(columns(self.parameters.inputs, names, self.parameters.dynamic))
            if self._session.columns != width:
                raise BundleRejected(
                    folder, f"{component.served} takes {self._session.columns} columns, its manifest says {width}"
                )
            sizes = {"decision": len(names), "latents": LATENTS, "dynamic": len(self.parameters.dynamic)}
            for name in self.parameters.inputs:
                group = name.removeprefix("aligned_")
                if group != name and len(self._centre.get(group, ())) != sizes[group]:
                    raise BundleRejected(folder, f"{WIN} aligns {group}, but its centre is missing or of another size")
            self._buffer = np.empty((256, width), dtype=np.float32)

    def run(self, given: Candidates) -> Float32:
        """Calibrated probabilities `[m]` of the candidates."""
        if given.decision.shape[1] != self._width:
            raise InputRejected(
                f"decision rows have {given.decision.shape[1]} columns, the bundle's have {self._width}"
            )
        count = len(given.row)
        if self._session is None:
            known = np.full(count, np.nan, dtype=np.float32) if given.quality is None else given.quality
            return self.parameters.fallback.apply(known).astype(np.float32)
        if count > len(self._buffer):
            self._buffer = np.empty((2 * count, self._buffer.shape[1]), dtype=np.float32)
        rows = self._buffer[:count]
        fill_matrix(rows, self.parameters.inputs, given, self._centre)
        return self.parameters.calibration.apply(self._session.run(rows)).astype(np.float32)


class Predictor:
    """A loaded bundle. Results are the same bits however a batch is split.

    One caller at a time: the buffers are reused, and a lock makes a second caller wait.
    `bundle.verify` decides whether a bundle may be used; this class loads what it is given.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self.fallbacks: dict[str, str] = manifest.fallbacks
        missing = Component(version="none", served=None, format=None, fallback="the bundle has no such model")
        for name in (AUTOENCODER, WIN):
            if name not in manifest.components:
                self.fallbacks[name] = str(missing.fallback)
        self._lock = threading.RLock()
        self._embedder: Embedder | None = Embedder(folder, manifest.components.get(AUTOENCODER, missing))
        self._scorer: Scorer | None = Scorer(
            folder, manifest.components.get(WIN, missing), manifest.decision_spec.names
        )
        self._dynamic = self._load_dynamic(folder, manifest.components.get(DYNAMIC, missing))
        regimes = manifest.components.get(REGIME, missing)
        self._regimes: RegimePredictor | None = None
        if regimes.served is not None:
            self._regimes = session(folder, regimes.served, RegimePredictor.load)

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
    def load(cls, folder: str | Path) -> Predictor:
        """Load the bundle in `folder`; `BundleRejected` when a file is missing or is not what it should be."""
        return cls(Path(folder), read_manifest(folder))

    def predict(
        self,
        decision: Float32,
        windows: Float32,
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: Float32 | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> Prediction:
        """Predict one wave.

        `decision [k, D]` and `windows [k, W, 5]` are the wave's rows; candidate `i` of `m` is at row `index[i]`
        with `direction[i]` (+1 long, -1 short), `kind[i]` and `quality[i]`. Kind and quality must be given when
        the win model was trained with them (`needs`), else `InputRejected`; so for shapes that do not fit.
        `regime [k]` is the regime in force by which dynamic features are known or not, None the rows' own; not
        `dynamic` leaves them unknown.
        """
        if len(decision) != len(windows):
            raise InputRejected(f"{len(decision)} decision rows, but {len(windows)} windows")
        with self._lock:
            latents, error = self.embed(windows)
            probability = self.score(
                decision,
                latents,
                error,
                index,
                direction,
                kind=kind,
                quality=quality,
                regime=regime,
                dynamic=dynamic,
            )
            return Prediction(latents, error, self._open(self._embedder).unlike(error), probability)

    def embed(self, windows: Float32) -> tuple[Float32, Float32]:
        """The first stage alone: latents `[k, 16]` and reconstruction error `[k]`."""
        with self._lock:
            return self._open(self._embedder).run(np.ascontiguousarray(windows, dtype=np.float32))

    def score(
        self,
        decision: Float32,
        latents: Float32,
        error: Float32,
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: Float32 | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> Float32:
        """The second stage alone: calibrated probabilities `[m]`, from the latents and errors of the first."""
        with self._lock:
            scorer = self._open(self._scorer)
            columns = self._dynamic_columns(decision, regime, dynamic, len(scorer.parameters.dynamic))
            return scorer.run(Candidates(decision, latents, error, index, direction, kind, quality, columns))

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

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of the bundle in `folder`, or `BundleRejected`."""
    path = Path(folder) / MANIFEST_FILE
    try:
        return decode(path.read_bytes())
    except FileNotFoundError:
        raise BundleRejected(folder, f"it has no {MANIFEST_FILE}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleRejected(folder, f"its {MANIFEST_FILE} cannot be read: {error}") from error


def parameters(folder: Path, name: str, component: Component, kind: type[T]) -> T:
    """The typed parameters of a component, or `BundleRejected`."""
    try:
        return msgspec.convert(component.parameters, kind)
    except msgspec.ValidationError as error:
        raise BundleRejected(folder, f"the parameters of {name} are not valid: {error}") from error


def session(folder: Path, file: str, kind: Any) -> Any:
    """A model file loaded by `kind`, or `BundleRejected`; the runtimes raise their own errors for a bad file."""
    if Path(file).name != file:
        raise BundleRejected(folder, f"{file!r} is not a plain file name")
    try:
        return kind(folder / file)
    except FileNotFoundError:
        raise BundleRejected(folder, f"{file} is missing") from None
    except Exception as error:
        raise BundleRejected(folder, f"{file} cannot be loaded: {error}") from error
