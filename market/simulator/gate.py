"""What every REST request passes: limits and bans on the way in, the venue's error format on the way out."""

from __future__ import annotations

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from market.simulator.limits import LimitExceeded, Limits
from market.simulator.replies import WEIGHT_HEADER, Handler
from market.simulator.rest_faults import RestFaults
from market.simulator.venue.refusals import Refusal


def error(status: int, code: int, message: str) -> web.Response:
    """The venue's error JSON."""
    body = msgspec.json.encode({"code": code, "msg": message})
    return web.Response(status=status, body=body, content_type="application/json")


def gate(limits: Limits, faults: RestFaults) -> Middleware:
    """Middleware: refusals become error JSON, every answer tells the weight used, faults that are due happen."""

    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return error(refusal.status, refusal.code, refusal.message)
        except LimitExceeded as exceeded:
            response = error(exceeded.status, exceeded.code, exceeded.message)
            response.headers["Retry-After"] = str(exceeded.retry_after_s)
            return response
        except web.HTTPNotFound:
            return error(404, -5000, f"Path {request.path}, Method {request.method} is invalid")
        except web.HTTPMethodNotAllowed:
            return error(404, -5000, f"Path {request.path}, Method {request.method} is invalid")

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith(("/fapi/", "/futures/")):
            return await answered(request, handler)
        address = request.remote or ""

        async def limited(request: web.Request) -> web.StreamResponse:
            limits.check(address, request.path)
            response = await answered(request, handler)
            limits.use(address, int(response.headers.popone(WEIGHT_HEADER, "1")))
            return response

        response = await faults.around(request, lambda each: answered(each, limited))
        response.headers["X-MBX-USED-WEIGHT-1M"] = str(limits.used(address))
        return response

    return middleware
