"""Scores of probabilities and trades, and honest intervals for their differences.

Labels overlap in time and all symbols move together, so rows are never taken one by one: values are summed in
blocks of time, over all symbols. Which interval follows depends on how many runs of blocks there are.

- Many: runs of neighbouring blocks are drawn (the circular block bootstrap of Politis and Romano 1992), the
  percentiles widened to those of Student's t (the expanded percentile interval, Hesterberg 2015, section 4.2).
- Few: a bootstrap has too few combinations, whatever its percentiles. The slow movements of the block sums are
  their error, and Student's t with as many degrees of freedom as movements gives the width (the equal-weighted
  cosine estimator, Lazarus, Lewis, Stock and Watson 2018, section 3).
- Too few: there is none.

What counts is not how many blocks of time there are but how many of them the numerator says anything in: a policy that
traded ten times in a month has shown ten blocks, of which most combinations of the month have none or the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
FEWEST_BLOCKS = 10
"""Effective blocks below which there is no interval: of so many trades that win or lose twice as much as they lose or
win, and are worth nothing on average, all end alike in less than one of forty cases; of fewer more often than that."""
FEWEST_RUNS = 20
"""Runs of effective blocks from which they are resampled."""


@dataclass(frozen=True)
class Interval:
    """A ratio of sums over blocks, with its 95 % interval; `low` and `high` are NaN with too few effective blocks."""

    value: float
    low: float
    high: float
    blocks: int
    sums: tuple[list[float], ...] = field(default=(), repr=False, compare=False)
    """By block: numerator and denominator of the first ratio and of the second, whose difference the value is. Those of
    several stretches of time, one after the other, make an interval of all of them together."""

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


def ratio_interval(numerator: Values, denominator: Values, *, seed: int, draws: int = DRAWS) -> Interval:
    """`sum(numerator) / sum(denominator)` over blocks in time order, with its interval.

    A mean over rows has the row counts as denominator. `seed` is that of the resampling.
    """
    zero, one = np.zeros(len(numerator)), np.ones(len(numerator))
    return difference_interval((numerator, denominator), (zero, one), seed=seed, draws=draws)


def difference_interval(
    first: tuple[Values, Values], second: tuple[Values, Values], *, seed: int, draws: int = DRAWS
) -> Interval:
    """The ratio of sums `first` less the ratio of sums `second`, over the same blocks, with its interval.

    Each is `(numerator, denominator)` as in `ratio_interval`; both are taken together, so what moves both
    alike does not widen the interval.
    """
    parts = [np.asarray(values, dtype=np.float64) for values in (*first, *second)]
    blocks = len(parts[0])
    totals = [float(part.sum()) for part in parts]
    value = totals[0] / totals[1] - totals[2] / totals[3] if totals[1] and totals[3] else math.nan
    sums = tuple(part.tolist() for part in parts)
    shares = [] if math.isnan(value) else _shares(parts)
    effective = min((effective_blocks(share) for share in shares), default=0.0)
    if effective < FEWEST_BLOCKS - 1e-6:  # ten that weigh alike are ten, whatever is lost in rounding
        return Interval(value, math.nan, math.nan, blocks, sums)
    if effective < FEWEST_RUNS * run_length(blocks):
        low, high = _by_cosines(parts, value, shares, degrees_of_freedom(effective))
    else:
        low, high = _by_resampling(parts, seed, draws)
    return Interval(value, low, high, blocks, sums)


def _shares(parts: list[Float64]) -> list[Float64]:
    """What each block weighs in a ratio that has anything in its numerator, for each such ratio; `[blocks]` each.

    Blocks where the numerator has nothing weigh nothing, however large the denominator: of many opportunities with a
    trade in three blocks, three blocks tell how the result may vary.
    """
    pairs = (parts[:2], parts[2:])
    return [np.where(top == 0, 0.0, under) / under.sum() for top, under in pairs if np.any(top * under)]


def _by_cosines(parts: list[Float64], value: float, shares: list[Float64], degrees: int) -> tuple[float, float]:
    """The interval of `value` from the slow movements of its blocks.

    Time runs by what the blocks are expected to add to the error, the square of their share, so that it stands still
    where nothing happens: by the clock, the movements of a few trades would be those of their gaps. Each movement is
    set against what as much noise would give it, which is the same for all where the blocks weigh alike.
    """
    ratios = [top.sum() / under.sum() for top, under in (parts[:2], parts[2:])]
    # What each block adds to the difference of ratios, to first order; these sum to zero.
    first, second = (
        (top - ratio * under) / under.sum() for (top, under), ratio in zip((parts[:2], parts[2:]), ratios, strict=True)
    )
    error = np.sum(np.square(shares), axis=0)
    error /= error.sum()
    place = np.cumsum(error) - error / 2
    waves = np.cos(math.pi * np.arange(1, degrees + 1)[:, None] * place)
    expected = np.square(waves - (waves @ error)[:, None]) @ error
    variance = float(np.mean(np.square(waves @ (first - second)) / expected))
    spread = student_t(0.975, degrees) * math.sqrt(variance)
    return value - spread, value + spread


def effective_blocks(weights: Float64) -> float:
    """How many equally heavy blocks weigh like these (Kish 1965): trades in few of the blocks count as few.

    >>> effective_blocks(np.array([5.0, 5.0, 5.0])), effective_blocks(np.array([15.0, 0.0, 0.0]))
    (3.0, 1.0)
    """
    return float(weights.sum() ** 2 / np.square(weights).sum())


def degrees_of_freedom(blocks: float) -> int:
    """The movements that `blocks` can be averaged to: half of them, rounded.

    Neighbouring blocks share labels, which makes slow movements larger than fast ones; the error of a mean is the
    slowest of all, so the fast half would make it look too small.

    >>> degrees_of_freedom(5.9), degrees_of_freedom(12)
    (3, 6)
    """
    return int(blocks / 2 + 0.5)


def _by_resampling(parts: list[Float64], seed: int, draws: int) -> tuple[float, float]:
    """The interval by the block bootstrap.

    With as many effective blocks as it asks for, a draw without any denominator does not come.
    """
    blocks = len(parts[0])
    length = run_length(blocks)
    starts = np.random.default_rng(seed).integers(0, blocks, size=(draws, math.ceil(blocks / length)))
    chosen = ((starts[:, :, None] + np.arange(length)) % blocks).reshape(draws, -1)[:, :blocks]
    drawn = [part[chosen].sum(axis=1) for part in parts]
    low, high = np.quantile(drawn[0] / drawn[1] - drawn[2] / drawn[3], expanded_levels(blocks / length))
    return float(low), float(high)


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

    >>> round(student_t(0.975, 10), 2), round(student_t(0.975, 5), 2), round(student_t(0.975, 2), 2)
    (2.23, 2.57, 4.3)
    """
    if degrees == 2:  # where the expansion is poor and the quantile has a closed form
        return (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
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
    return ratio_interval(block_sums(block, difference, len(starts)), count, seed=seed)


def selection(scored: Scored, chosen: NDArray[np.bool_], seed: int) -> tuple[Interval, Interval]:
    """Mean R of the chosen rows, and how much more it is than of all rows."""
    starts, block = block_index(scored.decided_at)
    trades = (
        block_sums(block, np.where(chosen, scored.r, 0.0), len(starts)),
        block_sums(block, chosen, len(starts)),
    )
    everything = block_sums(block, scored.r, len(starts)), block_sums(block, np.ones(len(block)), len(starts))
    return ratio_interval(*trades, seed=seed), difference_interval(trades, everything, seed=seed)
