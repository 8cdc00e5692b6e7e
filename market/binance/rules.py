"""A symbol's trading rules, and orders made to fit them. `Decimal` throughout: nothing is rounded by accident.

Quantities go down. Prices go to the safe side of what was asked for: a limit order never pays more or takes less, and
a trigger never fires later. What does not fit and cannot be rounded so is refused with the reason and the rule's
number; nothing is silently made larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation, localcontext
from enum import StrEnum
from typing import Any

from market.binance.errors import AnswerInvalid, DoesNotFit
from market.binance.rest import ExchangeInfo, SymbolInfo

ZERO = Decimal(0)


class Side(StrEnum):
    """Whether an order buys or sells."""

    BUY = "BUY"
    SELL = "SELL"


@dataclass(frozen=True, slots=True)
class Grid:
    """Allowed values: `least`, `least + step`, … up to `most`. A bound or step of 0 is none."""

    least: Decimal
    most: Decimal
    step: Decimal

    def round(self, value: Decimal, *, up: bool) -> Decimal:
        """The nearest value of the grid below (or above) `value`, bounds not looked at.

        >>> Grid(Decimal("261.10"), Decimal(0), Decimal("0.10")).round(Decimal("300.17"), up=False)
        Decimal('300.10')
        """
        if self.step == ZERO or not value.is_finite():
            return value
        # The finest decimal of the grid: the result has no more than the venue takes.
        place = min(_exponent(self.least), _exponent(self.step))
        digits = max(value.adjusted(), self.least.adjusted(), self.step.adjusted()) - place + 3
        # With so many digits nothing but the rounding itself is inexact; the usual 28 can round the other way.
        with localcontext(Context(prec=max(digits, 28))):
            near = value.quantize(Decimal(1).scaleb(place), ROUND_CEILING if up else ROUND_FLOOR)
            over = int((near - self.least).scaleb(-place)), int(self.step.scaleb(-place))
            steps = -(-over[0] // over[1]) if up else over[0] // over[1]
            return self.least + steps * self.step

    def outside(self, value: Decimal) -> str | None:
        """Why `value` is out of bounds, or None."""
        if value < self.least:
            return f"{value} is below the least, {self.least}"
        if self.most and value > self.most:
            return f"{value} is above the most, {self.most}"
        return None


@dataclass(frozen=True, slots=True)
class Fitted:
    """Quantity and price as they can be sent."""

    quantity: Decimal
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """What the venue takes for one symbol.

    `min_notional` is the least value of an order that does not only reduce. `percent_up` and `percent_down` bound a
    price by multiples of the mark price. A rule that the symbol does not have is 0.
    """

    symbol: str
    price: Grid
    quantity: Grid
    market_quantity: Grid
    min_notional: Decimal = ZERO
    percent_up: Decimal = ZERO
    percent_down: Decimal = ZERO

    def limit_price(self, side: Side, price: Decimal) -> Decimal:
        """The price of a limit order: a buy not above `price`, a sell not below it."""
        return self._priced(self.price.round(price, up=side is Side.SELL))

    def trigger_price(self, side: Side, price: Decimal, *, stop: bool) -> Decimal:
        """The trigger of a stop (or a target) whose order has `side`, on the side where it fires no later.

        A selling stop and a buying target fire as the price falls to them, so they go up; the others go down.
        """
        return self._priced(self.price.round(price, up=(side is Side.SELL) is stop))

    def size(self, quantity: Decimal, *, market: bool) -> Decimal:
        """`quantity` rounded down; `DoesNotFit` when that is out of bounds."""
        grid = self.market_quantity if market else self.quantity
        if not quantity.is_finite():
            raise DoesNotFit(self.symbol, f"the quantity is {quantity}")
        rounded = grid.round(quantity, up=False)
        reason = "the quantity rounds to nothing" if rounded <= ZERO else grid.outside(rounded)
        if reason is not None:
            raise DoesNotFit(self.symbol, f"quantity {quantity}: {reason}")
        return rounded

    def fit(
        self, side: Side, quantity: Decimal, price: Decimal | None, mark_price: Decimal, *, reduces: bool = False
    ) -> Fitted:
        """An order made to fit, or `DoesNotFit`. Without a price it is a market order, valued at the mark price."""
        size = self.size(quantity, market=price is None)
        limit = None if price is None else self.limit_price(side, price)
        if limit is not None:
            self._within_percent(side, limit, mark_price)
        value = size * (mark_price if limit is None else limit)
        if not reduces and value < self.min_notional:
            raise DoesNotFit(self.symbol, f"its value {value.normalize():f} is below the least, {self.min_notional}")
        return Fitted(size, limit)

    def _within_percent(self, side: Side, price: Decimal, mark_price: Decimal) -> None:
        if side is Side.BUY and self.percent_up and price > mark_price * self.percent_up:
            raise DoesNotFit(self.symbol, f"{price} is more than {self.percent_up} times the mark price {mark_price}")
        if side is Side.SELL and self.percent_down and price < mark_price * self.percent_down:
            raise DoesNotFit(self.symbol, f"{price} is less than {self.percent_down} times the mark price {mark_price}")

    def _priced(self, price: Decimal) -> Decimal:
        reason = self.price.outside(price) if price.is_finite() and price > ZERO else f"the price is {price}"
        if reason is not None:
            raise DoesNotFit(self.symbol, reason)
        return price


def rules_of(info: SymbolInfo) -> SymbolRules:
    """The rules of one symbol. Filters of unknown kinds are passed over.

    `AnswerInvalid` when it lacks what no order can do without: a step of prices and one of quantities. A symbol that is
    not in trading yet may.
    """
    filters = {str(each.get("filterType")): each for each in info.filters}
    price = _grid(info.symbol, filters.get("PRICE_FILTER"), ("minPrice", "maxPrice", "tickSize"))
    lot = _grid(info.symbol, filters.get("LOT_SIZE"), ("minQty", "maxQty", "stepSize"))
    market = filters.get("MARKET_LOT_SIZE")
    percent = filters.get("PERCENT_PRICE", {})
    return SymbolRules(
        symbol=info.symbol,
        price=price,
        quantity=lot,
        market_quantity=lot if market is None else _grid(info.symbol, market, ("minQty", "maxQty", "stepSize")),
        min_notional=_number(info.symbol, filters.get("MIN_NOTIONAL", {}), "notional"),
        percent_up=_number(info.symbol, percent, "multiplierUp"),
        percent_down=_number(info.symbol, percent, "multiplierDown"),
    )


def all_rules(info: ExchangeInfo) -> tuple[dict[str, SymbolRules], dict[str, str]]:
    """The rules of every symbol that has them, and why the others have none."""
    found: dict[str, SymbolRules] = {}
    without: dict[str, str] = {}
    for each in info.symbols:
        try:
            found[each.symbol] = rules_of(each)
        except AnswerInvalid as error:
            without[each.symbol] = str(error)
    return found, without


def _exponent(number: Decimal) -> int:
    return int(number.as_tuple().exponent)


def _grid(symbol: str, rule: Mapping[str, Any] | None, names: tuple[str, str, str]) -> Grid:
    least, most, step = (_number(symbol, rule or {}, name) for name in names)
    if step <= ZERO:
        raise AnswerInvalid("exchangeInfo", f"{symbol} has no {names[2]}: it is not in trading yet")
    return Grid(least, most, step)


def _number(symbol: str, rule: Mapping[str, Any], name: str) -> Decimal:
    """A number of a filter, 0 if it has none; without the zeros at its end that the venue writes."""
    value = rule.get(name, "0")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < ZERO:
        raise AnswerInvalid("exchangeInfo", f"{name} of {symbol} is {value!r}")
    return number
