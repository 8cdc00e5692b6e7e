"""The project's own client pointed at the simulator, and what its rows of the matrix share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from random import Random
from typing import Any

import aiohttp
from matrix import OWN_KEY, SECRET, SYMBOL, expect

from market.binance.account import AccountClient
from market.binance.breaker import Kind
from market.binance.orders import AlgoOrder, AlgoType, Direction, Order
from market.binance.position_mode import PositionSide
from market.binance.rate_limit import Cost, Priority
from market.binance.rest import MarketDataClient
from market.binance.rules import Side, all_rules
from market.binance.signing import Credentials
from market.binance.transport import Call, Security, Transport

LOT = Decimal("0.01")
JITTER = Random(1)  # noqa: S311 - of pauses, no secret
Step = Callable[[], Awaitable[Any]]


async def until(ready: Callable[[], Awaitable[Any]]) -> None:
    """Ask again and again until the answer is yes, for half a minute."""
    for _ in range(300):
        if await ready():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("waited in vain")


async def until_so(condition: Callable[[], bool]) -> None:
    """Wait for what another task brings about."""

    async def ready() -> bool:
        return condition()

    await until(ready)


class Own:
    """The client: public data, an account, and what they are made of."""

    def __init__(self, url: str, session: aiohttp.ClientSession, key: str = OWN_KEY) -> None:
        self.url, self.ws_url, self.session = url, url.replace("http", "ws", 1), session
        self.data = MarketDataClient(url, session)
        self.transport = Transport(url, session, credentials=Credentials(key, SECRET))
        self.account = AccountClient(self.transport)
        self.orders = self.account.orders
        self._made = 0

    async def bare(self, method: str, path: str, kind: Any = Any, **fields: Any) -> Any:
        """A signed call that the client has no method for."""
        changes = None if method == "GET" else path
        call = Call(method, path, fields, Security.SIGNED, Kind.ACCOUNT, Priority.ENTRIES, Cost(), changes)
        return await self.transport.ask(call, kind)

    async def public(self, path: str, kind: Any = Any, **fields: Any) -> Any:
        """A public read that the client has no method for."""
        return await self.data.transport.ask(Call("GET", path, fields), kind)

    async def prices(self) -> tuple[Decimal, Decimal]:
        """Three percent below and above the last price, as the symbol's rules round them."""
        rules = all_rules(await self.data.exchange_info())[0][SYMBOL]
        last = Decimal((await self.public("/fapi/v2/ticker/price", symbol=SYMBOL))["price"])
        low, high = (rules.limit_price(Side.BUY, last * Decimal(part)) for part in ("0.97", "1.03"))
        return low, high

    def order(self, direction: Direction = Direction.LONG, quantity: Decimal = LOT, **more: Any) -> Order:
        """An order with an id of its own."""
        return Order(symbol=SYMBOL, direction=direction, quantity=quantity, client_id=self.name(), **more)

    def leave(self, direction: Direction, quantity: Decimal = LOT) -> Order:
        """An order that leaves a position."""
        return self.order(direction, quantity, held_as=PositionSide.BOTH)

    def name(self) -> str:
        """A client id that was not used before."""
        self._made += 1
        return f"own-{self._made}"

    async def held(self) -> Decimal:
        """The position."""
        return sum((position.position_amt for position in await self.account.positions(SYMBOL)), Decimal(0))


def stop(own: Own, trigger: Decimal, **more: Any) -> AlgoOrder:
    """A stop that opens a short, or with `held_as` BOTH and direction LONG one that leaves a long."""
    values: dict[str, Any] = {"direction": Direction.SHORT, "type": AlgoType.STOP_MARKET, "quantity": LOT}
    return AlgoOrder(symbol=SYMBOL, client_id=own.name(), trigger_price=trigger, **(values | more))


def refused(kind: type[Exception], code: int, call: Step) -> Step:
    """The operation is to fail with just this class and the venue's code."""

    async def attempt() -> str:
        try:
            found = await call()
        except kind as error:
            expect(type(error) is kind and getattr(error, "code", None) == code, error)
            return f"{kind.__name__}: {error}"
        raise AssertionError(f"not refused: {found}"[:200])

    return attempt
