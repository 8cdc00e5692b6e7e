"""How a bundle does on a window of candidates that it has not seen.

The record holds sums over blocks of time, not rows: enough for the gate to pair two bundles on one window and
small enough to keep forever.
"""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from models_registry.errors import NotEnoughData, WindowAlreadySeen
from models_registry.manifest import Manifest, Metric, finite
from models_registry.runtime import Predictor
from models_registry.statistics import (
    BLOCK_MS,
    Scored,
    auc,
    base_rate,
    block_index,
    block_sums,
    calibration_error,
    drawdown,
    improvement,
    log_loss,
    selection,
)
from models_registry.trade_record import TradeRecord
from models_registry.training_set import TrainingSet


class BlockSums(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the rows of each block, in time order; every list has the same length."""

    start_ms: list[int]
    rows: list[int]
    log_loss: list[float]
    base_log_loss: list[float]
    """Of the window's own base rate, the best that any constant can do."""
    r: list[float]
    """Over all candidates."""
    trades: list[int]
    trade_r: list[float]
    """Over the candidates with a probability of at least the threshold."""


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle on one window. Times in ms, log loss in nats, R net of costs."""

    bundle: str
    decision_spec: str
    start_ms: int
    end_ms: int
    """The last decision's time."""
    last_known_at: int
    """When the last label that the bundle has seen was known."""
    rows: int
    rows_hash: str
    """sha256 over which rows these are and how they ended: two records compare only when it is equal."""
    base_rate: float
    log_loss: float
    base_log_loss: float
    improvement: float
    """Log loss of the base rate less that of the bundle."""
    improvement_interval: tuple[float, float] | None
    auc: float | None
    calibration_error: float
    threshold: float
    trades: int
    expectancy: float | None
    """Mean R of the trades at the threshold; null when there are none."""
    expectancy_interval: tuple[float, float] | None
    expectancy_all: float
    """Mean R of every candidate."""
    expectancy_gain_interval: tuple[float, float] | None
    """Of `expectancy` less `expectancy_all`."""
    drawdown: float
    """Of the trades' running R, in order of the time at which it was known."""
    block_ms: int
    blocks: BlockSums
    fallbacks: dict[str, str] = {}
    replay: TradeRecord | None = None
    """What the bundle's positions came to on the window's bars; null when they were not replayed."""

    @property
    def skill(self) -> bool:
        """Whether the whole interval of the improvement over the base rate lies above zero."""
        return self.improvement_interval is not None and self.improvement_interval[0] > 0

    def metrics(self) -> dict[str, Metric]:
        """The record's numbers as metrics beside their baselines."""
        blocks = len(self.blocks.rows)
        return {
            "log_loss": Metric(
                value=self.log_loss,
                baseline=self.base_log_loss,
                baseline_name="the window's base rate",
                improvement=self.improvement,
                interval=self.improvement_interval,
                rows=self.rows,
                blocks=blocks,
            ),
            "auc": Metric(value=self.auc, baseline=0.5, baseline_name="chance", rows=self.rows, blocks=blocks),
            "calibration_error": Metric(value=self.calibration_error, rows=self.rows, blocks=blocks),
            "expectancy": Metric(
                value=self.expectancy,
                baseline=self.expectancy_all,
                baseline_name="every candidate",
                improvement=None if self.expectancy is None else self.expectancy - self.expectancy_all,
                interval=self.expectancy_gain_interval,
                rows=self.trades,
                blocks=blocks,
                note=f"mean R at a probability of at least {self.threshold:g}",
            ),
            "drawdown": Metric(value=self.drawdown, rows=self.trades, blocks=blocks, note="in R"),
        }


def predict_rows(predictor: Predictor, rows: TrainingSet) -> NDArray[np.float32]:
    """The bundle's win probability `[m]` of every row of a set, each on its own window and decision row."""
    result = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), 4096):
        part = slice(start, start + 4096)
        size = len(rows.decided_at[part])
        result[part] = predictor.predict(
            rows.decision[part],
            rows.windows[part],
            np.arange(size, dtype=np.int64),
            rows.direction[part],
            kind=rows.kind[part],
            quality=rows.quality[part],
        ).win_probability
    return result


def evaluate(
    predictor: Predictor,
    rows: TrainingSet,
    *,
    start_ms: int,
    end_ms: int | None = None,
    threshold: float = 0.35,
    seed: int = 0,
    fewest: int = 1,
) -> EvaluationRecord:
    """Evaluate a bundle on the candidates decided in `[start_ms, end_ms)`.

    Raises `WindowAlreadySeen` when the window begins before the last label that the bundle has seen was known,
    and `NotEnoughData` with fewer than `fewest` rows.
    """
    manifest = predictor.manifest
    if start_ms <= manifest.training.last_known_at:
        raise WindowAlreadySeen(manifest.bundle_version, start_ms, manifest.training.last_known_at)
    inside = rows.decided_at >= start_ms
    if end_ms is not None:
        inside &= rows.decided_at < end_ms
    window = rows.select(inside)
    if len(window) < max(fewest, 1):
        raise NotEnoughData("the evaluation window", len(window), max(fewest, 1))
    scored = Scored(window.decided_at, window.known_at, window.won, window.r, predict_rows(predictor, window))
    return record(manifest, scored, rows_hash(window), start_ms=start_ms, threshold=threshold, seed=seed)


def record(
    manifest: Manifest, scored: Scored, rows_hash: str, *, start_ms: int, threshold: float, seed: int
) -> EvaluationRecord:
    """The record of already scored rows; pure."""
    base = base_rate(scored.won)
    better = improvement(scored, base, seed)
    chosen = scored.probability >= threshold
    expectancy, gain = selection(scored, chosen, seed)
    starts, block = block_index(scored.decided_at)
    by_known = np.argsort(scored.known_at, kind="stable")

    def sums(values: NDArray[np.floating]) -> list[float]:
        return [float(total) for total in block_sums(block, values, len(starts))]

    return EvaluationRecord(
        bundle=manifest.bundle_version,
        decision_spec=manifest.decision_spec.id,
        start_ms=start_ms,
        end_ms=int(scored.decided_at.max()),
        last_known_at=manifest.training.last_known_at,
        rows=len(block),
        rows_hash=rows_hash,
        base_rate=float(base[0]),
        log_loss=float(log_loss(scored.won, scored.probability).mean()),
        base_log_loss=float(log_loss(scored.won, base).mean()),
        improvement=better.value,
        improvement_interval=better.pair,
        auc=finite(auc(scored.won, scored.probability)),
        calibration_error=calibration_error(scored.won, scored.probability),
        threshold=threshold,
        trades=int(chosen.sum()),
        expectancy=None if math.isnan(expectancy.value) else expectancy.value,
        expectancy_interval=expectancy.pair,
        expectancy_all=float(scored.r.mean()),
        expectancy_gain_interval=gain.pair,
        drawdown=drawdown(scored.r[by_known][chosen[by_known]]),
        block_ms=BLOCK_MS,
        blocks=BlockSums(
            start_ms=starts.tolist(),
            rows=np.bincount(block, minlength=len(starts)).tolist(),
            log_loss=sums(log_loss(scored.won, scored.probability)),
            base_log_loss=sums(log_loss(scored.won, base)),
            r=sums(scored.r),
            trades=np.bincount(block, weights=chosen, minlength=len(starts)).astype(int).tolist(),
            trade_r=sums(np.where(chosen, scored.r, 0.0)),
        ),
        fallbacks=manifest.fallbacks,
    )


def rows_hash(rows: TrainingSet) -> str:
    """sha256 over which candidates these are and how they ended."""
    digest = hashlib.sha256(repr(rows.symbols).encode())
    for values in (rows.symbol, rows.decided_at, rows.direction, rows.outcome, rows.r):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
