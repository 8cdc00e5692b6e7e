"""The private REST routes: signed requests, and the listen key's, which need the API key alone."""

from __future__ import annotations

from aiohttp import web

from market.simulator.account_rest import AccountRest
from market.simulator.clock import SimulatedClock
from market.simulator.limits import Limits
from market.simulator.listen_keys import ListenKeys
from market.simulator.order_rest import Call, OrderRest, order_count
from market.simulator.replies import Handler, answer
from market.simulator.signed import Sent, VenueTime, authenticate, owner_of
from market.simulator.trading import Trading

LISTEN_KEY = "/fapi/v1/listenKey"


class PrivateRest:
    """Routes of accounts. Every request first brings the venue to the present time."""

    def __init__(
        self, trading: Trading, time: VenueTime, keys: ListenKeys, limits: Limits, clock: SimulatedClock
    ) -> None:
        self._trading, self._time, self._keys, self._limits, self._clock = trading, time, keys, limits, clock
        self._calls: dict[tuple[str, str], Call] = {**OrderRest(trading).calls, **AccountRest(trading).calls}

    def routes(self) -> list[web.RouteDef]:
        """The routes to add to an application."""
        found = [web.route(method, path, self._signed(call)) for (method, path), call in self._calls.items()]
        return found + [web.route(method, LISTEN_KEY, self.listen_key) for method in ("POST", "PUT", "DELETE")]

    async def listen_key(self, request: web.Request) -> web.StreamResponse:
        """`POST`, `PUT`, `DELETE listenKey`: -1125 for keeping alive what has died."""
        account = owner_of(self._trading.venue.state.accounts, request.headers.get("X-MBX-APIKEY"))
        now_ms = self._clock.now_ms
        if request.method == "DELETE":
            self._keys.close(account.key)
            return answer({})
        if request.method == "PUT":
            return answer({"listenKey": self._keys.keep_alive(account.key, now_ms)})
        return answer({"listenKey": self._keys.start(account.key, now_ms)})

    def _signed(self, call: Call) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            body = (await request.read()).decode("utf-8", "surrogateescape")
            sent = Sent(request.raw_path.partition("?")[2], body, request.headers.get("X-MBX-APIKEY"))
            account, asked = authenticate(sent, self._trading.venue.state.accounts, self._time)
            count = order_count(request.method, request.path, asked)
            headers = self._limits.order(account.key, count) if count else {}
            self._trading.advance(self._clock.now_ms)
            symbol = asked.get("symbol")
            if symbol:
                self._trading.check_listed(symbol, trades=bool(count))
                self._trading.refresh((symbol,))
            try:
                reply = call(account, asked)
            finally:
                self._trading.flush()
            response = answer(reply.body, reply.weight)
            response.headers.update(headers)
            return response

        return handler
