"""Replay: the same recording gives the same digest, and what live would have given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from market.bars import MINUTE_MS
from market.errors import UnknownSymbol
from market.sources.recorded import RecordedMarket
from models_registry.runtime import MODELS
from tests.trading_worker.markets import (
    EAGER,
    WARM_MINUTES,
    StubPredictor,
    live_waves,
    market,
    recording,
    warm_engine,
    warm_state,
)
from trading_worker.errors import SwapRefused
from trading_worker.events import AnyEvent, PositionClosed, PositionLost, Signal, WaveClosed, digest
from trading_worker.journal import read
from trading_worker.recorded_waves import NothingRecorded, covered, recorded_waves
from trading_worker.replay import plain_predictor, replay, replay_command, replay_together

MINUTES = WARM_MINUTES + 300
START = market().start_ms + WARM_MINUTES * MINUTE_MS
SOURCE = "synthetic:seed=11,symbols=4"
END = market().start_ms + MINUTES * MINUTE_MS


def of(kind: type[Any], events: list[AnyEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_twice_the_same_digest_and_the_same_events() -> None:
    bars, funding = recording(MINUTES)
    one, other = (replay(bars, funding, StubPredictor(), EAGER) for _ in range(2))
    assert one.events == other.events
    assert one.digest == other.digest == digest(one.events)
    assert len(of(Signal, one.events)) > 5


def test_another_process_with_another_hash_seed_gives_the_same_digest() -> None:
    program = (
        "from trading_worker.replay import replay_command\n"
        f"print(replay_command({SOURCE!r}, start_ms={START}, end_ms={END}).digest)"
    )
    found = {replay_command(SOURCE, start_ms=START, end_ms=END).digest}
    environment = {**os.environ, "PYTHONHASHSEED": "271"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found.add(done.stdout.strip())
    assert len(found) == 1


def test_it_gives_what_the_engine_gives_live() -> None:
    bars, funding = recording(MINUTES)
    live = [event for wave in live_waves(300) for event in warm.on_wave(wave)] if (warm := warm_engine()) else []
    assert replay(bars, funding, StubPredictor(), EAGER, start_ms=START).events == live


def test_together_each_bundle_gives_what_it_gives_alone() -> None:
    bars, funding = recording(MINUTES)
    bundles = [StubPredictor("a"), StubPredictor("b", threshold=0.2), StubPredictor("a")]
    state = warm_state(WARM_MINUTES)
    before = state.time_ms
    window = {symbol: minutes[minutes["open_time"] >= START] for symbol, minutes in bars.items()}
    together = replay_together(window, funding, bundles, EAGER, state=state, start_ms=START)
    alone = [replay(bars, funding, bundle, EAGER, start_ms=START) for bundle in bundles]
    assert [each.digest for each in together] == [each.digest for each in alone]
    assert [each.events for each in together] == [each.events for each in alone]
    assert together[0].digest != together[1].digest
    assert state.time_ms == before, "the state that was given stays as it was"


def test_where_it_begins_only_decides_what_is_decided() -> None:
    bars, funding = recording(MINUTES)
    later = replay(bars, funding, StubPredictor(), EAGER, start_ms=START, end_ms=END - 60 * MINUTE_MS)
    assert (later.stretch.start_ms, later.stretch.end_ms) == (START, END - 60 * MINUTE_MS)
    assert later.stretch.minutes == 240
    assert all(START <= event.time_ms < END - 60 * MINUTE_MS for event in later.events)


def test_it_sums_up_what_happened() -> None:
    bars, funding = recording(MINUTES)
    result = replay(bars, funding, StubPredictor(), EAGER)
    closed = of(PositionClosed, result.events)
    assert sum(outcome.count for outcome in result.outcomes.values()) == len(closed) == len(result.closed)
    assert result.mean_r == pytest.approx(np.mean([event.r for event in closed]))
    summary = json.loads(json.dumps(result.summary(), allow_nan=False))
    assert summary["bars"] == 4 * MINUTES
    assert summary["events"]["signal"] == len(of(Signal, result.events))
    assert summary["outcomes"].keys() <= {"target", "stop", "expiry"}
    nothing = replay(bars, funding, StubPredictor(), EAGER, end_ms=market().start_ms + 60 * MINUTE_MS)
    assert json.loads(json.dumps(nothing.summary(), allow_nan=False))["mean_r"] is None


def test_progress_is_told() -> None:
    bars, funding = recording(MINUTES)
    told: list[tuple[int, int]] = []
    replay(bars, funding, StubPredictor(), EAGER, progress=lambda done, of_: told.append((done, of_)))
    assert told[0] == (0, MINUTES)
    assert told[-1] == (MINUTES, MINUTES)


def test_a_gap_in_a_recording_is_an_absence_and_costs_the_position() -> None:
    bars, funding = recording(MINUTES)
    whole = replay(bars, funding, StubPredictor(), EAGER, start_ms=START)
    held = (each for each in of(PositionClosed, whole.events) if each.time_ms > each.opened_at + 2 * MINUTE_MS)
    position = next(held)
    hole = position.opened_at + MINUTE_MS
    holed = {
        symbol: minutes[minutes["open_time"] != hole] if symbol == position.symbol else minutes
        for symbol, minutes in bars.items()
    }
    result = replay(holed, funding, StubPredictor(), EAGER, start_ms=START)
    assert [(w.time_ms, w.absent) for w in of(WaveClosed, result.events) if w.absent] == [
        (hole + MINUTE_MS - 1, (position.symbol,))
    ]
    assert position.position_id in {lost.position_id for lost in of(PositionLost, result.events)}


def test_a_symbol_is_not_absent_before_its_first_bar_or_after_its_last() -> None:
    bars, funding = recording(120)
    name = next(iter(bars))
    shorter = {**bars, name: bars[name][30:60]}
    waves = list(recorded_waves(shorter, funding, tuple(bars), covered(shorter)))
    assert [wave.rows.size for wave in waves] == [3] * 30 + [4] * 30 + [3] * 60
    assert all(wave.absent == () for wave in waves)


def test_waves_tell_of_funding_what_was_known_and_charged() -> None:
    bars, funding = recording(600)
    name = next(iter(bars))
    waves = list(recorded_waves(bars, funding, tuple(bars), covered(bars)))
    charged = [wave for wave in waves if not np.isnan(wave.funding_now[0])]
    assert [wave.time_ms // MINUTE_MS for wave in charged] == (funding[name]["funding_time"] // MINUTE_MS).tolist()
    assert [wave.funding_now[0] for wave in charged] == funding[name]["funding_rate"].tolist()
    at = charged[-1].time_ms
    for wave in waves:
        assert (wave.funding_rate[0] == charged[-1].funding_now[0]) == (wave.time_ms >= at)
        assert wave.next_funding_ms[0] > wave.time_ms


@pytest.mark.parametrize(("start", "end"), [(END, None), (None, market().start_ms), (START, START)])
def test_a_stretch_without_bars_is_refused(start: int | None, end: int | None) -> None:
    bars, funding = recording(MINUTES)
    with pytest.raises(NothingRecorded, match="none of the 4 symbols"):
        replay(bars, funding, StubPredictor(), start_ms=start, end_ms=end)


def test_a_bundle_of_another_spec_is_refused() -> None:
    bars, funding = recording(120)
    with pytest.raises(SwapRefused):
        replay(bars, funding, StubPredictor(spec_id="other"))


def test_without_a_bundle_the_plain_versions_decide() -> None:
    bars, funding = recording(MINUTES)
    with plain_predictor() as predictor:
        result = replay(bars, funding, predictor, EAGER, start_ms=START)
    signals = of(Signal, result.events)
    assert signals
    assert {signal.bundle for signal in signals} == {"plain"}
    assert {signal.fallbacks for signal in signals} == {tuple(sorted(MODELS))}
    assert {signal.reconstruction_error for signal in signals} == {None}


def test_the_command_writes_a_journal_that_has_the_same_digest(tmp_path: Path) -> None:
    result = replay_command(SOURCE, start_ms=START, end_ms=END, journal=tmp_path)
    assert digest(entry.event for entry in read(tmp_path)) == result.digest
    two = replay_command(SOURCE, start_ms=START, end_ms=END, symbols=("ETHUSDT", "BTCUSDT"))
    assert two.symbols == 2
    with pytest.raises(UnknownSymbol, match="LUNAUSDT"):
        replay_command(SOURCE, symbols=("LUNAUSDT",))


def test_a_recording_of_the_exchange(shared_data: Path) -> None:
    folder = shared_data / "klines" / "um2025"
    source = RecordedMarket(folder)
    first, _ = source.coverage("BTCUSDT") or (0, 0)
    start, end = first + 2000 * MINUTE_MS, first + 4400 * MINUTE_MS
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    one, other = (replay_command(folder, start_ms=start, end_ms=end, symbols=symbols) for _ in range(2))
    assert one.digest == other.digest
    assert one.bars == 3 * 4400
    assert len(one.closed) > 10
