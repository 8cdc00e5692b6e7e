"""The engine goes on: from a snapshot as if nothing had happened, and under another bundle."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.barriers import CostModel, TradePlan
from features.decision import DecisionState
from features.decision_spec import DecisionSpec
from market.bars import MINUTE_MS
from tests.trading_worker.markets import (
    EAGER,
    WARM_MINUTES,
    StubPredictor,
    live_waves,
    market,
    ragged,
    recording,
    warm_engine,
    warm_state,
)
from trading_worker.engine import Engine
from trading_worker.errors import SnapshotRefused, SwapRefused
from trading_worker.events import (
    AnyEvent,
    BundleSwapped,
    PositionClosed,
    Signal,
)

MINUTES = 300


def feed(engine: Engine, waves: Any) -> list[AnyEvent]:
    return [event for wave in waves for event in engine.on_wave(wave)]


def of(kind: type[Any], events: list[AnyEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


# Snapshots


@given(cut=st.integers(0, 119))
@settings(max_examples=12, deadline=None)
def test_a_restored_engine_goes_on_as_if_nothing_had_happened(cut: int) -> None:
    waves, _ = ragged(live_waves(120), market().symbols(), random.Random(cut), 0.03)
    engine = warm_engine()
    feed(engine, waves[:cut])
    again = Engine(market().symbols(), StubPredictor(), EAGER)
    again.restore(engine.snapshot())
    stored = again.snapshot()
    assert feed(again, waves[cut:]) == feed(engine, waves[cut:])
    once_more = Engine(market().symbols(), StubPredictor(), EAGER)
    once_more.restore(stored)
    assert once_more.snapshot() == stored


def test_a_snapshot_that_does_not_belong_is_refused_and_nothing_changes() -> None:
    good = warm_engine().snapshot()
    other_symbols = Engine(tuple(reversed(market().symbols())), StubPredictor()).snapshot()
    fewer = Engine(market().symbols()[:2], StubPredictor()).snapshot()
    other_spec = DecisionSpec(window=16)
    foreign = Engine(
        market().symbols(),
        StubPredictor(spec_id=other_spec.id),
        state=DecisionState(market().symbols(), other_spec),
    ).snapshot()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    newer = bytearray(good)
    newer[6] = 99
    engine = warm_engine()
    feed(engine, live_waves(3))
    before = engine.snapshot()
    for bad, reason in [
        (other_symbols, "another order"),
        (fewer, "2 missing"),
        (foreign, f"of DecisionSpec {other_spec.id}"),
        (bytes(damaged), "checksum"),
        (bytes(newer), "version is 99"),
        (good[:20], "less than its header"),
        (b"x" * 100, "does not begin"),
        (good[:-1], "checksum"),
    ]:
        with pytest.raises(SnapshotRefused, match=reason):
            engine.restore(bad)
    assert engine.snapshot() == before


# Swaps


def test_a_swap_lets_the_other_bundle_decide_from_the_next_wave_on() -> None:
    waves = live_waves(200)
    engine = warm_engine()
    before = feed(engine, waves[:100])
    (swapped,) = engine.swap(StubPredictor("stub-2"))
    assert isinstance(swapped, BundleSwapped)
    assert (swapped.old, swapped.new, swapped.warmed, swapped.time_ms) == ("stub-1", "stub-2", False, waves[99].time_ms)
    after = feed(engine, waves[100:])
    assert {each.bundle for each in of(Signal, before)} == {"stub-1"}
    assert {each.bundle for each in of(Signal, after)} == {"stub-2"}
    carried = {each.position_id for each in of(Signal, before)} & {e.position_id for e in of(PositionClosed, after)}
    assert carried, "open positions go on"
    assert {e.bundle for e in of(PositionClosed, after) if e.position_id in carried} == {"stub-1"}


@pytest.mark.parametrize("restored", [False, True])
def test_a_swap_and_a_restart_leave_open_positions_the_costs_of_their_bundle(restored: bool) -> None:
    waves = live_waves(200)
    dear = StubPredictor("stub-2")
    dear.manifest.costs = {"fee_bps": 200.0}
    kept = warm_engine()
    feed(kept, waves[:100])
    engine = warm_engine(predictor=dear) if restored else kept
    if restored:
        engine.restore(kept.snapshot())
    else:
        engine.swap(dear)
    other = warm_engine()
    wanted = {e.position_id: e.r for e in of(PositionClosed, feed(other, waves))}
    ended = of(PositionClosed, feed(engine, waves[100:]))
    old = [e for e in ended if e.bundle == "stub-1"]
    assert old
    assert [e.r for e in old] == [wanted[e.position_id] for e in old]
    new = [e for e in ended if e.bundle == "stub-2" and e.position_id in wanted]
    assert new
    assert all(e.r < wanted[e.position_id] for e in new)


def test_a_swap_to_another_spec_needs_a_state_that_is_warm_up_to_now() -> None:
    names, waves = market().symbols(), live_waves(10)
    engine = warm_engine()
    feed(engine, waves)
    other = DecisionSpec(window=16)
    predictor = StubPredictor("stub-2", spec_id=other.id)
    state = DecisionState(names, other)
    before = engine.snapshot()
    with pytest.raises(SwapRefused, match=f"needs DecisionSpec {other.id}"):
        engine.swap(predictor)
    with pytest.raises(SwapRefused, match="warm up to"):
        engine.swap(predictor, state)
    with pytest.raises(SwapRefused, match="another order"):
        engine.swap(StubPredictor(), DecisionState(tuple(reversed(names))))
    assert engine.snapshot() == before
    state.catch_up(recording(WARM_MINUTES + 10)[0])
    (swapped,) = engine.swap(predictor, state)
    assert isinstance(swapped, BundleSwapped)
    assert (swapped.warmed, engine.decision_spec) == (True, other.id)


def test_an_engine_refuses_a_state_that_does_not_fit_its_bundle() -> None:
    with pytest.raises(SwapRefused, match="needs DecisionSpec other"):
        Engine(market().symbols(), StubPredictor(spec_id="other"), state=warm_state(10))


def test_the_plan_and_the_costs_of_the_bundle_are_used_unless_set() -> None:
    predictor = StubPredictor()
    predictor.manifest.plan = {"stop_atr": 1.0, "target_atr": 1.0, "horizon_minutes": 30.0}
    predictor.manifest.costs = {"fee_bps": 0.0, "spread_bps": 0.0, "slippage_bps": 0.0}
    for each in of(Signal, feed(warm_engine(predictor=predictor), live_waves(60))):
        assert (each.stop, each.target) == TradePlan(1.0, 1.0, 30).levels(each.reference, each.atr, each.direction)
        assert each.expiry_ms == each.time_ms + 30 * MINUTE_MS
    assert warm_engine(predictor=predictor).positions.costs == CostModel(0.0, 0.0, 0.0)
    fixed = replace(EAGER, costs=CostModel(1.0, 1.0, 1.0), plan=TradePlan(2.0, 2.0, 60))
    engine = warm_engine(fixed, predictor)
    assert engine.positions.costs == CostModel(1.0, 1.0, 1.0)
    for each in of(Signal, feed(engine, live_waves(60))):
        assert (each.stop, each.target) == TradePlan(2.0, 2.0).levels(each.reference, each.atr, each.direction)
