"""The position mode, and what the account answers."""

from __future__ import annotations

import pytest

from market.binance.account import AccountClient
from market.binance.breaker import Breaker, Kind
from market.binance.errors import (
    AccessRefused,
    BinanceError,
    EntriesForbidden,
    ModeMismatch,
    NotFlat,
    VenueUnavailable,
)
from market.binance.leverage import Brackets, Clamped
from market.binance.position_mode import Mode, PositionMode, PositionSide
from tests.market.binance.spoken import (
    ALGO,
    LONG,
    MODE,
    ORDER,
    QUERY,
    D,
    algo,
    leaving,
    one_way,
    state,
    stop,
)
from tests.market.binance.venue import Answer, refusal, served


async def test_without_the_mode_nothing_is_opened_and_everything_closed() -> None:
    async with served() as (venue, transport, _):
        venue.answers |= {MODE: refusal(-1001, "", 503), ORDER: state("x-1"), ALGO: algo()}
        account = AccountClient(transport)
        assert await account.mode.refresh() is None
        with pytest.raises(EntriesForbidden, match="mode is not known"):
            await account.orders.place(LONG)
        assert venue.count(ORDER) == 0
        await account.orders.place(leaving(PositionSide.LONG))
        await account.orders.place_algo(stop(PositionSide.BOTH))
        assert venue.of(ORDER)[0]["positionSide"] == "LONG"
        assert "positionSide" not in venue.of(ALGO)[0]
        assert account.mode.known is None, "an exit tells nothing of the account"
        one_way(venue, hedge=True)
        await account.orders.place(LONG)
        assert venue.of(ORDER)[1]["positionSide"] == "LONG"


async def test_a_read_that_fails_leaves_nothing_known() -> None:
    answers: list[bool | BinanceError] = [True, AccessRefused(401, -2015, "no"), False]

    async def read() -> bool:
        found = answers.pop(0)
        if isinstance(found, BinanceError):
            raise found
        return found

    async def write(hedge: bool) -> None:
        raise AssertionError(hedge)

    mode = PositionMode(read, write)
    assert await mode.refresh() is Mode.HEDGE
    assert await mode.refresh() is None
    assert mode.known is None
    assert "-2015" in str(mode.failure)
    assert await mode.for_entry() is Mode.ONE_WAY
    assert mode.failure is None


@pytest.mark.parametrize("hedge", [True, False])
async def test_the_other_mode_is_tried_once_and_remembered(hedge: bool) -> None:
    async with served() as (venue, transport, _):
        one_way(venue, hedge)
        wrong = refusal(-4061, "Order's position side does not match user's setting.")
        venue.answers[ORDER] = [wrong, state(), state()]
        account = AccountClient(transport)
        await account.orders.place(LONG)
        await account.orders.place(LONG)
        said = ["positionSide" in sent for sent in venue.of(ORDER)]
        assert said == [hedge, not hedge, not hedge]
        assert account.mode.known is (Mode.ONE_WAY if hedge else Mode.HEDGE)
        assert venue.count(MODE) == 1
        venue.answers[ORDER] = [wrong]
        with pytest.raises(ModeMismatch):
            await account.orders.place(LONG)
        assert venue.count(ORDER) == 5, "once, not for ever"
        assert account.mode.known is None


async def test_setting_what_is_so_already_is_success() -> None:
    async with served() as (venue, transport, _):
        account = AccountClient(transport)
        post_mode, post_margin = "POST /fapi/v1/positionSide/dual", "POST /fapi/v1/marginType"
        done = {"code": 200, "msg": "success"}
        for answer in (done, refusal(-4059, "No need to change position side.")):
            venue.answers[post_mode] = answer
            await account.mode.set(Mode.HEDGE)
            assert account.mode.known is Mode.HEDGE
        for answer in (done, refusal(-4046, "No need to change margin type.")):
            venue.answers[post_margin] = answer
            await account.set_margin_type("BTCUSDT", isolated=True)
        assert venue.of(post_margin)[0] == {"symbol": "BTCUSDT", "marginType": "ISOLATED"}
        assert venue.of(post_mode)[0] == {"dualSidePosition": "true"}
        for code in (-4067, -4068, -4531):
            venue.answers[post_mode] = refusal(code)
            with pytest.raises(NotFlat):
                await account.mode.set(Mode.ONE_WAY)
            assert account.mode.known is None


# --- the account ---


async def test_a_leverage_that_cannot_be_set_is_reported_and_raises_nothing() -> None:
    async with served() as (venue, transport, _):
        account = AccountClient(transport)
        bracket = {"bracket": 1, "initialLeverage": 75, "notionalCap": 5000, "notionalFloor": 0}
        tiers = [{"symbol": "AUSDT", "brackets": [bracket | {"maintMarginRatio": 0.01}]}]
        venue.answers["GET /fapi/v1/leverageBracket"] = Answer(tiers)
        brackets = await account.leverage_brackets()
        assert isinstance(brackets, Brackets)
        clamped = brackets.clamp("AUSDT", 200, D(100))
        venue.answers["POST /fapi/v1/leverage"] = {"leverage": 75, "maxNotionalValue": "5000", "symbol": "AUSDT"}
        report = await account.set_leverage("AUSDT", 200, clamped)
        assert (report.leverage, report.failure) == (75, None)
        assert report.reason is not None
        in_force = "GET /fapi/v1/symbolConfig"
        config = {"symbol": "AUSDT", "marginType": "CROSSED", "leverage": 21}
        for answer in (refusal(-4028), refusal(-4161), Answer(cut=True), refusal(-1003, "", 429)):
            venue.answers["POST /fapi/v1/leverage"] = answer
            for told, leverage in ((Answer([config]), 21), (Answer([]), None), (refusal(-1001, "", 503), None)):
                venue.answers[in_force] = told
                asked = venue.count(in_force)
                report = await account.set_leverage("AUSDT", 5, Clamped(5))
                assert report.failure is not None
                assert (report.leverage, venue.count(in_force)) == (leverage, asked + 1)


async def test_what_the_account_answers_is_typed() -> None:
    async with served() as (venue, transport, _):
        totals = {"totalWalletBalance": "100.5", "totalUnrealizedProfit": "-1", "totalMarginBalance": "99.5"}
        position = {"symbol": "BTCUSDT", "positionSide": "SHORT", "positionAmt": "-0.010", "unRealizedProfit": "-1.5"}
        income = {"incomeType": "FUNDING_FEE", "income": "-0.1", "asset": "USDT", "time": 5}
        fees = {"symbol": "B", "makerCommissionRate": "0.0002", "takerCommissionRate": "0.0005"}
        config = {"canTrade": True, "dualSidePosition": True, "multiAssetsMargin": False, "feeTier": 0}
        fill = {"symbol": "B", "id": 1, "orderId": 2, "side": "BUY", "price": "1", "qty": "2", "time": 3, "buyer": True}
        venue.answers |= {
            "GET /fapi/v3/account": totals | {"availableBalance": "50", "assets": [{"asset": "USDT"}], "positions": []},
            "GET /fapi/v3/positionRisk": Answer([position]),
            "GET /fapi/v1/accountConfig": config,
            "GET /fapi/v1/symbolConfig": Answer([{"symbol": "B", "marginType": "CROSSED", "leverage": 21}]),
            "GET /fapi/v1/openOrders": Answer([state(status="NEW")]),
            "GET /fapi/v1/openAlgoOrders": Answer([algo()]),
            "GET /fapi/v1/userTrades": Answer([fill]),
            "GET /fapi/v1/income": Answer([income]),
            "GET /fapi/v1/commissionRate": fees,
            "POST /fapi/v1/countdownCancelAll": {"symbol": "B", "countdownTime": "120000"},
            "DELETE /fapi/v1/allOpenOrders": {"code": 200, "msg": "The operation of cancel all open order is done."},
            "DELETE /fapi/v1/algoOpenOrders": {"code": "200", "msg": "success"},
        }
        account = AccountClient(transport)
        assert (await account.account()).available_balance == 50
        (held,) = await account.positions("BTCUSDT")
        assert (held.position_side, held.position_amt, held.un_realized_profit) == ("SHORT", D("-0.010"), D("-1.5"))
        assert (await account.config()).dual_side_position
        assert (await account.symbol_config())[0].margin_type == "CROSSED"
        assert (await account.open_orders())[0].open
        assert (await account.open_algo_orders("BTCUSDT"))[0].open
        assert (await account.trades("B", 0, 10))[0].qty == 2
        assert (await account.income(0, 10))[0].income == D("-0.1")
        assert (await account.commission("B")).taker_commission_rate == D("0.0005")
        assert (await account.countdown_cancel_all("B", 120_000)).countdown_time == 120_000
        await account.cancel_all("B")
        assert venue.count("DELETE /fapi/v1/algoOpenOrders") == 1
        assert venue.of("GET /fapi/v1/userTrades") == [
            {"symbol": "B", "startTime": "0", "endTime": "9", "limit": "1000"}
        ]


DELETE_ALL, DELETE_ALL_ALGO = "DELETE /fapi/v1/allOpenOrders", "DELETE /fapi/v1/algoOpenOrders"
DONE = {"code": 200, "msg": "success"}


@pytest.mark.parametrize(
    "passing", [refusal(0, "Service Unavailable.", 503), refusal(-1007, "", 408), refusal(-1008, "", 503), Answer(b"{")]
)
@pytest.mark.parametrize("where", [DELETE_ALL, DELETE_ALL_ALGO])
async def test_cancelling_all_is_tried_again_for_both_kinds_of_order(passing: Answer, where: str) -> None:
    async with served() as (venue, transport, _):
        venue.answers |= {DELETE_ALL: DONE, DELETE_ALL_ALGO: DONE} | {where: [passing, passing, DONE]}
        await AccountClient(transport).cancel_all("B")
        assert (venue.count(where), len(venue.asked)) == (3, 4)


async def test_when_one_kind_cannot_be_cancelled_the_other_is_all_the_same() -> None:
    async with served() as (venue, transport, _):
        failed = refusal(0, "Service Unavailable.", 503)
        venue.answers |= {DELETE_ALL: failed, DELETE_ALL_ALGO: DONE}
        with pytest.raises(VenueUnavailable):
            await AccountClient(transport).cancel_all("B")
        assert (venue.count(DELETE_ALL), venue.count(DELETE_ALL_ALGO)) == (3, 1)
        venue.answers |= {DELETE_ALL: refusal(-2015, "no", 401), DELETE_ALL_ALGO: refusal(-1007, "", 408)}
        with pytest.raises(AccessRefused) as caught:
            await AccountClient(transport).cancel_all("B")
        assert "algoOpenOrders" in caught.value.__notes__[0]


async def test_cancels_and_exits_pass_when_every_circuit_is_open() -> None:
    breaker = Breaker()
    async with served(breaker=breaker) as (venue, transport, pauses):
        one_way(venue)
        for kind in [*Kind] * 6:
            pauses.now_s += 0.26
            breaker.record(breaker.permit(kind, pauses.now_s), ok=False, now_s=pauses.now_s)
        venue.answers |= {
            ORDER: state("x-1"),
            ALGO: algo(),
            QUERY: state(),
            "DELETE /fapi/v1/order": state(status="CANCELED"),
            "DELETE /fapi/v1/allOpenOrders": {"code": 200},
            "DELETE /fapi/v1/algoOpenOrders": {"code": 200},
            "POST /fapi/v1/countdownCancelAll": {"symbol": "B", "countdownTime": "0"},
        }
        account = AccountClient(transport)
        await account.orders.place(leaving(PositionSide.BOTH))
        await account.orders.place_algo(stop())
        await account.orders.cancel("BTCUSDT", "a-1")
        await account.orders.order("BTCUSDT", "a-1")
        await account.cancel_all("B")
        await account.countdown_cancel_all("B", 0)
        with pytest.raises(BinanceError, match=r"held back"):
            await account.orders.place(LONG)
        assert venue.count(ORDER) == 1
