"""The probe finds what latents know of outcomes, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest

from models_registry.probe import outcome_probe
from models_registry.training_set import split_in_time
from tests.models_registry.planted import HOUR, training_set


@pytest.mark.parametrize(("knows", "skill"), [(True, True), (False, False)])
def test_a_probe_tells_latents_that_know_from_latents_that_do_not(knows: bool, skill: bool) -> None:
    rows = training_set(rows=3000, edge=1.5)
    split = split_in_time(
        rows.decided_at,
        rows.known_at,
        holdout_start_ms=int(rows.decided_at[2000]),
        validation_fraction=0.2,
        embargo_ms=4 * HOUR,
    )
    latents = np.random.default_rng(5).standard_normal((len(rows), 16)).astype(np.float32)
    if knows:
        latents[:, 3] = np.nan_to_num(rows.decision[:, 0])
    metric = outcome_probe(rows, split, latents, seed=1)
    assert metric is not None
    assert metric.skill is skill


def test_too_few_rows_say_nothing() -> None:
    rows = training_set(rows=100)
    split = split_in_time(
        rows.decided_at,
        rows.known_at,
        holdout_start_ms=int(rows.decided_at[80]),
        validation_fraction=0.2,
        embargo_ms=4 * HOUR,
    )
    assert outcome_probe(rows, split, np.zeros((len(rows), 16), dtype=np.float32), seed=1) is None
