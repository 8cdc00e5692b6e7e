"""The worker's HTTP pages on loopback: `/healthz`, `/readyz`, `/metrics`, `/status.json`, `/predict` and `/`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from models_registry.front import FrontClosed
from trading_worker.errors import NothingToAsk
from trading_worker.shell.consultation import NotFollowed
from trading_worker.shell.metrics import Board, Samples, registry_for
from trading_worker.shell.page import render

# Nothing on these pages may run or load anything, whatever a symbol or a reason contains.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def as_json(board: Board) -> dict[str, Any]:
    """The board as plain JSON values; durations as count and milliseconds."""
    samples = {name: getattr(board, name) for name in ("commits", "wave_time", "state_commits", "swap_pause")}
    lists = ("signals", "rejections", "positions")
    rows = {name: list(getattr(board, name)) for name in lists}
    skipped = {*samples, *lists, "swaps", "refused", "exchange"}
    plain = {name: getattr(board, name) for name in Board.__slots__ if name not in skipped}
    return {
        "ready": board.ready,
        **plain,
        "mean_r": board.mean_r,
        "exchange": board.exchange().plain(),
        "swaps": [asdict(swap) for swap in board.swaps],
        "refused": [asdict(refusal) for refusal in board.refused],
        **rows,
        **{name: value.summary() for name, value in samples.items() if isinstance(value, Samples)},
    }


class StatusServer:
    """Serves the board. `port` 0 takes a free one; `url` is known after `start`.

    `about` answers what the bundle says of a symbol (`Consultation.about`); without it nobody does.
    """

    def __init__(
        self,
        board: Board,
        port: int,
        host: str = "127.0.0.1",
        about: Callable[[str], Awaitable[dict[str, Any]]] | None = None,
    ) -> None:
        self._about = about
        self._board = board
        self._registry: CollectorRegistry = registry_for(board)
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen; OSError when the port is taken."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status.json", self._json),
                web.get("/predict", self._predict),
            ]
        )
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=render(self._board), content_type="text/html")

    async def _healthz(self, _: web.Request) -> web.Response:
        # Answered by the loop that also carries the waves: an answer is the proof of life.
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        status = 200 if self._board.ready else 503
        return web.json_response({"ready": self._board.ready, "waiting": self._board.waiting}, status=status)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _json(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(as_json(self._board)), content_type="application/json")

    async def _predict(self, request: web.Request) -> web.Response:
        """404 for a symbol that is not followed, 503 with the reason while nothing can be said of it."""
        symbol = request.query.get("symbol", "")
        if not symbol:
            return web.json_response({"reason": "name a symbol: /predict?symbol=BTCUSDT"}, status=400)
        try:
            if self._about is None:
                raise NothingToAsk(symbol, "no bundle is asked here")
            found = await self._about(symbol)
        except NotFollowed as error:
            return web.json_response({"reason": str(error)}, status=404)
        except (NothingToAsk, FrontClosed) as error:
            return web.json_response({"reason": str(error)}, status=503)
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
