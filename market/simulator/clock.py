"""The simulated clock: it runs as fast as asked, waits for consumers, pauses, steps and ends.

It moves minute by minute. A minute may be played when it ends at or before `pause_at_ms` and `end_ms`. Bars close
a little after their minute (see `streams.CLOSE_DELAY_MS`), so after a minute the clock stands some seconds into the
next one; that is where it rests when it pauses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from market.bars import MINUTE_MS
from market.errors import MarketError

State = Literal["holding", "running", "waiting", "paused", "ended", "stopped", "failed"]
"""holding: fewer consumers than asked for. waiting: a consumer has not yet taken the last minute."""

CATCH_UP_S = 0.05
"""How much of a delay the clock hurries after; what lies further back is forgiven."""


class SimulationFailed(MarketError):
    """The simulated exchange could not go on, mostly because its source failed: fix the source, start again."""


class SimulatedClock:
    """Time of the simulated exchange, in milliseconds UTC.

    Parameters
    ----------
    start_ms: where it begins, the first millisecond of a minute.
    end_ms: minutes that end later are never played; None for no end.
    speed: simulated seconds per wall second; None for as fast as consumers allow.
    pause_at_ms: minutes that end later wait until it is moved or None.
    wall: a monotonic clock in seconds, for pacing alone.
    follow: `wall` tells seconds since 1970, and the simulated time is to be the same: no delay is forgiven.
    """

    def __init__(
        self,
        start_ms: int,
        end_ms: int | None,
        speed: float | None,
        pause_at_ms: int | None,
        wall: Callable[[], float],
        *,
        follow: bool = False,
    ) -> None:
        if start_ms % MINUTE_MS:
            raise SimulationFailed(f"start_ms {start_ms} is not the first millisecond of a minute")
        self.start_ms = start_ms
        self.end_ms = end_ms
        self.speed = _checked(speed)
        self.pause_at_ms = pause_at_ms
        self.minute = start_ms
        """Open time of the next minute to play."""
        self.state: State = "holding"
        self._wall = wall
        self._now = start_ms
        self._target: int | None = None
        self._due = start_ms / 1000 if follow else 0.0
        self.follows = follow
        self._catch_up_s = float("inf") if follow else CATCH_UP_S
        self._changed = asyncio.Event()

    @property
    def now_ms(self) -> int:
        """The time now. Between two events of a paced clock it moves with the wall clock, never past the next event."""
        if self._target is None or self.speed is None:
            return self._now
        passed = max(0.0, self._wall() - self._due) * self.speed * 1000
        return min(self._target - 1, self._now + int(passed))

    @property
    def may_play(self) -> bool:
        """Whether the next minute may be played now."""
        stop = self.minute + MINUTE_MS
        return not self.ended and (self.pause_at_ms is None or stop <= self.pause_at_ms)

    @property
    def ended(self) -> bool:
        """Whether the next minute lies beyond the end."""
        return self.end_ms is not None and self.minute + MINUTE_MS > self.end_ms

    def shorten(self, end_ms: int) -> None:
        """Let the clock end at `end_ms` at the latest."""
        self.end_ms = end_ms if self.end_ms is None else min(self.end_ms, end_ms)

    def set_speed(self, speed: float | None) -> None:
        """Change the pace, at once."""
        self._now, self._due = self.now_ms, self._wall()
        self.speed = _checked(speed)
        self.changed()

    def pause_at(self, pause_at_ms: int | None) -> None:
        """Play no minute that ends after `pause_at_ms`; None to go on."""
        self.pause_at_ms = pause_at_ms
        self.changed()

    def changed(self) -> None:
        """Wake everybody who waits for the clock."""
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    def enter(self, state: State) -> None:
        """Say what the clock is doing."""
        if state != self.state:
            self.state = state
            self.changed()

    async def permission(self) -> None:
        """Return when the next minute may be played."""
        while not self.may_play:
            self.enter("ended" if self.ended else "paused")
            await self._changed.wait()

    async def reach(self, time_ms: int) -> None:
        """Let the time pass until `time_ms`, at the pace that is set."""
        self._due = max(self._due, self._wall() - self._catch_up_s)
        self._target = time_ms
        while self.speed is not None:
            due = self._due + (time_ms - self._now) / 1000 / self.speed
            event = self._changed
            try:
                await asyncio.wait_for(event.wait(), max(0.0, due - self._wall()))
            except TimeoutError:
                self._due = due
                break
        self._now, self._target = time_ms, None

    def played(self) -> None:
        """The next minute has been played and taken by every consumer."""
        self.minute += MINUTE_MS
        self.changed()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is looked at whenever the clock changes. A failed clock raises."""
        while not condition():
            if self.state in ("failed", "stopped"):
                raise SimulationFailed(f"the simulated clock has {self.state}")
            await self._changed.wait()


def _checked(speed: float | None) -> float | None:
    if speed is not None and not 0 < speed < float("inf"):
        raise SimulationFailed(f"speed {speed:g} is not a positive number of simulated seconds per second")
    return speed
