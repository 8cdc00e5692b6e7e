"""The default specification of one series."""

from __future__ import annotations

from features.families import candle, event, oscillators, structure, trend, volatility, volume
from features.families.shared import SHARED
from features.spec import FeatureSpec

SPEC = FeatureSpec(
    families=(
        trend.AVERAGES,
        trend.DIRECTIONAL,
        trend.REGRESSION,
        trend.RETURNS,
        volatility.VOLATILITY,
        oscillators.RSI,
        oscillators.CCI,
        volume.VOLUME,
        volume.VWAP,
        candle.CANDLE,
        structure.STRUCTURE,
        event.CUSUM,
    ),
    shared=SHARED,
)
"""What is computed of every series, on every timeframe."""
