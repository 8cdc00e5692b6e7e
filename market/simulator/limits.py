"""Request weight of each IP and order counts of each account: what is used, what is refused, who is banned.

Windows are of the wall clock: they guard a server against its clients, whatever time it simulates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

WEIGHT_WINDOW_S = 60.0
ORDERS_10S, ORDERS_1M = 300, 1_200
FUNDINGS, FUNDING_WINDOW_S = 500, 300.0
FUNDING_PATHS = ("/fapi/v1/fundingRate", "/fapi/v1/fundingInfo")
"""Routes that share a limit of their own besides the weight: so many requests an IP in five minutes."""
FIRST_BAN_S, LONGEST_BAN_S = 120.0, 3 * 86_400.0
GRACE = 10
"""Requests that an IP may still send in a window after its first 429 before it is banned."""


class LimitExceeded(Exception):
    """A request over a limit: 429, or 418 for a banned IP."""

    def __init__(self, status: int, code: int, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s


class _Address(Struct):
    window: int = -1
    used: int = 0
    refused: int = 0
    funding_window: int = -1
    fundings: int = 0
    banned_until_s: float = 0.0
    bans: int = 0


class Limits:
    """What everybody has used.

    Parameters
    ----------
    wall: a clock in seconds.
    now_ms: the venue's time, in which the end of a ban is told.
    weight_limit: per IP and minute; None counts without refusing.
    """

    def __init__(self, wall: Callable[[], float], now_ms: Callable[[], int], weight_limit: int | None = None) -> None:
        self._wall, self._now_ms = wall, now_ms
        self.weight_limit = weight_limit
        self._addresses: dict[str, _Address] = {}
        self._orders: dict[tuple[str, int, int], int] = {}

    def check(self, address: str, path: str = "") -> None:
        """Raise `LimitExceeded` for an IP that is banned or at a limit; going on gets it banned.

        A request for fundings that is let through is counted.
        """
        found = self._at(address)
        self._check_ban(found)
        if self.weight_limit is None:
            return
        if found.used >= self.weight_limit:
            self._refuse(address, found, f"{self.weight_limit} requests per minute", WEIGHT_WINDOW_S)
        if path in FUNDING_PATHS:
            window = int(self._wall() // FUNDING_WINDOW_S)
            if window != found.funding_window:
                found.funding_window, found.fundings = window, 0
            if found.fundings >= FUNDINGS:
                self._refuse(address, found, f"{FUNDINGS} requests per 5 minutes", FUNDING_WINDOW_S)
            found.fundings += 1

    def _refuse(self, address: str, found: _Address, limit: str, window_s: float) -> None:
        found.refused += 1
        if found.refused > GRACE:
            self.ban(address)
            self._check_ban(found)
        message = (
            f"Too many requests; current limit of IP({address}) is {limit}. "
            "Please use the websocket for live updates to avoid polling the API."
        )
        raise LimitExceeded(429, -1003, message, math.ceil(window_s - self._wall() % window_s))

    def use(self, address: str, weight: int) -> int:
        """Use weight; returns what this IP has used in the present minute."""
        found = self._at(address)
        found.used += weight
        return found.used

    def used(self, address: str) -> int:
        """What an IP has used in the present minute."""
        return self._at(address).used

    def set_used(self, address: str, used: int) -> None:
        """Say what an IP has used in the present minute: to bring a client near its limit."""
        self._at(address).used = used

    def ban(self, address: str, seconds: float | None = None) -> None:
        """Ban an IP; without `seconds` for twice as long as the last time."""
        found = self._at(address)
        length = min(LONGEST_BAN_S, FIRST_BAN_S * 2**found.bans) if seconds is None else seconds
        found.bans += 1
        found.banned_until_s = self._wall() + length

    def order(self, account: str, count: int = 1) -> dict[str, str]:
        """Count orders of an account; returns the headers that tell the counts. Raises `LimitExceeded`."""
        headers, now = {}, self._wall()
        for name, seconds, limit, number in (("10S", 10, ORDERS_10S, count), ("1M", 60, ORDERS_1M, 1)):
            window = (account, seconds, int(now // seconds))
            self._orders = {key: value for key, value in self._orders.items() if key[2] >= int(now // key[1])}
            self._orders[window] = self._orders.get(window, 0) + number
            headers[f"X-MBX-ORDER-COUNT-{name}"] = str(self._orders[window])
            if self.weight_limit is not None and self._orders[window] > limit:
                message = f"Too many new orders; current limit is {limit} orders per {name}."
                raise LimitExceeded(429, -1015, message, math.ceil(seconds - now % seconds))
        return headers

    def _check_ban(self, found: _Address) -> None:
        left = found.banned_until_s - self._wall()
        if left > 0:
            until = self._now_ms() + int(left * 1000)
            message = (
                f"Way too much request weight used; IP banned until {until}. "
                "Please use the websocket for live updates to avoid bans."
            )
            raise LimitExceeded(418, -1003, message, math.ceil(left))

    def _at(self, address: str) -> _Address:
        found = self._addresses.setdefault(address, _Address())
        window = int(self._wall() // WEIGHT_WINDOW_S)
        if window != found.window:
            found.window, found.used, found.refused = window, 0, 0
        return found
