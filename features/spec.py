"""What a specification of features is: families of features, composed and named.

A family computes several features that share their work, as one compiled recurrence
`step(state, out, ...)`: `state` is the family's slice of a series' flat float64 state, `out` its
slice of the row. Everything else that a step needs it asks for by parameter name, and the
composition passes it in:

- the bar: `open_time`, `interval` (ms), `open_`, `high`, `low`, `close`, `volume`, `quote_volume`,
  `trades`, `taker_buy_base`, `taker_buy_quote`;
- `count`: bars since the series' origin, this one included;
- a `Shared` intermediate by its name (`atr`, `highs`, ...), computed once per bar for all who ask;
- one of the family's own `parameters`, as a literal.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from features.errors import SpecInvalid

BAR_INPUTS = (
    "open_time",
    "interval",
    "open_",
    "high",
    "low",
    "close",
    "volume",
    "quote_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "count",
)
"""What every step may ask for besides the shared intermediates."""

HEADER = 4
"""The first state slots of every series: see `COUNT` and what follows it."""
COUNT, LAST, ORIGIN, MISSING = range(HEADER)
"""Bars since the origin, the last one's open_time, the first one's, and the bars missing before that (0: none)."""

Parameters = tuple[tuple[str, float], ...]


def parameter_names(step: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a step's parameters, in order; works on a compiled function too."""
    return tuple(inspect.signature(step).parameters)


@dataclass(frozen=True)
class Feature:
    """One column: what it means, and from which bar on it counts."""

    name: str
    warmup: int
    """Bars since the origin, this one included, from which on the value counts; before that it is NaN."""
    formula: str
    unit: str
    low: float
    """The least value it can take (a bound, not an expectation)."""
    high: float
    """The greatest value it can take."""
    scale: float = 1.0
    """Its usual size: agreement of two origins is relative to the larger of this and the value."""
    version: int = 1
    """Raised whenever the same bars would give other numbers."""
    nan: bool = False
    """Whether it may be NaN when warm: where the source lacks a column, or there is nothing to measure."""
    required: bool = True
    """Whether a ready row waits for it. Not for what remembers too long to be waited for, nor for what may be NaN."""
    scale_free: bool = True
    """Whether prices or volumes 1024 times as large change nothing, to the bit."""
    source: str = ""
    """Where the formula comes from."""


@dataclass(frozen=True)
class Shared:
    """An intermediate that several families need."""

    name: str
    state_size: int
    step: Callable[..., Any]
    """Returns the value; for a window, where in the state it begins."""
    parameters: Parameters = ()
    version: int = 1
    window: int = 0
    """Length of the window of its state that families receive; 0 when the value is a number."""


@dataclass(frozen=True)
class Family:
    """Features computed together by one step."""

    name: str
    features: tuple[Feature, ...]
    state_size: int
    step: Callable[..., None]
    parameters: Parameters = ()


@dataclass(frozen=True)
class FeatureSpec:
    """The features of one series: families in order, and the intermediates they may ask for.

    Its `id` is made of names, parameters and versions, so it changes when a version is raised and
    not when the code is only rewritten.
    """

    families: tuple[Family, ...]
    shared: tuple[Shared, ...]
    max_gap: int = 12
    """Missing bars that are bridged. A longer gap makes the next bar a new origin: all is NaN until warm again."""
    version: int = 1
    """Version of the composition itself: the origin rule and the warm-up rule."""
    _by_name: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise SpecInvalid(f"feature names repeat: {sorted({n for n in names if names.count(n) > 1})}")
        self._by_name.update({name: index for index, name in enumerate(names)})
        for user in self._users:
            known = {*BAR_INPUTS, *(s.name for s in self.shared), *dict(user.parameters), "state", "out"}
            unknown = [name for name in parameter_names(user.step) if name not in known]
            if unknown:
                raise SpecInvalid(f"{user.name} asks for {', '.join(unknown)}, which nothing provides")

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """All features, in column order."""
        return tuple(feature for family in self.families for feature in family.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def warmups(self) -> tuple[int, ...]:
        """Each column's warm-up in bars."""
        return tuple(feature.warmup for feature in self.features)

    @cached_property
    def warmup(self) -> int:
        """Bars after which every column counts."""
        return max(self.warmups)

    @cached_property
    def ready_warmup(self) -> int:
        """Bars after which every column counts that a ready row waits for."""
        return max((f.warmup for f in self.features if f.required and not f.nan), default=1)

    def index(self, name: str) -> int:
        """The column of a feature; `SpecInvalid` if it has none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise SpecInvalid(f"no feature {name!r} in {self.id}") from None

    @cached_property
    def used_shared(self) -> tuple[Shared, ...]:
        """The intermediates that are asked for, each after those that it asks for itself."""
        available = {shared.name: shared for shared in self.shared}
        ordered: dict[str, Shared] = {}

        def visit(step: Callable[..., Any], trail: tuple[str, ...]) -> None:
            for name in parameter_names(step):
                if name in available and name not in ordered:
                    if name in trail:
                        raise SpecInvalid(f"intermediates ask for each other: {' > '.join((*trail, name))}")
                    visit(available[name].step, (*trail, name))
                    ordered[name] = available[name]

        for family in self.families:
            visit(family.step, ())
        return tuple(ordered.values())

    @property
    def _users(self) -> tuple[Shared | Family, ...]:
        return (*self.used_shared, *self.families)

    def layout(self) -> Iterator[tuple[Shared | Family, int, int]]:
        """Each intermediate and family with its slice [start, stop) of the state, in the order they run."""
        start = HEADER
        for user in self._users:
            yield user, start, start + user.state_size
            start += user.state_size

    @cached_property
    def state_size(self) -> int:
        """float64 numbers of state per series."""
        return HEADER + sum(user.state_size for user in self._users)

    @cached_property
    def canonical(self) -> str:
        """Names, parameters and versions as text, one line each: what the `id` is a digest of."""

        def parameters(user: Shared | Family) -> str:
            return "".join(f" {name}={value!r}" for name, value in user.parameters)

        lines = [f"composition@{self.version} max_gap={self.max_gap}"]
        lines += [f"shared {shared.name}@{shared.version}{parameters(shared)}" for shared in self.used_shared]
        for family in self.families:
            lines += [f"{family.name}{parameters(family)} {f.name}@{f.version}:{f.warmup}" for f in family.features]
        return "\n".join(lines)

    @cached_property
    def id(self) -> str:
        """A short name of exactly these features, parameters and versions."""
        return f"series-{len(self.names)}-{hashlib.sha256(self.canonical.encode()).hexdigest()[:12]}"
