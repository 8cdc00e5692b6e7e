"""The messages of the user stream, typed; what cannot be understood shows no key."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from market.binance.errors import StreamMessageInvalid
from market.binance.orders import Side
from market.binance.user_events import (
    AccountUpdate,
    AlgoUpdate,
    ConfigUpdate,
    KeyExpired,
    MarginCall,
    OrderUpdate,
    parse_user,
)

D = Decimal
FILL = {
    "e": "ORDER_TRADE_UPDATE",
    "E": 1568879465651,
    "T": 1568879465650,
    "o": {
        "s": "BTCUSDT",
        "c": "a-1",
        "S": "SELL",
        "o": "MARKET",
        "f": "GTC",
        "q": "0.001",
        "p": "0",
        "ap": "60000.5",
        "sp": "0",
        "x": "TRADE",
        "X": "FILLED",
        "i": 8886774,
        "l": "0.001",
        "z": "0.001",
        "L": "60000.5",
        "T": 1568879465650,
        "t": 77,
        "b": "0",
        "a": "9.91",
        "m": False,
        "R": True,
        "wt": "CONTRACT_PRICE",
        "ot": "MARKET",
        "ps": "LONG",
        "cp": False,
        "rp": "-1.5",
        "pP": False,
        "si": 0,
        "ss": 0,
        "V": "NONE",
        "pm": "NONE",
        "gtd": 0,
        "er": "0",
        "N": "USDT",
        "n": "0.03",
    },
}
MONEY = {
    "e": "ACCOUNT_UPDATE",
    "E": 1564745798939,
    "T": 1564745798938,
    "a": {
        "m": "ORDER",
        "B": [{"a": "USDT", "wb": "122624.12345678", "cw": "100.12345678", "bc": "50.12345678"}],
        "P": [{"s": "BTCUSDT", "pa": "-0.5", "ep": "60000", "up": "2.5", "mt": "isolated", "iw": "10", "ps": "SHORT"}],
    },
}
TRIGGERED = {
    "e": "ALGO_UPDATE",
    "T": 1750515742297,
    "E": 1750515742303,
    "o": {
        "caid": "s-1",
        "aid": 1000000033225453,
        "at": "CONDITIONAL",
        "o": "STOP_MARKET",
        "s": "BTCUSDT",
        "S": "SELL",
        "ps": "BOTH",
        "f": "GTC",
        "q": "0.01",
        "X": "TRIGGERED",
        "ai": "88937381063",
        "ap": "0.0",
        "aq": "0.0",
        "act": "MARKET",
        "tp": "50000.1",
        "p": "0",
        "V": "NONE",
        "wt": "CONTRACT_PRICE",
        "pm": "NONE",
        "cp": True,
        "pP": False,
        "R": False,
        "tt": 0,
        "gtd": 0,
        "rm": "",
        "ia": False,
    },
}


def test_events_are_typed_in_their_envelope_and_bare() -> None:
    for wrap in (lambda event: event, lambda event: {"stream": "thekey", "data": event}):
        fill = parse_user(json.dumps(wrap(FILL)))
        assert isinstance(fill, OrderUpdate)
        order = fill.order
        assert (order.side, order.average_price, order.position_side) == (Side.SELL, D("60000.5"), "LONG")
        assert (order.realized_profit, order.commission, order.commission_asset) == (D("-1.5"), D("0.03"), "USDT")
        assert not order.forced
        money = parse_user(json.dumps(wrap(MONEY)))
        assert isinstance(money, AccountUpdate)
        assert (money.changes.positions[0].amount, money.changes.balances[0].change) == (D("-0.5"), D("50.12345678"))
        algo = parse_user(json.dumps(wrap(TRIGGERED)))
        assert isinstance(algo, AlgoUpdate)
        assert (algo.algo.order_id, algo.algo.status, algo.algo.close_position) == ("88937381063", "TRIGGERED", True)
    config = parse_user('{"e":"ACCOUNT_CONFIG_UPDATE","E":1,"T":2,"ac":{"s":"BTCUSDT","l":25}}')
    assert isinstance(config, ConfigUpdate)
    assert config.setting is not None
    assert config.setting.leverage == 25
    assert isinstance(parse_user('{"e":"ACCOUNT_CONFIG_UPDATE","E":1,"T":2,"ai":{"j":true}}'), ConfigUpdate)
    assert isinstance(parse_user('{"e":"MARGIN_CALL","E":1,"p":[{"s":"A"}]}'), MarginCall)
    assert isinstance(parse_user('{"e":"listenKeyExpired","E":1,"listenKey":"x"}'), KeyExpired)
    assert parse_user('{"e":"TRADE_LITE","E":1}') is None
    assert parse_user('{"e":"SOMETHING_NEW","E":1}') is None
    assert parse_user('{"result":null,"id":1}') is None


def test_what_the_venue_does_by_force_is_told() -> None:
    for changes in ({"x": "CALCULATED"}, {"c": "autoclose-1"}, {"c": "adl_autoclose"}, {"c": "settlement_autoclose-9"}):
        event = parse_user(json.dumps(FILL | {"o": FILL["o"] | changes}))  # type: ignore[operator]
        assert isinstance(event, OrderUpdate)
        assert event.order.forced
    without_fee = {name: value for name, value in FILL["o"].items() if name not in ("N", "n")}  # type: ignore[attr-defined]
    event = parse_user(json.dumps(FILL | {"o": without_fee}))
    assert isinstance(event, OrderUpdate)
    assert (event.order.commission_asset, event.order.commission) == (None, 0)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b"\xff", b"{}", b'{"e":7}', b'{"e":"ORDER_TRADE_UPDATE","E":1,"T":1,"o":{}}']
)
def test_garbage_is_a_typed_error_that_shows_no_key(raw: bytes) -> None:
    with pytest.raises(StreamMessageInvalid):
        parse_user(raw)
    wrapped = json.dumps({"stream": "thekey", "data": FILL | {"o": 7}})
    with pytest.raises(StreamMessageInvalid) as caught:
        parse_user(wrapped)
    assert "thekey" not in str(caught.value)
