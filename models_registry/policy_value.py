"""What a policy would have got: played over held-out opportunities, beside what simpler ones get.

Both trades of every opportunity are known, and what each gives at each close of it, so a policy is not estimated from
another's actions: it is played. What it could not have changed is assumed: that its orders do not move prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.barriers import VOID
from features.episodes import CLOSE, HOLD, LONG, SHORT, Episodes, action_mask
from models_registry.dqn_policy import masked as masked
from models_registry.manifest import Metric, finite
from models_registry.statistics import Interval, block_index, block_sums, difference_interval, ratio_interval

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """What a policy got at each of `n` opportunities."""

    r: Float64
    """[n] in R net of fees and funding; 0 where it skipped."""
    trades: Float64
    """[n] how many trades that were; for a policy that throws dice, the expected number."""

    @property
    def per_opportunity(self) -> float:
        """Mean R; NaN without opportunities."""
        return float(self.r.mean()) if self.r.size else np.nan

    @property
    def per_trade(self) -> float:
        """Mean R of the trades; NaN without any."""
        total = float(self.trades.sum())
        return float(self.r.sum()) / total if total else np.nan


def play(episodes: Episodes, entry: NDArray[np.integer], close: NDArray[np.bool_] | None = None) -> Played:
    """The policy that takes direction `entry` [n] (0 skips) and closes where `close` [m] says so, else holds."""
    r = episodes.r if close is None else episodes.managed(close)
    side = np.where(entry > 0, 0, 1)
    rows = np.arange(len(episodes))
    taken = (entry != 0) & (episodes.outcome[rows, side] != VOID)
    return Played(np.where(taken, r[rows, side], 0.0), taken.astype(np.float64))


def greedy(episodes: Episodes, values: Float32) -> Played:
    """The policy that always takes the action of the largest value; `values` [states, 5]."""
    actions = masked(values, action_mask(episodes.state_position[:, 0]))
    flat, held = actions[: len(episodes)], actions[len(episodes) :]
    return play(episodes, (flat == LONG).astype(int) - (flat == SHORT), held == CLOSE)


def always_skip(episodes: Episodes) -> Played:
    """Never trades."""
    return Played(np.zeros(len(episodes)), np.zeros(len(episodes)))


def uniform(episodes: Episodes) -> Played:
    """Every action of the mask alike: a third each when flat, a half each when open. Exact, without dice."""
    worth = np.append(episodes.step_closed, 0.0)
    ends = episodes.r.reshape(-1).copy()
    last = episodes.first[1:] - 1
    for trade in np.flatnonzero(np.diff(episodes.first)):
        ahead = ends[trade]
        for at in range(last[trade], episodes.first[trade] - 1, -1):
            ahead = 0.5 * (worth[at] + ahead)
        ends[trade] = ahead
    taken = episodes.outcome != VOID
    return Played(np.where(taken, ends.reshape(-1, 2), 0.0).sum(axis=1) / 3, taken.sum(axis=1) / 3)


def rules(episodes: Episodes) -> Played:
    """Takes every signal of the rule strategy and holds it to its barrier."""
    return play(episodes, episodes.signal)


def by_probability(episodes: Episodes, probability: NDArray[np.floating], threshold: float) -> Played:
    """Takes the likelier direction where it reaches `threshold` and holds it.

    `probability` [n, 2] is that of the target before the stop, long and short; NaN where the direction is not
    considered.
    """
    known = np.where(np.isnan(probability), -np.inf, probability)
    side = np.where(known[:, 0] >= known[:, 1], 1, -1)
    return play(episodes, np.where(known.max(axis=1) >= threshold, side, 0))


def policy_metrics(episodes: Episodes, policy: Played, baselines: Mapping[str, Played], seed: int) -> dict[str, Metric]:
    """`r_per_opportunity_vs_NAME` and `r_per_trade_vs_NAME` for every baseline, with intervals of the difference.

    Blocks of time over all symbols together. A policy or baseline without trades has no R a trade; not to trade
    counts as 0 a trade only for the baseline that never does.
    """
    starts, block = block_index(episodes.decided_at)
    count = len(starts)
    ones = block_sums(block, np.ones(len(block)), count)

    def sums(played: Played) -> tuple[Float64, Float64]:
        return block_sums(block, played.r, count), block_sums(block, played.trades, count)

    r, trades = sums(policy)
    result: dict[str, Metric] = {}
    for name, baseline in baselines.items():
        other_r, other_trades = sums(baseline)
        each = ratio_interval(r - other_r, ones, seed=seed)
        words = name.replace("_", " ")
        result[f"r_per_opportunity_vs_{name}"] = _metric(
            policy.per_opportunity, baseline.per_opportunity, words, each, len(episodes), count
        )
        if not baseline.trades.any():
            traded, other = ratio_interval(r, trades, seed=seed), 0.0
        else:
            traded = difference_interval((r, trades), (other_r, other_trades), seed=seed)
            other = baseline.per_trade
        result[f"r_per_trade_vs_{name}"] = _metric(
            policy.per_trade, other, words, traded, round(policy.trades.sum()), count
        )
    return result


def _metric(value: float, baseline: float, name: str, found: Interval, rows: int, blocks: int) -> Metric:
    return Metric(
        value=finite(value),
        baseline=finite(baseline),
        baseline_name=name,
        improvement=finite(found.value),
        interval=found.pair,
        sums=found.sums,
        rows=rows,
        blocks=blocks,
        note="mean R net of fees and funding, played on held-out opportunities",
    )


def mean_values(episodes: Episodes, values: Float32) -> dict[str, float]:
    """The mean value of each action over the states that have it; NaN for none."""
    flat, held = values[: len(episodes)], values[len(episodes) :]
    parts = {"long": flat[:, LONG], "short": flat[:, SHORT], "hold": held[:, HOLD], "close": held[:, CLOSE]}
    return {name: float(part.mean()) if part.size else np.nan for name, part in parts.items()}
