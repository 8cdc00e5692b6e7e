"""What may be sent when: weight by address, orders by account, and the order in which requests are let through.

Priorities are ceilings of one count. A request is let through while the count stays below its priority's share of the
limit, so what orders need is kept free of everything else, what reconciliation needs is kept free of market data, and
so on; nobody waits in line behind somebody less urgent, in whatever process that is.

A count that cannot be kept holds up everything but what reduces risk: that is sent uncounted, and `RateBudget.failures`
tells so.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from market.binance.errors import BudgetExhausted, IpBanned, OrdersLimited, Overloaded, RateLimited
from market.binance.shared_window import Block, Reservation, SharedWindow, WindowUnusable

MINUTE_WEIGHT = 2400
ORDERS_10S = 300
ORDERS_1M = 1200
FUNDING_5M = 500
POLL_S = 1.0
"""How long to wait at most before looking again: answers make room before their time."""
BLOCK_S = 60.0
"""How long nothing is sent after a 429 that does not say: the venue counts by the minute."""
BAN_S = 120.0
"""The venue's shortest ban, for a 418 that does not say; each one in a row is twice as long."""
MOST_BAN_S = 3 * 86_400.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CLOSED_IN_FLIGHT_S = 5.0
"""A request that was given up may still be on its way for so long."""
_OF_A_MINUTE = re.compile(r"minute|\b1m\b", re.IGNORECASE)
"""What -1015 says when it is the minute's count; else it is that of ten seconds."""


class Priority(Enum):
    """How urgent a request is, with the share of a limit that it may use."""

    ORDERS = 1.0
    """Orders that reduce risk, and cancels."""
    ENTRIES = 0.95
    """Orders that open positions: what is left is for closing them."""
    RECONCILE = 0.9
    LIVE_DATA = 0.8
    BACKFILL = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request is counted as: weight of the address, orders of the account, and calls that read fundings."""

    weight: int = 1
    orders_10s: int = 0
    orders_1m: int = 0
    funding: int = 0
    told: bool = True
    """Whether the weight that the answer's header tells can be trusted; of ticker routes it cannot."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave to send one request, and what was reserved for it."""

    taken: tuple[tuple[SharedWindow, Reservation], ...]
    cost: Cost


def budget_for(base_url: str, account: str = "", folder: Path | None = None) -> RateBudget | None:
    """The budget that all processes of this user share for a venue; None for a simulator on this machine.

    A simulator counts by its own clock, which may run faster than any wall clock: it refuses for itself. The folder is
    `PERPFORGE_LIMITS_DIR`, by default `~/.cache/perpforge/limits`: limits are of the address, not of a project.
    """
    if urlsplit(base_url).hostname in LOOPBACK:
        return None
    default = os.environ.get("PERPFORGE_LIMITS_DIR") or Path.home() / ".cache" / "perpforge" / "limits"
    return RateBudget(folder or Path(default), base_url, account)


class RateBudget:
    """The budget of one venue, shared by all processes that are given the same folder.

    Parameters
    ----------
    folder: where the counts are kept, on a local disk.
    base_url: whose limits these are; each host has its own.
    account: names the account whose orders are counted, `Credentials.account()`.
    weight: weight a minute of this address; `exchangeInfo` tells it.
    now_s, sleep: wall time in seconds, and how to pause.
    """

    def __init__(
        self,
        folder: Path,
        base_url: str,
        account: str = "",
        *,
        weight: int = MINUTE_WEIGHT,
        orders_10s: int = ORDERS_10S,
        orders_1m: int = ORDERS_1M,
        now_s: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        host = urlsplit(base_url).netloc.replace(":", "_")
        self.weight = SharedWindow(folder / f"weight-{host}.json", weight, 60.0, now_s)
        self.funding = SharedWindow(folder / f"funding-{host}.json", FUNDING_5M, 300.0, now_s)
        self.orders_10s = SharedWindow(folder / f"orders-10s-{host}-{account}.json", orders_10s, 10.0, now_s)
        self.orders_1m = SharedWindow(folder / f"orders-1m-{host}-{account}.json", orders_1m, 60.0, now_s)
        self._now_s = now_s
        self._sleep = sleep
        self.waited_s = 0.0
        """How long requests of this process have waited for room, all together."""
        self.failures: Counter[str] = Counter()
        """How often the file could not be used: `sent uncounted`, `not settled`, `not given back`, `not shared`."""
        self.failure: str | None = None
        """Why it cannot be used; None while it can."""
        self._told: dict[Path, Block] = {}
        """Silences that this process was told of: they hold when the file cannot be used too."""

    def set_limits(self, weight: int, orders_10s: int, orders_1m: int) -> None:
        """Take the limits that the venue tells."""
        self.weight.limit, self.orders_10s.limit, self.orders_1m.limit = weight, orders_10s, orders_1m

    async def admit(self, cost: Cost, priority: Priority, *, within_s: float, patience_s: float) -> Admission:
        """Wait, `patience_s` at most, until a request may be sent that is given up after `within_s`.

        Raises `IpBanned` or `RateLimited` while the venue has told this address to be silent, `OrdersLimited` while the
        account is to send no orders, and `BudgetExhausted` when there is no room in time, or nobody knows whether there
        is: that never for `Priority.ORDERS`.
        """
        waited = 0.0
        while True:
            pause = self._silent_for(cost, patience_s - waited)
            if pause == 0.0:
                found = self._try(cost, priority, within_s + CLOSED_IN_FLIGHT_S)
                if isinstance(found, Admission):
                    return found
                if waited >= patience_s:
                    raise found
                pause = found.retry_after_s or POLL_S
            # Not past the end of patience, where it is tried a last time.
            pause = min(pause, POLL_S, max(patience_s - waited, 0.001))
            await self._sleep(pause)
            waited += pause
            self.waited_s += pause

    def answered(self, admission: Admission, headers: Mapping[str, str]) -> None:
        """An answer has come: it was counted by now, and its headers tell the venue's own counts."""
        for window, reservation in admission.taken:
            with self._or_counted("not settled"):
                window.settle(reservation)
        told = {
            "X-MBX-USED-WEIGHT-1M": self.weight if admission.cost.told else None,
            "X-MBX-ORDER-COUNT-10S": self.orders_10s,
            "X-MBX-ORDER-COUNT-1M": self.orders_1m,
        }
        for name, window_told in told.items():
            text = headers.get(name)
            if window_told is not None and text is not None and text.isdecimal():
                with self._or_counted("not settled"):
                    window_told.observe(int(text))

    def not_sent(self, admission: Admission) -> None:
        """Nothing has left this machine: give everything back."""
        self._give_back(admission.taken)

    def refused(self, error: RateLimited, venue_ms: float | None) -> None:
        """The venue has answered that it is too much.

        After 429 or 418 all processes of this address are silent for as long as it says; after -1015 only this
        account's orders wait, since reads and cancels do not count as such. `venue_ms` is its time, if known: a ban's
        end is told in that.
        """
        seconds = error.retry_after_s
        if isinstance(error, IpBanned):
            if error.until_ms is not None:
                now_ms = self._now_s() * 1e3 if venue_ms is None else venue_ms
                seconds = max(seconds or 0.0, (error.until_ms - now_ms) / 1e3, 1.0)
            self._silence(self.weight, seconds, "418 banned", BAN_S, MOST_BAN_S)
        elif isinstance(error, OrdersLimited):
            window = self.orders_1m if _OF_A_MINUTE.search(error.message) else self.orders_10s
            self._silence(window, seconds, "429 too many orders", window.span_s, window.span_s)
        elif error.status == 429 and not isinstance(error, Overloaded):
            self._silence(self.weight, seconds, "429 rate limit", BLOCK_S, 2 * BLOCK_S)

    # Inside

    @contextmanager
    def _or_counted(self, what: str) -> Iterator[None]:
        """What is done after a request was sent cannot make it fail: that the file cannot be used is kept for who asks.

        What was reserved then stays counted for longer than need be.
        """
        try:
            yield
        except WindowUnusable as error:
            self.failures[what] += 1
            self.failure = f"the budget {error}"

    def _silence(self, window: SharedWindow, seconds: float | None, reason: str, first_s: float, most_s: float) -> None:
        self._told[window.path] = Block(self._now_s() + (first_s if seconds is None else seconds), reason, 1)
        with self._or_counted("not shared"):
            self._told[window.path] = window.block(seconds, reason, first_s, most_s)

    def _silent_for(self, cost: Cost, patience_s: float) -> float:
        """Seconds that the silence over such a request lasts, 0 if none; raised when that is longer than patience."""
        windows = [self.weight]
        windows += [self.orders_10s] if cost.orders_10s else []
        windows += [self.orders_1m] if cost.orders_1m else []
        block = max(filter(None, map(self._silence_of, windows)), key=lambda each: each.until_s, default=None)
        if block is None:
            return 0.0
        left = block.until_s - self._now_s()
        if left <= patience_s:
            return max(left, 0.001)
        raise _silenced(block, left)

    def _silence_of(self, window: SharedWindow) -> Block | None:
        told = self._told.get(window.path)
        shared = None
        with self._or_counted("not shared"):
            shared = window.blocked()
        known = [each for each in (told, shared) if each is not None and each.until_s > self._now_s()]
        return max(known, key=lambda each: each.until_s, default=None)

    def _try(self, cost: Cost, priority: Priority, within_s: float) -> Admission | BudgetExhausted:
        """Everything that `cost` needs, or nothing of it and why."""
        taken: list[tuple[SharedWindow, Reservation]] = []
        self.failure = None
        for name, window, amount in (
            ("weight", self.weight, cost.weight),
            ("fundings", self.funding, cost.funding),
            ("orders in ten seconds", self.orders_10s, cost.orders_10s),
            ("orders in a minute", self.orders_1m, cost.orders_1m),
        ):
            if amount == 0:
                continue
            try:
                found = window.take(amount, max(amount, int(window.limit * priority.value)), within_s)
            except WindowUnusable as error:
                unusable = BudgetExhausted(name, POLL_S, str(error))
                self.failure = str(unusable)
                if priority is not Priority.ORDERS:
                    self._give_back(taken)
                    return unusable
                self.failures["sent uncounted"] += 1
                continue
            if isinstance(found, float):
                self._give_back(taken)
                return BudgetExhausted(name, found)
            taken.append((window, found))
        return Admission(tuple(taken), cost)

    def _give_back(self, taken: Iterable[tuple[SharedWindow, Reservation]]) -> None:
        for window, reservation in taken:
            with self._or_counted("not given back"):
                window.release(reservation)


def _silenced(block: Block, left_s: float) -> RateLimited:
    """The error for a request that falls into a silence."""
    message = f"there is to be silence for {left_s:.0f} s more ({block.reason}); nothing was sent"
    if block.reason.startswith("418"):
        banned = IpBanned(418, -1003, message, left_s)
        banned.advice = "send nothing until the ban is over"
        return banned
    if "orders" in block.reason:
        return OrdersLimited(429, -1015, message, left_s)
    return RateLimited(429, -1003, message, left_s)
