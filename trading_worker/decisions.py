"""From one decision wave to signals: candidates, one batched prediction, the strategy, the filters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.barriers import TradePlan
from features.candidates import Candidates, candidates
from features.decision import DecisionWave
from features.decision_spec import DecisionSpec
from features.episodes import ACTIONS, LONG, SHORT
from features.labels import position_id
from features.liquidity import Reach
from features.quality import quality
from market.bars import MINUTE_MS
from models_registry.dynamic_features import DynamicColumns
from models_registry.regime_predictor import RegimePredictor, Regimes
from models_registry.terms import trade_plan
from trading_worker import optional_modules
from trading_worker.events import Signal
from trading_worker.settings import EngineSettings
from trading_worker.strategies import Proposals, strategy


class PredictionLike(Protocol):
    """What is read of a `models_registry.runtime.Prediction`."""

    @property
    def reconstruction_error(self) -> NDArray[np.float32]:
        """[k], NaN when the autoencoder is replaced by its plain version."""

    @property
    def unlike(self) -> NDArray[np.bool_]:
        """[k], whether the window is unlike the training data."""

    @property
    def win_probability(self) -> NDArray[np.float32]:
        """[m]"""

    @property
    def reach(self) -> Reach:
        """How far price will go from the k rows."""

    @property
    def action(self) -> NDArray[np.int64]:
        """[k] what the bundle's strategy would do, -1 where it is replaced by its plain version."""

    @property
    def action_value(self) -> NDArray[np.float32]:
        """[k, 5] in R, NaN where it is not known."""


class PredictorLike(Protocol):
    """What is asked of a `models_registry.runtime.Predictor`."""

    @property
    def manifest(self) -> Any:
        """A `models_registry.manifest.Manifest`."""

    @property
    def fallbacks(self) -> Mapping[str, str]:
        """The components that their plain version stands in for, with the reason."""

    @property
    def regime_predictor(self) -> RegimePredictor | None:
        """The regime predictor, if the bundle has one. It and `regimes` are asked for when it is switched on."""

    @property
    def dynamic_columns(self) -> DynamicColumns | None:
        """The dynamic features, if the bundle has any."""

    def regimes(self, decision: NDArray[np.float32], windows: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """[k, 3] probabilities of each regime ahead; None without the model."""

    def reach(self, decision: NDArray[np.float32], windows: NDArray[np.float32]) -> Reach:
        """How far price will go from the k rows; asked for when liquidity is hunted."""

    def predict(
        self,
        decision: NDArray[np.float32],
        windows: NDArray[np.float32],
        index: NDArray[np.int64],
        direction: NDArray[np.int8],
        *,
        kind: NDArray[np.uint8] | None = None,
        quality: NDArray[np.float32] | None = None,
        regime: NDArray[np.int8] | None = None,
        dynamic: bool = True,
    ) -> PredictionLike:
        """See `models_registry.runtime.Predictor.predict`: no result depends on what else is in its batch."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of a wave: signals in order of row, and how many candidates each filter kept back."""

    signals: tuple[Signal, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    """Fields of `events.WaveClosed`."""
    lines: tuple[int, ...] = ()
    """The line of the wave that each signal was decided on."""


class _Scored(NamedTuple):
    proposals: Proposals
    prediction: PredictionLike
    """Of the lines below."""
    lines: NDArray[np.int64]
    """[k'] line in the wave of each line of `proposals.decision`."""
    unlike: int


def bundle_plan(predictor: PredictorLike) -> TradePlan:
    """The plan that the bundle was trained with; the default one when its manifest names none."""
    return trade_plan(predictor.manifest.plan)


def decide(
    wave: DecisionWave,
    spec: DecisionSpec,
    symbols: Sequence[str],
    predictor: PredictorLike,
    settings: EngineSettings,
    followed: NDArray[np.int64],
) -> Decided:
    """The signals of a wave, at most one per symbol. Pure.

    `followed` int64[S, 2] says how many positions each symbol has, long and short. In order: candidates on warm
    rows; no rule signals where the market is predicted to range; the scores of the others in one call; symbols unlike
    the training data are left out; the strategy chooses; then the least quality, the least confidence and the most
    positions per symbol and direction.
    """
    reach = optional_modules.reach_of(wave, predictor, settings)
    every = candidates(wave.decision, spec, wave.ready, settings.hunting, reach)
    counts = {"ready": int(wave.ready.sum()), "candidates": int(every.index.size)}
    if not every.index.size:
        return Decided((), counts)
    regimes = optional_modules.regimes(wave, spec, predictor, settings)
    found = optional_modules.without_trends_in_a_range(every, regimes)
    counts["ranging"] = int(every.index.size - found.index.size)
    if not found.index.size:
        return Decided((), counts)
    plan = settings.plan or bundle_plan(predictor)
    scored = _score(wave, found, regimes, spec, predictor, settings, plan)
    proposals = scored.proposals
    choice = strategy(settings.strategy_mode)(proposals)
    fine = proposals.quality[choice.chosen] >= np.float32(settings.min_quality)
    sure = choice.confidence >= np.float32(settings.min_confidence)
    rows = wave.rows[scored.lines[proposals.row[choice.chosen]]]
    side = (proposals.direction[choice.chosen] < 0).astype(np.int64)
    room = followed[rows, side] < settings.max_open_per_symbol
    counts |= {
        "unlike": scored.unlike,
        "not_chosen": int(proposals.row.size - choice.chosen.size),
        "below_quality": int((~fine).sum()),
        "below_confidence": int((fine & ~sure).sum()),
        "occupied": int((fine & sure & ~room).sum()),
    }
    taken = np.flatnonzero(fine & sure & room)
    about = {
        "strategy": settings.strategy_mode,
        "bundle": str(predictor.manifest.bundle_version),
        "decision_spec": spec.id,
        "fallbacks": tuple(sorted(optional_modules.fallbacks(predictor, settings))),
    }
    ordered = taken[np.argsort(rows[taken], kind="stable")]
    lines = scored.lines[proposals.row[choice.chosen[ordered]]]
    beside = optional_modules.beside_signals(wave, lines, regimes, spec, settings, reach)
    signals = tuple(
        _signal(wave, scored, int(choice.chosen[at]), float(choice.confidence[at]), symbols, plan, about | more)
        for at, more in zip(ordered, beside, strict=True)
    )
    return Decided(signals, counts, tuple(lines.tolist()))


def _score(
    wave: DecisionWave,
    found: Candidates,
    regimes: Regimes,
    spec: DecisionSpec,
    predictor: PredictorLike,
    settings: EngineSettings,
    plan: TradePlan,
) -> _Scored:
    """All candidates with their scores. Only lines with a candidate are predicted."""
    lines, row = np.unique(found.index, return_inverse=True)
    row = row.astype(np.int64)
    decision = wave.decision[lines]
    score = quality(decision[row], found.direction, spec, plan)
    prediction = predictor.predict(
        decision,
        wave.windows[lines],
        row,
        found.direction,
        kind=found.kind,
        quality=score,
        regime=regimes.state[lines],
        dynamic=settings.dynamic_features,
    )
    like = np.ones(row.size, dtype=np.bool_)
    if settings.abstain_when_unlike:
        like = ~np.asarray(prediction.unlike)[row]
    proposals = Proposals(
        names=spec.names,
        decision=decision,
        row=row[like],
        direction=found.direction[like],
        kind=found.kind[like],
        win_probability=prediction.win_probability[like],
        quality=score[like],
        action=np.asarray(prediction.action),
    )
    return _Scored(proposals, prediction, lines, int(row.size - proposals.row.size))


def _signal(
    wave: DecisionWave,
    scored: _Scored,
    at: int,
    confidence: float,
    symbols: Sequence[str],
    plan: TradePlan,
    about: Mapping[str, Any],
) -> Signal:
    proposals, row = scored.proposals, int(scored.proposals.row[at])
    line = int(scored.lines[row])
    symbol, direction = symbols[int(wave.rows[line])], int(proposals.direction[at])
    close, atr = float(wave.close[line]), float(wave.atr[line])
    stop, target = plan.levels(close, atr, direction)
    return Signal(
        time_ms=wave.time_ms,
        position_id=position_id(symbol, wave.time_ms, direction),
        symbol=symbol,
        direction=direction,
        kind=int(proposals.kind[at]),
        reference=close,
        atr=atr,
        stop=stop,
        target=target,
        expiry_ms=wave.time_ms + plan.horizon_minutes * MINUTE_MS,
        confidence=confidence,
        quality=float(proposals.quality[at]),
        reconstruction_error=_known(scored.prediction.reconstruction_error[row]),
        **_foreseen(scored.prediction, row, direction, close, atr),
        **about,
    )


def _foreseen(prediction: PredictionLike, row: int, direction: int, close: float, atr: float) -> dict[str, Any]:
    """What the bundle's strategy and its liquidity predictor say beside a signal at `row`: fields of `Signal`."""
    action, reach = int(prediction.action[row]), prediction.reach
    value = prediction.action_value[row, LONG if direction > 0 else SHORT]
    middle = reach.quantiles.index(0.5) if 0.5 in reach.quantiles else None
    return {
        "action": ACTIONS[action] if action >= 0 else None,
        "action_value": _known(value),
        "reach_below": None if middle is None else _known(close - atr * reach.below[row, middle]),
        "reach_above": None if middle is None else _known(close + atr * reach.above[row, middle]),
    }


def _known(value: np.floating[Any] | float) -> float | None:
    return float(value) if math.isfinite(value) else None
