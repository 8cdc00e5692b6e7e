"""One decision wave of 200 symbols on three timeframes: a step of the kept state, against the window computed anew."""

from __future__ import annotations

import numpy as np

from benchmarks.report import Row, seconds
from benchmarks.universe import SYMBOLS, Universe
from features import DECISION_SPEC
from features.decision import DecisionState, DecisionWave
from features.proofs import TOLERANCE
from features.window_engine import window_length
from trading_worker.wave import Wave

WARM_MINUTES = 6 * 1440
HOURS = 1


def _decide(state: DecisionState, waves: tuple[Wave, ...]) -> list[DecisionWave]:
    came = [state.on_minute(w.time_ms, w.rows, w.bars, w.funding_rate, w.next_funding_ms) for w in waves]
    return [wave for wave in came if wave is not None]


def _parity(one: DecisionWave, other: DecisionWave) -> None:
    """Every number of both waves' rows within the tolerance to which features forget."""
    scales = np.ones(len(DECISION_SPEC.names))
    for timeframe in DECISION_SPEC.timeframes:
        scales[DECISION_SPEC.timeframe_block(timeframe)] = [f.scale for f in DECISION_SPEC.base.features]
    a, b = one.decision.astype(np.float64), other.decision.astype(np.float64)
    allowed = TOLERANCE * np.maximum(np.maximum(np.abs(a), np.abs(b)), scales)
    alike = (np.abs(a - b) <= allowed) | (np.isnan(a) & np.isnan(b))
    assert alike.all(), [DECISION_SPEC.names[column] for column in np.flatnonzero(~alike.all(axis=0))]
    assert np.array_equal(one.ready, other.ready)


def run() -> list[Row]:
    """Parity of a wave that closes all three timeframes, then its time either way."""
    universe = Universe(WARM_MINUTES, 60 * HOURS)
    states = [universe.state(incremental=incremental) for incremental in (True, False)]
    waves = [_decide(state, universe.waves[:-1]) for state in states]
    before = [state.snapshot() for state in states]
    last = universe.waves[-1:]
    assert (last[0].time_ms + 1) % 3_600_000 == 0, "the last wave closes an hour"
    waves = [[*found, *_decide(state, last)] for found, state in zip(waves, states, strict=True)]
    for one, other in zip(*waves, strict=True):
        _parity(one, other)

    def wave(index: int) -> None:
        states[index].restore(before[index])
        _decide(states[index], last)

    def restoring(index: int) -> None:
        states[index].restore(before[index])

    step, anew = (
        float(np.median(seconds(lambda i=index: wave(i), repeats)))
        - float(np.median(seconds(lambda i=index: restoring(i), repeats)))
        for index, repeats in ((0, 100), (1, 3))
    )
    length = window_length(DECISION_SPEC.base)
    return [
        Row(
            f"decision wave, {3 * SYMBOLS} series stepped",
            step * 1e3,
            "ms",
            anew * 1e3,
            f"each computed anew from its last {length:,} bars",
            f"the state saves {1 - step / anew:.2%}; parity to {TOLERANCE:g}",
        )
    ]
