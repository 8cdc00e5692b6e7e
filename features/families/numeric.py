"""Small compiled helpers of the families, and how long a recurrence remembers.

Division by zero has a declared value everywhere: `ratio` and `in_atr` give 0 when there is nothing
to divide by (a flat market, no volume), so that a feature is finite or NaN by rule, never by accident.
"""

from __future__ import annotations

import math

from numpy.typing import NDArray

from features.kernels_cache import njit

LIMIT = 100.0
"""Distances in ATR are clipped to ±LIMIT: after a dead market the ATR can be next to nothing."""

NEGLIGIBLE = 1e-12
"""A spread of prices below this fraction of the price is rounding, and counts as none."""


def wilder_warmup(period: int, remnant: float = 2.1e-5) -> int:
    """Bars after which Wilder's average has forgotten its first ones: seeded over `period`, then to `remnant`.

    >>> wilder_warmup(14)
    160
    """
    return period + math.ceil(math.log(remnant) / math.log(1 - 1 / period))


def ema_warmup(span: int, remnant: float = 1e-6) -> int:
    """Bars after which an exponential average has forgotten its first ones; a price can start some ATRs away.

    >>> ema_warmup(21)
    145
    """
    return math.ceil(math.log(remnant) / math.log(1 - 2 / (span + 1)))


@njit
def ratio(a: float, b: float) -> float:
    """a / b for a divisor that is never negative, 0 where it is zero."""
    if b > 0.0:
        return a / b
    return 0.0


@njit
def clip(value: float, limit: float) -> float:
    """`value` held within ±limit."""
    return min(max(value, -limit), limit)


@njit
def in_atr(distance: float, atr: float) -> float:
    """A price difference in ATR, within ±LIMIT; 0 when the ATR is 0."""
    return clip(ratio(distance, atr), LIMIT)


@njit
def ema_next(value: float, previous: float, span: int, count: int) -> float:
    """The exponential average after bar `count`: a plain mean at first, until that would weigh a bar less."""
    weight = max(2.0 / (span + 1.0), 1.0 / count)
    return previous + weight * (value - previous)


@njit
def wilder_next(value: float, previous: float, period: int, count: int) -> float:
    """Wilder's average after its `count`-th value: the mean of the first `period`, then 1/period for each."""
    return previous + (value - previous) / min(count, period)


@njit
def mean_of(window: NDArray, start: int) -> float:  # type: ignore[type-arg]
    """The mean of window[start:]. Four sums side by side: one alone would wait for itself at every addition."""
    a = b = c = d = 0.0
    size = window.size - start
    i = start
    for _ in range(size // 4):
        a += window[i]
        b += window[i + 1]
        c += window[i + 2]
        d += window[i + 3]
        i += 4
    while i < window.size:
        a += window[i]
        i += 1
    return ((a + b) + (c + d)) / size


@njit
def deviation_of(window: NDArray, start: int, mean: float) -> float:  # type: ignore[type-arg]
    """The population standard deviation of window[start:] around its mean; rounding noise counts as 0."""
    a = b = c = d = 0.0
    size = window.size - start
    i = start
    for _ in range(size // 4):
        a += (window[i] - mean) ** 2
        b += (window[i + 1] - mean) ** 2
        c += (window[i + 2] - mean) ** 2
        d += (window[i + 3] - mean) ** 2
        i += 4
    while i < window.size:
        a += (window[i] - mean) ** 2
        i += 1
    deviation = math.sqrt(((a + b) + (c + d)) / size)
    if deviation <= NEGLIGIBLE * abs(mean):
        return 0.0
    return deviation
