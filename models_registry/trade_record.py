"""How the trades of one bundle went over one window: what the gate compares, and what live trading is held to.

The record keeps sums over blocks of time beside the numbers, so that two bundles over one window can be paired.

A position that is still open when the window ends has no outcome, and those that end quickly are not like those that
last. So only positions count that were decided early enough to have ended by their expiry: those decided before
`decided_until_ms`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.manifest import finite
from models_registry.statistics import BLOCK_MS, Interval, block_sums, drawdown, ratio_interval

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Trades:
    """Closed positions; all arrays are `[m]`, in any order. Times in ms, `r` net of costs."""

    decided_at: NDArray[np.int64]
    opened_at: NDArray[np.int64]
    known_at: NDArray[np.int64]
    r: NDArray[np.float64]
    won: NDArray[np.bool_]
    """The target was touched before the stop."""


class TradeBlocks(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the positions decided in each block of time, empty blocks included; the lists have one length."""

    start_ms: list[int]
    positions: list[int]
    r: list[float]


class TradeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The closed positions of one bundle that were decided in [start_ms, decided_until_ms)."""

    start_ms: int
    decided_until_ms: int
    symbols: int
    positions: int
    lost: int
    """Positions whose path was not seen, because bars are missing: they are in no other number."""
    expectancy: float | None
    """Mean R of a position, net of fees, spread, slippage and funding; null without any."""
    expectancy_interval: tuple[float, float] | None
    total_r: float
    hit_rate: float | None
    drawdown: float
    """Deepest fall of the running sum of R, in order of exit."""
    turnover: float
    """Positions a day."""
    exposure: float
    """Positions that were open at a time, on average over the window."""
    block_ms: int
    blocks: TradeBlocks

    @property
    def days(self) -> float:
        """How long the window is in which positions were decided."""
        return (self.decided_until_ms - self.start_ms) / DAY_MS

    @property
    def interval(self) -> Interval:
        """The expectancy with its interval."""
        low, high = self.expectancy_interval or (math.nan, math.nan)
        value = math.nan if self.expectancy is None else self.expectancy
        return Interval(value, low, high, len(self.blocks.positions))


def trade_record(
    trades: Trades, *, start_ms: int, decided_until_ms: int, symbols: int, lost: int = 0, seed: int = 0
) -> TradeRecord:
    """The record of the `trades` that were decided in the window; pure.

    Raises `ValueError` for a window without any time in it.
    """
    if decided_until_ms <= start_ms:
        raise ValueError(f"a window from {start_ms} to {decided_until_ms} has no time in it")
    inside = (trades.decided_at >= start_ms) & (trades.decided_at < decided_until_ms)
    decided, opened, known = (each[inside] for each in (trades.decided_at, trades.opened_at, trades.known_at))
    r, won = trades.r[inside], trades.won[inside]
    starts = np.arange(start_ms // BLOCK_MS * BLOCK_MS, decided_until_ms, BLOCK_MS)
    block = (decided - starts[0]) // BLOCK_MS
    total, count = block_sums(block, r, len(starts)), block_sums(block, np.ones(len(block)), len(starts))
    found = ratio_interval(total, count, seed=seed)
    span = decided_until_ms - start_ms
    return TradeRecord(
        start_ms=start_ms,
        decided_until_ms=decided_until_ms,
        symbols=symbols,
        positions=len(r),
        lost=lost,
        expectancy=finite(found.value),
        expectancy_interval=found.pair,
        total_r=float(r.sum()),
        hit_rate=float(won.mean()) if len(r) else None,
        drawdown=drawdown(r[np.argsort(known, kind="stable")]),
        turnover=len(r) * DAY_MS / span,
        exposure=float((known - opened).sum()) / span,
        block_ms=BLOCK_MS,
        blocks=TradeBlocks(start_ms=starts.tolist(), positions=count.astype(int).tolist(), r=total.tolist()),
    )
