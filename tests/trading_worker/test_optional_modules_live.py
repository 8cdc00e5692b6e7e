"""Hunts, forecasts and dynamic features live are those of history to the bit, through a restart, however split."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.candidates import HUNT, Candidates, candidates
from features.decision import DecisionState, DecisionWave
from features.decision_spec import DECISION_SPEC
from features.expressions import VERSION, text
from features.history import DecisionHistory, decision_history
from features.liquidity import HuntSettings, levels
from features.regime_inputs import HORIZON_MS, INPUTS
from models_registry.dynamic_candidates import REGIMES, generate
from models_registry.dynamic_features import EXPRESSIONS_FILE, DynamicColumns, StoredExpression, StoredExpressions
from models_registry.regime_predictor import RegimePredictor, RegimeWeights
from tests.trading_worker.markets import recording
from trading_worker.recorded_waves import Stretch, recorded_waves

WARM, LIVE = 2400, 600
"""Minutes: the inputs of a forecast, and pools, are known on 5m rows from 320 bars on."""
HUNTING = HuntSettings(threshold=0.4, tolerance=0.01)
"""Enough hunts for a few hours to have some."""


@cache
def history() -> DecisionHistory:
    bars, funding = recording(WARM + LIVE)
    return decision_history(bars, funding)


@cache
def live() -> tuple[DecisionWave, ...]:
    """The waves after the warm-up, with a restart from a snapshot half way."""
    bars, funding = recording(WARM + LIVE)
    symbols = tuple(bars)
    start = int(next(iter(bars.values()))["open_time"][WARM])
    state = DecisionState(symbols)
    state.catch_up({symbol: minutes[:WARM] for symbol, minutes in bars.items()})
    waves: list[DecisionWave] = []
    for count, minute in enumerate(recorded_waves(bars, funding, symbols, Stretch(start, start + LIVE * 60_000))):
        if count == LIVE // 2 + 1:
            snapshot, state = state.snapshot(), DecisionState(symbols)
            state.restore(snapshot)
        wave = state.on_minute(minute.time_ms, minute.rows, minute.bars, minute.funding_rate, minute.next_funding_ms)
        if wave is not None:
            waves.append(wave)
    return tuple(waves)


def rows_of(wave: DecisionWave) -> NDArray[np.int64]:
    """The rows of history that were decided on in this wave."""
    return np.flatnonzero(history().time == wave.time_ms)


def model() -> RegimePredictor:
    """Weights that let every input count."""
    random = np.random.default_rng(4)
    return RegimePredictor(
        RegimeWeights(
            lookback=10,
            horizon_ms=HORIZON_MS,
            inputs=list(INPUTS),
            mean=random.normal(0, 1, len(INPUTS)).tolist(),
            std=random.uniform(0.5, 2, len(INPUTS)).tolist(),
            weights=random.normal(0, 0.3, (len(INPUTS), 3)).tolist(),
            intercept=random.normal(0, 0.3, 3).tolist(),
        )
    )


def as_set(found: Candidates, rows: NDArray[np.int64]) -> set[tuple[int, int, int]]:
    return set(zip(rows[found.index].tolist(), found.direction.tolist(), found.kind.tolist(), strict=True))


def test_forecasts_are_those_of_history() -> None:
    predictor, names = model(), DECISION_SPEC.names
    known = 0
    for wave in live():
        rows = rows_of(wave)
        past = predictor.run(history().decision[rows], history().windows(rows), names)
        now = predictor.run(wave.decision, wave.windows, names)
        assert now.tobytes() == past.tobytes()
        for line in range(len(now)):
            alone = predictor.run(wave.decision[line : line + 1], wave.windows[line : line + 1], names)
            assert alone.tobytes() == now[line].tobytes()
        known += int(np.isfinite(now).all(axis=1).sum())
    assert known == sum(len(wave.rows) for wave in live()) == 4 * LIVE // 5


def test_pools_and_hunts_are_those_of_history() -> None:
    past = candidates(history().decision, hunting=HUNTING)
    first = live()[0].time_ms
    found: set[tuple[int, int, int]] = set()
    for wave in live():
        rows = rows_of(wave)
        found |= as_set(candidates(wave.decision, hunting=HUNTING), rows)
        for now, then in zip(
            levels(wave.decision, hunting=HUNTING), levels(history().decision[rows], hunting=HUNTING), strict=True
        ):
            assert now.distance.tobytes() == then.distance.tobytes()
            assert now.score.tobytes() == then.score.tobytes()
    every = as_set(past, np.arange(len(history())))
    assert found == {each for each in every if history().time[each[0]] >= first}
    assert {direction for _, direction, kind in found if kind == HUNT} == {1, -1}


def test_pinned_expressions_are_those_of_history(tmp_path: Path) -> None:
    """Of every regime, as the bundle's file has them, on the regime that the row says and on one that is forecast."""
    names = DECISION_SPEC.names
    pinned = [StoredExpression(REGIMES[code], text(node)) for code in REGIMES for node in generate(code, names, 12, 5)]
    (tmp_path / EXPRESSIONS_FILE).write_bytes(msgspec.json.encode(StoredExpressions(VERSION, pinned)))
    columns = DynamicColumns(tmp_path, EXPRESSIONS_FILE, names)
    known = np.zeros(len(pinned), dtype=np.int64)
    for wave in live():
        rows = rows_of(wave)
        past = history().decision[rows]
        ahead = (rows % len(REGIMES)).astype(np.int8)
        now, then = columns.run(wave.decision), columns.run(wave.decision, ahead)
        assert now.tobytes() == columns.run(past).tobytes()
        assert then.tobytes() == columns.run(past, ahead).tobytes()
        for line in range(len(now)):
            assert columns.run(wave.decision[line : line + 1]).tobytes() == now[line].tobytes()
        known += np.isfinite(then).sum(axis=0)
    warm = np.array(["15m." not in each.text and "1h." not in each.text for each in pinned])
    for regime in REGIMES.values():
        mine = warm & [each.regime == regime for each in pinned]
        assert mine.sum() > 1
        assert known[mine].min() > 0, "what reads 5m columns alone is known in its regime"
