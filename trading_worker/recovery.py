"""Bringing an engine back to where its journal ends, and on from there."""

from __future__ import annotations

from collections.abc import Iterable

from trading_worker.engine import Engine
from trading_worker.events import AnyEvent, Event
from trading_worker.wave import Wave


class Recovery:
    """Feeds a restored engine the minutes it missed, so that nothing is journaled twice and nothing is lost.

    >>> # engine.restore(newest_snapshot)
    >>> # recovery = Recovery(engine, (entry.event for entry in journal.read(folder)))
    >>> # for wave in waves_over_rest(recovery.since_ms, now): journal.append_all(recovery.on_wave(wave))
    """

    since_ms: int
    """Open time of the first minute to feed: the one after the engine's last wave."""
    until_ms: int
    """Time of the last journaled event; later waves are new to the journal."""

    def __init__(self, engine: Engine, journal: Iterable[Event]) -> None:
        raise NotImplementedError

    def on_wave(self, wave: Wave) -> list[AnyEvent]:
        """Run one missed minute; returns only the events that the journal does not hold yet."""
        raise NotImplementedError
