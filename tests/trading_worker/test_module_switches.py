"""Each optional module switched on and off over the same waves, with its model in the bundle and without it.

A real bundle and the real engine: what a switch changes is what it is documented to change, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from features.candidates import HUNT, RULE
from features.decision import DecisionState
from features.decision_spec import DECISION_SPEC
from features.history import DecisionHistory, decision_history
from features.liquidity import HuntSettings, levels
from features.regime_inputs import HORIZON_MS, INPUTS, RANGING
from models_registry.dynamic_features import EXPRESSIONS_FILE, StoredExpression, StoredExpressions, column_names
from models_registry.manifest import DYNAMIC, REGIME, WIN, Component
from models_registry.regime_predictor import WEIGHTS_FILE, Regimes, RegimeWeights, in_force
from models_registry.runtime import Predictor
from models_registry.terms import hunting_terms
from models_registry.win_classifier import WinParameters
from models_registry.win_inputs import columns
from tests.trading_worker.markets import EAGER, recording
from tests.trading_worker.shell.conftest import write_bundle
from tests.trading_worker.shell.tiny_models import classifier
from trading_worker.engine import Engine
from trading_worker.events import AnyEvent, Signal, WaveClosed
from trading_worker.optional_modules import HUNTING, in_use
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.settings import EngineSettings
from trading_worker.wave import Wave

WARM, LIVE = 2400, 2880
HUNTS = HuntSettings(threshold=0.4, tolerance=0.01)
# So many that no signal stands in the way of a later one: what differs is what the switch did.
OFF = replace(EAGER, max_open_per_symbol=10_000, regime_threshold=0.6)
REGIMES_ON = replace(OFF, regime_prediction=True)
DYNAMIC_ON = replace(OFF, dynamic_features=True)
HUNTS_ON = replace(OFF, hunting=HUNTS)
ALL_ON = replace(REGIMES_ON, dynamic_features=True, hunting=HUNTS)

EXPRESSIONS = [
    StoredExpression("ranging", "5m.rsi_14 - 50"),
    StoredExpression("trending", "squash(5m.return_20 / 5m.atr_14_fraction / 4)"),
    StoredExpression("volatile", "squash(5m.bar_close_move)"),
]
"""Of which the win model below reads the first."""
REGIME_FIELDS = ("regime", "regime_source", "regime_probability")
POOL_FIELDS = ("pool_source", "pool_below", "pool_above", "pool_below_score", "pool_above_score")

Key = tuple[str, int]


def files() -> dict[str, bytes]:
    """The model files: a forecast that leans to ranging, the expressions, and one tree on the first of them."""
    random = np.random.default_rng(4)
    weights = RegimeWeights(
        lookback=10,
        horizon_ms=HORIZON_MS,
        inputs=list(INPUTS),
        mean=[0.0] * len(INPUTS),
        std=[1.0] * len(INPUTS),
        weights=random.normal(0, 0.3, (len(INPUTS), 3)).tolist(),
        intercept=[3.0, 0.0, 0.0],
    )
    names = column_names(EXPRESSIONS)
    return {
        WEIGHTS_FILE: msgspec.json.encode(weights),
        EXPRESSIONS_FILE: msgspec.json.encode(StoredExpressions(1, EXPRESSIONS)),
        "win.onnx": classifier(len(columns(["dynamic", "direction"], DECISION_SPEC.names, names))),
    }


def written(folder: Path, without: frozenset[str] = frozenset()) -> Path:
    """The bundle in `folder`, `without` some of its components."""
    made = files()
    win = WinParameters(inputs=["dynamic", "direction"], dynamic=column_names(EXPRESSIONS))
    parts = {
        REGIME: (WEIGHTS_FILE, "json", {}),
        DYNAMIC: (EXPRESSIONS_FILE, "expressions", {}),
        WIN: ("win.onnx", "onnx", msgspec.to_builtins(win)),
    }
    components = {
        name: Component(
            version="1",
            served=file,
            format=kind,
            files={file: hashlib.sha256(made[file]).hexdigest()},
            parameters=parameters,
        )
        for name, (file, kind, parameters) in parts.items()
        if name not in without
    }
    kept = {part.served: made[str(part.served)] for part in components.values()}
    hunting = {} if HUNTING in without else hunting_terms(HUNTS) | {"rows": 50.0}
    return write_bundle(folder, "modules", files=kept, components=components, hunting=hunting)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    with Predictor.load(written(tmp_path_factory.mktemp("bundles") / "whole")) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """The same win model, without the models of the modules."""
    gone = frozenset((REGIME, DYNAMIC, HUNTING))
    with Predictor.load(written(tmp_path_factory.mktemp("bundles") / "bare", gone)) as predictor:
        yield predictor


@cache
def market() -> tuple[tuple[str, ...], dict[str, NDArray[Any]], tuple[Wave, ...]]:
    """Symbols, the state before the waves, and the waves."""
    bars, funding = recording(WARM + LIVE)
    symbols = tuple(bars)
    state = DecisionState(symbols)
    state.catch_up({symbol: minutes[:WARM] for symbol, minutes in bars.items()})
    start = int(bars[symbols[0]]["open_time"][WARM])
    stretch = Stretch(start, start + LIVE * 60_000)
    return symbols, state.snapshot(), tuple(recorded_waves(bars, funding, symbols, stretch))


@cache
def history() -> DecisionHistory:
    return decision_history(*recording(WARM + LIVE))


def events_of(settings: EngineSettings, predictor: Predictor) -> list[AnyEvent]:
    symbols, before, waves = market()
    state = DecisionState(symbols)
    state.restore(before)
    engine = Engine(symbols, predictor, settings, state=state)
    return [event for wave in waves for event in engine.on_wave(wave)]


@cache
def signals_of(settings: EngineSettings, predictor: Predictor) -> dict[Key, Signal]:
    """Of each symbol and time; a strategy takes one at most."""
    found = [event for event in events_of(settings, predictor) if isinstance(event, Signal)]
    keyed = {(signal.symbol, signal.time_ms): signal for signal in found}
    assert len(keyed) == len(found) > 50
    return keyed


def same_but(one: Signal, other: Signal, *fields: str) -> bool:
    """Whether two signals agree in everything but `fields`."""
    kept = {name: getattr(other, name) for name in fields}
    return msgspec.structs.replace(one, **kept) == other


def row_of(key: Key) -> int:
    symbol = history().symbols.index(key[0])
    (row,) = np.flatnonzero((history().time == key[1]) & (history().symbol == symbol))
    return int(row)


def forecast(predictor: Predictor, rows: NDArray[np.int64], threshold: float) -> Regimes:
    """The regime in force on rows of history."""
    decision = history().decision[rows]
    return in_force(decision, DECISION_SPEC.names, predictor.regimes(decision, history().windows(rows)), threshold)


def test_with_every_switch_off_the_bundles_modules_change_nothing(whole: Predictor, bare: Predictor) -> None:
    full, empty = signals_of(OFF, whole), signals_of(OFF, bare)
    assert full.keys() == empty.keys()
    assert all(same_but(full[key], empty[key], "fallbacks") for key in full)
    # Its win model has learnt with dynamic features, and is not given any.
    assert {DYNAMIC in signal.fallbacks for signal in full.values()} == {True}
    assert {(REGIME in signal.fallbacks, HUNTING in signal.fallbacks) for signal in full.values()} == {(False, False)}
    assert set(in_use(whole, OFF).values()) == {"off"}


def test_a_predicted_range_takes_away_the_rules_signals_and_nothing_else(whole: Predictor) -> None:
    off, on = signals_of(OFF, whole), signals_of(REGIMES_ON, whole)
    keys = sorted(off.keys() | on.keys())
    rows = np.array([row_of(key) for key in keys])
    regimes = forecast(whole, rows, REGIMES_ON.regime_threshold)
    forbidden = 0
    for at, key in enumerate(keys):
        before, after = off.get(key), on.get(key)
        ranging = bool(regimes.predicted[at]) and regimes.state[at] == RANGING
        if after is not None:
            assert after.regime_source == regimes.source(at)
            assert after.regime == regimes.state[at]
            assert not (ranging and after.kind == RULE)
        if before is not None and before.kind == RULE and ranging:
            forbidden += 1
            continue
        if before is None or after is None or not same_but(before, after, *REGIME_FIELDS):
            # The rule's candidate has gone, and the other direction was an event.
            assert ranging
    assert forbidden > 0
    assert 0 < int(regimes.predicted.sum()) < len(keys), "the threshold decides"
    closed = [event for event in events_of(REGIMES_ON, whole) if isinstance(event, WaveClosed)]
    assert sum(event.ranging for event in closed) >= forbidden
    assert in_use(whole, REGIMES_ON)[REGIME] == "in force"


@pytest.mark.parametrize("settings", [DYNAMIC_ON, replace(REGIMES_ON, dynamic_features=True)], ids=["row", "forecast"])
def test_dynamic_features_change_the_win_probability_as_history_has_them(
    settings: EngineSettings, whole: Predictor
) -> None:
    off, on = signals_of(replace(settings, dynamic_features=False), whole), signals_of(settings, whole)
    assert off.keys() == on.keys()
    assert all(same_but(off[key], on[key], "confidence", "fallbacks") for key in off)
    rows = np.array([row_of(key) for key in on])
    threshold = settings.regime_threshold if settings.regime_prediction else 1.1
    assert whole.dynamic_columns is not None
    values = whole.dynamic_columns.run(history().decision[rows], forecast(whole, rows, threshold).state)[:, 0]
    low, high = sorted({signal.confidence for signal in on.values()})
    assert [signal.confidence for signal in on.values()] == [high if value >= 0 else low for value in values]
    assert {signal.confidence for signal in off.values()} == {low}, "unknown to the trees"
    assert not any(DYNAMIC in signal.fallbacks for signal in on.values())
    assert in_use(whole, settings)[DYNAMIC] == "in force"


def test_hunting_adds_hunts_and_shows_pools_and_nothing_else(whole: Predictor) -> None:
    off, on = signals_of(OFF, whole), signals_of(HUNTS_ON, whole)
    hunts = {key for key, signal in on.items() if signal.kind == HUNT}
    assert {on[key].direction for key in hunts} == {1, -1}
    assert hunts - off.keys(), "some are trades that nothing else proposes"
    assert off.keys() <= on.keys()
    changed = {key for key in off if not same_but(off[key], on[key], *POOL_FIELDS)}
    assert changed <= hunts, "an event that is a hunt is called one, and it has the higher claim"
    assert {signal.pool_source for signal in off.values()} <= {"range", "none"}
    assert "structure" in {signal.pool_source for signal in on.values()}
    for key in hunts:
        row = row_of(key)
        found = levels(history().decision[row : row + 1], hunting=HUNTS)
        expected = history().close[row] - float(found.below.distance[0]) * history().atr[row]
        assert on[key].pool_below == (pytest.approx(expected) if np.isfinite(expected) else None)
    assert in_use(whole, HUNTS_ON)[HUNTING] == "in force"
    assert not any(HUNTING in signal.fallbacks for signal in on.values())


@pytest.mark.parametrize(
    ("settings", "name", "stands"),
    [
        (REGIMES_ON, REGIME, "on its fallback: the bundle has no such model"),
        (DYNAMIC_ON, DYNAMIC, "on its fallback: the bundle has none"),
    ],
)
def test_without_the_model_the_worker_decides_as_with_the_switch_off_and_says_so(
    settings: EngineSettings, name: str, stands: str, bare: Predictor
) -> None:
    off, on = signals_of(OFF, bare), signals_of(settings, bare)
    assert off.keys() == on.keys()
    assert all(same_but(off[key], on[key], "fallbacks") for key in off)
    assert all(name in signal.fallbacks for signal in on.values())
    assert in_use(bare, settings)[name] == stands


def test_hunts_need_no_model_and_say_that_none_has_learnt_of_them(whole: Predictor, bare: Predictor) -> None:
    with_terms, without = signals_of(HUNTS_ON, whole), signals_of(HUNTS_ON, bare)
    assert with_terms.keys() == without.keys()
    assert all(same_but(with_terms[key], without[key], "fallbacks") for key in without)
    assert all(HUNTING in signal.fallbacks for signal in without.values())
    assert in_use(bare, HUNTS_ON)[HUNTING] == "in force, but its win model was trained without hunting candidates"


@pytest.mark.parametrize("predictor", ["whole", "bare"])
def test_the_same_waves_give_the_same_events_with_everything_on(predictor: str, request: pytest.FixtureRequest) -> None:
    bundle: Predictor = request.getfixturevalue(predictor)
    assert events_of(ALL_ON, bundle) == events_of(ALL_ON, bundle)
