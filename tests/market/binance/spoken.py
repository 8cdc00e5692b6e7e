"""Orders, and what a venue says of them, for the tests."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from market.binance.orders import AlgoOrder, AlgoType, Direction, Order
from market.binance.position_mode import PositionSide
from tests.market.binance.venue import Venue

D = Decimal
ORDER, ALGO = "POST /fapi/v1/order", "POST /fapi/v1/algoOrder"
QUERY, QUERY_ALGO = "GET /fapi/v1/order", "GET /fapi/v1/algoOrder"
MODE = "GET /fapi/v1/positionSide/dual"

LONG = Order(symbol="BTCUSDT", direction=Direction.LONG, client_id="a-1", quantity=D("0.002"))


def leaving(held_as: PositionSide, direction: Direction = Direction.LONG) -> Order:
    return Order(symbol="BTCUSDT", direction=direction, client_id="x-1", quantity=D("0.002"), held_as=held_as)


def stop(held_as: PositionSide | None = PositionSide.BOTH, **changes: Any) -> AlgoOrder:
    values: dict[str, Any] = {"symbol": "BTCUSDT", "direction": Direction.LONG, "client_id": "s-1", "held_as": held_as}
    values |= {"type": AlgoType.STOP_MARKET, "trigger_price": D("50000.10")}
    return AlgoOrder(**(values | changes))


def state(client_id: str = "a-1", status: str = "FILLED", **changes: Any) -> dict[str, Any]:
    told = {"symbol": "BTCUSDT", "orderId": 7, "clientOrderId": client_id, "status": status, "side": "BUY"}
    return told | {"avgPrice": "60000.1", "origQty": "0.002", "executedQty": "0.002", "newField": [1]} | changes


def algo(client_id: str = "s-1", status: str = "NEW", **changes: Any) -> dict[str, Any]:
    told = {"algoId": 1000000033225453, "clientAlgoId": client_id, "algoStatus": status, "triggerPrice": "50000.10"}
    return told | {"orderType": "STOP_MARKET", "symbol": "BTCUSDT", "side": "SELL", "quantity": "0"} | changes


def one_way(venue: Venue, hedge: bool = False) -> None:
    venue.answers[MODE] = {"dualSidePosition": hedge}
