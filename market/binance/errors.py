"""What can go wrong with the venue; each class says what the caller does about it.

`BinanceError.action` is that in one word, `advice` in a sentence. `BinanceError.retry` says whether the same read may
be sent again, after a pause; the client does that itself, a bounded number of times, so an error that leaves it has
either been tried often enough or must not be repeated.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from market.errors import MarketError


class Action(Enum):
    """What the caller does."""

    STOP = "stop: nobody but a person can mend this"
    FIX = "fix the request: the same again fails again"
    RETRY = "retry, after a pause"
    BACK_OFF = "back off: send less, or nothing for a while"
    UNKNOWN = "it may have happened: ask by the client's order id before anything else"
    DECIDE = "it did not happen: decide anew"
    DONE = "nothing: it is already so"


class BinanceError(MarketError):
    """Base of everything that talking to the venue can raise."""

    action: ClassVar[Action] = Action.STOP
    retry: ClassVar[bool] = False
    """Whether the same read may succeed later."""

    retry_after_s: float | None = None
    """How long the venue asks to wait, if it does."""


class KeyUnusable(BinanceError):
    """A key or secret that cannot sign. Stop and correct it; the message does not show it."""


class Unreachable(BinanceError):
    """No answer to a read, or nothing was sent: retry; when that does not help, wait for the network.

    `url` has no query: that is where signatures are.
    """

    action = Action.RETRY
    retry = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url


class LocationRefused(BinanceError):
    """HTTP 451: the venue serves nobody at this location. Stop, and run from another region."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"the venue refuses this location ({message}): run from a region that it serves, such as Singapore or "
            "Japan; its terms of use say where it serves nobody (users report Canada, Malaysia, the Netherlands and "
            "the United States)"
        )


class AnswerInvalid(BinanceError):
    """An answer that is not in the venue's format. Stop using it and report it; nothing of it was taken."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the answer of {what} is not in the venue's format: {reason}")


class StreamMessageInvalid(BinanceError):
    """A stream message that cannot be understood. Count it and go on with the next; REST fills what it held."""

    action = Action.RETRY

    def __init__(self, reason: str, raw: bytes | str) -> None:
        shown = raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")
        super().__init__(f"stream message not understood, {reason}: {shown[:200]}")
        self.reason = reason


class CircuitOpen(BinanceError):
    """The breaker holds back this kind of request, and nothing was sent: back off for `retry_after_s`."""

    action = Action.BACK_OFF

    def __init__(self, kind: str, retry_after_s: float) -> None:
        super().__init__(f"requests of kind {kind} are held back for {retry_after_s:.1f} s: too many of them failed")
        self.kind = kind
        self.retry_after_s = retry_after_s


class BudgetExhausted(BinanceError):
    """The budget leaves no room within the time that the caller would wait, and nothing was sent: back off.

    `reason` says why the budget cannot be kept at all, None when it is merely spent. Exits and cancels do not wait for
    that: they are sent uncounted.
    """

    action = Action.BACK_OFF

    def __init__(self, what: str, retry_after_s: float, reason: str | None = None) -> None:
        super().__init__(f"the budget of {what} " + (reason or f"has no room for {retry_after_s:.1f} s"))
        self.retry_after_s = retry_after_s
        self.reason = reason


class DoesNotFit(BinanceError):
    """An order that the symbol's rules do not allow, found before it was sent: size or price it anew."""

    action = Action.FIX

    def __init__(self, symbol: str, reason: str) -> None:
        super().__init__(f"the order does not fit the rules of {symbol}: {reason}")
        self.symbol = symbol
        self.reason = reason


class EntriesForbidden(BinanceError):
    """No position may be opened now, and nothing was sent: exits go on, and entries when the reason is gone."""

    action = Action.DECIDE

    def __init__(self, reason: str) -> None:
        super().__init__(f"no entries: {reason}")


class OutcomeUnknown(BinanceError):
    """A request that changes something was sent, and nobody knows whether it was done. Never send it again blindly:
    ask by the client's order id, or read what it would have changed.

    `code` is the venue's, 0 when it did not answer.
    """

    action = Action.UNKNOWN

    def __init__(self, what: str, reason: str, code: int = 0, *, answered: bool = False) -> None:
        super().__init__(f"it is unknown whether {what} was done: {reason}")
        self.what = what
        self.code = code
        self.answered = answered
        """Whether the venue has answered at all."""


class NeverArrived(BinanceError):
    """An order whose outcome was unknown is not at the venue, and too late to arrive: it was not done. Decide anew."""

    action = Action.DECIDE

    def __init__(self, what: str) -> None:
        super().__init__(f"the venue does not know {what}, and it is too late for it to arrive: it was not done")
        self.what = what


class VenueError(BinanceError):
    """The venue answered with an error code. Its subclasses say what to do, and `advice` says it for the code.

    `status` is the HTTP status, `code` the venue's own (0 when the body has none).
    """

    advice: str = ""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(f"the venue answers {status}, code {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class AccessRefused(VenueError):
    """Key, signature, permission or firewall (401, 403). Stop."""


class Unsupported(VenueError):
    """What was asked for exists no more, or elsewhere. Stop: this client is out of date."""


class RequestInvalid(VenueError):
    """The request is wrong (symbol, interval, parameter). Fix it; the same again fails again."""

    action = Action.FIX


class RulesOutdated(RequestInvalid):
    """Price, quantity or leverage is not what the symbol's rules allow: read the rules again, then round anew."""


class ModeMismatch(RequestInvalid):
    """`positionSide` or `reduceOnly` does not go with the account's mode: read the mode again."""


class ListenKeyGone(RequestInvalid):
    """The key of the user stream has expired: make a new one, then reconcile."""


class OrderUnknown(RequestInvalid):
    """No such order is open: it has ended, cannot be seen yet, or is an algo order. Ask for its final state."""


class OrderRefused(VenueError):
    """The order was not taken and does not exist. Decide anew: smaller, at another price, or not at all."""

    action = Action.DECIDE


class RiskRefused(OrderRefused):
    """The account may not take more risk: no entries; orders that reduce positions may go through."""


class NotFlat(VenueError):
    """A setting cannot be changed while there are orders or a position: become flat first."""

    action = Action.DECIDE


class Unchanged(VenueError):
    """It is already so: success."""

    action = Action.DONE


class DuplicateOrder(VenueError):
    """An open order has this client order id already: the one before has landed. Query it."""

    action = Action.UNKNOWN


class ClockOff(VenueError):
    """The timestamp lies outside what the venue accepts: read its time again, sign again, send once more."""

    action = Action.RETRY


class VenueUnavailable(VenueError):
    """The venue has a fault (5xx, 408) and did nothing, or it was a read. Retry."""

    action = Action.RETRY
    retry = True


class RateLimited(VenueError):
    """Too many requests (429). Back off for `retry_after_s`, or the rest of the minute."""

    action = Action.BACK_OFF
    retry = True

    def __init__(self, status: int, code: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, code, message)
        self.retry_after_s = retry_after_s


class OrdersLimited(RateLimited):
    """Too many orders in ten seconds or a minute (-1015). The order does not exist; send fewer."""


class Overloaded(RateLimited):
    """The venue protects itself (-1008): nothing was done. Orders that reduce positions are exempt there."""


class IpBanned(RateLimited):
    """The venue has banned this address (418). Send nothing until the ban ends; every request makes it longer.

    `until_ms` is the venue's time at which it ends, if it says so.
    """

    retry = False
    until_ms: int | None = None
