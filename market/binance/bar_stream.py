"""The kline streams of many symbols as bars: connections, the watch over each stream, and questions for REST.

A stream can fail in silence: the venue acknowledges a subscription and then sends nothing. So each is watched by the
venue's time, which REST tells when all are silent; what is missing meanwhile comes over REST. One that is silent is
subscribed to again; when it stays so, or the venue refuses that, its connection is replaced by another.

While REST is asked nothing more is read, for some seconds at most. So who waits for what it has sent to be taken, as a
simulated clock does, also waits for what was repaired; and a REST that hangs holds up no stream for long.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import aiohttp
import msgspec

from market.bars import Bars
from market.binance.bar_feed import BarFeed
from market.binance.bar_sink import Key, Question, Silence
from market.binance.connection import QUIET_S, RENEW_S, Backoff, StreamConnection
from market.binance.streams import MAX_STREAMS, ControlAnswer, SubscriptionRefused, kline_stream, stream_urls
from market.errors import MarketError

TICK_S = 1.0
"""Between two looks at the streams."""
QUIET_TICKS = 5
"""Looks without any message after which the venue is asked for its time."""
QUESTIONS_AT_ONCE = 8
PATIENCE_S = 5.0
"""How long reading waits for answers of REST."""
LESS_PATIENCE_S = 0.5
"""The same while REST fails."""
ASK_TIME_S = 1.0
"""Between two questions for the time because of events from far ahead."""
SUBSCRIBE_AT_ONCE = 100
"""Names in one control message."""
MOST_UNANSWERED = 64
"""Control messages whose answers are waited for; those of a connection that is lost never come."""

Fetch = Callable[[str, str, int, int], Awaitable[Bars]]
"""Closed bars of (symbol, interval) with open time in [start, end)."""
After = Callable[[], Awaitable[None] | None]
"""Told after each message, answer of REST and look at the streams that the sink has had all of it; what it returns is
awaited before anything else is read from that connection."""


def nothing() -> None:
    """Nothing."""


class BarStream:
    """Feeds a `BarFeed` from the venue.

    Parameters
    ----------
    ws_root: root of the venue's streams, `wss://fstream.binance.com`.
    feed: which series, and where their bars go.
    fetch, server_time: ask REST, as `MarketDataClient.klines` and `.server_time` do.
    jitter: draws the pauses between reconnections, and when connections are renewed.
    seconds: a monotonic clock, as the feed's.
    sleep: how the watch pauses between two looks.
    after: see `After`.
    opened: told whenever a connection has been made.
    """

    def __init__(
        self,
        ws_root: str,
        session: aiohttp.ClientSession,
        feed: BarFeed,
        *,
        fetch: Fetch,
        server_time: Callable[[], Awaitable[int]],
        jitter: Random,
        seconds: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        per_connection: int = MAX_STREAMS,
        quiet_s: float = QUIET_S,
        renew_s: float = RENEW_S,
        first_pause_s: float = 0.2,
        after: After = nothing,
        opened: Callable[[], None] = nothing,
    ) -> None:
        self.feed = feed
        self.dropped: Counter[str] = Counter()
        """How often a connection was lost or could not be made, by cause."""
        self.woken: Counter[Key] = Counter()
        """How often each series' stream was subscribed to again because it was silent."""
        self.moved: Counter[Key] = Counter()
        """How often each series' connection was replaced because its stream stayed silent, or could not be had."""
        self.refused: dict[Key, SubscriptionRefused] = {}
        """Series whose stream the venue has refused to give anew, until it speaks."""
        self.refusals = 0
        """How many control messages the venue has refused."""
        self.refusal: SubscriptionRefused | None = None
        """The last of them."""
        self.rest_failure: str | None = None
        """Why REST cannot be asked, while it cannot."""
        self.rest_failures = 0
        """How many questions REST has not answered."""
        self._fetch = fetch
        self._server_time = server_time
        self._seconds = seconds
        self._sleep = sleep
        self._after = after
        self._asking = asyncio.Semaphore(QUESTIONS_AT_ONCE)
        self._answers: set[asyncio.Task[None]] = set()
        self._patience_until_s = self._ask_time_s = -math.inf
        self._requests = 0
        self._unanswered: dict[int, tuple[str, list[Key], StreamConnection]] = {}
        self._messages, self._quiet = -1, 0
        self._shards: list[tuple[tuple[Key, ...], StreamConnection]] = []
        for first in range(0, len(feed.keys), per_connection):
            shard = tuple(feed.keys[first : first + per_connection])
            (url,) = stream_urls(ws_root, [kline_stream(*key) for key in shard], per_connection)
            connection = StreamConnection(
                url,
                session,
                self.take,
                opened,
                self._on_dropped,
                Backoff(jitter, first_s=first_pause_s),
                quiet_s=quiet_s,
                renew_s=renew_s,
            )
            self._shards.append((shard, connection))
        self._group: asyncio.TaskGroup | None = None

    @property
    def connections(self) -> Sequence[StreamConnection]:
        """All connections."""
        return [connection for _, connection in self._shards]

    async def run(self) -> None:
        """Until cancelled. What the sink or `after` raises ends it."""
        async with self.answering() as group:
            for connection in self.connections:
                group.create_task(connection.run())
            group.create_task(self._watch())

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[asyncio.TaskGroup]:
        """While the block runs questions are put to REST; `run` does it for itself."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            yield group

    async def take(self, raw: bytes) -> None:
        """One message of a stream."""
        feed = self.feed
        answer = feed.take(raw, self._seconds())
        if answer is not None:
            await self._answered(answer)
        if feed.doubtful and self._seconds() >= self._ask_time_s:
            await self._ask_time()
        if feed.due:
            # A bar that waits for others is not to wait for the watch as well.
            self._ask()
        if self._answers:
            await self._wait_for_answers()
        await self._tell()

    async def _tell(self) -> None:
        doing = self._after()
        if doing is not None:
            await doing

    async def _wait_for_answers(self) -> None:
        """Until every question has been answered, or patience is over."""
        left_s = self._patience_until_s - self._seconds()
        if left_s > 0:
            await asyncio.wait(self._answers, timeout=left_s)

    async def _watch(self) -> None:
        while True:
            await self._sleep(TICK_S)
            await self.look()

    async def look(self) -> None:
        """Look after the streams once."""
        self._quiet = self._quiet + 1 if self.feed.messages == self._messages else 0
        self._messages = self.feed.messages
        if self._quiet >= QUIET_TICKS or self.feed.doubtful:
            self._quiet = 0
            await self._ask_time()
        self._ask()
        await self._tell()
        self.refused = {key: error for key, error in self.refused.items() if not self.feed.speaks(key)}
        await self._wake({each.key: each for each in self.feed.silent()})

    async def _ask_time(self) -> None:
        self._ask_time_s = self._seconds() + ASK_TIME_S
        try:
            server_ms = await self._server_time()
        except MarketError as error:
            self._failed(error)
            return
        self.rest_failure = None
        self.feed.observe(server_ms)

    def _failed(self, error: MarketError) -> None:
        self.rest_failure = str(error)
        self.rest_failures += 1

    def _ask(self) -> None:
        """Put what is missing to REST, a few questions at a time."""
        if self._group is None:
            return
        questions = self.feed.questions()
        for question in questions:
            task = self._group.create_task(self._answer(question))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)
        if questions:
            patience_s = PATIENCE_S if self.rest_failure is None else LESS_PATIENCE_S
            self._patience_until_s = self._seconds() + patience_s

    async def _answer(self, question: Question) -> None:
        async with self._asking:
            # By then all that is asked for had closed.
            venue_ms = self.feed.venue_ms
            try:
                bars = await self._fetch(question.symbol, question.interval, question.start_ms, question.end_ms)
            except MarketError as error:
                self._failed(error)
                self.feed.failed(question)
            else:
                self.rest_failure = None
                self.feed.answered(question, bars, venue_ms)
        await self._tell()

    async def _wake(self, silent: dict[Key, Silence]) -> None:
        """Open a connection again that is silent as a whole. Subscribe anew to single streams that are; move those
        that stay so to another connection, except for series that rest."""
        for shard, connection in self._shards:
            mute = [key for key in shard if key in silent]
            self.woken.update(mute)
            if mute and len(mute) == len(shard):
                await connection.drop("silent streams")
                continue
            stuck = [key for key in mute if silent[key].times > 1 and not silent[key].rests]
            if stuck:
                # The other connection has all streams of this one.
                self.moved.update(stuck)
                await connection.renew()
                continue
            for first in range(0, len(mute), SUBSCRIBE_AT_ONCE):
                for method in ("UNSUBSCRIBE", "SUBSCRIBE"):
                    await self._request(method, mute[first : first + SUBSCRIBE_AT_ONCE], connection)

    async def _request(self, method: str, keys: list[Key], connection: StreamConnection) -> None:
        self._requests += 1
        self._unanswered[self._requests] = method, keys, connection
        if len(self._unanswered) > MOST_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        request = {"method": method, "params": [kline_stream(*key) for key in keys], "id": self._requests}
        await connection.send(msgspec.json.encode(request).decode())

    async def _answered(self, answer: ControlAnswer) -> None:
        """What the venue says of a control message. One that is refused heals nothing: its connection is replaced."""
        asked = self._unanswered.pop(answer.id, None) if isinstance(answer.id, int) else None
        if answer.code is None:
            return
        self.refusals += 1
        method, keys, connection = asked or ("", [], None)
        names = tuple(kline_stream(*key) for key in keys)
        self.refusal = SubscriptionRefused(answer.code, answer.msg, method, names)
        anew = [key for key in keys if key not in self.refused]
        self.refused |= dict.fromkeys(keys, self.refusal)
        if anew and connection is not None:
            self.moved.update(anew)
            await connection.renew()

    def _on_dropped(self, cause: str) -> None:
        self.dropped[cause] += 1
