"""Some of many rows, evenly spaced, whatever repeats in their order.

Rows in order of time and symbol repeat themselves: with six symbols in step every sixth row is of the same one, and of
candidates in both directions every second one is long. Rows taken at a fixed distance would keep some symbols or
directions and lose the others, or have each in another stretch of time. So one row is taken of every stretch of
neighbours, at a place in it that moves by the golden section, which no period keeps step with. Nothing is drawn by
chance.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

GOLDEN = (math.sqrt(5) - 1) / 2

Rows = NDArray[np.int64]


def evenly(count: int, most: int) -> Rows:
    """At most `most` of the row numbers below `count`, ascending: one of each of so many equal stretches.

    >>> evenly(12, 4).tolist(), evenly(3, 4).tolist()
    ([0, 4, 6, 11], [0, 1, 2])
    """
    if count <= most:
        return np.arange(count, dtype=np.int64)
    edges = np.arange(most + 1, dtype=np.int64) * count // max(most, 1)
    return edges[:-1] + _places(most, np.diff(edges))


def one_in(every: int, count: int) -> NDArray[np.bool_]:
    """Which of `count` rows are kept of each `every` neighbours: one. More rows after them change nothing.

    >>> one_in(3, 9).nonzero()[0].tolist()
    [0, 4, 6]
    """
    rows = np.arange(count, dtype=np.int64)
    stretches = -(-count // every)
    places = _places(stretches, np.full(stretches, every, dtype=np.int64))
    return np.asarray(rows % every == places[rows // every])


def _places(stretches: int, lengths: Rows) -> Rows:
    """A row's place in each of so many stretches of these lengths."""
    turn = np.arange(stretches) * GOLDEN
    return np.asarray(np.floor((turn - np.floor(turn)) * lengths), dtype=np.int64)
