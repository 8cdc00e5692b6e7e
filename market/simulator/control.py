"""The simulator's own endpoints, under `/simulator`: its clock, its faults, its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from market.bars import MINUTE_MS
from market.simulator.clock import SimulationFailed
from market.simulator.faults import FaultRequest
from market.simulator.replies import answer

if TYPE_CHECKING:
    from market.simulator.server import Simulator


class ClockRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /simulator/clock`; what is not sent stays as it is."""

    speed: float | UnsetType | None = UNSET
    pause_at_ms: int | UnsetType | None = UNSET
    consumers: int | UnsetType = UNSET


class StepRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /simulator/clock/step`."""

    minutes: int = 1


class Control:
    """Handlers of `/simulator/…`."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to an application."""
        return [
            web.get("/simulator/clock", self.get_clock),
            web.post("/simulator/clock", self.post_clock),
            web.post("/simulator/clock/step", self.post_step),
            web.get("/simulator/faults", self.get_faults),
            web.post("/simulator/faults", self.post_faults),
            web.get("/simulator/state", self.get_state),
        ]

    def status(self) -> dict[str, Any]:
        """What the clock is doing."""
        simulator, clock = self._simulator, self._simulator.clock
        status: dict[str, Any] = {
            "state": clock.state,
            "now_ms": clock.now_ms,
            "minute_ms": clock.minute,
            "minutes_played": (clock.minute - clock.start_ms) // MINUTE_MS,
            "start_ms": clock.start_ms,
            "end_ms": clock.end_ms,
            "pause_at_ms": clock.pause_at_ms,
            "speed": clock.speed,
            "consumers": simulator.hub.consumers,
            "consumers_wanted": simulator.consumers,
        }
        if simulator.failure is not None:
            status["failure"] = f"{type(simulator.failure).__name__}: {simulator.failure}"
        return status

    async def get_clock(self, request: web.Request) -> web.StreamResponse:
        """`GET /simulator/clock`."""
        return answer(self.status())

    async def post_clock(self, request: web.Request) -> web.StreamResponse:
        """`POST /simulator/clock`: speed, where to pause, how many consumers to wait for."""
        wish, clock = await _body(request, ClockRequest), self._simulator.clock
        try:
            if wish.speed is not UNSET:
                clock.set_speed(wish.speed)
        except SimulationFailed as error:
            return _bad(str(error))
        if wish.pause_at_ms is not UNSET:
            clock.pause_at(wish.pause_at_ms)
        if wish.consumers is not UNSET:
            self._simulator.consumers = wish.consumers
            self._simulator.hub.notify()
        return answer(self.status())

    async def post_step(self, request: web.Request) -> web.StreamResponse:
        """`POST /simulator/clock/step`."""
        await self._simulator.step((await _body(request, StepRequest)).minutes)
        return answer(self.status())

    async def get_faults(self, request: web.Request) -> web.StreamResponse:
        """`GET /simulator/faults`."""
        return answer({"pending": self._simulator.pending_faults, "done": self._simulator.faults.done})

    async def post_faults(self, request: web.Request) -> web.StreamResponse:
        """`POST /simulator/faults`."""
        wish = await _body(request, FaultRequest)
        try:
            self._simulator.ask(wish, request.remote or "")
        except ValueError as error:
            return _bad(str(error))
        return await self.get_faults(request)

    async def get_state(self, request: web.Request) -> web.StreamResponse:
        """`GET /simulator/state`: everything that the venue is."""
        return answer(self._simulator.trading.venue.state)


async def _body(request: web.Request, kind: type[Any]) -> Any:
    """The request's body as `kind`, or 400 with what is wrong with it."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=f'{{"error": "{error}"}}', content_type="application/json") from error


def _bad(reason: str) -> web.Response:
    return web.Response(status=400, body=msgspec.json.encode({"error": reason}), content_type="application/json")
