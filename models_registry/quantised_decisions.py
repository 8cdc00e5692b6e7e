"""What INT8 changes in a bundle's decisions: the same held-out rows through the served files and through fp32.

Every file has passed a parity of its own. What the changes of several networks do to the win probability and to the
strategy's actions together is seen only when the whole bundle is asked.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models_registry.manifest import DecisionChange, Manifest
from models_registry.runtime import Prediction, Predictor, in_fp32
from models_registry.training_set import TrainingSet

MOST_CHANGE = 0.02
"""Of a win probability, at the 99th percentile."""
LEAST_AGREEMENT = 0.98
"""Of the strategy's actions."""
MOST_ROWS = 2000
BATCH_ROWS = 200


def decision_change(folder: str | Path, manifest: Manifest, rows: TrainingSet) -> DecisionChange | None:
    """Compare the files that the bundle in `folder` serves with the fp32 files beside them.

    On `rows` that nothing was fitted to (from the manifest's `holdout_start_ms` on), at most `MOST_ROWS` of them evenly
    spaced, a candidate each. None when no network is served as INT8, or when there is no such row.
    """
    whole = in_fp32(manifest)
    held_out = np.flatnonzero(rows.decided_at >= manifest.training.holdout_start_ms)
    if whole == manifest or not held_out.size:
        return None
    spaced = np.linspace(0, held_out.size - 1, min(held_out.size, MOST_ROWS)).astype(np.int64)
    chosen = rows.select(held_out[spaced])
    with Predictor(Path(folder), manifest) as served, Predictor(Path(folder), whole) as exact:
        pairs = [(_predict(served, chosen, at), _predict(exact, chosen, at)) for at in _batches(len(chosen))]
    changed = np.concatenate([np.abs(ours.win_probability - theirs.win_probability) for ours, theirs in pairs])
    agreed = np.concatenate([ours.action == theirs.action for ours, theirs in pairs])
    return DecisionChange(
        rows=len(chosen),
        win_probability_p99=float(np.quantile(changed, 0.99)),
        win_probability_max=float(changed.max()),
        actions_agreement=float(agreed.mean()),
    )


def unfit(found: DecisionChange | None) -> str | None:
    """Why a bundle may not decide with its INT8 files; None when it may.

    >>> unfit(DecisionChange(rows=9, win_probability_p99=0.03, win_probability_max=0.1, actions_agreement=1.0))
    'INT8 changes win probabilities by 0.03 at the 99th percentile, 0.02 allowed: train with ENABLE_QUANTIZATION=false'
    """
    if found is None:
        return None
    reasons = []
    if found.win_probability_p99 > MOST_CHANGE:
        reasons.append(
            f"changes win probabilities by {found.win_probability_p99:.3g} at the 99th percentile, "
            f"{MOST_CHANGE:g} allowed"
        )
    if found.actions_agreement < LEAST_AGREEMENT:
        reasons.append(
            f"agrees with fp32 in {found.actions_agreement:.1%} of the strategy's actions, {LEAST_AGREEMENT:.0%} needed"
        )
    return f"INT8 {', and '.join(reasons)}: train with ENABLE_QUANTIZATION=false" if reasons else None


def _batches(rows: int) -> list[slice]:
    return [slice(start, min(start + BATCH_ROWS, rows)) for start in range(0, rows, BATCH_ROWS)]


def _predict(predictor: Predictor, rows: TrainingSet, at: slice) -> Prediction:
    index: NDArray[np.int64] = np.arange(at.stop - at.start, dtype=np.int64)
    return predictor.predict(
        rows.decision[at], rows.windows[at], index, rows.direction[at], kind=rows.kind[at], quality=rows.quality[at]
    )
