"""The settings of hunting liquidity (`features.liquidity`), as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from features.errors import SettingsUnusable


@dataclass(frozen=True, slots=True)
class HuntSettings:
    """When a pool is hunted. Raises `SettingsUnusable` for numbers that make no sense."""

    threshold: float = 0.60
    """Least score of a pool, 0 to 1; `LIQUIDITY_HUNT_CONFIDENCE_THRESHOLD`."""
    tolerance: float = 0.003
    """How near price must be, as a fraction of it; `LIQUIDITY_SLIPPAGE_TOLERANCE`."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold <= 1.0:
            raise SettingsUnusable("threshold", self.threshold, "a score from 0 to 1")
        if not 0.0 < self.tolerance < 1.0:
            raise SettingsUnusable("tolerance", self.tolerance, "a fraction of the price, above 0 and below 1")
