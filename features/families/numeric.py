"""Small compiled helpers of the families, and how long a recurrence remembers.

Division by zero has a declared value everywhere: `ratio` gives 0 when there is nothing to divide
by, and so does `in_unit` (a flat market, no volume), so that a feature is finite or NaN by rule, never by accident.
"""

from __future__ import annotations

import math

from features.kernels_cache import njit_inlined

LIMIT = 100.0
"""Distances in ATR are clipped to ±LIMIT: after a dead market the ATR can be next to nothing."""

RECIPROCALS = tuple(1.0 / max(n, 1) for n in range(65))
"""1/n for small n: the processor divides five times as slowly as it multiplies."""

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


@njit_inlined
def ratio(a: float, b: float) -> float:
    """a / b for a divisor that is never negative, 0 where it is zero."""
    if b > 0.0:
        return a / b
    return 0.0


@njit_inlined
def clip(value: float, limit: float) -> float:
    """`value` held within ±limit."""
    return min(max(value, -limit), limit)


@njit_inlined
def log_of_ratio(a: float, b: float) -> float:
    """ln(a / b) of positive numbers, by 2 artanh((a - b) / (a + b)): exact to rounding where a is next to b."""
    z = (a - b) / (a + b)
    if abs(z) > 0.1:
        return math.log(a / b)
    square = z * z
    series = 1.0 / 13.0 + square * (1.0 / 15.0)
    series = 1.0 / 9.0 + square * (1.0 / 11.0 + square * series)
    series = 1.0 / 5.0 + square * (1.0 / 7.0 + square * series)
    return 2.0 * z * (1.0 + square * (1.0 / 3.0 + square * series))


@njit_inlined
def in_unit(distance: float, per_unit: float) -> float:
    """A price difference in units of which `per_unit` is the reciprocal (0: there is no unit), within ±LIMIT."""
    return clip(distance * per_unit, LIMIT)


@njit_inlined
def ema_next(value: float, previous: float, span: int) -> float:
    """The exponential average moved on by one value. It starts as the first value."""
    return previous + (2.0 / (span + 1.0)) * (value - previous)
