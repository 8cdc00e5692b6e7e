"""Trading rules, listings and leverage: on the venue's own answer, and on all that hypothesis makes of it."""

from __future__ import annotations

import gzip
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.bars import DAY_MS
from market.binance.errors import AnswerInvalid, DoesNotFit
from market.binance.leverage import MOST, Brackets
from market.binance.listings import Change, Standing, changes, standing, standings
from market.binance.rest import ExchangeInfo, SymbolInfo
from market.binance.rules import Fitted, Grid, Side, SymbolRules, all_rules, rules_of

D = Decimal


@pytest.fixture(scope="module")
def info(shared_data: Path) -> ExchangeInfo:
    raw = gzip.decompress((shared_data / "exchange/exchange_info.json.gz").read_bytes())
    return msgspec.json.decode(raw, type=ExchangeInfo, strict=False)


@pytest.fixture(scope="module")
def brackets(shared_data: Path) -> Brackets:
    raw = gzip.decompress((shared_data / "exchange/leverage_brackets.json.gz").read_bytes())
    answer = [
        {"symbol": rows[0]["symbol"].split(":")[0].replace("/", ""), "brackets": [row["info"] for row in rows]}
        for rows in msgspec.json.decode(raw).values()
        if rows and rows[0]["symbol"].endswith(":USDT")
    ]
    return brackets_of(answer)


def brackets_of(answer: list[Any]) -> Brackets:
    return Brackets.of([msgspec.Raw(msgspec.json.encode(row)) for row in answer])


BTC = SymbolRules(
    "BTCUSDT",
    price=Grid(D("261.10"), D("809484"), D("0.10")),
    quantity=Grid(D("0.001"), D("1000"), D("0.001")),
    market_quantity=Grid(D("0.001"), D("120"), D("0.001")),
    min_notional=D("50"),
    percent_up=D("1.05"),
    percent_down=D("0.95"),
)


def test_the_recorded_answer(info: ExchangeInfo) -> None:
    rules, without = all_rules(info)
    assert len(rules) + len(without) == 438
    assert without == {}
    found = rules["BTCUSDT"]
    assert (found.price, found.min_notional) == (BTC.price, D("100"))
    assert (found.percent_up, found.percent_down) == (D("1.5000"), D("0.5000"))
    kinds: dict[Standing, list[str]] = {}
    for each in info.symbols:
        kinds.setdefault(standing(each, 1_741_261_103_856)[0], []).append(each.symbol)
    # Pending are those in other coins too, which are never entered.
    counts = {kind: len(symbols) for kind, symbols in kinds.items()}
    assert counts == {Standing.TRADING: 369, Standing.LEAVING: 29, Standing.PENDING: 40}
    assert all(each.status == "SETTLING" for each in info.symbols if each.symbol in kinds[Standing.LEAVING])


prices = st.one_of(st.decimals("0.00000001", "2000000", places=9), st.decimals("0.00000001", "2000000"))
quantities = st.one_of(st.decimals("0", "20000000", places=7), st.decimals("0", "20000000"))
sides = st.sampled_from(list(Side))


@settings(max_examples=150, deadline=None)
@given(st.data(), prices, quantities, sides)
def test_what_fits_is_on_the_grid_and_on_the_safe_side(
    info: ExchangeInfo, data: st.DataObject, price: Decimal, quantity: Decimal, side: Side
) -> None:
    """For every symbol of the venue: what comes back is a value that the venue's own formulas take."""
    symbol = data.draw(st.sampled_from(info.symbols))
    rules = rules_of(symbol)
    filters = {each["filterType"]: each for each in symbol.filters}
    mark = data.draw(st.sampled_from([price, price * 2, price / 2]))
    try:
        fitted = rules.fit(side, quantity, price, mark)
    except DoesNotFit:
        return
    assert fitted.price is not None
    limits, lot = filters["PRICE_FILTER"], filters["LOT_SIZE"]
    assert (fitted.price - D(limits["minPrice"])) % D(limits["tickSize"]) == 0
    assert D(limits["minPrice"]) <= fitted.price <= D(limits["maxPrice"])
    assert (fitted.quantity - D(lot["minQty"])) % D(lot["stepSize"]) == 0
    assert D(lot["minQty"]) <= fitted.quantity <= D(lot["maxQty"])
    assert quantity - D(lot["stepSize"]) < fitted.quantity <= quantity
    assert fitted.price <= price if side is Side.BUY else fitted.price >= price
    assert abs(fitted.price - price) < D(limits["tickSize"])
    assert fitted.price * fitted.quantity >= D(filters["MIN_NOTIONAL"]["notional"])
    if side is Side.BUY:
        assert fitted.price <= mark * D(filters["PERCENT_PRICE"]["multiplierUp"])
    else:
        assert fitted.price >= mark * D(filters["PERCENT_PRICE"]["multiplierDown"])
    assert rules.fit(side, fitted.quantity, fitted.price, mark) == fitted, "what fits is left as it is"


@settings(deadline=None)
@given(
    st.decimals("-1e12", "1e12", allow_nan=False, allow_infinity=False),
    st.decimals("0", "1000", places=8),
    st.integers(1, 10**9),
    st.integers(-9, 2),
    st.integers(0, 60),
)
def test_rounding_is_exact_for_any_number_of_digits(
    value: Decimal, least: Decimal, step: int, exponent: int, digits: int
) -> None:
    """Against fractions, which do not round; the value comes close to the next step from below and above."""
    grid = Grid(least, D(0), D(step).scaleb(exponent))
    tail = D(1).scaleb(-digits)
    with localcontext(prec=200):
        near = [value, grid.round(value, up=True) - tail, grid.round(value, up=True) + tail]
    for each in near:
        low, high = grid.round(each, up=False), grid.round(each, up=True)
        exact, size = Fraction(each) - Fraction(least), Fraction(grid.step)
        assert Fraction(low) - Fraction(least) == exact // size * size
        assert Fraction(high) - Fraction(least) == -(-exact // size) * size
        assert low <= each <= high


def test_a_quantity_a_hair_below_the_next_step_is_not_made_larger() -> None:
    assert BTC.size(D("0.2999999999999999999999999999999999"), market=False) == D("0.299")


def test_prices_go_to_the_safe_side() -> None:
    wanted = D("60000.17")
    assert BTC.limit_price(Side.BUY, wanted) == D("60000.10")
    assert BTC.limit_price(Side.SELL, wanted) == D("60000.20")
    # A long's stop sells as the price falls to it: the higher one fires first. Its target sells as it rises.
    assert BTC.trigger_price(Side.SELL, wanted, stop=True) == D("60000.20")
    assert BTC.trigger_price(Side.SELL, wanted, stop=False) == D("60000.10")
    assert BTC.trigger_price(Side.BUY, wanted, stop=True) == D("60000.10")
    assert BTC.trigger_price(Side.BUY, wanted, stop=False) == D("60000.20")


def test_market_orders_have_their_own_bounds_and_are_valued_at_the_mark_price() -> None:
    mark = D("60000")
    assert BTC.fit(Side.BUY, D("0.0019"), None, mark) == Fitted(D("0.001"), None)
    with pytest.raises(DoesNotFit, match="above the most, 120"):
        BTC.fit(Side.BUY, D("121"), None, mark)
    assert BTC.fit(Side.BUY, D("121"), mark, mark).quantity == D("121")
    with pytest.raises(DoesNotFit, match="its value 40 is below the least, 50"):
        BTC.fit(Side.SELL, D("0.001"), None, D("40000"))
    assert BTC.fit(Side.SELL, D("0.001"), None, D("40000"), reduces=True).quantity == D("0.001")


@pytest.mark.parametrize(
    ("quantity", "price", "reason"),
    [
        ("0.0009", "60000", "rounds to nothing"),
        ("-1", "60000", "rounds to nothing"),
        ("NaN", "60000", "NaN"),
        ("1001", "60000", "above the most"),
        ("1", "261.05", "below the least|price is"),
        ("1", "900000", "above the most"),
        ("1", "63000.1", "1.05 times the mark price"),
        ("1", "NaN", "NaN"),
        ("1", "-5", "the price is"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(quantity: str, price: str, reason: str) -> None:
    with pytest.raises(DoesNotFit, match=reason):
        BTC.fit(Side.BUY, D(quantity), D(price), D("60000"))


def symbol_info(**changes: Any) -> SymbolInfo:
    filters = (
        {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "1000", "tickSize": "0.1"},
        {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "1000", "stepSize": "1"},
        {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
        {"filterType": "SOMETHING_NEW", "limit": None},
    )
    values = {"contract_type": "PERPETUAL", "status": "TRADING", "quote_asset": "USDT", "onboard_date": 5 * DAY_MS}
    return SymbolInfo(**({"symbol": "NEWUSDT", "filters": filters} | values | changes))


def test_unknown_filters_and_contract_types_are_tolerated() -> None:
    rules = rules_of(symbol_info())
    assert (rules.market_quantity, rules.min_notional) == (rules.quantity, 0)
    assert rules.fit(Side.BUY, D("3.7"), None, D("5")).quantity == 3
    gold = symbol_info(contract_type="TRADIFI_PERPETUAL")
    rules_of(gold)
    assert standing(gold, 9 * DAY_MS) == (Standing.PENDING, "it is a TRADIFI_PERPETUAL contract in USDT")
    for wrong in ({"tickSize": "0"}, {"tickSize": "x"}, {"tickSize": "-1"}, {"tickSize": "NaN"}, {"tickSize": None}):
        filters = (
            {"filterType": "PRICE_FILTER", "minPrice": "0.1", "maxPrice": "9"} | wrong,
            *symbol_info().filters[1:],
        )
        with pytest.raises(AnswerInvalid, match="NEWUSDT"):
            rules_of(symbol_info(filters=filters))


def test_symbols_enter_and_leave_in_order() -> None:
    def answer(*symbols: SymbolInfo) -> ExchangeInfo:
        return ExchangeInfo(symbols)

    now = 9 * DAY_MS
    early = symbol_info(symbol="EARLY", onboard_date=now + 1)
    bare = symbol_info(symbol="BARE", filters=())
    waiting = symbol_info(symbol="WAIT", status="PENDING_TRADING")
    first = answer(symbol_info(symbol="A"), symbol_info(symbol="B"), early, bare, waiting)
    known = standings(first, now)
    assert known == {
        "A": Standing.TRADING,
        "B": Standing.TRADING,
        "EARLY": Standing.PENDING,
        "BARE": Standing.PENDING,
        "WAIT": Standing.PENDING,
    }
    assert changes(known, first, now) == []
    ending = symbol_info(symbol="B", delivery_date=now + DAY_MS)
    second = answer(ending, early, bare, symbol_info(symbol="WAIT"), symbol_info(symbol="Z"))
    found = changes(known, second, now + 1)
    assert found == [
        Change("A", Standing.TRADING, Standing.LEAVING, "the venue does not list it"),
        Change("B", Standing.TRADING, Standing.LEAVING, "the venue has set its end"),
        Change("EARLY", Standing.PENDING, Standing.TRADING, "it is in trading"),
        Change("WAIT", Standing.PENDING, Standing.TRADING, "it is in trading"),
        Change("Z", None, Standing.TRADING, "it is in trading"),
    ]
    known |= {change.symbol: change.after for change in found}
    third = answer(symbol_info(symbol="B", status="CLOSE"))
    gone = [change.symbol for change in changes(known, third, now + 2) if change.after is Standing.GONE]
    assert gone == ["A", "B", "BARE"]
    assert all(change.after is not Standing.TRADING for change in changes(known, answer(), now))


def test_leverage_on_the_recorded_brackets(brackets: Brackets) -> None:
    assert brackets.clamp("BTCUSDT", 20, D(1000)).reason is None
    most = brackets.clamp("BTCUSDT", 200, D(1000))
    assert most.leverage == MOST
    assert most.reason == "at most 125"
    cut = brackets.clamp("0GUSDT", 100, D("4999"))
    assert (cut.leverage, cut.reason) == (75, "bracket 1 of 0GUSDT (up to 5000) allows 75")
    assert brackets.clamp("0GUSDT", 75, D(5000)).leverage == 75
    assert brackets.clamp("0GUSDT", 75, D(-5001)).leverage == 50
    assert brackets.clamp("0GUSDT", 75, D(10**12)).leverage < 5
    assert brackets.clamp("NOSUCH", 300, D(1)) == brackets.clamp("NOSUCH", 126, D(1))
    assert brackets.clamp("BTCUSDT", 0, D(1)).leverage == 1


@settings(deadline=None)
@given(st.integers(-5, 400), st.decimals("-1e10", "1e10", places=2))
def test_leverage_is_never_more_than_allowed(brackets: Brackets, wanted: int, notional: Decimal) -> None:
    for symbol in ("BTCUSDT", "0GUSDT", "ETHUSDT", "NOSUCH"):
        clamped = brackets.clamp(symbol, wanted, notional)
        bracket = brackets.bracket(symbol, notional)
        assert 1 <= clamped.leverage <= min(MOST, MOST if bracket is None else bracket.initial_leverage)
        assert (clamped.reason is None) == (clamped.leverage == wanted)


def test_one_odd_symbol_does_not_cost_the_brackets_of_the_others() -> None:
    rows = [
        {"bracket": 1, "initialLeverage": 50, "notionalCap": 10, "notionalFloor": 0, "maintMarginRatio": 0.01},
        {"bracket": 2, "initialLeverage": 20, "notionalCap": 30, "notionalFloor": 20, "maintMarginRatio": 0.02},
    ]
    good = {"symbol": "GOOD", "brackets": rows[:1]}
    for wrong, reason in (
        (rows, "do not join"),
        ([], "do not join"),
        ([rows[0] | {"initialLeverage": 0}], "leverage of 0"),
        ([rows[0] | {"notionalCap": "NaN"}], "notional_cap is no number"),
        ([rows[0] | {"notionalFloor": None}], "decimal"),
        (None, "array"),
    ):
        found = brackets_of([{"symbol": "ODD", "brackets": wrong}, good])
        assert list(found.without) == ["ODD"]
        assert reason in found.without["ODD"]
        assert found.bracket("ODD", D(1)) is None
        assert found.clamp("GOOD", 60, D(1)).leverage == 50
    without_name: list[Any] = [[], {}, {"symbol": 7}]
    for nameless in without_name:
        with pytest.raises(AnswerInvalid, match="leverageBracket"):
            brackets_of([nameless, good])
