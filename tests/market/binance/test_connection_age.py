"""A connection is renewed before the venue cuts it, however little is said, over weeks of a clock that is drawn."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import aiohttp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from market.binance.connection import Backoff, StreamConnection
from tests.market.binance.virtual_time import now_s, run

HOUR_S, DAY_S = 3600.0, 86_400.0


class Socket:
    """One connection that the venue cuts after 24 hours; pings are answered."""

    def __init__(self) -> None:
        self.opened_s = now_s()
        self.closed = False
        self.close_code: int | None = None
        self._told: asyncio.Queue[aiohttp.WSMessage] = asyncio.Queue()
        asyncio.get_running_loop().call_later(DAY_S, self.end, 1006)

    def say(self, kind: aiohttp.WSMsgType, data: bytes | None = None) -> None:
        self._told.put_nowait(aiohttp.WSMessage(kind, data, None))

    def end(self, code: int) -> None:
        if not self.closed:
            self.closed, self.close_code = True, code
            self.say(aiohttp.WSMsgType.CLOSED)

    async def receive(self) -> aiohttp.WSMessage:
        return await self._told.get()

    async def ping(self) -> None:
        self.say(aiohttp.WSMsgType.PONG)

    async def close(self) -> None:
        self.end(1000)


class Venue:
    """In the place of an aiohttp session: opens connections, except while it does not."""

    def __init__(self, away: list[tuple[float, float]]) -> None:
        self.away = away
        self.sockets: list[Socket] = []

    async def ws_connect(self, url: str, **rest: Any) -> Socket:
        await asyncio.sleep(0.1)
        if any(begins <= now_s() < ends for begins, ends in self.away):
            raise aiohttp.ClientConnectionError
        self.sockets.append(Socket())
        return self.sockets[-1]

    @property
    def open(self) -> list[Socket]:
        return [each for each in self.sockets if not each.closed]


class Heard:
    """A connection, what it heard, and the causes for which it was lost."""

    def __init__(self, venue: Venue, seed: int) -> None:
        self.messages: set[bytes] = set()
        self.causes: list[str] = []
        session = cast("aiohttp.ClientSession", venue)
        backoff = Backoff(Random(seed))
        # A guard that looks four times a day, since a day has no other event here.
        self.connection = StreamConnection(
            "ws://x", session, self.take, lambda: None, self.causes.append, backoff, quiet_s=6 * HOUR_S
        )

    async def take(self, raw: bytes) -> None:
        self.messages.add(raw)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.floats(1.0, 60 * HOUR_S), max_size=20),
    st.lists(st.tuples(st.floats(HOUR_S, 20 * DAY_S), st.floats(0.0, 0.9 * HOUR_S)), max_size=8),
)
@example(1, [], [])
def test_a_quiet_connection_is_never_cut(seed: int, pauses_s: list[float], away: list[tuple[float, float]]) -> None:
    """The venue says something after drawn pauses, cuts after 24 hours, and takes nobody for less than an hour."""
    spells: list[tuple[float, float]] = []
    for begins, length in sorted(away):
        # With a day between them, so that no renewal meets two.
        begins = max(begins, spells[-1][1] + DAY_S if spells else 0.0)
        spells.append((begins, begins + length))
    venue = Venue(spells)
    said: set[bytes] = set()

    async def weeks() -> Heard:
        heard = Heard(venue, seed)
        running = asyncio.create_task(heard.connection.run())
        await asyncio.sleep(1.0)
        for number, pause_s in enumerate(pauses_s):
            await asyncio.sleep(pause_s)
            said.add(b"%d" % number)
            for socket in venue.open:
                socket.say(aiohttp.WSMsgType.TEXT, b"%d" % number)
        await asyncio.sleep(max(0.0, 25 * DAY_S - now_s()))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return heard

    heard = run(weeks())
    assert heard.causes == []
    assert heard.messages == said
    assert heard.connection.renewals >= 24


def test_what_is_dropped_while_another_is_about_to_take_over_is_told_as_a_gap() -> None:
    venue = Venue([])

    async def main() -> Heard:
        heard = Heard(venue, 3)
        running = asyncio.create_task(heard.connection.run())
        await asyncio.sleep(23.5 * HOUR_S)
        assert len(venue.open) == 2
        await heard.connection.drop("suspected")
        await asyncio.sleep(60.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return heard

    heard = run(main())
    assert heard.causes == ["suspected"]
    assert len(venue.sockets) == 3
