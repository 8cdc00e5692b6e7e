"""Virtual positions: signals followed as if they had been taken, in arrays.

How a position ends is decided by `features.barriers.advance` on closed 1m bars, the same kernel that labels history.
What price updates between bars say is kept beside it and never decides anything: a restart loses it, bars are kept.

A slot is free when its outcome is not OPEN. Freed slots are used again; the arrays grow by doubling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.barriers import EXPIRY, OPEN, POSITION, STOP, TARGET, UNKNOWN, VOID, CostModel, advance, lose_silent
from features.labels import position_id
from market.bars import MINUTE_MS, Bars
from market.kernels_cache import compiler
from trading_worker.events import AnyEvent, PositionClosed, PositionLost, PositionOpened, PositionVoided, Signal

njit = compiler("market", "features", "trading_worker")

DETAIL = np.dtype(
    [
        ("kind", "u1"),
        ("strategy", "<i4"),  # these three: numbers of `VirtualPositions.names`
        ("bundle", "<i4"),
        ("decision_spec", "<i4"),
        ("costs", "<i4"),  # number of `VirtualPositions.cost_models`
        ("confidence", "<f8"),
        ("quality", "<f8"),
        ("ticks", "<i8"),  # price updates seen; BROKEN when a restart interrupted them
        ("tick_outcome", "i1"),  # TARGET or STOP, whichever a price update touched first; OPEN for neither
        ("tick_time", "<i8"),
        ("tick_high", "<f8"),
        ("tick_low", "<f8"),
    ]
)
"""What is kept beside a `POSITION`: where its signal came from, and what price updates said."""

BROKEN = -1
"""`ticks` of a position that a restart carried over."""

FIRST_CAPACITY = 256


class Key(NamedTuple):
    """What names a position; in this order its events are journaled."""

    row: int
    decided_at: int
    direction: int


@dataclass(frozen=True, slots=True)
class Table:
    """All waiting and open positions: `position` and `detail` run in step, ordered by key."""

    position: NDArray[np.void]
    detail: NDArray[np.void]
    names: tuple[str, ...]
    costs: tuple[CostModel, ...]


@njit
def _on_prices(
    positions: NDArray[np.void],
    details: NDArray[np.void],
    order: NDArray[np.int64],
    first: NDArray[np.int64],
    time_ms: int,
    rows: NDArray[np.int64],
    prices: NDArray[np.float64],
) -> None:
    """Show each price to the positions of its symbol: slots `order[first[row]:first[row + 1]]`."""
    for i in range(rows.size):
        price = prices[i]
        for at in range(first[rows[i]], first[rows[i] + 1]):
            slot = order[at]
            position, detail = positions[slot], details[slot]
            if detail.ticks == BROKEN or detail.tick_outcome != OPEN or time_ms <= position.decided_at:
                continue
            detail.ticks += 1
            detail.tick_high = max(detail.tick_high, price)
            detail.tick_low = min(detail.tick_low, price)
            if position.direction * (price - position.stop) <= 0.0:
                detail.tick_outcome = STOP
                detail.tick_time = time_ms
            elif position.direction * (price - position.target) >= 0.0:
                detail.tick_outcome = TARGET
                detail.tick_time = time_ms


class VirtualPositions:
    """Waiting and open positions of `symbols`, advanced minute by minute.

    Parameters
    ----------
    symbols
        Names by row.
    costs
        Fee, spread and slippage of every position that is added from now on; may be replaced between waves. What is
        followed already keeps its own, to its end.
    grace_ms
        A position is given up this long after its expiry when its symbol has sent no bar since.
    """

    def __init__(self, symbols: Sequence[str], costs: CostModel, grace_ms: int = 3_600_000) -> None:
        self.symbols = tuple(symbols)
        self.costs = costs
        self.grace_ms = grace_ms
        self.names: list[str] = []
        self.cost_models: list[CostModel] = []
        self.open_count = np.zeros((len(self.symbols), 2), dtype=np.int64)
        """int64[S, 2]: waiting and open positions of each symbol, long and short."""
        self._row = {symbol: row for row, symbol in enumerate(self.symbols)}
        self._slots: dict[Key, int] = {}
        self._free: list[int] = []
        self._position = self._blank(FIRST_CAPACITY)
        self._detail = np.zeros(FIRST_CAPACITY, dtype=DETAIL)
        self._used = 0
        self._bar_of = np.full(len(self.symbols), -1, dtype=np.int64)
        self._by_symbol: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    @staticmethod
    def _blank(capacity: int) -> NDArray[np.void]:
        positions = np.zeros(capacity, dtype=POSITION)
        positions["outcome"] = VOID
        return positions

    def __len__(self) -> int:
        """How many wait or are open."""
        return len(self._slots)

    def __contains__(self, key: Key) -> bool:
        return key in self._slots

    def key(self, symbol: str, decided_at: int, direction: int) -> Key:
        """The key of a position named by its symbol."""
        return Key(self._row[symbol], decided_at, direction)

    def ids(self) -> list[str]:
        """The `position_id` of all that wait or are open, in no order."""
        return [position_id(self.symbols[key.row], key.decided_at, key.direction) for key in self._slots]

    def add(self, signal: Signal) -> None:
        """Follow a signal: it waits for the open of its symbol's next minute."""
        key = self.key(signal.symbol, signal.time_ms, signal.direction)
        if key in self._slots:
            raise ValueError(f"position {signal.position_id} is followed already")
        slot = self._take_slot()
        position = self._position[slot : slot + 1]
        position[:] = np.zeros(1, dtype=POSITION)
        position["symbol"], position["direction"], position["decided_at"] = key.row, key.direction, key.decided_at
        position["last_time"], position["expiry_ms"] = key.decided_at, signal.expiry_ms
        position["stop"], position["target"], position["r"] = signal.stop, signal.target, np.nan
        detail = self._detail[slot : slot + 1]
        detail[:] = np.zeros(1, dtype=DETAIL)
        detail["kind"], detail["confidence"], detail["quality"] = signal.kind, signal.confidence, signal.quality
        detail["strategy"], detail["bundle"] = self._number(signal.strategy), self._number(signal.bundle)
        detail["decision_spec"] = self._number(signal.decision_spec)
        if self.costs not in self.cost_models:
            self.cost_models.append(self.costs)
        detail["costs"] = self.cost_models.index(self.costs)
        detail["tick_high"], detail["tick_low"] = -np.inf, np.inf
        self._enlist(key, slot)

    def _enlist(self, key: Key, slot: int) -> None:
        self._slots[key] = slot
        self.open_count[key.row, int(key.direction < 0)] += 1
        self._by_symbol = None

    def remove(self, key: Key) -> None:
        """Stop following a position; one that is not followed is none to remove."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        self._position["outcome"][slot] = VOID
        self._free.append(slot)
        self.open_count[key.row, int(key.direction < 0)] -= 1
        self._by_symbol = None

    def _take_slot(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used == self._position.size:
            self._position = np.concatenate([self._position, self._blank(self._position.size)])
            self._detail = np.concatenate([self._detail, np.zeros_like(self._detail)])
        self._used += 1
        return self._used - 1

    def _number(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def advance(
        self, time_ms: int, rows: NDArray[np.int64], bars: Bars, funding_rate: NDArray[np.float64]
    ) -> list[AnyEvent]:
        """One minute's bars: entries, stops, targets, expiries. Events in order of `Key`.

        `rows` int64[k] are the symbols of `bars` BAR[k], each at most once; `funding_rate` float64[S] is what was
        charged in this minute, NaN for none.
        """
        if not self._slots:
            return []
        self._bar_of.fill(-1)
        self._bar_of[rows] = np.arange(rows.size)
        positions = self._position[: self._used]
        followed = positions["outcome"] == OPEN
        waited = followed & (positions["opened_at"] == 0)
        self._advance(positions, followed, bars, funding_rate)
        entered = np.flatnonzero(waited & (positions["opened_at"] != 0))
        ended = np.flatnonzero(followed & (positions["outcome"] != OPEN))
        if not entered.size and not ended.size:
            return []
        return self._events(time_ms, set(entered.tolist()), set(ended.tolist()), bars)

    def _advance(
        self, positions: NDArray[np.void], followed: NDArray[np.bool_], bars: Bars, funding_rate: NDArray[np.float64]
    ) -> None:
        """The kernel once for each cost model that is in use: seldom more than one, and then after a swap."""
        if len(self.cost_models) == 1:
            advance(positions, self._bar_of, bars, funding_rate, self.cost_models[0])
            return
        number = self._detail["costs"][: self._used]
        for at in np.unique(number[followed]):
            slots = np.flatnonzero(followed & (number == at))
            part = positions[slots]
            advance(part, self._bar_of, bars, funding_rate, self.cost_models[at])
            positions[slots] = part

    def charge(self, row: int, minute_ms: int, amount: float) -> None:
        """Charge a funding that became known late: `amount` per unit, to what was held when `minute_ms` began.

        As on time, a position that was entered at that minute's open is not charged.
        """
        positions = self._position[: self._used]
        held = (positions["outcome"] == OPEN) & (positions["symbol"] == row)
        held &= (positions["opened_at"] != 0) & (positions["opened_at"] < minute_ms)
        positions["funding"][held] += positions["direction"][held] * amount

    def lose_silent(self, time_ms: int) -> list[AnyEvent]:
        """Give up positions whose symbol went silent and whose expiry is long past. Events in order of `Key`."""
        if not self._slots:
            return []
        lost = lose_silent(self._position[: self._used], time_ms, self.grace_ms)
        return self._events(time_ms, set(), set(lost.tolist()), None)

    def _events(self, time_ms: int, entered: set[int], ended: set[int], bars: Bars | None) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        for key, slot in self._in_order(entered | ended):
            if slot in entered:
                events.append(self._opened(time_ms, key, slot))
            if slot in ended:
                at = self._bar_of[key.row]
                bar_open = float(bars["open"][at]) if bars is not None and at >= 0 else 0.0
                events.append(self._ended(time_ms, key, slot, bar_open))
                self.remove(key)
        return events

    def _in_order(self, slots: Iterable[int]) -> list[tuple[Key, int]]:
        position = self._position
        return sorted(
            (Key(int(position["symbol"][s]), int(position["decided_at"][s]), int(position["direction"][s])), s)
            for s in slots
        )

    def _name(self, key: Key) -> dict[str, Any]:
        symbol = self.symbols[key.row]
        return {
            "position_id": position_id(symbol, key.decided_at, key.direction),
            "symbol": symbol,
            "direction": key.direction,
            "decided_at": key.decided_at,
        }

    def _opened(self, time_ms: int, key: Key, slot: int) -> PositionOpened:
        position = self._position[slot]
        return PositionOpened(
            time_ms=time_ms,
            **self._name(key),
            opened_at=int(position["opened_at"]),
            expiry_ms=int(position["expiry_ms"]),
            **_numbers(position, ("entry", "stop", "target", "risk")),
        )

    def _ended(self, time_ms: int, key: Key, slot: int, bar_open: float) -> AnyEvent:
        position, detail = self._position[slot], self._detail[slot]
        bundle = self.names[detail["bundle"]]
        outcome = int(position["outcome"])
        if outcome == VOID:
            return PositionVoided(
                time_ms=time_ms,
                **self._name(key),
                kind=int(detail["kind"]),
                open=bar_open,
                stop=float(position["stop"]),
                target=float(position["target"]),
                bundle=bundle,
            )
        if outcome == UNKNOWN:
            return PositionLost(
                time_ms=time_ms,
                **self._name(key),
                opened_at=int(position["opened_at"]),
                kind=int(detail["kind"]),
                last_seen=int(position["last_time"]),
                bundle=bundle,
            )
        return PositionClosed(
            time_ms=time_ms,
            **self._name(key),
            opened_at=int(position["opened_at"]),
            known_at=int(position["exit_time"]),
            kind=int(detail["kind"]),
            outcome=outcome,
            **_numbers(position, ("entry", "stop", "target", "exit_price", "r", "best", "worst", "funding")),
            quality=float(detail["quality"]),
            confidence=float(detail["confidence"]),
            strategy=self.names[detail["strategy"]],
            bundle=bundle,
            decision_spec=self.names[detail["decision_spec"]],
            **_ticks(position, detail),
        )

    def on_prices(self, time_ms: int, rows: NDArray[np.int64], prices: NDArray[np.float64]) -> None:
        """Note last trade prices at `time_ms`: `rows` int64[k] with `prices` float64[k], in order of arrival."""
        if not self._slots:
            return
        order, first = self._index()
        _on_prices(self._position, self._detail, order, first, time_ms, rows, prices)

    def _index(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Followed slots by symbol, and where each symbol's begin: made anew only after a change."""
        if self._by_symbol is None:
            slots = np.fromiter(self._slots.values(), dtype=np.int64, count=len(self._slots))
            symbol = self._position["symbol"][slots]
            by = np.argsort(symbol, kind="stable")
            first = np.searchsorted(symbol[by], np.arange(len(self.symbols) + 1)).astype(np.int64)
            self._by_symbol = slots[by], first
        return self._by_symbol

    def table(self) -> Table:
        """A copy of all waiting and open positions, for snapshots and the status page."""
        slots = np.array([slot for _, slot in sorted(self._slots.items())], dtype=np.int64)
        return Table(self._position[slots], self._detail[slots], tuple(self.names), tuple(self.cost_models))

    def load(self, table: Table) -> None:
        """Follow exactly the positions of `table`. What ticks said of them is lost: it was not seen without a break."""
        for key in list(self._slots):
            self.remove(key)
        self.names, self.cost_models = list(table.names), list(table.costs)
        for index in range(table.position.size):
            self._load_one(table, index)
        self._detail["ticks"] = BROKEN

    def _load_one(self, table: Table, index: int) -> int:
        position = table.position[index]
        key = Key(int(position["symbol"]), int(position["decided_at"]), int(position["direction"]))
        self.remove(key)
        slot = self._take_slot()
        self._position[slot] = position
        self._detail[slot] = table.detail[index]
        self._enlist(key, slot)
        return slot

    def reinstate(self, table: Table, key: Key, seen_ms: int) -> None:
        """Follow one position as it stands in `table`, in place of what is known of it now, as if it had seen the
        minute that closed at `seen_ms` without an event. A position that the table lacks is left alone."""
        mine = (table.position["symbol"] == key.row) & (table.position["decided_at"] == key.decided_at)
        for index in np.flatnonzero(mine & (table.position["direction"] == key.direction)):
            self._position["last_time"][self._load_one(table, int(index))] = seen_ms

    def adopt(self, event: PositionOpened) -> None:
        """Take an entry as journaled, where the bars that are read now would give another."""
        slot = self._slots.get(self.key(event.symbol, event.decided_at, event.direction))
        if slot is None:
            return
        for name in ("opened_at", "expiry_ms", "entry", "stop", "target", "risk"):
            self._position[name][slot] = getattr(event, name)
        self._position["last_time"][slot] = event.opened_at + MINUTE_MS - 1


def _numbers(position: np.void, names: Sequence[str]) -> dict[str, Any]:
    return {name: float(position[name]) for name in names}


def _ticks(position: np.void, detail: np.void) -> dict[str, Any]:
    """The `ticks_*` fields of a closed position; empty when the ticks were not seen throughout."""
    if detail["ticks"] <= 0:
        return {}
    # A closed bar reaches us seconds after its close: what was touched since then was touched too late.
    touched = detail["tick_outcome"] != OPEN and detail["tick_time"] <= position["exit_time"]
    side, entry, risk = float(position["direction"]), float(position["entry"]), float(position["risk"])
    high, low = side * (float(detail["tick_high"]) - entry) / risk, side * (float(detail["tick_low"]) - entry) / risk
    outcome = int(detail["tick_outcome"]) if touched else OPEN
    return {
        "ticks_outcome": outcome,
        "ticks_touched_at": int(detail["tick_time"]) if touched else None,
        "ticks_best": max(high, low),
        "ticks_worst": min(high, low),
        "ticks_disagree": (outcome if touched else EXPIRY) != int(position["outcome"]),
    }
