"""What happens to orders that the engine has taken: fills, expiry, cancellation."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from market.simulator.venue.accounts import Account
from market.simulator.venue.endings import end_algo
from market.simulator.venue.events import account_update, order_update, trade_lite
from market.simulator.venue.orders import GTE_UNSATISFIED, REDUCE_ONLY_OUT, Order, Status, Trade
from market.simulator.venue.positions import Position
from market.simulator.venue.rules import rounded

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue

ZERO = Decimal(0)


def offered(venue: Venue, symbol: str, wanted: Decimal) -> Decimal:
    """How much of `wanted` the market offers in this step."""
    return min(wanted, venue.offered.get(symbol, wanted))


def fill(
    venue: Venue,
    account: Account,
    order: Order,
    quantity: Decimal,
    price: Decimal,
    *,
    maker: bool,
    forced: bool = False,
) -> Trade:
    """Execute `quantity` of an order at `price`; `forced`: by liquidation, which charges its own fee."""
    now, state = venue.now_ms, venue.state
    position = account.position(order.symbol, order.position_side)
    before, margin = position.quantity, position.isolated_wallet
    signed = order.sign * quantity
    profit, freed = position.trade(signed, price)
    flows = account.totals.margin_of(position)
    if forced and margin and position.quantity:
        # A liquidation frees no margin: it all stays behind what is left of the position.
        position.isolated_wallet = margin + profit
        flows.liquidated += profit
    else:
        flows.freed += freed
    position.updated_ms = now
    if account.is_isolated(order.symbol):
        opened = abs(position.quantity) if before * position.quantity <= 0 else abs(position.quantity) - abs(before)
        if opened > 0:
            margin = rounded(opened * price / account.settings_of(order.symbol).leverage)
            position.isolated_wallet += margin
            flows.set_aside += margin
    rate = ZERO if forced else account.maker_fee if maker else account.taker_fee
    commission = rounded(quantity * price * rate)
    state.last_trade += 1
    trade = Trade(
        *(state.last_trade, order.id, order.symbol, order.side, order.position_side, price, quantity),
        *(profit, commission, maker, now),
    )
    _book_trade(venue, account, trade, signed)
    order.executed += quantity
    order.quote += quantity * price
    order.updated_ms = now
    order.status = "FILLED" if order.remaining == 0 else "PARTIALLY_FILLED"
    if order.symbol in venue.offered:
        venue.offered[order.symbol] -= quantity
    venue.emit(trade_lite(account, order, trade, now))
    venue.emit(account_update(account, "ORDER", (position,), ZERO, venue.market, now))
    venue.emit(order_update(account, order, "CALCULATED" if forced else "TRADE", now, trade))
    if not order.working:
        finish(venue, account, order)
    _after_change(venue, account, position)
    return trade


def _book_trade(venue: Venue, account: Account, trade: Trade, signed: Decimal) -> None:
    """The fill in the account's record and on the other side."""
    books, key = venue.state.books, f"{trade.symbol}|{trade.position_side}"
    account.trades.append(trade)
    account.held[key] = account.held.get(key, ZERO) + signed
    account.totals.traded += signed * trade.price
    books.trade(trade.symbol, signed, trade.price)
    if trade.realized:
        venue.book(account, "REALIZED_PNL", trade.realized, trade.symbol, trade.id)
    if trade.commission:
        account.totals.commission += trade.commission
        books.fees += trade.commission
        venue.book(account, "COMMISSION", -trade.commission, trade.symbol, trade.id)


def fill_resting(venue: Venue, account: Account, order: Order) -> None:
    """The price has come to a resting order: as much of it as the market offers is filled, at its limit."""
    quantity = offered(venue, order.symbol, order.remaining)
    if order.only_closes:
        position = account.position(order.symbol, order.position_side)
        quantity = min(quantity, abs(position.quantity))
    fill(venue, account, order, quantity, order.price, maker=True)


def can_close(account: Account, order: Order) -> bool:
    """Whether there is something for a reduce-only or closing order to close."""
    return account.position(order.symbol, order.position_side).quantity * order.sign < 0


def expire_hopeless(venue: Venue) -> None:
    """Expire orders that only close where nothing is left to close."""
    for account in venue.state.accounts.values():
        for order in list(account.open_orders.values()):
            if order.only_closes and not can_close(account, order):
                expire(venue, account, order, REDUCE_ONLY_OUT)


def _after_change(venue: Venue, account: Account, position: Position) -> None:
    """A position has changed: orders that live by it may have to go."""
    for order in list(account.open_orders.values()):
        same = (order.symbol, order.position_side) == (position.symbol, position.side)
        if same and order.only_closes and not can_close(account, order):
            expire(venue, account, order, REDUCE_ONLY_OUT)
    for algo in list(account.open_algos.values()):
        same = (algo.symbol, algo.position_side) == (position.symbol, position.side)
        if same and algo.waiting and algo.time_in_force == "GTE_GTC" and position.quantity * algo.sign >= 0:
            end_algo(venue, account, algo, "EXPIRED", f"GTE unsatisfied ({GTE_UNSATISFIED})")


def expire(venue: Venue, account: Account, order: Order, reason: int) -> None:
    """End an order, or what is left of it, by the venue's own rules."""
    order.expiry_reason = reason
    _end(venue, account, order, "EXPIRED")


def cancel(venue: Venue, account: Account, order: Order) -> None:
    """End an order because its owner says so."""
    _end(venue, account, order, "CANCELED")


def _end(venue: Venue, account: Account, order: Order, status: Status) -> None:
    order.status, order.updated_ms = status, venue.now_ms
    venue.emit(order_update(account, order, status, venue.now_ms))
    finish(venue, account, order)


def finish(venue: Venue, account: Account, order: Order) -> None:
    """An order has come to its end: it goes to the past, and so does the conditional order it came from."""
    account.open_orders.pop(order.id, None)
    account.past_orders[order.id] = order
    algo = account.open_algos.get(order.algo_id)
    if algo is not None and algo.status == "TRIGGERED":
        end_algo(venue, account, algo, "FINISHED")


def cancel_all(venue: Venue, account: Account, symbol: str) -> None:
    """Cancel the open orders of a symbol; conditional orders stay."""
    for order in [order for order in account.open_orders.values() if order.symbol == symbol]:
        cancel(venue, account, order)


def count_down(venue: Venue, account: Account, symbol: str) -> None:
    """A countdown has run out."""
    del account.countdowns[symbol]
    cancel_all(venue, account, symbol)
