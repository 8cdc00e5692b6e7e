"""Windows with how far price reached after them, cut in time: what the liquidity model is fitted to and judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.reach_quantiles import PROFILE
from models_registry.thinning import evenly
from models_registry.training_set import TrainingSet

Float32 = NDArray[np.float32]

MIRRORED_CHANNELS = (0, 2, 1, 3, 4)
"""Open, high, low, close and volume upside down: the mirrored high is the low, and moves change their sign."""
MIRRORED_SIGNS = np.array([-1, -1, -1, -1, 1], dtype=np.float32)


@dataclass(frozen=True)
class ReachRows:
    """`n` windows in order of time, with the reaches that followed."""

    windows: Float32
    """`[n, W, 5]`"""
    reach: Float32
    """`[n, 2]` how far price went below and above within the horizon, in ATR, >= 0."""
    at: NDArray[np.int64]
    """When the window ended, ms."""
    known_at: NDArray[np.int64]
    """When the reach was known, ms."""
    profile: Float32
    """`[n, 4]` the columns of `reach_quantiles.PROFILE` of the row that the window ends at; NaN where not known."""

    @classmethod
    def known(
        cls,
        windows: Float32,
        below: NDArray[np.floating],
        above: NDArray[np.floating],
        at: NDArray[np.int64],
        known_at: NDArray[np.int64],
        profile: Float32 | None = None,
    ) -> ReachRows:
        """The rows of these arrays whose reaches are known (neither is NaN), in order of time."""
        reach = np.stack([below, above], axis=1).astype(np.float32)
        if profile is None:
            profile = np.full((len(at), len(PROFILE)), np.nan, dtype=np.float32)
        rows = np.flatnonzero(np.isfinite(reach).all(axis=1))
        rows = rows[np.argsort(at[rows], kind="stable")]
        return cls(windows[rows], reach[rows], at[rows], known_at[rows], profile[rows])

    @classmethod
    def of(cls, rows: TrainingSet) -> ReachRows:
        """Every window of a training set whose path is known: the unlabelled ones, and each labelled one once.

        Only the latter have a volume profile, since the set holds no decision rows of the others.
        """
        # A decision has a row for each of its candidates.
        keys = np.stack([rows.decided_at, rows.symbol.astype(np.int64)], axis=1)
        once = np.unique(keys, axis=0, return_index=True)[1] if len(rows) else np.empty(0, dtype=np.int64)
        count, names = len(rows.unlabelled_at), rows.decision_names
        profile = np.full((count + len(once), len(PROFILE)), np.nan, dtype=np.float32)
        if set(PROFILE) <= set(names):
            profile[count:] = rows.decision[once][:, [names.index(name) for name in PROFILE]]
        return cls.known(
            np.concatenate([rows.unlabelled_windows, rows.windows[once]]),
            np.concatenate([rows.unlabelled_below, rows.reach_below[once]]),
            np.concatenate([rows.unlabelled_above, rows.reach_above[once]]),
            np.concatenate([rows.unlabelled_at, rows.decided_at[once]]),
            np.concatenate([rows.unlabelled_known_at, rows.path_known_at[once]]),
            profile,
        )

    def __len__(self) -> int:
        return len(self.at)

    def select(self, rows: NDArray[Any]) -> ReachRows:
        """The rows of an index or mask."""
        return ReachRows(self.windows[rows], self.reach[rows], self.at[rows], self.known_at[rows], self.profile[rows])

    def thinned(self, most: int) -> ReachRows:
        """At most `most` of them, evenly spaced."""
        return self if len(self) <= most else self.select(evenly(len(self), most))

    def mirrored(self) -> ReachRows:
        """The same market upside down; without a volume profile.

        Nothing is known to fall otherwise than it rises, and twice the rows say so to a model.
        """
        windows = np.ascontiguousarray(self.windows[:, :, MIRRORED_CHANNELS]) * MIRRORED_SIGNS
        unknown = np.full_like(self.profile, np.nan)
        return ReachRows(windows, np.ascontiguousarray(self.reach[:, ::-1]), self.at, self.known_at, unknown)


@dataclass(frozen=True)
class ReachSplit:
    """Rows cut in time."""

    fit: ReachRows
    validation: ReachRows
    """Stops the training early."""
    holdout: ReachRows
    """Judges; nothing is fitted to it."""

    @classmethod
    def cut(cls, rows: ReachRows, validation_start_ms: int, holdout_start_ms: int, embargo_ms: int) -> ReachSplit:
        """Fit, validation and holdout, purged: what was known later than `embargo_ms` before the next part is dropped.

        >>> hours = np.arange(10, dtype=np.int64) * 3_600_000
        >>> rows = ReachRows.known(np.zeros((10, 1, 5)), np.ones(10), np.ones(10), hours, hours + 3_600_000)
        >>> cut = ReachSplit.cut(rows, 4 * 3_600_000, 8 * 3_600_000, 3_600_000)
        >>> [(part.at // 3_600_000).tolist() for part in (cut.fit, cut.validation, cut.holdout)]
        [[0, 1, 2], [4, 5, 6], [8, 9]]
        """
        early = rows.known_at <= validation_start_ms - embargo_ms
        middle = (rows.at >= validation_start_ms) & (rows.known_at <= holdout_start_ms - embargo_ms)
        return cls(rows.select(early), rows.select(middle), rows.select(rows.at >= holdout_start_ms))

    @property
    def parts(self) -> dict[str, ReachRows]:
        """The parts by name."""
        return {"fit": self.fit, "validation": self.validation, "holdout": self.holdout}

    def thinned(self, most: int) -> ReachSplit:
        """At most `most` rows to fit and a third of it to stop early, evenly spaced; all are kept to judge."""
        return ReachSplit(self.fit.thinned(most), self.validation.thinned(max(most // 3, 1)), self.holdout)
