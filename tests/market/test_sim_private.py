"""The simulated exchange's private side over HTTP and WebSocket: signing, orders, accounts, user data."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market.bars import MINUTE_MS
from market.simulator.signed import Sent, VenueTime, authenticate, signature_of
from market.simulator.trading import AccountSpec
from market.simulator.venue.accounts import Account
from market.simulator.venue.refusals import Refusal
from tests.market.exchange_helpers import START
from tests.market.private_helpers import exchange, listening, settled

ACCOUNT = Account("key", "2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9")
TIME = VenueTime(lambda: 1_591_702_613_943, lambda: 0.0)


def sent(query: str, body: str = "", key: str | None = "key") -> Sent:
    return Sent(query, body, key)


def test_the_published_mixed_request_is_signed_over_query_and_body_without_a_separator() -> None:
    query = "symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC"
    body = "quantity=1&price=9000&recvWindow=5000&timestamp=1591702613943"
    signature = "30baaf0fab549bbeda7f5ef201898b34122da25fd23c646cac2c529aebe670a4"
    account, asked = authenticate(sent(query, f"{body}&signature={signature}"), {"key": ACCOUNT}, TIME)
    assert account is ACCOUNT
    assert (asked["symbol"], asked["price"]) == ("BTCUSDT", "9000")


@given(
    st.lists(st.tuples(st.sampled_from(("symbol", "a", "b", "side")), st.text(max_size=6)), max_size=5),
    st.lists(st.tuples(st.sampled_from(("symbol", "c", "d")), st.text(max_size=6)), max_size=5),
    st.booleans(),
)
def test_the_literal_bytes_are_signed_in_any_order_and_place(
    query: list[tuple[str, str]], body: list[tuple[str, str]], in_body: bool
) -> None:
    stamped = [*query, ("timestamp", "1591702613943")]
    texts = [urlencode(stamped), urlencode(body)]
    signature = signature_of(ACCOUNT, "".join(texts))
    place = 1 if in_body else 0
    texts[place] += ("&" if texts[place] else "") + f"signature={signature}"
    _, asked = authenticate(sent(*texts), {"key": ACCOUNT}, TIME)
    for name, value in {**dict(body), **dict(query)}.items():
        assert asked[name] == value
    broken = texts[0].replace("timestamp=1591702613943", "timestamp=1591702613944")
    assert _code(sent(broken, texts[1])) == -1022


def _code(request: Sent, time: VenueTime = TIME) -> int:
    with pytest.raises(Refusal) as refused:
        authenticate(request, {"key": ACCOUNT}, time)
    return refused.value.code


@pytest.mark.parametrize(
    ("query", "key", "expected"),
    [
        ("timestamp=1591702613943&signature=00", None, -2014),
        ("timestamp=1591702613943&signature=00", "other", -2015),
        ("timestamp=1591702613943&signature=00", "key", -1022),
        ("signature=00&timestamp=1591702613943", "key", -1022),
        ("timestamp=1591702613943", "key", -1102),
        ("signature=00", "key", -1102),
    ],
)
def test_what_is_wrong_with_a_signed_request(query: str, key: str | None, expected: int) -> None:
    assert _code(sent(query, key=key)) == expected


@pytest.mark.parametrize(
    ("offset", "window", "expected"),
    [
        (999, 5_000, 0),
        (1_000, 5_000, -1021),
        (-5_000, 5_000, 0),
        (-5_001, 5_000, -1021),
        (-50, 40, -1021),
        (0, 60_001, -1131),
    ],
)
def test_a_timestamp_has_to_be_fresh(offset: int, window: int, expected: int) -> None:
    payload = f"timestamp={1_591_702_613_943 + offset}&recvWindow={window}"
    request = sent(f"{payload}&signature={signature_of(ACCOUNT, payload)}")
    if expected:
        assert _code(request) == expected
    else:
        authenticate(request, {"key": ACCOUNT}, TIME)


def test_a_client_that_asked_for_the_time_knows_it_whatever_the_clock_does_meanwhile() -> None:
    wall, now = [0.0], [1_000_000_000]
    time = VenueTime(lambda: now[0], lambda: wall[0])
    told = time.now()
    now[0] += 3_600_000  # an hour of simulated time in a second
    wall[0] += 1.0
    time.check(told + 1_000, 5_000)
    wall[0] += 61.0
    with pytest.raises(Refusal):
        time.check(told + 62_000, 5_000)


def test_an_ed25519_key_signs_too() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    account = Account("key", public.decode())
    payload = "symbol=BTCUSDT&timestamp=1591702613943"
    signature = quote(base64.b64encode(private.sign(payload.encode())), safe="")
    authenticate(sent(f"{payload}&signature={signature}"), {"key": account}, TIME)
    with pytest.raises(Refusal):
        authenticate(sent(f"{payload}&signature={signature[:-6]}AAA%3D"), {"key": account}, TIME)


@pytest.mark.parametrize("text", ["key:secret", "key::5", "key:secret:much", ""])
def test_an_account_is_said_in_three_parts(text: str) -> None:
    with pytest.raises(ValueError, match=r"account|money"):
        AccountSpec.parse(text)


async def test_an_order_from_its_placing_to_its_profit() -> None:
    async with exchange() as client:
        await client.simulator.step(1)  # past the funding of midnight
        placed = await client.order("BUY", "MARKET", "0.5", newOrderRespType="RESULT", newClientOrderId="mine")
        price = await client.last()
        assert (placed["status"], Decimal(placed["avgPrice"]), placed["clientOrderId"]) == ("FILLED", price, "mine")
        assert client.headers["X-MBX-ORDER-COUNT-10S"] == "1"
        await client.simulator.step(10)
        now = await client.last()
        risk = (await client.do("GET", "/fapi/v2/positionRisk", symbol="BTCUSDT"))[0]
        assert Decimal(risk["unRealizedProfit"]) == (now - price) / 2
        assert (risk["marginType"], risk["leverage"]) == ("cross", "20")
        assert [row["symbol"] for row in await client.do("GET", "/fapi/v3/positionRisk")] == ["BTCUSDT"]
        await client.order("SELL", "MARKET", "0.5", reduceOnly="true")
        trades = await client.do("GET", "/fapi/v1/userTrades", symbol="BTCUSDT")
        assert Decimal(trades[1]["realizedPnl"]) == (now - price) / 2
        assert [trade["orderId"] for trade in await client.do("GET", "/fapi/v1/allOrders", symbol="BTCUSDT")] == [1, 2]
        income = await client.do("GET", "/fapi/v1/income")
        assert [row["incomeType"] for row in income] == ["TRANSFER", "COMMISSION", "REALIZED_PNL", "COMMISSION"]
        balance = (await client.do("GET", "/fapi/v3/balance"))[0]
        assert Decimal(balance["balance"]) == sum(Decimal(row["income"]) for row in income)
        account = await client.do("GET", "/fapi/v3/account")
        assert account["positions"] == []
        assert account["totalWalletBalance"] == balance["balance"]


async def test_resting_orders_fill_on_the_bars_that_are_shown() -> None:
    async with exchange() as client:
        price = await client.last()
        low = (price * Decimal("0.9985")).quantize(Decimal("0.1"))
        high = (price * Decimal("1.0015")).quantize(Decimal("0.1"))
        await client.order("BUY", "LIMIT", "0.1", price=low)
        await client.order("SELL", "LIMIT", "0.1", price=high)
        open_orders = await client.do("GET", "/fapi/v1/openOrders")
        assert [order["status"] for order in open_orders] == ["NEW", "NEW"]
        for _ in range(60):
            await client.simulator.step(1)
            query = f"symbol=BTCUSDT&interval=1m&startTime={START}"
            bars = (await client.send("GET", "/fapi/v1/klines", query))[1]
            lowest, highest = min(Decimal(bar[3]) for bar in bars), max(Decimal(bar[2]) for bar in bars)
            statuses = [row["status"] for row in await client.do("GET", "/fapi/v1/allOrders", symbol="BTCUSDT")]
            assert statuses == [
                "FILLED" if lowest <= low else "NEW",
                "FILLED" if highest >= high else "NEW",
            ]
        assert "FILLED" in statuses


async def test_funding_is_settled_when_it_is_due() -> None:
    async with exchange() as client:
        await client.order("BUY", "MARKET", "0.1")
        await client.simulator.step(9 * 60)
        rows = await client.do("GET", "/fapi/v1/income", incomeType="FUNDING_FEE")
        query = f"symbol=BTCUSDT&startTime={START + 1}"
        funded = (await client.send("GET", "/fapi/v1/fundingRate", query))[1]
        assert [row["time"] for row in rows] == [row["fundingTime"] for row in funded]
        assert len(rows) == 2  # at midnight, some milliseconds after the start, and at eight
        assert Decimal(rows[0]["income"]) * Decimal(funded[0]["fundingRate"]) < 0


async def test_errors_are_the_venues() -> None:
    async with exchange() as client:
        order = "/fapi/v1/order"
        some = {"symbol": "BTCUSDT", "side": "BUY", "quantity": "0.1"}
        assert await client.refused("POST", order, **some, type="STOP_MARKET", stopPrice=1) == -4120
        assert await client.refused("POST", order, **some, type="LIMIT", price="1") == -1102
        assert await client.refused("POST", order, **{**some, "side": "HOLD"}, type="MARKET") == -1117
        assert await client.refused("POST", order, **{**some, "quantity": "x"}, type="MARKET") == -1102
        assert await client.refused("POST", order, **{**some, "quantity": ""}, type="MARKET") == -1105
        assert await client.refused("POST", order, **{**some, "symbol": "NOSUCHUSDT"}, type="MARKET") == -1121
        assert await client.refused("GET", order, symbol="BTCUSDT", orderId=99) == -2013
        assert await client.refused("DELETE", order, symbol="BTCUSDT", orderId=99) == -2011
        assert await client.refused("GET", order, symbol="BTCUSDT") == -1102
        assert await client.refused("GET", "/fapi/v1/userTrades", symbol="BTCUSDT", startTime=0, endTime=10**9) == -1127
        assert await client.refused("POST", "/fapi/v1/leverage", symbol="BTCUSDT", leverage=500) == -4028
        assert (await client.send("PUT", "/fapi/v1/listenKey"))[1]["code"] == -1125
        status, found = await client.send("GET", "/fapi/v1/balance")
        assert (status, found["code"]) == (404, -5000)
        client.key = "nobody"
        assert (await client.ask("GET", "/fapi/v3/balance"))[0] == 401


async def test_settings_are_kept_and_read_back() -> None:
    async with exchange() as client:
        symbol = {"symbol": "ETHUSDT"}
        assert (await client.do("POST", "/fapi/v1/leverage", **symbol, leverage=7))["leverage"] == 7
        await client.do("POST", "/fapi/v1/marginType", **symbol, marginType="ISOLATED")
        assert await client.refused("POST", "/fapi/v1/marginType", **symbol, marginType="ISOLATED") == -4046
        config = (await client.do("GET", "/fapi/v1/symbolConfig", **symbol))[0]
        assert (config["leverage"], config["marginType"]) == (7, "ISOLATED")
        await client.do("POST", "/fapi/v1/positionSide/dual", dualSidePosition="true")
        assert await client.do("GET", "/fapi/v1/positionSide/dual") == {"dualSidePosition": True}
        assert client.headers["X-MBX-USED-WEIGHT-1M"]
        sides = [row["positionSide"] for row in await client.do("GET", "/fapi/v2/positionRisk", **symbol)]
        assert sides == ["BOTH", "LONG", "SHORT"]
        brackets = (await client.do("GET", "/fapi/v1/leverageBracket", **symbol))[0]["brackets"]
        assert brackets[0]["initialLeverage"] == 150
        assert (await client.do("GET", "/fapi/v1/commissionRate", **symbol))["takerCommissionRate"] == "0.0005"


async def test_batches_have_an_answer_for_each() -> None:
    async with exchange() as client:
        price = (await client.last() * Decimal("0.95")).quantize(Decimal("0.1"))
        some = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": str(price)}
        batch = f"[{_json({**some, 'quantity': '0.1'})},{_json({**some, 'quantity': '5000'})}]"
        good, bad = await client.do("POST", "/fapi/v1/batchOrders", batchOrders=batch)
        assert (good["status"], bad["code"]) == ("NEW", -4005)
        assert client.headers["X-MBX-ORDER-COUNT-10S"] == "2"
        gone, missing = await client.do(
            "DELETE", "/fapi/v1/batchOrders", symbol="BTCUSDT", orderIdList=f"[{good['orderId']},77]"
        )
        assert (gone["status"], missing["code"]) == ("CANCELED", -2011)


def _json(item: dict[str, Any]) -> str:
    return "{" + ",".join(f'"{name}":"{value}"' for name, value in item.items()) + "}"


async def test_conditional_orders_have_endpoints_of_their_own() -> None:
    async with exchange() as client:
        await client.simulator.step(1)
        await client.order("BUY", "MARKET", "0.1")
        price = await client.last()
        trigger = (price * Decimal("0.9998")).quantize(Decimal("0.1"))
        placed = await client.do(
            "POST",
            "/fapi/v1/algoOrder",
            algoType="CONDITIONAL",
            symbol="BTCUSDT",
            side="SELL",
            type="STOP_MARKET",
            triggerPrice=trigger,
            closePosition="true",
            clientAlgoId="guard",
        )
        assert (placed["algoStatus"], placed["clientAlgoId"], placed["quantity"]) == ("NEW", "guard", "0")
        assert await client.refused("GET", "/fapi/v1/order", symbol="BTCUSDT", orderId=placed["algoId"]) == -2013
        assert await client.do("GET", "/fapi/v1/openOrders") == []
        await client.do("DELETE", "/fapi/v1/allOpenOrders", symbol="BTCUSDT")
        assert len(await client.do("GET", "/fapi/v1/openAlgoOrders")) == 1
        async with listening(client) as taken:
            for _ in range(50):
                await client.simulator.step(1)
                if not await client.do("GET", "/fapi/v1/openAlgoOrders"):
                    break
            told = [_short(event) for event in await settled(taken)]
        assert told == [
            "ALGO_UPDATE TRIGGERING",
            "ORDER_TRADE_UPDATE NEW",
            "TRADE_LITE",
            "ACCOUNT_UPDATE ORDER",
            "ORDER_TRADE_UPDATE TRADE",
            "ALGO_UPDATE TRIGGERED",
            "ALGO_UPDATE FINISHED",
        ]
        done = await client.do("GET", "/fapi/v1/algoOrder", algoId=placed["algoId"])
        child = await client.do("GET", "/fapi/v1/order", symbol="BTCUSDT", orderId=done["actualOrderId"])
        assert (done["algoStatus"], child["status"], child["origType"]) == ("FINISHED", "FILLED", "STOP_MARKET")
        assert await client.refused("DELETE", "/fapi/v1/algoOrder", algoId=placed["algoId"]) == -2011


def _short(event: dict[str, Any]) -> str:
    kind = event["e"]
    if kind == "ORDER_TRADE_UPDATE":
        return f"{kind} {event['o']['x']}"
    if kind == "ALGO_UPDATE":
        return f"{kind} {event['o']['X']}"
    return f"{kind} {event['a']['m']}" if kind == "ACCOUNT_UPDATE" else kind


@pytest.mark.parametrize(
    ("path", "wrapped"),
    [
        ("/private/ws?listenKey={key}", False),
        ("/private/ws/{key}", False),
        ("/private/stream?streams={key}", True),
        ("/private/stream?listenKey={key}", True),
    ],
)
async def test_user_data_comes_on_the_private_route(path: str, wrapped: bool) -> None:
    async with exchange() as client:
        key = await client.listen_key()
        async with listening(client, path.format(key=key)) as taken:
            await client.order("BUY", "MARKET", "0.1")
            found = await settled(taken)
        if wrapped:
            assert {item["stream"] for item in found} == {key}
            found = [item["data"] for item in found]
        assert [_short(event) for event in found] == [
            "ORDER_TRADE_UPDATE NEW",
            "TRADE_LITE",
            "ACCOUNT_UPDATE ORDER",
            "ORDER_TRADE_UPDATE TRADE",
        ]


@pytest.mark.parametrize(
    "path",
    [
        "/ws/{key}",
        "/market/ws/{key}",
        "/private/ws/nosuchkey",
        "/private/ws",
        "/private/ws?listenKey={key}&events=ORDER_TRADE_UPDAT",
    ],
)
async def test_the_wrong_way_in_is_silent(path: str) -> None:
    async with exchange() as client, listening(client, path.format(key=await client.listen_key())) as taken:
        await client.order("BUY", "MARKET", "0.1")
        assert await settled(taken) == []


async def test_events_are_filtered_and_keys_subscribed_to() -> None:
    async with exchange() as client:
        key = await client.listen_key()
        async with listening(client, f"/private/ws?listenKey={key}&events=ACCOUNT_UPDATE/ALGO_UPDATE") as taken:
            await client.order("BUY", "MARKET", "0.1")
            assert [event["e"] for event in await settled(taken)] == ["ACCOUNT_UPDATE"]
        async with listening(client, "/private/stream") as taken:
            assert (
                await taken.ask(f'{{"method":"SUBSCRIBE","params":["{key}"],"id":"a-b"}}')
                == '{"result":null,"id":"a-b"}'
            )
            taken.clear()
            await client.order("SELL", "MARKET", "0.1")
            assert {item["stream"] for item in await settled(taken)} == {key}


async def test_a_listen_key_dies_after_an_hour_and_is_told_so() -> None:
    async with exchange() as client:
        key = await client.listen_key()
        assert await client.listen_key() == key
        async with listening(client, f"/private/ws/{key}") as taken:
            await client.simulator.step(50)
            await client.send("PUT", "/fapi/v1/listenKey")
            await client.simulator.step(50)
            assert await settled(taken) == []
            await client.simulator.step(11)
            assert [(event["e"], event["listenKey"]) for event in await settled(taken)] == [("listenKeyExpired", key)]
            await client.order("BUY", "MARKET", "0.1")
            assert await settled(taken) == []
        assert (await client.send("PUT", "/fapi/v1/listenKey"))[1]["code"] == -1125
        assert await client.listen_key() != key


async def test_a_connection_is_closed_after_a_day() -> None:
    market = "/market/ws/btcusdt@kline_1m"
    async with exchange(connection_ms=30 * MINUTE_MS) as client, listening(client, market) as taken:
        await client.simulator.step(29)
        assert client.simulator.hub.consumers == 1
        await client.simulator.step(2)
        while client.simulator.hub.consumers:
            await client.simulator.hub.changed()
        taken.arrived.clear()
        await taken.ended.wait()
        assert taken.socket.close_code == 1008


async def test_accounts_do_not_see_each_other() -> None:
    two = (AccountSpec("key", "secret", Decimal(1000)), AccountSpec("other", "hidden", Decimal(1000)))
    async with exchange(accounts=two) as client, listening(client) as taken:
        client.key, client.secret = "other", "hidden"
        await client.order("BUY", "MARKET", "0.01")
        assert await settled(taken) == []
        assert len(await client.do("GET", "/fapi/v1/allOrders", symbol="BTCUSDT")) == 1
        client.key, client.secret = "key", "secret"
        assert await client.do("GET", "/fapi/v1/allOrders", symbol="BTCUSDT") == []
