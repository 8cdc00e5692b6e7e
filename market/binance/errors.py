"""What can go wrong with the venue; each class says what the caller does about it.

`BinanceError.retry` says whether the same read may be sent again, after a pause. `MarketDataClient` does that itself,
a bounded number of times, so an error that leaves it has either been tried often enough or must not be repeated.
"""

from __future__ import annotations

from typing import ClassVar

from market.errors import MarketError


class BinanceError(MarketError):
    """Base of everything that talking to the venue can raise."""

    retry: ClassVar[bool] = False
    """Whether the same read may succeed later."""

    retry_after_s: float | None = None
    """How long the venue asks to wait, if it does."""


class Unreachable(BinanceError):
    """No answer: connection refused, cut, or timed out. Retry; when that does not help, wait for the network."""

    retry = True

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url


class LocationRefused(BinanceError):
    """HTTP 451: the venue serves nobody at this location. Stop, and run from another region."""

    def __init__(self, message: str) -> None:
        super().__init__(
            f"the venue refuses this location ({message}): run from a region that it serves, "
            "such as Singapore, Japan or the Netherlands"
        )


class AnswerInvalid(BinanceError):
    """An answer that is not in the venue's format. Stop using it and report it; nothing of it was taken."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the answer of {what} is not in the venue's format: {reason}")


class StreamMessageInvalid(BinanceError):
    """A stream message that cannot be understood. Count it and go on with the next; REST fills what it held."""

    def __init__(self, reason: str, raw: bytes | str) -> None:
        shown = raw if isinstance(raw, str) else raw.decode("utf-8", "backslashreplace")
        super().__init__(f"stream message not understood, {reason}: {shown[:200]}")
        self.reason = reason


class VenueError(BinanceError):
    """The venue answered with an error code. Its subclasses say what to do.

    `status` is the HTTP status, `code` the venue's own (0 when the body has none).
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(f"the venue answers {status}, code {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class RequestInvalid(VenueError):
    """The request is wrong (symbol, interval, parameter). Fix it; the same again fails again."""


class AccessRefused(VenueError):
    """Key, signature, permission or firewall (401, 403). Stop."""


class VenueUnavailable(VenueError):
    """The venue has a fault or is overloaded (5xx, 408). Retry a read; for an order the outcome may be unknown."""

    retry = True


class RateLimited(VenueError):
    """Too many requests (429). Back off for `retry_after_s`, or the rest of the minute."""

    retry = True

    def __init__(self, status: int, code: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, code, message)
        self.retry_after_s = retry_after_s


class IpBanned(RateLimited):
    """The venue has banned this address (418). Send nothing until the ban ends; every request makes it longer."""

    retry = False


UNAVAILABLE_CODES = frozenset({-1000, -1001, -1004, -1006, -1007, -1008, -1016})
ACCESS_CODES = frozenset({-1002, -1022, -2014, -2015})
RATE_CODES = frozenset({-1003, -1015})


def venue_error(status: int, code: int, message: str, retry_after_s: float | None = None) -> BinanceError:
    """The error for an answer that is not 2xx.

    >>> type(venue_error(400, -1121, "Invalid symbol.")).__name__
    'RequestInvalid'
    """
    if status == 451:
        return LocationRefused(message)
    if status == 418:
        return IpBanned(status, code, message, retry_after_s)
    if status == 429 or code in RATE_CODES:
        return RateLimited(status, code, message, retry_after_s)
    if status in (401, 403) or code in ACCESS_CODES:
        return AccessRefused(status, code, message)
    if status >= 500 or status == 408 or code in UNAVAILABLE_CODES:
        return VenueUnavailable(status, code, message)
    return RequestInvalid(status, code, message)
