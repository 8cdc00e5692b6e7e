"""On the simulated exchange: a stream that is mute for good on its connection comes back; others miss nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp

from market.bars import MINUTE_MS
from market.binance.bar_feed import BarFeed
from market.binance.bar_stream import BarStream
from market.binance.rest import MarketDataClient
from market.simulator.faults import FaultRequest
from market.simulator.server import Simulator
from market.simulator.stream_faults import StreamFault
from tests.market.binance.test_day_of_faults import Desk, soon
from tests.market.exchange_helpers import MARKET, START

MINUTES = 12
LOOKS = 3


async def test_a_mute_stream_is_heard_again_on_another_connection() -> None:
    async with Simulator(MARKET, START, stepped=True) as simulator, aiohttp.ClientSession() as session:
        looks = 0

        async def looked(seconds: float) -> None:
            nonlocal looks
            looks += 1
            await asyncio.sleep(0)

        def settled() -> bool:
            """Whether the other connection is there, once it is wanted: the clock is not to run ahead of it."""
            return not stream.moved or stream.connections[0].renewals > 0 or simulator.hub.connections == 2

        client, desk = MarketDataClient(simulator.url, session), Desk()
        series = {(symbol, "1m"): START for symbol in MARKET.symbols()}
        feed = BarFeed(series, desk, venue_ms=START, seconds=lambda: 0.0)
        asked: dict[str, Any] = {"fetch": client.klines, "server_time": client.server_time, "jitter": Random(1)}
        stream = BarStream(simulator.ws_url, session, feed, **asked, seconds=lambda: 0.0, sleep=looked, quiet_s=3600.0)
        task = asyncio.create_task(stream.run())
        await soon(lambda: simulator.hub.connections == 1)
        simulator.ask(FaultRequest(stream=[StreamFault("mute", name="btcusdt@")]))
        for _ in range(MINUTES):
            await simulator.step()
            await soon(lambda enough=looks + LOOKS: looks >= enough)
            await soon(settled)
        await soon(lambda: bool(stream.connections[0].renewals) and simulator.hub.connections == 1)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    key = "BTCUSDT", "1m"
    assert (stream.woken, stream.moved, stream.dropped) == ({key: 2}, {key: 1}, {})
    for symbol in MARKET.symbols():
        bars = desk.bars[symbol][: MINUTES - 1]
        assert [bar.open_time for bar in bars] == [START + minute * MINUTE_MS for minute in range(MINUTES - 1)]
        over_rest = [minute for minute, bar in enumerate(bars) if bar.event_time is None]
        assert over_rest == (list(range(len(over_rest))) if symbol == "BTCUSDT" else [])
        assert len(over_rest) <= 6, "silent after 150 s, and again after as long"
    assert desk.gaps == desk.errors == []
