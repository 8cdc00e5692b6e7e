"""Parameters of a request, read with the venue's error codes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import cast

from market.simulator.venue.orders import OrderRequest, Side, WorkingType
from market.simulator.venue.positions import PositionSide
from market.simulator.venue.refusals import Refusal, invalid, missing

DECIMAL = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
INTEGER = re.compile(r"-?[0-9]{1,19}")
LARGEST = 2**63 - 1
SELF_TRADE_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH")
POSITION_SIDES = ("BOTH", "LONG", "SHORT")


class Parameters(Mapping[str, str]):
    """What a client sent, by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def text(self, name: str) -> str:
        """A mandatory text."""
        found = self._values.get(name, "")
        if not found:
            raise missing(name)
        return found

    def optional(self, name: str) -> str | None:
        """A text, or None when it is absent; -1105 when it is there and empty."""
        found = self._values.get(name)
        if found == "":
            raise Refusal(-1105, f"Parameter '{name}' was empty.")
        return found

    def integer(self, name: str) -> int | None:
        """An optional whole number of 64 bits."""
        found = self._values.get(name)
        if found is None or found == "":
            return None
        if not INTEGER.fullmatch(found) or abs(int(found)) > LARGEST:
            raise missing(name)
        return int(found)

    def number(self, name: str) -> Decimal | None:
        """An optional decimal."""
        found = self.optional(name)
        if found is None:
            return None
        if not DECIMAL.fullmatch(found):
            raise missing(name)
        return Decimal(found)

    def flag(self, name: str) -> bool | None:
        """An optional `true` or `false`, in any case."""
        found = self.optional(name)
        if found is None:
            return None
        if found.lower() not in ("true", "false"):
            raise invalid(name)
        return found.lower() == "true"

    def limit(self, default: int, most: int) -> int:
        """The parameter `limit`, 1 to `most`."""
        found = self.integer("limit")
        if found is None:
            return default
        if not 1 <= found <= most:
            raise invalid("limit")
        return found

    def time_range(self) -> tuple[int | None, int | None]:
        """startTime and endTime, both inclusive; -1023 when they are the wrong way round."""
        start, end = self.integer("startTime"), self.integer("endTime")
        for name, value in (("startTime", start), ("endTime", end)):
            if value is not None and value < 0:
                raise invalid(name)
        if start is not None and end is not None and start > end:
            raise Refusal(-1023)
        return start, end


def side_of(parameters: Parameters) -> Side:
    """The mandatory side of an order."""
    found = parameters.text("side")
    if found not in ("BUY", "SELL"):
        raise Refusal(-1117)
    return cast("Side", found)


def position_side_of(parameters: Parameters) -> PositionSide:
    """The position side, BOTH unless another is sent."""
    found = parameters.optional("positionSide") or "BOTH"
    if found not in POSITION_SIDES:
        raise Refusal(-1116, "Invalid positionSide.")
    return cast("PositionSide", found)


def price_match_of(parameters: Parameters) -> str | None:
    """How the price of an order is matched; None where it is not."""
    found = parameters.optional("priceMatch") or "NONE"
    return None if found == "NONE" else found


def order_request(parameters: Parameters, *, algo: bool) -> OrderRequest:
    """A request for an order, or for a conditional one, whose parameters have names of their own."""
    working = parameters.optional("workingType") or "CONTRACT_PRICE"
    if working not in ("CONTRACT_PRICE", "MARK_PRICE"):
        raise invalid("workingType")
    if (parameters.optional("selfTradePreventionMode") or "NONE") not in SELF_TRADE_MODES:
        raise invalid("selfTradePreventionMode")
    protect = (parameters.optional("priceProtect") or "FALSE").upper()
    return OrderRequest(
        symbol=parameters.text("symbol"),
        side=side_of(parameters),
        type=parameters.text("type"),
        position_side=position_side_of(parameters),
        time_in_force=parameters.optional("timeInForce"),
        quantity=parameters.number("quantity"),
        price=parameters.number("price"),
        reduce_only=parameters.flag("reduceOnly"),
        close_position=bool(parameters.flag("closePosition")),
        client_id=parameters.optional("clientAlgoId" if algo else "newClientOrderId"),
        trigger_price=parameters.number("triggerPrice") if algo else None,
        working_type=cast("WorkingType", working),
        price_protect=protect == "TRUE",
        activate_price=parameters.number("activatePrice") if algo else None,
        callback_rate=parameters.number("callbackRate") if algo else None,
        price_match=price_match_of(parameters),
    )
