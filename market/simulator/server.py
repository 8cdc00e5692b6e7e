"""The simulated exchange: one server on loopback for REST, streams and its own control endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from aiohttp import web
from msgspec import UNSET, UnsetType

from market.bars import MINUTE_MS
from market.simulator.clock import SimulatedClock, SimulationFailed
from market.simulator.faults import FaultRequest, Faults
from market.simulator.player import Player
from market.simulator.rest import Rest, WeightCount, answer, venue_errors
from market.simulator.streams import Hub, Route
from market.simulator.tape import Past, Reader, Tape, read_listings

if TYPE_CHECKING:
    from market.sources import BarSource

MAX_LINE_BYTES = 1 << 16
"""Longest request line: a connection may name hundreds of streams in it."""


class ClockRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /simulator/clock`; what is not sent stays as it is."""

    speed: float | UnsetType | None = UNSET
    pause_at_ms: int | UnsetType | None = UNSET
    consumers: int | UnsetType = UNSET


class StepRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /simulator/clock/step`."""

    minutes: int = 1


class Simulator:
    """A local exchange over the bars of `source`.

    Minutes before `start_ms` are history, served over REST. From there the clock plays one minute after the other to
    the stream connections, and after each minute waits until every one of them has taken it.

    Parameters
    ----------
    source: where the bars and fundings come from.
    start_ms: where the clock begins, the first millisecond of a minute.
    end_ms: the clock ends here, or where the source's coverage ends if that is earlier.
    speed: simulated seconds per wall second; None for as fast as consumers allow.
    host, port: where to listen; port 0 takes a free one.
    consumers: the clock holds while fewer stream connections than this are subscribed to something.
    updates_per_bar: partial updates (`x` false) of each bar before it closes.
    stepped: the clock stands until it is told to step.

    Examples
    --------
    >>> from market.sources import open_source
    >>> async def one_minute() -> int:
    ...     async with Simulator(open_source("synthetic:symbols=1"), 1_767_657_600_000, stepped=True) as simulator:
    ...         await simulator.step(1)
    ...         return simulator.clock.now_ms
    >>> asyncio.run(one_minute())
    1767657661999
    """

    def __init__(
        self,
        source: BarSource,
        start_ms: int,
        *,
        end_ms: int | None = None,
        speed: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        consumers: int = 0,
        updates_per_bar: int = 2,
        stepped: bool = False,
    ) -> None:
        if not 0 <= updates_per_bar <= 240:
            raise SimulationFailed(f"updates_per_bar {updates_per_bar} is not between 0 and 240 (one in 250 ms)")
        self.clock = SimulatedClock(start_ms, end_ms, speed, start_ms if stepped else None, time.monotonic)
        self.faults = Faults()
        self.consumers = consumers
        self._source, self._host, self._port, self._updates = source, host, port, updates_per_bar
        self._reader = Reader()
        self._failure: BaseException | None = None
        self._sequence = 0
        self._runner: web.AppRunner | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Simulator:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Root of REST, as `https://fapi.binance.com` is."""
        return f"http://{self._host}:{self._port}"

    @property
    def ws_url(self) -> str:
        """Root of the streams, as `wss://fstream.binance.com` is."""
        return f"ws://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen, and let the clock run."""
        listings = await self._reader(read_listings, self._source, self.clock.start_ms)
        if not listings:
            raise SimulationFailed(f"{self._source.name} has no bars to play")
        symbols = tuple(listings)
        self.clock.shorten(max(listing.end_ms for listing in listings.values()))
        self.hub = Hub(symbols)
        past = Past(self._source, self._reader, listings, self.faults)
        self._tape = Tape(self._source, symbols, self._reader, self.clock.end_ms)
        digits = np.array([listing.price_decimals for listing in listings.values()])
        self._player = Player(symbols, self._tape, past, self.hub, self.clock, self.faults, digits, self._updates)
        application = web.Application(middlewares=[venue_errors(WeightCount(time.monotonic))])
        application.add_routes(Rest(listings, past, self.clock).routes())
        application.add_routes(self._stream_routes())
        application.add_routes(
            [
                web.get("/simulator/clock", self._get_clock),
                web.post("/simulator/clock", self._post_clock),
                web.post("/simulator/clock/step", self._post_step),
                web.get("/simulator/faults", self._get_faults),
                web.post("/simulator/faults", self._post_faults),
            ]
        )
        self._runner = web.AppRunner(
            application, access_log=None, max_line_size=MAX_LINE_BYTES, shutdown_timeout=1.0, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the clock, cut every connection, give the port back. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self.clock.state != "failed":
                self.clock.enter("stopped")
            self.hub.cut()
            await self._tape.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._reader.close()

    async def step(self, minutes: int = 1) -> None:
        """Let `minutes` more be played and taken, then stand still; returns when that is so, or at the end."""
        clock, target = self.clock, self.clock.minute + minutes * MINUTE_MS
        clock.pause_at(target)

        def arrived() -> bool:
            at_rest = clock.state == "paused" or clock.pause_at_ms != target  # moved meanwhile: it need never rest
            return clock.state == "ended" or (clock.minute >= target and at_rest)

        await self._until(arrived)

    async def ended(self) -> None:
        """Return when the clock has come to its end; raise `SimulationFailed` if it cannot."""
        await self._until(lambda: self.clock.state == "ended")

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            await self.clock.wait_for(condition)
        except SimulationFailed as error:
            raise error from self._failure

    async def _run(self) -> None:
        """Play minute after minute."""
        try:
            while True:
                await self.clock.permission()
                if self.hub.consumers < self.consumers:
                    self.clock.enter("holding")
                    await self.hub.changed()
                    continue
                self.clock.enter("running")
                await self._player.play(self.clock.minute)
                self.clock.enter("waiting")
                self._sequence += 1
                await self.hub.barrier(self._sequence)
                self.clock.played()
                await asyncio.sleep(0)  # nothing above need have waited; REST wants its turn
        except Exception as error:
            self._failure = error
            self.clock.enter("failed")
            raise

    def _stream_routes(self) -> list[web.RouteDef]:
        """Every path on which the venue takes a connection; those that deliver nothing too."""
        found = []
        routes: dict[str, Route] = {"": "unrouted", "/market": "market", "/public": "public", "/private": "private"}
        for prefix, route in routes.items():
            for path, combined in (("/stream", True), ("/ws", False), ("/ws/{names:.+}", False)):
                found.append(web.get(prefix + path, self._stream_handler(route, combined)))
        return found

    def _stream_handler(self, route: Route, combined: bool) -> Any:
        async def handler(request: web.Request) -> web.StreamResponse:
            names = request.query.get("streams", "") if combined else request.match_info.get("names", "")
            return await self.hub.serve(request, route, combined, names.split("/"))

        return handler

    def _status(self) -> dict[str, Any]:
        clock = self.clock
        status: dict[str, Any] = {
            "state": clock.state,
            "now_ms": clock.now_ms,
            "minute_ms": clock.minute,
            "minutes_played": (clock.minute - clock.start_ms) // MINUTE_MS,
            "start_ms": clock.start_ms,
            "end_ms": clock.end_ms,
            "pause_at_ms": clock.pause_at_ms,
            "speed": clock.speed,
            "consumers": self.hub.consumers,
            "consumers_wanted": self.consumers,
        }
        if self._failure is not None:
            status["failure"] = f"{type(self._failure).__name__}: {self._failure}"
        return status

    async def _get_clock(self, request: web.Request) -> web.StreamResponse:
        return answer(self._status())

    async def _post_clock(self, request: web.Request) -> web.StreamResponse:
        wish = await _body(request, ClockRequest)
        try:
            if wish.speed is not UNSET:
                self.clock.set_speed(wish.speed)
        except SimulationFailed as error:
            return _bad(str(error))
        if wish.pause_at_ms is not UNSET:
            self.clock.pause_at(wish.pause_at_ms)
        if wish.consumers is not UNSET:
            self.consumers = wish.consumers
            self.hub.notify()
        return answer(self._status())

    async def _post_step(self, request: web.Request) -> web.StreamResponse:
        await self.step((await _body(request, StepRequest)).minutes)
        return answer(self._status())

    async def _get_faults(self, request: web.Request) -> web.StreamResponse:
        return answer({"pending": self.faults.pending, "done": self.faults.done})

    async def _post_faults(self, request: web.Request) -> web.StreamResponse:
        wish = await _body(request, FaultRequest)
        try:
            self.faults.add(wish)
        except ValueError as error:
            return _bad(str(error))
        if wish.disconnect and self.hub.cut():
            self.faults.count("disconnect")
        return await self._get_faults(request)


async def _body(request: web.Request, kind: type[Any]) -> Any:
    """The request's body as `kind`, or 400 with what is wrong with it."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=f'{{"error": "{error}"}}', content_type="application/json") from error


def _bad(reason: str) -> web.Response:
    return web.Response(status=400, body=msgspec.json.encode({"error": reason}), content_type="application/json")
