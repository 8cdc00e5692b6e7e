"""The venue in simulated time: prices of the tape's bars move it, what happens goes to its accounts' streams.

The last price goes through a minute's corners (see `prices`): open, the extreme against the bar's direction, the
other extreme, close, in straight lines and on the symbol's grid. From one minute to the next it jumps. Mark and last
price are the same unless a distance between them is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from market.bars import MINUTE_MS
from market.simulator.delistings import Delistings
from market.simulator.exchange_info import symbol_info
from market.simulator.forced_orders import ForcedOrders
from market.simulator.tape import Chunk, Listing
from market.simulator.venue.engine import Parameters, State, Venue
from market.simulator.venue.events import UserEvent
from market.simulator.venue.margin import Quote
from market.simulator.venue.motion import Motion
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.rules import SymbolRules, rounded
from market.simulator.venue.settlement import settle_delisted

CORNER_MS = MINUTE_MS // 3
HELD_STEP_MS = 1_000
"""With positions, margin is looked at every second."""

Corners = tuple[Decimal, Decimal, Decimal, Decimal]


@dataclass(frozen=True)
class AccountSpec:
    """An account to open: API key, secret (or Ed25519 public key) and its money in USDT."""

    key: str
    secret: str
    usdt: Decimal

    @classmethod
    def parse(cls, text: str) -> AccountSpec:
        """From KEY:SECRET:USDT; `ValueError` says what is wrong.

        >>> AccountSpec.parse("key:secret:1000").usdt
        Decimal('1000')
        """
        parts = text.split(":")
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"an account is KEY:SECRET:USDT, not one with {len(parts)} parts")
        try:
            return cls(parts[0], parts[1], Decimal(parts[2]))
        except ArithmeticError:
            raise ValueError(f"the money of account {parts[0]} is not a number: {parts[2]!r}") from None


class Trading:
    """The venue, moved along the bars that play.

    Parameters
    ----------
    listings: the symbols, in the order of the chunks' columns.
    now_ms: where the time begins.
    accounts: opened with their money, unless the state has them already.
    state: where to go on from.
    check: prove after every step that the books add up.
    deliver: takes the user events as they happen. deliver_forced: takes messages of the liquidation streams.
    """

    def __init__(
        self,
        listings: Mapping[str, Listing],
        now_ms: int,
        accounts: tuple[AccountSpec, ...],
        deliver: Callable[[list[UserEvent]], None],
        deliver_forced: Callable[[dict[str, list[bytes]]], None] | None = None,
        *,
        state: State | None = None,
        check: bool = False,
    ) -> None:
        self._rows = {symbol: row for row, symbol in enumerate(listings)}
        self._listings = dict(listings)
        rules = {symbol: SymbolRules.of(_info(symbol, listing)) for symbol, listing in listings.items()}
        self.rules: Mapping[str, SymbolRules] = rules
        if state is None:
            state = State(now_ms)
        for symbol, listing in listings.items():
            price = rules[symbol].on_tick(Decimal(repr(listing.price)))
            state.quotes.setdefault(symbol, Quote(price, price))
        # A state that was kept may be older or newer than the clock that goes on from it: the clock's time counts.
        state.now_ms = now_ms
        self.venue = Venue(rules, state, Parameters(check=check))
        self.mark_distance: dict[str, Decimal] = {}
        """How far the mark price of a symbol lies from the last price, as a fraction of it."""
        self._deliver, self._deliver_forced = deliver, deliver_forced
        self._forced = ForcedOrders()
        self.delistings = Delistings(listings, self._index)
        self._chunk: Chunk | None = None
        self._corners: dict[tuple[str, int], Corners | None] = {}
        self._funded_ms = now_ms
        for spec in accounts:
            if spec.key not in state.accounts:
                self.venue.deposit(self.venue.open_account(spec.key, spec.secret), spec.usdt)
        self.venue.take_events()

    def load(self, chunk: Chunk) -> None:
        """The bars to move along from here on."""
        if chunk is not self._chunk:
            self._chunk = chunk
            self._corners.clear()

    def advance(self, now_ms: int) -> None:
        """Let the venue come to `now_ms`, and its events be delivered."""
        venue = self.venue
        while venue.now_ms < now_ms:
            interest = venue.interest()
            stop = now_ms if not interest else self._next_stop(now_ms, interest)
            venue.advance(stop, {symbol: self._quote(symbol, stop, ends=True) for symbol in interest})
            if stop % MINUTE_MS == 0:
                venue.jump({symbol: self._quote(symbol, stop) for symbol in interest})
                self._corners = {key: found for key, found in self._corners.items() if key[1] >= stop}
            self._settle_funding(stop, interest)
            self._settle_delisted(stop, interest)
        venue.closing = self.delistings.follow(now_ms)
        venue.closed |= self.delistings.ended(now_ms)
        self.flush()

    def refresh(self, symbols: tuple[str, ...]) -> None:
        """Bring the prices of symbols up to date that nobody has anything in; the others are already."""
        interest = self.venue.interest()
        for symbol in symbols:
            if symbol in self.rules and symbol not in interest:
                self.venue.state.quotes[symbol] = self._quote(symbol, self.venue.now_ms)

    def check_listed(self, symbol: str, *, trades: bool) -> None:
        """-1121 for a symbol that is not listed yet; -1122 for trading one that is no longer."""
        listing = self._listings.get(symbol)
        if listing is None or listing.start_ms > self.venue.now_ms:
            raise Refusal(-1121)
        if trades and listing.end_ms <= self.venue.now_ms:
            raise Refusal(-1122)

    def is_listed(self, symbol: str) -> bool:
        """Whether a symbol is traded now."""
        listing = self._listings[symbol]
        return listing.start_ms <= self.venue.now_ms < listing.end_ms

    def mark_apart(self, symbol: str, last: float, now_ms: int) -> Decimal | None:
        """The mark price where it is not the last price: of a symbol that leaves, or by a distance asked for."""
        mark = self.delistings.mark(symbol, now_ms)
        distance = self.mark_distance.get(symbol)
        if mark is None and distance and last == last:
            mark = rounded(Decimal(repr(last)) * (1 + distance))
        return mark

    def last(self, symbol: str) -> Quote:
        """The prices of a symbol now."""
        self.refresh((symbol,))
        return self.venue.state.quotes[symbol]

    def offer(self, symbol: str, quantity: Decimal | None) -> None:
        """Let each step of time offer so much of a symbol to all orders together; None for as much as is wanted."""
        self.venue.liquidity.pop(symbol, None)
        if quantity is not None:
            self.venue.liquidity[symbol] = quantity
        self.venue.offered = dict(self.venue.liquidity)

    def set_mark(self, symbol: str, distance: Decimal) -> None:
        """Set the mark price apart from the last price, at once."""
        self.mark_distance[symbol] = distance
        self.venue.jump({symbol: self._quote(symbol, self.venue.now_ms)})
        self.flush()

    def flush(self) -> None:
        """Deliver what has happened."""
        events = self.venue.take_events()
        if events:
            self._deliver(events)
        self._forced.add(self.venue.take_forced())
        forced = self._forced.messages(self.venue.now_ms)
        if forced and self._deliver_forced is not None:
            self._deliver_forced(forced)

    def _next_stop(self, now_ms: int, interest: set[str]) -> int:
        venue = self.venue
        step = HELD_STEP_MS if any(account.held_positions() for account in venue.state.accounts.values()) else CORNER_MS
        stop = min(now_ms, (venue.now_ms // step + 1) * step)
        for symbol in interest:
            time_ms = self._next_funding(symbol)
            if time_ms is not None and venue.now_ms < time_ms < stop:
                stop = time_ms
        return stop

    def _next_funding(self, symbol: str) -> int | None:
        if self._chunk is None:
            return None
        times = self._chunk.funding[self._rows[symbol]].times
        return next((time_ms for time_ms in times if time_ms > self._funded_ms), None)

    def _settle_funding(self, now_ms: int, interest: set[str]) -> None:
        """Fundings in (the last time, now] of symbols that somebody has something in."""
        if self._chunk is not None:
            for symbol in sorted(interest):
                found = self._chunk.funding[self._rows[symbol]]
                for time_ms, rate in zip(found.times, found.rates, strict=True):
                    if self._funded_ms < time_ms <= now_ms:
                        self.venue.settle_funding(symbol, Decimal(repr(rate)))
        self._funded_ms = now_ms

    def _settle_delisted(self, now_ms: int, interest: set[str]) -> None:
        """Close what accounts have in symbols that have come to their end."""
        for symbol in sorted(interest & self.delistings.ends.keys()):
            if self.delistings.ends[symbol] <= now_ms:
                price = self.delistings.mark(symbol, now_ms) or self.venue.market.mark(symbol)
                settle_delisted(self.venue, symbol, price)

    def _quote(self, symbol: str, time_ms: int, *, ends: bool = False) -> Quote:
        """Prices at a time. At the end of a minute: its close when it `ends`, else the next minute's open."""
        last = self._price(symbol, time_ms, ends=ends)
        if last is None:
            last = self.venue.state.quotes[symbol].last
        mark = self.delistings.mark(symbol, time_ms)
        if mark is None:
            mark = rounded(last * (1 + self.mark_distance.get(symbol, Decimal(0))))
        return Quote(last, mark)

    def _price(self, symbol: str, time_ms: int, *, ends: bool) -> Decimal | None:
        """The last price on its way through a minute; None where there is no bar."""
        minute = (time_ms - 1 if ends else time_ms) // MINUTE_MS * MINUTE_MS
        corners = self._corners_of(symbol, minute)
        if corners is None:
            return None
        leg = min(2, (time_ms - minute) // CORNER_MS)
        start = minute + leg * CORNER_MS
        ends_at = [Quote(price, price) for price in corners[leg : leg + 2]]
        motion = Motion(start, ends_at[0], start + CORNER_MS, ends_at[1])
        return motion.at(time_ms, self.rules[symbol]).last

    def _index(self, symbol: str, time_ms: int) -> Decimal | None:
        """The index price is the last price."""
        return self._price(symbol, time_ms, ends=True)

    def _corners_of(self, symbol: str, minute: int) -> Corners | None:
        key = (symbol, minute)
        if key not in self._corners:
            self._corners[key] = self._read_corners(symbol, minute)
        return self._corners[key]

    def _read_corners(self, symbol: str, minute: int) -> Corners | None:
        chunk, row = self._chunk, self._rows[symbol]
        if chunk is None or not chunk.start_ms <= minute < chunk.end_ms:
            return None
        index = (minute - chunk.start_ms) // MINUTE_MS
        if not chunk.present[index, row]:
            return None
        bar, rules = chunk.bars[index, row], self.rules[symbol]
        opened, high, low, close = (rules.on_tick(Decimal(repr(float(bar[name])))) for name in _PRICES)
        return (opened, low, high, close) if close >= opened else (opened, high, low, close)


_PRICES = ("open", "high", "low", "close")


def _info(symbol: str, listing: Listing) -> dict[str, Any]:
    return symbol_info(symbol, listing.price, listing.price_decimals, listing.start_ms, "TRADING")
