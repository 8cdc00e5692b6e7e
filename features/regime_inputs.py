"""What the last bars say of the regime to come: a compact row of numbers per decision row.

Made of nothing but the decision row and its window, so history, training and live have the same bits, and a restart
loses nothing. The window holds each bar's prices as moves from the close before, in the ATR of that bar. Wilder's
average can be run backwards (`ATR before = ATR * (14 - true range in ATR) / 13`), so the path of the last bars is
known in today's ATR.

| inputs | meaning | range |
|---|---|---|
| `is_ranging`, `is_trending`, `is_volatile` | the regime now | 0, 1 |
| `<regime>_bars` | ln(1 + `regime_bars`) in that regime, else 0; so the three below | >= 0 |
| `<regime>_adx` | ADX(14) / 25 | 0..4 |
| `<regime>_directed` | abs(+DI - -DI) / (+DI + -DI) | 0..1 |
| `<regime>_width` | ln(Bollinger width / (ATR / close)) | about 0..3 |
| `volatility_ratio` | of the row, at most 10 | 0..10 |
| `efficiency` | abs(net move) / sum of the closes' absolute moves, over the last `lookback` bars | 0..1 |
| `directedness` | abs(plus - minus) / (plus + minus) directional movement over them | 0..1 |
| `mean_range` | mean true range | ATR |
| `span` | ln(0.1 + highest high - lowest low) | ln ATR |
| `spread` | ln(0.1 + standard deviation of the closes) | ln ATR |
| `half_...` | the same five over the last half of those bars | |

A row of which anything is unknown is NaN throughout: there is no forecast for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.kernels_cache import njit
from features.regimes import FEWEST_BARS as FEWEST_BARS
from features.regimes import HORIZON_MS as HORIZON_MS
from features.regimes import INPUTS as INPUTS
from features.regimes import RANGING as RANGING
from features.regimes import REGIMES as REGIMES
from features.regimes import STATES as STATES
from features.regimes import TRENDING as TRENDING
from features.regimes import VOLATILE as VOLATILE
from features.regimes import regime_states as regime_states

HIGH, LOW, CLOSE = 1, 2, 3
"""Where the window has the moves of each bar's high, low and close."""
_PERIOD = 14.0


def regime_inputs(states: NDArray[np.float32], windows: NDArray[np.float32], lookback: int) -> NDArray[np.float32]:
    """The inputs [k, 26] of rows with `states` [k, 8] and `windows` [k, W, C], from the last `lookback` bars.

    `lookback` lies between 4 and the window's length; `ValueError` otherwise. Row by row, so a batch can be split
    anyhow.
    """
    if not FEWEST_BARS <= lookback <= windows.shape[1]:
        raise ValueError(f"a lookback of {lookback} bars: from {FEWEST_BARS} to the window's {windows.shape[1]}")
    out = np.empty((len(states), len(INPUTS)), dtype=np.float32)
    _fill(np.require(states, np.float32, ["C", "W"]), np.require(windows, np.float32, ["C", "W"]), int(lookback), out)
    out[~np.isfinite(out).all(axis=1)] = np.nan
    return out


@njit
def _fill(states: NDArray[np.float32], windows: NDArray[np.float32], lookback: int, out: NDArray[np.float32]) -> None:
    """All rows."""
    for i in range(len(states)):
        for j in range(out.shape[1]):
            out[i, j] = 0.0
        _of_state(states[i], out[i])
        _of_path(windows[i], lookback, out[i, 16:21])
        _of_path(windows[i], max(lookback // 2, 2), out[i, 21:26])


@njit
def _of_state(state: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """The first sixteen."""
    known = state[0] == 0.0 or state[0] == 1.0 or state[0] == 2.0
    if not known:
        out[0] = np.nan
        return
    regime = int(state[0])
    both = float(state[3]) + float(state[4])
    atr = float(state[6])
    out[regime] = 1.0
    at = 3 + 4 * regime
    out[at] = np.log1p(float(state[1]))
    out[at + 1] = float(state[2]) / 25.0
    out[at + 2] = abs(float(state[3]) - float(state[4])) / both if both > 0.0 else 0.0
    # A market that does not move has neither width nor range.
    width = float(state[5]) / atr if atr > 0.0 else 1.0
    out[at + 3] = np.log(max(width, 0.01)) if width == width else np.nan
    out[15] = min(float(state[7]), 10.0)
    if not (both == both and atr == atr and state[7] == state[7]):
        out[0] = np.nan


@njit
def _of_path(window: NDArray[np.float32], bars: int, out: NDArray[np.float32]) -> None:
    """The five of the last `bars` bars, walking back from the last close, which is 0, in its ATR."""
    size = len(window)
    scale = 1.0
    close = 0.0
    walked = 0.0
    ranges = 0.0
    total = 0.0
    squares = 0.0
    top = -np.inf
    bottom = np.inf
    plus = 0.0
    minus = 0.0
    later_high = 0.0
    later_low = 0.0
    unknown = 0.0
    for back in range(bars):
        bar = window[size - 1 - back]
        move = float(bar[CLOSE])
        true_range = max(float(bar[HIGH]), 0.0) - min(float(bar[LOW]), 0.0)
        unknown += float(bar[HIGH]) + float(bar[LOW]) + move
        before = close - move * scale
        high = before + float(bar[HIGH]) * scale
        low = before + float(bar[LOW]) * scale
        if back > 0:
            up = later_high - high
            down = low - later_low
            if up > down and up > 0.0:
                plus += up
            elif down > up and down > 0.0:
                minus += down
        later_high = high
        later_low = low
        walked += abs(move) * scale
        ranges += true_range * scale
        total += close
        squares += close * close
        top = max(top, high)
        bottom = min(bottom, low)
        close = before
        # An ATR of this bar alone leaves none before it.
        scale *= max(_PERIOD - true_range, 0.0) / (_PERIOD - 1.0)
    out[0] = abs(close) / walked if walked > 0.0 else 0.0
    out[1] = abs(plus - minus) / (plus + minus) if plus + minus > 0.0 else 0.0
    out[2] = ranges / bars
    out[3] = np.log(0.1 + max(top - bottom, 0.0))
    out[4] = np.log(0.1 + np.sqrt(max(squares / bars - (total / bars) ** 2, 0.0)))
    if not np.isfinite(unknown):
        out[0] = np.nan
