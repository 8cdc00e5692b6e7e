"""The backtest: recorded bars through the same engine as live, as fast as it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from market.bars import Bars
from trading_worker.engine import PredictorLike
from trading_worker.events import AnyEvent
from trading_worker.settings import EngineSettings


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay gave."""

    events: list[AnyEvent]
    digest: str
    counts: dict[str, int] = field(default_factory=dict)
    """Events by kind."""


def replay(
    bars: Mapping[str, Bars],
    funding: Mapping[str, NDArray[np.void]],
    predictor: PredictorLike,
    settings: EngineSettings | None = None,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Run 1m bars through an engine; minutes before `start_ms` only warm the features."""
    raise NotImplementedError


def replay_command(klines: Path, bundle: Path | None = None, **options: Any) -> ReplayResult:
    """What `perpforge replay` does."""
    raise NotImplementedError
