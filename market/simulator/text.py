"""Numbers as the venue writes them: JSON strings that hold plain decimals, exact to the last bit."""

from __future__ import annotations

import re
from decimal import Decimal

import msgspec
import numpy as np
from numpy.typing import NDArray

from market.bars import Bars

_SYMBOL = re.compile(rb',"s":("[^"]*")')
MISSING = "NaN"
"""What stands for a quantity that the recording does not have.

The venue always has one. A zero would be a lie that the features could not tell from a fact, and float("NaN")
is understood by every client.
"""


def decimals(values: NDArray[np.float64] | list[float]) -> list[str]:
    """The shortest decimal, without exponent, that reads back as exactly the same float64; `MISSING` for NaN.

    >>> decimals(np.array([96543.2, 1e-7, 100.0, np.nan]))
    ['96543.2', '0.0000001', '100.0', 'NaN']
    """
    # One call of a fast encoder costs a fifth of a repr() per number.
    text = msgspec.json.encode(np.ravel(values).tolist()).decode("ascii")[1:-1]
    if not text:
        return []
    found = text.split(",")
    if "e" in text or "n" in text:
        return [_plain(item) for item in found]
    return found


def _plain(item: str) -> str:
    if item == "null":
        return MISSING
    return format(Decimal(item), "f") if "e" in item else item


def counts(values: NDArray[np.float64]) -> list[str]:
    """Numbers of trades as JSON integers; `null` where the recording has none.

    >>> counts(np.array([102.0, np.nan]))
    ['102', 'null']
    """
    return ["null" if value != value else str(int(value)) for value in values.tolist()]


def _trade_ids(bars: Bars) -> tuple[list[int], list[int]]:
    """First and last trade id of bars: invented, but ascending through time; -1 without trades, as at the venue."""
    traded = bars["trades"] > 0
    first = np.where(traded, bars["open_time"] // 60_000 * 1_000_000, -1)
    last = np.where(traded, first + np.where(traded, bars["trades"], 1).astype(np.int64) - 1, -1)
    return first.tolist(), last.tolist()


def kline_events(event_time: int, symbols: list[str], interval: str, bars: Bars, closed: bool) -> list[bytes]:
    """The venue's kline event for each of `bars`; `symbols[i]` is the symbol of `bars[i]` as a JSON string.

    Without its envelope; `closed` is the flag `x`.
    """
    columns = ("open", "close", "high", "low", "volume", "quote_volume", "taker_buy_base", "taker_buy_quote")
    text = iter(decimals(np.column_stack([bars[name] for name in columns])))
    opens, closes, flag = bars["open_time"].tolist(), bars["close_time"].tolist(), "true" if closed else "false"
    rows = zip(symbols, opens, closes, *_trade_ids(bars), counts(bars["trades"]), *[text] * 8, strict=True)
    return [
        f'{{"e":"kline","E":{event_time},"s":{symbol},"k":{{"t":{opened},"T":{end},"s":{symbol},'
        f'"i":"{interval}","f":{first},"L":{last},"o":"{o}","c":"{c}","h":"{h}","l":"{low}","v":"{v}",'
        f'"n":{trades},"x":{flag},"q":"{q}","V":"{taker_base}","Q":"{taker_quote}","B":"0"}}}}'.encode()
        for symbol, opened, end, first, last, trades, o, c, h, low, v, q, taker_base, taker_quote in rows
    ]


def continuous_kline(event: bytes) -> bytes:
    """A kline event as the stream of continuous klines has it: of a pair and a contract, without symbol in the bar.

    >>> continuous_kline(b'{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":0,"T":59999,"s":"BTCUSDT","i":"1m"}}')
    b'{"e":"continuous_kline","E":1,"ps":"BTCUSDT","ct":"PERPETUAL","k":{"t":0,"T":59999,"i":"1m"}}'
    """
    event = event.replace(b'{"e":"kline"', b'{"e":"continuous_kline"', 1)
    event = _SYMBOL.sub(rb',"ps":\1,"ct":"PERPETUAL"', event, count=1)
    return _SYMBOL.sub(b"", event, count=1)


def kline_rows(bars: Bars) -> bytes:
    """A whole answer of `GET /fapi/v1/klines`: a JSON array of rows of twelve elements."""
    columns = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_base", "taker_buy_quote")
    text = decimals(np.column_stack([bars[name] for name in columns]))
    trades = counts(bars["trades"])
    opens, closes = bars["open_time"].tolist(), bars["close_time"].tolist()
    rows = []
    for i in range(len(opens)):
        o, h, low, c, v, q, taker_base, taker_quote = text[8 * i : 8 * i + 8]
        rows.append(
            f'[{opens[i]},"{o}","{h}","{low}","{c}","{v}",{closes[i]},"{q}",{trades[i]},'
            f'"{taker_base}","{taker_quote}","0"]'
        )
    return ("[" + ",".join(rows) + "]").encode()


def mark_price_events(
    event_time: int, symbols: list[str], prices: NDArray[np.float64], rates: NDArray[np.float64], next_times: list[int]
) -> list[bytes]:
    """The venue's markPriceUpdate event for each symbol. An unknown rate is the empty string, as at the venue."""
    price_text, rate_text = decimals(prices), decimals(rates)
    found = []
    for i, symbol in enumerate(symbols):
        price = price_text[i]
        rate = "" if rate_text[i] == MISSING else rate_text[i]
        found.append(
            f'{{"e":"markPriceUpdate","E":{event_time},"s":{symbol},"p":"{price}","ap":"{price}","i":"{price}",'
            f'"P":"{price}","r":"{rate}","T":{next_times[i]}}}'.encode()
        )
    return found
