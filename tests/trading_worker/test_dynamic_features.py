"""The switch of the dynamic features: what the win model is given, and what the worker says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models_registry.manifest import DYNAMIC
from tests.trading_worker.markets import EAGER, StubPredictor, live_waves, warm_engine
from trading_worker import optional_modules
from trading_worker.errors import SettingInvalid
from trading_worker.events import Signal
from trading_worker.settings import EngineSettings, load

ON = replace(EAGER, dynamic_features=True)
MINUTES = 60


class Asked(StubPredictor):
    """Notes what it was asked; wins are likelier with dynamic features."""

    def __init__(self, columns: Any = None) -> None:
        super().__init__()
        self.dynamic_columns = columns
        self.asked: list[tuple[Any, bool]] = []

    def predict(self, decision: Any, *rest: Any, regime: Any = None, dynamic: bool = True, **more: Any) -> Any:
        self.asked.append((regime, dynamic))
        assert len(regime) == len(decision)
        found = super().predict(decision, *rest, **more)
        found.win_probability = found.win_probability + np.float32(0.1 * dynamic)
        return found


def signals(settings: EngineSettings, predictor: StubPredictor) -> list[Signal]:
    engine = warm_engine(settings, predictor)
    events = [event for wave in live_waves(MINUTES) for event in engine.on_wave(wave)]
    return [event for event in events if isinstance(event, Signal)]


def test_it_is_off_unless_it_is_switched_on() -> None:
    assert load({}).engine().dynamic_features is False
    assert load({"ENABLE_DYNAMIC_FEATURES": "true"}).engine().dynamic_features is True
    with pytest.raises(SettingInvalid, match="ENABLE_DYNAMIC_FEATURES=perhaps"):
        load({"ENABLE_DYNAMIC_FEATURES": "perhaps"})


def test_the_switch_reaches_the_win_model_with_the_regime_in_force() -> None:
    on, off = Asked(columns=object()), Asked(columns=object())
    with_them, without = signals(ON, on), signals(EAGER, off)
    assert with_them
    assert {dynamic for _, dynamic in on.asked} == {True}
    assert {dynamic for _, dynamic in off.asked} == {False}
    assert all(regime.dtype == np.int8 for regime, _ in on.asked)
    assert with_them[0].confidence > without[0].confidence


@pytest.mark.parametrize(
    ("settings", "columns", "reason", "stands"),
    [
        (ON, object(), None, "in force"),
        (ON, None, "the bundle has none", "on its fallback: the bundle has none"),
        (EAGER, object(), "switched off by ENABLE_DYNAMIC_FEATURES", "off"),
        (EAGER, None, None, "off"),
    ],
)
def test_how_they_stand_is_said(settings: EngineSettings, columns: Any, reason: str | None, stands: str) -> None:
    predictor = Asked(columns)
    assert optional_modules.fallbacks(predictor, settings).get(DYNAMIC) == reason
    assert optional_modules.in_use(predictor, settings)[DYNAMIC] == stands
    found = signals(settings, predictor)
    assert {DYNAMIC in signal.fallbacks for signal in found} == {reason is not None}


def test_a_search_that_kept_nothing_is_the_reason_when_they_are_wanted() -> None:
    predictor = Asked()
    predictor.fallbacks = {DYNAMIC: "0 of 190 expressions kept"}
    assert optional_modules.fallbacks(predictor, ON) == {DYNAMIC: "0 of 190 expressions kept"}
    assert optional_modules.fallbacks(predictor, EAGER) == {}
