"""The board as a fold over the journal: what every event means for counts, open positions and last signals.

A restart folds the stored journal first and then goes on, so these counts outlive the process. They reach back as
far as the journal here does, which is `Board.since_ms`: old segments are removed once the lake has them.

Which waves count as missed: a decision wave that closed while the worker was there to decide on it, and on which

- nothing was journaled at all, although later waves were; or
- no symbol had a bar; or
- decisions were durable too late by the venue's own time (`DecidedLate`, see `Conductor`).

Waves of the time when the process was down, or still catching up, are `waves_down`: nobody meant to decide on them,
and those that are run afterwards only bring state and positions up to date. `waves` are all that were run.
"""

from __future__ import annotations

from features.barriers import OUTCOME
from market.bars import MINUTE_MS
from trading_worker.events import (
    AnyEvent,
    BarRevised,
    BarsAbsent,
    BundleRefused,
    CaughtUp,
    DecidedLate,
    EpochStarted,
    PositionClosed,
    PositionLost,
    PositionOpened,
    PositionVoided,
    Signal,
    WaveClosed,
)
from trading_worker.shell.metrics import Board, Refusal


class Tally:
    """Folds events into a board. `step_ms` is the length of the deciding timeframe."""

    def __init__(self, board: Board, step_ms: int) -> None:
        self._board = board
        self._step_ms = step_ms
        self._decided_ms = 0
        self._live = False
        """Whether the epoch has caught up: waves are meant to be decided as they close."""
        self._gap_is_down = True
        """Whether the process was down since the last wave."""
        self._open: dict[str, dict[str, object]] = {}

    def add(self, event: AnyEvent) -> None:
        """Take the next event of the journal."""
        self._board.since_ms = self._board.since_ms or event.time_ms
        match event:
            case EpochStarted():
                self._live, self._gap_is_down = False, True
            case CaughtUp():
                self._live = True
            case DecidedLate():
                self._board.waves_missed += 1
            case WaveClosed():
                self._wave(event)
            case Signal():
                self._signal(event)
            case PositionOpened():
                self._open.setdefault(event.position_id, {}).update(
                    symbol=event.symbol, direction=_side(event.direction), entry=event.entry, opened_ms=event.opened_at
                )
            case PositionClosed():
                self._end(event.position_id, OUTCOME[event.outcome])
                self._board.r_sum += event.r
            case PositionVoided():
                self._end(event.position_id, "void")
            case PositionLost():
                self._end(event.position_id, "lost")
            case BarRevised():
                self._board.bars_revised += 1
            case BarsAbsent():
                self._board.bars_absent[event.cause] += (event.end_ms - event.start_ms) // MINUTE_MS
            case BundleRefused():
                self._board.refusals_total += 1
                self._board.refused.append(Refusal(event.time_ms, event.bundle, event.reason))
            case _:
                return
        self._board.open_positions = len(self._open)

    def show(self) -> None:
        """Put the open positions on the board."""
        self._board.positions = list(self._open.values())

    def _wave(self, event: WaveClosed) -> None:
        board = self._board
        board.absences += len(event.absent)
        board.late_bars += len(event.late)
        board.waves_cut += bool(event.absent)
        if event.decided:
            self._decision(event)

    def _decision(self, event: WaveClosed) -> None:
        board = self._board
        skipped = max(0, (event.time_ms - self._decided_ms) // self._step_ms - 1) if self._decided_ms else 0
        board.waves += 1
        board.waves_down += (skipped if self._gap_is_down else 0) + (not self._live)
        board.waves_missed += (0 if self._gap_is_down else skipped) + (self._live and not event.present)
        self._decided_ms, self._gap_is_down = event.time_ms, False

    def _signal(self, event: Signal) -> None:
        self._board.signals_total += 1
        shown: dict[str, object] = {
            "time_ms": event.time_ms,
            "symbol": event.symbol,
            "direction": _side(event.direction),
            "confidence": event.confidence,
            "quality": event.quality,
            "stop": event.stop,
            "target": event.target,
            "expiry_ms": event.expiry_ms,
            "bundle": event.bundle,
        }
        self._board.signals.append(shown)
        self._open[event.position_id] = {**shown, "entry": None}

    def _end(self, position_id: str, outcome: str) -> None:
        self._board.outcomes[outcome] += 1
        self._open.pop(position_id, None)


def _side(direction: int) -> str:
    return "long" if direction > 0 else "short"
