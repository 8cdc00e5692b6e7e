"""Decision rows that are made, not computed: a specification with the columns that a test needs, all else unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features import DECISION_SPEC
from features.decision_spec import CROSS_BASE, DecisionSpec
from features.spec import Family, Feature, FeatureSpec
from tests.features.series import uniforms

RULE_COLUMNS = (
    *("trend_state", "dealing_range_position", "displacement", "bar_close_move", "body_fraction"),
    *("sweep", "change_of_character", "atr_14_fraction"),
    *(f"{side}_{zone}_distance" for side in ("bullish", "bearish") for zone in ("order_block", "gap")),
)
STATES = ("trend_state", "sweep", "change_of_character", "cusum_event")
RULE_LONG = {
    "15m.trend_state": 1.0,
    "1h.trend_state": 0.0,
    "15m.dealing_range_position": 0.3,
    "5m.displacement": 1.4,
    "5m.bar_close_move": 0.7,
    "5m.body_fraction": 0.8,
    "5m.atr_14_fraction": 0.002,
}
"""Back in the discount of an uptrend, price has just turned with force: a rule signal."""
RULE_SHORT = {
    name: 1 - value if "position" in name else value if "atr" in name else -value for name, value in RULE_LONG.items()
}
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


def drawn_rows(spec: DecisionSpec, count: int, features: Iterable[str]) -> NDArray[np.float32]:
    """`count` rows with these features of every timeframe drawn at random: states of -1, 0 and 1, shares, or numbers.

    A tenth of the values is not known, as everything else. The same on every machine, and whatever else `spec` has.
    """
    decision = np.full((count, len(spec.names)), np.nan, dtype=np.float32)
    for seed, (timeframe, name) in enumerate((each, name) for each in spec.timeframes for name in features):
        value, known = uniforms(seed, 2 * count).astype(np.float32).reshape(2, count)
        if name in STATES:
            value = np.floor(value * np.float32(3)) - np.float32(1)
        elif name == "atr_14_fraction":
            value = value * np.float32(0.02)
        elif not name.endswith(("position", "position_48", "filled")):
            value = value * np.float32(8) - np.float32(3)
        decision[:, spec.index(f"{timeframe}.{name}")] = np.where(known < 0.9, value, np.float32(np.nan))
    return decision
