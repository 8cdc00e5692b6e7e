"""The decision engine: a wave in, events out. No clock, no socket, no random source, no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trading_worker.events import AnyEvent
from trading_worker.settings import EngineSettings
from trading_worker.wave import Wave

if TYPE_CHECKING:
    from features.decision import DecisionState


class PredictionLike(Protocol):
    """What the engine reads of `models_registry.runtime.Prediction`."""

    @property
    def reconstruction_error(self) -> NDArray[np.float32]: ...
    @property
    def unlike(self) -> NDArray[np.bool_]: ...
    @property
    def win_probability(self) -> NDArray[np.float32]: ...


class PredictorLike(Protocol):
    """What the engine asks of `models_registry.runtime.Predictor`."""

    @property
    def manifest(self) -> Any: ...
    @property
    def fallbacks(self) -> Mapping[str, str]: ...
    def predict(
        self,
        decision: NDArray[np.float32],
        windows: NDArray[np.float32],
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
    ) -> PredictionLike: ...


class Engine:
    """Turns waves into events, deterministically."""

    symbols: tuple[str, ...]
    time_ms: int
    """Close time of the last wave, 0 before the first."""

    def __init__(
        self,
        symbols: Sequence[str],
        predictor: PredictorLike,
        settings: EngineSettings | None = None,
        *,
        state: DecisionState | None = None,
    ) -> None:
        raise NotImplementedError

    def on_wave(self, wave: Wave) -> list[AnyEvent]:
        """Take one minute's closed bars; the events are to be journaled in this order."""
        raise NotImplementedError

    def on_prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> list[AnyEvent]:
        """Note last trade prices between bars: only what the ticks said, never an outcome."""
        raise NotImplementedError

    def swap(self, predictor: PredictorLike, state: DecisionState | None = None) -> list[AnyEvent]:
        """Decide with another bundle from the next wave on; `SwapRefused` when it does not fit."""
        raise NotImplementedError

    def snapshot(self) -> bytes:
        """Everything needed to continue, versioned and checksummed."""
        raise NotImplementedError

    def restore(self, snapshot: bytes) -> None:
        """Continue from a snapshot; `SnapshotRefused` with the reason leaves the engine unchanged."""
        raise NotImplementedError
