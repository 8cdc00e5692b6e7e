"""The gate's rules one by one: each is a pure function that gives a finding with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from models_registry.evaluation import EvaluationRecord
from models_registry.gate_rules import Fitness, GateRules
from models_registry.manifest import finite
from models_registry.statistics import Floats, Interval, difference_interval, ratio_interval
from models_registry.trade_record import TradeRecord

Numbers = dict[str, float | None]


@dataclass(frozen=True)
class Finding:
    """What one rule found."""

    passed: bool
    reason: str
    numbers: Numbers = field(default_factory=dict)
    shown_better: bool = False
    """The whole interval of the difference lies on the challenger's side."""


def fitness(found: Fitness, rules: GateRules) -> list[Finding]:
    """Integrity, parity and latency: they hold for every bundle, the first one too."""
    if found.integrity is not None:
        return [Finding(False, f"integrity: {found.integrity}")]
    whole = Finding(True, "integrity: every file has its hash, and the golden outputs are reproduced")
    unfit = [f"{name}: {reason}" for name, reason in sorted(found.unfit_formats.items())]
    unfit += [found.unfit_decisions] if found.unfit_decisions is not None else []
    parity = Finding(not unfit, f"parity: {'; '.join(unfit) or 'every served format passed'}")
    if found.latency_ms is None:
        return [whole, parity, Finding(False, "latency: it was not measured")]
    quick = found.latency_ms <= rules.latency_budget_ms
    latency = Finding(
        quick,
        f"latency: {found.latency_ms:.2f} ms for a wave of {found.latency_rows} rows, "
        f"{rules.latency_budget_ms:g} ms allowed{'' if quick else ': too slow'}",
        {"latency_ms": finite(found.latency_ms)},
    )
    return [whole, parity, latency]


def rows(challenger: EvaluationRecord, rules: GateRules) -> Finding:
    """Enough labelled rows."""
    enough = challenger.rows >= rules.fewest_rows
    reason = (
        f"{challenger.rows} held-out rows in {len(challenger.blocks.rows)} blocks, {rules.fewest_rows} needed: "
        f"{_enough(enough)}"
    )
    return Finding(enough, reason, {"rows": float(challenger.rows)})


def sample(trades: TradeRecord, rules: GateRules) -> Finding:
    """Enough closed positions in enough days."""
    enough = trades.positions >= rules.fewest_positions and trades.days >= rules.fewest_days
    reason = (
        f"{trades.positions} closed positions in {trades.days:.1f} replayed days, "
        f"{rules.fewest_positions} and {rules.fewest_days:g} needed: {_enough(enough)}"
    )
    return Finding(enough, reason, {"positions": float(trades.positions), "days": trades.days})


def _enough(enough: bool) -> str:
    return "enough" if enough else "too few: it stays challenger"


def log_loss(champion: EvaluationRecord, challenger: EvaluationRecord, rules: GateRules) -> Finding:
    """Not higher than the champion's: by the point estimate, which every row informs."""
    saved = np.asarray(champion.blocks.log_loss) - np.asarray(challenger.blocks.log_loss)
    found = ratio_interval(saved, np.asarray(challenger.blocks.rows, dtype=np.float64), seed=rules.seed)
    passed = found.value >= -rules.tolerance
    allowed = f", within the tolerance of {rules.tolerance:g}" if passed and found.value < 0 else ""
    reason = (
        f"log loss {challenger.log_loss:.5f} against the champion's {champion.log_loss:.5f}: "
        f"{compared(found, 5, 'better', 'worse')}{allowed}"
    )
    return Finding(passed, reason, _numbers("log_loss_difference", found), found.low > 0)


def calibration(champion: EvaluationRecord, challenger: EvaluationRecord, rules: GateRules) -> Finding:
    """Not worse calibrated than the champion by more than the tolerance."""
    error, before = challenger.calibration_error, champion.calibration_error
    passed = error <= before + rules.calibration_tolerance
    reason = (
        f"calibration error {error:.3f} against {before:.3f}, at most {rules.calibration_tolerance:g} more allowed"
        f"{'' if passed else ': worse calibrated'}"
    )
    return Finding(passed, reason, {"calibration_error": finite(error)})


def expectancy(champion: TradeRecord, challenger: TradeRecord, rules: GateRules) -> Finding:
    """Not shown to be lower than the champion's; where there is no interval, not lower.

    A champion that never trades earns 0 R.
    """
    numbers = promised(challenger)
    if challenger.expectancy is None:
        idle = champion.expectancy is None
        return Finding(idle, f"no position of the challenger{' nor of the champion' if idle else ''} closed", numbers)
    if champion.expectancy is None:
        found, before = challenger.interval, "0 R, as the champion closed no position"
    else:
        found = difference_interval(_trades(challenger), _trades(champion), seed=rules.seed)
        before = f"{champion.expectancy:+.3f} R in {champion.positions}"
    passed = found.high >= 0 if found.known else found.value >= 0
    reason = (
        f"expectancy {challenger.expectancy:+.3f} R in {challenger.positions} replayed positions against {before}: "
        f"{compared(found, 3, 'higher', 'lower')}, {'not shown to be worse' if passed else _worse(found)}"
    )
    return Finding(passed, reason, numbers | _numbers("expectancy_difference", found), found.low > 0)


def _worse(found: Interval) -> str:
    return "shown to be worse" if found.known else "lower, and nothing says that it is chance"


def promised(challenger: TradeRecord) -> Numbers:
    """The expectancy that a promotion rests on, with its interval: live trading is held to it."""
    return _numbers("expectancy", challenger.interval)


def _trades(record: TradeRecord) -> tuple[Floats, Floats]:
    return np.asarray(record.blocks.r), np.asarray(record.blocks.positions, dtype=np.float64)


def drawdown(champion: TradeRecord, challenger: TradeRecord, rules: GateRules) -> Finding:
    """Not much deeper than the champion's."""
    allowed = max(rules.drawdown_ratio * champion.drawdown, rules.drawdown_floor_r)
    passed = challenger.drawdown <= allowed
    reason = (
        f"drawdown {challenger.drawdown:.1f} R against {champion.drawdown:.1f} R, {allowed:.1f} R allowed"
        f"{'' if passed else ': too deep'}"
    )
    return Finding(passed, reason, {"drawdown": challenger.drawdown})


def turnover(champion: TradeRecord, challenger: TradeRecord, rules: GateRules) -> Finding:
    """Not many times more or fewer positions a day than the champion."""
    numbers: Numbers = {"turnover": challenger.turnover, "exposure": challenger.exposure}
    shown = f"turnover {challenger.turnover:.1f} positions a day ({challenger.exposure:.1f} open at a time)"
    if not champion.positions:
        return Finding(True, f"{shown}, the champion none: nothing to compare it with", numbers)
    low, high = champion.turnover / rules.turnover_ratio, champion.turnover * rules.turnover_ratio
    passed = low <= challenger.turnover <= high
    reason = (
        f"{shown} against {champion.turnover:.1f} ({champion.exposure:.1f}), {low:.1f} to {high:.1f} allowed"
        f"{'' if passed else ': another way of trading'}"
    )
    return Finding(passed, reason, numbers)


def evidence(found: list[Finding], rules: GateRules) -> Finding:
    """Whether the differences that were found are the evidence that the rules ask for."""
    shown = any(finding.shown_better for finding in found)
    if shown:
        return Finding(True, "evidence: an interval lies above zero, so it is shown to be better")
    reason = "evidence: no interval of log loss or expectancy lies above zero, so nothing shows that it is better"
    return Finding(rules.evidence == "not_worse", reason + (", nor need it" if rules.evidence == "not_worse" else ""))


def demoted(start_ms: int, demoted_until_ms: int) -> Finding:
    """A bundle that was demoted needs evidence from after what it was demoted for."""
    passed = start_ms > demoted_until_ms
    what = "begins after" if passed else "is not later than"
    return Finding(passed, f"it was demoted once; the window {what} the outcomes it was demoted for")


def compared(found: Interval, digits: int, above: str, below: str) -> str:
    """A difference and its interval in words, each with its direction.

    >>> compared(Interval(-0.0019, -0.004, 0.0002, 40), 4, "better", "worse")
    'worse by 0.0019 (95 %: worse by 0.0040 to better by 0.0002)'
    >>> compared(Interval(0.0, np.nan, np.nan, 3), 4, "better", "worse")
    'the same (too few blocks for an interval)'
    >>> compared(Interval(-1e-9, np.nan, np.nan, 3), 4, "better", "worse")
    'worse by less than 0.0001 (too few blocks for an interval)'
    """

    def words(value: float) -> str:
        least = 10.0**-digits
        size = f"{abs(value):.{digits}f}" if abs(value) >= least else f"less than {least:.{digits}f}"
        return f"{above if value > 0 else below} by {size}" if value else "the same"

    span = f"95 %: {words(found.low)} to {words(found.high)}" if found.known else "too few blocks for an interval"
    return f"{words(found.value)} ({span})"


def _numbers(name: str, found: Interval) -> Numbers:
    values = {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
