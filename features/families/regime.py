"""Regime: whether the market ranges, trends or swings wildly, and since when.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `regime` | 2 volatile, else 1 trending, else 0 ranging (`REGIMES`) | code | 0, 1, 2 | 320 | – |
| `regime_bars` | bars in this regime, this one included, at most 96 | bars | 1..96 | 320 | – |

*Volatile*: the Bollinger width (20 closes, 2 deviations) has reached 1.6 times its own mean over the last 96 bars and
not fallen below 1.2 times since. *Trending*: ADX(14) has reached 25 and not fallen below 20 since. Either lapses when
its first threshold was not reached again for 32 bars. A flat market ranges.

Thresholds turn the least difference into another regime, so all that decides here forgets exactly: the mean width is
that of a window, and the ADX is Wilder's, begun afresh at every 96 bars of the clock and read only during the next 96.
It is within a point of `adx_14`, and the same from whichever bar a series begins. With hysteresis (32) and time (96)
that makes 2 x 96 + 32 + 96 bars of memory, and not one more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families import rolling
from features.families.numeric import NEGLIGIBLE, RECIPROCALS, ratio
from features.families.rolling import fold_sums, rolling_sum
from features.families.shared import SPREAD_BARS
from features.kernels_cache import njit_inlined
from features.regimes import RANGING as RANGING
from features.regimes import REGIMES as REGIMES
from features.regimes import TRENDING as TRENDING
from features.regimes import VOLATILE as VOLATILE
from features.spec import Family, Feature

Slice = NDArray[np.float64]

PERIOD = 14
GROWN_BARS = 2.0 * PERIOD - 1.0
"""Bars after which all averages of an ADX have their lasting weights; while it is younger they are plain means."""
WEIGHTS_OF_DX = tuple(1.0 / (n - PERIOD + 1) if n >= PERIOD else 0.0 for n in range(2 * PERIOD))
"""The weight of a bar's DX in an ADX of so many bars: none before its movements have their first mean."""
BLOCK_BARS = 96
"""An ADX begins with every block of the clock, and counts during the next one."""
WIDTH_BARS = 96
"""Widths that make the usual one."""
TREND_ENTER, TREND_LEAVE = 25.0, 20.0
"""ADX from which on a trend is one, and below which it has ended."""
WIDE_ENTER, WIDE_LEAVE = 1.6, 1.2
"""The same for the width, in usual widths."""
LAPSE_BARS = 32
"""A regime lapses when its first threshold was not reached for so many bars."""
MOST_BARS = 96
"""Time in a regime is counted up to this."""

# State of `regime`: two ADX of four numbers each, the current block of the clock, bars since either first threshold was
# reached, the last regime and the bars in it, then the window of widths.
PLUS, MINUS, ADX, BARS = range(4)
ADX_STATE = 4
BLOCK, SINCE_TREND, SINCE_WIDE, REGIME, TIME = range(2 * ADX_STATE, 2 * ADX_STATE + 5)
WIDTHS = TIME + 1


def regime_name(code: float) -> str:
    """What a value of the column `regime` is called; "unknown" for NaN.

    >>> regime_name(1.0), regime_name(float("nan"))
    ('trending', 'unknown')
    """
    return REGIMES[int(code)] if code in (RANGING, TRENDING, VOLATILE) else "unknown"


@njit_inlined
def directional_index(state: Slice, plus: float, minus: float) -> float:
    """Move an ADX on by one bar's directional movements. Source: Wilder (1978), seeded with plain means."""
    bars = min(state[BARS] + 1.0, GROWN_BARS)
    state[BARS] = bars
    weight = RECIPROCALS[min(int(bars), PERIOD)]
    state[PLUS] += (plus - state[PLUS]) * weight
    state[MINUS] += (minus - state[MINUS]) * weight
    dx = 100.0 * ratio(abs(state[PLUS] - state[MINUS]), state[PLUS] + state[MINUS])
    state[ADX] += (dx - state[ADX]) * WEIGHTS_OF_DX[int(bars)]
    adx: float = state[ADX]
    return adx


@njit_inlined
def both_indices(state: Slice, block: int, high: float, low: float, previous_high: float, previous_low: float) -> float:
    """Move both ADX on; the value of the one that began a block earlier."""
    young = block % 2 * ADX_STATE
    old = ADX_STATE - young
    if block != state[BLOCK]:
        state[BLOCK] = block
        state[young : young + ADX_STATE] = 0.0
    up = high - previous_high
    down = previous_low - low
    plus = up if (up > down) & (up > 0.0) else 0.0
    minus = down if (down > up) & (down > 0.0) else 0.0
    directional_index(state[young : young + ADX_STATE], plus, minus)
    return directional_index(state[old : old + ADX_STATE], plus, minus)


@njit_inlined
def relative_width(state: Slice, close_spread: Slice, count: int) -> float:
    """The Bollinger width of this bar in usual ones; 1 when nothing has moved. State: the window of widths."""
    mean = close_spread[0]
    variance = close_spread[1] * (1.0 / SPREAD_BARS)
    # Four deviations over the mean: the factor falls out of the ratio.
    width = np.sqrt(variance) / mean if variance > (NEGLIGIBLE * mean) ** 2 else 0.0
    phase = (count - 1) % WIDTH_BARS
    total = rolling_sum(state, phase, 1, 0, width)
    fold_sums(state, phase, WIDTH_BARS, 1)
    return width * min(count, WIDTH_BARS) / total if total > 0.0 else 1.0


@njit_inlined
def bars_since(before: float, value: float, enter: float, leave: float) -> float:
    """Bars since `value` was at `enter` or above without having been below `leave`; LAPSE_BARS for never."""
    # As choices, not as branches: where price goes nobody guesses.
    since = min(before + 1.0, float(LAPSE_BARS))
    since = float(LAPSE_BARS) if value < leave else since
    return 0.0 if value >= enter else since


@njit_inlined
def regime(
    state: Slice,
    out: Slice,
    clock: int,
    high: float,
    low: float,
    previous_high: float,
    previous_low: float,
    close_spread: Slice,
    count: int,
) -> None:
    """The regime of this bar and the time in it."""
    if count == 1:
        state[SINCE_TREND] = LAPSE_BARS
        state[SINCE_WIDE] = LAPSE_BARS
    adx = both_indices(state, clock // BLOCK_BARS, high, low, previous_high, previous_low)
    width = relative_width(state[WIDTHS:], close_spread, count)
    since_trend = bars_since(state[SINCE_TREND], adx, TREND_ENTER, TREND_LEAVE)
    since_wide = bars_since(state[SINCE_WIDE], width, WIDE_ENTER, WIDE_LEAVE)
    state[SINCE_TREND] = since_trend
    state[SINCE_WIDE] = since_wide
    now = float(TRENDING) if since_trend < LAPSE_BARS else float(RANGING)
    now = float(VOLATILE) if since_wide < LAPSE_BARS else now
    longer = min(state[TIME] + 1.0, float(MOST_BARS))
    time = longer if now == state[REGIME] else 1.0
    state[TIME] = time
    state[REGIME] = now
    out[0] = now
    out[1] = time


WARMUP = 2 * BLOCK_BARS + LAPSE_BARS + MOST_BARS
"""320: an ADX is at most two blocks old, and older than the width's window (115 bars)."""

REGIME_FAMILY = Family(
    "regime",
    (
        Feature("regime", WARMUP, "2 volatile, else 1 trending, else 0 ranging", "code", 0.0, 2.0),
        Feature("regime_bars", WARMUP, f"bars in this regime, at most {MOST_BARS}", "bars", 1.0, MOST_BARS, 10.0),
    ),
    WIDTHS + rolling.state_size(WIDTH_BARS, 1),
    regime,
)
