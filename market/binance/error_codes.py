"""The venue's error codes, each as a class of `market.binance.errors` and the advice that goes with it."""

from __future__ import annotations

import re

import msgspec

from market.binance.decoding import UNDECODABLE
from market.binance.errors import (
    AccessRefused,
    BinanceError,
    ClockOff,
    DuplicateOrder,
    IpBanned,
    ListenKeyGone,
    LocationRefused,
    ModeMismatch,
    NotFlat,
    OrderRefused,
    OrdersLimited,
    OrderUnknown,
    OutcomeUnknown,
    Overloaded,
    RateLimited,
    RequestInvalid,
    RiskRefused,
    RulesOutdated,
    Unchanged,
    Unsupported,
    VenueError,
    VenueUnavailable,
)

_BANNED_UNTIL = re.compile(r"banned until (\d{10,16})")

_TABLE: tuple[tuple[type[VenueError], str, tuple[int, ...]], ...] = (
    (VenueUnavailable, "the venue does not know why: an order is reconciled first", (-1000, -1001)),
    (VenueUnavailable, "the order may have been executed: query it", (-1006, -1007)),
    (AccessRefused, "the key may not do this", (-1002,)),
    (AccessRefused, "a fault in how this client signs, or a wrong secret", (-1022,)),
    (AccessRefused, "the key, its permissions or its list of addresses is wrong", (-2014, -2015)),
    (RateLimited, "send nothing until the minute, or the ban, is over", (-1003,)),
    (Overloaded, "the venue is overloaded; orders that reduce positions are exempt", (-1008,)),
    (OrdersLimited, "too many orders: entries wait", (-1015,)),
    (Unsupported, "the route is gone or does not support this", (-1016, -1020)),
    (Unsupported, "conditional orders go to the algo service", (-4120,)),
    (ClockOff, "read the venue's time, sign again, send once more", (-1021, -5028)),
    (RequestInvalid, "bad message or combination of parameters", (-1010, -1013, -1014)),
    (RequestInvalid, "a parameter is missing, unknown, unread or empty", (-1102, -1103, -1104, -1105)),
    (RequestInvalid, "not sent here: reduceOnly in hedge mode, quantity with closePosition", (-1106,)),
    (RequestInvalid, "a value that the venue does not have", (-1115, -1116, -1117, -1120, -1121, -1127, -1130)),
    (RequestInvalid, "the symbol is not in trading", (-1122,)),
    (ListenKeyGone, "make a new listenKey", (-1125,)),
    (RulesOutdated, "too many decimals: round anew", (-1111,)),
    (RulesOutdated, "read the filters again", (-4001, -4002, -4003, -4004, -4005, -4013, -4014, -4023)),
    (RulesOutdated, "read the leverage brackets", (-4028,)),
    (OrderRefused, "rejected: the message says why", (-2010,)),
    (OrderUnknown, "already gone: query its final state", (-2011,)),
    (OrderUnknown, "gone, not visible yet, or the id of an algo order", (-2013,)),
    (OrderRefused, "not enough balance or margin: a smaller size", (-2018, -2019)),
    (OrderRefused, "the stop is already crossed: leave at market", (-2021,)),
    (OrderRefused, "no position to reduce, or open orders conflict: read the position", (-2022,)),
    (RiskRefused, "in liquidation, too few contracts, or at a limit", (-2023, -2024, -2025, -2026, -2027, -2028)),
    (RequestInvalid, "the client order id is not allowed", (-4015,)),
    (DuplicateOrder, "the order before has landed: query it", (-4116,)),
    (OrderRefused, "too far from the mark price: another price", (-4016, -4024, -4131)),
    (OrderRefused, "the most conditional orders are open: clean up", (-4045,)),
    (Unchanged, "already so", (-4046, -4059, -4171, -5027)),
    (NotFlat, "orders or a position are in the way", (-4047, -4048, -4067, -4068, -4531, -4161)),
    (ModeMismatch, "positionSide does not go with the account's mode", (-4061,)),
    (ModeMismatch, "reduceOnly does not go with the account's mode", (-4062,)),
    (ModeMismatch, "isolated margin is not for multi-assets mode", (-4168,)),
    (AccessRefused, "the account is inactive: fund it", (-4109,)),
    (OrderRefused, "its trigger is under way: wait for what becomes of it", (-4117,)),
    (OrderRefused, "margin for reducing is held by other orders: cancel those", (-4118,)),
    (RequestInvalid, "closePosition goes with neither quantity nor reduceOnly", (-4137, -4138)),
    (OrderRefused, "its trigger is already reached", (-4142,)),
    (OrderRefused, "its value is below the least: larger, or reduceOnly", (-4164,)),
    (RiskRefused, "the venue allows this account to reduce only", (-4192, -4400, -4401, -4105)),
    (OrderRefused, "could not be filled whole, or would have taken: another price", (-5021, -5022)),
    (OrderRefused, "cannot be amended so: cancel it and place another", (-5025, -5026, -5029, -5047)),
)

CODES: dict[int, tuple[type[VenueError], str]] = {
    code: (kind, advice) for kind, advice, codes in _TABLE for code in codes
}
"""Class and advice of every code that this client knows. Any other code of a 4xx answer is `RequestInvalid`."""

EXECUTION_UNKNOWN_CODES = frozenset({-1006, -1007})
"""After these a request that changes something may have been executed, whatever else the answer says."""
UNKNOWN_CAUSE_CODES = frozenset({-1000, -1001})
"""After these too, except where the text of a 503 says that it has failed."""

_NOTHING_WAS_DONE = ("service unavailable", "internal error; unable to process")
"""What a 503 says when the request has failed, with a code or without. Any other answer of a fault leaves it open."""


class _Body(msgspec.Struct):
    code: int = 0
    msg: str = ""


def error_of(status: int, body: bytes, retry_after: str | None, *, changes: str | None = None) -> BinanceError:
    """What an answer that is not 2xx means; see `venue_error`. A body that is not the venue's has code 0."""
    try:
        found = msgspec.json.decode(body, type=_Body)
    except UNDECODABLE:
        found = _Body(0, body[:200].decode("utf-8", "replace"))
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    return venue_error(status, found.code, found.msg, seconds, changes=changes)


def venue_error(
    status: int, code: int, message: str, retry_after_s: float | None = None, *, changes: str | None = None
) -> BinanceError:
    """The error for an answer that is not 2xx.

    `changes` says what the request would have changed, None for a read: only then can an outcome be unknown.

    >>> type(venue_error(400, -1121, "Invalid symbol.")).__name__
    'RequestInvalid'
    >>> type(venue_error(503, -1007, "Timeout waiting for response", changes="the order")).__name__
    'OutcomeUnknown'
    """
    if status == 451:
        return LocationRefused(message)
    if changes is not None and _outcome_unknown(status, code, message):
        return OutcomeUnknown(changes, f"the venue answers {status}, code {code}: {message}", code, answered=True)
    kind, advice = _class_of(status, code)
    error = kind(status, code, message, retry_after_s) if issubclass(kind, RateLimited) else kind(status, code, message)
    error.advice = "it was not done" if changes is not None and kind is VenueUnavailable else advice
    if isinstance(error, IpBanned):
        until = _BANNED_UNTIL.search(message)
        error.until_ms = int(until[1]) if until else None
    return error


def _outcome_unknown(status: int, code: int, message: str) -> bool:
    if code in EXECUTION_UNKNOWN_CODES:
        return True
    if code == -1008 or (status == 503 and message.lower().startswith(_NOTHING_WAS_DONE)):
        return False
    return code in UNKNOWN_CAUSE_CODES or status >= 500 or status == 408


def _class_of(status: int, code: int) -> tuple[type[VenueError], str]:
    known = CODES.get(code)
    kind, advice = known or (RequestInvalid, "")
    if status == 418:
        return IpBanned, "send nothing until the ban is over"
    if status == 429:
        return (kind, advice) if issubclass(kind, RateLimited) else (RateLimited, "send nothing for the minute")
    if issubclass(kind, RateLimited) or (issubclass(kind, AccessRefused) and status < 500):
        return kind, advice
    if status in (401, 403):
        return AccessRefused, "the key or the firewall refuses this"
    if status >= 500 or status == 408:
        return VenueUnavailable, advice
    return kind, advice
