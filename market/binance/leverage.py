"""How much leverage a symbol takes, and setting it: a wish that may be cut, and whose failure stops no trade."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

import msgspec

from market.binance.decoding import UNDECODABLE, not_finite
from market.binance.errors import AnswerInvalid

MOST = 125
"""More than this is never asked for, whatever a bracket allows."""


class Bracket(msgspec.Struct, frozen=True, rename="camel"):
    """One bracket of a symbol: up to `notional_cap` of position value, at most `initial_leverage`."""

    bracket: int
    initial_leverage: int
    notional_cap: Decimal
    notional_floor: Decimal


class SymbolBrackets(msgspec.Struct, frozen=True, rename="camel"):
    """The brackets of one symbol, as `leverageBracket` answers."""

    symbol: str
    brackets: tuple[Bracket, ...]
    notional_coef: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True)
class Clamped:
    """The leverage to set, and why it is not the one that was wanted (None if it is)."""

    leverage: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LeverageReport:
    """What became of setting a leverage.

    `leverage` is what is in force, None when that is not known. `failure` says why it was not set; the trade goes on
    with what is in force.
    """

    symbol: str
    wanted: int
    leverage: int | None
    reason: str | None = None
    failure: str | None = None


class Brackets:
    """The leverage brackets of all symbols that have them; `without` says why the others have none."""

    def __init__(self, symbols: Mapping[str, SymbolBrackets], without: Mapping[str, str] | None = None) -> None:
        self._symbols = dict(symbols)
        self.without = dict(without or {})

    @classmethod
    def of(cls, answer: list[msgspec.Raw]) -> Brackets:
        """From the answer of `leverageBracket`; `AnswerInvalid` for a row that names no symbol."""
        found: dict[str, SymbolBrackets] = {}
        without: dict[str, str] = {}
        for row in answer:
            try:
                each = msgspec.json.decode(row, type=SymbolBrackets, strict=False)
                wrong = _wrong(each)
            except UNDECODABLE as error:
                wrong = str(error)
            if wrong is None:
                found[each.symbol] = each
            else:
                without[_named(row)] = wrong
        return cls(found, without)

    def bracket(self, symbol: str, notional: Decimal) -> Bracket | None:
        """The bracket that a position of that value (any sign) is in; the last one beyond all; None if not known."""
        found = self._symbols.get(symbol)
        if found is None:
            return None
        ordered = sorted(found.brackets, key=lambda bracket: bracket.notional_floor)
        # A cap belongs to its bracket.
        return next((each for each in ordered if abs(notional) <= each.notional_cap * found.notional_coef), ordered[-1])

    def clamp(self, symbol: str, wanted: int, notional: Decimal) -> Clamped:
        """The leverage to set for a position of that value: at least 1, at most what the bracket and we allow."""
        if wanted < 1:
            return Clamped(1, f"{wanted} is below 1")
        bracket = self.bracket(symbol, notional)
        if bracket is None:
            return Clamped(min(wanted, MOST), f"at most {MOST}" if wanted > MOST else None)
        allowed = min(MOST, bracket.initial_leverage)
        if wanted <= allowed:
            return Clamped(wanted)
        if allowed == MOST:
            return Clamped(MOST, f"at most {MOST}")
        reason = f"bracket {bracket.bracket} of {symbol} (up to {bracket.notional_cap:f}) allows {allowed}"
        return Clamped(allowed, reason)


class _Named(msgspec.Struct):
    symbol: str


def _named(row: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(row, type=_Named).symbol
    except UNDECODABLE as error:
        raise AnswerInvalid("leverageBracket", str(error)) from None


def _wrong(symbol: SymbolBrackets) -> str | None:
    """Why brackets cannot be used: they leave a hole, or allow nothing."""
    number = not_finite(symbol)
    if number is not None:
        return f"its {number} is no number"
    ordered = sorted(symbol.brackets, key=lambda bracket: bracket.notional_floor)
    if not ordered or any(low.notional_cap != high.notional_floor for low, high in pairwise(ordered)):
        return "its brackets do not join"
    least = min(bracket.initial_leverage for bracket in ordered)
    return f"a bracket allows a leverage of {least}" if least < 1 else None
