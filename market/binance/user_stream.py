"""The user stream: its key kept alive, and after every gap the account read over REST before events go on.

Nothing is replayed by the venue, and a stream with a dead key is merely silent. So whenever a connection is made, or
its key turns out not to be the one in force, the consumer reconciles first, and what arrives meanwhile waits. When REST
shows what the stream should have told, the consumer says so (`suspect`), and the stream is opened anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol
from urllib.parse import quote

import aiohttp

from market.binance.account import AccountClient
from market.binance.answers import Account, AlgoState, OrderState, Position
from market.binance.connection import QUIET_S, RENEW_S, Backoff, StreamConnection
from market.binance.errors import BinanceError, ListenKeyGone, StreamMessageInvalid
from market.binance.user_events import EVENTS, KeyExpired, UserEvent, parse_user

KEEP_ALIVE_S = 30 * 60.0
"""The key lasts an hour."""
RETRY_S = 60.0
"""After a failure to keep the key alive: there is half an hour for it."""
REMEMBERED = 2_048
"""Messages that are told from their repetitions while a connection is renewed."""
MOST_WAITING = 4_096
"""Events that wait for the account to be reconciled; when there are more, all are let go, and it is read after them."""
KEY_GONE = "the listenKey has expired"
KEY_REPLACED = "another listenKey is in force"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The account as REST shows it.

    The parts are read one after the other, in the order in which one becomes the next: a conditional order that
    triggers in between is there as itself, and perhaps as the order that it made too; an order that is filled is there
    as open, and among the positions too. Something may be shown twice, but what stands is never missing.
    """

    orders: tuple[OrderState, ...]
    algo_orders: tuple[AlgoState, ...]
    positions: tuple[Position, ...]
    account: Account


async def read_snapshot(account: AccountClient) -> Snapshot:
    """All that a consumer reconciles with. Raises `BinanceError`."""
    algo_orders = tuple(await account.open_algo_orders())
    orders = tuple(await account.open_orders())
    return Snapshot(orders, algo_orders, tuple(await account.positions()), await account.account())


class Consumer(Protocol):
    """Whom the stream serves."""

    async def reconcile(self, snapshot: Snapshot, reason: str) -> None:
        """Bring what is believed in line with the venue: events may have been missed."""

    async def event(self, event: UserEvent) -> None:
        """The next event. It may tell what the snapshot before has shown already."""

    def rejected(self, error: StreamMessageInvalid) -> None:
        """A message that cannot be understood: the account will be reconciled."""


class UserStream:
    """One account's user stream.

    Parameters
    ----------
    ws_root: root of the venue's streams.
    account: whose stream it is; makes and keeps the key, and is read after gaps.
    jitter: draws the pauses.
    sleep: how to pause between two renewals of the key, and after a failure.
    """

    def __init__(
        self,
        ws_root: str,
        session: aiohttp.ClientSession,
        account: AccountClient,
        consumer: Consumer,
        *,
        jitter: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        quiet_s: float = QUIET_S,
        renew_s: float = RENEW_S,
        first_pause_s: float = 0.2,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """How often the stream was lost or could not be made, by cause."""
        self.failure: str | None = None
        """Why the account cannot be reconciled, or the key kept, while it cannot."""
        self.current = False
        """Whether the consumer has reconciled since the last gap, and hears events."""
        self._root = ws_root.rstrip("/")
        self._account = account
        self._consumer = consumer
        self._sleep = sleep
        self._backoff = Backoff(jitter, first_s=first_pause_s)
        self._gap = asyncio.Event()
        self._connected = False
        self._key = ""
        """Of the connection, or the one that is being made."""
        self._one_at_a_time = asyncio.Lock()
        self._reason = "the start"
        self._waiting: deque[UserEvent] = deque()
        self._known: dict[bytes, None] = {}
        self._connection = StreamConnection(
            self._address,
            session,
            self._take,
            self._on_opened,
            self._on_dropped,
            Backoff(jitter, first_s=first_pause_s),
            quiet_s=quiet_s,
            renew_s=renew_s,
        )

    async def run(self) -> None:
        """Until cancelled. What the consumer raises, other than `BinanceError`, ends it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._connection.run())
            group.create_task(self._reconcile())
            group.create_task(self._keep_alive())

    async def suspect(self, reason: str) -> None:
        """REST shows what the stream has not told: open it anew."""
        await self._connection.drop(reason)

    # Inside

    async def _address(self) -> str:
        """Each connection asks for the key anew: the venue gives the same one while it lives.

        When that is another one, the connection that was to be renewed is deaf already, and nobody knows since when.
        """
        key = await self._account.new_listen_key()
        if self._connected and key != self._key:
            await self._connection.drop(KEY_REPLACED)
            raise ListenKeyGone(200, 0, KEY_REPLACED)
        self._key = key
        return f"{self._root}/private/ws?listenKey={quote(key, safe='')}&events={'/'.join(EVENTS)}"

    def _on_opened(self) -> None:
        self._connected = True
        self._miss(self._reason)

    def _on_dropped(self, cause: str) -> None:
        self.dropped[cause] += 1
        self.current = self._connected = False
        self._reason = cause

    def _miss(self, reason: str) -> None:
        """Events may have been missed: nothing is delivered before the account is reconciled."""
        self.current = False
        self._reason = reason
        self._gap.set()

    async def _take(self, raw: bytes) -> None:
        """One message; while a connection is renewed the same comes from both."""
        if raw in self._known:
            return
        self._known[bytes(raw)] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        try:
            event = parse_user(raw)
        except StreamMessageInvalid as error:
            self._consumer.rejected(error)
            self._miss("a message could not be understood")
            return
        if isinstance(event, KeyExpired):
            await self._connection.drop(KEY_GONE)
        elif event is not None:
            self._waiting.append(event)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.clear()
                self._miss("too many events waited")
            await self._deliver()

    async def _deliver(self) -> None:
        async with self._one_at_a_time:
            while self.current and self._waiting:
                await self._consumer.event(self._waiting.popleft())

    async def _reconcile(self) -> None:
        """After each gap: read the account, hand it over, then what has waited."""
        while True:
            await self._gap.wait()
            self._gap.clear()
            try:
                snapshot = await read_snapshot(self._account)
                await self._consumer.reconcile(snapshot, self._reason)
            except BinanceError as error:
                self.failure = str(error)
                await self._sleep(self._backoff.next())
                self._gap.set()
                continue
            self.failure = None
            self._backoff.reset()
            if self._connected and not self._gap.is_set():
                self.current = True
                await self._deliver()

    async def _keep_alive(self) -> None:
        """Let the key last, for ever; make another when it has ended or is not the connection's."""
        pause_s = KEEP_ALIVE_S
        while True:
            await self._sleep(pause_s)
            pause_s = KEEP_ALIVE_S
            try:
                key = await self._account.keep_listen_key()
                if self._connected and key not in ("", self._key):
                    await self._connection.drop(KEY_REPLACED)
            except ListenKeyGone:
                await self._connection.drop(KEY_GONE)
            except BinanceError as error:
                self.failure = str(error)
                pause_s = RETRY_S
