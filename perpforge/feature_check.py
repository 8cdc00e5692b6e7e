"""The proofs of `features` on a user's own klines: running over timeframes, the verdict.

How klines are read is in `perpforge.feature_klines`, what is printed in `perpforge.feature_report`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from features.checking import PROOFS, Checked, check
from features.engine import compute
from features.spec import FeatureSpec
from market.bars import interval_ms, resample
from perpforge.feature_klines import KlinesUnusable, interval_of, read_market

PROVEN, FAILED, UNUSABLE, INCOMPLETE = range(4)
"""Exit codes: every feature proven; one failed; the input cannot be used; nothing failed but not all was checked."""

VERDICTS = {PROVEN: "proven", FAILED: "failed", INCOMPLETE: "incomplete"}


@dataclass(frozen=True)
class Series:
    """One symbol on one timeframe, and what the proofs said of it."""

    symbol: str
    timeframe: str
    checked: Checked
    first_ms: int | None
    last_ms: int | None


@dataclass(frozen=True)
class Report:
    """All series of a run."""

    spec: FeatureSpec
    source: Path
    interval: str
    """Of the klines as they were given."""
    seed: int
    series: tuple[Series, ...]

    @property
    def control_caught(self) -> bool:
        """Whether the feature that reads ahead was caught by both proofs wherever there were two bars."""
        return all({"prefix", "poison"} <= set(s.checked.control) for s in self.series if s.checked.bars > 1)

    @property
    def code(self) -> int:
        """`FAILED`, `INCOMPLETE` or `PROVEN`. A positive control that goes uncaught is a failure of the proofs."""
        if any(each.checked.caught for each in self.series) or not self.control_caught:
            return FAILED
        unchecked = any(each.checked.short or nothing_measured(each.checked) for each in self.series)
        return INCOMPLETE if unchecked else PROVEN


def nothing_measured(checked: Checked) -> list[str]:
    """Features of which the bars, although they have every column, gave no value at all."""
    from features.checking import NOTHING

    return [name for name, why in checked.unmeasured.items() if why == NOTHING]


def choose_timeframes(wanted: Sequence[str], usual: Sequence[str], interval: str, path: Path) -> tuple[str, ...]:
    """`wanted`, else those of `usual` that klines of `interval` can be resampled to, else `interval` itself."""
    for name in wanted:
        if interval_ms(name) % interval_ms(interval):
            raise KlinesUnusable(path, f"bars of {name} cannot be made of bars of {interval}")
    possible = tuple(name for name in usual if interval_ms(name) % interval_ms(interval) == 0)
    return tuple(dict.fromkeys(wanted)) or possible or (interval,)


Progress = Callable[[str, float], None]
"""Told what is being done, and the fraction of everything that is done."""


def run_check(
    path: Path,
    spec: FeatureSpec,
    timeframes: Sequence[str],
    usual: Sequence[str],
    *,
    symbols: Sequence[str] = (),
    days: float | None = None,
    cuts: int,
    seed: int,
    progress: Progress,
) -> Report:
    """Every proof on every symbol and timeframe of the klines at `path`."""
    market = read_market(path, symbols, days).bars
    intervals = {interval_of(bars) for bars in market.values()}
    interval = min(intervals, key=interval_ms)
    chosen = choose_timeframes(timeframes, usual, interval, path)
    series: list[Series] = []
    total = len(market) * len(chosen)
    for symbol, recorded in market.items():
        for timeframe in chosen:
            bars = resample(recorded, timeframe, interval)

            def told(proof: str, done: int, of: int, name: str = f"{symbol} {timeframe}") -> None:
                within = (PROOFS.index(proof) + done / max(of, 1)) / len(PROOFS)
                progress(f"{name}: {proof}", (len(series) + within) / total)

            rows_of = partial(compute, spec=spec)
            checked = check(bars, spec, cuts=cuts, seed=seed, rows_of=rows_of, progress=told)
            edges = (int(bars["open_time"][0]), int(bars["close_time"][-1])) if bars.size else (None, None)
            series.append(Series(symbol, timeframe, checked, *edges))
    return Report(spec, path, interval, seed, tuple(series))
