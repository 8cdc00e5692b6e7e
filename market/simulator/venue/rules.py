"""A symbol's trading rules: its filters, and the error code that each of them implies."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from msgspec import Struct

from market.simulator.venue.brackets import BRACKETS, OTHER, Bracket
from market.simulator.venue.refusals import Refusal

CENT = Decimal("0.00000001")
"""What balances, fees and fundings are rounded to."""


def rounded(amount: Decimal) -> Decimal:
    """An amount of money as the venue books it: eight decimals."""
    return amount.quantize(CENT, ROUND_HALF_EVEN)


class Lot(Struct, frozen=True):
    """LOT_SIZE or MARKET_LOT_SIZE."""

    least: Decimal
    most: Decimal
    step: Decimal


class SymbolRules(Struct, frozen=True):
    """What an order on one symbol has to respect. Prices in USDT, quantities in the base asset."""

    symbol: str
    tick: Decimal
    least_price: Decimal
    most_price: Decimal
    lot: Lot
    market_lot: Lot
    least_notional: Decimal
    most_orders: int
    multiplier_up: Decimal
    multiplier_down: Decimal
    trigger_protect: Decimal
    """How far (a fraction) last and mark price may be apart for a protected conditional order to trigger."""
    liquidation_fee: Decimal
    price_decimals: int
    quantity_decimals: int
    brackets: tuple[Bracket, ...]

    @classmethod
    def of(cls, info: dict[str, Any]) -> SymbolRules:
        """The rules that one symbol of `exchangeInfo` states."""
        filters = {item["filterType"]: item for item in info["filters"]}
        price, percent = filters["PRICE_FILTER"], filters["PERCENT_PRICE"]
        return cls(
            symbol=info["symbol"],
            tick=Decimal(price["tickSize"]),
            least_price=Decimal(price["minPrice"]),
            most_price=Decimal(price["maxPrice"]),
            lot=_lot(filters["LOT_SIZE"]),
            market_lot=_lot(filters["MARKET_LOT_SIZE"]),
            least_notional=Decimal(filters["MIN_NOTIONAL"]["notional"]),
            most_orders=filters["MAX_NUM_ORDERS"]["limit"],
            multiplier_up=Decimal(percent["multiplierUp"]),
            multiplier_down=Decimal(percent["multiplierDown"]),
            trigger_protect=Decimal(info["triggerProtect"]),
            liquidation_fee=Decimal(info["liquidationFee"]),
            price_decimals=info["pricePrecision"],
            quantity_decimals=info["quantityPrecision"],
            brackets=BRACKETS.get(info["symbol"], OTHER),
        )

    def on_tick(self, price: Decimal) -> Decimal:
        """The price on the grid that lies nearest, at least the least."""
        steps = ((price - self.least_price) / self.tick).quantize(Decimal(1), ROUND_HALF_EVEN)
        return self.least_price + max(Decimal(0), steps) * self.tick

    def check_price(self, price: Decimal) -> None:
        """PRICE_FILTER: -4001, -4002, -4013, -1111, -4014."""
        if price <= 0:
            raise Refusal(-4001)
        if price > self.most_price:
            raise Refusal(-4002, f"Price greater than max price {self.most_price:f}.")
        if price < self.least_price:
            raise Refusal(-4013, f"Price less than min price {self.least_price:f}.")
        if _decimals(price) > self.price_decimals:
            raise Refusal(-1111)
        if (price - self.least_price) % self.tick:
            raise Refusal(-4014)

    def check_quantity(self, quantity: Decimal, market: bool) -> None:
        """LOT_SIZE, or MARKET_LOT_SIZE for a market order: -4003, -4004, -4005, -1111, -4023."""
        lot = self.market_lot if market else self.lot
        if quantity <= 0:
            raise Refusal(-4003)
        if _decimals(quantity) > self.quantity_decimals:
            raise Refusal(-1111)
        if quantity < lot.least:
            raise Refusal(-4004)
        if quantity > lot.most:
            raise Refusal(-4005)
        if (quantity - lot.least) % lot.step:
            raise Refusal(-4023)

    def check_notional(self, notional: Decimal) -> None:
        """MIN_NOTIONAL: -4164. Reduce-only orders are exempt, and not brought here."""
        if notional < self.least_notional:
            raise Refusal(-4164, notional=f"{self.least_notional:f}")

    def check_percent(self, buys: bool, price: Decimal, mark: Decimal) -> None:
        """PERCENT_PRICE of a limit price against the mark price: -4016, -4024."""
        if buys and price > mark * self.multiplier_up:
            raise Refusal(-4016, f"Limit price can't be higher than {mark * self.multiplier_up:f}.")
        if not buys and price < mark * self.multiplier_down:
            raise Refusal(-4024, f"Limit price can't be lower than {mark * self.multiplier_down:f}.")

    def check_market_percent(self, buys: bool, last: Decimal, mark: Decimal) -> None:
        """PERCENT_PRICE of a market order, by the price it would meet: -4131."""
        if (buys and last > mark * self.multiplier_up) or (not buys and last < mark * self.multiplier_down):
            raise Refusal(-4131)


def _lot(item: dict[str, str]) -> Lot:
    return Lot(Decimal(item["minQty"]), Decimal(item["maxQty"]), Decimal(item["stepSize"]))


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
