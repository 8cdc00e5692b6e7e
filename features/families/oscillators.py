"""Oscillators: how one-sided the recent movement was.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `rsi_14` | 100 G / (G + L), Wilder averages of gains and losses | points | 0..100 | 160 | Wilder (1978) |
| `stochastic_rsi_14` | 100 (RSI14 - lowest14) / (highest14 - lowest14) | points | 0..100 | 280 | Chande, Kroll |
| `stochastic_rsi_signal_14` | mean of the last 3 of it | points | 0..100 | 282 | Chande, Kroll |
| `cci_20` | (typical - mean20) / (0.015 mean absolute deviation20) | points | ±667 | 20 | Lambert (1980) |
| `mfi_14` | 100 P / (P + N) | points | 0..100 | 15 | Quong, Soudack (1989) |

Typical is (high + low + close) / 3; lowest14 and highest14 are those of RSI14; P and N are the sums over
14 bars of typical × volume where typical rose and where it fell. The stochastic RSI is TA-Lib's
STOCHRSI(14, fastk 14, fastd 3): `stochastic_rsi_14` is its unsmoothed %K, the signal its %D (the
smoothed %K of charting packages). Where nothing has moved RSI and MFI
are 50 and CCI is 0; where the RSI has not moved, by 1e-6 points, the stochastic RSI is 50.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families import rolling
from features.families.numeric import NEGLIGIBLE, wilder_warmup
from features.families.rolling import EXTREMES, fold_sums, rolling_extremes, rolling_sum
from features.kernels_cache import njit_inlined
from features.spec import Family, Feature

Slice = NDArray[np.float64]

BARS = 14
STILL = 1e-6
"""An RSI that stays within so many points has not moved: all that there is then is rounding."""

# State of `rsi`: averages, the two stochastics before this one, this window's extremes, then their window.
GAIN, LOSS, LAST, LAST_BUT_ONE, HIGHEST = range(5)
WINDOW = HIGHEST + EXTREMES


@njit_inlined
def rsi(state: Slice, out: Slice, close: float, previous_close: float, wilder_14: float, count: int) -> None:
    """Relative strength index, and where it stands among its last 14 values."""
    moved = close - previous_close
    state[GAIN] += (max(moved, 0.0) - state[GAIN]) * wilder_14
    state[LOSS] += (max(-moved, 0.0) - state[LOSS]) * wilder_14
    both = state[GAIN] + state[LOSS]
    index = 100.0 * state[GAIN] / both if both > 0.0 else 50.0
    rolling_extremes(state[WINDOW:], state[HIGHEST:WINDOW], (count - 1) % BARS, BARS, index)
    lowest = state[HIGHEST + 1]
    reach = state[HIGHEST] - lowest
    stochastic = 100.0 * (index - lowest) / reach if count >= BARS and reach > STILL else 50.0
    out[0] = index
    out[1] = stochastic
    out[2] = (stochastic + state[LAST] + state[LAST_BUT_ONE]) * (1.0 / 3.0)
    state[LAST_BUT_ONE] = state[LAST]
    state[LAST] = stochastic


CCI_BARS = 20
CCI_CONSTANT = 0.015


@njit_inlined
def cci(state: Slice, out: Slice, typical: float, count: int) -> None:
    """Commodity channel index. State: the typical prices by place in the block, then the window of sums."""
    phase = (count - 1) % CCI_BARS
    state[phase] = typical
    mean = rolling_sum(state[CCI_BARS:], phase, 1, 0, typical) * (1.0 / CCI_BARS)
    fold_sums(state[CCI_BARS:], phase, CCI_BARS, 1)
    # Four sums side by side: one alone would wait for itself at every addition.
    a = b = c = d = 0.0
    for i in range(0, CCI_BARS, 4):
        a += abs(state[i] - mean)
        b += abs(state[i + 1] - mean)
        c += abs(state[i + 2] - mean)
        d += abs(state[i + 3] - mean)
    spread = ((a + b) + (c + d)) * (1.0 / CCI_BARS)
    out[0] = (typical - mean) / (CCI_CONSTANT * spread) if spread > NEGLIGIBLE * mean else 0.0


# State of `mfi`: the last typical price, then the window of rising and falling flows.
MFI_WINDOW = 1


@njit_inlined
def mfi(state: Slice, out: Slice, typical: float, volume: float, count: int) -> None:
    """Money flow index."""
    rose = typical - state[0] if count > 1 else 0.0
    state[0] = typical
    flow = typical * volume
    # Sums of the same three prices in another order differ by rounding, which is no rise and no fall.
    still = NEGLIGIBLE * typical
    phase = (count - 1) % BARS
    rising = rolling_sum(state[MFI_WINDOW:], phase, 2, 0, flow if rose > still else 0.0)
    falling = rolling_sum(state[MFI_WINDOW:], phase, 2, 1, flow if rose < -still else 0.0)
    fold_sums(state[MFI_WINDOW:], phase, BARS, 2)
    both = rising + falling
    out[0] = 100.0 * rising / both if both > 0.0 else 50.0


def _points(name: str, warmup: int, formula: str, version: int, source: str) -> Feature:
    return Feature(name, warmup, formula, "points", 0.0, 100.0, 50.0, version, source=source)


STOCHASTIC_WARMUP = 280
"""Where the RSI has moved by a thousandth of a point it must be known to 1e-7 of one: (13/14)^266 is 3e-9."""

RSI = Family(
    "rsi",
    (
        _points("rsi_14", wilder_warmup(BARS), "100 G / (G + L), Wilder14 of gains, losses", 2, "Wilder (1978)"),
        _points(
            "stochastic_rsi_14",
            STOCHASTIC_WARMUP,
            "100 (RSI14 - lowest14) / (highest14 - lowest14)",
            1,
            "Chande, Kroll (1994)",
        ),
        _points(
            "stochastic_rsi_signal_14",
            STOCHASTIC_WARMUP + 2,
            "mean of 3 stochastic_rsi_14",
            1,
            "Chande, Kroll (1994)",
        ),
    ),
    WINDOW + rolling.state_size(BARS, EXTREMES),
    rsi,
)

_CCI_BOUND = 667.0
"""The last of n values differs from their mean by at most n/2 mean absolute deviations, so 10 / 0.015."""

CCI = Family(
    "cci",
    (
        Feature(
            "cci_20",
            CCI_BARS,
            "(typical - mean20) / (0.015 mean absolute deviation20)",
            "points",
            -_CCI_BOUND,
            _CCI_BOUND,
            100.0,
            version=2,
            source="Lambert (1980)",
        ),
    ),
    CCI_BARS + rolling.state_size(CCI_BARS, 1),
    cci,
)
MFI = Family(
    "mfi",
    (
        _points(
            "mfi_14",
            BARS + 1,
            "100 P / (P + N), sums over 14 of typical volume where typical rose, fell",
            1,
            "Quong, Soudack (1989)",
        ),
    ),
    MFI_WINDOW + rolling.state_size(BARS, 2),
    mfi,
)
