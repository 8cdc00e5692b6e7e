"""How steadily a number tells outcomes apart, forward in time, and how much of that the search itself explains.

- The *information coefficient* of a block of time is the mean over its rows of place times outcome: the place of the
  number among those of earlier blocks, from -1/2 to 1/2, and the outcome in units of its root mean square in earlier
  blocks; times `sqrt(12)`, so that it is of the size of a correlation (Grinold and Kahn 2000, chapter 6). A block holds
  what was decided and known within it, so no two share an outcome and every earlier block is known before the next
  one begins.
- Nothing of the block itself centres or scales it. A correlation within the block would: numbers are made of past
  prices, so their mean over the block knows of the moves that are to be foretold, and against that mean a random walk
  seems to turn back (the bias of Stambaugh 1999, "Predictive Regressions"). It has no such bias when every row is
  held against the past alone: outcomes that nobody can foretell give a coefficient of mean zero.
- Whether a number is followed or reversed is learnt from the blocks before and scored on the block after. The first
  quarter of the blocks only teaches.
- The *information ratio* is the mean of the scores over their standard deviation; a year has `sqrt(blocks a year)`
  times that of a block.
- Of many tries the best looks good without any skill. The *corrected* ratio is the lower end of the interval of the
  ratio whose level allows for all tries together (Bonferroni): `q - t(1 - alpha / tries) * sqrt((1 + q^2 / 2) / n)`,
  with Lo's error of a ratio (2002, "The Statistics of Sharpe Ratios") and Student's t for few blocks. The chance that
  any try without skill has a corrected ratio above zero is at most alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models_registry.statistics import student_t

Float64 = NDArray[np.float64]
Index = NDArray[np.int64]

YEAR_MS = 365.25 * 86_400_000
ALPHA = 0.05
"""The chance of keeping anything at all when nothing is there."""
TEACHING = 0.25
"""Share of the blocks that only teach the sign."""
FEWEST_SCORED = 12
"""Scored blocks below which there is no ratio."""
FEWEST_ROWS = 10
"""Rows of a block below which it has no coefficient."""
FEWEST_BEFORE = 50
"""Rows of earlier blocks below which a number has no place among them."""


@dataclass(frozen=True)
class Ratio:
    """The walk forward of one number."""

    per_block: float
    """Mean over standard deviation of the scores; NaN when there are too few blocks."""
    blocks: int
    """Scored ones."""
    mean: float
    """Mean score: the coefficient in the direction learnt before, NaN like `per_block`."""
    sign: float = 1.0
    """The direction that all blocks together teach: -1 where the number is to be reversed."""

    @property
    def known(self) -> bool:
        """Whether there were blocks enough, and any movement in them."""
        return math.isfinite(self.per_block)


def average_ranks(values: NDArray[np.floating]) -> Float64:
    """Ranks from 0, equal values sharing the mean of theirs.

    >>> average_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts + 1) / 2)[inverse.reshape(-1)])


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's; 0 when either does not vary, since it then tells nothing.

    >>> rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.2, 0.3]))
    1.0
    """
    a, b = average_ranks(first), average_ranks(second)
    a -= a.mean()
    b -= b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else 0.0


def whole_blocks(decided_at: Index, known_at: Index, block_ms: int) -> list[Index]:
    """The rows of each block in order of time: those decided and known within it.

    >>> [rows.tolist() for rows in whole_blocks(np.array([0, 5, 12]), np.array([3, 11, 19]), 10)]
    [[0], [2]]
    """
    block = decided_at // block_ms
    within = np.flatnonzero(known_at // block_ms == block)
    order = within[np.argsort(block[within], kind="stable")]
    edges = np.flatnonzero(np.diff(block[order])) + 1
    return [rows for rows in np.split(order, edges) if rows.size]


def coefficients(values: NDArray[np.floating], target: NDArray[np.floating], blocks: list[Index]) -> Float64:
    """The information coefficient of `values [m]` with `target [m]` in each block; NaN with too few known rows."""
    found = np.full(len(blocks), np.nan)
    known = [rows[np.isfinite(values[rows])] for rows in blocks]
    before = np.concatenate([np.empty(0, dtype=np.int64), *known])
    ends = np.cumsum([0, *(rows.size for rows in known)])
    for at, rows in enumerate(known):
        past = before[: ends[at]]
        if rows.size >= FEWEST_ROWS:
            found[at] = coefficient(values[rows], target[rows], values[past], target[past])
    return found


def coefficient(
    values: NDArray[np.floating],
    target: NDArray[np.floating],
    past_values: NDArray[np.floating],
    past_target: NDArray[np.floating],
) -> float:
    """The information coefficient of finite `values` with `target`, held against the past; NaN with too few of it.

    >>> past = np.arange(100.0)
    >>> round(coefficient(np.array([99.0, 0.0]), np.array([2.0, -2.0]), past, np.full(100, 2.0)), 2)
    1.71
    """
    scale = math.sqrt(float(np.mean(np.square(past_target)))) if past_target.size else 0.0
    if past_values.size < FEWEST_BEFORE or not values.size or scale == 0.0:
        return math.nan
    ordered = np.sort(past_values)
    under = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    place = under / (2 * ordered.size) - 0.5
    return math.sqrt(12) * float(np.mean(place * target)) / scale


def walk_forward(coefficient: Float64) -> Ratio:
    """The ratio of the coefficients of successive blocks, each scored in the direction of those before it."""
    known = coefficient[np.isfinite(coefficient)]
    first = max(3, math.ceil(TEACHING * known.size))
    if known.size - first < FEWEST_SCORED:
        return Ratio(math.nan, max(known.size - first, 0), math.nan)
    before = np.cumsum(known)[first - 1 : -1]
    scores = np.where(before < 0, -1.0, 1.0) * known[first:]
    spread = float(scores.std(ddof=1))
    mean = float(scores.mean())
    sign = -1.0 if float(known.sum()) < 0 else 1.0
    return Ratio(mean / spread if spread > 1e-12 else math.nan, scores.size, mean, sign)


def annual(per_block: float, block_ms: int) -> float:
    """A block's ratio as a year's.

    >>> round(annual(0.1, 86_400_000), 2)
    1.91
    """
    return per_block * math.sqrt(YEAR_MS / block_ms)


def corrected(ratio: Ratio, tries: int, alpha: float = ALPHA) -> float:
    """The ratio of a block less what `tries` tries explain; NaN when there is no ratio.

    >>> round(corrected(Ratio(1.0, 40, 0.05), 1), 2), round(corrected(Ratio(1.0, 40, 0.05), 200), 2)
    (0.67, 0.26)
    """
    if not ratio.known:
        return math.nan
    q, n = ratio.per_block, ratio.blocks
    return q - student_t(1 - alpha / tries, n - 1) * math.sqrt((1 + q * q / 2) / n)


def bar(blocks: int, tries: int, least: float, alpha: float = ALPHA) -> float:
    """The ratio of a block from which the corrected one is above `least`; infinite where none is.

    >>> round(bar(40, 200, corrected(Ratio(1.0, 40, 0.05), 200)), 6)
    1.0
    """
    if blocks < FEWEST_SCORED:
        return math.inf
    squared = student_t(1 - alpha / tries, blocks - 1) ** 2
    leading = 1 - squared / (2 * blocks)
    if leading <= 0:
        return math.inf
    return (least + math.sqrt(least * least - leading * (least * least - squared / blocks))) / leading
