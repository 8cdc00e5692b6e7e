"""The venue's time, told by a local clock that only goes forward.

Each answer of `GET /fapi/v1/time` bounds the offset between the two clocks: the venue read its clock after the request
was sent and before the answer came. The offset lies in the intersection of the newest samples' bounds, so a slow
answer costs nothing as long as another was quick. A local clock that jumps (wall time that is set) must not be used;
one that stands while the machine sleeps is found out by -1021, after which the samples are thrown away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from market.binance.errors import BinanceError

SAMPLES = 5
"""How many answers one synchronisation asks for."""
KEPT = 2 * SAMPLES
FRESH_MS = 300_000.0
"""After this long the venue is asked again."""
DRIFT = 1e-4
"""How fast the clocks may run apart: quartz keeps to 50 ppm, twice that is allowed, which is 30 ms in `FRESH_MS`."""
STALE_MS = 2 * FRESH_MS
"""Samples older than this are forgotten."""
ROUNDING_MS = 1.0
"""The venue tells whole milliseconds, cut off."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: the local clock before and after, and the venue's time, all in ms."""

    sent_ms: float
    received_ms: float
    venue_ms: int

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which offsets the truth lies."""
        return self.venue_ms - self.received_ms, self.venue_ms + ROUNDING_MS - self.sent_ms


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to the local clock for the venue's time, and by how much that can be wrong at most, ms."""

    offset_ms: float
    error_ms: float


def estimate(samples: list[Sample]) -> Offset:
    """The offset that all samples agree on, the newest last; where one does not fit those after it, it is left out.

    >>> estimate([Sample(0, 100, 1050), Sample(200, 210, 1203)])
    Offset(offset_ms=998.5, error_ms=5.5)
    """
    newest = samples[-1]
    low, high = newest.bounds
    for sample in reversed(samples[:-1]):
        drift = DRIFT * (newest.received_ms - sample.received_ms)
        first, last = sample.bounds[0] - drift, sample.bounds[1] + drift
        if max(low, first) <= min(high, last):
            low, high = max(low, first), min(high, last)
    return Offset((low + high) / 2, (high - low) / 2)


class ServerClock:
    """The venue's time, from samples that are kept fresh.

    Parameters
    ----------
    ask: asks the venue for its time, ms UTC; what it raises, `sync` raises.
    local_ms: a monotonic clock, ms.
    """

    def __init__(self, ask: Callable[[], Awaitable[int]], local_ms: Callable[[], float]) -> None:
        self._ask = ask
        self._local_ms = local_ms
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._lock = asyncio.Lock()
        self._generation = 0

    @property
    def offset(self) -> Offset | None:
        """The estimate in use; None before the first answer."""
        return estimate(list(self._samples)) if self._samples else None

    @property
    def generation(self) -> int:
        """How many synchronisations have been done: tells a caller whether somebody else has done one meanwhile."""
        return self._generation

    async def now_ms(self) -> int:
        """The venue's time, asked for first when that is due."""
        await self.refresh()
        return self.told_ms()

    def told_ms(self) -> int:
        """The venue's time by the samples there are; there must have been one."""
        return int(self._local_ms() + estimate(list(self._samples)).offset_ms)

    async def refresh(self) -> None:
        """Ask the venue when the newest sample is no longer fresh.

        When it cannot be asked, the old samples serve: a drift of some ms must not hold up an exit.
        """
        if not self._samples or self._local_ms() - self._samples[-1].received_ms > FRESH_MS:
            try:
                await self.sync(self._generation)
            except BinanceError:
                if not self._samples:
                    raise

    async def sync(self, seen: int, *, discard: bool = False) -> None:
        """Take new samples, unless a synchronisation later than `seen` was done: one is enough for all who wait.

        `discard` throws the old samples away first: they have been shown to be wrong.
        """
        async with self._lock:
            if self._generation > seen:
                return
            taken: list[Sample] = []
            for _ in range(SAMPLES):
                sent = self._local_ms()
                venue = await self._ask()
                taken.append(Sample(sent, self._local_ms(), venue))
            now = taken[-1].received_ms
            kept = [] if discard else [sample for sample in self._samples if now - sample.received_ms <= STALE_MS]
            self._samples = deque([*kept, *taken], maxlen=KEPT)
            self._generation += 1
