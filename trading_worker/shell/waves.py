"""Minute waves: which closed bars go to the engine together, in which order, and when to stop waiting.

Pure: no clock, no network. Bars are offered as they come, time is what messages of the venue say, and the
same bars give the same waves in whatever order they arrived.

The rules
- The wave of a minute is complete when every series that is waited for has its bar. Waves leave in order of
  time, none is skipped: a minute without any bar leaves as an empty wave when it is overdue.
- A wave is *overdue* when the venue's time is `deadline_ms` past its close. The caller then asks REST for the
  absent bars once and cuts the wave; the absentees are named in it.
- A *late* bar (its wave has left without it) is held, and leaves immediately before the series' next bar, as
  `Minute.late`: features stay continuous, and since the moment depends only on who was present in which
  wave, a restart that knows the waves' composition repeats it exactly. Nothing is decided on a late bar.
- A series that was absent `patience` waves running is not waited for any more (a delisted symbol must not
  hold up the others for seconds every minute), except once every `retry_every` waves. Its next bar ends that.
- Within a series bars leave exactly once and ascending. `missing` names the minutes to fetch before a bar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, MINUTE_MS, Bars
from trading_worker.wave import MinuteBars

ASK_AT_MOST = 2
REMEMBERED = 8
"""Bars of each series that are remembered after they have left, to tell a repetition from a revision."""
NEVER = -1
"""`fed` of a series of which no bar was ever delivered: nothing before its first bar is missing."""


class Offer(Enum):
    """What became of an offered bar."""

    WAVE = "its wave is still open"
    LATE = "its wave has left: held for the series' next bar"
    REPEATED = "it repeats a bar that is already here"
    REVISED = "it repeats a bar that is already here, with other numbers"
    OLDER = "it is older than the last bar"
    OFF_GRID = "it is not one whole UTC minute"


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


@dataclass(frozen=True, slots=True)
class Overdue:
    """Rows whose bars with open time in [start_ms, end_ms) should have been here, and for which REST was not asked."""

    rows: tuple[int, ...]
    start_ms: int
    end_ms: int


@dataclass(slots=True)
class _Series:
    """What is known of one series."""

    fed: int
    absent_waves: int = 0
    recent: dict[int, np.void] = field(default_factory=dict)
    held: dict[int, np.void] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)

    def leave(self, time_ms: int, bar: np.void) -> None:
        """Its bar of the wave at `time_ms` leaves, and with it all that was held."""
        self.recent.update(self.held)
        self.recent[time_ms] = bar
        for close in sorted(self.recent)[:-REMEMBERED]:
            del self.recent[close]
        self.held.clear()
        self.asked.clear()
        self.fed, self.absent_waves = time_ms, 0


def gather(time_ms: int, found: Iterable[tuple[int, np.void]]) -> MinuteBars:
    """Rows with their bars as one `MinuteBars`, ascending in row."""
    ordered = sorted(found, key=lambda pair: pair[0])
    bars = np.empty(len(ordered), dtype=BAR)
    for index, (_, bar) in enumerate(ordered):
        bars[index] = bar
    return MinuteBars(time_ms, np.array([row for row, _ in ordered], dtype=np.int64), bars)


def _same(one: np.void, other: np.void) -> bool:
    """Whether two bars carry the same bits (NaN equals itself here)."""
    return one.tobytes() == other.tobytes()


class WaveAssembler:
    """Puts the bars of `len(fed)` series together into waves.

    Parameters
    ----------
    wave_ms: close time of the last wave that the engine has had; the next is one minute later.
    fed: per series, close time of its last bar that the engine has had, or `NEVER`.
    deadline_ms: how far past a wave's close the venue's time may go before the wave is overdue.
    patience: after how many absences in a row a series is not waited for.
    retry_every: at every how-many-th absence such a series is waited for once more.

    >>> from market.bars import from_columns
    >>> one = [1.0]
    >>> bar = from_columns(dict(open_time=[60_000], open=one, high=one, low=one, close=one, volume=one))[0]
    >>> waves = WaveAssembler(59_999, [59_999, 59_999])
    >>> waves.offer(1, bar).name, waves.ready(), waves.offer(0, bar).name
    ('WAVE', None, 'WAVE')
    >>> waves.ready().rows
    array([0, 1])
    """

    def __init__(
        self,
        wave_ms: int,
        fed: Iterable[int],
        *,
        deadline_ms: int = 5_000,
        patience: int = 3,
        retry_every: int = 15,
    ) -> None:
        self.wave_ms = wave_ms
        self.deadline_ms = deadline_ms
        self._patience = patience
        self._retry_every = retry_every
        self._series = [_Series(int(time_ms)) for time_ms in fed]
        self._pending: dict[int, dict[int, np.void]] = {}
        self._waited = self._rows_waited()

    @property
    def next_ms(self) -> int:
        """Close time of the wave that leaves next."""
        return self.wave_ms + MINUTE_MS

    @property
    def fed(self) -> tuple[int, ...]:
        """Per series, close time of the last bar that has left."""
        return tuple(series.fed for series in self._series)

    def missing(self, row: int, open_time: int) -> tuple[int, int] | None:
        """Open times [start, end) to fetch before the bar of `row` that opens at `open_time` is offered, or None."""
        series = self._series[row]
        if series.fed == NEVER:
            return None
        first = last = None
        for close in range(series.fed + MINUTE_MS, open_time, MINUTE_MS):
            if series.asked[close] >= ASK_AT_MOST or self.known(row, close) is not None:
                continue
            first = close if first is None else first
            last = close
        return None if first is None or last is None else (first - MINUTE_MS + 1, last + 1)

    def asked(self, row: int, start_ms: int, end_ms: int) -> None:
        """Note that REST has answered for [start_ms, end_ms) of `row`, and its bars were offered.

        What it did not have is asked for once more before the series' next bar, and then given up.
        """
        series = self._series[row]
        for close in range(max(start_ms + MINUTE_MS - 1, series.fed + MINUTE_MS), end_ms, MINUTE_MS):
            if self.known(row, close) is None:
                series.asked[close] += 1

    def known(self, row: int, close: int) -> np.void | None:
        """The bar of `row` that closes at `close`, if it waits or left not long ago."""
        series = self._series[row]
        for bars in (series.recent, series.held):
            if close in bars:
                return bars[close]
        return self._pending.get(close, {}).get(row)

    def offer(self, row: int, bar: np.void) -> Offer:
        """Take one closed bar of series `row`; what it answers other than `WAVE` and `LATE` was not taken."""
        series, close = self._series[row], int(bar["close_time"])
        if (close + 1) % MINUTE_MS or int(bar["open_time"]) != close - MINUTE_MS + 1:
            return Offer.OFF_GRID
        known = self.known(row, close)
        if known is not None:
            return Offer.REPEATED if _same(known, bar) else Offer.REVISED
        if close <= series.fed:
            return Offer.REPEATED if close == series.fed else Offer.OLDER
        if close <= self.wave_ms:
            series.held[close] = bar
            return Offer.LATE
        self._pending.setdefault(close, {})[row] = bar
        return Offer.WAVE

    def ready(self) -> Minute | None:
        """The next wave if it is complete; it has then left."""
        present = self._pending.get(self.next_ms)
        if not present or len(present) < len(self._waited) or any(row not in present for row in self._waited):
            return None
        return self.cut()

    def overdue(self, venue_ms: int) -> Overdue | None:
        """What to ask REST for, when the venue's time says that the next wave should have left."""
        if venue_ms < self.next_ms + self.deadline_ms:
            return None
        present = self._pending.get(self.next_ms, {})
        rows = tuple(row for row in self._waited if row not in present and not self._series[row].asked[self.next_ms])
        end_ms = (venue_ms - self.deadline_ms) // MINUTE_MS * MINUTE_MS
        return Overdue(rows, self.next_ms - MINUTE_MS + 1, max(end_ms, self.next_ms + 1))

    def cut(self) -> Minute:
        """The next wave as it stands, absentees named; it has then left."""
        time_ms = self.next_ms
        present = self._pending.pop(time_ms, {})
        late: dict[int, list[tuple[int, np.void]]] = {}
        absent: list[int] = []
        for row, series in enumerate(self._series):
            bar = present.get(row)
            if bar is None:
                series.absent_waves += 1
                absent.append(row)
                continue
            for close, held in series.held.items():
                late.setdefault(close, []).append((row, held))
            series.leave(time_ms, bar)
        self.wave_ms = time_ms
        self._waited = self._rows_waited()
        now = gather(time_ms, present.items())
        return Minute(
            time_ms,
            now.rows,
            now.bars,
            absent=np.array(absent, dtype=np.int64),
            late=tuple(gather(close, late[close]) for close in sorted(late)),
        )

    def _rows_waited(self) -> list[int]:
        """The rows that the next wave waits for."""
        return [
            row
            for row, series in enumerate(self._series)
            if series.absent_waves < self._patience or (series.absent_waves + 1) % self._retry_every == 0
        ]
