"""How every handler answers: JSON, with what it costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

WEIGHT_HEADER = "X-Weight"
"""How a handler says what its answer costs; taken off before the answer is sent."""


def answer(body: Any, weight: int = 1) -> web.Response:
    """A JSON answer that costs `weight`; bytes are JSON already."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    response = web.Response(body=data, content_type="application/json")
    response.headers[WEIGHT_HEADER] = str(weight)
    return response
