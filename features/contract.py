"""What every feature of every specification keeps to, whatever it computes: one rule, one function.

`breaches(spec, bars)` holds all features to all rules on one series and says what was broken:

| rule | what holds |
|---|---|
| `documented` | its module's table has a line for it with formula, unit, range, warm-up and source (– for none) |
| `memory` | the state has a fixed size, under `MOST_STATE_BYTES` per series, and holds no NaN, as that would stay |
| `warm_up` | NaN exactly until the feature's own warm-up |
| `finite` | when warm: finite, or NaN where `Feature.nan` admits it; never infinite, not NaN throughout |
| `in_range` | when warm: from `Feature.low` to `Feature.high` |
| `scale_free` | prices or volumes 1024 times as large change no bit, where `Feature.scale_free` claims so |
| `gaps` | a short gap is bridged, a longer one begins a new origin, an impossible bar is passed over, live as well |
| `recovers` | flows that were unknown for a while leave no trace once the warm-up has passed again |
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from features import proofs
from features.engine import compute, new_state
from features.origins import counts, possible, with_holes
from features.spec import Family, FeatureSpec
from market.bars import OPTIONAL, PRICES, Bars

MOST_STATE_BYTES = 32 * 1024
"""State per series, of the whole specification."""

SCALE = 1024.0
"""A power of two, so that products and sums scale without rounding."""

HEADERS = ("formula", "unit", "range", "warm-up")
"""The columns beside the name in the table of a family's module, and `source` unless a paragraph tells it for all."""

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Breach:
    """A rule that a feature does not keep to. The feature is empty where it is the specification that does not."""

    rule: str
    feature: str
    reason: str

    def __str__(self) -> str:
        return f"{self.feature or 'the specification'} breaks {self.rule!r}: {self.reason}"


def expand(pattern: str) -> list[str]:
    """The names that a pattern with alternatives in braces stands for.

    >>> expand("ema_{9,21}_{distance,slope}")
    ['ema_9_distance', 'ema_9_slope', 'ema_21_distance', 'ema_21_slope']
    """
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in product(*parts)]


def documented_names(docstring: str) -> dict[str, dict[str, str]]:
    """The names in the first column of a docstring's tables, each with its line by the headers.

    >>> documented_names("| feature | warm-up |\\n|---|---|\\n| `rsi_14`, `rsi_7` | 160 |")["rsi_7"]
    {'feature': '`rsi_14`, `rsi_7`', 'warm-up': '160'}
    """
    found: dict[str, dict[str, str]] = {}
    header: list[str] = []
    for line in docstring.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        header = header or cells
        for pattern in re.findall(r"`([^`]+)`", cells[0]):
            found.update({name: dict(zip(header, cells, strict=False)) for name in expand(pattern)})
    return found


@dataclass(frozen=True)
class Evidence:
    """A specification, the bars it is tried on, and what it made of them in every way that a rule looks at."""

    spec: FeatureSpec
    bars: Bars

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Bars since the origin at each bar."""
        return counts(self.bars, self.spec.max_gap)

    @cached_property
    def warm(self) -> NDArray[np.bool_]:
        """Whether each feature counts at each bar, bool [n, F]."""
        return self.counts[:, None] >= np.array(self.spec.warmups)

    @cached_property
    def state(self) -> NDArray[np.float64]:
        """The state after the last bar."""
        state = new_state(self.spec)
        compute(self.bars, self.spec, state)
        return state

    @cached_property
    def rows(self) -> Rows:
        """The rows of the bars."""
        return compute(self.bars, self.spec)

    @cached_property
    def scaled(self) -> dict[str, Rows]:
        """The rows when prices, or volumes, are larger by `SCALE`."""
        columns = {
            "prices": (*PRICES, "quote_volume", "taker_buy_quote"),
            "volumes": ("volume", *OPTIONAL),
        }
        rows = {}
        for what, names in columns.items():
            bars = self.bars.copy()
            for name in names:
                bars[name] *= SCALE
            rows[what] = compute(bars, self.spec)
        return rows

    @cached_property
    def holed(self) -> Bars:
        """The bars with a short gap, an impossible bar and a long gap."""
        return with_holes(self.bars, self.spec.max_gap)

    @cached_property
    def holed_rows(self) -> Rows:
        """The rows of `holed`."""
        return compute(self.holed, self.spec)

    @cached_property
    def afresh(self) -> dict[int, Rows]:
        """The rows from each later origin of `holed` on, computed as a new series."""
        origins = np.flatnonzero(counts(self.holed, self.spec.max_gap) == 1)[1:]
        return {at: compute(self.holed[at:], self.spec) for at in origins.tolist()}

    @cached_property
    def kept_rows(self) -> Rows:
        """The rows of `holed` without its impossible bars."""
        return compute(self.holed[possible(self.holed)], self.spec)

    @cached_property
    def holed_live(self) -> dict[str, str]:
        """The features of which live rows over `holed` are not those of history, each with the reason."""
        cuts = proofs.cut_points(self.holed.size, 12)
        return {each.feature: str(each) for each in proofs.live(self.holed, cuts, self.spec)}

    @cached_property
    def blind(self) -> tuple[Rows, int]:
        """The rows when trades and takers are unknown for a tenth of the bars, and the first bar after that."""
        bars = self.bars.copy()
        start, stop = bars.size // 5, bars.size * 3 // 10
        for name in ("trades", "taker_buy_base", "taker_buy_quote"):
            bars[name][start:stop] = np.nan
        return compute(bars, self.spec), stop


def _documented(evidence: Evidence, column: int) -> Iterator[str]:
    feature = evidence.spec.features[column]
    family = _family(evidence.spec, column)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", feature.name):
        yield "its name is not made of lower-case words"
    if not feature.formula.strip():
        yield "it has no formula"
    if not feature.low < feature.high:
        yield f"its range {feature.low} to {feature.high} is none"
    if feature.warmup < 1 or feature.version < 1 or not feature.scale > 0:
        yield "warm-up, version and scale are positive"
    module = family.step.__module__
    docstring = sys.modules[module].__doc__ or ""
    line = documented_names(docstring).get(feature.name)
    if line is None:
        yield f"the docstring of {module} has no line for it"
        return
    for header in (*HEADERS, *(() if "\nSource: " in docstring else ("source",))):
        if not line.get(header):
            yield f"its line in the docstring of {module} has no {header}"
    if line.get("unit", "–").strip("–") != feature.unit:
        yield f"the docstring of {module} says unit {line['unit']}, it is {feature.unit or 'none'}"
    if line.get("warm-up", "").isdigit() and int(line["warm-up"]) != feature.warmup:
        yield f"the docstring of {module} says warm-up {line['warm-up']}, it is {feature.warmup}"


def _family(spec: FeatureSpec, column: int) -> Family:
    """The family that computes a column."""
    feature = spec.features[column]
    return next(family for family in spec.families if feature in family.features)


def _warm_up(evidence: Evidence, column: int) -> Iterator[str]:
    warm, nan = evidence.warm[:, column], np.isnan(evidence.rows[:, column])
    early = np.flatnonzero(~warm & ~nan)
    if early.size:
        yield f"bar {early[0]} has a value before its warm-up"
    late = np.flatnonzero(warm & nan)
    if late.size and not evidence.spec.features[column].nan:
        yield f"bar {late[0]} has none after its warm-up"


def _finite(evidence: Evidence, column: int) -> Iterator[str]:
    values = evidence.rows[evidence.warm[:, column], column]
    if np.isinf(values).any():
        yield f"it is infinite {int(np.isinf(values).sum())} times"
    if not values.size:
        yield f"{evidence.bars.size} bars are too few for its warm-up"
    elif np.isnan(values).all():
        yield "it is never anything but NaN"


def _in_range(evidence: Evidence, column: int) -> Iterator[str]:
    feature = evidence.spec.features[column]
    values = evidence.rows[evidence.warm[:, column], column]
    values = values[~np.isnan(values)]
    # The row is float32, so the bounds are rounded as it is.
    low, high = np.float32(feature.low), np.float32(feature.high)
    if values.size and (values.min() < low or values.max() > high):
        yield f"it goes from {values.min()} to {values.max()}, not {feature.low} to {feature.high}"


def _scale_free(evidence: Evidence, column: int) -> Iterator[str]:
    if not evidence.spec.features[column].scale_free:
        return
    expected = np.ascontiguousarray(evidence.rows[:, column])
    for what, rows in evidence.scaled.items():
        unlike = np.flatnonzero(_bits(rows[:, column]) != _bits(expected))
        if unlike.size:
            yield f"{what} x {SCALE:g} make bar {unlike[0]} {rows[unlike[0], column]}, not {expected[unlike[0]]}"


def _bits(column: Rows) -> NDArray[np.uint32]:
    """The bits of a column, all NaN alike."""
    column = np.ascontiguousarray(column)
    return np.where(np.isnan(column), np.float32(np.nan), column).view(np.uint32)


def _gaps(evidence: Evidence, column: int) -> Iterator[str]:
    spec, bars = evidence.spec, evidence.holed
    feature, found = spec.features[column], evidence.holed_rows[:, column]
    since = counts(bars, spec.max_gap)
    wrong = np.isnan(found) != (since < feature.warmup)
    if feature.nan:
        wrong &= ~np.isnan(found)
    if wrong.any():
        at = int(np.argmax(wrong))
        yield f"bar {at}, {since[at]} bars from its origin, is {found[at]} with a warm-up of {feature.warmup}"
    for at, rows in evidence.afresh.items():
        if (_bits(rows[:, column]) != _bits(found[at:])).any():
            yield f"after the long gap, from bar {at} on, it is not what it is for a new series"
    if (_bits(evidence.kept_rows[:, column]) != _bits(found[possible(bars)])).any():
        yield "an impossible bar is not passed over"
    if feature.name in evidence.holed_live:
        yield evidence.holed_live[feature.name]


def _recovers(evidence: Evidence, column: int) -> Iterator[str]:
    feature = evidence.spec.features[column]
    rows, stop = evidence.blind
    if not feature.nan and np.isnan(rows[evidence.warm[:, column], column]).any():
        yield "unknown flows make it NaN, which it does not admit"
    found, expected = rows[stop + feature.warmup :, column], evidence.rows[stop + feature.warmup :, column]
    unlike = proofs.beyond_tolerance(expected, found, np.array(feature.scale, dtype=np.float32))
    if unlike.any():
        at = int(np.argmax(unlike))
        yield f"{at + feature.warmup} bars after unknown flows it is {found[at]}, not {expected[at]}"


RULES: dict[str, Callable[[Evidence, int], Iterator[str]]] = {
    "documented": _documented,
    "warm_up": _warm_up,
    "finite": _finite,
    "in_range": _in_range,
    "scale_free": _scale_free,
    "gaps": _gaps,
    "recovers": _recovers,
}
"""The rules that each feature is held to by itself."""


def memory(evidence: Evidence) -> list[Breach]:
    """The state's size and content, for the whole specification and for each family and intermediate of it."""
    spec, state = evidence.spec, evidence.state
    found = []
    if state.nbytes >= MOST_STATE_BYTES or state.shape != (spec.state_size,):
        found.append(Breach("memory", "", f"a series takes {state.nbytes} bytes, {MOST_STATE_BYTES} are too many"))
    for user, start, stop in spec.layout():
        if np.isnan(state[start:stop]).any():
            found.append(Breach("memory", "", f"{user.name} keeps NaN, {int(np.isnan(state[start:stop]).sum())} times"))
    return found


def breaches(spec: FeatureSpec, bars: Bars) -> list[Breach]:
    """Everything that any feature of `spec` breaks on `bars`; they should be several times the longest warm-up."""
    evidence = Evidence(spec, bars)
    found = memory(evidence)
    for column, feature in enumerate(spec.features):
        for rule, broken in RULES.items():
            found += [Breach(rule, feature.name, reason) for reason in broken(evidence, column)]
    return found
