"""The gate: may this challenger become champion? A pure function of two evaluation records.

The thin rule: never worse than the champion on the same held-out rows. "Not worse" is the point estimate for
the log loss, which every row informs, and the interval for the expectancy, which few trades inform.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from models_registry.errors import RecordsDiffer, WindowAlreadySeen
from models_registry.evaluation import EvaluationRecord
from models_registry.manifest import finite
from models_registry.statistics import Floats, Interval, difference_interval, ratio_interval

Rule = Literal["bootstrap", "not_worse"]


class GateRules(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's settings."""

    fewest_rows: int = 100
    """Held-out rows below which nobody is promoted over a champion: chance would decide."""
    tolerance: float = 0.0
    """By how much log loss (nats a row) a challenger may be worse; retrained on more data, equal is good enough."""
    seed: int = 0
    """Of the resampling that gives the intervals."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate decided, by which rule, and every reason for it."""

    promoted: bool
    rule: Rule
    reasons: list[str]
    failed: list[str] = []
    """Those of the reasons that speak against the challenger; none when it is promoted."""
    numbers: dict[str, float | None]
    """`log_loss_difference` and `expectancy_difference`, each with `_low`, `_high`; positive favours the challenger."""


def judge(champion: EvaluationRecord | None, challenger: EvaluationRecord, rules: GateRules | None = None) -> Verdict:
    """Judge a challenger against the champion on one window.

    Without a champion the challenger is promoted by the rule "bootstrap", whatever its numbers, since any gated
    successor is then measured against it. With one, the rule is "not_worse": promoted when there are enough
    rows, its log loss is not higher, and its expectancy is not shown to be lower. Otherwise it stays challenger.

    Raises `WindowAlreadySeen` when the window begins before the last label that either has seen was known, and
    `RecordsDiffer` when the two were not evaluated on the same rows at the same threshold.
    """
    rules = rules or GateRules()
    for record in (champion, challenger):
        if record is not None and record.start_ms <= record.last_known_at:
            raise WindowAlreadySeen(record.bundle, record.start_ms, record.last_known_at)
    if champion is None:
        return Verdict(
            promoted=True,
            rule="bootstrap",
            reasons=["there is no champion yet: the first bundle takes the place", _alone(challenger)],
            numbers={"log_loss_improvement": finite(challenger.improvement)},
        )
    _check_comparable(champion, challenger)
    verdicts = [
        _rows(challenger, rules),
        _log_loss(champion, challenger, rules),
        _expectancy(champion, challenger, rules),
    ]
    numbers = {name: value for _, _, found in verdicts for name, value in found.items()}
    return Verdict(
        promoted=all(passed for passed, _, _ in verdicts),
        rule="not_worse",
        reasons=[reason for _, reason, _ in verdicts],
        failed=[reason for passed, reason, _ in verdicts if not passed],
        numbers=numbers,
    )


Finding = tuple[bool, str, dict[str, float | None]]


def _check_comparable(champion: EvaluationRecord, challenger: EvaluationRecord) -> None:
    if champion.rows_hash != challenger.rows_hash or champion.blocks.start_ms != challenger.blocks.start_ms:
        raise RecordsDiffer(f"{champion.bundle} and {challenger.bundle} were evaluated on different rows")
    if champion.threshold != challenger.threshold:
        raise RecordsDiffer(
            f"{champion.bundle} was evaluated at the threshold {champion.threshold:g}, "
            f"{challenger.bundle} at {challenger.threshold:g}"
        )


def _rows(challenger: EvaluationRecord, rules: GateRules) -> Finding:
    enough = challenger.rows >= rules.fewest_rows
    words = "enough" if enough else "too few: it stays challenger"
    reason = (
        f"{challenger.rows} held-out rows in {len(challenger.blocks.rows)} blocks, {rules.fewest_rows} needed: {words}"
    )
    return enough, reason, {"rows": float(challenger.rows)}


def _log_loss(champion: EvaluationRecord, challenger: EvaluationRecord, rules: GateRules) -> Finding:
    saved = np.asarray(champion.blocks.log_loss) - np.asarray(challenger.blocks.log_loss)
    found = ratio_interval(saved, np.asarray(challenger.blocks.rows, dtype=np.float64), seed=rules.seed)
    passed = found.value >= -rules.tolerance
    allowed = f", within the tolerance of {rules.tolerance:g}" if passed and found.value < 0 else ""
    reason = (
        f"log loss {challenger.log_loss:.5f} against the champion's {champion.log_loss:.5f}: "
        f"{_compared(found, 5, 'better', 'worse')}{allowed}"
    )
    return passed, reason, _numbers("log_loss_difference", found)


def _expectancy(champion: EvaluationRecord, challenger: EvaluationRecord, rules: GateRules) -> Finding:
    if champion.expectancy is None or challenger.expectancy is None:
        passed = champion.expectancy is None
        names = {"champion": champion, "challenger": challenger}
        idle = " and ".join(name for name, record in names.items() if record.expectancy is None)
        reason = f"no trades of the {idle} at {challenger.threshold:g}: expectancies cannot be compared"
        return passed, reason, _numbers("expectancy_difference", Interval(np.nan, np.nan, np.nan, 0))
    found = difference_interval(_trades(challenger), _trades(champion), seed=rules.seed)
    passed = not found.high < 0
    reason = (
        f"expectancy {challenger.expectancy:+.3f} R in {challenger.trades} trades against {champion.expectancy:+.3f} R "
        f"in {champion.trades}: {_compared(found, 3, 'higher', 'lower')}, "
        f"{'not shown to be worse' if passed else 'shown to be worse'}"
    )
    return passed, reason, _numbers("expectancy_difference", found)


def _trades(record: EvaluationRecord) -> tuple[Floats, Floats]:
    return np.asarray(record.blocks.trade_r), np.asarray(record.blocks.trades, dtype=np.float64)


def _alone(challenger: EvaluationRecord) -> str:
    low, high = challenger.improvement_interval or (np.nan, np.nan)
    found = Interval(challenger.improvement, low, high, len(challenger.blocks.rows))
    words = "skill" if challenger.skill else "no skill shown"
    return f"log loss {_compared(found, 5, 'better', 'worse')}, against the base rate: {words}"


def _compared(found: Interval, digits: int, above: str, below: str) -> str:
    """A difference and its interval in words, each with its direction.

    >>> _compared(Interval(-0.0019, -0.004, 0.0002, 40), 4, "better", "worse")
    'worse by 0.0019 (95 %: worse by 0.0040 to better by 0.0002)'
    >>> _compared(Interval(0.0, np.nan, np.nan, 3), 4, "better", "worse")
    'the same (too few blocks for an interval)'
    >>> _compared(Interval(-1e-9, np.nan, np.nan, 3), 4, "better", "worse")
    'worse by less than 0.0001 (too few blocks for an interval)'
    """

    def words(value: float) -> str:
        least = 10.0**-digits
        size = f"{abs(value):.{digits}f}" if abs(value) >= least else f"less than {least:.{digits}f}"
        return f"{above if value > 0 else below} by {size}" if value else "the same"

    span = f"95 %: {words(found.low)} to {words(found.high)}" if found.known else "too few blocks for an interval"
    return f"{words(found.value)} ({span})"


def _numbers(name: str, found: Interval) -> dict[str, float | None]:
    return {name: finite(found.value), f"{name}_low": finite(found.low), f"{name}_high": finite(found.high)}
