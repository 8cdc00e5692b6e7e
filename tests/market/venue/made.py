"""What the tests of the venue's core share: two symbols, an account with money, and short ways to say things."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from market.simulator.exchange_info import symbol_info
from market.simulator.venue.accounts import Account
from market.simulator.venue.engine import Parameters, State, Venue
from market.simulator.venue.margin import Quote
from market.simulator.venue.orders import Order, OrderRequest
from market.simulator.venue.placing import place
from market.simulator.venue.rules import SymbolRules

D = Decimal
BTC, XRP = "BTCUSDT", "XRPUSDT"
RULES = {
    BTC: SymbolRules.of(symbol_info(BTC, 50_000.0, 1, 0, "TRADING")),
    XRP: SymbolRules.of(symbol_info(XRP, 2.0, 4, 0, "TRADING")),
}


def quote(last: Any, mark: Any = None) -> Quote:
    return Quote(D(str(last)), D(str(last if mark is None else mark)))


def venue_at(btc: Any = 50_000, xrp: Any = 2, cash: int = 100_000, **parameters: Any) -> tuple[Venue, Account]:
    """A venue whose books are checked at every step, and one account."""
    state = State(now_ms=1_000_000, quotes={BTC: quote(btc), XRP: quote(xrp)})
    venue = Venue(RULES, state, Parameters(check=True, **parameters))
    account = venue.open_account("key", "secret")
    venue.deposit(account, D(cash))
    venue.take_events()
    return venue, account


def request(side: str, type_: str, quantity: Any = None, symbol: str = BTC, **more: Any) -> OrderRequest:
    """An order request; numbers may be given as they are written."""
    for name in ("price", "trigger_price", "activate_price", "callback_rate"):
        if name in more:
            more[name] = D(str(more[name]))
    if type_ == "LIMIT":
        more.setdefault("time_in_force", "GTC")
    amount = None if quantity is None else D(str(quantity))
    return OrderRequest(symbol=symbol, side=side, type=type_, quantity=amount, **more)  # type: ignore[arg-type]


def order(venue: Venue, account: Account, side: str, type_: str, quantity: Any, **more: Any) -> Order:
    """Place an order; as it is after what happened at once."""
    return place(venue, account, request(side, type_, quantity, **more))[1]


def move(venue: Venue, last: Any, mark: Any = None, *, symbol: str = BTC, ms: int = 1000) -> None:
    """Let the price of a symbol go to `last` within `ms`."""
    venue.advance(venue.now_ms + ms, {symbol: quote(last, mark)})


def kinds(venue: Venue) -> list[str]:
    """What has been told since the last time, shortly: `ORDER_TRADE_UPDATE:TRADE`, `ALGO_UPDATE:TRIGGERED`, …"""
    found = []
    for event in venue.take_events():
        body = event.body
        detail = {"ORDER_TRADE_UPDATE": "x", "ALGO_UPDATE": "X"}.get(body["e"])
        name = body["o"][detail] if detail else body["a"]["m"] if body["e"] == "ACCOUNT_UPDATE" else ""
        found.append(f"{body['e']}:{name}".rstrip(":"))
    return found
