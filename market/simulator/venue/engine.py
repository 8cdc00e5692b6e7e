"""The venue: its state, the passing of time along given prices, and everything that may be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct, field

from market.errors import MarketError
from market.simulator.venue import algo, books, execution, liquidation
from market.simulator.venue.accounts import Account
from market.simulator.venue.books import Books
from market.simulator.venue.events import UserEvent, account_update
from market.simulator.venue.margin import Market, Quote
from market.simulator.venue.motion import Motion, next_action
from market.simulator.venue.orders import Income, Order
from market.simulator.venue.positions import Position
from market.simulator.venue.rules import SymbolRules, rounded

ZERO = Decimal(0)
FIRST_ALGO_ID = 1_000_000_000_000_001


class VenueError(MarketError):
    """The core was used wrongly, by the simulator itself or by a test: time ran backwards, a price was missing."""


class Parameters(Struct, frozen=True):
    """How the venue behaves where the venue's documentation leaves it open."""

    algo_lag_ms: int = 20
    """From the trigger of a conditional order to the arrival of its child at the engine."""
    margin_call_ratio: Decimal = Decimal("0.8")
    """Share of the margin balance that maintenance margin may take before MARGIN_CALL is sent."""
    check: bool = False
    """Whether the books are checked after every step."""


class State(Struct):
    """All that the venue is, besides its rules: kept across a restart."""

    now_ms: int
    quotes: dict[str, Quote] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    last_order: int = 0
    last_algo: int = FIRST_ALGO_ID - 1
    last_trade: int = 0
    last_income: int = 0


class Venue:
    """Accounts and a matching engine against prices that are given to it.

    A price moves in a straight line between two calls of `advance`: everything that lies between is traded through,
    in order of time. An order fills at its limit when the price reaches it, a market order at the price of its moment.

    Parameters
    ----------
    rules: by symbol.
    state: where to go on from.
    parameters: what is left open by the protocol.

    Examples
    --------
    >>> venue = Venue({}, State(now_ms=0))
    >>> venue.deposit(venue.open_account("key", "secret"), Decimal(100))
    >>> venue.state.accounts["key"].wallet
    Decimal('100')
    """

    def __init__(self, rules: Mapping[str, SymbolRules], state: State, parameters: Parameters | None = None) -> None:
        self.state = state
        self.parameters = parameters or Parameters()
        self.market = Market(rules, state.quotes)
        self.liquidity: dict[str, Decimal] = {}
        """Quantity of a symbol that each step offers to all orders together; unlimited where there is none."""
        self.closing: set[str] = set()
        """Symbols whose end is near: positions may be closed in them, none opened."""
        self.closed: set[str] = set()
        """Symbols that are no longer traded."""
        self.stuck_algos = 0
        """How many of the conditional orders that trigger next never turn into an order."""
        self.offered: dict[str, Decimal] = {}
        self.motions: dict[str, Motion] = {}
        self._events: list[UserEvent] = []
        self._forced: list[Order] = []

    @property
    def now_ms(self) -> int:
        """The venue's time."""
        return self.state.now_ms

    def open_account(self, key: str, secret: str) -> Account:
        """A new account without money, in one-way mode and cross margin."""
        if key in self.state.accounts:
            raise VenueError(f"there is an account {key!r} already")
        self.state.accounts[key] = Account(key, secret)
        return self.state.accounts[key]

    def deposit(self, account: Account, amount: Decimal) -> None:
        """Bring money in (or out, when negative)."""
        account.totals.deposits += amount
        self.state.books.deposits += amount
        self.book(account, "TRANSFER", amount)
        kind = "DEPOSIT" if amount >= 0 else "WITHDRAW"
        self.emit(account_update(account, kind, (), amount, self.market, self.now_ms))

    def book(self, account: Account, kind: str, amount: Decimal, symbol: str = "", trade_id: int = 0) -> None:
        """Change a wallet, with its record. The other side of the change is booked by the caller."""
        self.state.last_income += 1
        account.wallet += amount
        account.totals.income += amount
        account.income.append(Income(self.state.last_income, kind, amount, self.now_ms, symbol, trade_id))

    def emit(self, event: UserEvent) -> None:
        """Add an event to those that are to be sent."""
        self._events.append(event)

    def take_events(self) -> list[UserEvent]:
        """What has happened since the last call, in order."""
        found, self._events = self._events, []
        return found

    def tell_forced(self, order: Order) -> None:
        """Add a liquidation order to those that the public is told of."""
        self._forced.append(msgspec.structs.replace(order))

    def take_forced(self) -> list[Order]:
        """Liquidation orders since the last call, in order."""
        found, self._forced = self._forced, []
        return found

    def interest(self) -> set[str]:
        """Symbols whose prices matter to some account."""
        return set().union(*(account.active_symbols() for account in self.state.accounts.values()))

    def jump(self, quotes: Mapping[str, Quote]) -> None:
        """Set prices at once: what lies between the old and the new ones is not traded, stops trigger beyond."""
        self.state.quotes.update(quotes)
        self.advance(self.now_ms, {})

    def advance(self, until_ms: int, targets: Mapping[str, Quote]) -> None:
        """Let time pass to `until_ms` while prices move in straight lines to `targets`.

        Prices of other symbols stand still. Raises `VenueError` when time would run backwards.
        """
        if until_ms < self.now_ms:
            raise VenueError(f"time runs backwards, from {self.now_ms} to {until_ms}")
        quotes = self.state.quotes
        if until_ms == self.now_ms:
            quotes.update(targets)
            targets = {}
        self.motions = {
            symbol: Motion(self.now_ms, quotes.get(symbol, target), until_ms, target)
            for symbol, target in targets.items()
        }
        self.offered = dict(self.liquidity)
        execution.expire_hopeless(self)
        while (action := next_action(self, until_ms)) is not None:
            self._move_to(action.time_ms)
            action.run()
            self.check()
        self._move_to(until_ms)
        self.motions = {}
        liquidation.settle(self)
        self.check()

    def settle_funding(self, symbol: str, rate: Decimal) -> None:
        """Longs pay `rate` of their notional at the mark price to shorts, or receive it when it is negative."""
        for account in self.state.accounts.values():
            for position in account.held_positions():
                if position.symbol == symbol:
                    self._fund(account, position, rate)
        liquidation.settle(self)
        self.check()

    def _fund(self, account: Account, position: Position, rate: Decimal) -> None:
        amount = rounded(-position.notional(self.market.mark(position.symbol)) * rate)
        account.totals.funding += amount
        self.state.books.market_cash -= amount
        self.book(account, "FUNDING_FEE", amount, position.symbol)
        isolated = account.is_isolated(position.symbol)
        if isolated:
            # What the position's margin cannot pay comes out of the rest of the wallet.
            part = max(amount, -position.isolated_wallet)
            position.isolated_wallet += part
            account.totals.margin_of(position).funded += part
        changed = (position,) if isolated else ()
        self.emit(account_update(account, "FUNDING_FEE", changed, amount, self.market, self.now_ms))

    def check(self) -> None:
        """Raise `books.BooksBroken` if something does not add up, where that is asked for."""
        if self.parameters.check:
            books.check(self.state.accounts.values(), self.state.books)

    def _move_to(self, time_ms: int) -> None:
        self.state.now_ms = time_ms
        for symbol, motion in self.motions.items():
            self.state.quotes[symbol] = motion.at(time_ms, self.market.rules[symbol])
        algo.follow(self)
