"""Opportunities whose best decisions follow from their columns, or from nothing."""

from __future__ import annotations

import numpy as np

from features.barriers import EXPIRY
from features.episodes import Episodes
from models_registry.dqn_experience import Experience
from models_registry.training_set import Split, split_in_time

HOUR = 3_600_000
START = 1_750_000_200_000
NAMES = tuple(f"5m.feature_{index}" for index in range(10))


def experience(count: int = 1500, edge: float = 0.5, seed: int = 3, days: float = 25.0) -> Experience:
    """Every trade is decided on once. Column 0 tells the move until then, column 1 at that decision the move after it.

    An entry costs 0.15 R, and moves that no column tells have a spread of 0.4 R.
    """
    rng = np.random.default_rng(seed)
    decision = rng.standard_normal((2 * count, len(NAMES))).astype(np.float32)
    flat, later = decision[:count], decision[count:]
    side = np.array([1.0, -1.0])
    noise = 0.4 * rng.standard_normal((2, count, 1)) * side
    mark = side * edge * flat[:, :1] + noise[0] - 0.15
    r = mark + side * edge * later[:, 1:2] + noise[1]
    closed = mark + 0.01 * rng.standard_normal((count, 2))
    position = np.zeros((2 * count, 5), dtype=np.float32)
    position[:, 0] = np.tile(side, count)
    position[:, 1] = mark.reshape(-1)
    position[:, 2] = 3
    decided_at = START + np.linspace(0, days * 24 * HOUR, count).astype(np.int64) // 300_000 * 300_000
    found = Episodes(
        row=np.arange(count),
        symbol=np.zeros(count, dtype=np.int32),
        decided_at=decided_at,
        known_at=decided_at + HOUR,
        signal=rng.integers(-1, 2, count).astype(np.int8),
        outcome=np.full((count, 2), EXPIRY, dtype=np.int8),
        r=r,
        first=np.arange(2 * count + 1),
        step_row=np.repeat(np.arange(count, 2 * count), 2),
        step_bars=np.full(2 * count, 3.0),
        step_mark=mark.reshape(-1),
        step_closed=closed.reshape(-1),
        step_position=position,
    )
    decision[rng.random(decision.shape) < 0.02] = np.nan
    return Experience.of(found, decision, lambda rows: rng.standard_normal((len(rows), 16)).astype(np.float32), NAMES)


def shuffled(given: Experience, seed: int = 0) -> Experience:
    """The same states, but what came of them is another opportunity's."""
    order = np.random.default_rng(seed).permutation(len(given))
    other = given.episodes.select(order)
    own = given.episodes
    told = {name: getattr(other, name) for name in ("r", "outcome", "step_mark", "step_closed", "step_bars")}
    return Experience(Episodes(**{**vars(own), **told}), given.decision, given.latents, given.decision_names)


def cut(given: Experience) -> Split:
    """A fifth is held out, and a fifth of the rest validates."""
    episodes = given.episodes
    return split_in_time(
        episodes.decided_at,
        episodes.known_at,
        holdout_start_ms=int(episodes.decided_at[int(0.8 * len(given))]),
        validation_fraction=0.2,
        embargo_ms=HOUR,
    )
