"""Splits in time that do not leak: a label trains only if it was known before its test begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.errors import SplitImpossible

Times = NDArray[np.int64]


class Split(NamedTuple):
    """Indices of the labels that train and of those that test, each in the order given."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def _check(decided_at: Times, known_at: Times, embargo_ms: int) -> None:
    if decided_at.shape != known_at.shape or decided_at.ndim != 1:
        raise SplitImpossible(f"{decided_at.shape} decisions and {known_at.shape} outcomes")
    if (known_at < decided_at).any():
        raise SplitImpossible("an outcome is known before its decision")
    if embargo_ms < 0:
        raise SplitImpossible(f"the embargo is {embargo_ms} ms")


def _before(known_at: Times, start_ms: int, embargo_ms: int) -> NDArray[np.int64]:
    """Labels whose outcome was known more than the embargo before `start_ms`."""
    return np.flatnonzero(known_at + embargo_ms < start_ms)


def holdout(decided_at: Times, known_at: Times, start_ms: int, embargo_ms: int = 0) -> Split:
    """Labels decided from `start_ms` on are held out; those known by `embargo_ms` before it train.

    What was decided before and known after belongs to neither.

    >>> import numpy as np
    >>> split = holdout(np.array([0, 10, 20, 30]), np.array([5, 25, 28, 40]), 20)
    >>> split.train.tolist(), split.test.tolist()
    ([0], [2, 3])
    """
    decided_at, known_at = np.asarray(decided_at), np.asarray(known_at)
    _check(decided_at, known_at, embargo_ms)
    return Split(_before(known_at, start_ms, embargo_ms), np.flatnonzero(decided_at >= start_ms))
