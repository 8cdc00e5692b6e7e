"""REST that goes wrong on demand: before the request has done anything, or after it has done all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from market.simulator.replies import Handler
from market.simulator.venue.refusals import MESSAGES

When = Literal["before", "after"]

UNKNOWN = "Unknown error, please check your request or try again later."
INTERNAL = "Internal error; unable to process your request. Please try again."
RESTRICTED = "Service unavailable from a restricted location according to 'b. Eligibility' in the terms of use."

JSON_ANSWERS: dict[str, tuple[int, int, str]] = {
    "503_unknown": (503, -1000, UNKNOWN),
    "503_unavailable": (503, 0, "Service Unavailable."),
    "503_internal": (503, -1001, INTERNAL),
    "503_overload": (503, -1008, MESSAGES[-1008]),
    "unexpected_response": (
        400,
        -1006,
        "An unexpected response was received from the message bus. Execution status unknown.",
    ),
    "timeout": (408, -1007, MESSAGES[-1007]),
    "engine_window": (400, -5028, "Timestamp for this request is outside of the ME recvWindow."),
    "restricted": (451, 0, RESTRICTED),
    "too_many_requests": (429, -1003, "Too many requests."),
    "not_visible": (400, -2013, MESSAGES[-2013]),
}
PAGES: dict[str, int] = {"500": 500, "502": 502, "504": 504, "firewall": 403}
KINDS = (*JSON_ANSWERS, *PAGES, "latency", "no_answer", "ban")
"""What `RestFault.kind` may be.

503_unknown: execution unknown; use it before and after. 503_unavailable, 503_internal, 503_overload: failed; overload
spares cancels and orders that only close. unexpected_response (-1006), timeout (-1007): execution unknown.
engine_window: -5028. restricted: 451. not_visible: an order is not there yet, for whoever reads. too_many_requests:
429. ban: 418 for `seconds`. 500, 502, 504, firewall (403): pages that are not JSON. latency: `seconds` of the wall
clock. no_answer: the connection is cut.
"""


class RestFault(Struct, forbid_unknown_fields=True):
    """The next `count` requests whose method and path fit go wrong.

    method: any when empty. path: the beginning of the path, any when empty. when: before the request is carried out,
    or after, so that it has happened all the same; either way it happens once at most.
    """

    kind: str
    method: str = ""
    path: str = ""
    when: When = "before"
    count: int = 1
    seconds: float = 0.0


class RestFaults:
    """What is still to go wrong; `count` is told the name of each fault that happens."""

    def __init__(self, count: Callable[[str], None], ban: Callable[[str, float], None]) -> None:
        self._count, self._ban = count, ban
        self._pending: list[RestFault] = []
        self.down = False
        """Whether the venue takes no requests at all, as while it restarts."""

    @property
    def pending(self) -> int:
        """How many requests will still go wrong."""
        return sum(fault.count for fault in self._pending)

    def add(self, faults: list[RestFault]) -> None:
        """Take faults in; `ValueError` for one that there is not, or a ban of no length."""
        for fault in faults:
            if fault.kind not in KINDS:
                raise ValueError(f"unknown REST fault {fault.kind!r}: use one of {', '.join(KINDS)}")
            if fault.kind == "ban" and fault.seconds <= 0:
                raise ValueError("a ban needs its length in seconds")
        self._pending += faults

    def clear(self) -> None:
        """Forget what is pending."""
        self._pending.clear()

    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, with the first pending fault that fits it."""
        if self.down:
            return _cut(request)
        fault = self._due(request)
        if fault is None:
            return await handler(request)
        if fault.kind == "503_overload" and await _reduces_risk(request):
            return await handler(request)
        self._use(fault)
        done = await handler(request) if fault.when == "after" else None
        if fault.kind == "latency":
            await asyncio.sleep(fault.seconds)
            return await handler(request) if done is None else done
        if fault.kind == "ban":
            self._ban(request.remote or "", fault.seconds)
            return await handler(request)  # who is banned is refused before anything is done
        return _wrong(fault, request)

    def _due(self, request: web.Request) -> RestFault | None:
        return next(
            (
                fault
                for fault in self._pending
                if request.path.startswith(fault.path) and fault.method in ("", request.method)
            ),
            None,
        )

    def _use(self, fault: RestFault) -> None:
        self._count(f"{fault.kind}_{fault.when}")
        fault.count -= 1
        if fault.count <= 0:
            self._pending.remove(fault)


def _wrong(fault: RestFault, request: web.Request) -> web.StreamResponse:
    if fault.kind == "no_answer":
        return _cut(request)
    if fault.kind in PAGES:
        page = f"<html><head><title>{PAGES[fault.kind]}</title></head><body></body></html>"
        return web.Response(status=PAGES[fault.kind], text=page, content_type="text/html")
    status, code, message = JSON_ANSWERS[fault.kind]
    body = msgspec.json.encode({"code": code, "msg": message})
    response = web.Response(status=status, body=body, content_type="application/json")
    if status == 429:
        response.headers["Retry-After"] = str(max(1, round(fault.seconds)))
    return response


def _cut(request: web.Request) -> web.StreamResponse:
    """End the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _reduces_risk(request: web.Request) -> bool:
    """Cancels, and orders that only close: what the venue lets through when it is overloaded."""
    if request.method == "DELETE":
        return True
    text = request.query_string + "&" + (await request.text())
    return "reduceOnly=true" in text or "closePosition=true" in text
