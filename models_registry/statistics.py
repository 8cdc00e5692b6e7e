"""Scores of probabilities and trades, and honest intervals for their differences.

Labels overlap in time and all symbols move together, so rows are never resampled one by one: values are summed
in blocks of time, over all symbols, and runs of neighbouring blocks are drawn (the circular block bootstrap of
Politis and Romano 1992). With few blocks the percentile interval is too narrow; its levels are widened to those
of Student's t (the expanded percentile interval, Hesterberg 2015, section 4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Float64 = NDArray[np.float64]
Values = NDArray[np.floating] | NDArray[np.integer] | NDArray[np.bool_]

BLOCK_MS = 4 * 3_600_000
"""The unit of time blocks: the longest a label lasts, so that only neighbours share labels."""
DAY_BLOCKS = 6
DRAWS = 2000
FEWEST_BLOCKS = 6
"""Below it there is no interval: too few independent pieces to say anything."""


@dataclass(frozen=True)
class Interval:
    """A ratio of sums over blocks, with its 95 % interval; `low` and `high` are NaN with too few blocks."""

    value: float
    low: float
    high: float
    blocks: int

    @property
    def known(self) -> bool:
        """Whether there were blocks enough."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def pair(self) -> tuple[float, float] | None:
        """`(low, high)`, or None when not known."""
        return (self.low, self.high) if self.known else None


def block_index(time_ms: NDArray[np.int64], block_ms: int = BLOCK_MS) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The start times of the blocks that hold any row, ascending, and each row's block number.

    >>> starts, block = block_index(np.array([0, 10, 25]), 10)
    >>> starts.tolist(), block.tolist()
    ([0, 10, 20], [0, 1, 2])
    """
    starts, block = np.unique(np.asarray(time_ms, dtype=np.int64) // block_ms * block_ms, return_inverse=True)
    return starts, block.reshape(-1)


def block_sums(block: NDArray[np.int64], values: Values, blocks: int) -> Float64:
    """The sum of `values` in each block, `[blocks]`."""
    return np.asarray(np.bincount(block, np.asarray(values, dtype=np.float64), blocks), dtype=np.float64)


def run_length(blocks: int) -> int:
    """How many neighbouring blocks are drawn together: a day when there are many, never less than two.

    >>> run_length(12), run_length(60), run_length(300)
    (2, 3, 6)
    """
    return int(np.clip(blocks // 20, 2, DAY_BLOCKS))


def bootstrap_ratio(numerator: Values, denominator: Values, *, seed: int, draws: int = DRAWS) -> Interval:
    """`sum(numerator) / sum(denominator)` over blocks in time order, with its interval.

    A mean over rows has the row counts as denominator. Draws whose denominator is zero are left out.
    """
    zero, one = np.zeros(len(numerator)), np.ones(len(numerator))
    return bootstrap_difference((numerator, denominator), (zero, one), seed=seed, draws=draws)


def bootstrap_difference(
    first: tuple[Values, Values], second: tuple[Values, Values], *, seed: int, draws: int = DRAWS
) -> Interval:
    """The ratio of sums `first` less the ratio of sums `second`, over the same blocks, with its interval.

    Each is `(numerator, denominator)` as in `bootstrap_ratio`; both are drawn together, so what moves both
    alike does not widen the interval.
    """
    parts = [np.asarray(values, dtype=np.float64) for values in (*first, *second)]
    blocks = len(parts[0])
    sums = [float(part.sum()) for part in parts]
    value = sums[0] / sums[1] - sums[2] / sums[3] if sums[1] and sums[3] else math.nan
    if blocks < FEWEST_BLOCKS or math.isnan(value):
        return Interval(value, math.nan, math.nan, blocks)
    length = run_length(blocks)
    starts = np.random.default_rng(seed).integers(0, blocks, size=(draws, math.ceil(blocks / length)))
    chosen = ((starts[:, :, None] + np.arange(length)) % blocks).reshape(draws, -1)[:, :blocks]
    drawn = [part[chosen].sum(axis=1) for part in parts]
    usable = (drawn[1] > 0) & (drawn[3] > 0)
    if 2 * usable.sum() < draws:
        return Interval(value, math.nan, math.nan, blocks)
    ratios = drawn[0][usable] / drawn[1][usable] - drawn[2][usable] / drawn[3][usable]
    low, high = np.quantile(ratios, expanded_levels(blocks / length))
    return Interval(value, float(low), float(high), blocks)


def expanded_levels(independent: float, coverage: float = 0.95) -> tuple[float, float]:
    """The percentiles to read from a bootstrap of `independent` pieces for an interval of `coverage`.

    >>> [round(level, 4) for level in expanded_levels(10)]
    [0.0086, 0.9914]
    """
    spread = math.sqrt(independent / (independent - 1)) * student_t(0.5 + coverage / 2, independent - 1)
    low = NormalDist().cdf(-spread)
    return low, 1 - low


def student_t(probability: float, degrees: float) -> float:
    """The quantile of Student's t for `probability` above one half (expansion of Abramowitz and Stegun 26.7.5).

    >>> round(student_t(0.975, 10), 2), round(student_t(0.975, 5), 2)
    (2.23, 2.57)
    """
    z = NormalDist().inv_cdf(probability)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3 + g4 / degrees**4


def log_loss(won: NDArray[np.bool_], probability: Floats) -> Float64:
    """The loss of each row in nats, `[m]`."""
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.where(won, -np.log(p), -np.log1p(-p))


def auc(won: NDArray[np.bool_], score: Floats) -> float:
    """The chance that a won row scores above a lost one, ties half; NaN when there is only one kind.

    >>> auc(np.array([False, True, True]), np.array([0.2, 0.2, 0.9]))
    0.75
    """
    wins = int(won.sum())
    losses = len(won) - wins
    if not wins or not losses:
        return math.nan
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]
    return float((ranks[won].sum() - wins * (wins + 1) / 2) / (wins * losses))


def reliability(won: NDArray[np.bool_], probability: Floats, bins: int = 10) -> list[tuple[float, float, int]]:
    """Bins of equal count by probability: mean predicted, share won, rows."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [(float(np.mean(probability[part])), float(np.mean(won[part])), len(part)) for part in parts]


def calibration_error(won: NDArray[np.bool_], probability: Floats) -> float:
    """Expected calibration error: the mean distance of predicted and observed over `reliability`'s bins."""
    table = reliability(won, probability)
    rows = sum(count for _, _, count in table)
    return sum(abs(p - y) * count for p, y, count in table) / rows if rows else math.nan


def drawdown(r: Floats) -> float:
    """The deepest fall of the running sum of `r` below its peak (or its start), in R, as a positive number.

    >>> drawdown(np.array([1.0, -1.0, -1.0, 2.0]))
    2.0
    """
    path = np.concatenate([[0.0], np.cumsum(np.asarray(r, dtype=np.float64))])
    return float((np.maximum.accumulate(path) - path).max())


@dataclass(frozen=True)
class Scored:
    """Rows with their outcome and a probability of it."""

    decided_at: NDArray[np.int64]
    known_at: NDArray[np.int64]
    won: NDArray[np.bool_]
    r: Floats
    probability: Floats


def base_rate(won: NDArray[np.bool_]) -> Float64:
    """The rows' own share of wins, for every row.

    It is the hardest constant to beat: a model cannot pass for skilled by knowing a more recent rate.
    """
    return np.full(len(won), np.clip(won.mean(), 1e-6, 1 - 1e-6), dtype=np.float64)


def improvement(scored: Scored, baseline: Floats, seed: int) -> Interval:
    """Mean log loss of `baseline` (a probability for each row) less that of the model."""
    difference = log_loss(scored.won, baseline) - log_loss(scored.won, scored.probability)
    starts, block = block_index(scored.decided_at)
    count = block_sums(block, np.ones(len(block)), len(starts))
    return bootstrap_ratio(block_sums(block, difference, len(starts)), count, seed=seed)


def selection(scored: Scored, chosen: NDArray[np.bool_], seed: int) -> tuple[Interval, Interval]:
    """Mean R of the chosen rows, and how much more it is than of all rows."""
    starts, block = block_index(scored.decided_at)
    trades = (
        block_sums(block, np.where(chosen, scored.r, 0.0), len(starts)),
        block_sums(block, chosen, len(starts)),
    )
    everything = block_sums(block, scored.r, len(starts)), block_sums(block, np.ones(len(block)), len(starts))
    return bootstrap_ratio(*trades, seed=seed), bootstrap_difference(trades, everything, seed=seed)
