"""What a score is worth that is the best, or the latest, of many tries; and what could have been shown at all.

Every bundle that was ever trained is a trial. The best of many scores without any skill looks good: the expected
largest of `n` independent standard normal scores is about

    (1 - g) Z(1 - 1 / n) + g Z(1 - 1 / (n e))

with Euler's constant `g` and the normal quantile `Z` (Bailey and Lopez de Prado 2014, "The Deflated Sharpe Ratio").
A reported improvement is deflated by so many of its standard errors. Trials share their data and so are not
independent: the deflation is then more than enough, never too little.

One report makes several claims at once, one for each model, and each would be wrong by chance in one of forty cases.
So the level is divided by their number (Bonferroni, which holds whatever they share): a report without any skill shows
something in at most one of forty cases, too. What is no claim is told with its interval and has no verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

NORMAL = NormalDist()
EULER = 0.5772156649015329
POWER = 0.8
"""The chance with which the smallest detectable effect would have been shown."""
LEVEL = 0.975
"""One end of the 95 % interval."""


def bound(claims: int) -> float:
    """The standard errors that an improvement must be above zero to be shown as one of so many claims.

    >>> round(bound(1), 2), round(bound(10), 2)
    (1.96, 2.81)
    """
    if claims < 1:
        raise ValueError(f"{claims} claims: the one that is made counts")
    return NORMAL.inv_cdf(1 - (1 - LEVEL) / claims)


@dataclass(frozen=True)
class Deflated:
    """An improvement with what the search for it explains taken away. All in the improvement's own unit."""

    improvement: float
    """As it was measured."""
    standard_error: float
    """Half the 95 % interval's width over 1.96; NaN without an interval."""
    trials: int
    claims: int
    """Made in the same report, this one among them."""
    expected_best: float
    """What the best of so many trials without skill is expected to show."""
    smallest_detectable: float
    """The true improvement that this sample would have shown, as `shown` has it, with a chance of 80 %."""

    @property
    def deflated(self) -> float:
        """The improvement less what the search explains."""
        return self.improvement - self.expected_best

    @property
    def shown(self) -> bool:
        """Whether the deflated improvement is above zero at the level of one among so many claims."""
        return self.deflated - bound(self.claims) * self.standard_error > 0


def expected_largest(trials: int) -> float:
    """The expected largest of `trials` independent standard normal numbers; 0 for one trial.

    >>> [round(expected_largest(n), 2) for n in (1, 2, 10, 100)]
    [0.0, 0.52, 1.57, 2.53]
    """
    if trials < 1:
        raise ValueError(f"{trials} trials: the one that is reported counts")
    if trials == 1:
        return 0.0
    return (1 - EULER) * NORMAL.inv_cdf(1 - 1 / trials) + EULER * NORMAL.inv_cdf(1 - 1 / (trials * math.e))


def standard_error(interval: tuple[float, float] | None) -> float:
    """The standard error that a 95 % interval stands for; NaN without one."""
    return math.nan if interval is None else (interval[1] - interval[0]) / (2 * NORMAL.inv_cdf(LEVEL))


def smallest_detectable(error: float, trials: int = 1, claims: int = 1, power: float = POWER) -> float:
    """The true effect that is shown, after `trials` and among `claims`, with a chance of `power`.

    >>> round(smallest_detectable(0.01), 3), round(smallest_detectable(0.01, trials=20, claims=5), 3)
    (0.028, 0.053)
    """
    return (expected_largest(trials) + bound(claims) + NORMAL.inv_cdf(power)) * error


def deflate(improvement: float, interval: tuple[float, float] | None, trials: int, claims: int = 1) -> Deflated:
    """An improvement with its 95 % interval, the newest of `trials` and one of `claims` in its report, deflated.

    >>> found = deflate(0.02, (0.01, 0.03), 20)
    >>> round(found.deflated, 4), found.shown
    (0.0103, True)
    >>> deflate(0.02, (0.01, 0.03), 20, claims=5).shown
    False
    """
    error = standard_error(interval)
    return Deflated(
        improvement=improvement,
        standard_error=error,
        trials=trials,
        claims=claims,
        expected_best=expected_largest(trials) * error,
        smallest_detectable=smallest_detectable(error, trials, claims),
    )
