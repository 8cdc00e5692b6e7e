"""The default specification of one series."""

from __future__ import annotations

from features.families import (
    breaks,
    candle,
    displacement,
    event,
    gaps,
    liquidity,
    order_blocks,
    oscillators,
    profile,
    regime,
    swings,
    trend,
    volatility,
    volume,
)
from features.families.shared import SHARED
from features.spec import FeatureSpec

SPEC = FeatureSpec(
    families=(
        trend.AVERAGES,
        trend.MACD,
        trend.DIRECTIONAL,
        trend.REGRESSION,
        trend.RETURNS,
        volatility.BOLLINGER,
        volatility.ESTIMATORS,
        volatility.RATIOS,
        oscillators.RSI,
        oscillators.CCI,
        oscillators.MFI,
        volume.ACTIVITY,
        volume.FLOW,
        volume.VWAP,
        candle.CANDLE,
        swings.SWINGS,
        breaks.BREAKS,
        order_blocks.ORDER_BLOCKS,
        gaps.GAPS,
        liquidity.LIQUIDITY,
        displacement.DISPLACEMENT,
        profile.PROFILE,
        regime.REGIME_FAMILY,
        event.CUSUM,
    ),
    shared=(*SHARED, *swings.SHARED, *breaks.SHARED),
)
"""What is computed of every series, on every timeframe."""
