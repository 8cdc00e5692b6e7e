"""What the user stream says of an account, typed. Unknown fields, events and words of the venue are passed over."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from market.binance.decoding import UNDECODABLE, not_finite
from market.binance.errors import StreamMessageInvalid
from market.binance.position_mode import PositionSide
from market.binance.rules import Side

ZERO = Decimal(0)
EVENTS = (
    "ORDER_TRADE_UPDATE",
    "ACCOUNT_UPDATE",
    "ALGO_UPDATE",
    "ACCOUNT_CONFIG_UPDATE",
    "MARGIN_CALL",
    "TRADE_LITE",
    "listenKeyExpired",
)
"""All that is asked for. The venue does not check the list: a misspelt name would never come."""

_FORCED = ("autoclose-", "adl_autoclose", "settlement_autoclose-")


class OrderEvent(
    msgspec.Struct,
    frozen=True,
    rename={
        "symbol": "s",
        "client_id": "c",
        "side": "S",
        "type": "o",
        "time_in_force": "f",
        "quantity": "q",
        "price": "p",
        "average_price": "ap",
        "execution": "x",
        "status": "X",
        "order_id": "i",
        "last_quantity": "l",
        "filled_quantity": "z",
        "last_price": "L",
        "commission_asset": "N",
        "commission": "n",
        "trade_time": "T",
        "trade_id": "t",
        "maker": "m",
        "reduce_only": "R",
        "position_side": "ps",
        "close_position": "cp",
        "realized_profit": "rp",
        "original_type": "ot",
        "expiry_reason": "er",
    },
):
    """What happened to an order. `execution` is NEW, TRADE, CANCELED, EXPIRED, AMENDMENT, CALCULATED or a new word."""

    symbol: str
    client_id: str
    side: Side
    status: str
    order_id: int
    execution: str
    type: str = ""
    time_in_force: str = ""
    quantity: Decimal = ZERO
    price: Decimal = ZERO
    average_price: Decimal = ZERO
    last_quantity: Decimal = ZERO
    filled_quantity: Decimal = ZERO
    last_price: Decimal = ZERO
    commission_asset: str | None = None
    commission: Decimal = ZERO
    trade_time: int = 0
    trade_id: int = 0
    maker: bool = False
    reduce_only: bool = False
    position_side: PositionSide = PositionSide.BOTH
    close_position: bool = False
    realized_profit: Decimal = ZERO
    original_type: str = ""
    expiry_reason: int | str = 0

    @property
    def forced(self) -> bool:
        """Whether the venue did it: a liquidation, an automatic deleveraging or a settlement."""
        return self.execution == "CALCULATED" or self.client_id.startswith(_FORCED)


class Balance(msgspec.Struct, frozen=True, rename={"asset": "a", "wallet": "wb", "cross": "cw", "change": "bc"}):
    """A coin whose balance has changed."""

    asset: str
    wallet: Decimal
    cross: Decimal = ZERO
    change: Decimal = ZERO


class HeldPosition(
    msgspec.Struct,
    frozen=True,
    rename={
        "symbol": "s",
        "amount": "pa",
        "entry_price": "ep",
        "unrealized_profit": "up",
        "margin_type": "mt",
        "isolated_wallet": "iw",
        "position_side": "ps",
    },
):
    """A position that has changed; `amount` is negative for a short, 0 when it has ended."""

    symbol: str
    amount: Decimal
    position_side: PositionSide = PositionSide.BOTH
    entry_price: Decimal = ZERO
    unrealized_profit: Decimal = ZERO
    margin_type: str = ""
    isolated_wallet: Decimal = ZERO


class Changes(msgspec.Struct, frozen=True, rename={"reason": "m", "balances": "B", "positions": "P"}):
    """What has changed in the account, and nothing else; `reason` is ORDER, FUNDING_FEE, … or a new word."""

    reason: str
    balances: tuple[Balance, ...] = ()
    positions: tuple[HeldPosition, ...] = ()


class AlgoEvent(
    msgspec.Struct,
    frozen=True,
    rename={
        "client_id": "caid",
        "algo_id": "aid",
        "symbol": "s",
        "side": "S",
        "type": "o",
        "status": "X",
        "order_id": "ai",
        "trigger_price": "tp",
        "position_side": "ps",
        "quantity": "q",
        "close_position": "cp",
        "reduce_only": "R",
        "reject_message": "rm",
    },
):
    """What happened to a conditional order. `order_id` is the order that its trigger made, as text, empty before."""

    client_id: str
    algo_id: int
    symbol: str
    side: Side
    status: str
    type: str = ""
    order_id: str | int | None = None
    trigger_price: Decimal = ZERO
    position_side: PositionSide = PositionSide.BOTH
    quantity: Decimal = ZERO
    close_position: bool = False
    reduce_only: bool = False
    reject_message: str | None = None


class OrderUpdate(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="ORDER_TRADE_UPDATE",
    rename={"event_time": "E", "transaction_time": "T", "order": "o"},
):
    """An order event with its times, ms."""

    event_time: int
    transaction_time: int
    order: OrderEvent


class AccountUpdate(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="ACCOUNT_UPDATE",
    rename={"event_time": "E", "transaction_time": "T", "changes": "a"},
):
    """Balances and positions that have changed, with their times, ms."""

    event_time: int
    transaction_time: int
    changes: Changes


class AlgoUpdate(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="ALGO_UPDATE",
    rename={"event_time": "E", "transaction_time": "T", "algo": "o"},
):
    """An event of a conditional order. It may come after those of the order that its trigger made."""

    event_time: int
    transaction_time: int
    algo: AlgoEvent


class Setting(msgspec.Struct, frozen=True, rename={"symbol": "s", "leverage": "l"}):
    """The leverage of a symbol."""

    symbol: str
    leverage: int


class ConfigUpdate(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="ACCOUNT_CONFIG_UPDATE",
    rename={"event_time": "E", "transaction_time": "T", "setting": "ac"},
):
    """A leverage that has been changed; `setting` is None for other settings."""

    event_time: int
    transaction_time: int = 0
    setting: Setting | None = None


class MarginCall(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="MARGIN_CALL",
    rename={"event_time": "E", "positions": "p"},
):
    """Positions near their liquidation, as the venue writes them."""

    event_time: int
    positions: tuple[dict[str, Any], ...] = ()


class KeyExpired(msgspec.Struct, frozen=True, tag_field="e", tag="listenKeyExpired", rename={"event_time": "E"}):
    """The key of this stream has ended: nothing more will come."""

    event_time: int = 0


UserEvent = OrderUpdate | AccountUpdate | AlgoUpdate | ConfigUpdate | MarginCall | KeyExpired
_DECODER: msgspec.json.Decoder[UserEvent] = msgspec.json.Decoder(UserEvent, strict=False)
_KNOWN = frozenset(
    ("ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE", "ALGO_UPDATE", "ACCOUNT_CONFIG_UPDATE", "MARGIN_CALL", "listenKeyExpired")
)


def parse_user(raw: bytes | str) -> UserEvent | None:
    """The event in a message of the user stream, in its envelope or bare; None for what this client does not know.

    Raises `StreamMessageInvalid` for what is not JSON, not an object, or not what its event type promises.

    >>> parse_user('{"e":"listenKeyExpired","E":7,"listenKey":"k"}')
    KeyExpired(event_time=7)
    """
    try:
        return _checked(_DECODER.decode(raw), raw)
    except UNDECODABLE:
        pass
    try:
        message = msgspec.json.decode(raw)
    except UNDECODABLE as error:
        raise StreamMessageInvalid(str(error), _hidden(raw)) from None
    if not isinstance(message, dict):
        raise StreamMessageInvalid("it is not an object", _hidden(raw))
    data = message.get("data", message)
    if isinstance(data, dict) and isinstance(data.get("e"), str):
        if data["e"] not in _KNOWN:
            return None
        try:
            return _checked(msgspec.convert(data, UserEvent, strict=False), raw)
        except msgspec.ValidationError as error:
            raise StreamMessageInvalid(str(error), _hidden(raw)) from None
    if "result" in message or "code" in message:
        return None
    raise StreamMessageInvalid("it names no event", _hidden(raw))


def _checked(event: UserEvent, raw: bytes | str) -> UserEvent:
    wrong = not_finite(event)
    if wrong is not None:
        raise StreamMessageInvalid(f"its {wrong} is no number", _hidden(raw))
    return event


def _hidden(raw: bytes | str) -> str:
    """What an error may show of a message: the envelope of this stream is its key."""
    return f"({len(raw)} bytes of the user stream)"
