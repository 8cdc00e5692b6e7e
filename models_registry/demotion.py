"""Demotion: does the champion live up to what the gate promoted it for? Pure functions of the ledger and live trades.

A promotion rests on an interval of the expectancy, which the ledger keeps. When the interval of the live record lies
wholly below it, the champion is not what was promoted, and the one before takes its place again. Better than promised
is no reason to act.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from models_registry.ledger import CHAMPION, Entry
from models_registry.trade_record import TradeRecord

LIVE_UNTIL = "live_until_ms"
"""In the details of a move of the champion: when the newest live outcome was known that it could rest on."""

Interval = tuple[float, float]


class DemotionRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a live record speaks."""

    fewest_positions: int = 100
    """Closed live positions below which nobody is demoted: the interval does not know of what it has not seen."""
    seed: int = 0
    """Of the resampling that gives the interval."""


class Tenure(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger says of the champion in force."""

    version: str
    since_ms: int
    """When it was entered, by the ledger's clock; the market's may be another."""
    promised: Interval | None
    """The interval of its expectancy that the gate found last; null when the gate never gave one."""
    counted_from_ms: int | None
    """Live outcomes known up to here, in the market's time, belong to an earlier tenure; null: all count."""


class LiveVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a live record says of its champion."""

    demote: bool
    reason: str
    numbers: dict[str, float | None]
    """`live_expectancy` and `promised`, each with `_low`, `_high`, and `live_positions`."""


def tenure(entries: Sequence[Entry]) -> Tenure | None:
    """Who is champion by the ledger, since when, and what was promised of it; None when nobody is."""
    moves = [entry for entry in entries if entry.alias == CHAMPION]
    if not moves or moves[-1].version is None:
        return None
    version = moves[-1].version
    first = len(moves) - 1
    while first and moves[first - 1].version == version:
        first -= 1
    told = [found for entry in entries if entry.version == version and (found := _promised(entry.details)) is not None]
    earlier = [
        int(str(entry.details[LIVE_UNTIL]))
        for entry in moves[: first + 1]
        if version in (entry.version, entry.previous) and entry.details.get(LIVE_UNTIL) is not None
    ]
    return Tenure(
        version=version,
        since_ms=moves[first].time_ms,
        promised=told[-1] if told else None,
        counted_from_ms=max(earlier, default=None),
    )


def demoted_until(entries: Sequence[Entry], version: str) -> int | None:
    """Up to when (the market's time) the live outcomes were known for which `version` was demoted last; None if never.

    >>> demoted_until([], "1") is None
    True
    """
    found = [
        int(str(entry.details[LIVE_UNTIL]))
        for entry in entries
        if entry.action == "demotion" and entry.previous == version and entry.details.get(LIVE_UNTIL) is not None
    ]
    return max(found, default=None)


def judge_live(promised: Interval | None, live: TradeRecord | None, rules: DemotionRules | None = None) -> LiveVerdict:
    """Whether the champion is to be demoted: its live interval lies wholly below the promised one.

    Without enough positions, or without either interval, nothing can be said, and it stays.
    """
    rules = rules or DemotionRules()
    positions = 0 if live is None else live.positions
    numbers: dict[str, float | None] = {"live_positions": float(positions)}
    if promised is not None:
        numbers |= {"promised_low": promised[0], "promised_high": promised[1]}
    if live is None or positions < rules.fewest_positions:
        return _stays(f"{positions} closed live positions, {rules.fewest_positions} needed", numbers)
    numbers["live_expectancy"] = live.expectancy
    if live.expectancy is None or live.expectancy_interval is None:
        return _stays(f"{positions} closed live positions lie in too few blocks of time for an interval", numbers)
    low, high = live.expectancy_interval
    numbers |= {"live_expectancy_low": low, "live_expectancy_high": high}
    shown = f"{live.expectancy:+.3f} R ({low:+.3f} to {high:+.3f}) in {positions} closed live positions"
    if promised is None or not all(math.isfinite(end) for end in promised):
        return _stays(f"{shown}; the gate gave no interval that it could leave", numbers)
    against = f"{shown} against the gate's {promised[0]:+.3f} to {promised[1]:+.3f}"
    if high < promised[0]:
        return LiveVerdict(demote=True, reason=f"{against}: wholly below it", numbers=numbers)
    return _stays(f"{against}: not wholly below it", numbers)


def _stays(reason: str, numbers: dict[str, float | None]) -> LiveVerdict:
    return LiveVerdict(demote=False, reason=reason, numbers=numbers)


def _promised(details: Mapping[str, Any]) -> Interval | None:
    """The interval of the expectancy in the gate's verdict that an entry keeps, if there is one."""
    verdict = details.get("verdict")
    numbers = verdict.get("numbers") if isinstance(verdict, Mapping) else None
    if not isinstance(numbers, Mapping):
        return None
    ends = numbers.get("expectancy_low"), numbers.get("expectancy_high")
    if ends[0] is None or ends[1] is None:
        return None
    return float(ends[0]), float(ends[1])
