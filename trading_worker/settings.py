"""The worker's configuration: environment variables, their units, defaults and reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The part of the configuration that decisions depend on."""

    strategy_mode: str = "hybrid"
    min_confidence: float = 0.35
    min_quality: float = 0.0
    max_open_per_symbol: int = 1
