"""Prices on their way, and what happens next on it: the discrete events of a continuous path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import ROUND_CEILING, Decimal
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from market.simulator.venue import algo as algos
from market.simulator.venue import execution
from market.simulator.venue.margin import Quote
from market.simulator.venue.orders import AlgoOrder
from market.simulator.venue.rules import SymbolRules, rounded

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)


class Motion(Struct, frozen=True):
    """The straight way of a symbol's prices from one time to another."""

    start_ms: int
    start: Quote
    end_ms: int
    end: Quote

    def at(self, time_ms: int, rules: SymbolRules) -> Quote:
        """The prices on the way; the last price lies on the symbol's grid."""
        if time_ms >= self.end_ms:
            return self.end
        if time_ms <= self.start_ms:
            return self.start
        part = Decimal(time_ms - self.start_ms) / (self.end_ms - self.start_ms)
        last = self.start.last + (self.end.last - self.start.last) * part
        mark = self.start.mark + (self.end.mark - self.start.mark) * part
        return Quote(rules.on_tick(last), rounded(mark))


class Action(NamedTuple):
    """Something that happens by itself. Those of one time happen in order of rank, then of identity."""

    time_ms: int
    rank: int
    identity: int
    run: Callable[[], None]


COUNTDOWN, CHILD, TRIGGER, FILL = range(4)


def reach_ms(now_ms: int, now: Decimal, end_ms: int, end: Decimal, level: Decimal, rises: bool) -> int | None:
    """When a price that goes from `now` to `end` is first at or beyond `level`; None if it is not on this way.

    >>> reach_ms(0, Decimal(100), 1000, Decimal(90), Decimal(95), rises=False)
    500
    """
    if (now >= level) if rises else (now <= level):
        return now_ms
    if not ((end >= level) if rises else (end <= level)):
        return None
    part = (level - now) / (end - now) * (end_ms - now_ms)
    return min(end_ms, now_ms + int(part.to_integral_value(ROUND_CEILING)))


def next_action(venue: Venue, until_ms: int) -> Action | None:
    """The first thing to happen until `until_ms` at the latest, or None."""
    due = (action for action in _actions(venue, until_ms) if action.time_ms <= until_ms)
    return min(due, key=lambda action: action[:3], default=None)


def _actions(venue: Venue, until_ms: int) -> Iterator[Action]:
    now = venue.now_ms
    for account in venue.state.accounts.values():
        for symbol, due_ms in account.countdowns.items():
            yield Action(max(now, due_ms), COUNTDOWN, 0, partial(execution.count_down, venue, account, symbol))
        for algo in account.open_algos.values():
            if algo.status == "TRIGGERING":
                yield Action(max(now, algo.due_ms), CHILD, algo.id, partial(algos.spawn, venue, account, algo))
            elif algo.waiting and (time_ms := _trigger_ms(venue, algo, until_ms)) is not None:
                yield Action(time_ms, TRIGGER, algo.id, partial(algos.reached, venue, account, algo))
        for order in account.open_orders.values():
            quote = venue.state.quotes[order.symbol]
            end = _end(venue, order.symbol, quote)
            if venue.offered.get(order.symbol, order.remaining) <= 0:
                continue
            fill_ms = reach_ms(now, quote.last, until_ms, end.last, order.price, rises=order.sign < 0)
            if fill_ms is not None:
                yield Action(fill_ms, FILL, order.id, partial(execution.fill_resting, venue, account, order))


def _end(venue: Venue, symbol: str, quote: Quote) -> Quote:
    motion = venue.motions.get(symbol)
    return quote if motion is None else motion.end


def _trigger_ms(venue: Venue, algo: AlgoOrder, until_ms: int) -> int | None:
    """When the price next reaches what a conditional order waits for, unless the gap between prices forbids it."""
    quote = venue.state.quotes[algo.symbol]
    end = _end(venue, algo.symbol, quote)
    by_mark = algo.working_type == "MARK_PRICE"
    now, then = (quote.mark, end.mark) if by_mark else (quote.last, end.last)
    level, rises = algos.awaited(algo)
    time_ms = reach_ms(venue.now_ms, now, until_ms, then, level, rises)
    if time_ms is None or not algo.price_protect:
        return time_ms
    # Where the prices are too far apart when the level is reached, they may have met by the end of the way.
    for moment in (time_ms, until_ms):
        if _agree(venue, algo.symbol, moment):
            return moment
    return None


def _agree(venue: Venue, symbol: str, time_ms: int) -> bool:
    """Whether last and mark price are near enough for a protected conditional order to trigger."""
    rules, motion = venue.market.rules[symbol], venue.motions.get(symbol)
    there = venue.state.quotes[symbol] if motion is None else motion.at(time_ms, rules)
    return abs(there.last - there.mark) <= rules.trigger_protect * there.mark
