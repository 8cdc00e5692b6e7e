"""Orders say what the account's mode wants, and never contradict themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance.errors import (
    DoesNotFit,
)
from market.binance.orders import AlgoOrder, AlgoType, Direction, Order
from market.binance.position_mode import Mode, PositionSide
from tests.market.binance.spoken import (
    LONG,
    D,
    leaving,
    stop,
)


@pytest.mark.parametrize(
    ("order", "mode", "side", "extra"),
    [
        (LONG, Mode.ONE_WAY, "BUY", {}),
        (LONG, Mode.HEDGE, "BUY", {"positionSide": "LONG"}),
        (leaving(PositionSide.BOTH), Mode.ONE_WAY, "SELL", {"reduceOnly": True}),
        (leaving(PositionSide.LONG), Mode.HEDGE, "SELL", {"positionSide": "LONG"}),
        (leaving(PositionSide.SHORT, Direction.SHORT), Mode.HEDGE, "BUY", {"positionSide": "SHORT"}),
        (leaving(PositionSide.BOTH, Direction.SHORT), Mode.ONE_WAY, "BUY", {"reduceOnly": True}),
    ],
)
def test_an_order_says_what_the_mode_wants(order: Order, mode: Mode, side: str, extra: dict[str, Any]) -> None:
    fields = order.parameters(mode)
    assert fields["side"] == side
    assert {name: fields[name] for name in ("positionSide", "reduceOnly") if name in fields} == extra
    assert fields["type"] == "MARKET"
    assert fields["newOrderRespType"] == "RESULT"


directions = st.sampled_from(list(Direction))
helds = st.sampled_from([None, *PositionSide])


@settings(deadline=None)
@given(directions, helds, st.sampled_from(list(Mode)), st.sampled_from(list(AlgoType)), st.booleans())
def test_no_order_contradicts_itself(
    direction: Direction, held_as: PositionSide | None, mode: Mode, kind: AlgoType, whole: bool
) -> None:
    plain = Order(symbol="A", direction=direction, client_id="a", quantity=D(1), held_as=held_as, price=D(2))
    trailing, limit = kind is AlgoType.TRAILING_STOP_MARKET, kind in (AlgoType.STOP, AlgoType.TAKE_PROFIT)
    conditional = AlgoOrder(
        symbol="A",
        direction=direction,
        client_id="a",
        held_as=held_as,
        type=kind,
        trigger_price=None if trailing else D(2),
        price=D(2) if limit else None,
        callback_rate=D(1) if trailing else None,
        quantity=None if whole else D(1),
    )
    for order in (plain, conditional):
        try:
            fields = order.parameters(mode)
        except DoesNotFit:
            continue
        assert not {"positionSide", "reduceOnly"} <= set(fields)
        assert ("positionSide" in fields) == (mode is Mode.HEDGE)
        assert not ("closePosition" in fields and ("quantity" in fields or "reduceOnly" in fields))
        assert "stopPrice" not in fields
        opens = fields["side"] == ("BUY" if direction is Direction.LONG else "SELL")
        assert opens == (held_as is None)
        if trailing:
            assert "triggerPrice" not in fields


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "with blank"},
        {"client_id": "x" * 37},
        {"client_id": "é"},
        {"held_as": PositionSide.SHORT},
        {"held_as": None},
        {"trigger_price": None},
        {"price": D(1)},
        {"type": AlgoType.STOP},
        {"type": AlgoType.TRAILING_STOP_MARKET},
        {"type": AlgoType.TRAILING_STOP_MARKET, "trigger_price": None, "callback_rate": D(21), "quantity": D(1)},
        {"type": AlgoType.TRAILING_STOP_MARKET, "trigger_price": None, "callback_rate": D(1)},
        {"callback_rate": D(1)},
        {"activate_price": D(1)},
    ],
)
def test_a_combination_that_the_venue_refuses_is_refused_before(wrong: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit):
        stop(**wrong).parameters(Mode.HEDGE)


def test_a_protective_stop_closes_the_position() -> None:
    fields = stop(PositionSide.LONG).parameters(Mode.HEDGE)
    assert fields["closePosition"] is True
    assert "quantity" not in fields
    assert (fields["side"], fields["positionSide"], fields["clientAlgoId"]) == ("SELL", "LONG", "s-1")
    assert "reduceOnly" not in stop().parameters(Mode.ONE_WAY)
    assert stop(quantity=D(1)).parameters(Mode.ONE_WAY)["reduceOnly"] is True
