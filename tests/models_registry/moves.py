"""A training set with the columns that expressions are made of, and a planted one among them, or none."""

from __future__ import annotations

import re

import numpy as np

from features.expression_parser import parse
from features.expression_program import Program
from models_registry.dynamic_candidates import READINGS, TIMEFRAMES
from models_registry.training_set import HISTORY, STOP, TARGET, TrainingSet

MINUTE = 60_000
START = 1_750_032_000_000

BASE = sorted(
    {
        name
        for readings in READINGS.values()
        for part in readings
        for written in part
        for name in re.findall(r"\{t\}\.(\w+)", written)
    }
)
NAMES = ("5m.regime", *(f"{timeframe}.{name}" for timeframe in TIMEFRAMES for name in BASE))

PLANTED = "(15m.rsi_14 - 50) / 50"
"""Among the readings of the ranging regime."""


def training_set(days: int = 50, rows_a_day: int = 240, edge: float = 0.0, seed: int = 1) -> TrainingSet:
    """Rows evenly over `days`, each with a long and a short candidate, and a regime that changes every third hour.

    In the ranging regime the price goes against `PLANTED` by `edge`; elsewhere nowhere. Columns drift from day to
    day, as those of a market do.
    """
    rng = np.random.default_rng(seed)
    rows = days * rows_a_day
    at = START + np.arange(rows) * (24 * 60 // rows_a_day) * MINUTE
    decision = rng.standard_normal((rows, len(NAMES)))
    decision += rng.standard_normal((days, len(NAMES)))[np.arange(rows) // rows_a_day]
    for column, name in enumerate(NAMES):
        base = name.split(".", 1)[1]
        if base in ("rsi_14", "mfi_14", "stochastic_rsi_14", "stochastic_rsi_signal_14"):
            decision[:, column] = 50 + 15 * decision[:, column]
        elif base.endswith(("_fraction", "_ratio", "width_20", "volatility_20", "bars")) or base == "adx_14":
            decision[:, column] = np.exp(0.3 * decision[:, column])
    decision[:, 0] = rng.integers(0, 3, rows // 10 + 1)[np.arange(rows) // 10]
    decision = decision.astype(np.float32)
    decision[rng.random(decision.shape) < 0.01] = np.nan
    told = Program([parse(PLANTED)], NAMES).run(decision)[:, 0]
    told = np.where((decision[:, 0] == 0) & np.isfinite(told), told, 0.0)
    up = rng.random(rows) < 1 / (1 + np.exp(edge * told))
    # The rules' candidates pay costs and have one side; events have both.
    both = rng.random(rows) < 0.7
    long = np.where(both, True, rng.random(rows) < 0.5)
    index = np.concatenate([np.flatnonzero(long), np.flatnonzero(both | ~long)])
    direction = np.concatenate([np.ones(int(long.sum())), -np.ones(int((both | ~long).sum()))])
    won = up[index] == (direction > 0)
    return TrainingSet.of(
        decision=decision[index],
        windows=np.zeros((len(index), 4, 5)),
        direction=direction,
        kind=np.where(both[index], 2, 1),
        decided_at=at[index],
        known_at=at[index] + rng.integers(5, 240, len(index)) * MINUTE,
        outcome=np.where(won, TARGET, STOP),
        r=np.where(won, 1.2, -1.1),
        weight=np.ones(len(index)),
        source=np.full(len(index), HISTORY),
        quality=rng.random(len(index)),
        symbol=np.zeros(len(index)),
        symbols=("BTCUSDT",),
        decision_spec_id="decision-dynamic-test",
        decision_names=NAMES,
    )
