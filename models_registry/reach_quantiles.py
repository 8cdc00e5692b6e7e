"""Quantiles of how far price reaches, as plain numbers: their form, their loss, and what a model must beat.

A row has a reach below and one above, in ATR of its close, each >= 0. A model says for each of them Q quantiles, which
must ascend; `ascending` makes such quantiles of any numbers, so that none can cross another. Two estimates need no
network: the constant quantiles of the fitted rows, and those of the rows whose volume profile looked alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

QUANTILES = (0.25, 0.5, 0.75, 0.9)
SIDES = ("below", "above")

NARROWEST_STEP = 1e-3
"""ATR that neighbouring quantiles are apart at least where a model starts from them."""

PROFILE = (
    "5m.profile_value_high_distance",
    "5m.profile_value_low_distance",
    "5m.profile_node_above_distance",
    "5m.profile_node_below_distance",
)
"""Columns of the decision row that the volume profile's estimate reads, in this order."""


def ascending(raw: NDArray[np.floating], offset: NDArray[np.floating]) -> Float32:
    """Quantiles `[k, 2, Q]` in ATR of a network's numbers `[k, 2 * Q]`: each adds the softplus of its own to the last.

    `offset [2, Q]` is added first; with numbers of zero it alone says the quantiles (`offsets`).
    """
    steps = raw.reshape(len(raw), *offset.shape).astype(np.float64) + np.asarray(offset, dtype=np.float64)
    # Each number by itself, in float64: rows must not depend on where in a batch they stand.
    return np.cumsum(np.logaddexp(0.0, steps), axis=2).astype(np.float32)


def offsets(quantiles: NDArray[np.floating]) -> Float64:
    """What `ascending` makes the `quantiles [2, Q]` of.

    >>> ascending(np.zeros((1, 2)), offsets(np.array([[1.5], [2.5]]))).round(4).tolist()
    [[[1.5], [2.5]]]
    """
    steps = np.maximum(np.diff(np.asarray(quantiles, dtype=np.float64), axis=1, prepend=0.0), NARROWEST_STEP)
    return np.asarray(steps + np.log(-np.expm1(-steps)))


def pinball(reach: NDArray[np.floating], quantiles: NDArray[np.floating], shares: Sequence[float]) -> Float64:
    """The loss `[k, 2, Q]` in ATR of quantiles `[k, 2, Q]` (or `[2, Q]`) for reaches `[k, 2]`.

    It is smallest, on average, at the true quantiles (Koenker and Bassett 1978).
    """
    share = np.asarray(shares, dtype=np.float64)
    error = np.asarray(reach, dtype=np.float64)[:, :, None] - quantiles
    return np.maximum(share * error, (share - 1.0) * error)


def quantiles_of(reach: NDArray[np.floating], shares: Sequence[float]) -> Float64:
    """The quantiles `[2, Q]` of reaches `[k, 2]`."""
    return np.asarray(np.quantile(np.asarray(reach, dtype=np.float64), shares, axis=0).T)


class PlainReach(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The plain version of the liquidity model: quantiles by the volume profile, constant ones where that is unknown.

    The profile's estimate of a side is the distance of its nearest high-volume node there, or of the edge of the value
    area where there is no node. The fitted rows, cut into groups of equal size by the estimate, tell what it means.
    """

    quantiles: list[float]
    constant: list[list[float]]
    """`[2, Q]` of all fitted rows."""
    edges: list[list[float]]
    """`[2, G - 1]` where one group of estimates ends, in ATR."""
    groups: list[list[list[float]]]
    """`[2, G, Q]` of each group; without any the constant ones stand."""

    def run(self, profile: Float32) -> Float32:
        """Quantiles `[k, 2, Q]` of rows with the columns `profile [k, 4]` of `PROFILE`."""
        estimate = profile_estimate(profile)
        result = np.empty((len(profile), len(SIDES), len(self.quantiles)), dtype=np.float32)
        result[:] = np.asarray(self.constant, dtype=np.float32)
        for side in range(len(SIDES)):
            known = np.isfinite(estimate[:, side])
            if self.groups[side]:
                group = np.searchsorted(np.asarray(self.edges[side]), estimate[known, side], side="right")
                result[known, side] = np.asarray(self.groups[side], dtype=np.float32)[group]
        return result


def profile_estimate(profile: Float32) -> Float32:
    """How far the volume profile lets price reach, `[k, 2]` below and above in ATR; NaN where it has no level there.

    >>> row = np.array([[2.0, -3.0, np.nan, -1.0]], dtype=np.float32)
    >>> profile_estimate(row).tolist()
    [[1.0, 2.0]]
    """
    value_high, value_low, node_above, node_below = np.asarray(profile, dtype=np.float32).T
    with np.errstate(invalid="ignore"):
        edge = np.stack([-value_low, value_high], axis=1)
        edge = np.where(edge >= 0, edge, np.float32(np.nan))
    node = np.stack([-node_below, node_above], axis=1)
    return np.asarray(np.where(np.isfinite(node), node, edge), dtype=np.float32)


def fit_plain(
    reach: NDArray[np.floating],
    profile: Float32 | None,
    shares: Sequence[float] = QUANTILES,
    groups: int = 10,
    fewest: int = 200,
) -> PlainReach:
    """The plain version fitted to reaches `[k, 2]` and the columns `profile [k, 4]` of the same rows (NaN: unknown).

    With less than `fewest` rows a group there are fewer groups, or none.
    """
    constant = quantiles_of(reach, shares)
    edges: list[list[float]] = [[], []]
    tables: list[list[list[float]]] = [[], []]
    if profile is not None:
        estimate = profile_estimate(profile)
        for side in range(len(SIDES)):
            known = np.isfinite(estimate[:, side])
            values, reached = estimate[known, side].astype(np.float64), reach[known, side]
            count = min(groups, len(values) // fewest)
            if count < 2:
                continue
            ends = np.unique(np.quantile(values, np.arange(1, count) / count))
            group = np.searchsorted(ends, values, side="right")
            # Equal estimates may leave a group without rows at either end.
            tables[side] = [
                (np.quantile(reached[group == i], shares) if (group == i).any() else constant[side]).tolist()
                for i in range(len(ends) + 1)
            ]
            edges[side] = ends.tolist()
    return PlainReach(quantiles=list(shares), constant=constant.tolist(), edges=edges, groups=tables)
