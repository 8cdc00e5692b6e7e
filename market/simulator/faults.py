"""Faults on demand: what may be asked to go wrong, and the closed bars that do."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from msgspec import Struct

from market.bars import Bars
from market.simulator.rest_faults import RestFault
from market.simulator.stream_faults import StreamFault

Key = tuple[str, int]
"""Symbol and open time of a 1m bar."""


class BarName(Struct, frozen=True):
    """One 1m bar."""

    symbol: str
    open_time: int


class Corruption(Struct, frozen=True):
    """One 1m bar whose closed message is spoilt; `kind` is one of `KINDS`."""

    symbol: str
    open_time: int
    kind: str = "high_below_low"


class FaultRequest(Struct, forbid_unknown_fields=True):
    """The body of `POST /simulator/faults`. Everything adds to what is pending.

    drop_closed: the closed message is never sent; REST has the bar.
    withhold: never sent, and REST does not have the bar either.
    duplicate_closed: sent twice.
    late_closed: sent a minute late, after the next one, and after nothing else.
    revise_closed: sent as it is, and a minute later again with another close and volume.
    corrupt: the closed message is spoilt, see `KINDS`.
    rest: REST requests go wrong, see `rest_faults.KINDS`.
    stream: messages or connections of streams go wrong, see `stream_faults.KINDS`.
    disconnect: all stream connections are cut now, without a closing handshake.
    restart: connections are cut, and none is taken for so many seconds of the wall clock; the state stays.
    expire_listen_keys: every listen key dies now, and is told so.
    skew_ms: the venue's clock is so far from its simulated time.
    liquidity: by symbol, the quantity that each step of time offers; null for as much as is wanted.
    mark: by symbol, how far the mark price lies from the last price, as a fraction of it.
    algo_lag_ms: how long a conditional order takes from its trigger to its child.
    stuck_algos: so many of those that trigger next stay TRIGGERING for ever.
    used_weight: the request weight that the asking IP has used in this minute.
    clear: forget what is pending, first.
    """

    drop_closed: list[BarName] = []
    withhold: list[BarName] = []
    duplicate_closed: list[BarName] = []
    late_closed: list[BarName] = []
    revise_closed: list[BarName] = []
    corrupt: list[Corruption] = []
    rest: list[RestFault] = []
    stream: list[StreamFault] = []
    disconnect: bool = False
    restart: float | None = None
    expire_listen_keys: bool = False
    skew_ms: int | None = None
    liquidity: dict[str, Decimal | None] = {}
    mark: dict[str, Decimal] = {}
    algo_lag_ms: int | None = None
    stuck_algos: int = 0
    used_weight: int | None = None
    clear: bool = False


KINDS: dict[str, str] = {
    "high_below_low": "high and low swapped, and moved apart if they were equal",
    "nan": "the close is NaN",
    "negative_volume": "the volume is negative",
    "zero_price": "the low is zero",
    "unknown_symbol": "the symbol is NOSUCHUSDT",
    "garbage": "the message is cut in half",
}
"""What `Corruption.kind` may be."""


class Faults:
    """What is pending. A fault is used up by its bar; `done` counts them by name.

    From the first request on (`asked`) the clock waits for consumers within its minutes too, not only after each.
    """

    def __init__(self) -> None:
        self.asked = False
        self.dropped: set[Key] = set()
        self.withheld: set[Key] = set()
        self.duplicated: set[Key] = set()
        self.late: set[Key] = set()
        self.revised: set[Key] = set()
        self.corrupted: dict[Key, str] = {}
        self.done: dict[str, int] = {}

    def add(self, request: FaultRequest) -> None:
        """Take a request in; `ValueError` for an unknown kind of corruption."""
        for item in request.corrupt:
            if item.kind not in KINDS:
                raise ValueError(f"unknown corruption {item.kind!r}: use one of {', '.join(KINDS)}")
        self.asked = True
        if request.clear:
            for pending in (self.dropped, self.withheld, self.duplicated, self.late, self.revised, self.corrupted):
                pending.clear()
        self.dropped |= _keys(request.drop_closed)
        self.withheld |= _keys(request.withhold)
        self.duplicated |= _keys(request.duplicate_closed)
        self.late |= _keys(request.late_closed)
        self.revised |= _keys(request.revise_closed)
        self.corrupted.update({(item.symbol, item.open_time): item.kind for item in request.corrupt})

    @property
    def pending(self) -> int:
        """How many bars will still go wrong on the stream."""
        sets = (self.dropped, self.withheld, self.duplicated, self.late, self.revised)
        return sum(map(len, sets)) + len(self.corrupted)

    def use(self, name: str, pending: set[Key], key: Key) -> bool:
        """Whether `key` is pending; then it is used up and counted."""
        if key not in pending:
            return False
        pending.discard(key)
        self.count(name)
        return True

    def count(self, name: str) -> None:
        """One more fault of that name has happened."""
        self.done[name] = self.done.get(name, 0) + 1

    def visible(self, symbol: str, bars: Bars) -> Bars:
        """1m `bars` of REST without those that are withheld."""
        if not self.withheld:
            return bars
        keep = [(symbol, open_time) not in self.withheld for open_time in bars["open_time"].tolist()]
        visible: Bars = bars[np.array(keep, dtype=bool)]
        return visible


def _keys(names: list[BarName]) -> set[Key]:
    return {(name.symbol, name.open_time) for name in names}


def spoil(bar: Bars, kind: str) -> Bars:
    """A copy of one bar with the numbers wrong in the way `kind` says; kinds that are not about numbers change none."""
    bad = bar.copy()
    if kind == "high_below_low":
        bad["high"], bad["low"] = bar["low"] * 0.999, bar["high"] * 1.001
    elif kind == "nan":
        bad["close"] = np.nan
    elif kind == "negative_volume":
        bad["volume"] = -1.0 - bar["volume"]
    elif kind == "zero_price":
        bad["low"] = 0.0
    return bad


def revise(bar: Bars) -> Bars:
    """A copy of one bar as a venue might restate it: closed in the middle of its range, with a tenth more volume."""
    other = bar.copy()
    other["close"] = bar["low"] + (bar["high"] - bar["low"]) / 2
    other["volume"] = bar["volume"] * 1.1 + 1.0
    return other
