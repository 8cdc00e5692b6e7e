"""A small training set with a relation that a model can find, or with none."""

from __future__ import annotations

import numpy as np

from models_registry.training_set import EXPIRY, HISTORY, STOP, TARGET, TrainingSet

HOUR = 3_600_000
START = 1_750_000_200_000
NAMES = tuple(f"5m.feature_{index}" for index in range(12))
SPEC_ID = "decision-test-1"


def windows_of(count: int, rng: np.random.Generator) -> np.ndarray:
    """Windows [count, 32, 5] with the dependences of real ones: highs above closes, volume with movement."""
    level = np.exp(0.4 * rng.standard_normal((count, 1)) + 0.1 * rng.standard_normal((count, 32)).cumsum(axis=1))
    close = level * rng.standard_normal((count, 32))
    high = np.maximum(close, 0) + 0.5 * level * np.abs(rng.standard_normal((count, 32)))
    low = np.minimum(close, 0) - 0.5 * level * np.abs(rng.standard_normal((count, 32)))
    volume = 0.7 * np.log(level) + 0.5 * rng.standard_normal((count, 32))
    opened = 0.02 * rng.standard_normal((count, 32))
    return np.stack([opened, high, low, close, volume], axis=-1).astype(np.float32)


def training_set(
    rows: int = 2400, edge: float = 1.2, seed: int = 3, days: float = 20.0, windows: int = 3000
) -> TrainingSet:
    """Candidates evenly over `days`; the chance of a win follows direction times feature 0, by `edge`."""
    rng = np.random.default_rng(seed)
    decision = rng.standard_normal((rows, len(NAMES))).astype(np.float32)
    direction = np.where(rng.random(rows) < 0.5, 1, -1).astype(np.int8)
    chance = 1 / (1 + np.exp(0.4 - edge * decision[:, 0] * direction))
    won = rng.random(rows) < chance
    outcome = np.where(won, TARGET, np.where(rng.random(rows) < 0.2, EXPIRY, STOP))
    # Unknown values, some of which say something, reach the trees as they are.
    decision[rng.random(decision.shape) < 0.05] = np.nan
    decided_at = START + np.linspace(0, days * 24 * HOUR, rows).astype(np.int64) // 300_000 * 300_000
    spread = np.sort(START + rng.integers(0, int(days * 24 * HOUR), windows))
    return TrainingSet.of(
        decision=decision,
        windows=windows_of(rows, rng),
        direction=direction,
        kind=rng.integers(1, 3, rows),
        decided_at=decided_at,
        known_at=decided_at + rng.integers(1, 48, rows) * 300_000,
        outcome=outcome,
        r=np.where(won, 1.25, np.where(outcome == STOP, -1.05, -0.1)),
        weight=0.5 + 0.5 * rng.random(rows),
        source=np.full(rows, HISTORY),
        quality=np.clip(0.5 + 0.2 * decision[:, 0] * direction, 0, 1),
        symbol=rng.integers(0, 4, rows),
        symbols=("ADAUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT"),
        unlabelled_windows=windows_of(windows, rng),
        unlabelled_at=spread,
        decision_spec_id=SPEC_ID,
        decision_names=NAMES,
    )
