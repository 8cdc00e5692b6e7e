"""What the venue answers about accounts and orders, typed. Unknown fields are passed over."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from market.binance.position_mode import PositionSide
from market.binance.rules import Side

ZERO = Decimal(0)
OPEN_STATUSES = frozenset({"NEW", "PARTIALLY_FILLED"})
OPEN_ALGO_STATUSES = frozenset({"NEW", "TRIGGERING"})


class OrderState(msgspec.Struct, frozen=True, rename="camel"):
    """An order as it stands. `status` is the venue's word, unknown ones included."""

    symbol: str
    order_id: int
    client_order_id: str
    status: str
    side: Side
    type: str = ""
    position_side: PositionSide = PositionSide.BOTH
    price: Decimal = ZERO
    avg_price: Decimal = ZERO
    orig_qty: Decimal = ZERO
    executed_qty: Decimal = ZERO
    cum_quote: Decimal = ZERO
    time_in_force: str = ""
    reduce_only: bool = False
    close_position: bool = False
    orig_type: str = ""
    update_time: int = 0

    @property
    def open(self) -> bool:
        """Whether it may still be filled."""
        return self.status in OPEN_STATUSES


class AlgoState(msgspec.Struct, frozen=True, rename="camel"):
    """A conditional order as it stands. `actual_order_id` is the order that its trigger made, empty before."""

    algo_id: int
    client_algo_id: str
    algo_status: str = "NEW"
    symbol: str = ""
    side: Side | None = None
    order_type: str = ""
    position_side: PositionSide = PositionSide.BOTH
    quantity: Decimal | None = None
    trigger_price: Decimal | None = None
    price: Decimal | None = None
    close_position: bool = False
    reduce_only: bool = False
    actual_order_id: str | int | None = None
    create_time: int = 0
    update_time: int = 0
    trigger_time: int = 0

    @property
    def open(self) -> bool:
        """Whether it may still trigger, or its order has not appeared yet."""
        return self.algo_status in OPEN_ALGO_STATUSES


class Done(msgspec.Struct, frozen=True):
    """`{"code": 200, "msg": "success"}`, the code as a number or as text."""

    code: int = 200
    msg: str = ""


class AlgoCancelled(msgspec.Struct, frozen=True, rename="camel"):
    """That a conditional order is cancelled."""

    algo_id: int
    client_algo_id: str = ""
    code: int = 200
    msg: str = ""


class Asset(msgspec.Struct, frozen=True, rename="camel"):
    """One coin of the account."""

    asset: str
    wallet_balance: Decimal = ZERO
    unrealized_profit: Decimal = ZERO
    margin_balance: Decimal = ZERO
    maint_margin: Decimal = ZERO
    initial_margin: Decimal = ZERO
    available_balance: Decimal = ZERO
    cross_wallet_balance: Decimal = ZERO
    update_time: int = 0


class Account(msgspec.Struct, frozen=True, rename="camel"):
    """The account's sums in USDT, and its coins."""

    total_wallet_balance: Decimal
    total_unrealized_profit: Decimal
    total_margin_balance: Decimal
    available_balance: Decimal
    total_maint_margin: Decimal = ZERO
    total_initial_margin: Decimal = ZERO
    assets: tuple[Asset, ...] = ()


class Position(msgspec.Struct, frozen=True, rename="camel"):
    """One position. `position_amt` is negative for a short; the venue spells its profit otherwise than elsewhere."""

    symbol: str
    position_side: PositionSide
    position_amt: Decimal
    entry_price: Decimal = ZERO
    break_even_price: Decimal = ZERO
    mark_price: Decimal = ZERO
    un_realized_profit: Decimal = ZERO
    liquidation_price: Decimal = ZERO
    isolated_margin: Decimal = ZERO
    notional: Decimal = ZERO
    margin_asset: str = ""
    update_time: int = 0


class AccountConfig(msgspec.Struct, frozen=True, rename="camel"):
    """What the account may do, and how it is set."""

    can_trade: bool
    dual_side_position: bool
    multi_assets_margin: bool = False
    fee_tier: int = 0


class SymbolConfig(msgspec.Struct, frozen=True, rename="camel"):
    """How the account is set for one symbol; `margin_type` is ISOLATED or CROSSED."""

    symbol: str
    margin_type: str
    leverage: int
    is_auto_add_margin: bool | str = False
    max_notional_value: Decimal = ZERO


class LeverageAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The leverage in force."""

    symbol: str
    leverage: int
    max_notional_value: Decimal = ZERO


class Countdown(msgspec.Struct, frozen=True, rename="camel"):
    """After how many ms all orders of a symbol are cancelled unless it is asked again; 0 never."""

    symbol: str
    countdown_time: int


class Trade(msgspec.Struct, frozen=True, rename="camel"):
    """One fill."""

    symbol: str
    id: int
    order_id: int
    side: Side
    price: Decimal
    qty: Decimal
    time: int
    realized_pnl: Decimal = ZERO
    commission: Decimal = ZERO
    commission_asset: str = ""
    position_side: PositionSide = PositionSide.BOTH
    maker: bool = False


class Commission(msgspec.Struct, frozen=True, rename="camel"):
    """The fees of one symbol, as fractions of value."""

    symbol: str
    maker_commission_rate: Decimal
    taker_commission_rate: Decimal


class ListenKey(msgspec.Struct, frozen=True, rename="camel"):
    """The key of the user stream."""

    listen_key: str = ""

    def __repr__(self) -> str:
        return "<ListenKey>"


class DualSide(msgspec.Struct, frozen=True, rename="camel"):
    """Whether the account holds long and short apart."""

    dual_side_position: bool


class IncomeRow(msgspec.Struct, frozen=True, rename="camel"):
    """One booking: funding, commission, realised profit, transfer."""

    income_type: str
    income: Decimal
    asset: str
    time: int
    symbol: str = ""
    tran_id: int = 0
    info: str = ""
    trade_id: str = ""
