"""Sums, spreads and extremes over the last N bars, in constant time a bar and without drift.

Bars are cut into blocks of N by their count. A window of N bars is then the rest of the last block
and the part of the current one that has been seen:

    last block     [ . . . s s s s ]      kept as running results from each bar to the block's end
    current block  [ p p p ]              kept as one running result

so its result is one combination of two, nothing is ever subtracted, and it is as exact as if it had
been taken afresh: no drift, no cancellation when a large value leaves, and NaN in a window for exactly
as long as the window holds one. When a block is full its rows are turned into running results in
place (`fold_*`), which is N steps once in N bars. Row N stays the empty result. Until the first block
is full a sum is that of the bars that there are; spreads and extremes are not to be used before.

A state of N rows, each of `width` numbers, is `(N + 2) * width` long: the current block's result first,
then N + 1 rows. `phase` is the bar's place in its block, `(count - 1) % N`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import RECIPROCALS
from features.kernels_cache import njit_inlined

Slice = NDArray[np.float64]

SPREAD = 2
"""Width of a row of spreads: mean, sum of squared deviations."""
SPREAD_IN_TIME = 3
"""The same, and the sum of deviations times time."""
EXTREMES = 2
"""Width of a row of extremes: highest, lowest."""


def state_size(bars: int, width: int) -> int:
    """float64 numbers of state for a window of `bars` rows.

    >>> state_size(20, 3)
    66
    """
    return (bars + 2) * width


@njit_inlined
def rolling_sum(state: Slice, phase: int, width: int, column: int, value: float) -> float:
    """Take one column's value of this bar; the sum of that column over the window."""
    row = (phase + 1) * width + column
    state[row] = value
    state[column] += value
    total: float = state[column] + state[row + width]
    return total


@njit_inlined
def fold_sums(state: Slice, phase: int, bars: int, width: int) -> None:
    """After every column of a bar: end the block if it is full."""
    if phase == bars - 1:
        for at in range(bars * width - 1, width - 1, -1):
            state[at] += state[at + width]
        for column in range(width):
            state[column] = 0.0


@njit_inlined
def rolling_spread(state: Slice, out: Slice, phase: int, bars: int, width: int, value: float) -> None:
    """Take this bar's value; `out` becomes the window's mean, Σ(x - mean)² and, of width 3, Σ(i - middle)(x - mean).

    Source: Chan, Golub, LeVeque (1979) for combining two means and squares; the third follows likewise.
    """
    row = (phase + 1) * width
    state[row] = value
    if phase == 0:
        state[0] = value
        state[1] = 0.0
        if width > SPREAD:
            state[2] = 0.0
    else:
        before = value - state[0]
        state[0] += before * RECIPROCALS[phase + 1]
        state[1] += before * (value - state[0])
        if width > SPREAD:
            state[2] += before * (0.5 * phase)
    older = bars - 1 - phase
    apart = state[0] - state[row + width]
    share = (older * (phase + 1)) * (1.0 / bars)
    out[0] = state[0] - apart * (older * (1.0 / bars))
    out[1] = state[1] + state[row + width + 1] + apart * apart * share
    if width > SPREAD:
        out[2] = state[2] + state[row + width + 2] + apart * share * (0.5 * bars)
    if phase == bars - 1:
        _fold_spread(state, bars, width)


@njit_inlined
def _fold_spread(state: Slice, bars: int, width: int) -> None:
    """Turn the block's values into the spreads from each of them to the block's end."""
    row = bars * width
    mean = state[row]
    squares = 0.0
    with_time = 0.0
    state[row + 1] = 0.0
    if width > SPREAD:
        state[row + 2] = 0.0
    for held in range(1, bars):
        row -= width
        before = state[row] - mean
        mean += before * RECIPROCALS[held + 1]
        squares += before * (state[row] - mean)
        with_time -= before * (0.5 * held)
        state[row] = mean
        state[row + 1] = squares
        if width > SPREAD:
            state[row + 2] = with_time


@njit_inlined
def rolling_extremes(state: Slice, out: Slice, phase: int, bars: int, value: float) -> None:
    """Take this bar's value; `out` becomes the window's highest and lowest."""
    row = (phase + 1) * EXTREMES
    state[row] = value
    state[0] = value if phase == 0 else max(state[0], value)
    state[1] = value if phase == 0 else min(state[1], value)
    if phase == bars - 1:
        out[0] = state[0]
        out[1] = state[1]
        state[row + 1] = value
        for _ in range(bars - 1):
            value = state[row - EXTREMES]
            state[row - EXTREMES] = max(value, state[row])
            state[row - EXTREMES + 1] = min(value, state[row + 1])
            row -= EXTREMES
    else:
        out[0] = max(state[0], state[row + EXTREMES])
        out[1] = min(state[1], state[row + EXTREMES + 1])
