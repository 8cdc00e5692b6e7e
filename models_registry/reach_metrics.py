"""How quantiles of the reach do on held-out rows, beside the constant ones and those of the volume profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.reach import chance_of_reaching
from models_registry.manifest import Metric
from models_registry.reach_quantiles import SIDES, PlainReach, pinball, profile_estimate
from models_registry.reach_rows import ReachRows
from models_registry.statistics import block_index, block_sums, ratio_interval

Floats = NDArray[np.floating]

CONSTANT, VOLUME_PROFILE = (
    "constant quantiles of the fitted rows",
    "volume profile, as the fitted rows tell its meaning",
)


@dataclass(frozen=True)
class Judged:
    """What the quantiles are judged on."""

    reach: Floats
    """`[k, 2]`"""
    at: NDArray[np.int64]
    """Times of the rows, ms: the blocks of the intervals."""
    shares: Sequence[float]
    seed: int


def reach_metrics(rows: ReachRows, found: Floats, plain: PlainReach, seed: int) -> dict[str, Metric]:
    """Every metric of quantiles `[k, 2, Q]` for the held-out `rows`; those of the profile where rows have one."""
    shares = plain.quantiles
    judged = Judged(rows.reach, rows.at, shares, seed)
    constant = np.asarray(plain.constant)
    metrics = {"pinball_loss": pinball_metric(judged, found, constant, CONSTANT)}
    for side, name in enumerate(SIDES):
        metrics[f"pinball_loss_{name}"] = pinball_metric(judged, found, constant, CONSTANT, side)
    known = np.isfinite(profile_estimate(rows.profile)).any(axis=1)
    if known.any():
        part = Judged(rows.reach[known], rows.at[known], shares, seed)
        profile = plain.run(rows.profile[known])
        metrics["pinball_loss_profile"] = pinball_metric(part, found[known], profile, VOLUME_PROFILE)
        metrics["profile_pinball_loss"] = pinball_metric(part, profile, constant, CONSTANT)
    return metrics | coverage_metrics(judged, found, constant)


def pinball_metric(judged: Judged, found: Floats, baseline: Floats, name: str, side: int | None = None) -> Metric:
    """Mean pinball loss of quantiles `found` beside that of `baseline`, both `[k, 2, Q]` or `[2, Q]`.

    Of both sides together, or of one.
    """
    sides = slice(None) if side is None else slice(side, side + 1)
    value, other = (
        pinball(judged.reach, each, judged.shares)[:, sides].mean(axis=(1, 2)) for each in (found, baseline)
    )
    starts, block = block_index(judged.at)
    count = block_sums(block, np.ones(len(block)), len(starts))
    better = ratio_interval(block_sums(block, other - value, len(starts)), count, seed=judged.seed)
    return Metric(
        value=float(value.mean()),
        baseline=float(other.mean()),
        baseline_name=name,
        improvement=better.value,
        interval=better.pair,
        sums=better.sums,
        rows=len(judged.at),
        blocks=len(starts),
        note=f"ATR, mean of the quantiles {', '.join(f'{share:g}' for share in judged.shares)}",
    )


def coverage(reach: Floats, found: Floats) -> NDArray[np.float64]:
    """How often the reach `[k, 2]` stayed within each quantile `[k, 2, Q]` (or `[2, Q]`), `[2, Q]`."""
    return np.asarray((reach[:, :, None] <= found).mean(axis=0), dtype=np.float64)


def coverage_metrics(judged: Judged, found: Floats, baseline: Floats) -> dict[str, Metric]:
    """How often the reach stayed within each quantile, and how far that is from the quantiles' own shares on average.

    The interval of a coverage over blocks of time stands in its note: none is better for being larger.
    """
    starts, block = block_index(judged.at)
    count = block_sums(block, np.ones(len(block)), len(starts))
    inside, other = coverage(judged.reach, found), coverage(judged.reach, baseline)
    metrics = {}
    for index, share in enumerate(judged.shares):
        hits = (judged.reach <= found[:, :, index]).mean(axis=1)
        spread = ratio_interval(block_sums(block, hits, len(starts)), count, seed=judged.seed)
        interval = f", 95 % interval {spread.low:.3f} to {spread.high:.3f}" if spread.known else ""
        metrics[f"coverage_{share:g}"] = Metric(
            value=float(inside[:, index].mean()),
            baseline=float(other[:, index].mean()),
            baseline_name=CONSTANT,
            rows=len(judged.at),
            blocks=len(starts),
            note=f"should be {share:g}{interval}",
        )
    shares = np.asarray(judged.shares)
    metrics["calibration_error"] = Metric(
        value=float(np.abs(inside - shares).mean()),
        baseline=float(np.abs(other - shares).mean()),
        baseline_name=CONSTANT,
        rows=len(judged.at),
        blocks=len(starts),
        note="mean distance of coverage and share, both sides",
    )
    return metrics


def change_of_chances(found: Floats, expected: Floats, plain: PlainReach) -> Floats:
    """By how much the chances of reaching the constant quantiles' distances differ, flat: the parity of a format."""
    shares = tuple(plain.quantiles)
    changes = [
        np.abs(
            chance_of_reaching(distances, shares, found[:, side])
            - chance_of_reaching(distances, shares, expected[:, side])
        )
        for side in range(len(SIDES))
        for distances in (np.full(len(found), distance) for distance in plain.constant[side])
    ]
    return np.concatenate(changes)
