"""A day on the simulated exchange with something going wrong every minute: no bar lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp
import pytest

from market.bars import MINUTE_MS
from market.binance.bar_feed import BarFeed
from market.binance.bar_stream import BarStream
from market.binance.rest import MarketDataClient
from market.simulator.fault_plan import DEFAULT_KINDS, FaultPlan
from market.simulator.faults import revise
from market.simulator.options import Options
from market.simulator.server import Simulator
from tests.market.exchange_helpers import MARKET, cut
from tests.market.exchange_helpers import START as MARKET_START

PER_MINUTE = 1.5
"""Planned; some strike nothing (a connection that is gone already), and at least one a minute is to have happened."""
KINDS = {**DEFAULT_KINDS, "rest:ban": 0.5}
del KINDS["expire_listen_keys"]  # nobody holds one here
LOOKS = 12
"""Of the watch over the streams in a minute; in real time there are sixty."""
CONNECTION_MS = 20 * MINUTE_MS
"""Connections seldom live for 24 hours on this plan, so they are ended after less."""


class Desk:
    """A consumer that keeps what it is told."""

    def __init__(self) -> None:
        self.bars: dict[str, list[Any]] = {}
        self.gaps: list[Any] = []
        self.revisions = 0
        self.errors: list[Exception] = []

    def closed(self, bar: Any) -> None:
        self.bars.setdefault(bar.symbol, []).append(bar)

    def moving(self, event: Any) -> None:
        pass

    def revised(self, used: Any, other: Any) -> None:
        self.revisions += 1

    def absent(self, *gap: Any) -> None:
        self.gaps.append(gap)

    def rejected(self, error: Exception) -> None:
        self.errors.append(error)


def counted(kinds: dict[str, float]) -> set[str]:
    """The names under which the simulator counts these kinds of a plan."""
    found = {"connection_age"}
    for kind in kinds:
        family, _, name = kind.partition(":")
        found |= {f"{name}_before", f"{name}_after"} if family == "rest" else {kind.replace(":", "_")}
    return found


async def soon(condition: Callable[[], bool]) -> None:
    """Return when `condition()` holds, letting everybody else work meanwhile."""
    while True:
        if condition():
            return
        await asyncio.sleep(0)


@pytest.mark.parametrize("minutes", [90, pytest.param(1440, marks=pytest.mark.deep)])
async def test_every_bar_is_there_once_and_in_order(minutes: int) -> None:
    plan = FaultPlan(seed=9, per_minute=PER_MINUTE, kinds=KINDS)
    symbols = MARKET.symbols()
    source = cut(MARKET_START - MINUTE_MS, MARKET_START + (minutes + 3) * MINUTE_MS)
    options = Options(plan=plan, connection_ms=CONNECTION_MS)
    async with (
        Simulator(source, MARKET_START, stepped=True, options=options) as simulator,
        aiohttp.ClientSession() as session,
    ):
        looks = 0

        async def at_once(seconds: float) -> None:
            await asyncio.sleep(0)

        async def looked(seconds: float) -> None:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0)

        client = MarketDataClient(simulator.url, session, sleep=at_once)
        desk = Desk()
        feed = BarFeed(
            {(symbol, "1m"): MARKET_START for symbol in symbols}, desk, venue_ms=MARKET_START, seconds=lambda: 0.0
        )
        stream = BarStream(
            simulator.ws_url,
            session,
            feed,
            fetch=client.klines,
            server_time=client.server_time,
            jitter=Random(1),
            seconds=lambda: 0.0,
            sleep=looked,
            per_connection=2,
            quiet_s=3600.0,
            first_pause_s=0.001,
        )
        task = asyncio.create_task(stream.run())
        for _ in range(minutes + 2):
            await simulator.step()
            # A minute is long: streams are looked after again and again, and a connection that was lost is back.
            enough = looks + LOOKS
            # One that takes over from another speaks only in the next minute.
            await soon(lambda enough=enough: looks >= enough and simulator.hub.connections >= len(stream.connections))
        await soon(lambda: all(feed.next_ms(key) >= MARKET_START + minutes * MINUTE_MS for key in feed.keys))
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        done = Counter(simulator.faults.done)
    wishes = [plan.of_minute(i, MARKET_START + i * MINUTE_MS, symbols) for i in range(minutes)]
    restated = {(bar.symbol, bar.open_time) for minute in wishes for wish in minute for bar in wish.revise_closed}
    assert desk.gaps == []
    for symbol in symbols:
        truth = MARKET.klines(symbol, MARKET_START, MARKET_START + minutes * MINUTE_MS)
        got = desk.bars[symbol][:minutes]
        assert [bar.open_time for bar in got] == truth["open_time"].tolist()
        for index, bar in enumerate(got):
            # What the venue closes anew with other numbers may be the first that is heard of a bar.
            known = [truth[index : index + 1]]
            known += [revise(known[0])] if (symbol, bar.open_time) in restated else []
            assert any(bar.bar["close"] == each["close"] and bar.bar["volume"] == each["volume"] for each in known)
    streamed = [bar.event_time is not None for bars in desk.bars.values() for bar in bars]
    print(
        "STREAMED",
        minutes,
        sum(streamed),
        len(streamed),
        dict(stream.woken),
        dict(stream.moved),
        dict(stream.dropped),
        [c.renewals for c in stream.connections],
    )
    assert 0.6 < sum(streamed) / len(streamed) < 1.0, "both ways have been taken"
    assert sum(done.values()) >= minutes
    if minutes >= 1440:
        assert set(done) == counted(KINDS)
        assert stream.moved, "muted streams have been moved to other connections"
