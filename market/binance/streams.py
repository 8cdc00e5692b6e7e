"""The venue's market streams: their addresses, and their messages as typed events.

Unknown fields and unknown events are tolerated, as the venue adds both; what claims to be a known event and is not
one raises `StreamMessageInvalid`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np

from market.bars import BAR, INTERVAL_MS, interval_ms
from market.binance.decoding import UNDECODABLE
from market.binance.errors import StreamMessageInvalid

MAX_STREAMS = 200
"""Streams on one connection. The venue takes 1,024; fewer lose less when a connection breaks."""

Time = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Kline(
    msgspec.Struct,
    frozen=True,
    rename={
        "open_time": "t",
        "close_time": "T",
        "symbol": "s",
        "interval": "i",
        "open": "o",
        "high": "h",
        "low": "l",
        "close": "c",
        "volume": "v",
        "trades": "n",
        "closed": "x",
        "quote_volume": "q",
        "taker_buy_base": "V",
        "taker_buy_quote": "Q",
    },
):
    """The bar inside a kline event. `trades` is None where a recording that is played has none."""

    open_time: Time
    close_time: Time
    symbol: str
    interval: str
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: float | None
    closed: bool
    quote_volume: float
    taker_buy_base: float
    taker_buy_quote: float


class KlineEvent(
    msgspec.Struct,
    frozen=True,
    tag_field="e",
    tag="kline",
    rename={"event_time": "E", "symbol": "s", "kline": "k"},
):
    """A bar as it stands at `event_time`. Only one that is `closed` will not change."""

    event_time: Time
    symbol: str
    kline: Kline

    @property
    def closed(self) -> bool:
        """Whether the venue has closed the bar."""
        return self.kline.closed

    @property
    def interval(self) -> str:
        """The bar's interval, a key of `market.bars.INTERVAL_MS`."""
        return self.kline.interval

    @property
    def open_time(self) -> int:
        """The bar's first millisecond."""
        return self.kline.open_time

    @property
    def price(self) -> float:
        """The last price: the bar's close so far."""
        return self.kline.close

    @property
    def bar(self) -> np.void:
        """The bar as one `BAR`. Missing flows follow the rule of `market.bars`. Not checked: see `bars.check_next`."""
        kline = self.kline
        bars = np.empty(1, dtype=BAR)
        bars[0] = (
            kline.open_time,
            kline.close_time,
            kline.open,
            kline.high,
            kline.low,
            kline.close,
            kline.volume,
            kline.close * kline.volume if math.isnan(kline.quote_volume) else kline.quote_volume,
            math.nan if kline.trades is None else kline.trades,
            kline.taker_buy_base,
            kline.taker_buy_quote,
        )
        bar: np.void = bars[0]
        return bar


class MarkPriceEvent(msgspec.Struct, frozen=True):
    """Mark price and funding of one symbol at `event_time`; `funding_rate` is NaN where the venue has none."""

    symbol: str
    event_time: int
    mark_price: float
    index_price: float
    funding_rate: float
    next_funding_time: int


class ControlAnswer(msgspec.Struct, frozen=True):
    """The answer to a control message such as SUBSCRIBE. An error has a `code`."""

    id: int | str | None = None
    result: Any = None
    code: int | None = None
    msg: str = ""


@dataclass(frozen=True)
class SubscriptionRefused:
    """The venue refused a control message of a stream connection: the same again is refused again, and until another
    connection is made the streams may be silent, while REST has their bars."""

    code: int
    """The venue's: 0 unknown property, 1 wrong type of a value, 2 invalid request, 3 invalid JSON."""
    message: str
    method: str
    names: tuple[str, ...]
    """What was asked for; both are empty when the answer does not tell which request it is of."""

    def __str__(self) -> str:
        shown = ", ".join(self.names[:3]) + (f" and {len(self.names) - 3} more" if len(self.names) > 3 else "")
        what = f"{self.method} of {shown}" if self.names else "a control message"
        return f"the venue refused {what}: {self.message} (code {self.code})"


class _Mark(msgspec.Struct, tag_field="e", tag="markPriceUpdate"):
    E: Time
    s: str
    p: float
    i: float
    r: str
    T: Time


class _Combined(msgspec.Struct):
    stream: str
    data: KlineEvent | _Mark


_COMBINED = msgspec.json.Decoder(_Combined, strict=False)
_RAW = msgspec.json.Decoder(KlineEvent | _Mark, strict=False)
_KNOWN = ("kline", "markPriceUpdate")
Event = KlineEvent | MarkPriceEvent | ControlAnswer


def parse(raw: bytes | str) -> Event | None:
    """The event in a message of `/stream` or `/ws`; None for events that this client does not know.

    Raises `StreamMessageInvalid` for what is not JSON, not an object, or not what its event type promises.

    >>> parse('{"result":null,"id":7}')
    ControlAnswer(id=7, result=None, code=None, msg='')
    """
    try:
        event = _COMBINED.decode(raw).data if raw[:9] in (b'{"stream"', '{"stream"') else _RAW.decode(raw)
    except UNDECODABLE as error:
        return _parse_other(raw, str(error))
    return _checked(event, raw)


def parse_kline(raw: bytes | str) -> KlineEvent | None:
    """As `parse`, when only klines matter: everything else that is well formed is None."""
    event = parse(raw)
    return event if isinstance(event, KlineEvent) else None


def _parse_other(raw: bytes | str, reason: str) -> Event | None:
    """What the fast path did not take: control answers, unknown events, fields in another order, and faults."""
    try:
        message = msgspec.json.decode(raw)
    except UNDECODABLE as error:
        raise StreamMessageInvalid(str(error), raw) from error
    if not isinstance(message, dict):
        raise StreamMessageInvalid("it is not an object", raw)
    data = message.get("data", message)
    if isinstance(data, dict) and data.get("e") in _KNOWN:
        try:
            return _checked(msgspec.convert(data, KlineEvent | _Mark, strict=False), raw)
        except msgspec.ValidationError as error:
            raise StreamMessageInvalid(str(error), raw) from error
    if "result" in message or "code" in message:
        try:
            return msgspec.convert(message, ControlAnswer)
        except msgspec.ValidationError as error:
            raise StreamMessageInvalid(str(error), raw) from error
    if isinstance(data, list) or (isinstance(data, dict) and isinstance(data.get("e"), str)):
        return None
    raise StreamMessageInvalid(reason, raw)


def _checked(event: KlineEvent | _Mark, raw: bytes | str) -> Event:
    if isinstance(event, KlineEvent):
        kline = event.kline
        step = INTERVAL_MS.get(kline.interval)
        if step is None or kline.open_time % step or kline.close_time != kline.open_time + step - 1:
            raise StreamMessageInvalid("its times are not those of a bar of its interval", raw)
        if kline.symbol != event.symbol:
            raise StreamMessageInvalid("it names two symbols", raw)
        return event
    try:
        rate = float(event.r) if event.r else math.nan
    except ValueError as error:
        raise StreamMessageInvalid(str(error), raw) from error
    return MarkPriceEvent(event.s, event.E, event.p, event.i, rate, event.T)


def kline_stream(symbol: str, interval: str = "1m") -> str:
    """The name of a symbol's kline stream; `UnknownInterval` if there is no such interval.

    >>> kline_stream("BTCUSDT")
    'btcusdt@kline_1m'
    """
    interval_ms(interval)
    return f"{symbol.lower()}@kline_{interval}"


def mark_price_stream(symbol: str) -> str:
    """The name of a symbol's mark price stream."""
    return f"{symbol.lower()}@markPrice@1s"


_PUBLIC = ("bookTicker", "depth", "rpiDepth", "trade")


def route(name: str) -> str:
    """The route that a stream is delivered on. On another the venue accepts the subscription and stays silent.

    >>> [route(name) for name in ("btcusdt@kline_1m", "btcusdt@depth@100ms", "!bookTicker", "btcusdt@depth5")]
    ['market', 'public', 'public', 'public']
    """
    kind = name.removeprefix("!") if name.startswith("!") else name.partition("@")[2]
    kind = kind.partition("@")[0]
    return "public" if kind in _PUBLIC or (kind.startswith("depth") and kind[5:].isdecimal()) else "market"


def stream_urls(ws_root: str, names: Iterable[str], per_connection: int = MAX_STREAMS) -> list[str]:
    """Addresses that deliver all these streams, each on its route, at most `per_connection` on each connection.

    >>> stream_urls("wss://x", ["a@kline_1m", "a@bookTicker"])
    ['wss://x/market/stream?streams=a@kline_1m', 'wss://x/public/stream?streams=a@bookTicker']
    """
    by_route: dict[str, list[str]] = {"market": [], "public": []}
    for name in dict.fromkeys(names):
        by_route[route(name)].append(name)
    root = ws_root.rstrip("/")
    return [
        f"{root}/{each}/stream?streams={'/'.join(streams[start : start + per_connection])}"
        for each, streams in by_route.items()
        for start in range(0, len(streams), per_connection)
    ]


def kline_stream_urls(ws_root: str, symbols: Iterable[str], interval: str = "1m") -> list[str]:
    """Addresses that deliver the klines of all these symbols.

    >>> kline_stream_urls("wss://fstream.binance.com", ["BTCUSDT", "ETHUSDT"])
    ['wss://fstream.binance.com/market/stream?streams=btcusdt@kline_1m/ethusdt@kline_1m']
    """
    return stream_urls(ws_root, (kline_stream(symbol, interval) for symbol in symbols))
