"""Bringing a restarted engine back to where its journal ends, and on from there.

The state is a fold over snapshot and journal. A restart restores the newest snapshot and is fed, from bars, the
minutes since: each is run again and compared with what the journal holds of it.

1. **The composition is the journal's.** A symbol that was absent from a journaled wave is left out of it again, and
   fed late in the wave that journaled it as late, whatever bars REST has by now.
2. **The journal stands.** What it holds of a minute is not journaled again. Where the re-run gives something else
   (the venue has corrected a bar, another bundle is loaded), positions are put as the journal says, and
   `RecoveryDiverged` names the difference.
3. **Nothing open is forgotten.** Positions of symbols that left the universe are given up as `PositionLost`.
4. **The last journaled minute may be cut**: its events were not one write. What the journal lacks of it is given
   out, as for all minutes after it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from market.bars import MINUTE_MS, Bars
from market.errors import utc
from trading_worker.engine import Engine
from trading_worker.errors import WaveMalformed
from trading_worker.events import (
    INPUT,
    AnyEvent,
    BundleRefused,
    BundleSwapped,
    CaughtUp,
    DecidedLate,
    EpochStarted,
    PositionClosed,
    PositionLost,
    PositionOpened,
    PositionVoided,
    RecoveryDiverged,
    Signal,
    WaveClosed,
    canonical,
    kind,
)
from trading_worker.virtual_positions import Table
from trading_worker.wave import MinuteBars, Wave

ENDS = (PositionClosed, PositionVoided, PositionLost)

OUTSIDE = (EpochStarted, CaughtUp, DecidedLate, BundleSwapped, BundleRefused, RecoveryDiverged)
"""Kinds that no wave gives."""


@dataclasses.dataclass(slots=True)
class RecoveryReport:
    """What a recovery did, for the log and the status page."""

    minutes: int = 0
    """Waves that were fed."""
    known: int = 0
    """Events that the journal held already."""
    new: int = 0
    """Events that were given out to be journaled."""
    diverged: int = 0
    """Waves in which the re-run gave something else than the journal holds."""


class Recovery:
    """Feeds a restored engine the minutes since its snapshot.

    Parameters
    ----------
    engine
        Restored from the newest snapshot, or fresh and warmed up to before the journal's first wave.
    journal
        Its journal's events in order, all or from before the snapshot on: `entry.event` of `journal.read`.

    The caller feeds every minute from `since_ms` to now, in order, and journals what `on_wave` returns. The engine is
    ready when the last minute that has closed has been fed; barriers crossed meanwhile are then settled.
    """

    def __init__(self, engine: Engine, journal: Iterable[AnyEvent]) -> None:
        self.engine = engine
        self.report = RecoveryReport()
        self._held: dict[tuple[int, int], Bars] = {}
        """Bars not fed with their wave, by row and open time."""
        self._journaled: dict[int, list[AnyEvent]] = defaultdict(list)
        self.until_ms = engine.time_ms
        """Time of the last journaled wave; what comes after it is new to the journal."""
        self._inputs: set[bytes] = set()
        self._gone: dict[str, Signal] = {}
        """Positions of symbols that are no longer in the universe, still open."""
        for event in journal:
            # What a source sent wrong may be noted between waves, so its time says nothing of them.
            if isinstance(event, INPUT):
                if event.time_ms > engine.time_ms:
                    self._inputs.add(canonical(event))
            elif not isinstance(event, OUTSIDE) and self._known(event):
                self.until_ms = max(self.until_ms, event.time_ms)
                if event.time_ms > engine.time_ms:
                    self._journaled[event.time_ms].append(event)

    def _known(self, event: AnyEvent) -> bool:
        """Whether an event is of this universe; positions of others are noted, to be given up."""
        if not isinstance(event, (Signal, PositionOpened, *ENDS)) or event.symbol in self.engine.symbols:
            return True
        if isinstance(event, Signal):
            self._gone[event.position_id] = event
        elif isinstance(event, ENDS):
            self._gone.pop(event.position_id, None)
        return False

    @property
    def since_ms(self) -> int:
        """Open time of the next minute to feed; 0 when the engine has had none."""
        return self.engine.time_ms + 1 if self.engine.time_ms else 0

    def on_wave(self, wave: Wave) -> list[AnyEvent]:
        """Run one minute; returns the events that are to be journaled, in order.

        Raises `WaveMalformed` when a journaled minute was passed over.
        """
        passed_over = min(self._journaled, default=wave.time_ms)
        if passed_over < wave.time_ms:
            raise WaveMalformed(wave.time_ms, f"the journaled minute {utc(passed_over)} has to be fed before it")
        journaled = self._journaled.pop(wave.time_ms, [])
        wave = self._as_composed(wave, journaled)
        before = self.engine.positions.table()
        new = self.engine.on_wave(wave)
        if wave.time_ms <= self.until_ms:
            new = self._settle(wave.time_ms, before, new, journaled)
        else:
            new += self._given_up(wave.time_ms)
        self.report.minutes += 1
        self.report.new += len(new)
        return new

    def _given_up(self, time_ms: int) -> list[AnyEvent]:
        """The end of positions that nobody will see bars for."""
        lost: list[AnyEvent] = [
            PositionLost(
                time_ms=time_ms,
                position_id=signal.position_id,
                symbol=signal.symbol,
                direction=signal.direction,
                decided_at=signal.time_ms,
                opened_at=0,
                kind=signal.kind,
                last_seen=signal.time_ms,
                bundle=signal.bundle,
            )
            for _, signal in sorted(self._gone.items())
        ]
        self._gone.clear()
        return lost

    def _as_composed(self, wave: Wave, journaled: list[AnyEvent]) -> Wave:
        """The wave with the bars that it had when it was journaled; bars left out are held to be fed late."""
        symbols = self.engine.symbols
        composition = next((event for event in journaled if isinstance(event, WaveClosed)), None)
        absent = set(composition.absent) if composition is not None else set()
        for minute in wave.late:
            self._hold(minute, np.ones(minute.rows.size, dtype=np.bool_))
        left_out = np.array([symbols[row] in absent for row in wave.rows.tolist()], dtype=np.bool_)
        self._hold(MinuteBars(wave.time_ms, wave.rows, wave.bars), left_out)
        rows = wave.rows[~left_out]
        present = set(rows.tolist())
        due: dict[tuple[int, int], Bars] = {}
        if composition is not None:
            wanted = set(composition.late)
            due = {key: bar for key, bar in self._held.items() if (symbols[key[0]], key[1]) in wanted}
        elif wave.time_ms > self.until_ms:
            due = {key: bar for key, bar in self._held.items() if key[0] in present}
        self._held = {key: bar for key, bar in self._held.items() if key[0] not in present}
        names = (*absent, *wave.absent) if wave.time_ms > self.until_ms else tuple(absent)
        return dataclasses.replace(wave, rows=rows, bars=wave.bars[~left_out], late=_minutes(due), absent=names)

    def _hold(self, minute: MinuteBars, which: NDArray[np.bool_]) -> None:
        for index in np.flatnonzero(which):
            bar = minute.bars[index : index + 1]
            self._held[int(minute.rows[index]), int(bar["open_time"][0])] = bar.copy()

    def _settle(
        self, time_ms: int, before: Table, produced: list[AnyEvent], journaled: list[AnyEvent]
    ) -> list[AnyEvent]:
        """Compare a re-run minute with the journal and let the journal stand; returns what it lacks."""
        held = {_identity(event): event for event in journaled}
        given = {_identity(event): event for event in produced if not isinstance(event, INPUT)}
        foreign = any(isinstance(e, WaveClosed) and e.bundle != self.engine.bundle for e in journaled)
        last = time_ms == self.until_ms
        new = [e for e in produced if last and isinstance(e, INPUT) and canonical(e) not in self._inputs]
        surplus: list[AnyEvent] = []
        missing: list[AnyEvent] = []
        for identity, event in given.items():
            if identity in held:
                self.report.known += 1
                if canonical(event) != canonical(held[identity]):
                    surplus.append(event)
                    missing.append(held[identity])
            elif last and not (foreign and isinstance(event, Signal)):
                # The last minute may have been cut off: this is the rest of it.
                new.append(event)
            else:
                surplus.append(event)
        missing += [event for identity, event in held.items() if identity not in given]
        self._undo(time_ms, before, surplus)
        self._adopt(missing)
        # Another bundle than the journaled one decides otherwise, and that is no news.
        if any(not (foreign and isinstance(event, (Signal, WaveClosed))) for event in (*missing, *surplus)):
            self.report.diverged += 1
            new.append(
                RecoveryDiverged(
                    time_ms=time_ms,
                    missing=tuple(_title(event) for event in missing),
                    surplus=tuple(_title(event) for event in surplus),
                )
            )
        return new

    def _undo(self, time_ms: int, before: Table, surplus: list[AnyEvent]) -> None:
        """Put the positions of these events back to where they were, as if the minute had passed without an event."""
        positions = self.engine.positions
        for event in surplus:
            if isinstance(event, Signal):
                positions.remove(positions.key(event.symbol, event.time_ms, event.direction))
            elif isinstance(event, (PositionOpened, *ENDS)):
                key = positions.key(event.symbol, event.decided_at, event.direction)
                positions.reinstate(before, key, time_ms)

    def _adopt(self, missing: list[AnyEvent]) -> None:
        """Let the positions of these journaled events be as the events say."""
        positions = self.engine.positions
        for event in missing:
            if isinstance(event, Signal):
                positions.add(event)
            elif isinstance(event, PositionOpened):
                positions.adopt(event)
            elif isinstance(event, ENDS):
                positions.remove(positions.key(event.symbol, event.decided_at, event.direction))


def _identity(event: AnyEvent) -> tuple[str, str]:
    """What an event is about: two events of one minute with the same identity should be equal."""
    if isinstance(event, (Signal, PositionOpened, *ENDS)):
        return kind(event), event.position_id
    return kind(event), ""


def _title(event: AnyEvent) -> str:
    return " ".join((kind(event), getattr(event, "position_id", ""))).strip()


def _minutes(bars: dict[tuple[int, int], Bars]) -> tuple[MinuteBars, ...]:
    """Single bars by (row, open_time) as minutes, ascending in time and within it in row."""
    by_time: dict[int, list[tuple[int, Bars]]] = defaultdict(list)
    for (row, open_time), bar in sorted(bars.items()):
        by_time[open_time + MINUTE_MS - 1].append((row, bar))
    return tuple(
        MinuteBars(
            time_ms,
            np.array([row for row, _ in found], dtype=np.int64),
            np.concatenate([bar for _, bar in found]),
        )
        for time_ms, found in sorted(by_time.items())
    )
