"""Proofs that features look at nothing but the past, and forget where they began.

Each takes bars and returns what it caught, at most one `Failure` per feature: an empty list is a proof
on those bars. All take any function from bars to rows as their history, so that a feature that cheats
can be put to the same test; `reads_ahead` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features.default import SPEC
from features.engine import FeatureEngine, compute
from features.origins import counts
from features.spec import FeatureSpec
from market.bars import FLOWS, PRICES, Bars

Rows = NDArray[np.float32]
RowsOf = Callable[[Bars], Rows]
State = NDArray[np.float64]

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


def cut_points(length: int, count: int, seed: int = 1) -> list[int]:
    """Up to `count` places in 1 .. length - 1, ascending: one in each of as many equal parts, `seed` says where.

    >>> cut_points(10, 3), cut_points(4, 200)
    ([3, 4, 7], [1, 2, 3])
    """
    count = max(min(count, length - 1), 0)
    state, cuts = seed, []
    for part in range(count):
        start, stop = 1 + part * (length - 1) // count, 1 + (part + 1) * (length - 1) // count
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        cuts.append(start + (state >> 33) % (stop - start))
    return cuts


def reads_ahead(bars: Bars) -> Rows:
    """The positive control, float32 [n, 1]: each bar's row is the return of the bar after it."""
    rows = np.full((bars.size, 1), np.nan, dtype=np.float32)
    rows[:-1, 0] = bars["close"][1:] / bars["close"][:-1] - 1.0
    return rows


def differences(
    proof: str, names: Sequence[str], expected: Rows, found: Rows, offset: int = 0, caught: Iterable[Failure] = ()
) -> list[Failure]:
    """The first bar of each column, among those not yet `caught`, at which two tables differ in a bit."""
    unlike = np.ascontiguousarray(expected).view(np.uint32) != np.ascontiguousarray(found).view(np.uint32)
    if not unlike.any():
        return []
    known = {failure.feature for failure in caught}
    failures = []
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
        failures += differences("prefix", names, whole[:cut], rows_of(bars[:cut]), 0, failures)
    return failures


def _dear(tail: Bars) -> None:
    """Prices that keep their order, so that they get past the check for impossible bars, and unknown flows."""
    for name in (*PRICES, *FLOWS):
        tail[name] *= 1_000.0 if name in PRICES else np.nan
    tail["volume"] = 1e12


def _cheap(tail: Bars) -> None:
    """Prices next to nothing, and no trade."""
    for name in (*PRICES, *FLOWS):
        tail[name] *= 1e-6 if name in PRICES else 0.0


def _backward(tail: Bars) -> None:
    """The bars that come, in the wrong order: every value plausible."""
    for name in (*PRICES, *FLOWS):
        tail[name] = tail[name][::-1].copy()


def _impossible(tail: Bars) -> None:
    """Nothing that can be computed with."""
    for name in (*PRICES, *FLOWS):
        tail[name] = np.nan


def _late(tail: Bars) -> None:
    """All a hundred days later: behind a gap that nothing bridges."""
    for name in ("open_time", "close_time"):
        tail[name] += 100 * 86_400_000


GARBAGE: tuple[Callable[[Bars], None], ...] = (_dear, _cheap, _backward, _impossible, _late)
"""What `poison` makes of the bars after a cut, by turns."""


def poison(rows_of: RowsOf, names: Sequence[str], bars: Bars, cuts: Iterable[int]) -> list[Failure]:
    """Garbage from bar `cut` on changes no row before it, for every cut; `GARBAGE` by turns."""
    whole = rows_of(bars)
    failures: list[Failure] = []
    for turn, cut in enumerate(cuts):
        poisoned = bars.copy()
        GARBAGE[turn % len(GARBAGE)](poisoned[cut:])
        failures += differences("poison", names, whole[:cut], rows_of(poisoned)[:cut], 0, failures)
    return failures


def through_bytes(state: State) -> State:
    """A state as it comes back from where its bytes were stored."""
    return np.frombuffer(state.tobytes(), dtype="<f8").reshape(state.shape).copy()


def live(
    bars: Bars,
    cuts: Sequence[int],
    spec: FeatureSpec = SPEC,
    rows_of: RowsOf | None = None,
    stored: Callable[[State], State] = through_bytes,
) -> list[Failure]:
    """One bar at a time, with a restart from a stored state at every cut, gives the rows of history.

    The engine has a second series, of other prices, that must not be felt. Stretches between cuts are
    taken by turns one bar at a time and all at once.
    """
    whole = compute(bars, spec) if rows_of is None else rows_of(bars)
    found = np.empty_like(whole)
    other = bars.copy()
    _dear(other)
    both = np.stack((bars, other), axis=1)
    rows = np.arange(2)
    state = np.zeros((2, spec.state_size))
    edges = [0, *sorted(cuts), len(bars)]
    for turn, (start, stop) in enumerate(pairwise(edges)):
        engine = FeatureEngine(2, spec)
        engine.restore(stored(state))
        if turn % 2:
            found[start:stop] = compute(bars[start:stop], spec, engine.state[0])
            compute(other[start:stop], spec, engine.state[1])
        else:
            for at in range(start, stop):
                found[at] = engine.update(rows, both[at])[0]
        state = engine.state.copy()
    return differences("live", spec.names, whole, found)


def beyond_tolerance(expected: Rows, found: Rows, scales: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which values disagree by more than `TOLERANCE`, with one scale a column; two NaN agree."""
    with np.errstate(invalid="ignore"):
        allowed = TOLERANCE * np.maximum(np.maximum(np.abs(found), np.abs(expected)), scales)
        unlike = ~(np.abs(found - expected) <= allowed) & ~(np.isnan(found) & np.isnan(expected))
    return np.asarray(unlike)


def forgetting(
    bars: Bars, origins: Iterable[int], spec: FeatureSpec = SPEC, rows_of: RowsOf | None = None
) -> list[Failure]:
    """From its warm-up on, every feature of a series that begins at an origin agrees with the whole series."""
    rows_of = rows_of or partial(compute, spec=spec)
    whole = rows_of(bars)
    warmups = np.array(spec.warmups)
    scales = np.array([feature.scale for feature in spec.features], dtype=np.float32)
    failures: dict[str, Failure] = {}
    for origin in origins:
        later, expected = rows_of(bars[origin:]), whole[origin:]
        unlike = beyond_tolerance(expected, later, scales)
        unlike &= counts(bars[origin:], spec.max_gap)[:, None] >= warmups
        for column in np.flatnonzero(unlike.any(axis=0)):
            bar = int(np.argmax(unlike[:, column]))
            values = float(expected[bar, column]), float(later[bar, column])
            failures.setdefault(spec.names[column], Failure("forgetting", spec.names[column], bar + origin, *values))
    return list(failures.values())
