"""Proofs that features look at nothing but the past, and forget where they began.

Each takes bars and returns what it caught, at most one `Failure` per feature: an empty list is a proof
on those bars. `prefix` and `poison` take any function from bars to rows, so that a feature that cheats
can be put to the same test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.default import SPEC
from features.engine import FeatureEngine, compute
from features.spec import FeatureSpec
from market.bars import FLOWS, PRICES, Bars

Rows = NDArray[np.float32]
RowsOf = Callable[[Bars], Rows]

TOLERANCE = 1e-4
"""How closely two origins agree after the warm-up, relative to the larger of the value and the feature's scale."""


@dataclass(frozen=True)
class Failure:
    """One feature that did not hold."""

    proof: str
    feature: str
    bar: int
    """The first bar whose value differs."""
    expected: float
    found: float

    def __str__(self) -> str:
        return f"{self.proof}: {self.feature} at bar {self.bar} is {self.found!r}, not {self.expected!r}"


def _differences(
    proof: str, names: Sequence[str], expected: Rows, found: Rows, offset: int = 0, caught: Iterable[Failure] = ()
) -> list[Failure]:
    """The first bar of each column, among those not yet `caught`, at which two tables differ in a bit."""
    known = {failure.feature for failure in caught}
    failures = []
    unlike = np.ascontiguousarray(expected).view(np.uint32) != np.ascontiguousarray(found).view(np.uint32)
    # A NaN is a NaN, whichever of its bit patterns it has.
    unlike &= ~(np.isnan(expected) & np.isnan(found))
    for column in np.flatnonzero(unlike.any(axis=0)).tolist():
        if names[column] not in known:
            bar = int(np.argmax(unlike[:, column]))
            values = float(expected[bar, column]), float(found[bar, column])
            failures.append(Failure(proof, names[column], bar + offset, *values))
    return failures


def prefix(rows_of: RowsOf, names: Sequence[str], bars: Bars, cuts: Iterable[int]) -> list[Failure]:
    """Rows of the first `cut` bars alone are the first rows of all bars, to the bit, for every cut."""
    whole = rows_of(bars)
    failures: list[Failure] = []
    for cut in cuts:
        failures += _differences("prefix", names, whole[:cut], rows_of(bars[:cut]), 0, failures)
    return failures


def poison(rows_of: RowsOf, names: Sequence[str], bars: Bars, cuts: Iterable[int]) -> list[Failure]:
    """Garbage from bar `cut` on changes no row before it, for every cut."""
    whole = rows_of(bars)
    failures: list[Failure] = []
    for cut in cuts:
        poisoned = bars.copy()
        for name in (*PRICES, *FLOWS):
            # Prices that keep their order, so that they get past the check for impossible bars, and NaN flows.
            poisoned[name][cut:] *= 1_000.0 if name in PRICES else np.nan
        poisoned["volume"][cut:] = 1e12
        failures += _differences("poison", names, whole[:cut], rows_of(poisoned)[:cut], 0, failures)
    return failures


def live(bars: Bars, cuts: Sequence[int], spec: FeatureSpec = SPEC) -> list[Failure]:
    """One bar at a time, with a restart from a copy of the state at every cut, gives the rows of history.

    Stretches between cuts are taken by turns one bar at a time and all at once.
    """
    whole = compute(bars, spec)
    found = np.empty_like(whole)
    row = np.zeros(1, dtype=np.int64)
    state = np.zeros((1, spec.state_size))
    edges = [0, *sorted(cuts), len(bars)]
    for turn, (start, stop) in enumerate(pairwise(edges)):
        engine = FeatureEngine(1, spec)
        engine.restore(state)
        if turn % 2:
            found[start:stop] = compute(bars[start:stop], spec, engine.state[0])
        else:
            for at in range(start, stop):
                found[at] = engine.update(row, bars[at : at + 1])[0]
        state = engine.state.copy()
    return _differences("live", spec.names, whole, found)


def forgetting(bars: Bars, origins: Iterable[int], spec: FeatureSpec = SPEC) -> list[Failure]:
    """From its warm-up on, every feature of a series that begins at an origin agrees with the whole series."""
    whole = compute(bars, spec)
    warmups = np.array(spec.warmups)
    scales = np.array([feature.scale for feature in spec.features])
    failures: dict[str, Failure] = {}
    for origin in origins:
        later, expected = compute(bars[origin:], spec), whole[origin:]
        allowed = TOLERANCE * np.maximum(np.maximum(np.abs(later), np.abs(expected)), scales)
        unlike = ~(np.abs(later - expected) <= allowed) & ~(np.isnan(later) & np.isnan(expected))
        unlike &= np.arange(len(later))[:, None] >= warmups - 1
        for column in np.flatnonzero(unlike.any(axis=0)):
            bar = int(np.argmax(unlike[:, column]))
            values = float(expected[bar, column]), float(later[bar, column])
            failures.setdefault(spec.names[column], Failure("forgetting", spec.names[column], bar + origin, *values))
    return list(failures.values())
