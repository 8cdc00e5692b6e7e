"""A bounded list of zones inside a state, and which of them is nearest to price.

Zones lie in slots of equal size side by side, the oldest first. When one comes and every slot is
taken, the oldest goes. So what becomes of a zone hangs on the bars and the zones after it alone, never
on older ones: two series of different origins hold the same zones once the oldest that can be left was
born after both origins.

The nearest zone is the one whose middle is nearest to the close, of two equally near ones the lower,
of two with the same middle the younger. Middles part the prices into stretches with one nearest zone
each, so it is looked for again only when the close leaves its stretch or a zone comes or goes. The
answer is the same as if it were looked for at every bar.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from features.kernels_cache import njit, njit_inlined

Slice = NDArray[np.float64]

ZONE_BARS = 160
"""Bars that a zone lives at most, from its confirmation on."""

# How every slot begins: the middle of the zone, and the count of the bar that confirmed it.
MIDDLE, BORN = range(2)

# How every list begins: slots taken; the count from which on the oldest is too old; the stretch of closes
# (above, up to) whose nearest zone it is, and where that zone's slot begins.
USED, EXPIRY, FROM, TO, NEAREST = range(5)


@njit
def remove(slots: Slice, size: int, used: int, index: int) -> None:
    """Take slot `index` of `used` out; the younger ones move down and stay in order."""
    for i in range(index * size, (used - 1) * size):
        slots[i] = slots[i + size]


@njit
def place(slots: Slice, size: int, used: int) -> int:
    """The index for a new zone behind `used` others; when there is no slot left the oldest zone goes."""
    if used * size < slots.size:
        return used
    remove(slots, size, used, 0)
    return used - 1


@njit_inlined
def strayed(head: Slice, close: float) -> bool:
    """Whether the nearest zone is no longer the nearest."""
    # Both looked at, not one after the other: a single branch, which is guessed better than two.
    left: bool = (close <= head[FROM]) | (close > head[TO])
    return left


@njit
def survey(head: Slice, slots: Slice, size: int, close: float) -> None:
    """Look for the nearest zone, after zones have come or gone or the close has left its stretch."""
    used = int(head[USED])
    head[FROM], head[TO], head[EXPIRY] = -np.inf, np.inf, np.inf
    if used == 0:
        return
    head[EXPIRY] = slots[BORN] + ZONE_BARS
    nearest = 0
    for at in range(size, used * size, size):
        border = (slots[at + MIDDLE] + slots[nearest + MIDDLE]) / 2.0
        lower = slots[at + MIDDLE] < slots[nearest + MIDDLE]
        if lower == (close <= border) or slots[at + MIDDLE] == slots[nearest + MIDDLE]:
            nearest = at
    for at in range(0, used * size, size):
        border = (slots[at + MIDDLE] + slots[nearest + MIDDLE]) / 2.0
        if slots[at + MIDDLE] < slots[nearest + MIDDLE]:
            head[FROM] = max(head[FROM], border)
        elif slots[at + MIDDLE] > slots[nearest + MIDDLE]:
            head[TO] = min(head[TO], border)
    head[NEAREST] = nearest
