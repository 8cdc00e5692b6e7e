"""Restarts: a worker killed anywhere ends up with the journal of one that never was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.trading_worker.markets import (
    EAGER,
    MortalWorker,
    StubPredictor,
    live_waves,
    market,
    ragged,
    warm_engine,
)
from trading_worker.engine import Engine
from trading_worker.errors import WaveMalformed
from trading_worker.events import (
    AnyEvent,
    BarRejected,
    EpochStarted,
    PositionClosed,
    PositionLost,
    PositionOpened,
    RecoveryDiverged,
    Signal,
    WaveClosed,
    digest,
)
from trading_worker.journal import read
from trading_worker.kernels import compile_all
from trading_worker.recovery import Recovery
from trading_worker.wave import Wave

MINUTES = 300
ROOT = Path(__file__).resolve().parents[2]


def feed(engine: Engine, waves: Any) -> list[AnyEvent]:
    return [event for wave in waves for event in engine.on_wave(wave)]


def of(kind: type[Any], events: list[AnyEvent]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


@pytest.mark.parametrize("seed", range(16))
def test_killed_at_random_points_the_journal_is_that_of_an_undisturbed_run(seed: int) -> None:
    dice = random.Random(seed)
    waves, rest = ragged(live_waves(MINUTES), market().symbols(), dice, dice.choice([0.0, 0.02, 0.1]))
    undisturbed = feed(warm_engine(), waves)
    worker = MortalWorker(warm_engine, dice, snapshot_every=dice.choice([5, 40, 120]))
    worker.run(waves, rest, kill_rate=0.05)
    assert worker.kills > 5
    assert of(RecoveryDiverged, worker.stored) == []
    assert digest(worker.stored) == digest(undisturbed)
    assert of(PositionClosed, worker.stored) == of(PositionClosed, undisturbed)


WORKER = """
import sys
from pathlib import Path
from tests.trading_worker.markets import live_waves, warm_engine
from trading_worker.journal import Journal, read
from trading_worker.recovery import Recovery

folder = Path(sys.argv[1])
stored, engine = folder / "snapshot", warm_engine()
with Journal(folder / "journal", "w", segment_bytes=4096) as journal:
    if stored.exists():
        engine.restore(stored.read_bytes())
    recovery = Recovery(engine, [entry.event for entry in read(folder / "journal")])
    for count, wave in enumerate(wave for wave in live_waves(300) if wave.time_ms > engine.time_ms):
        journal.extend(recovery.on_wave(wave))
        journal.commit()
        if count % 25 == 24:
            partial = stored.with_suffix(".partial")
            partial.write_bytes(engine.snapshot())
            partial.replace(stored)
        print(wave.time_ms, flush=True)
"""


def test_sigkill_of_a_process_at_random_points_changes_nothing(tmp_path: Path) -> None:
    dice = random.Random(8)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    for turn in range(5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as worker:
            assert worker.stdout is not None
            for _ in range(dice.randint(1, 130) if turn < 4 else MINUTES):
                if not worker.stdout.readline():
                    break
            if turn < 4:
                worker.send_signal(signal.SIGKILL)
    entries = list(read(tmp_path / "journal"))
    assert entries[-1].epoch == 5
    assert digest(entry.event for entry in entries) == digest(feed(warm_engine(), live_waves(MINUTES)))


class Restart:
    """A worker that ran `ran` minutes, was snapshotted after `snapshot` and died after `journaled` events."""

    def __init__(self, ran: int = 200, snapshot: int = 60, lost: int = 0) -> None:
        self.waves = live_waves(MINUTES)
        engine = warm_engine()
        self.journal = feed(engine, self.waves[:snapshot])
        self.snapshot = engine.snapshot()
        self.journal += feed(engine, self.waves[snapshot:ran])
        self.journal = self.journal[: len(self.journal) - lost]
        self.positions = engine.positions.table().position
        self.at = snapshot

    def recover(self, predictor: StubPredictor | None = None) -> Recovery:
        engine = warm_engine(predictor=predictor)
        engine.restore(self.snapshot)
        return Recovery(engine, self.journal)


def test_a_recovery_says_where_it_begins_and_what_it_did() -> None:
    dead = Restart(lost=2)
    recovery = dead.recover()
    assert recovery.since_ms == dead.waves[60].time_ms - 59_999
    new = [event for wave in dead.waves[60:] for event in recovery.on_wave(wave)]
    assert digest(dead.journal + new) == digest(feed(warm_engine(), dead.waves))
    report = recovery.report
    assert (report.minutes, report.new, report.diverged) == (240, len(new), 0)
    assert report.known == len(dead.journal) - len([e for e in dead.journal if e.time_ms <= dead.waves[59].time_ms])


def test_barriers_crossed_while_down_are_settled_from_the_missed_bars() -> None:
    dead = Restart(ran=100)
    recovery = dead.recover()
    new = [event for wave in dead.waves[60:] for event in recovery.on_wave(wave)]
    waiting = {e.position_id for e in of(Signal, dead.journal)} - {
        e.position_id for e in of(PositionClosed, dead.journal)
    }
    assert waiting
    assert waiting <= {e.position_id for e in of(PositionClosed, new)}


def test_another_bundle_after_the_restart_does_not_change_what_was_decided() -> None:
    dead = Restart()
    recovery = dead.recover(StubPredictor("stub-2"))
    again = [event for wave in dead.waves[60:200] for event in recovery.on_wave(wave)]
    assert again == []
    assert recovery.engine.positions.table().position.tobytes() == dead.positions.tobytes()
    later = [event for wave in dead.waves[200:] for event in recovery.on_wave(wave)]
    assert {each.bundle for each in of(Signal, later)} == {"stub-2"}
    assert recovery.report.diverged == 0


class Contrary(StubPredictor):
    """Prefers the other direction everywhere."""

    def predict(self, *arguments: Any, **options: Any) -> Any:
        prediction = super().predict(*arguments, **options)
        prediction.win_probability = 1 - prediction.win_probability
        return prediction


def test_the_journal_stands_against_a_bundle_that_would_decide_otherwise() -> None:
    dead = Restart()
    recovery = dead.recover(Contrary("stub-2"))
    assert [event for wave in dead.waves[60:200] for event in recovery.on_wave(wave)] == []
    assert recovery.engine.positions.table().position.tobytes() == dead.positions.tobytes()


def test_the_same_bundle_with_other_numbers_is_reported_and_the_journal_stands() -> None:
    dead = Restart()
    recovery = dead.recover(Contrary("stub-1"))
    new = [event for wave in dead.waves[60:200] for event in recovery.on_wave(wave)]
    assert new
    assert of(RecoveryDiverged, new) == new
    assert recovery.report.diverged == len(new)
    assert {title.partition(" ")[0] for each in new for title in (*each.missing, *each.surplus)} == {"signal"}
    assert recovery.engine.positions.table().position.tobytes() == dead.positions.tobytes()


def without_drama(wave: Wave, row: int) -> Wave:
    """The wave as the venue would correct it: one symbol's bar did not move."""
    bars = wave.bars.copy()
    at = int(np.flatnonzero(wave.rows == row)[0])
    for name in ("high", "low", "close"):
        bars[name][at] = bars["open"][at]
    return replace(wave, bars=bars)


def wild(wave: Wave, row: int) -> Wave:
    """The wave with one symbol's bar reaching far up and down."""
    bars = wave.bars.copy()
    at = int(np.flatnonzero(wave.rows == row)[0])
    bars["high"][at] *= 1.5
    bars["low"][at] *= 0.5
    return replace(wave, bars=bars)


def test_an_outcome_that_corrected_bars_would_not_give_stands_as_journaled() -> None:
    dead = Restart()
    closing = next(e for e in of(PositionClosed, dead.journal) if e.time_ms > dead.waves[60].time_ms)
    row = market().symbols().index(closing.symbol)
    recovery = dead.recover()
    new = []
    for wave in dead.waves[60:200]:
        new += recovery.on_wave(without_drama(wave, row) if wave.time_ms == closing.time_ms else wave)
    (first, *_) = of(RecoveryDiverged, new)
    assert (first.time_ms, first.missing) == (closing.time_ms, (f"position_closed {closing.position_id}",))
    later = [event for wave in dead.waves[200:] for event in recovery.on_wave(wave)]
    everything = of(PositionClosed, [*dead.journal, *new, *later])
    assert len({e.position_id for e in everything}) == len(everything), "no position ends twice"


def test_an_outcome_that_only_corrected_bars_would_give_is_not_taken() -> None:
    dead = Restart()
    living = [e for e in of(PositionOpened, dead.journal) if e.time_ms > dead.waves[60].time_ms]
    ends = {e.position_id: e.time_ms for e in of(PositionClosed, dead.journal)}
    position = next(e for e in living if ends.get(e.position_id, 1 << 60) > e.time_ms + 5 * 60_000)
    wrong = position.time_ms + 60_000
    row = market().symbols().index(position.symbol)
    recovery = dead.recover()
    new = []
    for wave in dead.waves[60:200]:
        new += recovery.on_wave(wild(wave, row) if wave.time_ms == wrong else wave)
    first = of(RecoveryDiverged, new)[0]
    assert f"position_closed {position.position_id}" in first.surplus
    assert position.position_id not in {e.position_id for e in of(PositionClosed, new)}
    rest = [event for wave in dead.waves[200:] for event in recovery.on_wave(wave)]
    ended = [e for e in of(PositionClosed, [*dead.journal, *rest]) if e.position_id == position.position_id]
    assert len(ended) == 1


def test_what_is_noted_around_the_waves_does_not_disturb() -> None:
    dead = Restart()
    noise: list[AnyEvent] = [
        BarRejected(time_ms=dead.waves[250].time_ms - 17, symbol="LTCUSDT", open_time=5, reason="high 1 < low 2"),
        EpochStarted(
            time_ms=dead.waves[280].time_ms, worker="w", epoch=2, code_version="1", bundle="b", decision_spec="d",
            strategy="s", symbols=4,
        ),
    ]  # fmt: skip
    dead.journal += noise
    recovery = dead.recover()
    assert recovery.until_ms == dead.waves[199].time_ms
    new = [event for wave in dead.waves[60:] for event in recovery.on_wave(wave)]
    assert digest(dead.journal + new) == digest(feed(warm_engine(), dead.waves))


def test_a_journaled_minute_must_not_be_passed_over() -> None:
    dead = Restart()
    recovery = dead.recover()
    composition = next(e for e in of(WaveClosed, dead.journal) if e.time_ms > dead.waves[60].time_ms)
    at = next(i for i, wave in enumerate(dead.waves) if wave.time_ms == composition.time_ms)
    for wave in dead.waves[60:at]:
        recovery.on_wave(wave)
    with pytest.raises(WaveMalformed, match="has to be fed before it"):
        recovery.on_wave(dead.waves[at + 1])


def test_without_a_snapshot_it_begins_where_the_features_are_warm() -> None:
    waves = live_waves(MINUTES)
    undisturbed = feed(warm_engine(EAGER), waves)
    journal = undisturbed[: len(undisturbed) // 2]
    recovery = Recovery(warm_engine(EAGER), journal)
    new = [event for wave in waves for event in recovery.on_wave(wave)]
    assert digest([*journal, *new]) == digest(undisturbed)


def test_positions_of_symbols_that_left_the_universe_are_given_up() -> None:
    dead = Restart(ran=221)
    ended = {e.position_id for e in of(PositionClosed, dead.journal)}
    living = next(e for e in of(Signal, dead.journal) if e.position_id not in ended)
    renamed = {"symbol": "GONEUSDT", "position_id": f"GONEUSDT-{living.time_ms}-{living.direction}"}
    dead.journal.append(msgspec.structs.replace(living, **renamed))
    dead.journal.append(msgspec.structs.replace(of(PositionOpened, dead.journal)[-1], **renamed))
    recovery = dead.recover()
    new = [event for wave in dead.waves[60:] for event in recovery.on_wave(wave)]
    (lost,) = of(PositionLost, new)
    assert (lost.symbol, lost.time_ms, lost.decided_at) == ("GONEUSDT", dead.waves[221].time_ms, living.time_ms)
    assert digest([e for e in [*dead.journal, *new] if getattr(e, "symbol", "") != "GONEUSDT"]) == digest(
        feed(warm_engine(), dead.waves)
    )


def test_compiling_ahead_runs_every_kernel() -> None:
    compile_all()
