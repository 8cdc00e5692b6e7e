"""Minute waves: which closed bars go to the engine together, in which order, and when to stop waiting.

Pure: no clock, no network. Bars are taken as the feed delivers them, each once and in order in its series; time is
what messages of the venue say, and the same bars give the same waves in whatever order the series were delivered.

The rules
- The wave of a minute is complete when every series that is waited for has its bar. Waves leave in order of
  time, none is skipped: a minute without any bar leaves as an empty wave when it is overdue.
- A wave is *overdue* when the venue's time is `deadline_ms` past its minute, by when the feed asks REST for what is
  absent. The caller then decides how long to wait for that, and cuts the wave; the absentees are named in it.
- A *late* bar (its wave has left without it) is held, and leaves immediately before the series' next bar, as
  `Minute.late`: features stay continuous, and since the moment depends only on who was present in which
  wave, a restart that knows the waves' composition repeats it exactly. Nothing is decided on a late bar.
- A series that was absent `patience` waves running is not waited for any more: a delisted symbol must not
  hold up the others for seconds every minute. Its next bar ends that, a late one too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, MINUTE_MS, Bars
from trading_worker.wave import MinuteBars

NEVER = -1
"""For a series of which no bar was ever delivered."""


@dataclass(frozen=True, slots=True, eq=False)
class Minute:
    """One wave before it is given funding: its bars, and late bars to be fed first.

    `rows` int64[k] ascending and `bars` BAR[k] closed at `time_ms` (ms UTC); `absent` int64 are the rows without;
    `late` ascends in time.
    """

    time_ms: int
    rows: NDArray[np.int64]
    bars: Bars
    absent: NDArray[np.int64]
    late: tuple[MinuteBars, ...] = ()


class _Pending:
    """The bars of one minute as they come, each in its row."""

    __slots__ = ("bars", "present")

    def __init__(self, series: int) -> None:
        self.bars = np.empty(series, dtype=BAR)
        self.present = np.zeros(series, dtype=np.bool_)

    def gathered(self, time_ms: int) -> MinuteBars:
        """What is here, ascending in row; not copied when it is everything."""
        rows = np.flatnonzero(self.present)
        return MinuteBars(time_ms, rows, self.bars if rows.size == self.present.size else self.bars[rows])


class WaveAssembler:
    """Puts the bars of `len(taken)` series together into waves.

    Parameters
    ----------
    wave_ms: close time of the last wave that the engine has had; the next is one minute later.
    taken: per series, close time of its last bar that the engine has had, or `NEVER`.
    deadline_ms: how far past a wave's minute the venue's time may go before the wave is overdue.
    patience: after how many absences in a row a series is not waited for.

    >>> from market.bars import from_columns
    >>> one = [1.0]
    >>> bar = from_columns(dict(open_time=[60_000], open=one, high=one, low=one, close=one, volume=one))[0]
    >>> waves = WaveAssembler(59_999, [59_999, 59_999])
    >>> waves.take(1, bar), waves.ready(), waves.take(0, bar)
    (None, None, None)
    >>> waves.ready().rows
    array([0, 1])
    """

    def __init__(self, wave_ms: int, taken: Iterable[int], *, deadline_ms: int = 5_000, patience: int = 3) -> None:
        self.wave_ms = wave_ms
        self.deadline_ms = deadline_ms
        self._patience = patience
        self._taken = [int(time_ms) for time_ms in taken]
        self._held: list[dict[int, np.void]] = [{} for _ in self._taken]
        self._absences = np.zeros(len(self._taken), dtype=np.int64)
        self._pending: dict[int, _Pending] = {}
        self._waited = np.ones(len(self._taken), dtype=np.bool_)
        self._lacking = len(self._taken)

    @property
    def next_ms(self) -> int:
        """Close time of the wave that leaves next."""
        return self.wave_ms + MINUTE_MS

    @property
    def complete(self) -> bool:
        """Whether the next wave has all that it waits for, and anything at all."""
        return not self._lacking and self.next_ms in self._pending

    def next_open(self, row: int) -> int:
        """The open time of the bar that a series lacks first; of one that never had any, that of the next wave."""
        return self.wave_ms + 1 if self._taken[row] == NEVER else self._taken[row] + 1

    def take(self, row: int, bar: np.void) -> None:
        """Take the next closed bar of series `row`, later than any of it before."""
        close = int(bar["close_time"])
        self._taken[row] = close
        if close <= self.wave_ms:
            self._held[row][close] = bar
            self._absences[row] = 0
            return
        pending = self._pending.get(close)
        if pending is None:
            pending = self._pending[close] = _Pending(len(self._taken))
        pending.bars[row] = bar
        pending.present[row] = True
        if close == self.next_ms and self._waited[row]:
            self._lacking -= 1

    def ready(self) -> Minute | None:
        """The next wave if it is complete; it has then left."""
        return self.cut() if self.complete else None

    def overdue(self, venue_ms: int) -> bool:
        """Whether the venue's time says that the next wave should have left."""
        return venue_ms > self.next_ms + self.deadline_ms

    def lacking(self) -> list[int]:
        """The rows that the next wave waits for."""
        pending = self._pending.get(self.next_ms)
        lacking = self._waited if pending is None else self._waited & ~pending.present
        found: list[int] = np.flatnonzero(lacking).tolist()
        return found

    def cut(self) -> Minute:
        """The next wave as it stands, absentees named; it has then left."""
        time_ms = self.next_ms
        pending = self._pending.pop(time_ms, None) or _Pending(len(self._taken))
        now = pending.gathered(time_ms)
        self._absences += 1
        self._absences[now.rows] = 0
        self.wave_ms = time_ms
        self._waited = self._absences < self._patience
        self._lacking = len(self.lacking())
        return Minute(
            time_ms, now.rows, now.bars, absent=np.flatnonzero(~pending.present), late=self._late(pending.present)
        )

    def _late(self, present: NDArray[np.bool_]) -> tuple[MinuteBars, ...]:
        """What was held of series that have a bar now, by minute."""
        found: dict[int, _Pending] = {}
        for row, held in enumerate(self._held):
            if held and present[row]:
                for close, bar in held.items():
                    late = found.setdefault(close, _Pending(len(self._taken)))
                    late.bars[row], late.present[row] = bar, True
                held.clear()
        return tuple(found[close].gathered(close) for close in sorted(found))
