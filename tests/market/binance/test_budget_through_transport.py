"""What arrives at the venue never passes its limit, whatever the clock, the network and the processes do."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, cast

import aiohttp
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from market.binance.clock import FRESH_MS
from market.binance.errors import BinanceError
from market.binance.rate_limit import CLOSED_IN_FLIGHT_S, Cost, Priority, RateBudget
from market.binance.signing import Credentials
from market.binance.transport import Call, Security, Transport
from tests.market.binance.test_rate_limit import most_in_any_span
from tests.market.binance.virtual_time import now_s, run

LIMIT, TIMEOUT_S = 60, 10.0
BEGUN_S = 1_767_657_600.0


@dataclass
class Reply:
    """An answer that takes its time, or does not come in time."""

    session: Session
    cost: int

    async def __aenter__(self) -> Reply:
        random, network = self.session.random, self.session.arrived
        under_way = random.choice((0.05, 0.5, 3.0, 9.0, 12.0)) * random.random()
        lost = random.random() < 0.05
        # It arrives before its answer; what is given up may arrive a little later than that.
        network.append(
            (now_s() + random.random() * (under_way if not lost else TIMEOUT_S + CLOSED_IN_FLIGHT_S), self.cost)
        )
        if lost or under_way > TIMEOUT_S:
            await asyncio.sleep(TIMEOUT_S)
            raise TimeoutError
        await asyncio.sleep(under_way)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    status = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def read(self) -> bytes:
        return json.dumps({"serverTime": int((BEGUN_S + now_s()) * 1e3)}).encode()


@dataclass
class Session:
    """In the place of an aiohttp session: one process's network."""

    random: Random
    arrived: list[tuple[float, int]]

    def request(self, method: str, url: URL, **rest: Any) -> Reply:
        return Reply(self, int(url.query.get("weight", "1")))


async def ask_on(folder: Path, seed: int, arrived: list[tuple[float, int]], until_s: float) -> None:
    """One process that asks signed questions, now and then after so long a pause that it must read the time anew."""
    random = Random(seed)
    budget = RateBudget(folder, "https://x", "a", weight=LIMIT, now_s=lambda: BEGUN_S + now_s())
    session = cast("aiohttp.ClientSession", Session(random, arrived))
    transport = Transport(
        "https://x", session, credentials=Credentials("k", "s"), budget=budget, timeout_s=TIMEOUT_S, seconds=now_s
    )

    async def ask() -> None:
        weight = random.choice((1, 2, 5, 20))
        call = Call(
            "GET", "/fapi/v3/account", {"weight": weight}, Security.SIGNED, priority=Priority.ORDERS, cost=Cost(weight)
        )
        with suppress(BinanceError):
            await transport.ask(call, dict[str, int])

    asked = []
    while now_s() < until_s:
        asked.append(asyncio.create_task(ask()))
        await asyncio.sleep(random.choice((0.1, 1.0, 5.0, 20.0)) * random.random())
        if random.random() < 0.02:
            await asyncio.sleep(1.1 * FRESH_MS / 1e3)
    await asyncio.gather(*asked)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3))
def test_never_over_the_limit_through_the_transport_with_a_stale_clock(seed: int, processes: int) -> None:
    """Each process has its own clock, connection and budget; what they share is the folder."""
    arrived: list[tuple[float, int]] = []

    async def all_of_them(folder: Path) -> None:
        async with asyncio.TaskGroup() as group:
            for which in range(processes):
                group.create_task(ask_on(folder, seed + which, arrived, 1_500.0))

    with TemporaryDirectory() as name:
        run(all_of_them(Path(name)))
    most = most_in_any_span(arrived, 60.0)
    assert LIMIT // 2 < most <= LIMIT, "the limit is approached and not passed"
