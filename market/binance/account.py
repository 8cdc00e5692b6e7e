"""One account at the venue: what it holds, how it is set, and the orders of `trading.Trading`."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import msgspec

from market.binance import costs
from market.binance.answers import (
    Account,
    AccountConfig,
    AlgoState,
    Commission,
    Countdown,
    Done,
    DualSide,
    IncomeRow,
    LeverageAnswer,
    ListenKey,
    OrderState,
    Position,
    SymbolConfig,
    Trade,
)
from market.binance.breaker import Kind
from market.binance.errors import AnswerInvalid, BinanceError, Unchanged
from market.binance.leverage import Brackets, Clamped, LeverageReport
from market.binance.position_mode import PositionMode
from market.binance.rate_limit import Cost, Priority
from market.binance.signing import Value
from market.binance.trading import Trading, until_done
from market.binance.transport import Call, Security, Transport

T = TypeVar("T")


class AccountClient:
    """The account whose credentials the transport has. Raises `BinanceError` subclasses, which say what to do.

    `orders` places and cancels; `mode` is what is known of the position mode: read it with `mode.refresh()` first.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.mode = PositionMode(self._read_dual_side, self._write_dual_side)
        self.orders = Trading(transport, self.mode)

    # What it holds

    async def account(self) -> Account:
        """Sums and coins."""
        return await self._read("/fapi/v3/account", {}, Account, costs.FIVE)

    async def positions(self, symbol: str | None = None) -> list[Position]:
        """The positions that are not flat, and those with open orders."""
        return await self._read("/fapi/v3/positionRisk", _of(symbol), list[Position], costs.FIVE)

    async def open_orders(self, symbol: str | None = None) -> list[OrderState]:
        """Orders that may still be filled."""
        cost = costs.OPEN_ORDERS_OF_ALL if symbol is None else costs.ONE
        return await self._read("/fapi/v1/openOrders", _of(symbol), list[OrderState], cost)

    async def open_algo_orders(self, symbol: str | None = None) -> list[AlgoState]:
        """Conditional orders that may still trigger."""
        cost = costs.OPEN_ORDERS_OF_ALL if symbol is None else costs.ONE
        return await self._read("/fapi/v1/openAlgoOrders", _of(symbol), list[AlgoState], cost)

    async def trades(self, symbol: str, start_ms: int, end_ms: int, limit: int = 1000) -> list[Trade]:
        """Fills in [start_ms, end_ms), of seven days at most, ascending."""
        fields: dict[str, Value] = {"symbol": symbol, "startTime": start_ms, "endTime": end_ms - 1, "limit": limit}
        return await self._read("/fapi/v1/userTrades", fields, list[Trade], costs.FIVE)

    async def income(self, start_ms: int, end_ms: int, limit: int = 1000) -> list[IncomeRow]:
        """Bookings in [start_ms, end_ms), ascending."""
        fields: dict[str, Value] = {"startTime": start_ms, "endTime": end_ms - 1, "limit": limit}
        return await self._read("/fapi/v1/income", fields, list[IncomeRow], costs.INCOME)

    # How it is set

    async def config(self) -> AccountConfig:
        """What the account may do."""
        return await self._read("/fapi/v1/accountConfig", {}, AccountConfig, costs.FIVE)

    async def symbol_config(self, symbol: str | None = None) -> list[SymbolConfig]:
        """Margin type and leverage."""
        return await self._read("/fapi/v1/symbolConfig", _of(symbol), list[SymbolConfig], costs.FIVE)

    async def commission(self, symbol: str) -> Commission:
        """Fees."""
        return await self._read("/fapi/v1/commissionRate", {"symbol": symbol}, Commission, Cost(weight=20))

    async def leverage_brackets(self) -> Brackets:
        """The brackets of all symbols; one that has none that can be used costs the others nothing."""
        return Brackets.of(await self._read("/fapi/v1/leverageBracket", {}, list[msgspec.Raw], costs.ONE))

    async def set_leverage(self, symbol: str, wanted: int, clamped: Clamped) -> LeverageReport:
        """Set what `Brackets.clamp` made of a wish. A failure is reported, not raised: it stops no trade.

        The venue is then asked once what is in force.
        """
        fields: dict[str, Value] = {"symbol": symbol, "leverage": clamped.leverage}
        call = self._setting("/fapi/v1/leverage", fields, f"leverage {clamped.leverage} of {symbol}")
        try:
            answer = await self._transport.ask(call, LeverageAnswer)
        except BinanceError as error:
            return LeverageReport(symbol, wanted, await self._leverage(symbol), clamped.reason, str(error))
        return LeverageReport(symbol, wanted, answer.leverage, clamped.reason)

    async def _leverage(self, symbol: str) -> int | None:
        try:
            told = await self._read("/fapi/v1/symbolConfig", _of(symbol), list[SymbolConfig], costs.FIVE, attempts=1)
        except BinanceError:
            return None
        return next((each.leverage for each in told if each.symbol == symbol), None)

    async def set_margin_type(self, symbol: str, *, isolated: bool) -> None:
        """Set how margin is kept; that it is so already is success. `NotFlat` while there is a position or order."""
        fields: dict[str, Value] = {"symbol": symbol, "marginType": "ISOLATED" if isolated else "CROSSED"}
        await self._set(self._setting("/fapi/v1/marginType", fields, f"margin type of {symbol}"))

    async def _read_dual_side(self) -> bool:
        answer = await self._read("/fapi/v1/positionSide/dual", {}, DualSide, costs.POSITION_MODE)
        return answer.dual_side_position

    async def _write_dual_side(self, hedge: bool) -> None:
        call = self._setting("/fapi/v1/positionSide/dual", {"dualSidePosition": hedge}, "the position mode")
        await self._transport.ask(call, Done)

    # Safety

    async def countdown_cancel_all(self, symbol: str, after_ms: int) -> Countdown:
        """Have the venue cancel the symbol's orders unless this is sent again within `after_ms`; 0 ends it.

        Conditional orders are not to be counted on to be among them.
        """
        fields: dict[str, Value] = {"symbol": symbol, "countdownTime": after_ms}
        call = self._urgent("POST", "/fapi/v1/countdownCancelAll", fields, f"countdown of {symbol}", costs.COUNTDOWN)
        return await self._transport.ask(call, Countdown)

    async def cancel_all(self, symbol: str) -> None:
        """Cancel all orders of a symbol, conditional ones too: they are two calls at the venue.

        Each is made, and made again, whatever becomes of the other; then what has failed is raised.
        """
        failed: list[BinanceError] = []
        for path in ("/fapi/v1/allOpenOrders", "/fapi/v1/algoOpenOrders"):
            call = self._urgent("DELETE", path, {"symbol": symbol}, f"cancelling all of {symbol} at {path}", costs.ONE)
            try:
                await until_done(self._transport, partial(self._transport.ask, call, Done))
            except BinanceError as error:
                failed.append(error)
        if failed:
            for other in failed[1:]:
                failed[0].add_note(str(other))
            raise failed[0]

    # The key of the user stream

    async def new_listen_key(self) -> str:
        """The key of the user stream, lasting an hour from now; the same one while it lives."""
        key = (await self._transport.ask(self._key("POST"), ListenKey)).listen_key
        if not key:
            raise AnswerInvalid("/fapi/v1/listenKey", "it names no key")
        return key

    async def keep_listen_key(self) -> str:
        """Let the key in force last another hour; returns it, empty when the venue does not tell.

        `ListenKeyGone` when there is none.
        """
        return (await self._transport.ask(self._key("PUT"), ListenKey)).listen_key

    async def close_listen_key(self) -> None:
        """End it."""
        await self._transport.ask(self._key("DELETE"), ListenKey)

    # Inside

    async def _set(self, call: Call) -> None:
        try:
            await self._transport.ask(call, Done)
        except Unchanged:
            return

    async def _read(
        self, path: str, fields: dict[str, Value], kind: type[T], cost: Cost, attempts: int | None = None
    ) -> T:
        call = Call("GET", path, fields, Security.SIGNED, Kind.ACCOUNT, Priority.RECONCILE, cost)
        return await self._transport.ask(call, kind, attempts=attempts)

    @staticmethod
    def _setting(path: str, fields: dict[str, Value], what: str) -> Call:
        return Call(
            "POST", path, fields, Security.SIGNED, Kind.ACCOUNT, Priority.ENTRIES, costs.ONE, what, in_body=True
        )

    @staticmethod
    def _urgent(method: str, path: str, fields: dict[str, Value], what: str, cost: Cost) -> Call:
        body = method == "POST"
        return Call(
            method, path, fields, Security.SIGNED, Kind.RISK_REDUCING, Priority.ORDERS, cost, what, in_body=body
        )

    @staticmethod
    def _key(method: str) -> Call:
        return Call(
            method,
            "/fapi/v1/listenKey",
            {},
            Security.KEY,
            Kind.ACCOUNT,
            Priority.RECONCILE,
            costs.ONE,
            changes="the listenKey",
        )


def _of(symbol: str | None) -> dict[str, Value]:
    return {} if symbol is None else {"symbol": symbol}
