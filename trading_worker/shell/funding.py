"""What is known of funding at each wave, from settled fundings alone: by the same rule as in history."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.decision import funding_known
from market.bars import MINUTE_MS
from market.errors import MarketError
from market.funding import FUNDING, Fundings, between, empty

HOUR_MS = 60 * MINUTE_MS
"""The venue charges at whole hours only, whatever a symbol's interval."""
LONGEST_MS = 8 * HOUR_MS
"""The venue's longest interval: how far back a question goes, so that what was settled late is found."""
AT_ONCE = 8
RETRY_MS = 5 * MINUTE_MS
"""How long after an hour settled rates that have not appeared are asked for."""

Fetch = Callable[[str, int, int], Awaitable[Fundings]]
"""Fundings of a symbol charged in [start, end); a `MarketError` when the venue cannot be asked."""


@dataclass(frozen=True, slots=True, eq=False)
class FundingNow:
    """For one wave, per symbol: the last rate known, when the next is due, what is charged now (NaN: nothing).

    `late` are (row, time, rate) of what was charged in an earlier minute and was not known then, in order of time.
    """

    rate: NDArray[np.float64]
    next_ms: NDArray[np.int64]
    charged: NDArray[np.float64]
    late: tuple[tuple[int, int, float], ...]


class FundingBook:
    """Fundings of all symbols as the waves go by.

    A funding is charged at the wave of its minute; of one that the venue settles late the first wave after it is known
    is told, with its time. `start_ms`: close time of the last wave that the engine has had; what was charged by then is
    past. An engine that goes on from a snapshot brings the `charged_until` of that time, by symbol: a funding before it
    that was not known then is still to be charged.

    Parameters
    ----------
    symbols: the engine's.
    fetch: asks REST.
    """

    def __init__(
        self, symbols: Sequence[str], fetch: Fetch, start_ms: int, charged_until: Sequence[int] | None = None
    ) -> None:
        self._symbols = tuple(symbols)
        self._fetch = fetch
        self._fundings: list[Fundings] = [empty() for _ in symbols]
        known = [start_ms] * len(self._symbols) if charged_until is None else charged_until
        self._charged_until = np.array(known, dtype=np.int64)
        self._rate = np.full(len(self._symbols), np.nan)
        self._next_ms = np.full(len(self._symbols), -1, dtype=np.int64)
        self._valid_until = -1
        self._asked_until = _settled_hour(start_ms)
        self._awaited: tuple[int, list[int]] = (-1, [])
        self.failure: str | None = None
        """Why the last question to REST failed, None when it did not."""

    @property
    def charged_until(self) -> tuple[int, ...]:
        """Per symbol, the time of the last funding that was charged, or where this began."""
        return tuple(self._charged_until.tolist())

    def add(self, fundings: dict[str, Fundings]) -> None:
        """Take fundings from a store, such as the lake."""
        for row, symbol in enumerate(self._symbols):
            if symbol in fundings:
                self._merge(row, fundings[symbol])

    async def load(self, start_ms: int, end_ms: int) -> None:
        """Fetch what was charged in [start_ms, end_ms); a `MarketError` when that is not possible."""
        await self._fetch_all(start_ms, end_ms)
        self._asked_until = max(self._asked_until, _settled_hour(end_ms))

    async def before(self, time_ms: int) -> FundingNow:
        """What the wave that closes at `time_ms` is told; asks REST first where a whole hour has passed."""
        hour_ms = (time_ms + 1) // HOUR_MS * HOUR_MS
        if hour_ms > self._asked_until and time_ms > hour_ms:
            await self._refresh(hour_ms, time_ms)
        return self.at(time_ms)

    def at(self, time_ms: int) -> FundingNow:
        """The same, from what is here. Called once for each wave, in order."""
        if time_ms >= self._valid_until:
            self._look_up(time_ms)
        charged = np.full(len(self._symbols), np.nan)
        late: list[tuple[int, int, float]] = []
        for row, fundings in enumerate(self._fundings):
            if self._last_ms(row) > self._charged_until[row]:
                for due in between(fundings, int(self._charged_until[row]) + 1, time_ms + 1):
                    self._charged_until[row] = due["funding_time"]
                    if due["funding_time"] > time_ms - MINUTE_MS:
                        charged[row] = due["funding_rate"]
                    else:
                        late.append((row, int(due["funding_time"]), float(due["funding_rate"])))
        late.sort(key=lambda each: (each[1], each[0]))
        return FundingNow(self._rate.copy(), self._next_ms.copy(), charged, tuple(late))

    async def _refresh(self, hour_ms: int, time_ms: int) -> None:
        """Ask for the fundings of a whole hour; again every minute while some that were due have not appeared."""
        if self._awaited[0] != hour_ms:
            # Due by what was known before the hour; afterwards a funding that did not come is passed over.
            self._look_up(hour_ms - 1)
            self._valid_until = -1
            due = np.flatnonzero((self._next_ms >= 0) & (self._next_ms <= time_ms))
            self._awaited = hour_ms, due.tolist()
        self.failure = None
        try:
            await self._fetch_all(hour_ms - LONGEST_MS, time_ms + 1)
        except MarketError as error:
            self.failure = f"fundings cannot be fetched: {error}"
        settled = all(self._last_ms(row) >= hour_ms for row in self._awaited[1])
        if (settled and self.failure is None) or time_ms >= hour_ms + RETRY_MS:
            self._asked_until = hour_ms

    async def _fetch_all(self, start_ms: int, end_ms: int) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(row: int, symbol: str) -> None:
            async with gate:
                self._merge(row, await self._fetch(symbol, start_ms, end_ms))

        await asyncio.gather(*(one(row, symbol) for row, symbol in enumerate(self._symbols)))

    def _last_ms(self, row: int) -> int:
        fundings = self._fundings[row]
        return int(fundings["funding_time"][-1]) if fundings.size else -1

    def _merge(self, row: int, fundings: Fundings) -> None:
        known = self._fundings[row]
        new = fundings[~np.isin(fundings["funding_time"], known["funding_time"])]
        if new.size:
            merged = np.concatenate([known, new]).astype(FUNDING)
            self._fundings[row] = merged[np.argsort(merged["funding_time"], kind="stable")]
            self._valid_until = -1

    def _look_up(self, time_ms: int) -> None:
        """Refill rates and next times; they hold until the earliest of the next times."""
        valid = time_ms + HOUR_MS
        for row, fundings in enumerate(self._fundings):
            known = funding_known(fundings, time_ms)
            self._rate[row], self._next_ms[row] = known.rate[0], known.next_ms[0]
            later = fundings["funding_time"][fundings["funding_time"] > time_ms]
            if later.size:
                valid = min(valid, int(later[0]))
            if self._next_ms[row] > 0:
                valid = min(valid, int(self._next_ms[row]))
        self._valid_until = valid


def _settled_hour(time_ms: int) -> int:
    """The last whole hour of which all is surely known at `time_ms`."""
    return (time_ms - RETRY_MS) // HOUR_MS * HOUR_MS
