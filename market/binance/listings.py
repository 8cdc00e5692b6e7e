"""Which symbols may be traded, and how they enter and leave: in order, so that nobody holds what cannot be sold.

A symbol is *pending* until the venue trades it, then *trading*. It *leaves* when the venue has set an end within the
notice (or has stopped it): positions may be closed and none opened. At last it is *gone*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from market.bars import DAY_MS
from market.binance.errors import AnswerInvalid
from market.binance.rest import ExchangeInfo, SymbolInfo
from market.binance.rules import rules_of

NOTICE_MS = 3 * DAY_MS
"""How long before a contract's end no position is opened in it any more."""
ENDING = frozenset(
    {"SETTLING", "PRE_SETTLE", "PENDING_SETTLE", "DELIVERING", "PRE_DELIVERING", "CLOSE", "BREAK", "HALT"}
)
ENDED = frozenset({"CLOSE", "SETTLED", "DELIVERED"})


class Standing(Enum):
    """How a symbol stands with the venue."""

    PENDING = "pending"
    TRADING = "trading"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Change:
    """One symbol that stands otherwise than before (None: it was not known), and why."""

    symbol: str
    before: Standing | None
    after: Standing
    reason: str


def standing(info: SymbolInfo, now_ms: int) -> tuple[Standing, str]:
    """How a contract stands at the venue's time `now_ms`, and why.

    Contracts other than perpetual ones in USDT, of known or unknown type, are never entered: they count as pending.
    """
    if info.status in ENDED:
        return Standing.GONE, f"its status is {info.status}"
    if info.status != "TRADING":
        ending = info.status in ENDING
        return (Standing.LEAVING if ending else Standing.PENDING), f"its status is {info.status}"
    if not info.tradable:
        return Standing.PENDING, f"it is a {info.contract_type or 'nameless'} contract in {info.quote_asset}"
    if now_ms < info.onboard_date:
        return Standing.PENDING, "its listing lies ahead"
    if 0 < info.delivery_date <= now_ms + NOTICE_MS:
        return Standing.LEAVING, "the venue has set its end"
    try:
        rules_of(info)
    except AnswerInvalid as error:
        return Standing.PENDING, str(error)
    return Standing.TRADING, "it is in trading"


def standings(info: ExchangeInfo, now_ms: int) -> dict[str, Standing]:
    """How every symbol of the answer stands."""
    return {each.symbol: standing(each, now_ms)[0] for each in info.symbols}


def changes(known: Mapping[str, Standing], info: ExchangeInfo, now_ms: int) -> list[Change]:
    """What has changed since `known`: first those that leave, then those that enter, each in alphabetical order.

    A symbol that the answer no longer has is leaving at first, and gone when it is missing once more: one answer that
    lacks a symbol is no proof.
    """
    found: dict[str, tuple[Standing, str]] = {each.symbol: standing(each, now_ms) for each in info.symbols}
    for symbol, before in known.items():
        if symbol not in found and before is not Standing.GONE:
            missing = Standing.LEAVING if before is Standing.TRADING else Standing.GONE
            found[symbol] = missing, "the venue does not list it"
    changed = [
        Change(symbol, known.get(symbol), after, reason)
        for symbol, (after, reason) in found.items()
        if known.get(symbol) is not after
    ]
    entering = (Standing.PENDING, Standing.TRADING)
    return sorted(changed, key=lambda change: (change.after in entering, change.symbol))
