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

from models_registry.errors import BundleRejected, InputRejected
from models_registry.manifest import AUTOENCODER, MANIFEST_FILE, WIN, Component, Manifest, decode
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
            width = len(columns(self.parameters.inputs, names))
            if self._session.columns != width:
                raise BundleRejected(
                    folder, f"{component.served} takes {self._session.columns} columns, its manifest says {width}"
                )
            for name in self.parameters.inputs:
                group = name.removeprefix("aligned_")
                if group != name and len(self._centre.get(group, ())) != {"decision": len(names)}.get(group, LATENTS):
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
    ) -> Prediction:
        """Predict one wave.

        `decision [k, D]` and `windows [k, W, 5]` are the wave's rows; candidate `i` of `m` is at row `index[i]`
        with `direction[i]` (+1 long, -1 short), `kind[i]` and `quality[i]`. Kind and quality must be given when
        the win model was trained with them (`needs`), else `InputRejected`; so for shapes that do not fit.
        """
        if len(decision) != len(windows):
            raise InputRejected(f"{len(decision)} decision rows, but {len(windows)} windows")
        with self._lock:
            latents, error = self.embed(windows)
            probability = self.score(decision, latents, error, index, direction, kind=kind, quality=quality)
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
    ) -> Float32:
        """The second stage alone: calibrated probabilities `[m]`, from the latents and errors of the first."""
        with self._lock:
            given = Candidates(decision, latents, error, index, direction, kind, quality)
            return self._open(self._scorer).run(given)

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
