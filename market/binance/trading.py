"""Placing and cancelling orders so that nothing is done twice and nothing is lost sight of.

An order is sent once under its client's id. When nobody knows whether it was done, the venue is asked by that id until
it answers, or until it is too late for the order to arrive: a signed request is refused once it is older than its
`recvWindow`. Only then, and never before, it counts as not done. An order that is found under the id and is another one
than was sent says nothing of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from math import inf
from typing import TypeVar

from market.binance import costs
from market.binance.answers import AlgoCancelled, AlgoState, OrderState
from market.binance.breaker import Kind
from market.binance.errors import (
    Action,
    BinanceError,
    BudgetExhausted,
    DuplicateOrder,
    IpBanned,
    ModeMismatch,
    NeverArrived,
    OrderUnknown,
    OutcomeUnknown,
    Overloaded,
    RateLimited,
    Unreachable,
    VenueUnavailable,
)
from market.binance.orders import AlgoOrder, Order
from market.binance.position_mode import Mode, PositionMode, other
from market.binance.rate_limit import Cost, Priority
from market.binance.signing import Value
from market.binance.transport import RATE_LIMIT_BACKOFF_S, RECV_WINDOW_MS, Call, Security, Transport

QUERY_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Between two questions for an order; the last one for ever."""
ARRIVES_WITHIN_S = RECV_WINDOW_MS / 1e3 + 1.0
"""After this long what was sent is refused if it arrives; the second more is for how the venue reads its own writes."""
GIVE_UP_S = 60.0
"""How long the venue is asked when it does not even answer that; no question is begun later."""
EXIT_ATTEMPTS = 3
"""How often a cancel is sent, and an order that reduces risk when each time it is known that nothing was done."""
ORDER, ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"

State = TypeVar("State", OrderState, AlgoState)
T = TypeVar("T")


class Trading:
    """Orders of one account.

    Parameters
    ----------
    transport: with credentials.
    mode: what is known of the account's position mode.
    """

    def __init__(self, transport: Transport, mode: PositionMode) -> None:
        self._transport = transport
        self.mode = mode

    async def place(self, order: Order) -> OrderState:
        """Place an order; returns how it stood then.

        Raises `OrderRefused`, `RequestInvalid` and others that say it was not taken; `NeverArrived` when that was found
        out later; `OutcomeUnknown` when even asking did not help: then nothing may be assumed.
        """
        query = partial(self.order, order.symbol, order.client_id, attempts=1)
        return await self._place(order, ORDER, OrderState, query)

    async def place_algo(self, order: AlgoOrder) -> AlgoState:
        """Place a conditional order; raises as `place` does. There is no check of margin before the trigger."""
        query = partial(self.algo_order, order.symbol, order.client_id, attempts=1)
        return await self._place(order, ALGO, AlgoState, query)

    async def order(self, symbol: str, client_id: str, *, attempts: int | None = None) -> OrderState:
        """How an order stands; `OrderUnknown` if the venue has none of that id (or has forgotten it)."""
        call = _read(ORDER, {"symbol": symbol, "origClientOrderId": client_id})
        return await self._transport.ask(call, OrderState, attempts=attempts)

    async def algo_order(self, symbol: str, client_id: str, *, attempts: int | None = None) -> AlgoState:
        """How a conditional order stands; `OrderUnknown` if the venue has none of that id."""
        return await self._transport.ask(_read(ALGO, {"clientAlgoId": client_id}), AlgoState, attempts=attempts)

    async def cancel(self, symbol: str, client_id: str) -> OrderState:
        """Have an order ended; returns its final state, also when it had ended before.

        `OrderUnknown` if the venue has no such order.
        """

        async def end() -> OrderState:
            fields: dict[str, Value] = {"symbol": symbol, "origClientOrderId": client_id}
            call = _change("DELETE", ORDER, fields, f"cancelling {client_id}", costs.ONE)
            return await self._transport.ask(call, OrderState)

        return await self._ended(end, lambda: self.order(symbol, client_id))

    async def cancel_algo(self, symbol: str, client_id: str) -> AlgoState:
        """Have a conditional order ended; as `cancel`. One that has triggered lives on as another order."""

        async def end() -> AlgoState:
            call = _change("DELETE", ALGO, {"clientAlgoId": client_id}, f"cancelling {client_id}", costs.ONE)
            await self._transport.ask(call, AlgoCancelled)
            return await self.algo_order(symbol, client_id)

        return await self._ended(end, lambda: self.algo_order(symbol, client_id))

    # Inside

    async def _place(
        self,
        order: Order | AlgoOrder,
        path: str,
        kind: type[State],
        query: Callable[[], Awaitable[State]],
    ) -> State:
        mode = order.mode(None if order.reduces else await self.mode.for_entry())
        try:
            return await self._safely(order, mode, path, kind, query)
        except ModeMismatch as error:
            self.mode.forget(str(error))
            if error.code != -4061:
                raise
        # The venue says that the account is in the other mode: once more, spoken so.
        placed = await self._safely(order, other(mode), path, kind, query)
        self.mode.remember(other(mode))
        return placed

    async def _safely(
        self,
        order: Order | AlgoOrder,
        mode: Mode,
        path: str,
        kind: type[State],
        query: Callable[[], Awaitable[State]],
    ) -> State:
        """Send, and find out what came of it. What is known not to have been done may be sent again, if it reduces."""
        call = _new(order, path, order.parameters(mode))
        attempt = 1
        while True:
            try:
                return await self._transport.ask(call, kind)
            except (OutcomeUnknown, DuplicateOrder) as error:
                return await self._found(order, query, error)
            except (Unreachable, VenueUnavailable, Overloaded):
                if not order.reduces or attempt >= EXIT_ATTEMPTS:
                    raise
            await self._transport.sleep(QUERY_PAUSES_S[min(attempt, len(QUERY_PAUSES_S) - 1)])
            attempt += 1

    async def _found(
        self, order: Order | AlgoOrder, query: Callable[[], Awaitable[State]], cause: BinanceError
    ) -> State:
        """The order, once the venue shows it; `NeverArrived` when it cannot come any more.

        `OutcomeUnknown` when the venue cannot be asked in time, or contradicts itself or us.
        """
        # It was sent before now, after it had waited for room and for the time.
        asked, sent_s = 0, self._transport.seconds()
        while True:
            # Read before asking: an answer that it is not there counts from when it was asked for.
            since_s = self._transport.seconds() - sent_s
            pause = QUERY_PAUSES_S[min(asked, len(QUERY_PAUSES_S) - 1)]
            try:
                found = await query()
            except OrderUnknown as error:
                if since_s > ARRIVES_WITHIN_S + self._slack_s():
                    if isinstance(cause, DuplicateOrder):
                        raise OutcomeUnknown(str(order), f"{cause}; yet asked for it: {error}") from cause
                    raise NeverArrived(str(order)) from cause
            except BinanceError as error:
                pause = max(pause, _pause_after(error))
                if self._transport.seconds() - sent_s + pause > GIVE_UP_S:
                    raise OutcomeUnknown(str(order), f"{cause}; and asking failed: {error}") from error
            else:
                wrong = _contradiction(order, found)
                if wrong is not None:
                    raise OutcomeUnknown(str(order), f"{cause}; and what has its id is another: {wrong}") from cause
                return found
            await self._transport.sleep(pause)
            asked += 1

    def _slack_s(self) -> float:
        """By how much this clock can be wrong about the venue's."""
        offset = self._transport.clock.offset
        return 0.0 if offset is None else offset.error_ms / 1e3

    async def _ended(self, end: Callable[[], Awaitable[State]], query: Callable[[], Awaitable[State]]) -> State:
        try:
            return await until_done(self._transport, end)
        except OrderUnknown:
            return await query()


async def until_done(transport: Transport, end: Callable[[], Awaitable[T]]) -> T:
    """What `end` returns, tried again while that can help: only for what does no harm when it is done twice."""
    attempt = 0
    while True:
        try:
            return await end()
        except (OutcomeUnknown, Unreachable, VenueUnavailable, Overloaded):
            attempt += 1
            if attempt >= EXIT_ATTEMPTS:
                raise
        await transport.sleep(QUERY_PAUSES_S[attempt])


def _pause_after(error: BinanceError) -> float:
    """How long a question that failed so must wait at least to be asked again; for ever if that cannot help."""
    if error.action not in (Action.RETRY, Action.BACK_OFF):
        return inf
    if isinstance(error, BudgetExhausted):
        # Nobody outside wants the pause, and room may come sooner.
        return 0.0
    if error.retry_after_s is not None:
        return error.retry_after_s
    if isinstance(error, IpBanned):
        return inf
    return RATE_LIMIT_BACKOFF_S if isinstance(error, RateLimited) and error.status == 429 else 0.0


def _contradiction(order: Order | AlgoOrder, found: OrderState | AlgoState) -> str | None:
    """Why an order that was found is not the one that was sent, or None; what it does not tell is passed over."""
    quantity = found.orig_qty if isinstance(found, OrderState) else found.quantity
    told = (
        ("symbol", found.symbol, order.symbol),
        ("side", found.side, order.side),
        ("quantity", quantity, order.quantity),
    )
    return next((f"its {what} is {has}" for what, has, sent in told if has and sent is not None and has != sent), None)


def _new(order: Order | AlgoOrder, path: str, fields: Mapping[str, Value]) -> Call:
    """The call that places an order. Only what opens a position can be held back."""
    kind, priority = (Kind.RISK_REDUCING, Priority.ORDERS) if order.reduces else (Kind.ENTRY, Priority.ENTRIES)
    return Call("POST", path, fields, Security.SIGNED, kind, priority, costs.ORDER, str(order), in_body=True)


def _change(method: str, path: str, fields: Mapping[str, Value], what: str, cost: Cost) -> Call:
    return Call(method, path, fields, Security.SIGNED, Kind.RISK_REDUCING, Priority.ORDERS, cost, what)


def _read(path: str, fields: Mapping[str, Value]) -> Call:
    """A question for an order: it decides what is done next, so it is as urgent as an order."""
    return Call("GET", path, fields, Security.SIGNED, Kind.RISK_REDUCING, Priority.ORDERS, costs.ONE)
