"""The optional modules on one wave: the regime in force, the pools beside signals, and which module is in use.

Each is switched on by configuration and has a plain fallback, so a worker decides with any of them missing:

| module | switch | its fallback |
|---|---|---|
| `regime_predictor` | `ENABLE_MARKET_REGIME_PREDICTION` | the regime that ADX and Bollinger width say now |
| `dynamic_features` | `ENABLE_DYNAMIC_FEATURES` | their columns are unknown, as they are outside their regime |
| `liquidity_hunting` | `ENABLE_LIQUIDITY_HUNTING` | no hunts; signals show plain levels of the price range |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.candidates import RULE, Candidates
from features.liquidity import SOURCE, Levels, Reach, levels
from features.regime_inputs import RANGING
from models_registry.dynamic_features import NONE_IN_BUNDLE, SWITCHED_OFF
from models_registry.manifest import DYNAMIC, LIQUIDITY, REGIME
from models_registry.regime_predictor import UNKNOWN, Regimes, in_force
from models_registry.terms import hunting_differs

if TYPE_CHECKING:
    from features.decision import DecisionWave
    from features.decision_spec import DecisionSpec
    from trading_worker.decisions import PredictorLike
    from trading_worker.settings import EngineSettings

HUNTING = "liquidity_hunting"


def regimes(wave: DecisionWave, spec: DecisionSpec, predictor: PredictorLike, settings: EngineSettings) -> Regimes:
    """The regime in force on each row of a wave: the predicted one from the threshold on, else that of the row."""
    usable = settings.regime_prediction and regime_fallback(predictor, settings) is None
    probabilities = predictor.regimes(wave.decision, wave.windows) if usable else None
    return in_force(wave.decision, spec.names, probabilities, settings.regime_threshold)


def reach_of(wave: DecisionWave, predictor: PredictorLike, settings: EngineSettings) -> Reach | None:
    """What pools are scored with besides structure and volume profile: the bundle's liquidity predictor.

    None when no pool is hunted, and without the model: its plain version reads the volume profile, which the scores
    have already.
    """
    if settings.hunting is None or LIQUIDITY in predictor.fallbacks:
        return None
    return predictor.reach(wave.decision, wave.windows)


def without_trends_in_a_range(found: Candidates, on: Regimes) -> Candidates:
    """The candidates less the rule's, which follow a trend, where the market is predicted to range.

    Only a forecast forbids: what ADX and Bollinger width say now is what the rules themselves have looked at.
    """
    against = (found.kind == RULE) & (on.state[found.index] == RANGING) & on.predicted[found.index]
    kept = ~against
    return Candidates(found.index[kept], found.direction[kept], found.kind[kept])


def beside_signals(
    wave: DecisionWave,
    lines: NDArray[np.int64],
    on: Regimes,
    spec: DecisionSpec,
    settings: EngineSettings,
    reach: Reach | None = None,
) -> list[dict[str, Any]]:
    """What the signals at the `lines` of a wave say of regime and pools: fields of `events.Signal`."""
    here = None if reach is None else Reach(reach.quantiles, reach.below[lines], reach.above[lines])
    found = levels(wave.decision[lines], spec, settings.hunting, here)
    return [
        _beside(on, int(line), found, place, float(wave.close[line]), float(wave.atr[line]))
        for place, line in enumerate(lines)
    ]


def _beside(on: Regimes, line: int, found: Levels, place: int, close: float, atr: float) -> dict[str, Any]:
    """Of one signal, at `line` of the wave and `place` of the levels found."""
    state, probability = int(on.state[line]), float(on.probability[line])
    source = max(int(pools.source[place]) for pools in found)
    return {
        "regime": None if state == UNKNOWN else state,
        "regime_source": on.source(line),
        "regime_probability": _known(probability),
        "pool_source": SOURCE[source],
        "pool_below": _known(close - float(found.below.distance[place]) * atr),
        "pool_above": _known(close + float(found.above.distance[place]) * atr),
        "pool_below_score": _known(float(found.below.score[place])),
        "pool_above_score": _known(float(found.above.score[place])),
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def regime_fallback(predictor: PredictorLike, settings: EngineSettings) -> str | None:
    """Why the regime is not predicted although it should be; None when it is, or need not be."""
    if not settings.regime_prediction:
        return None
    reason = predictor.fallbacks.get(REGIME)
    if reason is not None:
        return reason
    model = predictor.regime_predictor
    if model is None:
        return "the bundle has no such model"
    if model.lookback != settings.regime_lookback:
        return f"it was trained to look back {model.lookback} bars, not {settings.regime_lookback}"
    return None


def dynamic_fallback(predictor: PredictorLike, settings: EngineSettings) -> str | None:
    """Why the win model has no dynamic features; None when it has them, or neither bundle nor worker wants any.

    Switched off is a reason here: a model that was trained with them decides without.
    """
    if not settings.dynamic_features:
        return None if predictor.dynamic_columns is None else SWITCHED_OFF
    return predictor.fallbacks.get(DYNAMIC) or (NONE_IN_BUNDLE if predictor.dynamic_columns is None else None)


def hunting_fallback(predictor: PredictorLike, settings: EngineSettings) -> str | None:
    """Why the win model is no judge of the hunts, which it scores all the same; None when it is, or need not be."""
    return None if settings.hunting is None else hunting_differs(predictor.manifest.hunting, settings.hunting)


def fallbacks(predictor: PredictorLike, settings: EngineSettings) -> dict[str, str]:
    """The bundle's fallbacks and those of the modules that are switched on, with the reason.

    A module that is switched off has none, as nothing was asked of it, unless the win model was trained with it.
    """
    asked = {name: reason for name, reason in predictor.fallbacks.items() if name not in (REGIME, DYNAMIC)}
    own = _reasons(predictor, settings)
    return asked | {name: reason for name, reason in own.items() if reason is not None}


def _reasons(predictor: PredictorLike, settings: EngineSettings) -> dict[str, str | None]:
    """Of each module the reason for its fallback, None where there is none."""
    return {
        REGIME: regime_fallback(predictor, settings),
        DYNAMIC: dynamic_fallback(predictor, settings),
        HUNTING: hunting_fallback(predictor, settings),
    }


def in_use(predictor: PredictorLike, settings: EngineSettings) -> Mapping[str, str]:
    """How each module stands, for the status page: off, in force, or on its fallback and why."""
    on = {
        REGIME: settings.regime_prediction,
        DYNAMIC: settings.dynamic_features,
        HUNTING: settings.hunting is not None,
    }
    reasons = _reasons(predictor, settings)
    return {
        name: "off" if not on[name] else "in force" if reasons[name] is None else _stands(name, str(reasons[name]))
        for name in on
    }


def _stands(name: str, reason: str) -> str:
    # Hunts are found by the worker itself; only their scores are not learnt.
    return f"in force, but {reason}" if name == HUNTING else f"on its fallback: {reason}"
