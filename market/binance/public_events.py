"""Events of the order book and of trades: best prices, trades, changes of the depth, liquidations, the last day.

Unknown fields and unknown events are tolerated; what claims to be a known event and is not one raises
`StreamMessageInvalid`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from market.binance.decoding import UNDECODABLE
from market.binance.errors import StreamMessageInvalid

Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Identity = Annotated[int, msgspec.Meta(ge=-1, le=1 << 62)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Level = tuple[Amount, Amount]
"""Price and quantity; a quantity of 0 takes the price out of the book."""


class BookTicker(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="bookTicker",
    rename={
        "update_id": "u",
        "event_time": "E",
        "transaction_time": "T",
        "symbol": "s",
        "bid": "b",
        "bid_quantity": "B",
        "ask": "a",
        "ask_quantity": "A",
    },
):
    """The best prices as they stand after an update of the book."""

    update_id: Identity
    event_time: Time
    transaction_time: Time
    symbol: str
    bid: Amount
    bid_quantity: Amount
    ask: Amount
    ask_quantity: Amount


class Trade(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="trade",
    rename={
        "event_time": "E",
        "transaction_time": "T",
        "symbol": "s",
        "trade_id": "t",
        "price": "p",
        "quantity": "q",
        "kind": "X",
        "buyer_is_maker": "m",
    },
):
    """One trade; `kind` is MARKET, or what else the venue calls it (a liquidation, an insurance fund's)."""

    event_time: Time
    transaction_time: Time
    symbol: str
    trade_id: Identity
    price: Amount
    quantity: Amount
    buyer_is_maker: bool
    kind: str = "MARKET"


class AggregatedTrade(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="aggTrade",
    rename={
        "event_time": "E",
        "transaction_time": "T",
        "symbol": "s",
        "trade_id": "a",
        "price": "p",
        "quantity": "q",
        "first_id": "f",
        "last_id": "l",
        "buyer_is_maker": "m",
    },
):
    """Trades of one taker at one price."""

    event_time: Time
    transaction_time: Time
    symbol: str
    trade_id: Identity
    price: Amount
    quantity: Amount
    first_id: Identity
    last_id: Identity
    buyer_is_maker: bool


class DepthUpdate(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="depthUpdate",
    rename={
        "event_time": "E",
        "transaction_time": "T",
        "symbol": "s",
        "first_id": "U",
        "last_id": "u",
        "previous_id": "pu",
        "bids": "b",
        "asks": "a",
    },
):
    """Changes of the book from `first_id` to `last_id`, after the event that ended with `previous_id`."""

    event_time: Time
    transaction_time: Time
    symbol: str
    first_id: Identity
    last_id: Identity
    previous_id: Identity
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class ForcedOrder(
    msgspec.Struct,
    frozen=True,
    rename={
        "symbol": "s",
        "side": "S",
        "kind": "o",
        "time_in_force": "f",
        "quantity": "q",
        "price": "p",
        "average_price": "ap",
        "status": "X",
        "last_quantity": "l",
        "executed": "z",
        "time": "T",
    },
):
    """A liquidation order; a SELL closes a long. `time` is when it was executed."""

    symbol: str
    side: Literal["BUY", "SELL"]
    kind: str
    time_in_force: str
    quantity: Amount
    price: Amount
    average_price: Amount
    status: str
    last_quantity: Amount
    executed: Amount
    time: Time


class Liquidation(
    msgspec.Struct, frozen=True, tag_field="e", tag="forceOrder", rename={"event_time": "E", "order": "o"}
):
    """The largest liquidation of a symbol within a second; smaller ones are never told, so sums are too low."""

    event_time: Time
    order: ForcedOrder

    @property
    def symbol(self) -> str:
        """The symbol, as every public event has one."""
        return self.order.symbol


class DayTicker(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="24hrTicker",
    rename={
        "event_time": "E",
        "symbol": "s",
        "change": "p",
        "change_percent": "P",
        "mean_price": "w",
        "last_price": "c",
        "last_quantity": "Q",
        "open": "o",
        "high": "h",
        "low": "l",
        "volume": "v",
        "quote_volume": "q",
        "open_time": "O",
        "close_time": "C",
        "trades": "n",
    },
):
    """The last 24 hours of a symbol; prices and `quote_volume` in its quote asset."""

    event_time: Time
    symbol: str
    change: float
    change_percent: float
    mean_price: Amount
    last_price: Amount
    last_quantity: Amount
    open: Amount
    high: Amount
    low: Amount
    volume: Amount
    quote_volume: Amount
    open_time: Time
    close_time: Time
    trades: int


class DepthSnapshot(msgspec.Struct, frozen=True, rename={"last_id": "lastUpdateId"}):
    """The book as `GET /fapi/v1/depth` tells it."""

    last_id: Identity
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


PublicEvent = BookTicker | Trade | AggregatedTrade | DepthUpdate | Liquidation | DayTicker


class _Combined(msgspec.Struct):
    stream: str
    data: PublicEvent


_KNOWN = frozenset(("bookTicker", "trade", "aggTrade", "depthUpdate", "forceOrder", "24hrTicker"))
_COMBINED = msgspec.json.Decoder(_Combined, strict=False)
_RAW: msgspec.json.Decoder[PublicEvent] = msgspec.json.Decoder(PublicEvent, strict=False)


def parse_public(raw: bytes | str) -> PublicEvent | None:
    """The event in a message, in its envelope or bare; None for answers, for other events, and for those of
    all symbols together.

    >>> parse_public('{"e":"trade","E":2,"T":1,"s":"A","t":"7","p":"1.5","q":"2","m":false}').price
    1.5
    """
    try:
        found: PublicEvent = _COMBINED.decode(raw).data if raw[:9] in (b'{"stream"', '{"stream"') else _RAW.decode(raw)
        return found
    except UNDECODABLE:
        pass
    try:
        message = msgspec.json.decode(raw)
    except UNDECODABLE as error:
        raise StreamMessageInvalid(str(error), raw) from error
    if not isinstance(message, dict):
        raise StreamMessageInvalid("it is not an object", raw)
    data = message.get("data", message)
    name = data.get("e") if isinstance(data, dict) else None
    if isinstance(name, str) and name in _KNOWN:
        try:
            event: PublicEvent = msgspec.convert(data, PublicEvent, strict=False)
        except msgspec.ValidationError as error:
            raise StreamMessageInvalid(str(error), raw) from error
        return event
    if isinstance(data, list) or isinstance(name, str) or "result" in message or "code" in message:
        return None
    raise StreamMessageInvalid("it names no event", raw)
