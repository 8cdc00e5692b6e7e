"""The gate: may this challenger become champion? A pure function of two evaluation records and the bundle's fitness.

Both records are of one window that neither bundle has seen: its labelled rows, and its bars replayed through the
engine that trades live. Promotion needs evidence: by default that the challenger is shown to be better in expectancy
or log loss, and shown to be worse in nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from models_registry import gate_findings
from models_registry.errors import RecordsDiffer, WindowAlreadySeen
from models_registry.evaluation import EvaluationRecord
from models_registry.gate_findings import Finding, compared
from models_registry.gate_rules import Fitness, GateRules
from models_registry.manifest import finite
from models_registry.statistics import Interval

__all__ = ["Fitness", "GateRules", "Rule", "Verdict", "judge", "refuse"]

Rule = Literal["bootstrap", "better", "not_worse"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate decided, by which rule, and every reason for it."""

    promoted: bool
    rule: Rule
    reasons: list[str]
    failed: list[str] = []
    """Those of the reasons that speak against the challenger; none when it is promoted."""
    numbers: dict[str, float | None]
    """`log_loss_difference` and `expectancy_difference`, each with `_low`, `_high`; positive favours the challenger.
    `expectancy` with `_low` and `_high` is the challenger's own: what its live record is held to."""


def judge(
    champion: EvaluationRecord | None,
    challenger: EvaluationRecord,
    fitness: Fitness,
    rules: GateRules | None = None,
    *,
    demoted_until_ms: int | None = None,
) -> Verdict:
    """Judge a challenger against the champion on one window.

    Integrity, parity and latency must hold for every bundle. Without a champion it is then promoted by the rule
    "bootstrap", whatever its numbers, since any gated successor is measured against it. With one, the rule is
    `rules.evidence`, and every finding must pass: enough rows, positions and days; log loss not higher; calibration,
    drawdown and turnover within bounds; expectancy not shown to be lower; and the evidence asked for. Otherwise it
    stays challenger.

    `demoted_until_ms` is when the last live outcome was known for which this very bundle was demoted; None if it
    never was.

    Raises `WindowAlreadySeen` when the window begins before the last label that either has seen was known, and
    `RecordsDiffer` when the two were not evaluated on the same rows and bars at the same threshold.
    """
    rules = rules or GateRules()
    for record in (champion, challenger):
        if record is not None and record.start_ms <= record.last_known_at:
            raise WindowAlreadySeen(record.bundle, record.start_ms, record.last_known_at)
    found = gate_findings.fitness(fitness, rules)
    if demoted_until_ms is not None:
        found.append(gate_findings.demoted(challenger.start_ms, demoted_until_ms))
    if champion is None:
        return _bootstrap(challenger, found)
    _check_comparable(champion, challenger)
    found += [gate_findings.rows(challenger, rules), *_compare(champion, challenger, rules)]
    return _verdict(rules.evidence, found)


def refuse(reason: str, rules: GateRules | None = None) -> Verdict:
    """The verdict on a challenger that could not be put on any window."""
    return _verdict((rules or GateRules()).evidence, [Finding(False, f"not judged: {reason}")])


def _compare(champion: EvaluationRecord, challenger: EvaluationRecord, rules: GateRules) -> list[Finding]:
    loss = gate_findings.log_loss(champion, challenger, rules)
    calibration = gate_findings.calibration(champion, challenger, rules)
    before, after = champion.replay, challenger.replay
    if before is None or after is None:
        return [loss, calibration, Finding(False, "not replayed: expectancies cannot be compared")]
    expectancy = gate_findings.expectancy(before, after, rules)
    return [
        gate_findings.sample(after, rules),
        loss,
        calibration,
        expectancy,
        gate_findings.drawdown(before, after, rules),
        gate_findings.turnover(before, after, rules),
        gate_findings.evidence([loss, expectancy], rules),
    ]


def _verdict(rule: Rule, found: list[Finding]) -> Verdict:
    return Verdict(
        promoted=all(finding.passed for finding in found),
        rule=rule,
        reasons=[finding.reason for finding in found],
        failed=[finding.reason for finding in found if not finding.passed],
        numbers={name: value for finding in found for name, value in finding.numbers.items()},
    )


def _bootstrap(challenger: EvaluationRecord, found: list[Finding]) -> Verdict:
    alone = [
        Finding(True, "there is no champion yet: the first bundle takes the place"),
        Finding(True, _skill(challenger), {"log_loss_improvement": finite(challenger.improvement)}),
    ]
    if challenger.replay is not None:
        alone.append(Finding(True, _replayed(challenger), gate_findings.promised(challenger.replay)))
    return _verdict("bootstrap", alone + found)


def _skill(challenger: EvaluationRecord) -> str:
    low, high = challenger.improvement_interval or (np.nan, np.nan)
    found = Interval(challenger.improvement, low, high, len(challenger.blocks.rows))
    words = "skill" if challenger.skill else "no skill shown"
    return f"log loss {compared(found, 5, 'better', 'worse')}, against the base rate: {words}"


def _replayed(challenger: EvaluationRecord) -> str:
    trades = challenger.replay
    if trades is None or trades.expectancy is None:
        return "no position closed in the replay"
    pair = trades.expectancy_interval
    span = "too few blocks for an interval" if pair is None else f"95 %: {pair[0]:+.3f} to {pair[1]:+.3f}"
    return (
        f"expectancy {trades.expectancy:+.3f} R ({span}) in {trades.positions} positions of "
        f"{trades.days:.1f} replayed days, drawdown {trades.drawdown:.1f} R"
    )


def _check_comparable(champion: EvaluationRecord, challenger: EvaluationRecord) -> None:
    if champion.rows_hash != challenger.rows_hash or champion.blocks.start_ms != challenger.blocks.start_ms:
        raise RecordsDiffer(f"{champion.bundle} and {challenger.bundle} were evaluated on different rows")
    if champion.threshold != challenger.threshold:
        raise RecordsDiffer(
            f"{champion.bundle} was evaluated at the threshold {champion.threshold:g}, "
            f"{challenger.bundle} at {challenger.threshold:g}"
        )
    before, after = champion.replay, challenger.replay
    if before is not None and after is not None:
        windows = [(each.start_ms, each.decided_until_ms, each.symbols) for each in (before, after)]
        if windows[0] != windows[1]:
            raise RecordsDiffer(f"{champion.bundle} and {challenger.bundle} were replayed over different bars")
