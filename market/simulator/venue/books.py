"""The venue's own books, and the check that nothing is created or lost.

Every fill has a counterparty, the market: what an account buys the market sells. Fees go to the venue; the insurance
fund takes liquidation fees and makes up for what a liquidated account cannot pay.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct, field

from market.errors import MarketError
from market.simulator.venue.accounts import Account
from market.simulator.venue.orders import Order

ZERO = Decimal(0)


class BooksBroken(MarketError):
    """The simulated exchange has lost or created something: a fault in its own code. Names the account and the sums."""


class Books(Struct):
    """What is on the other side of the accounts. Money in USDT."""

    deposits: Decimal = ZERO
    fees: Decimal = ZERO
    insurance: Decimal = ZERO
    market_cash: Decimal = ZERO
    market_quantity: dict[str, Decimal] = field(default_factory=dict)

    def trade(self, symbol: str, signed_quantity: Decimal, price: Decimal) -> None:
        """The market's side of an account's fill."""
        self.market_quantity[symbol] = self.market_quantity.get(symbol, ZERO) - signed_quantity
        self.market_cash += signed_quantity * price


def check(accounts: Iterable[Account], books: Books) -> None:
    """Raise `BooksBroken` unless cash, margin and positions add up, exactly."""
    quantities: dict[str, Decimal] = {}
    cash = books.fees + books.insurance + books.market_cash
    for account in accounts:
        _check_account(account)
        cash += account.wallet
        for position in account.positions.values():
            cash -= position.cost
            quantities[position.symbol] = quantities.get(position.symbol, ZERO) + position.quantity
    _equal("cash of all accounts, the market, the venue and the insurance fund", cash, books.deposits)
    for symbol, quantity in quantities.items():
        _equal(
            f"positions in {symbol}, the market's included", quantity + books.market_quantity.get(symbol, ZERO), ZERO
        )


def _check_account(account: Account) -> None:
    name, totals = account.key, account.totals
    _equal(f"{name}: wallet against its income", account.wallet, totals.income)
    cost = sum((position.cost for position in account.positions.values()), ZERO)
    explained = totals.deposits - totals.traded - totals.commission + totals.funding + totals.insurance
    _equal(f"{name}: wallet less cost of positions", account.wallet - cost, explained)
    for key, position in account.positions.items():
        what = f"{name}: {key}"
        _equal(f"{what} against its fills", position.quantity, account.held.get(key, ZERO))
        _hold(f"{what}: the position mode", not position.quantity or account.hedge == (position.side != "BOTH"))
        _hold(f"{what}: a long is not short", position.side != "LONG" or position.quantity >= 0)
        _hold(f"{what}: a short is not long", position.side != "SHORT" or position.quantity <= 0)
        _hold(f"{what}: no cost without a position", bool(position.quantity) or not position.cost)
        _hold(f"{what}: isolated margin is not negative", position.isolated_wallet >= 0)
        isolated = position.quantity and account.is_isolated(position.symbol)
        _hold(f"{what}: isolated margin only where it is isolated", bool(isolated) or not position.isolated_wallet)
        flows = totals.margins.get(key)
        margin = flows.left if flows else ZERO
        _equal(f"{what}: isolated margin against what went in and out", position.isolated_wallet, margin)
    for order in account.open_orders.values():
        _hold(f"{name}: order {order.id} is open", order.working and ZERO <= order.executed < order.quantity)
    _check_fills(account, name)


def _check_fills(account: Account, name: str) -> None:
    """Orders against trades, of the orders that were traded last."""
    recent: dict[int, Decimal] = {}
    for trade in account.trades[-20:]:
        recent.setdefault(trade.order_id, ZERO)
    first = account.trades[-20].id if len(account.trades) >= 20 else 0
    for trade in account.trades[-20:]:
        recent[trade.order_id] += trade.quantity
    for identity, quantity in recent.items():
        order: Order | None = account.open_orders.get(identity) or account.past_orders.get(identity)
        _hold(f"{name}: order {identity} of a trade is known", order is not None)
        if order is not None and order.id >= first:
            _hold(f"{name}: order {identity} against its trades", quantity <= order.executed <= order.quantity)


def _equal(what: str, found: Decimal, expected: Decimal) -> None:
    if found != expected:
        raise BooksBroken(f"{what}: {found} is not {expected}")


def _hold(what: str, condition: bool) -> None:
    if not condition:
        raise BooksBroken(f"{what}: does not hold")
