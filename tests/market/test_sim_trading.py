"""The venue on the bars' way: its prices are the bars', and who looks how often changes nothing."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import MINUTE_MS
from market.simulator.tape import Chunk, read_chunk, read_listings
from market.simulator.trading import AccountSpec, Trading
from market.simulator.venue.algo import place_algo
from market.simulator.venue.orders import OrderRequest
from market.simulator.venue.placing import place
from tests.market.exchange_helpers import MARKET, START

SYMBOL = "BTCUSDT"
MINUTES = 20
LISTINGS = read_listings(MARKET, START)
CHUNK: Chunk = read_chunk(MARKET, tuple(LISTINGS), START, START + (MINUTES + 1) * MINUTE_MS)


def trading() -> Trading:
    made = Trading(LISTINGS, START, (AccountSpec("key", "secret", Decimal(1_000_000)),), lambda _: None, check=True)
    made.load(CHUNK)
    made.refresh((SYMBOL,))
    return made


def test_the_price_goes_through_every_bar_and_never_leaves_it() -> None:
    made = trading()
    account = made.venue.state.accounts["key"]
    place(made.venue, account, OrderRequest(SYMBOL, "BUY", "MARKET", quantity=Decimal("0.1")))
    for index in range(MINUTES):
        bar = CHUNK.bars[index, 0]
        start = START + index * MINUTE_MS
        seen = []
        for offset in range(1_000, MINUTE_MS + 1, 1_000):
            made.advance(start + offset - 1)
            seen.append(made.last(SYMBOL).last)
        assert Decimal(repr(float(bar["low"]))) <= min(seen) <= max(seen) <= Decimal(repr(float(bar["high"])))
        # Seen every second, so an extreme may be missed by what a second's way is at most.
        slack = (max(seen) - min(seen)) / 20 + Decimal("0.1")
        assert min(seen) - Decimal(repr(float(bar["low"]))) <= slack
        assert Decimal(repr(float(bar["high"]))) - max(seen) <= slack
        assert abs(seen[-1] - Decimal(repr(float(bar["close"])))) <= slack


@settings(max_examples=25, deadline=None)
@given(
    looks=st.lists(st.integers(1, MINUTES * MINUTE_MS - 1), max_size=25),
    levels=st.lists(st.tuples(st.integers(-12, 12).filter(bool), st.booleans()), min_size=1, max_size=6),
)
def test_who_looks_how_often_changes_nothing(looks: list[int], levels: list[tuple[int, bool]]) -> None:
    outcomes = []
    for moments in ([], sorted(looks)):
        made = trading()
        venue, account = made.venue, made.venue.state.accounts["key"]
        last = made.last(SYMBOL).last
        place(venue, account, OrderRequest(SYMBOL, "BUY", "MARKET", quantity=Decimal(1)))
        for level, conditional in levels:
            price = made.rules[SYMBOL].on_tick(last * (10_000 + level) / 10_000)
            side = "BUY" if level < 0 else "SELL"
            amount = Decimal("0.1")
            if conditional:
                kind = "TAKE_PROFIT_MARKET"
                place_algo(venue, account, OrderRequest(SYMBOL, side, kind, quantity=amount, trigger_price=price))
            else:
                request = OrderRequest(SYMBOL, side, "LIMIT", time_in_force="GTC", quantity=amount, price=price)
                place(venue, account, request)
        for moment in [*moments, MINUTES * MINUTE_MS]:
            made.advance(START + moment)
        outcomes.append((venue.state.quotes[SYMBOL], account))
    (quote, one), (other_quote, other) = outcomes
    assert quote == other_quote
    assert one.open_algos.keys() == other.open_algos.keys()
    limits = [{(t.price, t.side) for t in account.trades if t.maker} for account in (one, other)]
    assert limits[0] == limits[1]
    assert len(one.trades) == len(other.trades)
    # A market order meets the price of its moment, which is rounded to a tick wherever somebody looks.
    assert abs(one.wallet - other.wallet) <= Decimal("0.1") * len(one.trades)
