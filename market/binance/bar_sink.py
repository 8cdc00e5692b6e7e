"""What a bar feed hands out: bars, questions for REST, how its series stand, and where it all goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from market.binance.errors import StreamMessageInvalid
from market.binance.streams import KlineEvent
from market.errors import BarRejected

Key = tuple[str, str]
"""Symbol and interval."""


@dataclass(frozen=True, slots=True, eq=False)
class ClosedBar:
    """One bar as it is delivered. `event_time` is when the venue sent it, None from REST."""

    symbol: str
    interval: str
    bar: np.void
    event_time: int | None

    @property
    def open_time(self) -> int:
        """Its first millisecond."""
        return int(self.bar["open_time"])


@dataclass(frozen=True, slots=True)
class Question:
    """Bars of a series with open time in [start_ms, end_ms) to ask REST for."""

    symbol: str
    interval: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a series stands: times in ms of the venue, `delay_s` of its last bar from the stream (NaN before one)."""

    key: Key
    next_ms: int
    silence_ms: int
    delay_s: float
    asking: bool


@dataclass(frozen=True, slots=True)
class Silence:
    """A stream that has said nothing for too long.

    times: how often that was told since its last word. rests: REST has nothing new of the series either, so it may be
    the market that is silent and not the stream.
    """

    key: Key
    times: int
    rests: bool


class Sink(Protocol):
    """Where everything goes."""

    def closed(self, bar: ClosedBar) -> None:
        """The next bar of a series."""

    def moving(self, event: KlineEvent) -> None:
        """A bar as it stands: one that is still open, or has closed and is new, before it is delivered."""

    def revised(self, used: ClosedBar, other: np.void) -> None:
        """A bar that was delivered has come again with other numbers."""

    def absent(self, symbol: str, interval: str, start_ms: int, end_ms: int, cause: str) -> None:
        """Bars with open time in [start_ms, end_ms) that will not come."""

    def rejected(self, error: BarRejected | StreamMessageInvalid) -> None:
        """A message or bar that was refused."""
