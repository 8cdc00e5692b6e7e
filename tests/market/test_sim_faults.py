"""Faults on demand and by plan: limits, bans, answers that lie, connections that die, a restart."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from market.bars import MINUTE_MS
from market.simulator.clock import SimulationFailed
from market.simulator.fault_plan import BAR_KINDS, DEFAULT_KINDS, At, FaultPlan, read_plan
from market.simulator.faults import KINDS as CORRUPTIONS
from market.simulator.faults import FaultRequest
from market.simulator.limits import FUNDINGS, LimitExceeded, Limits
from market.simulator.options import Options, read_state
from market.simulator.rest_faults import JSON_ANSWERS, PAGES, RestFault, RestFaults
from market.simulator.rest_faults import KINDS as REST_KINDS
from market.simulator.server import Simulator
from market.simulator.stream_faults import StreamFault
from tests.market.exchange_helpers import MARKET, START, closed_of, post, taking
from tests.market.private_helpers import KEY, Client, exchange, listening, settled

ORDER = "/fapi/v1/order"
MARKET_ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}


def test_weight_is_refused_and_then_banned_for_longer_each_time() -> None:
    wall = [0.0]
    limits = Limits(lambda: wall[0], lambda: 1_000_000, weight_limit=100)
    for _ in range(10):
        limits.check("a")
        assert limits.use("a", 10) <= 100
    limits.check("b")
    for _ in range(10):
        with pytest.raises(LimitExceeded) as exceeded:
            limits.check("a")
        assert (exceeded.value.status, exceeded.value.code, exceeded.value.retry_after_s) == (429, -1003, 60)
    with pytest.raises(LimitExceeded) as exceeded:
        limits.check("a")
    assert exceeded.value.status == 418
    assert "IP banned until 1120000" in exceeded.value.message
    wall[0] = 119.0
    with pytest.raises(LimitExceeded):
        limits.check("a")
    wall[0] = 121.0
    limits.check("a")
    limits.ban("a")
    wall[0] = 121.0 + 239.0
    with pytest.raises(LimitExceeded):
        limits.check("a")


def test_orders_are_counted_for_each_account() -> None:
    wall = [0.0]
    limits = Limits(lambda: wall[0], lambda: 0, weight_limit=2_400)
    for i in range(60):
        assert limits.order("a", 5)["X-MBX-ORDER-COUNT-10S"] == str(5 * i + 5)
    with pytest.raises(LimitExceeded) as exceeded:
        limits.order("a")
    assert exceeded.value.code == -1015
    assert limits.order("b")["X-MBX-ORDER-COUNT-1M"] == "1"
    wall[0] = 10.0
    assert limits.order("a") == {"X-MBX-ORDER-COUNT-10S": "1", "X-MBX-ORDER-COUNT-1M": "61"}


def test_fundings_have_a_limit_of_their_own() -> None:
    wall = [7.0]
    limits = Limits(lambda: wall[0], lambda: 0, weight_limit=2_400)
    for _ in range(250):
        limits.check("a", "/fapi/v1/fundingRate")
        limits.check("a", "/fapi/v1/fundingInfo")
    for wall[0] in (7.0, 299.0):
        with pytest.raises(LimitExceeded) as exceeded:
            limits.check("a", "/fapi/v1/fundingRate")
        assert (exceeded.value.status, exceeded.value.code) == (429, -1003)
        assert exceeded.value.retry_after_s == 300 - wall[0]
    limits.check("a", "/fapi/v1/klines")
    limits.check("b", "/fapi/v1/fundingRate")
    wall[0] = 300.0
    limits.check("a", "/fapi/v1/fundingRate")


async def test_a_funding_too_many_is_429() -> None:
    async with exchange(weight_limit=2_400) as client:
        path = "/fapi/v1/fundingRate"
        assert (await client.send("GET", path, "limit=1"))[0] == 200
        client.simulator.limits._at("127.0.0.1").fundings = FUNDINGS
        status, found = await client.send("GET", path, "limit=1")
        assert (status, found["code"]) == (429, -1003)
        assert 0 < int(client.headers["Retry-After"]) <= 300
        assert (await client.send("GET", "/fapi/v1/ping"))[0] == 200


async def test_a_used_up_budget_is_429_and_a_ban_418() -> None:
    async with exchange(weight_limit=2_400) as client:
        client.simulator.ask(FaultRequest(used_weight=2_399))
        assert (await client.send("GET", "/fapi/v1/ping"))[0] == 200
        assert client.headers["X-MBX-USED-WEIGHT-1M"] == "2400"
        status, found = await client.send("GET", "/fapi/v1/ping")
        assert (status, found["code"]) == (429, -1003)
        assert 0 < int(client.headers["Retry-After"]) <= 60
        client.simulator.ask(FaultRequest(rest=[RestFault("ban", seconds=120)]))
        for _ in range(2):
            assert (await client.send("GET", "/fapi/v1/ping"))[0] == 418


@pytest.mark.parametrize("kind", [kind for kind in JSON_ANSWERS if kind != "not_visible"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_may_lie_about_what_happened(kind: str, when: Any) -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(rest=[RestFault(kind, "POST", ORDER, when)]))
        status, found = await client.ask("POST", ORDER, **MARKET_ORDER, newClientOrderId="one")
        assert (status, found["code"]) == JSON_ANSWERS[kind][:2]
        status, found = await client.ask("GET", ORDER, symbol="BTCUSDT", origClientOrderId="one")
        assert (status, found.get("status")) == ((200, "FILLED") if when == "after" else (400, None))
        assert client.simulator.faults.done == {f"{kind}_{when}": 1}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_answer_may_be_slow_and_an_order_is_done_once(when: Any) -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(rest=[RestFault("latency", "POST", ORDER, when, seconds=0.01)]))
        await client.do("POST", ORDER, **MARKET_ORDER)
        assert len(await client.do("GET", "/fapi/v1/userTrades", symbol="BTCUSDT")) == 1


@pytest.mark.parametrize(("when", "done"), [("before", 0), ("after", 1)])
async def test_a_ban_may_come_before_or_after_an_order(when: Any, done: int) -> None:
    async with exchange(weight_limit=2_400) as client:
        client.simulator.ask(FaultRequest(rest=[RestFault("ban", "POST", ORDER, when, seconds=60)]))
        status, found = await client.ask("POST", ORDER, **MARKET_ORDER)
        assert (status, found["code"]) == (418, -1003)
        assert len(client.simulator.trading.venue.state.accounts["key"].trades) == done


async def test_an_order_may_not_be_visible_yet() -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(rest=[RestFault("not_visible", "GET", ORDER, count=2)]))
        placed = await client.order("BUY", "MARKET", "0.01")
        for _ in range(2):
            assert await client.refused("GET", ORDER, symbol="BTCUSDT", orderId=placed["orderId"]) == -2013
        assert (await client.do("GET", ORDER, symbol="BTCUSDT", orderId=placed["orderId"]))["status"] == "FILLED"


async def test_overload_spares_what_reduces_risk() -> None:
    async with exchange() as client:
        await client.order("BUY", "MARKET", "0.01")
        client.simulator.ask(FaultRequest(rest=[RestFault("503_overload", path=ORDER, count=5)]))
        assert await client.refused("POST", ORDER, **MARKET_ORDER) == -1008
        await client.do("POST", ORDER, **{**MARKET_ORDER, "side": "SELL"}, reduceOnly="true")
        assert await client.refused("DELETE", ORDER, symbol="BTCUSDT", orderId=9) == -2011


@pytest.mark.parametrize("kind", REST_KINDS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_request_is_carried_out_once_or_not_at_all(kind: str, when: Any) -> None:
    """Before: not at all, but for latency, which only delays. After: once, whatever is answered."""
    async with exchange() as client:
        seconds = 3600.0 if kind == "ban" else 0.001
        client.simulator.ask(FaultRequest(rest=[RestFault(kind, "POST", ORDER, when, seconds=seconds)]))
        try:
            status = (await client.ask("POST", ORDER, **MARKET_ORDER))[0]
        except aiohttp.ClientError:
            assert kind == "no_answer"
        except msgspec.DecodeError:
            assert kind in PAGES
        else:
            assert status == {"latency": 200, "ban": 418}.get(kind) or status == JSON_ANSWERS[kind][0]
        fills = [trade.quantity for trade in client.simulator.trading.venue.state.accounts[KEY].trades]
        assert fills == ([Decimal("0.01")] if when == "after" or kind == "latency" else [])
        assert client.simulator.faults.done == {f"{kind}_{when}": 1}


def test_a_ban_without_a_length_is_told() -> None:
    with pytest.raises(ValueError, match="seconds"):
        RestFaults(lambda name: None, lambda address, seconds: None).add([RestFault("ban")])


@pytest.mark.parametrize("kind", ["500", "502", "504", "firewall"])
async def test_some_errors_are_pages(kind: str) -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(rest=[RestFault(kind)]))
        async with aiohttp.ClientSession() as session, session.get(client.simulator.url + "/fapi/v1/time") as answer:
            assert answer.status in (500, 502, 504, 403)
            assert answer.content_type == "text/html"


async def test_the_clock_may_be_wrong() -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(skew_ms=20_000))
        assert await client.refused("GET", "/fapi/v3/balance") == -1021
        now = (await client.send("GET", "/fapi/v1/time"))[1]["serverTime"]
        assert now - client.simulator.clock.now_ms == 20_000
        await client.do("GET", "/fapi/v3/balance", timestamp=now)


async def test_fills_come_in_parts_where_little_is_offered() -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(liquidity={"BTCUSDT": Decimal("0.02")}))
        placed = await client.order("BUY", "MARKET", "0.05", newOrderRespType="RESULT")
        assert (placed["status"], placed["executedQty"]) == ("EXPIRED", "0.02")
        await client.simulator.step(1)
        price = (await client.last() * Decimal("1.02")).quantize(Decimal("0.1"))
        resting = await client.order("BUY", "LIMIT", "0.05", price=price, newOrderRespType="RESULT")
        assert resting["status"] == "PARTIALLY_FILLED"
        client.simulator.ask(FaultRequest(liquidity={"BTCUSDT": None}))
        await client.simulator.step(1)
        assert (await client.do("GET", ORDER, symbol="BTCUSDT", orderId=resting["orderId"]))["status"] == "FILLED"


async def test_the_mark_price_may_leave_the_last() -> None:
    async with exchange() as client:
        client.simulator.ask(FaultRequest(mark={"BTCUSDT": Decimal("0.01")}))
        last = await client.last()
        risk = (await client.do("GET", "/fapi/v2/positionRisk", symbol="BTCUSDT"))[0]
        assert Decimal(risk["markPrice"]) == last * Decimal("1.01")


async def test_a_conditional_order_may_stay_triggering() -> None:
    async with exchange() as client:
        await client.order("BUY", "MARKET", "0.1")
        client.simulator.ask(FaultRequest(stuck_algos=1, algo_lag_ms=5_000))
        stop = {"algoType": "CONDITIONAL", "symbol": "BTCUSDT", "side": "SELL", "type": "STOP_MARKET"}
        more = {"workingType": "MARK_PRICE", "quantity": "0.05"}
        price = (await client.last() * Decimal("0.98")).quantize(Decimal("0.1"))
        for _ in range(2):
            await client.do("POST", "/fapi/v1/algoOrder", **stop, **more, triggerPrice=price)
        client.simulator.ask(FaultRequest(mark={"BTCUSDT": Decimal("-0.03")}))
        statuses = [row["algoStatus"] for row in await client.do("GET", "/fapi/v1/openAlgoOrders")]
        assert statuses == ["TRIGGERING", "TRIGGERING"]
        await client.simulator.step(1)
        every = await client.do("GET", "/fapi/v1/allAlgoOrders", symbol="BTCUSDT")
        assert [row["algoStatus"] for row in every] == ["TRIGGERING", "FINISHED"]
        assert (await client.do("GET", "/fapi/v3/positionRisk"))[0]["positionAmt"] == "0.05"


async def test_stream_messages_are_dropped_doubled_and_reordered() -> None:
    async with exchange() as client, taking(client.simulator.ws_url + "/market/ws/btcusdt@aggTrade") as taken:
        await client.simulator.step(1)
        per_minute = len(taken)
        taken.clear()
        ask = client.simulator.ask
        ask(FaultRequest(stream=[StreamFault("drop")]))
        await client.simulator.step(1)
        ask(FaultRequest(stream=[StreamFault("duplicate")]))
        await client.simulator.step(1)
        ask(FaultRequest(stream=[StreamFault("reorder")]))
        await client.simulator.step(1)
        times = [msgspec.json.decode(text)["E"] for text in taken]
        assert len(times) == 3 * per_minute
        assert len(set(times)) == 3 * per_minute - 1
        assert sum(later < earlier for earlier, later in pairwise(times)) == 1


async def test_user_events_are_lost_too() -> None:
    async with exchange() as client, listening(client) as taken:
        client.simulator.ask(FaultRequest(stream=[StreamFault("drop", "private", "ACCOUNT_UPDATE")]))
        await client.order("BUY", "MARKET", "0.01")
        assert [event["e"] for event in await settled(taken)] == [
            "ORDER_TRADE_UPDATE",
            "TRADE_LITE",
            "ORDER_TRADE_UPDATE",
        ]


async def test_a_half_open_connection_says_nothing_and_holds_nobody_up() -> None:
    url = "/market/ws/btcusdt@kline_1m"
    async with exchange() as client, taking(client.simulator.ws_url + url) as first:
        await client.simulator.step(1)
        client.simulator.ask(FaultRequest(stream=[StreamFault("half_open")]))
        async with taking(client.simulator.ws_url + url) as second:
            before = len(first)
            await client.simulator.step(2)
            assert len(closed_of(second, "BTCUSDT")) == 2
            assert len(first) == before
            assert not first.socket.closed
            client.simulator.ask(FaultRequest(stream=[StreamFault("cut")]))
            await second.ended.wait()


@pytest.mark.parametrize(("kind", "heals"), [("silence", True), ("mute", False)])
async def test_a_stream_may_fall_silent_on_its_connection(kind: str, heals: bool) -> None:
    names = ["btcusdt@kline_1m", "ethusdt@kline_1m"]

    async with exchange() as client, taking(client.simulator.ws_url + "/market/ws/" + "/".join(names)) as taken:
        step = client.simulator.step

        def told() -> set[str]:
            found = {msgspec.json.decode(text)["s"] for text in taken if '"s"' in text}
            taken.clear()
            return found

        await step(1)
        assert told() == {"BTCUSDT", "ETHUSDT"}
        client.simulator.ask(FaultRequest(stream=[StreamFault(kind, name="btcusdt@")]))
        await step(1)
        assert told() == {"ETHUSDT"}
        assert msgspec.json.decode(await taken.ask('{"method":"LIST_SUBSCRIPTIONS","id":1}'))["result"] == names
        for method in ("UNSUBSCRIBE", "SUBSCRIBE"):
            asked = f'{{"method":"{method}","params":["btcusdt@kline_1m"],"id":2}}'
            assert await taken.ask(asked) == '{"result":null,"id":2}'
        await step(1)
        assert told() == ({"BTCUSDT", "ETHUSDT"} if heals else {"ETHUSDT"})
        async with taking(client.simulator.ws_url + "/market/ws/btcusdt@kline_1m") as anew:
            await step(1)
            assert len(closed_of(anew, "BTCUSDT")) == 1
        assert client.simulator.faults.done == {f"stream_{kind}": 1}


async def test_a_connection_may_be_closed_as_after_a_day() -> None:
    async with exchange() as client, taking(client.simulator.ws_url + "/market/ws/btcusdt@kline_1m") as taken:
        client.simulator.ask(FaultRequest(stream=[StreamFault("end")]))
        await taken.ended.wait()
        assert taken.socket.close_code == 1008
        assert client.simulator.faults.done == {"stream_end": 1}


async def test_a_restart_keeps_the_state_and_takes_nothing_meanwhile() -> None:
    async with exchange() as client, listening(client) as taken:
        await client.order("BUY", "MARKET", "0.01")
        client.simulator.ask(FaultRequest(restart=3600))
        await taken.ended.wait()
        with pytest.raises(aiohttp.ClientError):
            await client.send("GET", "/fapi/v1/ping")
        with pytest.raises(aiohttp.ClientError):
            async with taking(client.simulator.ws_url + "/market/ws"):
                pass
        client.simulator.rest_faults.down = False
        assert len(await client.do("GET", "/fapi/v3/positionRisk")) == 1


async def test_a_state_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with exchange(state=path) as client:
        await client.order("BUY", "MARKET", "0.01")
        await client.order(
            "BUY", "LIMIT", "0.01", price=(await client.last() * Decimal("0.95")).quantize(Decimal("0.1"))
        )
        before = client.simulator.trading.venue.state
    assert read_state(path) == before
    async with exchange(state=path) as client:
        assert len(await client.do("GET", "/fapi/v1/openOrders")) == 1
        assert (await client.do("GET", "/fapi/v3/positionRisk"))[0]["positionAmt"] == "0.01"
        assert (await client.order("SELL", "MARKET", "0.01"))["orderId"] == 3
    path.write_text("{")
    with pytest.raises(SimulationFailed, match="cannot read the state"):
        read_state(path)


async def test_listen_keys_die_on_demand() -> None:
    async with exchange() as client, listening(client) as taken:
        client.simulator.ask(FaultRequest(expire_listen_keys=True))
        assert [event["e"] for event in await settled(taken)] == ["listenKeyExpired"]
        client.simulator.ask(FaultRequest(expire_listen_keys=True))
        assert client.simulator.faults.done == {"expire_listen_keys": 1}, "there was no other"


async def test_a_plan_is_the_same_for_the_same_seed_and_happens() -> None:
    plan = FaultPlan(seed=3, per_minute=1.0, at=[At(2, FaultRequest(skew_ms=7))])
    symbols = MARKET.symbols()
    minutes = [plan.of_minute(i, START + i * MINUTE_MS, symbols) for i in range(600)]
    again = FaultPlan(seed=3, per_minute=1.0, at=[At(2, FaultRequest(skew_ms=7))])
    assert minutes == [again.of_minute(i, START + i * MINUTE_MS, symbols) for i in range(600)]
    assert minutes != [
        FaultPlan(seed=4, per_minute=1.0).of_minute(i, START + i * MINUTE_MS, symbols) for i in range(600)
    ]
    assert 520 < sum(map(len, minutes)) < 680
    async with exchange(plan=plan) as client, taking(client.simulator.ws_url + "/market/ws/btcusdt@kline_1m"):
        await client.simulator.step(30)
        assert client.simulator.time.skew_ms == 7
        assert client.simulator.pending_faults + sum(client.simulator.faults.done.values()) > 5


def test_a_plan_draws_every_kind_of_every_symbol() -> None:
    kinds = {**DEFAULT_KINDS, "rest:ban": 1.0}
    plan = FaultPlan(seed=5, per_minute=3.0, kinds=kinds)
    wishes = [wish for i in range(2_000) for wish in plan.of_minute(i, START + i * MINUTE_MS, ("AUSDT", "BUSDT"))]
    rest = {(fault.kind, fault.when) for wish in wishes for fault in wish.rest}
    names = {kind.partition(":")[2] for kind in kinds if kind.startswith("rest:")}
    assert rest == {(name, when) for name in names for when in ("before", "after")}
    streams = {(fault.kind, fault.name) for wish in wishes for fault in wish.stream}
    of_streams, whole = ("drop", "duplicate", "reorder", "silence", "mute"), ("cut", "half_open", "end")
    assert streams == {(kind, name) for kind in of_streams for name in ("ausdt@", "busdt@")} | {(k, "") for k in whole}
    for name in BAR_KINDS:
        assert {bar.symbol for wish in wishes for bar in getattr(wish, name)} == {"AUSDT", "BUSDT"}
    assert {bar.kind for wish in wishes for bar in wish.corrupt} == set(CORRUPTIONS)
    assert {wish.restart is not None for wish in wishes} == {True, False}


@pytest.mark.parametrize(
    "text",
    ["{", '{"kinds": {"nonsense": 1}}', '{"per_minute": -1}', '{"per_hour": 1}', '{"at": [{"minute": 1}]}'],
)
def test_a_plan_that_cannot_be_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(SimulationFailed, match="cannot read the plan"):
        read_plan(path)
    assert set(DEFAULT_KINDS) == set(FaultPlan().kinds)


@pytest.mark.parametrize(
    "wish",
    [
        {"rest": [{"kind": "nonsense"}]},
        {"stream": [{"kind": "nonsense"}]},
        {"stream": [{"kind": "silence", "route": "private"}]},
        {"liquidity": {"NOSUCHUSDT": "1"}},
        {"corrupt": [{"symbol": "BTCUSDT", "open_time": 0, "kind": "nonsense"}]},
        {"nonsense": 1},
    ],
)
async def test_a_fault_that_there_is_not_is_told(wish: dict[str, Any]) -> None:
    async with exchange() as client:
        assert "error" in await post(client.simulator.url + "/simulator/faults", wish)


async def test_an_exchange_without_accounts_answers_as_before() -> None:
    async with (
        Simulator(MARKET, START, stepped=True, options=Options()) as simulator,
        aiohttp.ClientSession() as session,
    ):
        client = Client(simulator, session)
        assert await client.refused("POST", ORDER, **MARKET_ORDER) == -2015
        await simulator.step(3)
