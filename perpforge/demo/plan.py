"""What the demo will do: which market, which stretch is history, which is live. Decided before anything starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from market.bars import DAY_MS
from market.errors import MarketError, utc
from market.sources import BarSource, open_source

LIVE_DAYS = 3
"""Whole days that are streamed live, and then learnt from."""
SWAP_MS = DAY_MS // 4
"""What is left of the market after them, at least: the second bundle is swapped in during it."""
LEAST_HISTORY_DAYS = 16
"""The one-hour features need ten days before they are warm; the rest is learnt from."""

KEPT_FILE = "plan.json"


class DemoImpossible(Exception):
    """The market that was asked for cannot carry the demo: says what is missing."""


@dataclass(frozen=True)
class DemoPlan:
    """The demo's market and its times, in milliseconds UTC. History is [start, live), live is [live, learn)."""

    home: Path
    source: str
    """As `market.sources.open_source` takes it."""
    market: str
    """The market's name for a person."""
    edge: str
    """`planted`, `none`, or `unknown` for a recorded market."""
    seed: int
    symbols: tuple[str, ...]
    start_ms: int
    live_ms: int
    learn_ms: int
    """The end of the live days; their labels train the second bundle."""
    end_ms: int | None
    """Where the market ends, None if it never does."""

    @property
    def history_days(self) -> list[str]:
        """The dates of the history."""
        return dates(self.start_ms, self.live_ms)

    @property
    def live_days(self) -> list[str]:
        """The dates of the live days."""
        return dates(self.live_ms, self.learn_ms)

    @property
    def graph_environment(self) -> dict[str, str]:
        """The variables that the Dagster graph reads when it is imported: its market and its days."""
        days = dates(self.start_ms, self.learn_ms + 1)
        return {"MARKET_SOURCE": self.source, "KLINES_START_DATE": days[0], "KLINES_END_DATE": days[-1]}


def keep_for_later(plan: DemoPlan, now_ms: int) -> None:
    """Note in the home folder that the market has come to `now_ms`, so that `perpforge up` can go on from there."""
    kept = asdict(replace(plan, live_ms=now_ms)) | {"home": str(plan.home)}
    (plan.home / KEPT_FILE).write_bytes(msgspec.json.encode(kept))


def kept_plan(home: Path) -> DemoPlan | None:
    """The plan that a demo left in `home`, its live part beginning where the demo ended; None if it left none."""
    try:
        data = (home / KEPT_FILE).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=DemoPlan, dec_hook=lambda kind, value: kind(value))


def dates(start_ms: int, end_ms: int) -> list[str]:
    """The UTC dates that [start, end) touches.

    >>> dates(0, 2 * DAY_MS)
    ['1970-01-01', '1970-01-02']
    """
    return [utc(day * DAY_MS)[:10] for day in range(start_ms // DAY_MS, -(-end_ms // DAY_MS))]


def plan_demo(home: Path, *, edge: str, seed: int, symbols: int, days: int, klines: Path | None) -> DemoPlan:
    """Plan a demo on a synthetic market, or on a folder of recorded klines; `DemoImpossible` if it cannot be."""
    if klines is not None:
        return _plan_recorded(home, seed, klines)
    spec = f"synthetic:seed={seed},symbols={symbols},edge={edge},start=2026-01-05"
    try:
        source = open_source(spec)
    except MarketError as error:
        raise DemoImpossible(str(error)) from error
    start_ms = _coverage(source)[0]
    live_ms = start_ms + days * DAY_MS
    return DemoPlan(
        home=home.absolute(),
        source=spec,
        market="synthetic market",
        edge=edge,
        seed=seed,
        symbols=source.symbols(),
        start_ms=start_ms,
        live_ms=live_ms,
        learn_ms=live_ms + LIVE_DAYS * DAY_MS,
        end_ms=None,
    )


def _plan_recorded(home: Path, seed: int, klines: Path) -> DemoPlan:
    spec = f"recorded:{klines.absolute()}"
    try:
        source = open_source(spec)
        start_ms, end_ms = _coverage(source)
    except MarketError as error:
        raise DemoImpossible(str(error)) from error
    learn_ms = (end_ms - SWAP_MS) // DAY_MS * DAY_MS
    live_ms = learn_ms - LIVE_DAYS * DAY_MS
    if live_ms - start_ms < LEAST_HISTORY_DAYS * DAY_MS:
        raise DemoImpossible(
            f"{klines} holds {utc(start_ms)} to {utc(end_ms)}: the demo needs {LEAST_HISTORY_DAYS} days of history, "
            f"{LIVE_DAYS} to stream and a quarter of a day more"
        )
    return DemoPlan(
        home=home.absolute(),
        source=spec,
        market=f"recorded klines in {klines}",
        edge="unknown",
        seed=seed,
        symbols=source.symbols(),
        start_ms=start_ms,
        live_ms=live_ms,
        learn_ms=learn_ms,
        end_ms=end_ms,
    )


def _coverage(source: BarSource) -> tuple[int, int]:
    """The stretch from the first bar of any symbol to the end of the symbol that ends first."""
    covered = [coverage for symbol in source.symbols() if (coverage := source.coverage(symbol)) is not None]
    if not covered:
        raise DemoImpossible(f"{source.name} has no bar of any symbol")
    return min(start for start, _ in covered), min(end for _, end in covered)
