"""What our own client makes of errors: rows of the matrix."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from matrix import POOR_KEY, SYMBOL, Matrix, expect
from own import LOT, Own, Step, refused, stop

from market.binance import errors
from market.binance.orders import Direction, TimeInForce
from market.binance.rest import MarketDataClient


async def mapping(m: Matrix, own: Own) -> None:
    """Codes become the client's own classes, or are mended by it."""
    o, a = own.orders, own.account
    low, high = await own.prices()
    poor, stranger = Own(own.url, own.session, POOR_KEY), Own(own.url, own.session, "nobody")
    await poor.account.mode.refresh()
    wrong = {"symbol": SYMBOL, "side": "SELL", "type": "STOP_MARKET", "quantity": LOT}
    taker = own.order(Direction.SHORT, price=low, time_in_force=TimeInForce.GTX)
    for code, kind, call in (
        (-2019, errors.OrderRefused, lambda: poor.orders.place(poor.order(quantity=Decimal(1)))),
        (-2021, errors.OrderRefused, lambda: o.place_algo(stop(own, high))),
        (-2022, errors.OrderRefused, lambda: o.place(own.leave(Direction.LONG))),
        (-4120, errors.Unsupported, lambda: own.bare("POST", "/fapi/v1/order", **wrong)),
        (-2011, errors.OrderUnknown, lambda: own.bare("DELETE", "/fapi/v1/order", symbol=SYMBOL, orderId=999)),
        (-2013, errors.OrderUnknown, lambda: o.order(SYMBOL, "nobody")),
        (-5022, errors.OrderRefused, lambda: o.place(taker)),
        (-2015, errors.AccessRefused, stranger.account.account),
    ):
        await m.row(f"error {code}", refused(kind, code, call))

    async def skewed() -> str:
        before = own.transport.clock.generation
        m.faults(skew_ms=60_000)
        try:
            await a.account()
        finally:
            m.faults(skew_ms=0)
        await a.account()
        expect(own.transport.clock.generation > before + 1, own.transport.clock.generation)
        return "the clock was read anew, and the request done"

    def unknown(kind: str) -> Step:
        async def attempt() -> str:
            m.faults(rest=[{"kind": kind, "method": "POST", "path": "/fapi/v1/order", "when": "after"}])
            placed = await o.place(own.order(Direction.SHORT))
            expect((placed.status, await own.held()) == ("FILLED", -LOT), placed)
            await o.place(own.leave(Direction.SHORT))
            return "found by its id: executed, once"

        return attempt

    async def throttled() -> str:
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        once = MarketDataClient(own.url, own.session, attempts=1)
        patient = MarketDataClient(own.url, own.session, sleep=pause)
        m.faults(rest=[{"kind": "too_many_requests", "seconds": 7, "count": 2}])
        told = await refused(errors.RateLimited, -1003, once.server_time)()
        await patient.server_time()
        expect(pauses == [7.0], pauses)
        return f"{told}; again after {pauses[0]} s"

    async def banned() -> str:
        m.faults(rest=[{"kind": "ban", "seconds": 1.2}])
        told = await refused(errors.IpBanned, -1003, own.data.server_time)()
        await asyncio.sleep(1.5)
        return told

    await m.row("error -1021", skewed)
    await m.row("error 503 unknown after execution", unknown("503_unknown"))
    await m.row("error 418", banned)
    await m.row("error -1007 after execution", unknown("timeout"))
    await m.row("error 429", throttled)
