"""The simulated exchange: one server on loopback for REST, streams and its own control endpoints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from aiohttp import web

from market.bars import MINUTE_MS
from market.simulator.clock import SimulatedClock, SimulationFailed
from market.simulator.control import Control
from market.simulator.faults import FaultRequest, Faults
from market.simulator.gate import gate
from market.simulator.limits import Limits
from market.simulator.listen_keys import ListenKeys
from market.simulator.options import Options, read_state, write_state
from market.simulator.player import Player
from market.simulator.private_rest import PrivateRest
from market.simulator.public_rest import PublicRest
from market.simulator.rest import Rest
from market.simulator.rest_faults import RestFaults
from market.simulator.signed import VenueTime
from market.simulator.stream_faults import OF_MESSAGES, Route, StreamFaults
from market.simulator.streams import Hub
from market.simulator.tape import Past, Reader, Tape, read_listings
from market.simulator.trading import Trading

if TYPE_CHECKING:
    from market.sources import BarSource

MAX_LINE_BYTES = 1 << 16
"""Longest request line: a connection may name hundreds of streams in it."""


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
    options: accounts, limits and faults.

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
        options: Options | None = None,
    ) -> None:
        if not 0 <= updates_per_bar <= 240:
            raise SimulationFailed(f"updates_per_bar {updates_per_bar} is not between 0 and 240 (one in 250 ms)")
        self.options = options or Options()
        pause_at_ms, real = start_ms if stepped else None, self.options.real_time
        wall = time.time if real else time.monotonic
        self.clock = SimulatedClock(start_ms, end_ms, 1.0 if real else speed, pause_at_ms, wall, follow=real)
        self.faults = Faults()
        self.limits = Limits(time.monotonic, self._now_ms, self.options.weight_limit)
        self.rest_faults = RestFaults(self.faults.count, self.limits.ban)
        self.stream_faults = StreamFaults(self.faults.count)
        self.time = VenueTime(self._now_ms, time.monotonic)
        self.keys = ListenKeys(self.options.seed, self.options.listen_key_ms)
        self.consumers = consumers
        self.failure: BaseException | None = None
        self._source, self._host, self._port, self._updates = source, host, port, updates_per_bar
        self._reader = Reader()
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
        self._symbols = symbols
        limited = self.options.weight_limit is not None
        wall = time.monotonic if limited else None
        self.hub = Hub(symbols, self.keys, self.stream_faults, self._now_ms, wall)
        past = Past(self._source, self._reader, listings, self.faults)
        self._tape = Tape(self._source, symbols, self._reader, self.clock.end_ms)
        digits = np.array([listing.price_decimals for listing in listings.values()])
        self.trading = Trading(
            listings,
            self.clock.start_ms,
            self.options.accounts,
            self.hub.deliver_user,
            self.hub.deliver,
            state=read_state(self.options.state),
            check=self.options.check,
        )
        if (self.options.accounts or self.options.state is not None) and not self.clock.ended:
            # Orders may come before the first minute plays: the prices on the way to it have to be there.
            self.trading.load(await self._tape.chunk(self.clock.minute))
        self._player = Player(
            *(symbols, self._tape, past, self.hub, self.clock, self.faults, digits, self._updates, self.trading)
        )
        application = web.Application(middlewares=[gate(self.limits, self.rest_faults)])
        application.add_routes(Rest(listings, past, self.clock, self.time, self.trading).routes())
        public = PublicRest(listings, past, self.clock, self.trading, self._player.ticks)
        application.add_routes(public.routes())
        application.add_routes(PrivateRest(self.trading, self.time, self.keys, self.limits, self.clock).routes())
        application.add_routes(self._stream_routes())
        application.add_routes(Control(self).routes())
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
            if self.options.state is not None:
                write_state(self.options.state, self.trading.venue.state)
        self._reader.close()

    @property
    def pending_faults(self) -> int:
        """How many bars, requests and messages will still go wrong."""
        return self.faults.pending + self.rest_faults.pending + self.stream_faults.pending

    def ask(self, wish: FaultRequest, address: str = "127.0.0.1") -> None:
        """Let something go wrong; `ValueError` for what there is not. `address` is the IP that asks."""
        for fault in wish.stream:
            fault.check()
        for symbol in (*wish.liquidity, *wish.mark):
            if symbol not in self.trading.rules:
                raise ValueError(f"unknown symbol {symbol!r}")
        if wish.clear:
            self.rest_faults.clear()
            self.stream_faults.clear()
        self.rest_faults.add(wish.rest)
        self.faults.add(wish)
        for fault in wish.stream:
            if fault.kind in OF_MESSAGES:
                self.stream_faults.add(fault)
            else:
                for _ in range(self.hub.strike(fault)):
                    self.faults.count(f"stream_{fault.kind}")
        self._set_conditions(wish, address)
        if wish.disconnect and self.hub.cut():
            self.faults.count("disconnect")
        if wish.restart is not None:
            self._restart(wish.restart)

    def _set_conditions(self, wish: FaultRequest, address: str) -> None:
        """What is so from here on, rather than going wrong once."""
        if wish.skew_ms is not None:
            self.time.skew_ms = wish.skew_ms
        if wish.used_weight is not None:
            self.limits.set_used(address, wish.used_weight)
        venue = self.trading.venue
        venue.stuck_algos += wish.stuck_algos
        if wish.algo_lag_ms is not None:
            venue.parameters = msgspec.structs.replace(venue.parameters, algo_lag_ms=wish.algo_lag_ms)
        for symbol, quantity in wish.liquidity.items():
            self.trading.offer(symbol, quantity)
        for symbol, distance in wish.mark.items():
            self.trading.set_mark(symbol, distance)
        if wish.expire_listen_keys:
            expired = self.keys.expired(self.clock.now_ms, all_of_them=True)
            self.hub.expire(expired)
            for _ in expired:
                self.faults.count("expire_listen_keys")

    def _restart(self, seconds: float) -> None:
        """Cut everything and take nothing for so long; the state stays."""
        self.hub.cut()
        self.faults.count("restart")
        if seconds > 0:
            self.rest_faults.down = True
            asyncio.get_running_loop().call_later(seconds, self._up)

    def _up(self) -> None:
        self.rest_faults.down = False

    def _now_ms(self) -> int:
        return self.clock.now_ms

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
            raise error from self.failure

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
                self._plan_minute()
                await self._player.play(self.clock.minute)
                self._age()
                self.clock.enter("waiting")
                self._sequence += 1
                if self.options.real_time:
                    self.hub.ping(self._sequence)  # real time waits for nobody
                else:
                    await self.hub.barrier(self._sequence)
                self.clock.played()
                await asyncio.sleep(0)  # nothing above need have waited; REST wants its turn
        except Exception as error:
            self.failure = error
            self.clock.enter("failed")
            raise

    def _plan_minute(self) -> None:
        """What the plan has for the next minute goes wrong."""
        if self.options.plan is not None:
            minute = self.clock.minute
            number = (minute - self.clock.start_ms) // MINUTE_MS
            for wish in self.options.plan.of_minute(number, minute, self._symbols):
                self.ask(wish)

    def _age(self) -> None:
        """Listen keys and connections come to their end."""
        self.hub.expire(self.keys.expired(self.clock.now_ms))
        if self.options.connection_ms is not None and self.hub.cut_old(self.clock.now_ms - self.options.connection_ms):
            self.faults.count("connection_age")

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
            if self.rest_faults.down:
                raise web.HTTPServiceUnavailable
            names = request.query.get("streams", "") if combined else request.match_info.get("names", "")
            return await self.hub.serve(request, route, combined, names.split("/"))

        return handler
