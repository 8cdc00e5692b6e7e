"""The gate's settings, and what is found out about a bundle before its numbers count."""

from __future__ import annotations

from typing import Literal

import msgspec

Evidence = Literal["better", "not_worse"]


class GateRules(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's settings."""

    evidence: Evidence = "better"
    """What a challenger must show to take a champion's place. `better`: the interval of its gain in expectancy or in
    log loss lies above zero, and neither is worse. `not_worse`: neither is worse, which a sample that is too small to
    show anything satisfies too."""
    fewest_rows: int = 100
    """Held-out labelled rows below which nobody is promoted over a champion: chance would decide."""
    fewest_positions: int = 300
    """The same for the challenger's closed positions in the replay."""
    fewest_days: float = 5.0
    """The same for the days in which they were decided."""
    tolerance: float = 0.0
    """By how much log loss (nats a row) a challenger may be worse; retrained on more data, equal is good enough."""
    calibration_tolerance: float = 0.02
    """By how much its calibration error may be larger. It is never zero, even for a perfect model: on 500 rows about
    0.04, and two models on the same rows share most of that."""
    drawdown_ratio: float = 1.5
    """How many times the champion's drawdown it may have."""
    drawdown_floor_r: float = 10.0
    """A drawdown (R) that is allowed however small the champion's was."""
    turnover_ratio: float = 2.0
    """How many times more, or fewer, positions a day it may take."""
    latency_budget_ms: float = 15.0
    """How long one wave of 200 rows may take it."""
    seed: int = 0
    """Of the resampling that gives the intervals."""


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a bundle may decide at all, whatever its numbers."""

    integrity: str | None = None
    """Why its files are not what its manifest promises; null when they are."""
    unfit_formats: dict[str, str] = {}
    """The models whose served format did not pass the parity gate, with the reason."""
    unfit_decisions: str | None = None
    """Why its served files decide too differently from the fp32 ones; null when they do not."""
    latency_ms: float | None = None
    """The least time of several that a wave of `latency_rows` rows took on this machine: what else the machine does
    can only add to it. Null when it was not measured."""
    latency_rows: int = 0
