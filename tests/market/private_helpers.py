"""A client of accounts for the tests of the simulated exchange: it signs, asks, and listens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from market.simulator.options import Options
from market.simulator.server import Simulator
from market.simulator.trading import AccountSpec
from tests.market.exchange_helpers import MARKET, START, Taken, taking

KEY, SECRET = "key", "secret"
ACCOUNTS = (AccountSpec(KEY, SECRET, Decimal(100_000)),)


class Client:
    """Signed requests to a simulator; answers as (HTTP status, JSON)."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator, self._session = simulator, session
        self.headers: Any = {}
        self.key, self.secret = KEY, SECRET

    def sign(self, payload: str) -> str:
        return hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()

    async def send(self, method: str, path: str, query: str = "", body: str = "") -> tuple[int, Any]:
        """A request as it is written."""
        from yarl import URL

        url = URL(f"{self.simulator.url}{path}" + (f"?{query}" if query else ""), encoded=True)
        headers = {"X-MBX-APIKEY": self.key, "Content-Type": "application/x-www-form-urlencoded"}
        async with self._session.request(method, url, data=body or None, headers=headers) as response:
            self.headers = response.headers
            return response.status, msgspec.json.decode(await response.read())

    async def ask(self, method: str, path: str, **parameters: Any) -> tuple[int, Any]:
        """A signed request with the venue's time."""
        parameters.setdefault("timestamp", self.simulator.clock.now_ms)
        query = urlencode(parameters)
        return await self.send(method, path, f"{query}&signature={self.sign(query)}")

    async def do(self, method: str, path: str, **parameters: Any) -> Any:
        """A signed request that is to succeed."""
        status, found = await self.ask(method, path, **parameters)
        assert status == 200, found
        return found

    async def refused(self, method: str, path: str, **parameters: Any) -> int:
        """The code of a signed request that is to be refused."""
        status, found = await self.ask(method, path, **parameters)
        assert status >= 400, found
        return int(found["code"])

    async def order(self, side: str, kind: str, quantity: Any, **more: Any) -> Any:
        """Place an order on BTCUSDT."""
        if kind == "LIMIT":
            more.setdefault("timeInForce", "GTC")
        return await self.do(
            "POST", "/fapi/v1/order", symbol="BTCUSDT", side=side, type=kind, quantity=quantity, **more
        )

    async def last(self) -> Decimal:
        """BTCUSDT's price now."""
        self.simulator.trading.advance(self.simulator.clock.now_ms)
        return self.simulator.trading.last("BTCUSDT").last

    async def listen_key(self) -> str:
        """A listen key."""
        return str((await self.send("POST", "/fapi/v1/listenKey"))[1]["listenKey"])


@asynccontextmanager
async def exchange(**more: Any) -> AsyncIterator[Client]:
    """A stepped exchange with one account, and its client."""
    source = more.pop("source", MARKET)
    more.setdefault("accounts", ACCOUNTS)
    more.setdefault("check", True)
    simulator = Simulator(source, START, stepped=True, options=Options(**more))
    async with simulator, aiohttp.ClientSession() as session:
        yield Client(simulator, session)


@asynccontextmanager
async def listening(client: Client, path: str = "") -> AsyncIterator[Taken]:
    """What the account's user stream says."""
    async with taking(
        client.simulator.ws_url + (path or f"/private/ws?listenKey={await client.listen_key()}")
    ) as taken:
        yield taken


async def settled(taken: Taken) -> list[dict[str, Any]]:
    """The messages so far, when everything that was sent has arrived: a control message is answered after it."""
    identity = len(taken) + 1
    marker = f'"id":{identity}'
    await taken.socket.send_str(f'{{"method":"LIST_SUBSCRIPTIONS","id":{identity}}}')
    while not any(marker in text for text in taken):
        taken.arrived.clear()
        await taken.arrived.wait()
    found = [msgspec.json.decode(text) for text in taken if marker not in text]
    taken.clear()
    return found
