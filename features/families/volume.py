"""Volume and flow: how much was traded, by whose initiative, and at what average price.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `volume_zscore` | (volume - mean48) / deviation48 | deviations | ±6.9 | 48 | – |
| `trades_zscore` | the same of the number of trades | deviations | ±6.9 | 48 | – |
| `obv_slope_20` | (OBV - OBV 20 bars ago) / volume of the 20 bars | fraction | ±1 | 21 | Granville (1963) |
| `chaikin_money_flow_20` | Σ20 m volume / Σ20 volume | fraction | ±1 | 20 | Chaikin |
| `taker_imbalance` | 2 taker_buy_base / volume - 1 | fraction | ±1 | 1 | – |
| `taker_imbalance_20` | the same of sums over 20 bars | fraction | ±1 | 20 | – |
| `vwap_distance_48` | (close - Σ48 typical volume / Σ48 volume) / ATR14 | ATR | ±100 | 160 | – |

OBV, the on-balance volume, adds a bar's volume when its close is above the one before, and subtracts it
when below. m is (2 close - high - low) / (high - low), 0 for a bar without range. Typical is
(high + low + close) / 3. Equal volumes have z-score
0; a window without volume has 0 of all. `trades_zscore` is NaN while any of its 48 bars does not say how
many trades it had, and the imbalances while any of their bars does not say who took.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.families import rolling
from features.families.numeric import NEGLIGIBLE, in_unit, wilder_warmup
from features.families.rolling import SPREAD, fold_sums, rolling_spread, rolling_sum
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BARS = 20
LONG_BARS = 48
ZSCORE_STATE = SPREAD + rolling.state_size(LONG_BARS, SPREAD)


@njit_inlined
def zscore(state: Slice, value: float, count: int) -> float:
    """`value` against those of the last 48 bars. State: their spread, then its window."""
    rolling_spread(state[SPREAD:], state[:SPREAD], (count - 1) % LONG_BARS, LONG_BARS, SPREAD, value)
    deviation = math.sqrt(state[1] * (1.0 / LONG_BARS))
    # Written so that NaN passes.
    if deviation <= NEGLIGIBLE * abs(state[0]):
        return 0.0
    score: float = (value - state[0]) / deviation
    return score


@njit_inlined
def activity(state: Slice, out: Slice, volume: float, trades: float, count: int) -> None:
    """How busy the bar was, by volume and by trades."""
    out[0] = zscore(state[:ZSCORE_STATE], volume, count)
    out[1] = zscore(state[ZSCORE_STATE:], trades, count)


# Columns of the window of `flow`.
SIGNED, MONEY, VOLUME, TAKEN, WIDTH = range(5)


@njit_inlined
def flow(
    state: Slice,
    out: Slice,
    high: float,
    low: float,
    close: float,
    previous_close: float,
    per_range: float,
    volume: float,
    taker_buy_base: float,
    count: int,
) -> None:
    """Which way the volume of 20 bars went, by three measures. State: the window of its parts."""
    sign = 1.0 if close > previous_close else (-1.0 if close < previous_close else 0.0)
    place = ((close - low) - (high - close)) * per_range
    # NaN stays, also of a bar without volume: a source that lacks the column has no imbalance at all.
    taken = 0.0 if volume == 0.0 and not math.isnan(taker_buy_base) else taker_buy_base
    phase = (count - 1) % BARS
    signed = rolling_sum(state, phase, WIDTH, SIGNED, sign * volume)
    money = rolling_sum(state, phase, WIDTH, MONEY, place * volume)
    total = rolling_sum(state, phase, WIDTH, VOLUME, volume)
    taken_20 = rolling_sum(state, phase, WIDTH, TAKEN, taken)
    fold_sums(state, phase, BARS, WIDTH)
    per_total = 1.0 / total if total > 0.0 else 0.0
    out[0] = within_one(signed * per_total)
    out[1] = within_one(money * per_total)
    out[2] = within_one(2.0 * taken / volume - 1.0) if volume > 0.0 else taken
    out[3] = within_one(2.0 * taken_20 * per_total - 1.0) if total > 0.0 else taken_20


@njit_inlined
def within_one(value: float) -> float:
    """`value` held within ±1; NaN stays."""
    return -1.0 if value < -1.0 else (1.0 if value > 1.0 else value)


@njit_inlined
def vwap(state: Slice, out: Slice, close: float, typical: float, volume: float, per_atr: float, count: int) -> None:
    """Distance to the volume-weighted average price. State: the window of volumes and weighted prices."""
    phase = (count - 1) % LONG_BARS
    total = rolling_sum(state, phase, 2, 0, volume)
    weighted = rolling_sum(state, phase, 2, 1, volume * typical)
    fold_sums(state, phase, LONG_BARS, 2)
    out[0] = in_unit(close - weighted / total, per_atr) if total > 0.0 else 0.0


_BOUND = 6.86
"""One of n values differs from their mean by at most √(n - 1) deviations, rounded up here."""


def _zscore(of: str, version: int, nan: bool) -> Feature:
    formula = f"({of} - mean48) / deviation48"
    return Feature(f"{of}_zscore", LONG_BARS, formula, "deviations", -_BOUND, _BOUND, 1.0, version, nan)


def _share(name: str, warmup: int, formula: str, version: int = 1, nan: bool = False, source: str = "") -> Feature:
    return Feature(name, warmup, formula, "fraction", -1.0, 1.0, 1.0, version, nan, source=source)


ACTIVITY = Family("activity", (_zscore("volume", 2, False), _zscore("trades", 1, True)), 2 * ZSCORE_STATE, activity)
FLOW = Family(
    "flow",
    (
        _share("obv_slope_20", BARS + 1, "(OBV - OBV 20 ago) / sum20(volume)", source="Granville (1963)"),
        _share(
            "chaikin_money_flow_20",
            BARS,
            "sum20((2 close - high - low) / (high - low) volume) / sum20(volume)",
            source="Chaikin",
        ),
        _share("taker_imbalance", 1, "2 taker_buy_base / volume - 1", 3, nan=True),
        _share("taker_imbalance_20", BARS, "2 sum20(taker_buy_base) / sum20(volume) - 1", 2, nan=True),
    ),
    rolling.state_size(BARS, WIDTH),
    flow,
)
VWAP = Family(
    "vwap",
    (
        Feature(
            "vwap_distance_48",
            wilder_warmup(14),
            "(close - VWAP48) / ATR14",
            "ATR",
            -100.0,
            100.0,
            version=2,
        ),
    ),
    rolling.state_size(LONG_BARS, 2),
    vwap,
)
