"""Whatever a client sends to a private route, the venue answers or refuses: it never breaks, and its books add up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from market.simulator.account_rest import AccountRest
from market.simulator.order_rest import Call, OrderRest, order_count
from market.simulator.parameters import Parameters
from market.simulator.tape import read_chunk, read_listings
from market.simulator.trading import AccountSpec, Trading
from market.simulator.venue.refusals import Refusal
from tests.market.exchange_helpers import MARKET, MINUTE_MS, START

LISTINGS = read_listings(MARKET, START)
CHUNK = read_chunk(MARKET, tuple(LISTINGS), START, START + 30 * MINUTE_MS)

VALUES: dict[str, list[str]] = {
    "symbol": ["BTCUSDT", "ETHUSDT", "DOGEUSDT", "NOSUCHUSDT"],
    "side": ["BUY", "SELL"],
    "type": ["MARKET", "LIMIT", "STOP", "STOP_MARKET", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET", "1", "2"],
    "quantity": ["0.01", "1", "0.1", "500", "99999999999999999999", "0.00000000000000000001"],
    "price": ["90000", "88000.1", "3000", "0.2", "-1", "99999999999999999999"],
    "triggerPrice": ["87000", "91000", "88426.3"],
    "activatePrice": ["91000", "80000"],
    "callbackRate": ["1", "0.1", "20", "1000"],
    "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTE_GTC", "GTD"],
    "positionSide": ["BOTH", "LONG", "SHORT"],
    "reduceOnly": ["true", "false"],
    "closePosition": ["true", "false"],
    "workingType": ["MARK_PRICE", "CONTRACT_PRICE"],
    "priceProtect": ["TRUE", "FALSE"],
    "newClientOrderId": ["a", "b", "x" * 37],
    "clientAlgoId": ["a", "c"],
    "origClientOrderId": ["a", "b"],
    "orderId": ["1", "2", "3", "99999999999999999999999"],
    "algoId": ["1000000000000001", "1000000000000002"],
    "algoType": ["CONDITIONAL", "VP"],
    "newOrderRespType": ["ACK", "RESULT", "FULL"],
    "leverage": ["1", "20", "125", "-5", "99999999999999999999999"],
    "marginType": ["ISOLATED", "CROSSED"],
    "dualSidePosition": ["true", "false"],
    "multiAssetsMargin": ["true", "false"],
    "amount": ["10", "0", "-3", "99999999999999999999"],
    "countdownTime": ["0", "1000", "99999999999999999999"],
    "limit": ["1", "5", "1000", "100000"],
    "startTime": ["0", str(START), "99999999999999999999999"],
    "endTime": ["0", str(START + 60_000)],
    "fromId": ["0", "1"],
    "incomeType": ["COMMISSION"],
    "autoCloseType": ["LIQUIDATION", "ADL", "X"],
    "priceMatch": ["NONE", "OPPONENT", "QUEUE_20", "BEST"],
    "batchOrders": ["[]", "{}", "[1]", '[{"symbol":"BTCUSDT","side":"BUY","type":"MARKET","quantity":0.01}]', "[[]]"],
    "orderIdList": ["[1]", '["x"]', "[null]", "{"],
    "origClientOrderIdList": ['["a"]', "[[]]"],
}
NAMES = sorted(VALUES)
GARBAGE = st.text(max_size=8)


def value(name: str) -> st.SearchStrategy[str]:
    """Mostly a value that there is."""
    return st.one_of(*[st.sampled_from(VALUES[name])] * 6, GARBAGE)


ORDER_NAMES = ("price", "timeInForce", "triggerPrice", "algoType", "reduceOnly", "closePosition", "callbackRate")
requests = st.one_of(
    st.fixed_dictionaries({}, optional={name: value(name) for name in NAMES}),
    st.fixed_dictionaries(
        {name: value(name) for name in ("symbol", "side", "type", "quantity")},
        optional={name: value(name) for name in ORDER_NAMES},
    ),
)


def calls_of(trading: Trading) -> dict[tuple[str, str], Call]:
    """Every signed route."""
    return {**OrderRest(trading).calls, **AccountRest(trading).calls}


ROUTES = calls_of(Trading(LISTINGS, START, (), lambda _: None))


def attempt(steps: list[tuple[int, dict[str, str], int]]) -> int:
    """Ask one exchange for all of it; how much of it was carried out."""
    trading = Trading(LISTINGS, START, (AccountSpec("key", "s", Decimal(5_000)),), lambda _: None, check=True)
    trading.load(CHUNK)
    account = trading.venue.state.accounts["key"]
    calls = calls_of(trading)
    routes, done = sorted(calls), 0
    for index, parameters, wait_ms in steps:
        method, path = routes[index % len(routes)]
        trading.advance(trading.venue.now_ms + wait_ms)
        asked = Parameters(parameters)
        trading.refresh((asked.get("symbol", ""),))
        try:
            order_count(method, path, asked)
            msgspec.json.encode(calls[method, path](account, asked).body)
            done += 1
        except Refusal:
            continue
    trading.venue.check()
    return done


STEPS: Any = st.lists(st.tuples(st.integers(0, 200), requests, st.sampled_from((0, 0, 50, 20_000))), max_size=30)


@pytest.mark.parametrize("route", sorted(ROUTES))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(requests, min_size=1, max_size=4))
def test_no_parameters_break_a_route(route: tuple[str, str], asked: list[dict[str, str]]) -> None:
    number = sorted(ROUTES).index(route)
    attempt([(number, parameters, 0) for parameters in asked])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(STEPS)
def test_no_request_breaks_the_venue(steps: list[tuple[int, dict[str, str], int]]) -> None:
    attempt(steps)


@pytest.mark.deep
@settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_no_request_breaks_the_venue_in_many_tries(steps: list[tuple[int, dict[str, str], int]]) -> None:
    attempt(steps)


def test_the_requests_reach_the_venue() -> None:
    """The same machinery carries out what is right, so that the fuzz is not all refusals at the door."""
    market = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    index = sorted(ROUTES).index(("POST", "/fapi/v1/order"))
    assert attempt([(index, market, 0), (index, {**market, "side": "SELL"}, 20_000)]) == 2
