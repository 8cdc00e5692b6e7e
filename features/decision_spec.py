"""What the models see at a decision: the columns of a decision row, and the window of bars beside it.

| columns | meaning | unit, range |
|---|---|---|
| `5m.<feature>` | the row of the 5m bar that just closed | as in the base specification |
| `15m.<feature>`, `1h.<feature>` | the last closed bar of the longer timeframe | as there |
| `15m.age_bars`, `1h.age_bars` | how long ago that one closed | 5m bars, 0 to 8 and 0 to 35 |
| `cross.return_rank`, `cross.return_20_rank` | rank of the last 1 and 20 bars' return among the wave's symbols | 0..1 |
| `cross.volatility_rank` | rank of the realised volatility of the last 20 bars | 0..1 |
| `cross.breadth` | share of the wave's symbols above their EMA21 | 0..1 |
| `cross.btc_beta`, `cross.btc_residual` | see `benchmark_beta`; the benchmark is BTCUSDT | ±100; fraction |
| `calendar.hour_sin`, `calendar.hour_cos` | time of day of the close, in UTC | ±1 |
| `calendar.weekday_sin`, `calendar.weekday_cos` | day of the week of the close, in UTC, Monday first | ±1 |
| `calendar.session_asia` | whether it is from 00:00 to before 09:00 UTC, the working day in Tokyo | 0, 1 |
| `calendar.session_london` | from 08:00 to before 17:00 UTC | 0, 1 |
| `calendar.session_new_york` | from 13:00 to before 22:00 UTC | 0, 1 |
| `funding.minutes_to_next`, `funding.last_rate` | see `funding_known` | minutes >= 0; fraction of notional |

A longer timeframe without a closed bar, or whose last one is three of its bars old, is unknown: NaN.
A rank is (number below + half the number equal) / (n - 1) over the symbols that have the value, 0.5
for one alone; a symbol that is absent from the wave, or not warm, is not in the cross-section. Sessions are the same
all year, at weekends too: perpetual futures have no other hours.

Which trades are considered, of which kind and of what quality is computed from these columns (`rules`, `candidates`,
`quality`). Models are trained on that too, so the `id` covers it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from features.default import SPEC
from features.errors import SpecInvalid
from features.spec import FeatureSpec
from market.bars import DAY_MS, interval_ms

CROSS = ("cross.return_rank", "cross.return_20_rank", "cross.volatility_rank", "cross.breadth")
CROSS_BASE = ("return_1", "return_20", "realised_volatility_20", "ema_21_distance")
"""The base features that each cross-section column is taken over, in the same order."""
BETA = ("cross.btc_beta", "cross.btc_residual")
CALENDAR = (
    "calendar.hour_sin",
    "calendar.hour_cos",
    "calendar.weekday_sin",
    "calendar.weekday_cos",
    "calendar.session_asia",
    "calendar.session_london",
    "calendar.session_new_york",
)
FUNDING = ("funding.minutes_to_next", "funding.last_rate")
WINDOW_NAMES = ("bar_open_move", "bar_high_move", "bar_low_move", "bar_close_move", "volume_zscore")


@dataclass(frozen=True)
class DecisionSpec:
    """The columns of a decision row over a `FeatureSpec` of one series. Bundles pin its `id`."""

    base: FeatureSpec = SPEC
    timeframes: tuple[str, ...] = ("5m", "15m", "1h")
    """The deciding timeframe first, then the longer ones."""
    window: int = 32
    """Bars of the deciding timeframe in the window."""
    window_names: tuple[str, ...] = WINDOW_NAMES
    """Base features of each bar of the window."""
    stale_after: int = 3
    """A longer timeframe's row counts while it is younger than this many of its own bars."""
    benchmark: str = "BTCUSDT"
    """The symbol that beta is measured against; without it in a universe beta is unknown."""
    beta_waves: int = 96
    """Waves of the deciding timeframe that beta is measured over."""
    beta_fewest: int = 48
    """Pairs of returns among them that it needs."""
    version: int = 2
    """Version of everything beyond the base: ages, cross-section, calendar, funding."""

    def __post_init__(self) -> None:
        steps = [interval_ms(name) for name in self.timeframes]
        if steps != sorted(set(steps)) or any(step % steps[0] for step in steps):
            raise SpecInvalid(f"timeframes ascend and are multiples of the first: {', '.join(self.timeframes)}")
        for name in (*self.window_names, *CROSS_BASE, "atr_14_fraction"):
            self.base.index(name)

    @cached_property
    def steps(self) -> tuple[int, ...]:
        """The length of each timeframe in milliseconds."""
        return tuple(interval_ms(name) for name in self.timeframes)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        names: list[str] = []
        for timeframe in self.timeframes:
            names += [f"{timeframe}.{name}" for name in self.base.names]
            if timeframe != self.timeframes[0]:
                names.append(f"{timeframe}.age_bars")
        return (*names, *CROSS, *BETA, *CALENDAR, *FUNDING)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The column of that name; `SpecInvalid` if there is none."""
        try:
            return self._by_name[name]
        except KeyError:
            raise SpecInvalid(f"no column {name!r} in {self.id}") from None

    def block(self, first: str, width: int) -> slice:
        """The `width` columns from `first` on."""
        start = self.index(first)
        return slice(start, start + width)

    def timeframe_block(self, timeframe: str) -> slice:
        """The base features of one timeframe."""
        return self.block(f"{timeframe}.{self.base.names[0]}", len(self.base.names))

    @cached_property
    def window_columns(self) -> tuple[int, ...]:
        """The base columns that make a window."""
        return tuple(self.base.index(name) for name in self.window_names)

    @cached_property
    def required_columns(self) -> tuple[int, ...]:
        """The base columns that a ready row has: all but those that may be NaN, or that remember too long."""
        return tuple(index for index, each in enumerate(self.base.features) if each.required and not each.nan)

    @property
    def ready_warmup(self) -> int:
        """Bars of a timeframe after which it has all that a ready row waits for."""
        return self.base.ready_warmup

    def cold_start(self, until_ms: int) -> int:
        """Where history that is to be warm at `until_ms` begins: at a midnight before the longest timeframe's
        `ready_warmup`.

        What remembers longer (an average over 200 hours) is NaN until as much has been seen.
        """
        return (until_ms - self.ready_warmup * self.steps[-1]) // DAY_MS * DAY_MS

    @cached_property
    def canonical(self) -> str:
        """Names, parameters and versions as text: what the `id` is a digest of."""
        # Not at the top: each of them takes a DecisionSpec.
        from features import candidates, quality, rules

        lines = [
            f"decision@{self.version} stale_after={self.stale_after}",
            f"beta to {self.benchmark} over {self.beta_waves} waves, {self.beta_fewest} at least",
            f"window {self.window} of {' '.join(self.window_names)}",
            f"rules@{rules.VERSION} candidates@{candidates.VERSION} quality@{quality.VERSION}",
            *self.names,
        ]
        return "\n".join((*lines, self.base.canonical))

    @cached_property
    def id(self) -> str:
        """A short name of exactly these columns, parameters and versions."""
        return f"decision-{len(self.names)}-{hashlib.sha256(self.canonical.encode()).hexdigest()[:12]}"


DECISION_SPEC = DecisionSpec()
"""What bundles are trained on by default."""
