"""Decision rows that are made, not computed: a specification with the columns that a test needs, all else unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features import DECISION_SPEC
from features.decision_spec import CROSS_BASE, DecisionSpec
from features.spec import Family, Feature, FeatureSpec

RULE_COLUMNS = ("ema_21_slope", "adx_14", "ema_21_distance", "rsi_14", "bar_close_move", "body_fraction")
CANDIDATE_COLUMNS = (*RULE_COLUMNS, "cusum_event", "volume_zscore", "swing_high_distance", "swing_low_distance")


def _nothing(state: object, out: object) -> None:
    """The step of features that are never computed."""


def made_spec(names: Iterable[str]) -> DecisionSpec:
    """A specification with these columns of every timeframe, and those that candidates and windows need."""
    needed = {*names, *CROSS_BASE, *DecisionSpec.window_names, *CANDIDATE_COLUMNS, "atr_14_fraction"}
    needed |= {"range_position_48"}
    features = tuple(Feature(name, 1, "", "", -1.0, 1.0) for name in sorted(needed))
    return replace(DECISION_SPEC, base=FeatureSpec((Family("made", features, 0, _nothing),), ()))


def made_rows(spec: DecisionSpec, *changes: dict[str, float]) -> NDArray[np.float32]:
    """A row for each of `changes` with nothing known but these; names without a timeframe are of the deciding one."""
    decision = np.full((len(changes), len(spec.names)), np.nan, dtype=np.float32)
    for row, values in zip(decision, changes, strict=True):
        for name, value in values.items():
            row[spec.index(name if "." in name else f"{spec.timeframes[0]}.{name}")] = value
    return decision
