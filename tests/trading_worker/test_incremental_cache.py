"""ENABLE_INCREMENTAL_CACHE=false: the same decisions from rows that are computed anew each time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.decision import DecisionState
from features.decision_spec import DECISION_SPEC
from features.proofs import TOLERANCE
from features.window_engine import window_length
from market.bars import DAY_MS, MINUTE_MS
from tests.trading_worker.markets import EAGER, StubPredictor, market, recording
from trading_worker.engine import Engine
from trading_worker.errors import SnapshotRefused
from trading_worker.events import AnyEvent, PositionClosed, Signal, digest
from trading_worker.recorded_waves import Stretch, recorded_waves
from trading_worker.replay import replay
from trading_worker.state_store import StateStore, read
from trading_worker.wave import Wave

WARM_MINUTES = 6 * 1440
"""Longer than the window of the deciding timeframe, so that what is computed anew has lost its origin."""
MINUTES = 240
ANEW = replace(EAGER, incremental_cache=False)


@cache
def waves() -> tuple[Wave, ...]:
    bars, funding = recording(WARM_MINUTES + MINUTES)
    start = market().start_ms + WARM_MINUTES * MINUTE_MS
    return tuple(recorded_waves(bars, funding, tuple(bars), Stretch(start, start + MINUTES * MINUTE_MS)))


def engine(incremental: bool) -> Engine:
    bars, _ = recording(WARM_MINUTES)
    state = DecisionState(tuple(bars), incremental=incremental)
    state.catch_up(bars)
    return Engine(tuple(bars), StubPredictor(), EAGER if incremental else ANEW, state=state)


def feed(engine: Engine, some: tuple[Wave, ...]) -> list[AnyEvent]:
    return [event for wave in some for event in engine.on_wave(wave)]


def comparable(event: AnyEvent) -> tuple[str, dict[str, object]]:
    """An event's kind and its exact fields; its floating numbers are compared within the tolerance."""
    fields = msgspec.structs.asdict(event)
    return type(event).__name__, {name: value for name, value in fields.items() if not isinstance(value, float)}


def test_the_window_is_shorter_than_what_the_stepped_state_has_seen() -> None:
    assert window_length(DECISION_SPEC.base) < WARM_MINUTES // 5


def test_decisions_and_outcomes_are_comparable() -> None:
    stepped, anew = feed(engine(True), waves()), feed(engine(False), waves())
    assert [comparable(event) for event in anew] == [comparable(event) for event in stepped]
    for one, other in zip(stepped, anew, strict=True):
        numbers = [
            [value for value in msgspec.structs.asdict(event).values() if isinstance(value, float)]
            for event in (one, other)
        ]
        np.testing.assert_allclose(numbers[1], numbers[0], rtol=TOLERANCE, atol=TOLERANCE)
    assert sum(isinstance(event, Signal) for event in stepped) > 10
    assert any(isinstance(event, PositionClosed) for event in stepped)


def test_decision_rows_agree_to_the_declared_tolerance() -> None:
    states = [engine(True).state, engine(False).state]
    scales = np.ones(len(DECISION_SPEC.names))
    for timeframe in DECISION_SPEC.timeframes:
        scales[DECISION_SPEC.timeframe_block(timeframe)] = [f.scale for f in DECISION_SPEC.base.features]
    compared = 0
    for wave in waves()[:60]:
        found = [
            state.on_minute(wave.time_ms, wave.rows, wave.bars, wave.funding_rate, wave.next_funding_ms)
            for state in states
        ]
        if found[0] is None or found[1] is None:
            continue
        one, other = found[0].decision.astype(float), found[1].decision.astype(float)
        allowed = TOLERANCE * np.maximum(np.maximum(np.abs(one), np.abs(other)), scales)
        alike = (np.abs(one - other) <= allowed) | (np.isnan(one) & np.isnan(other))
        assert alike.all(), [DECISION_SPEC.names[column] for column in np.flatnonzero(~alike.all(axis=0))]
        assert (found[0].ready == found[1].ready).all()
        compared += int(np.isfinite(one).sum())
    assert compared > 1_000


def test_a_restart_goes_on_to_the_bit(tmp_path: Path) -> None:
    undisturbed = feed(engine(False), waves()[:60])
    first = engine(False)
    events = feed(first, waves()[:31])
    again = Engine(first.symbols, StubPredictor(), ANEW)
    again.restore(first.snapshot())
    assert digest(events + feed(again, waves()[31:60])) == digest(undisturbed)
    store = StateStore(tmp_path / "state.map")
    store.commit(first.time_ms, first.decision_spec, "", first.capture().arrays)
    bars = read(store.path).generations[0].arrays["state.5m.bars"]
    assert bars.tobytes() == first.state.arrays()["5m.bars"].tobytes()


@pytest.mark.parametrize("incremental", [True, False])
def test_a_state_of_the_other_kind_is_refused_with_the_reason(incremental: bool) -> None:
    stored = engine(incremental).snapshot()
    other = Engine(market().symbols(), StubPredictor(), ANEW if incremental else EAGER)
    with pytest.raises(SnapshotRefused, match=r"5m.bars is not there" if incremental else r"5m.state is not there"):
        other.restore(stored)


def test_a_replay_takes_the_setting() -> None:
    bars, funding = recording(3 * 1440)
    start = market().start_ms + 3 * DAY_MS - 120 * MINUTE_MS
    results = [replay(bars, funding, StubPredictor(), settings, start_ms=start) for settings in (EAGER, ANEW)]
    # Three days are fewer bars than the window: nothing is forgotten, so not even a bit differs.
    assert results[0].digest == results[1].digest
