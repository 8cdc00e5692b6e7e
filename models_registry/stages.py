"""The models of a bundle as stages of a prediction: each loaded from its files, or its plain version.

A file that is missing or is not what the manifest says becomes `BundleRejected`, whatever the runtime that was to load
it raises. No stage is safe for concurrent calls of its own: buffers are reused. Different stages may run side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.dqn_policy import DqnPolicy
from models_registry.dqn_state import state_names
from models_registry.errors import BundleRejected, InputRejected
from models_registry.feature_network_runtime import FEATURES
from models_registry.liquidity_predictor import LiquidityPredictor
from models_registry.manifest import AUTOENCODER, DQN, LIQUIDITY, WIN, Component
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

FEWEST_BESIDE = 64
"""Rows from which on it pays to hand a part to another thread: below, waking that takes longer than the part."""


class Embedder:
    """The autoencoder, or its plain version when `component` has none: windows to latents and error."""

    def __init__(self, folder: Path, component: Component) -> None:
        self._session: TfliteSession | None = None
        if component.served is not None:
            self.parameters = parameters(folder, AUTOENCODER, component, AutoencoderParameters)
            self._session = session(folder, component.served, TfliteSession)
            if self._session.output_shapes != [(LATENTS,), self._session.row_shape]:
                raise BundleRejected(folder, f"{component.served} does not give {LATENTS} latents and its window again")
            # The windows as the network takes them, and what it makes of them: both are gone after the call.
            self._buffers = np.empty((2, 256, *self._session.row_shape), dtype=np.float32)

    def run(self, windows: Float32) -> tuple[Float32, Float32]:
        """Latents `[k, 16]` and reconstruction error `[k]` of windows `[k, W, 5]`."""
        if self._session is None:
            return statistical_features(windows), np.full(len(windows), np.nan, dtype=np.float32)
        if windows.shape[1:] != self._session.row_shape:
            raise InputRejected(
                f"windows are {windows.shape[1:]}, the bundle's autoencoder takes {self._session.row_shape}"
            )
        count = len(windows)
        if count > self._buffers.shape[1]:
            self._buffers = np.empty((2, 2 * count, *self._session.row_shape), dtype=np.float32)
        normalised = normalise(windows, self.parameters, self._buffers[0, :count])
        latents, reconstruction = self._session.run(normalised, (None, self._buffers[1, :count]))
        return latents, reconstruction_error(normalised, reconstruction, out=reconstruction)

    def unlike(self, error: Float32) -> NDArray[np.bool_]:
        """Which errors `[k]` lie beyond the limit; never any without the network."""
        if self._session is None:
            return np.zeros(len(error), dtype=np.bool_)
        return np.asarray(error > np.float32(self.parameters.limit))


def embed(embedder: Embedder, windows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Latents `[m, 16]` and reconstruction errors `[m]` of many windows."""
    parts = [embedder.run(windows[start : start + 1024]) for start in range(0, len(windows), 1024)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


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
            width = len(columns(self.parameters.inputs, names, self.parameters.dynamic, self.parameters.quantiles))
            if self._session.columns != width:
                raise BundleRejected(
                    folder, f"{component.served} takes {self._session.columns} columns, its manifest says {width}"
                )
            sizes = {
                "decision": len(names),
                "latents": LATENTS,
                "features": FEATURES,
                "dynamic": len(self.parameters.dynamic),
            }
            for name in self.parameters.inputs:
                group = name.removeprefix("aligned_")
                if group != name and len(self._centre.get(group, ())) != sizes[group]:
                    raise BundleRejected(folder, f"{WIN} aligns {group}, but its centre is missing or of another size")
            self._buffer = np.empty((256, width), dtype=np.float32)

    def run(self, given: Candidates, beside: Executor | None = None) -> Float32:
        """Calibrated probabilities `[m]` of the candidates; half of many are run in `beside`, if that is given."""
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
        if beside is None or count < 2 * FEWEST_BESIDE:
            found = self._session.run(rows)
        else:
            half = beside.submit(self._session.run, rows[count // 2 :])
            try:
                first = self._session.run(rows[: count // 2])
            finally:
                wait([half])  # it reads the buffer
            found = np.concatenate([first, half.result()])
        return self.parameters.calibration.apply(found).astype(np.float32)


def liquidity_predictor(folder: Path, component: Component, names: Sequence[str]) -> LiquidityPredictor:
    """The liquidity predictor of a component, or `BundleRejected`."""
    found: LiquidityPredictor = session(
        folder, component.served or LIQUIDITY, lambda _: LiquidityPredictor(folder, component, tuple(names))
    )
    return found


def policy(folder: Path, component: Component, names: Sequence[str]) -> DqnPolicy:
    """The strategy of a component, or `BundleRejected`; its columns must be those of the decision rows `names`."""
    found: DqnPolicy = session(folder, component.served or DQN, lambda _: DqnPolicy(folder, component))
    if component.served is not None and found.parameters.names != state_names(list(names)):
        raise BundleRejected(folder, f"{component.served} takes other columns than the bundle's decision rows have")
    return found


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
