"""What is considered: the rules, CUSUM events, and the quality of a candidate."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import DECISION_SPEC
from features import candidates as candidates_module
from features import quality as quality_module
from features import rules as rules_module
from features.candidates import EVENT, RULE, candidates
from features.history import DecisionHistory, decision_history
from features.quality import dimensions, quality
from features.rules import rule_signal
from tests.features.series import make_market
from tests.features.steady import steady

WIDTH = len(DECISION_SPEC.names)

LONG = {
    "15m.ema_21_slope": 0.1,
    "15m.adx_14": 25.0,
    "1h.ema_21_slope": 0.0,
    "5m.ema_21_distance": -0.2,
    "5m.rsi_14": 48.0,
    "5m.bar_close_move": 0.7,
    "5m.body_fraction": 0.8,
}
"""A pullback in an uptrend that has just turned."""
SHORT = {name: value if "adx" in name else 100 - value if "rsi" in name else -value for name, value in LONG.items()}


def rows(*changes: dict[str, float]) -> NDArray[np.float32]:
    decision = np.zeros((len(changes), WIDTH), dtype=np.float32)
    for row, values in zip(decision, changes, strict=True):
        for name, value in values.items():
            row[DECISION_SPEC.index(name)] = value
    return decision


class TestRules:
    def test_a_pullback_with_the_trend_is_a_signal(self) -> None:
        assert rule_signal(rows(LONG, SHORT, {})).tolist() == [1, -1, 0]

    def test_unknown_hours_do_not_forbid_it(self) -> None:
        assert rule_signal(rows(LONG | {"1h.ema_21_slope": np.nan})).tolist() == [1]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("15m.ema_21_slope", 0.05),
            ("15m.adx_14", 19.0),
            ("1h.ema_21_slope", -0.06),
            ("5m.ema_21_distance", 0.8),
            ("5m.ema_21_distance", -1.6),
            ("5m.rsi_14", 59.0),
            ("5m.bar_close_move", 0.4),
            ("5m.body_fraction", 0.4),
        ],
    )
    def test_each_condition_is_needed(self, name: str, value: float) -> None:
        assert rule_signal(rows(LONG | {name: value})).tolist() == [0]

    @pytest.mark.parametrize("name", [name for name in LONG if name != "1h.ema_21_slope"])
    def test_what_is_unknown_gives_no_signal(self, name: str) -> None:
        assert rule_signal(rows(LONG | {name: np.nan}, SHORT | {name: np.nan})).tolist() == [0, 0]


class TestCandidates:
    def test_signals_and_events_without_repeating_a_direction(self) -> None:
        event = {"5m.cusum_event": -1.0}
        found = candidates(rows({}, LONG, event, LONG | event, SHORT | event, {"5m.cusum_event": np.nan}))
        assert found.index.tolist() == [1, 2, 2, 3, 3, 4, 4]
        assert found.direction.tolist() == [1, 1, -1, 1, -1, 1, -1]
        assert found.kind.tolist() == [RULE, EVENT, EVENT, RULE, EVENT, EVENT, RULE]
        assert (found.index.dtype, found.direction.dtype, found.kind.dtype) == (np.int64, np.int8, np.uint8)

    def test_rows_that_are_not_ready_are_left_out(self) -> None:
        found = candidates(rows(LONG, LONG, {"5m.cusum_event": 1.0}), ready=np.array([True, False, False]))
        assert found.index.tolist() == [0]

    def test_none_of_none(self) -> None:
        assert candidates(rows()).index.size == 0


class TestQuality:
    def test_the_best_and_the_worst(self) -> None:
        best = {f"{timeframe}.ema_21_slope": 0.2 for timeframe in DECISION_SPEC.timeframes}
        best |= {"5m.volume_zscore": 3.0, "5m.atr_14_fraction": 0.01, "5m.swing_high_distance": 4.0}
        worst = {name: -value for name, value in best.items()} | {"5m.swing_high_distance": 0.0}
        direction = np.array([1, 1], dtype=np.int8)
        assert quality(rows(best, worst), direction).tolist() == [1.0, 0.0]

    def test_each_dimension_has_its_meaning(self) -> None:
        row = {"5m.ema_21_slope": 0.2, "15m.ema_21_slope": -0.2, "1h.ema_21_slope": np.nan}
        row |= {"5m.volume_zscore": 0.5, "5m.atr_14_fraction": 0.0012, "5m.swing_high_distance": 1.5}
        row |= {"5m.swing_low_distance": -0.1}
        found = dimensions(rows(row, row), np.array([1, -1], dtype=np.int8))
        assert found["alignment"].tolist() == pytest.approx([0.5, 0.5])
        assert found["volume"].tolist() == pytest.approx([0.5, 0.5])
        assert found["volatility"].tolist() == pytest.approx([0.5 / 3.5] * 2)
        # The swing low has been passed: it does not stand in the way of a short.
        assert found["room"].tolist() == pytest.approx([0.5, 1.0])

    def test_what_is_unknown_is_neutral(self) -> None:
        unknown = np.full((2, WIDTH), np.nan, dtype=np.float32)
        assert quality(unknown, np.array([1, -1], dtype=np.int8)).tolist() == [0.5, 0.5]

    @steady
    @given(st.integers(0, 2**32), st.integers(0, 40))
    def test_it_lies_between_0_and_1_however_the_batch_is_split(self, seed: int, cut: int) -> None:
        random = np.random.default_rng(seed)
        decision = random.normal(0, 2, (40, WIDTH)).astype(np.float32)
        decision[random.random(decision.shape) < 0.1] = np.nan
        direction = random.choice([-1, 1], 40).astype(np.int8)
        whole = quality(decision, direction)
        assert whole.dtype == np.float32
        assert ((whole >= 0) & (whole <= 1)).all()
        parts = [quality(decision[part], direction[part]) for part in (slice(0, cut), slice(cut, 40))]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def digest(*arrays: NDArray[np.generic]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


@pytest.fixture(scope="module")
def history() -> DecisionHistory:
    return decision_history(make_market(4, 60 * 24 * 8, seed=42), {})


class TestVersions:
    """A change here is a change of numbers: raise the VERSION of what changed, then the digests.

    The win model is trained on these numbers; with the version, the id that bundles pin changes too.
    """

    def test_the_signals_are_those_of_their_version(self, history: DecisionHistory) -> None:
        signal = rule_signal(history.decision)
        assert [int((signal == side).sum()) for side in (1, -1)] == [46, 31]
        assert (rules_module.VERSION, digest(signal)) == (1, "a1df35ed331a552b")

    def test_the_candidates_are_those_of_their_version(self, history: DecisionHistory) -> None:
        found = candidates(history.decision, ready=history.ready)
        assert [int((found.kind == kind).sum()) for kind in (RULE, EVENT)] == [75, 588]
        assert (candidates_module.VERSION, digest(found.index, found.direction, found.kind)) == (1, "edd6d9e80f783dfd")

    def test_the_qualities_are_those_of_their_version(self, history: DecisionHistory) -> None:
        # Of every row, warm or not: what is unknown is part of the rule.
        both = [quality(history.decision, np.full(len(history), side, dtype=np.int8)) for side in (1, -1)]
        assert all(np.unique(each).size > 3000 for each in both)
        assert (quality_module.VERSION, digest(*both)) == (1, "a5dc2a590fba0f54")
