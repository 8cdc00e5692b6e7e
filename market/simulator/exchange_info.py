"""The answer of `GET /fapi/v1/exchangeInfo`: the venue's symbols and their trading rules.

Ticks and steps follow the decimals of the recorded prices and the price's size, as the venue's do; the other
numbers are typical ones of the venue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DELIVERY_MS = 4_133_404_800_000
"""What the venue writes as the delivery date of a perpetual contract: the year 2100."""

ORDER_TYPES = ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"]
TIMES_IN_FORCE = ["GTC", "IOC", "FOK", "GTX", "GTD"]
WEIGHT_LIMIT = 2_400
MIN_NOTIONAL = {"BTCUSDT": "50", "ETHUSDT": "20"}
STEP_VALUE_USDT = 100.0
"""The quantity step is the power of ten whose value comes next below this (BTC 0.001, DOGE 1)."""


def power_of_ten(exponent: int) -> str:
    """10**exponent as a plain decimal.

    >>> power_of_ten(-3), power_of_ten(0), power_of_ten(2)
    ('0.001', '1', '100')
    """
    return f"{10.0**exponent:.{max(0, -exponent)}f}"


def quantity_decimals(price: float) -> int:
    """Decimals of a quantity at such a price, 0 to 3.

    >>> [quantity_decimals(price) for price in (95_000.0, 150.0, 0.2)]
    [3, 1, 0]
    """
    return int(np.clip(-np.floor(np.log10(STEP_VALUE_USDT / price)), 0, 3)) if price > 0 else 3


def symbol_info(
    symbol: str, price: float, price_decimals: int, onboard_ms: int, status: str, delivery_ms: int = DELIVERY_MS
) -> dict[str, Any]:
    """One perpetual contract. `price` is any price it has had; filters follow its size."""
    quote = "USDC" if symbol.endswith("USDC") else "USDT"
    base = symbol.removesuffix(quote)
    tick = power_of_ten(-price_decimals)
    digits = quantity_decimals(price)
    step = power_of_ten(-digits)
    most = power_of_ten(int(np.ceil(np.log10(1e7 / price))) if price > 0 else 3)
    highest = power_of_ten(int(np.ceil(np.log10(price))) + 1 if price > 0 else 6)
    lot = {"minQty": step, "maxQty": most, "stepSize": step}
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": delivery_ms,
        "onboardDate": onboard_ms,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": quote,
        # One more than the tick has, as for many of the venue's symbols: the precision is not the tick.
        "pricePrecision": price_decimals + 1,
        "quantityPrecision": digits,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.020000",
        "marketTakeBound": "0.10",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "MARKET_LOT_SIZE", **lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": MIN_NOTIONAL.get(symbol, "5")},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": "1.1000",
                "multiplierDown": "0.9000",
                "multiplierDecimal": "4",
            },
            {"filterType": "POSITION_RISK_CONTROL", "positionControlSide": "NONE"},
        ],
        "orderTypes": ORDER_TYPES,
        "timeInForce": TIMES_IN_FORCE,
    }


def exchange_info(now_ms: int, symbols: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole answer."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_LIMIT},
            {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
        ],
        "exchangeFilters": [],
        "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-100"}],
        "symbols": symbols,
    }
