"""What one asks a bundle about one symbol at its last decision wave, and how its answers are told."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.actions import ACTIONS
from features.candidates import EVENT, KIND, candidates
from features.decision import DecisionWave
from features.decision_spec import DecisionSpec
from features.quality import quality
from models_registry.front import Answer, Question
from trading_worker import optional_modules
from trading_worker.decisions import PredictorLike, bundle_plan
from trading_worker.errors import NothingToAsk
from trading_worker.settings import EngineSettings

SIDES = {1: "long", -1: "short"}


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A long and a short on one decision row: the questions, and what is known without a model."""

    symbol: str
    time_ms: int
    close: float
    atr: float
    kinds: tuple[str | None, str | None]
    """Why either is a candidate; None where it is none, and is asked about as if an event had made it one."""
    questions: tuple[Question, Question]


def asked_about(
    symbol: str,
    row: int,
    wave: DecisionWave | None,
    spec: DecisionSpec,
    predictor: PredictorLike,
    settings: EngineSettings,
) -> Asked:
    """The questions about a symbol, `row` of the universe, as `decisions.decide` asks them: the answers are the same.

    Raises `NothingToAsk` where it has no row that could be decided on.
    """
    if wave is None:
        raise NothingToAsk(symbol, "no decision wave has closed since the start")
    found = np.flatnonzero(wave.rows == row)
    if not found.size:
        raise NothingToAsk(symbol, "its last wave had no bar of it")
    line = slice(int(found[0]), int(found[0]) + 1)
    if not wave.ready[line][0]:
        raise NothingToAsk(symbol, "its features are not warm yet")
    one = replace(
        wave,
        rows=wave.rows[line],
        # Copies: the answers may come when the next wave has been.
        decision=wave.decision[line].copy(),
        windows=wave.windows[line].copy(),
        close=wave.close[line],
        atr=wave.atr[line],
        ready=wave.ready[line],
    )
    reach = optional_modules.reach_of(one, predictor, settings)
    every = candidates(one.decision, spec, one.ready, settings.hunting, reach)
    kinds = dict(zip(every.direction.tolist(), every.kind.tolist(), strict=True))
    regime = optional_modules.regimes(one, spec, predictor, settings)
    sides = np.array(list(SIDES), dtype=np.int8)
    score = quality(np.repeat(one.decision, len(sides), axis=0), sides, spec, settings.plan or bundle_plan(predictor))
    questions = [
        Question(
            one.decision[0],
            one.windows[0],
            side,
            kind=kinds.get(side, EVENT),
            quality=float(score[place]),
            regime=int(regime.state[0]),
            dynamic=settings.dynamic_features,
        )
        for place, side in enumerate(SIDES)
    ]
    named = [KIND[kinds[side]] if side in kinds else None for side in SIDES]
    close, atr = float(one.close[0]), float(one.atr[0])
    return Asked(symbol, wave.time_ms, close, atr, (named[0], named[1]), (questions[0], questions[1]))


def told(asked: Asked, answers: tuple[Answer, Answer], quantiles: tuple[float, ...]) -> dict[str, Any]:
    """The answers as plain JSON values; what is not known is null."""
    first = answers[0]
    sides = {
        name: {
            "candidate": asked.kinds[place],
            "quality": _known(asked.questions[place].quality),
            "win_probability": answers[place].win_probability,
        }
        for place, name in enumerate(SIDES.values())
    }
    return {
        "symbol": asked.symbol,
        "time_ms": asked.time_ms,
        "close": asked.close,
        "atr": _known(asked.atr),
        **sides,
        "reach_atr": {
            "quantiles": list(quantiles),
            "below": [_known(value) for value in first.reach_below],
            "above": [_known(value) for value in first.reach_above],
        },
        "strategy": {
            "action": ACTIONS[first.action] if first.action >= 0 else None,
            "value_r": {
                name: _known(value)
                for name, value in zip(ACTIONS, first.action_value, strict=True)
                if math.isfinite(value)
            },
        },
        "reconstruction_error": _known(first.reconstruction_error),
        "unlike_training": first.unlike,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
