"""Of the private routes of the simulated exchange: the assets mode, and prices that are matched."""

from __future__ import annotations

from decimal import Decimal

from tests.market.private_helpers import exchange, listening, settled


async def test_the_assets_mode_is_single_and_stays_so() -> None:
    path = "/fapi/v1/multiAssetsMargin"
    async with exchange() as client:
        assert (await client.do("GET", path)) == {"multiAssetsMargin": False}
        assert await client.refused("POST", path) == -1102
        assert await client.refused("POST", path, multiAssetsMargin="false") == -4171
        assert await client.refused("POST", path, multiAssetsMargin="true") == -1020
        await client.do("POST", "/fapi/v1/marginType", symbol="BTCUSDT", marginType="ISOLATED")
        assert await client.refused("POST", path, multiAssetsMargin="true") == -4167
        price = (await client.last() * Decimal("0.95")).quantize(Decimal("0.1"))
        placed = await client.order("BUY", "LIMIT", "0.01", price=price, newOrderRespType="RESULT")
        assert placed["priceMatch"] == "NONE"
        assert await client.refused("POST", path, multiAssetsMargin="true") == -4170
        assert (await client.do("GET", path)) == {"multiAssetsMargin": False}


async def test_a_price_is_matched_and_told() -> None:
    async with exchange() as client, listening(client) as heard:
        last = await client.last()
        placed = await client.order("BUY", "LIMIT", "0.01", priceMatch="QUEUE_5", newOrderRespType="RESULT")
        assert (Decimal(placed["price"]), placed["priceMatch"]) == (last - Decimal("0.5"), "QUEUE_5")
        amended = await client.do(
            *("PUT", "/fapi/v1/order"),
            symbol="BTCUSDT",
            side="BUY",
            quantity="0.02",
            priceMatch="QUEUE_10",
            orderId=placed["orderId"],
        )
        assert Decimal(amended["price"]) == last - 1
        told = [event["o"]["pm"] for event in await settled(heard) if event["e"] == "ORDER_TRADE_UPDATE"]
        assert told == ["QUEUE_5", "QUEUE_10"]
