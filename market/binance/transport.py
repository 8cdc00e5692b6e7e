"""One request to the venue and its answer: held back, counted, signed, sent, and what came of it told by type.

A read is sent again while that can help. What changes something is sent once: only a refused timestamp, which the
venue checks before anything else, leads to a second sending. No error that leaves here holds a key, a signature or a
query string.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from market.binance.breaker import Breaker, Kind
from market.binance.clock import ServerClock
from market.binance.decoding import UNDECODABLE, not_finite
from market.binance.error_codes import error_of
from market.binance.errors import (
    AnswerInvalid,
    BinanceError,
    ClockOff,
    KeyUnusable,
    OutcomeUnknown,
    RateLimited,
    Unreachable,
    VenueUnavailable,
)
from market.binance.rate_limit import Cost, Priority, RateBudget
from market.binance.signing import Credentials, Parameters, encode, signed

DEFAULT_ATTEMPTS = 5
DEFAULT_BACKOFF_S = 0.25
RATE_LIMIT_BACKOFF_S = 15.0
"""The venue counts weight by the minute, so this, doubled at each attempt, soon reaches the next one."""
DEFAULT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
RECV_WINDOW_MS = 5_000
"""How late a signed request may arrive. What is later is refused: by then it is certain that it was not done."""
PATIENCE_S = {
    Priority.ORDERS: 2.0,
    Priority.ENTRIES: 2.0,
    Priority.RECONCILE: 30.0,
    Priority.LIVE_DATA: 30.0,
    Priority.BACKFILL: 600.0,
}
"""How long a request waits for room in the budget, and how long its pauses may be."""

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class Security(Enum):
    """What a route wants to know of who asks."""

    NONE = "nothing"
    KEY = "the key"
    SIGNED = "the key, the time and a signature"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, before it is signed. `changes` names what it changes at the venue; None for a read."""

    method: str
    path: str
    parameters: Parameters = field(default_factory=dict)
    security: Security = Security.NONE
    kind: Kind = Kind.MARKET_DATA
    priority: Priority = Priority.LIVE_DATA
    cost: Cost = field(default_factory=Cost)
    changes: str | None = None
    in_body: bool = False


class _ServerTime(msgspec.Struct, rename="camel"):
    server_time: int


class Transport:
    """Sends calls to one venue.

    Parameters
    ----------
    base_url: `https://fapi.binance.com`, or a simulator's `url`.
    session: the caller's, who closes it.
    credentials: whose account it is; without them only public routes can be asked.
    budget: what this address may send; None counts nothing.
    breaker: holds requests back when too many fail; None never does.
    attempts: how often a read is sent at most.
    backoff_s: the first pause between two of them; it doubles each time.
    timeout_s: how long one attempt may take.
    sleep, seconds: how to pause, and a monotonic clock, seconds.
    """

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        *,
        credentials: Credentials | None = None,
        budget: RateBudget | None = None,
        breaker: Breaker | None = None,
        attempts: int = DEFAULT_ATTEMPTS,
        backoff_s: float = DEFAULT_BACKOFF_S,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        sleep: Sleep = asyncio.sleep,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.used_weight: int | None = None
        """Weight used in the present minute, as the venue last told."""
        self.clock = ServerClock(self._clock_sample, lambda: seconds() * 1e3)
        self.session = session
        self.sleep = sleep
        self.seconds = seconds
        self._credentials = credentials
        self._budget = budget
        self._breaker = breaker
        self._attempts, self._backoff_s = attempts, backoff_s
        self._timeout_s = timeout_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_TIMEOUT_S, timeout_s))

    async def server_time(self) -> int:
        """The venue's time, ms UTC."""
        return (await self.ask(Call("GET", "/fapi/v1/time"), _ServerTime)).server_time

    async def _clock_sample(self) -> int:
        """One answer for the clock: an exit waits for it, so nothing holds it back and it is not tried for long."""
        call = Call("GET", "/fapi/v1/time", kind=Kind.RISK_REDUCING, priority=Priority.ORDERS)
        return (await self._held(call, _ServerTime)).server_time

    async def ask(self, call: Call, kind: type[T], *, attempts: int | None = None) -> T:
        """The answer to a call as `kind`; a read is repeated while that can help. Raises `BinanceError`.

        `attempts` is how often it is sent at most, else what the transport was made with. No pause is longer than the
        patience of the call's priority: when the venue wants a longer one, its error is raised at once.
        """
        attempt, most = 1, self._attempts if attempts is None else attempts
        while True:
            try:
                return await self._timely(call, kind)
            except BinanceError as error:
                if call.changes is not None or not error.retry or attempt >= most:
                    raise
                limited = isinstance(error, RateLimited) and error.status == 429
                pause = (RATE_LIMIT_BACKOFF_S if limited else self._backoff_s) * 2 ** (attempt - 1)
                pause = pause if error.retry_after_s is None else error.retry_after_s
                if pause > PATIENCE_S[call.priority]:
                    raise
            await self.sleep(pause)
            attempt += 1

    async def _timely(self, call: Call, kind: type[T]) -> T:
        """Send; once more after a refused timestamp, with the venue's time read anew."""
        seen = self.clock.generation
        try:
            return await self._held(call, kind)
        except ClockOff:
            await self.clock.sync(seen, discard=True)
            return await self._held(call, kind)

    async def _held(self, call: Call, kind: type[T]) -> T:
        """Send if breaker and budget let it through, and tell them what came of it."""
        permit = None if self._breaker is None else self._breaker.permit(call.kind, self.seconds())
        ok = None
        try:
            answer = self._decode(call, await self._counted(call), kind)
            ok = True
            return answer
        except (Unreachable, OutcomeUnknown, VenueUnavailable, AnswerInvalid):
            ok = False
            raise
        except RateLimited as error:
            # What this side held back itself says nothing of the venue.
            ok = False if error.status >= 500 else None
            raise
        except BinanceError as error:
            ok = True if hasattr(error, "code") else None
            raise
        finally:
            if self._breaker is not None and permit is not None:
                if ok is None:
                    self._breaker.forget(permit)
                else:
                    self._breaker.record(permit, ok=ok, now_s=self.seconds())

    async def _counted(self, call: Call) -> bytes:
        if call.security is Security.SIGNED:
            # Before anything is reserved: a reservation does not last while the venue is asked for its time.
            await self.clock.refresh()
        if self._budget is None:
            return (await self._send(call))[1]
        budget = self._budget
        patience = PATIENCE_S[call.priority]
        admission = await budget.admit(call.cost, call.priority, within_s=self._timeout_s, patience_s=patience)
        try:
            headers, body = await self._send(call)
        except _NotSent as error:
            budget.not_sent(admission)
            raise Unreachable(error.url, error.reason) from None
        except BinanceError as error:
            # After an error without an answer it may still be under way, and stays counted for as long.
            if not isinstance(error, Unreachable) and not (isinstance(error, OutcomeUnknown) and not error.answered):
                budget.answered(admission, {})
            if isinstance(error, RateLimited):
                offset = self.clock.offset
                budget.refused(error, None if offset is None else self.seconds() * 1e3 + offset.offset_ms)
            raise
        budget.answered(admission, headers)
        return body

    async def _send(self, call: Call) -> tuple[Mapping[str, str], bytes]:
        """One request on the wire, and the answer's headers and body; anything but 2xx is raised."""
        url = self.base_url + call.path
        target, body, headers = self._prepared(call)
        try:
            async with self.session.request(
                call.method,
                URL(target, encoded=True),
                data=body or None,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                answer = await response.read()
                told = response.headers.get("X-MBX-USED-WEIGHT-1M", "")
                self.used_weight = int(told) if told.isdecimal() else self.used_weight
                if response.status < 300:
                    return response.headers, answer
                raise error_of(response.status, answer, response.headers.get("Retry-After"), changes=call.changes)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _NotSent(url, _said(error)) from None
        except TimeoutError:
            raise self._lost(call, f"no answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(call, _said(error)) from None

    def _prepared(self, call: Call) -> tuple[str, bytes, dict[str, str]]:
        """Address, body and headers as they go on the wire."""
        url = self.base_url + call.path
        headers = {} if self._credentials is None or call.security is Security.NONE else self._credentials.headers()
        parameters = dict(call.parameters)
        if call.security is Security.SIGNED:
            parameters |= {"recvWindow": RECV_WINDOW_MS, "timestamp": self.clock.told_ms()}
        query, body = ("", encode(parameters)) if call.in_body else (encode(parameters), "")
        if call.security is not Security.NONE and self._credentials is None:
            raise KeyUnusable(f"{call.path} is for accounts, and there is no key")
        if call.security is Security.SIGNED and self._credentials is not None:
            query, body = signed(query, body, self._credentials.signer)
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return f"{url}?{query}" if query else url, body.encode(), headers

    def _lost(self, call: Call, reason: str) -> BinanceError:
        """No answer came, to something that may have arrived."""
        if call.changes is None:
            return Unreachable(self.base_url + call.path, reason)
        return OutcomeUnknown(call.changes, reason)

    def _decode(self, call: Call, body: bytes, kind: type[T]) -> T:
        try:
            answer = msgspec.json.decode(body, type=kind, strict=False)
            wrong = not_finite(answer) if call.security is Security.SIGNED else None
        except UNDECODABLE as error:
            wrong = str(error)
        if wrong is None:
            return answer
        if call.changes is not None:
            raise OutcomeUnknown(call.changes, f"the answer is not in the venue's format: {wrong}")
        raise AnswerInvalid(call.path, wrong)


class _NotSent(Unreachable):
    """Nothing has left this machine."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.reason = reason


def _said(error: Exception) -> str:
    """What an error of the connection says. Others may hold the address with its query, or headers, in their text."""
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerDisconnectedError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__
