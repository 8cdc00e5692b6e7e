"""The counts of waves: what is missed, what is of the time when the worker was down, and how far back they reach."""

from __future__ import annotations

import pytest

from trading_worker.events import AnyEvent, CaughtUp, DecidedLate, EpochStarted, WaveClosed
from trading_worker.shell.metrics import Board
from trading_worker.shell.tally import Tally

STEP_MS = 300_000
FIRST_MS = 1_768_003_200_000


def close(step: int) -> int:
    """When a 5m step closes."""
    return FIRST_MS + step * STEP_MS - 1


def started(step: int, epoch: int = 1) -> EpochStarted:
    """A process begins."""
    return EpochStarted(
        time_ms=close(step),
        worker="w",
        epoch=epoch,
        code_version="",
        bundle="b",
        decision_spec="d",
        strategy="ict",
        symbols=2,
    )


def live(step: int) -> CaughtUp:
    """It has caught up."""
    return CaughtUp(time_ms=close(step) + 1)


def wave(step: int, present: int = 2, *, decided: bool = True) -> WaveClosed:
    """A wave that was run."""
    absent = tuple("AB"[present:])
    return WaveClosed(time_ms=close(step), decided=decided, present=present, absent=absent, bundle="b")


def late(step: int) -> DecidedLate:
    """It was decided late."""
    return DecidedLate(time_ms=close(step), venue_ms=close(step) + 60_000)


@pytest.mark.parametrize(
    ("events", "waves", "missed", "down"),
    [
        ([started(0), live(0), wave(1), wave(2), wave(3, present=1)], 3, 0, 0),
        ([started(0), live(0), wave(1), wave(2, present=0), wave(3)], 3, 1, 0),
        ([started(0), live(0), wave(1), wave(2), late(2), wave(3)], 3, 1, 0),
        ([started(0), live(0), wave(1), wave(4), wave(5)], 3, 2, 0),
        ([started(0), live(0), wave(1), wave(1, present=0, decided=False), wave(2)], 2, 0, 0),
        ([started(0), wave(1), wave(2, present=0), live(2), wave(3)], 3, 0, 2),
        ([started(0), live(0), wave(1), started(1, 2), wave(2), wave(3), live(3), wave(4)], 4, 0, 2),
        ([started(0), live(0), wave(1), started(4, 2), live(4), wave(5), wave(7)], 3, 1, 3),
        ([started(0), wave(1), started(1, 2), wave(2), live(2), wave(3)], 3, 0, 2),
    ],
    ids=["in time", "empty", "late", "skipped", "other minutes", "start", "restart", "cold restart", "killed at start"],
)
def test_a_wave_is_missed_only_while_the_worker_was_meant_to_decide_on_it(
    events: list[AnyEvent], waves: int, missed: int, down: int
) -> None:
    board = Board(worker="w")
    tally = Tally(board, STEP_MS)
    for event in events:
        tally.add(event)
    assert (board.waves, board.waves_missed, board.waves_down) == (waves, missed, down)


def test_counts_say_how_far_back_the_journal_reaches() -> None:
    whole, pruned = Board(worker="w"), Board(worker="w")
    events: list[AnyEvent] = [started(0), live(0), *map(wave, range(1, 9))]
    for board, kept in ((whole, events), (pruned, events[6:])):
        tally = Tally(board, STEP_MS)
        for event in kept:
            tally.add(event)
    assert (whole.waves, whole.since_ms) == (8, close(0))
    assert (pruned.waves, pruned.since_ms) == (4, close(5))
