"""The engine: what a wave gives, and what it refuses."""

from __future__ import annotations

import ast
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trading_worker
from features.barriers import CostModel, TradePlan
from features.decision_spec import DECISION_SPEC
from features.history import decision_history
from features.labels import label_history
from market.bars import BAR, MINUTE_MS
from tests.trading_worker.markets import (
    EAGER,
    WARM_MINUTES,
    StubPredictor,
    live_waves,
    market,
    ragged,
    recording,
    spoiled,
    warm_engine,
)
from trading_worker.engine import Engine
from trading_worker.errors import UnknownStrategy, WaveMalformed, WaveOutOfOrder
from trading_worker.events import (
    AnyEvent,
    BarRejected,
    BarRevised,
    PositionClosed,
    PositionLost,
    PositionOpened,
    Signal,
    WaveClosed,
    digest,
)
from trading_worker.settings import EngineSettings
from trading_worker.wave import MinuteBars, Wave

MINUTES = 300


def feed(engine: Engine, waves: Any) -> list[AnyEvent]:
    return [event for wave in waves for event in engine.on_wave(wave)]


def of(kind: type[Any], events: list[AnyEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def run() -> list[AnyEvent]:
    """The events of an undisturbed run."""
    return feed(warm_engine(), live_waves(MINUTES))


# What a wave gives


def test_it_decides_at_5m_closes_and_says_what_each_wave_was_made_of(run: list[AnyEvent]) -> None:
    waves = of(WaveClosed, run)
    assert [wave.time_ms for wave in waves] == [
        w.time_ms for w in live_waves(MINUTES) if (w.time_ms + 1) % 300_000 == 0
    ]
    assert all(wave.decided and wave.present == 4 and wave.ready == 4 and not wave.absent for wave in waves)


def test_every_candidate_is_accounted_for(run: list[AnyEvent]) -> None:
    waves = of(WaveClosed, run)
    for wave in waves:
        kept_back = wave.unlike + wave.not_chosen + wave.below_quality + wave.below_confidence + wave.occupied
        assert wave.candidates == kept_back + wave.signals
    assert sum(wave.signals for wave in waves) == len(of(Signal, run)) > 5


def test_a_signal_names_all_that_explains_it(run: list[AnyEvent]) -> None:
    plan = TradePlan()
    for each in of(Signal, run):
        assert each.position_id == f"{each.symbol}-{each.time_ms}-{each.direction}"
        assert (each.bundle, each.decision_spec, each.strategy) == ("stub-1", DECISION_SPEC.id, "self_learning")
        assert (each.time_ms + 1) % 300_000 == 0
        assert (each.stop, each.target) == plan.levels(each.reference, each.atr, each.direction)
        assert each.expiry_ms == each.time_ms + plan.horizon_minutes * MINUTE_MS
        assert 0 <= each.quality <= 1
        assert 0 <= each.confidence <= 1


def test_entries_are_at_the_next_open(run: list[AnyEvent]) -> None:
    bars, _ = recording(WARM_MINUTES + MINUTES)
    opened = of(PositionOpened, run)
    assert len(opened) > 5
    for each in opened:
        assert each.opened_at == each.decided_at + 1
        at = np.searchsorted(bars[each.symbol]["open_time"], each.opened_at)
        assert each.entry == bars[each.symbol]["open"][at] * (1 + each.direction * 0.00015)


def test_within_a_wave_the_composition_comes_first_and_signals_last(run: list[AnyEvent]) -> None:
    rank = {WaveClosed: 0, PositionOpened: 1, PositionClosed: 1, Signal: 2}
    for before, after in pairwise(run):
        assert before.time_ms <= after.time_ms
        if before.time_ms == after.time_ms:
            assert rank[type(before)] <= rank[type(after)]


def test_outcomes_are_those_that_history_gives_the_same_decisions() -> None:
    minutes = 700
    bars, funding = recording(WARM_MINUTES + minutes)
    events = feed(warm_engine(replace(EAGER, max_open_per_symbol=99)), live_waves(minutes))
    closed = of(PositionClosed, events)
    history = label_history(decision_history(bars, funding), bars, funding, TradePlan(), CostModel())
    columns = history.columns()
    place = {name: index for index, name in enumerate(columns["position_id"])}
    assert len(closed) > 15
    assert any(each.funding for each in closed)
    for each in closed:
        index = place[each.position_id]
        for name in ("outcome", "opened_at", "known_at", "entry", "stop", "target", "r", "best", "worst", "kind"):
            assert getattr(each, name) == columns[name][index], (each.position_id, name)
        assert each.quality == columns["quality"][index]


def test_all_symbols_are_scored_in_one_call_a_wave() -> None:
    predictor = StubPredictor()
    events = feed(warm_engine(predictor=predictor), live_waves(60))
    assert predictor.calls == [wave.candidates for wave in of(WaveClosed, events) if wave.candidates]


def test_cold_features_decide_nothing() -> None:
    engine = Engine(market().symbols(), StubPredictor(), EAGER)
    waves = of(WaveClosed, feed(engine, live_waves(60)))
    assert len(waves) == 12
    assert all(wave.ready == 0 and wave.candidates == 0 for wave in waves)


# Filters


def counts(settings_: EngineSettings, predictor: StubPredictor | None = None) -> tuple[dict[str, int], list[Signal]]:
    events = feed(warm_engine(settings_, predictor), live_waves(MINUTES))
    names = ("candidates", "unlike", "not_chosen", "below_quality", "below_confidence", "occupied", "signals")
    waves = of(WaveClosed, events)
    return {name: sum(getattr(wave, name) for wave in waves) for name in names}, of(Signal, events)


def test_it_abstains_where_the_window_is_unlike_the_training_data() -> None:
    found, signals = counts(EAGER, StubPredictor(threshold=1e9))
    assert signals == []
    assert found["unlike"] == found["candidates"] > 0
    kept, _ = counts(replace(EAGER, abstain_when_unlike=False), StubPredictor(threshold=1e9))
    assert kept["unlike"] == 0
    assert kept["signals"] > 0


def test_quality_and_confidence_have_a_least_value() -> None:
    found, signals = counts(replace(EAGER, min_quality=0.4, min_confidence=0.56))
    assert found["below_quality"] > 0
    assert found["below_confidence"] > 0
    assert signals
    assert all(each.quality >= np.float32(0.4) and each.confidence >= np.float32(0.56) for each in signals)
    assert counts(replace(EAGER, min_quality=1.0))[1] == []


def test_a_symbol_has_so_many_positions_in_a_direction_and_no_more() -> None:
    patient = replace(EAGER, plan=TradePlan(stop_atr=30, target_atr=30))
    few, _ = counts(patient)
    many, _ = counts(replace(patient, max_open_per_symbol=99))
    assert few["occupied"] > 0
    assert many["occupied"] == 0
    assert many["signals"] > few["signals"]


@pytest.mark.parametrize("name", ["ict", "self_learning", "hybrid"])
def test_each_strategy_runs_by_name(name: str) -> None:
    _, signals = counts(replace(EAGER, strategy_mode=name))
    assert {each.strategy for each in signals} <= {name}


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(UnknownStrategy):
        EngineSettings(strategy_mode="momentum")


# Bad input


def with_bar(wave: Wave, row: int, **changes: float) -> Wave:
    bars = wave.bars.copy()
    for name, value in changes.items():
        bars[name][row] = value
    return replace(wave, bars=bars)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"high": 1.0}, "high 1 < low"),
        ({"close": np.nan}, "not a finite number"),
        ({"open": np.inf, "high": np.inf}, "not a finite number"),
        ({"low": -1.0}, "not positive"),
        ({"low": 0.0}, "not positive"),
        ({"volume": -1.0}, "a volume is negative"),
        ({"taker_buy_base": -1.0}, "a volume is negative"),
        ({"close": 1e9}, "lies outside"),
        ({"close_time": 5}, "closes before it opens"),
        ({"open_time": 60_000}, "older than the last bar"),
    ],
)
def test_an_impossible_bar_is_rejected_and_the_others_go_on(changes: dict[str, float], reason: str) -> None:
    engine = warm_engine()
    first, second = live_waves(2)
    engine.on_wave(first)
    events = engine.on_wave(with_bar(second, 1, **changes))
    composition, rejected = events[:2]
    symbol = engine.symbols[1]
    assert isinstance(composition, WaveClosed)
    assert (composition.absent, composition.present) == ((symbol,), 3)
    assert isinstance(rejected, BarRejected)
    assert (rejected.symbol, rejected.open_time) == (symbol, int(with_bar(second, 1, **changes).bars["open_time"][1]))
    assert reason in rejected.reason
    assert engine.counters["bar_rejected"] == 1
    assert engine.last_times.tolist() == [second.time_ms, first.time_ms, second.time_ms, second.time_ms]


def test_a_bar_that_closes_at_another_time_than_its_wave_is_rejected() -> None:
    engine = warm_engine()
    first, _, third = live_waves(3)
    _, rejected = engine.on_wave(replace(first, rows=third.rows[:1], bars=third.bars[:1]))[:2]
    assert isinstance(rejected, BarRejected)
    assert "closes with its wave" in rejected.reason


def test_a_repeated_bar_is_rejected_and_a_revised_one_written_down_with_both() -> None:
    engine = warm_engine()
    first, second = live_waves(2)
    engine.on_wave(first)
    again = with_bar(first, 0, close=float(first.bars["low"][0]))
    rows, bars = np.concatenate([again.rows[:2], second.rows]), np.concatenate([again.bars[:2], second.bars])
    order = np.argsort(rows, kind="stable")
    events = engine.on_wave(replace(second, rows=rows[order], bars=bars[order]))
    (revised,) = of(BarRevised, events)
    (repeated,) = of(BarRejected, events)
    assert (revised.symbol, revised.used.close, revised.revised.close) == (
        engine.symbols[0], first.bars["close"][0], first.bars["low"][0],
    )  # fmt: skip
    assert (repeated.symbol, repeated.reason) == (engine.symbols[1], "it repeats the last bar")
    undisturbed = warm_engine()
    feed(undisturbed, (first, second))
    seen, clean = engine.state.snapshot(), undisturbed.state.snapshot()
    assert all(seen[name].tobytes() == clean[name].tobytes() for name in clean), "the bar that was used stays"


def test_two_bars_of_one_symbol_in_one_wave() -> None:
    engine = warm_engine()
    (first,) = live_waves(1)
    other = with_bar(first, 0, close=float(first.bars["low"][0]))
    events = engine.on_wave(
        replace(first, rows=np.insert(first.rows, 1, 0), bars=np.insert(first.bars, 1, other.bars[0]))
    )
    (revised,) = of(BarRevised, events)
    assert revised.used.close == first.bars["close"][0]


def test_a_bar_of_an_unknown_symbol_is_rejected() -> None:
    engine = warm_engine()
    (first,) = live_waves(1)
    by_name = dict(zip(engine.symbols, first.bars, strict=True))
    wave = Wave.of(engine.symbols, first.time_ms, {**by_name, "LUNAUSDT": first.bars[0]})
    (rejected,) = of(BarRejected, engine.on_wave(wave))
    assert (rejected.symbol, rejected.reason) == ("LUNAUSDT", "it is of no symbol of this worker")
    (_, second) = live_waves(2)
    stray = replace(second, rows=np.append(second.rows, 77), bars=np.append(second.bars, second.bars[:1]))
    (rejected,) = of(BarRejected, engine.on_wave(stray))
    assert rejected.symbol == "row 77"
    assert engine.last_times.tolist() == [second.time_ms] * 4


def test_a_wave_that_is_not_later_or_does_not_fit_changes_nothing() -> None:
    engine = warm_engine()
    first, second, third = live_waves(3)
    engine.on_wave(second)
    before = engine.snapshot()
    bad = [
        (first, WaveOutOfOrder),
        (second, WaveOutOfOrder),
        (replace(third, time_ms=third.time_ms - 5), WaveMalformed),
        (replace(third, bars=third.bars[:2]), WaveMalformed),
        (replace(third, rows=third.rows[::-1]), WaveMalformed),
        (replace(third, funding_now=third.funding_now[:1]), WaveMalformed),
        (replace(third, late=(MinuteBars(third.time_ms, third.rows, third.bars),)), WaveMalformed),
    ]
    for wave, error in bad:
        with pytest.raises(error):
            engine.on_wave(wave)
    assert engine.snapshot() == before


def test_a_symbol_twice_in_the_universe_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Engine(("A", "A"), StubPredictor())


# Absence and late bars


def test_late_bars_leave_no_hole() -> None:
    waves, names = live_waves(MINUTES), market().symbols()
    complete = {e.position_id: e for e in of(PositionClosed, feed(warm_engine(), waves))}
    held_up, _ = ragged(waves, names, random.Random(3), 0.02, never=0.0)
    events = feed(warm_engine(), held_up)
    compositions = of(WaveClosed, events)
    assert sum(len(each.late) for each in compositions) > 5
    closed = {e.position_id: e for e in of(PositionClosed, events)}
    same = closed.keys() & complete.keys()
    assert same
    for name in same:
        assert (closed[name].outcome, closed[name].r) == (complete[name].outcome, complete[name].r)
    assert not of(PositionLost, events)


def test_bars_that_never_come_lose_the_positions_that_needed_them() -> None:
    gone, _ = ragged(live_waves(MINUTES), market().symbols(), random.Random(3), 0.02, never=1.0)
    events = feed(warm_engine(), gone)
    lost = {each.position_id for each in of(PositionLost, events)}
    assert lost
    assert lost.isdisjoint(each.position_id for each in of(PositionClosed, events))


def test_funding_of_a_minute_whose_bar_came_late_is_still_charged() -> None:
    waves = list(live_waves(MINUTES))
    engine = warm_engine()
    opened = of(PositionOpened, feed(engine, waves[:120]))
    assert len(engine.positions)
    row = int(engine.positions.table().position["symbol"][0])
    charged = waves[120].funding_now.copy()
    charged[row] = 0.01
    gone = waves[120].rows == row
    cut = replace(waves[120], rows=waves[120].rows[~gone], bars=waves[120].bars[~gone], funding_now=charged)
    late = MinuteBars(waves[120].time_ms, waves[120].rows[gone], waves[120].bars[gone])
    before = engine.positions.table().position["funding"].copy()
    engine.on_wave(cut)
    restored = warm_engine()
    restored.restore(engine.snapshot())
    for each in (engine, restored):
        each.on_wave(replace(waves[121], late=(late,)))
        table = each.positions.table().position
        mine = table["symbol"] == row
        assert opened
        assert (np.abs(table["funding"][mine] - before[mine]) > 0).all()


# Ticks and determinism


def test_prices_change_no_decision() -> None:
    engine, plain = warm_engine(), warm_engine()
    events: list[AnyEvent] = []
    dice = np.random.default_rng(1)
    for wave in live_waves(MINUTES):
        for _ in range(3):
            prices = wave.bars["close"] * (1 + dice.normal(0, 0.01, wave.rows.size))
            assert engine.on_prices(wave.time_ms - 20_000, wave.rows, prices) == []
        events += engine.on_wave(wave)
    undisturbed = feed(plain, live_waves(MINUTES))
    assert digest(events) == digest(undisturbed)
    watched = of(PositionClosed, events)
    assert all(each.ticks_disagree is not None for each in watched)
    assert any(each.ticks_disagree for each in watched)


def test_the_same_waves_give_the_same_events(run: list[AnyEvent]) -> None:
    assert feed(warm_engine(), live_waves(MINUTES)) == run


def test_the_core_has_no_way_to_read_a_clock_a_random_source_or_a_file() -> None:
    folder = Path(trading_worker.__file__).parent
    core = ["engine", "decisions", "screening", "virtual_positions", "wave", "recovery", "snapshots", "recorded_waves"]
    for path in [*(folder / f"{name}.py" for name in core), *(folder / "strategies").glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            name.partition(".")[0]
            for node in ast.walk(tree)
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not imported & {"time", "datetime", "random", "os", "socket", "asyncio", "secrets", "uuid", "pathlib"}


def test_spoiled_bars_are_what_the_tests_mean() -> None:
    (first,) = live_waves(1)
    assert first.bars.dtype == BAR
    assert spoiled(first).bars["high"][0] < spoiled(first).bars["low"][0]
