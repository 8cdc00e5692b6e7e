"""All proofs on one series of somebody's own bars, and what they could not say.

A feature counts as checked when it was warm for at least `WARM_BARS` bars of one unbroken stretch, so that
every proof had values of it to compare. What had none is listed with the reason: it is never taken for proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from features import proofs
from features.engine import compute
from features.origins import counts, stretches, with_holes
from features.proofs import Failure, RowsOf, cut_points
from features.spec import Family, FeatureSpec, parameter_names
from market.bars import OPTIONAL, Bars

PROOFS = ("prefix", "poison", "live", "forgetting", "range")
"""What is checked, in order. `range`: when warm a value is finite and within its declared bounds, or NaN by rule."""

WARM_BARS = 100
"""How many bars of a stretch a feature must be warm for."""

RESTARTS = 24
"""Restarts from a stored state in the live run."""

FIRST_ORIGINS = (1, 2, 7, 37)
"""Origins this many bars after the start of the longest stretch; every feature that is not short is warm with these."""
MORE_ORIGINS = 12
"""And so many spread over all of it."""

Progress = Callable[[str, int, int], None]
"""Told the proof, how many of its steps are done, and how many there are."""


@dataclass(frozen=True)
class Caught:
    """A failure and the open time of its bar."""

    failure: Failure
    open_time: int


@dataclass(frozen=True)
class Checked:
    """What the proofs said of one series."""

    bars: int
    cuts: int
    origins: int
    stretch: int
    """Bars of the longest stretch without a gap that begins a new origin."""
    gaps: tuple[tuple[int, int, int], ...]
    """Gaps that began a new origin: bars missing, open time of the first missing one and of the next bar."""
    caught: tuple[Caught, ...]
    short: dict[str, int]
    """Features that were not warm for long enough, with the bars in one stretch that they take."""
    unmeasured: dict[str, str]
    """Features that were NaN by rule throughout, with the reason."""
    lacking: tuple[str, ...]
    """Columns of the bars that are unknown throughout."""
    control: tuple[str, ...]
    """The proofs that caught the positive control; both of `prefix` and `poison` should."""


def ignored(proof: str, done: int, total: int) -> None:
    """No progress is shown."""


def counted(steps: list[int], proof: str, progress: Progress) -> Iterator[int]:
    """`steps`, telling `progress` as they are taken."""
    for done, step in enumerate(steps):
        progress(proof, done, len(steps))
        yield step
    progress(proof, len(steps), len(steps))


def control(bars: Bars, cuts: int = 8) -> tuple[str, ...]:
    """The proofs that catch a feature which reads one bar ahead, on the first bars."""
    some = bars[:2000]
    at = cut_points(some.size, cuts)
    return tuple(p.__name__ for p in (proofs.prefix, proofs.poison) if p(proofs.reads_ahead, ("ahead",), some, at))


def check(
    bars: Bars,
    spec: FeatureSpec,
    *,
    cuts: int = 200,
    seed: int = 1,
    rows_of: RowsOf | None = None,
    progress: Progress = ignored,
) -> Checked:
    """All `PROOFS` for every feature of `spec` on one series. `rows_of` stands in for its history."""
    rows_of = rows_of or partial(compute, spec=spec)
    at = cut_points(bars.size, cuts, seed)
    whole = stretches(bars, spec.max_gap)
    start, stop = max(whole, key=lambda each: each[1] - each[0], default=(0, 0))
    origins = _origins(start, stop, min(spec.warmups))
    found: list[tuple[Bars, Iterable[Failure]]] = [
        (bars, proofs.prefix(rows_of, spec.names, bars, counted(at, "prefix", progress))),
        (bars, proofs.poison(rows_of, spec.names, bars, counted(at, "poison", progress))),
    ]
    for done, series in enumerate((bars, with_holes(bars, spec.max_gap))):
        progress("live", done, 2)
        found.append((series, proofs.live(series, cut_points(series.size, RESTARTS, seed), spec, rows_of)))
    found.append((bars, proofs.forgetting(bars, counted(origins, "forgetting", progress), spec, rows_of)))
    rows = rows_of(bars)
    warm = counts(bars, spec.max_gap)[:, None] >= np.array(spec.warmups)
    found.append((bars, outside(rows, warm, spec)))
    lacking = tuple(name for name in OPTIONAL if bars.size and np.isnan(bars[name]).all())
    short = {f.name: f.warmup + WARM_BARS for f in spec.features if stop - start < f.warmup + WARM_BARS}
    return Checked(
        bars=bars.size,
        cuts=len(at),
        origins=len(origins),
        stretch=stop - start,
        gaps=_gaps(bars, [each[0] for each in whole[1:]]),
        caught=_first_each(found),
        short=short,
        unmeasured={name: why for name, why in _unmeasured(rows, warm, spec, lacking) if name not in short},
        lacking=lacking,
        control=control(bars),
    )


def outside(rows: NDArray[np.float32], warm: NDArray[np.bool_], spec: FeatureSpec) -> list[Failure]:
    """Features with a warm value that is infinite, outside the declared bounds, or NaN without a rule for it."""
    failures = []
    for column, feature in enumerate(spec.features):
        values, counted = rows[:, column], warm[:, column]
        low, high = np.float32(feature.low), np.float32(feature.high)
        wrong = counted & ((values < low) | (values > high) | np.isinf(values) | (np.isnan(values) & (not feature.nan)))
        if wrong.any():
            bar = int(np.argmax(wrong))
            expected = high if values[bar] > high or np.isposinf(values[bar]) else low
            failures.append(Failure("range", feature.name, bar, float(expected), float(values[bar])))
    return failures


def _origins(start: int, stop: int, least: int) -> list[int]:
    """Where the series is begun anew, ascending: soon after the start of a stretch, and all over it."""
    last = stop - least - WARM_BARS
    spread = np.linspace(start + 1, max(last, start + 1), MORE_ORIGINS, dtype=np.int64).tolist()
    return sorted({origin for origin in (*(start + first for first in FIRST_ORIGINS), *spread) if origin <= last})


def _gaps(bars: Bars, starts: list[int]) -> tuple[tuple[int, int, int], ...]:
    """The gap before each of the bars at `starts`."""
    found = []
    for start in starts:
        before, after = bars[start - 1], bars[start]
        step = int(after["close_time"] - after["open_time"]) + 1
        first, end = int(before["open_time"]) + step, int(after["open_time"])
        found.append(((end - first) // step, first, end))
    return tuple(found)


def _first_each(found: list[tuple[Bars, Iterable[Failure]]]) -> tuple[Caught, ...]:
    """One failure per proof and feature, with its time."""
    caught: dict[tuple[str, str], Caught] = {}
    for bars, failures in found:
        for failure in failures:
            open_time = int(bars["open_time"][failure.bar])
            caught.setdefault((failure.proof, failure.feature), Caught(failure, open_time))
    return tuple(caught.values())


def asks_for(spec: FeatureSpec, family: Family) -> set[str]:
    """The bar's columns that a family asks for, itself or through an intermediate."""
    shared = {each.name: each for each in spec.shared}
    asked: set[str] = set()
    waiting = list(parameter_names(family.step))
    while waiting:
        name = waiting.pop()
        if name not in asked:
            asked.add(name)
            waiting += parameter_names(shared[name].step) if name in shared else ()
    return asked


def _unmeasured(
    rows: NDArray[np.float32], warm: NDArray[np.bool_], spec: FeatureSpec, lacking: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Features without a single value when warm, each with the reason."""
    for family in spec.families:
        missing = sorted(asks_for(spec, family) & set(lacking))
        for feature in family.features:
            column = spec.index(feature.name)
            if feature.nan and np.isnan(rows[warm[:, column], column]).all():
                yield feature.name, f"the bars have no {', '.join(missing)}" if missing else NOTHING


NOTHING = "there was nothing to measure"
"""Why a feature is unmeasured although the bars have every column that it asks for."""
