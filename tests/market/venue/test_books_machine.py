"""Whatever is asked of the venue in whatever order: its books add up after every step."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from market.simulator.venue.accounts import MarginFlows
from market.simulator.venue.algo import cancel_algo, place_algo
from market.simulator.venue.books import BooksBroken, check
from market.simulator.venue.engine import State, Venue
from market.simulator.venue.execution import cancel
from market.simulator.venue.margin import cross_cover, margins
from market.simulator.venue.orders import OrderRequest
from market.simulator.venue.placing import amend, place
from market.simulator.venue.refusals import Refusal
from market.simulator.venue.settings import move_margin, set_hedge, set_leverage, set_margin_type
from market.simulator.venue.settlement import settle_delisted
from tests.market.venue.made import BTC, RULES, XRP, D, move, order, quote, venue_at

SYMBOLS = st.sampled_from((BTC, XRP))
SIDES = st.sampled_from(("BUY", "SELL"))
STEPS = st.integers(-60, 60)
"""A price as a distance from the last one, in thousandths of it."""


class Exchange(RuleBasedStateMachine):
    @initialize(hedge=st.booleans(), cash=st.integers(10, 5_000))
    def begin(self, hedge: bool, cash: int) -> None:
        self.venue, self.account = venue_at(cash=cash, algo_lag_ms=300)
        self.other = self.venue.open_account("other", "secret")
        self.venue.deposit(self.other, D(1_000))
        self.account.hedge = hedge

    def price(self, symbol: str, step: int) -> Decimal:
        last = self.venue.state.quotes[symbol].last
        return RULES[symbol].on_tick(last * (1000 + step) / 1000)

    def side_of(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(("LONG", "SHORT"))) if self.account.hedge else "BOTH"

    def quantity(self, data: st.DataObject, symbol: str) -> Decimal:
        return data.draw(st.integers(1, 60)) * (D("0.001") if symbol == BTC else D(50))

    @rule(data=st.data(), symbol=SYMBOLS, side=SIDES)
    def trade(self, data: st.DataObject, symbol: str, side: str) -> None:
        position_side, quantity = self.side_of(data), self.quantity(data, symbol)
        request = OrderRequest(symbol, side, "MARKET", position_side=position_side, quantity=quantity)  # type: ignore[arg-type]
        self.attempt(lambda: place(self.venue, self.account, request))

    @rule(data=st.data(), symbol=SYMBOLS, distance=st.integers(1, 40))
    def rest(self, data: st.DataObject, symbol: str, distance: int) -> None:
        side = data.draw(SIDES)
        price = self.price(symbol, -distance if side == "BUY" else distance)
        request = OrderRequest(
            symbol,
            side,
            "LIMIT",
            position_side=self.side_of(data),  # type: ignore[arg-type]
            time_in_force="GTX",
            quantity=self.quantity(data, symbol),
            price=price,
        )
        self.attempt(lambda: place(self.venue, self.account, request))

    @rule(data=st.data(), symbol=SYMBOLS, side=SIDES, step=STEPS, reduce=st.booleans())
    def order(self, data: st.DataObject, symbol: str, side: str, step: int, reduce: bool) -> None:
        tif = data.draw(st.sampled_from((None, "GTC", "GTC", "IOC", "FOK", "GTX")))
        request = OrderRequest(
            symbol,
            side,  # type: ignore[arg-type]
            "MARKET" if tif is None else "LIMIT",
            position_side=self.side_of(data),  # type: ignore[arg-type]
            time_in_force=tif,
            quantity=self.quantity(data, symbol),
            price=None if tif is None else self.price(symbol, step),
            reduce_only=True if reduce and not self.account.hedge else None,
        )
        account = self.account if data.draw(st.integers(0, 4)) or self.account.hedge else self.other
        self.attempt(lambda: place(self.venue, account, request))

    @rule(data=st.data(), symbol=SYMBOLS, side=SIDES, step=STEPS, close=st.booleans(), by_mark=st.booleans())
    def conditional(self, data: st.DataObject, symbol: str, side: str, step: int, close: bool, by_mark: bool) -> None:
        kind = data.draw(
            st.sampled_from(("STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"))
        )
        trails, limit = kind.startswith("TRAILING"), kind in ("STOP", "TAKE_PROFIT")
        close = close and not trails and not limit
        if step and data.draw(st.integers(0, 9)):
            # Mostly on the side where it does not trigger at once.
            rises = ((side == "BUY") != kind.startswith("TAKE_PROFIT")) != trails
            step = abs(step) if rises else -abs(step)
        request = OrderRequest(
            symbol,
            side,  # type: ignore[arg-type]
            kind,
            position_side=self.side_of(data),  # type: ignore[arg-type]
            quantity=None if close else self.quantity(data, symbol),
            close_position=close,
            trigger_price=None if trails else self.price(symbol, step),
            price=self.price(symbol, data.draw(STEPS)) if limit else None,
            callback_rate=D(data.draw(st.integers(1, 30))) / 10 if trails else None,
            activate_price=self.price(symbol, step) if trails and data.draw(st.booleans()) else None,
            working_type="MARK_PRICE" if by_mark else "CONTRACT_PRICE",
            price_protect=data.draw(st.booleans()),
        )
        self.attempt(lambda: place_algo(self.venue, self.account, request))

    @rule(data=st.data())
    def cancel_one(self, data: st.DataObject) -> None:
        if self.account.open_orders:
            chosen = data.draw(st.sampled_from(sorted(self.account.open_orders)))
            cancel(self.venue, self.account, self.account.open_orders[chosen])
        if self.account.open_algos and data.draw(st.booleans()):
            algo = self.account.open_algos[data.draw(st.sampled_from(sorted(self.account.open_algos)))]
            self.attempt(lambda: cancel_algo(self.venue, self.account, algo))

    @rule(data=st.data(), step=STEPS)
    def amend_one(self, data: st.DataObject, step: int) -> None:
        if self.account.open_orders:
            chosen = self.account.open_orders[data.draw(st.sampled_from(sorted(self.account.open_orders)))]
            quantity, price = self.quantity(data, chosen.symbol), self.price(chosen.symbol, step)
            self.attempt(lambda: amend(self.venue, self.account, chosen, chosen.side, quantity, price))

    @rule(symbol=SYMBOLS, leverage=st.integers(1, 80))
    def leverage(self, symbol: str, leverage: int) -> None:
        self.attempt(lambda: set_leverage(self.venue, self.account, symbol, leverage))

    @rule(symbol=SYMBOLS, isolated=st.booleans())
    def margin_type(self, symbol: str, isolated: bool) -> None:
        self.attempt(lambda: set_margin_type(self.venue, self.account, symbol, isolated))

    @precondition(lambda self: not self.account.open_orders and not self.account.held_positions())
    @rule(hedge=st.booleans())
    def mode(self, hedge: bool) -> None:
        self.attempt(lambda: set_hedge(self.account, hedge))

    @precondition(lambda self: any(p.isolated_wallet for p in self.account.positions.values()))
    @rule(data=st.data(), symbol=SYMBOLS, amount=st.integers(-200, 200))
    def margin(self, data: st.DataObject, symbol: str, amount: int) -> None:
        side = self.side_of(data)
        self.attempt(lambda: move_margin(self.venue, self.account, symbol, side, D(amount)))  # type: ignore[arg-type]

    @rule(symbol=SYMBOLS, rate=st.integers(-300, 300))
    def funding(self, symbol: str, rate: int) -> None:
        self.venue.settle_funding(symbol, D(rate) / 10_000)

    @rule(step=STEPS, other=STEPS, basis=st.integers(-4, 4), ms=st.integers(0, 5_000), offer=st.integers(0, 40))
    def pass_seconds(self, step: int, other: int, basis: int, ms: int, offer: int) -> None:
        self.pass_time(step, other, basis, ms, offer)

    def pass_time(self, step: int, other: int, basis: int, ms: int, offer: int) -> None:
        self.venue.liquidity = {BTC: offer * D("0.001")} if offer < 20 else {}
        targets = {BTC: self.price(BTC, step), XRP: self.price(XRP, other)}
        quotes = {symbol: quote(last, last * (1000 + basis) / 1000) for symbol, last in targets.items()}
        self.venue.advance(self.venue.now_ms + ms, quotes)

    @rule(step=STEPS, other=STEPS)
    def pass_a_minute(self, step: int, other: int) -> None:
        self.pass_time(step, other, 0, 60_000, 40)

    @rule(symbol=SYMBOLS, step=st.integers(-250, 250))
    def gap(self, symbol: str, step: int) -> None:
        self.venue.jump({symbol: quote(self.price(symbol, step))})

    @rule(symbol=SYMBOLS, step=STEPS)
    def delist(self, symbol: str, step: int) -> None:
        """A symbol leaves, and comes back as one that nobody has anything in."""
        settle_delisted(self.venue, symbol, self.price(symbol, step))
        for account in (self.account, self.other):
            assert symbol not in account.active_symbols()
        self.venue.closed.discard(symbol)

    @rule()
    def restart(self) -> None:
        """The state survives being written down: what goes on from it is the same exchange."""
        before = self.venue.state
        kept = msgspec.json.decode(msgspec.json.encode(before), type=State)
        assert kept == before
        self.venue = Venue(RULES, kept, self.venue.parameters)
        self.account, self.other = kept.accounts["key"], kept.accounts["other"]

    def attempt(self, call: object) -> None:
        """Do it; what is refused leaves no trace."""
        state = self.venue.state
        before = msgspec.json.encode(state)
        try:
            call()  # type: ignore[operator]
        except Refusal:
            after = msgspec.json.decode(msgspec.json.encode(state), type=State)
            earlier = msgspec.json.decode(before, type=State)
            for account in (*after.accounts.values(), *earlier.accounts.values()):
                account.settings, account.positions = {}, {k: p for k, p in account.positions.items() if p.quantity}
            assert after == earlier

    @invariant()
    def adds_up(self) -> None:
        if not hasattr(self, "venue"):
            return
        check(self.venue.state.accounts.values(), self.venue.state.books)
        for account in (self.account, self.other):
            found = margins(account, self.venue.market)
            assert found.open_order_initial >= 0
            balance = found.cross_wallet + found.cross_unrealized
            assert cross_cover(account, self.venue.market) == (balance, found.cross_maintenance)
            assert found.maintenance >= found.cross_maintenance >= 0
            isolated = sum(p.isolated_wallet for p in account.positions.values())
            assert found.wallet == found.cross_wallet + isolated
        times = [event.body["E"] for event in self.venue.take_events()]
        assert times == sorted(times)


def test_books_add_up_whatever_is_asked() -> None:
    run_state_machine_as_test(
        Exchange,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )


@pytest.mark.deep
def test_books_add_up_in_many_lives() -> None:
    run_state_machine_as_test(
        Exchange,
        settings=settings(
            max_examples=2_000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda a, b: setattr(a, "wallet", a.wallet + 1), "wallet against its income"),
        (lambda a, b: setattr(a.positions[f"{BTC}|BOTH"], "cost", D(1)), "wallet less cost"),
        (lambda a, b: setattr(a.positions[f"{BTC}|BOTH"], "quantity", D(2)), "against its fills"),
        (lambda a, b: setattr(b, "fees", b.fees + 1), "cash of all accounts"),
        (lambda a, b: b.market_quantity.update({BTC: D(0)}), "positions in BTCUSDT"),
        (lambda a, b: setattr(a.positions[f"{BTC}|BOTH"], "isolated_wallet", D(1)), "only where it is isolated"),
    ],
)
def test_the_check_sees_what_is_made_or_lost(spoil: object, what: str) -> None:
    venue, account = venue_at()
    order(venue, account, "BUY", "MARKET", 1)
    move(venue, 50_100)
    spoil(account, venue.state.books)  # type: ignore[operator]
    with pytest.raises(BooksBroken, match=what):
        check(venue.state.accounts.values(), venue.state.books)


@pytest.mark.parametrize("wallet", ["92500", "2500.00000001", "0.01", "0"])
def test_the_check_sees_isolated_margin_made_or_lost(wallet: str) -> None:
    venue, account = venue_at()
    set_margin_type(venue, account, BTC, True)
    order(venue, account, "BUY", "MARKET", 1)
    assert account.position(BTC, "BOTH").isolated_wallet == 2_500
    account.position(BTC, "BOTH").isolated_wallet = D(wallet)
    with pytest.raises(BooksBroken, match="isolated margin against what"):
        venue.check()


@pytest.mark.parametrize("name", ["set_aside", "freed", "moved", "funded"])
def test_isolated_margin_is_explained_by_every_way_it_takes(name: str) -> None:
    """Set aside by two fills, moved, funded, freed in part: without any one of these the books are broken."""
    venue, account = venue_at()
    set_margin_type(venue, account, BTC, True)
    order(venue, account, "BUY", "MARKET", 1)
    order(venue, account, "BUY", "MARKET", "0.5")
    move_margin(venue, account, BTC, "BOTH", D(100))
    venue.settle_funding(BTC, D("0.001"))
    order(venue, account, "SELL", "MARKET", "0.3")
    flows = account.totals.margins[f"{BTC}|BOTH"]
    assert flows == MarginFlows(set_aside=D(3_750), freed=D(755), moved=D(100), funded=D(-75))
    assert account.position(BTC, "BOTH").isolated_wallet == 3_020
    setattr(flows, name, D(0))
    with pytest.raises(BooksBroken, match="isolated margin against what"):
        venue.check()
