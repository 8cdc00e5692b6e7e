"""A venue in a test: an aiohttp server on loopback that checks signatures and answers as it is told."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
from aiohttp import web

from market.binance.breaker import Breaker
from market.binance.rate_limit import RateBudget
from market.binance.signing import Credentials
from market.binance.transport import Transport

KEY, SECRET = "dbefbc809e3e83c283a984c3a1459732", "2b5eb11e18796d12d88f13dc27dbbd02"


@dataclass(frozen=True)
class Asked:
    """One request as the venue received it."""

    method: str
    path: str
    parameters: dict[str, str]
    signed: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class Answer:
    """What the venue says. `hang` never answers; `cut` ends the connection instead."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False


def refusal(code: int, message: str = "no", status: int = 400, **headers: str) -> Answer:
    return Answer(
        {"code": code, "msg": message}, status, {name.replace("_", "-"): text for name, text in headers.items()}
    )


Handler = Callable[[Asked], Answer | Any] | Callable[[Asked], Awaitable[Answer | Any]]


class Venue:
    """Answers by `METHOD /path`: a value, an `Answer`, a list of them in turn (the last for ever), or a function."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Any] = {}
        self.time_ms = 1_767_657_600_000.0
        self.url = ""
        self.raw: list[str] = []
        self.held = asyncio.Event()

    def count(self, what: str) -> int:
        return sum(str(each) == what for each in self.asked)

    def of(self, what: str) -> list[dict[str, str]]:
        """The parameters of all such requests, without what signing adds."""
        hidden = {"signature", "timestamp", "recvWindow"}
        return [
            {name: text for name, text in each.parameters.items() if name not in hidden}
            for each in self.asked
            if str(each) == what
        ]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = (await request.read()).decode()
        query = request.url.raw_query_string
        parameters = dict(parse_qsl(query, keep_blank_values=True) + parse_qsl(body, keep_blank_values=True))
        asked = Asked(request.method, request.path, parameters, "signature" in parameters)
        self.raw.append(f"{request.method} {request.path}?{query} {body}")
        if asked.path == "/fapi/v1/time" and "GET /fapi/v1/time" not in self.answers:
            return web.json_response({"serverTime": int(self.time_ms)})
        self.asked.append(asked)
        wrong = self._signature(request, query, body, asked)
        answer = wrong or await self._answer(asked)
        if answer.hang:
            await self.held.wait()
        if answer.cut and request.transport is not None:
            request.transport.abort()
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        return web.Response(
            body=data, status=answer.status, headers={"Content-Type": "application/json"} | answer.headers
        )

    def _signature(self, request: web.Request, query: str, body: str, asked: Asked) -> Answer | None:
        if not asked.signed:
            return None
        payload, _, signature = (query + body).rpartition("signature=")
        expected = hmac.new(SECRET.encode(), payload.removesuffix("&").encode(), hashlib.sha256).hexdigest()
        if request.headers.get("X-MBX-APIKEY") != KEY:
            return refusal(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        if signature != expected:
            return refusal(-1022, "Signature for this request is not valid.")
        timestamp, window = int(asked.parameters["timestamp"]), int(asked.parameters["recvWindow"])
        if timestamp >= self.time_ms + 1000 or self.time_ms - timestamp > window:
            return refusal(-1021, "Timestamp for this request is outside of the recvWindow.")
        return None

    async def _answer(self, asked: Asked) -> Answer:
        found = self.answers.get(str(asked), refusal(-5000, f"{asked} is not there", 404))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if callable(found):
            found = found(asked)
        if asyncio.iscoroutine(found):
            found = await found
        return found if isinstance(found, Answer) else Answer(found)


class Pauses(list[float]):
    """A sleep that takes no time, remembers, and moves a clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 100.0
        self.then: Callable[[], None] | None = None

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        self.now_s += seconds
        if self.then is not None:
            self.then()
        await asyncio.sleep(0)

    def seconds(self) -> float:
        return self.now_s


@asynccontextmanager
async def served(
    *, budget: RateBudget | None = None, breaker: Breaker | None = None, timeout_s: float = 10.0, signed: bool = True
) -> AsyncIterator[tuple[Venue, Transport, Pauses]]:
    """A venue, a transport to it whose clock and pauses take no time, and the pauses."""
    venue, pauses = Venue(), Pauses()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", venue.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    begun_s, begun_ms = pauses.now_s, venue.time_ms

    def move() -> None:
        venue.time_ms = begun_ms + (pauses.now_s - begun_s) * 1e3

    pauses.then = move
    try:
        async with aiohttp.ClientSession() as session:
            yield (
                venue,
                Transport(
                    venue.url,
                    session,
                    credentials=Credentials(KEY, SECRET) if signed else None,
                    budget=budget,
                    breaker=breaker,
                    attempts=3,
                    timeout_s=timeout_s,
                    sleep=pauses,
                    seconds=pauses.seconds,
                ),
                pauses,
            )
    finally:
        venue.held.set()
        await runner.cleanup()
