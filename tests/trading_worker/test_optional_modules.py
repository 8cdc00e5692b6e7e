"""The optional modules at a decision: what each switch changes, and that a worker decides without any of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.candidates import EVENT, HUNT, RULE
from features.decision import DecisionWave
from features.liquidity import HuntSettings, Reach
from features.regime_inputs import RANGING, STATES, TRENDING, VOLATILE
from models_registry.manifest import LIQUIDITY, REGIME
from models_registry.terms import hunting_terms
from tests.features.made_rows import RULE_LONG, RULE_SHORT, made_rows, made_spec
from tests.features.test_liquidity import BELOW, REST, mirrored
from tests.trading_worker.markets import nothing_foreseen
from trading_worker.decisions import Decided, decide
from trading_worker.events import Signal
from trading_worker.optional_modules import HUNTING, fallbacks, in_use
from trading_worker.settings import EngineSettings

SPEC = made_spec({*BELOW, *mirrored(BELOW), *REST, *STATES})
AT_POOL = BELOW | REST
CALM = {"regime": 1.0, "cusum_event": 0.0, "swing_low_distance": 2.0, "swing_high_distance": 4.0}
CALM |= {"range_position_48": 0.25}
OFF = EngineSettings(strategy_mode="self_learning", min_confidence=0.0)
ON = replace(OFF, regime_prediction=True)
HUNTS = replace(OFF, hunting=HuntSettings())
SURE = {RANGING: (0.8, 0.1, 0.1), TRENDING: (0.1, 0.8, 0.1), VOLATILE: (0.1, 0.1, 0.8), None: (0.6, 0.3, 0.1)}
"""Probabilities by the regime that is forecast; None is not sure enough."""


class Bundle:
    """A predictor that says of every row what it is told to, the same however a batch is split."""

    def __init__(
        self, ahead: int | None = None, *, lookback: int = 10, goes_atr: float = np.nan, **manifest: Any
    ) -> None:
        about = {"bundle_version": "7", "plan": {}, "costs": {}, "hunting": {}} | manifest
        self.manifest = SimpleNamespace(**about)
        self.fallbacks: dict[str, str] = {}
        self.regime_predictor: Any = SimpleNamespace(lookback=lookback)
        self.dynamic_columns = None
        self.ahead = ahead
        self.asked = 0
        self.goes_atr = goes_atr

    def reach(self, decision: NDArray[np.float32], windows: NDArray[np.float32]) -> Reach:
        assert len(decision) == len(windows)
        goes = np.repeat(np.array([[self.goes_atr, 1.1 * self.goes_atr]], np.float32), len(decision), axis=0)
        return Reach((0.9, 0.99), goes, goes)

    def regimes(self, decision: NDArray[np.float32], windows: NDArray[np.float32]) -> NDArray[np.float64]:
        self.asked += 1
        return np.repeat(np.array([SURE[self.ahead]]), len(decision), axis=0)

    def predict(self, decision: Any, windows: Any, index: Any, direction: Any, **_: Any) -> Any:
        return SimpleNamespace(
            reconstruction_error=np.zeros(len(decision), np.float32),
            unlike=np.zeros(len(decision), bool),
            win_probability=(0.5 + 0.1 * direction).astype(np.float32),
            **nothing_foreseen(len(decision)),
        )


def wave(*changes: dict[str, float]) -> DecisionWave:
    count = len(changes)
    return DecisionWave(
        time_ms=299_999,
        rows=np.arange(count),
        absent=np.empty(0, np.int64),
        decision=made_rows(SPEC, *(CALM | each for each in changes)),
        windows=np.zeros((count, SPEC.window, len(SPEC.window_names)), np.float32),
        close=np.full(count, 100.0),
        atr=np.full(count, 0.2),
        ready=np.ones(count, bool),
    )


def decided(given: DecisionWave, bundle: Bundle, chosen: EngineSettings) -> Decided:
    symbols = [f"S{row}" for row in range(100)]
    return decide(given, SPEC, symbols, bundle, chosen, np.zeros((100, 2), np.int64))


class TestRegimes:
    def test_off_the_row_tells_and_nothing_is_asked(self) -> None:
        bundle = Bundle(RANGING)
        found = decided(wave(RULE_LONG, {"cusum_event": 1.0, "regime": np.nan}), bundle, OFF)
        assert [signal.regime for signal in found.signals] == [TRENDING, None]
        assert {signal.regime_source for signal in found.signals} == {"adx_bollinger"}
        assert {signal.regime_probability for signal in found.signals} == {None}
        assert bundle.asked == 0
        assert found.counts["ranging"] == 0

    def test_a_rule_signal_is_not_taken_in_a_market_that_will_range(self) -> None:
        found = decided(wave(RULE_LONG, {"cusum_event": 1.0}), Bundle(RANGING), ON)
        assert [(signal.symbol, signal.kind) for signal in found.signals] == [("S1", EVENT)]
        assert (found.counts["candidates"], found.counts["ranging"]) == (3, 1)
        signal = found.signals[0]
        assert (signal.regime, signal.regime_source) == (RANGING, "predicted")
        assert signal.regime_probability == pytest.approx(0.8)

    @pytest.mark.parametrize(("ahead", "regime"), [(TRENDING, TRENDING), (VOLATILE, VOLATILE), (None, TRENDING)])
    def test_it_is_taken_in_any_other(self, ahead: int | None, regime: int) -> None:
        found = decided(wave(RULE_LONG), Bundle(ahead), ON)
        assert [(signal.kind, signal.regime) for signal in found.signals] == [(RULE, regime)]

    def test_ranging_now_forbids_nothing(self) -> None:
        found = decided(wave(RULE_LONG | {"regime": 0.0}), Bundle(None), ON)
        assert [(signal.regime, signal.regime_source) for signal in found.signals] == [(RANGING, "adx_bollinger")]

    def test_a_wave_of_nothing_else_is_accounted_for(self) -> None:
        found = decided(wave(RULE_LONG), Bundle(RANGING), ON)
        assert found.signals == ()
        assert found.counts == {"ready": 1, "candidates": 1, "ranging": 1}

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"regime_predictor": None}, "the bundle has no such model"),
            ({"fallbacks": {REGIME: "it showed no skill"}, "regime_predictor": None}, "it showed no skill"),
            ({"regime_predictor": SimpleNamespace(lookback=20)}, "it was trained to look back 20 bars, not 10"),
        ],
    )
    def test_without_a_usable_model_the_row_tells_and_the_reason_is_given(
        self, change: dict[str, Any], reason: str
    ) -> None:
        bundle = Bundle(RANGING)
        for name, value in change.items():
            setattr(bundle, name, value)
        found = decided(wave(RULE_LONG), bundle, ON)
        assert [signal.regime_source for signal in found.signals] == ["adx_bollinger"]
        assert found.signals[0].fallbacks == (REGIME,)
        assert fallbacks(bundle, ON)[REGIME] == reason
        assert in_use(bundle, ON)[REGIME] == f"on its fallback: {reason}"
        assert fallbacks(bundle, OFF) == {}, "nothing was asked of it"

    def test_the_threshold_is_the_settings(self) -> None:
        assert len(decided(wave(RULE_LONG), Bundle(RANGING), replace(ON, regime_threshold=0.81)).signals) == 1
        assert len(decided(wave(RULE_LONG), Bundle(None), replace(ON, regime_threshold=0.6)).signals) == 0


class TestHunting:
    def test_off_there_are_no_hunts_and_plain_levels(self) -> None:
        found = decided(wave(AT_POOL, RULE_LONG), Bundle(), OFF)
        assert [signal.kind for signal in found.signals] == [RULE]
        signal = found.signals[0]
        assert (signal.pool_source, signal.pool_below_score, signal.pool_above_score) == ("range", 0.75, 0.25)
        assert (signal.pool_below, signal.pool_above) == (pytest.approx(99.6), pytest.approx(100.8))

    def test_on_a_pool_is_hunted(self) -> None:
        found = decided(wave(mirrored(AT_POOL), AT_POOL), Bundle(), HUNTS)
        assert [(signal.kind, signal.direction) for signal in found.signals] == [(HUNT, 1), (HUNT, -1)]
        long, short = found.signals
        assert (long.pool_source, long.pool_above_score) == ("structure", pytest.approx(0.625))
        assert long.pool_above == pytest.approx(100.2)
        assert short.pool_below == pytest.approx(99.8)
        assert long.stop < long.reference < long.target

    def test_what_the_liquidity_predictor_foresees_is_in_the_score(self) -> None:
        given = wave(mirrored(AT_POOL), AT_POOL, {})
        sure = decided(given, Bundle(goes_atr=99.0), HUNTS).signals
        assert [signal.kind for signal in sure] == [HUNT, HUNT]
        assert sure[0].pool_above_score == pytest.approx((4 * 0.625 + 1) / 5, abs=0.01)
        assert decided(given, Bundle(goes_atr=0.01), HUNTS).signals == (), "price will not get there"
        plain = Bundle(goes_atr=0.01)
        plain.fallbacks[LIQUIDITY] = "not trained"
        assert decided(given, plain, HUNTS).signals[0].pool_above_score == pytest.approx(0.625), "profile counts once"

    @pytest.mark.parametrize("strategy", ["ict", "self_learning", "hybrid"])
    def test_every_strategy_takes_a_hunt(self, strategy: str) -> None:
        found = decided(wave(AT_POOL), Bundle(), replace(HUNTS, strategy_mode=strategy))
        assert [signal.kind for signal in found.signals] == [HUNT]

    def test_the_rules_overrule_a_hunt_in_the_hybrid_strategy_only(self) -> None:
        given = wave(AT_POOL | {"sweep": 1.0} | RULE_SHORT)
        kinds = {
            name: [signal.kind for signal in decided(given, Bundle(), replace(HUNTS, strategy_mode=name)).signals]
            for name in ("ict", "self_learning", "hybrid")
        }
        # The model prefers the long, which is the hunt; the rules say short.
        assert kinds == {"ict": [HUNT], "self_learning": [HUNT], "hybrid": []}

    @pytest.mark.parametrize(
        ("hunting", "reason"),
        [
            ({}, "its win model was trained without hunting candidates"),
            (
                hunting_terms(HuntSettings(threshold=0.5)) | {"rows": 9.0},
                "its win model was trained with other hunting candidates: threshold 0.5, not 0.6",
            ),
        ],
    )
    def test_a_bundle_that_did_not_learn_from_hunts_works_and_says_so(
        self, hunting: dict[str, float], reason: str
    ) -> None:
        bundle = Bundle(hunting=hunting)
        assert decided(wave(AT_POOL), bundle, HUNTS).signals[0].fallbacks == (HUNTING,)
        assert fallbacks(bundle, HUNTS) == {HUNTING: reason}
        assert in_use(bundle, HUNTS)[HUNTING] == f"in force, but {reason}"

    def test_one_that_did_has_no_fallback(self) -> None:
        bundle = Bundle(hunting=hunting_terms(HuntSettings()) | {"rows": 9.0})
        assert fallbacks(bundle, HUNTS) == {}
        assert in_use(bundle, HUNTS)[HUNTING] == "in force"
        assert set(in_use(bundle, OFF).values()) == {"off"}


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.sampled_from(["pool", "above", "rule", "event", "none"]), max_size=12), st.integers(0, 12))
def test_what_is_decided_of_a_symbol_does_not_depend_on_the_others(kinds: list[str], cut: int) -> None:
    made = {
        "pool": AT_POOL,
        "above": mirrored(AT_POOL),
        "rule": RULE_LONG,
        "event": {"cusum_event": 1.0},
        "none": {},
    }
    chosen = replace(HUNTS, regime_prediction=True)
    whole = wave(*(made[kind] for kind in kinds))
    cut = min(cut, len(kinds))
    parts: list[Signal] = []
    for part in (slice(0, cut), slice(cut, len(kinds))):
        some = wave(*(made[kind] for kind in kinds[part]))
        parts += decided(replace(some, rows=whole.rows[part]), Bundle(RANGING), chosen).signals
    assert list(decided(whole, Bundle(RANGING), chosen).signals) == parts
