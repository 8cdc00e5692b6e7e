"""Kline messages of 200 symbols parsed and dispatched to their series on one core, against json from the library."""

from __future__ import annotations

import json
import time

import numpy as np

from benchmarks.report import Row
from market.bars import MINUTE_MS, from_columns
from market.binance.bar_feed import BarFeed
from market.binance.bar_sink import ClosedBar
from market.binance.streams import KlineEvent

SYMBOLS = tuple(f"COIN{i}USDT" for i in range(200))
MINUTES = 6
UPDATES = 39
"""Updates of each open bar before its closed one."""
START = 1_767_657_600_000
ROUNDS = 5
WANTED_A_SECOND = 150_000


def messages() -> list[bytes]:
    """A stretch of the combined stream as the venue writes it: updates of all symbols in turn, then the closed bars."""
    rng = np.random.default_rng(3)
    found = []
    for minute in range(MINUTES):
        opened = START + minute * MINUTE_MS
        prices = rng.uniform(0.01, 90_000, len(SYMBOLS))
        for update in range(UPDATES + 1):
            closed = update == UPDATES
            event_time = opened + MINUTE_MS + 1_999 if closed else opened + update * 1_500
            for symbol, price in zip(SYMBOLS, prices, strict=True):
                kline = {"t": opened, "T": opened + MINUTE_MS - 1, "s": symbol, "i": "1m", "f": 100, "L": 200}
                kline |= {"o": f"{price:.4f}", "c": f"{price * 1.0001:.4f}", "h": f"{price * 1.0002:.4f}"}
                kline |= {"l": f"{price * 0.9999:.4f}", "v": "37.366", "n": 101 + update, "x": closed}
                kline |= {"q": "3424675.551", "V": "18.512", "Q": "1696634.981", "B": "0"}
                event = {"e": "kline", "E": event_time, "s": symbol, "k": kline}
                wrapped = {"stream": f"{symbol.lower()}@kline_1m", "data": event}
                found.append(json.dumps(wrapped, separators=(",", ":")).encode())
    return found


class _Desk:
    """Keeps the bars and the last price of each symbol."""

    def __init__(self) -> None:
        self.bars: list[ClosedBar] = []
        self.moves = 0
        self.prices: dict[str, float] = {}

    def closed(self, bar: ClosedBar) -> None:
        self.bars.append(bar)

    def moving(self, event: KlineEvent) -> None:
        self.moves += 1
        self.prices[event.symbol] = event.kline.close

    def revised(self, used: ClosedBar, other: np.void) -> None:
        raise AssertionError(used)

    def absent(self, symbol: str, interval: str, start_ms: int, end_ms: int, cause: str) -> None:
        raise AssertionError(symbol)

    def rejected(self, error: Exception) -> None:
        raise AssertionError(error)


def _ours(raws: list[bytes]) -> _Desk:
    desk = _Desk()
    series = {(symbol, "1m"): START for symbol in SYMBOLS}
    feed = BarFeed(series, desk, venue_ms=START, seconds=time.perf_counter)
    for raw in raws:
        feed.take(raw, 0.0)
    return desk


def _plain(raws: list[bytes]) -> _Desk:
    """As a script would do it: dicts and float()."""
    desk = _Desk()
    for raw in raws:
        event = json.loads(raw)["data"]
        kline = event["k"]
        names = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "quote_volume": "q"}
        numbers = {name: float(kline[key]) for name, key in names.items()}
        numbers |= {"taker_buy_base": float(kline["V"]), "taker_buy_quote": float(kline["Q"])}
        if kline["x"]:
            columns = {name: [value] for name, value in numbers.items()}
            bar = from_columns(columns | {"open_time": [kline["t"]], "trades": [kline["n"]]})[0]
            desk.bars.append(ClosedBar(event["s"], kline["i"], bar, event["E"]))
        desk.moves += 1
        desk.prices[event["s"]] = numbers["close"]
    return desk


def run() -> list[Row]:
    """Parity of every bar and price, then the messages a second of both; the best of some rounds each."""
    raws = messages()
    ours, plain = _ours(raws), _plain(raws)
    assert len(ours.bars) == len(plain.bars) == len(SYMBOLS) * MINUTES
    assert ours.moves == plain.moves
    assert ours.prices == plain.prices
    for one, two in zip(ours.bars, plain.bars, strict=True):
        assert (one.symbol, one.event_time) == (two.symbol, two.event_time)
        assert one.bar.tobytes() == two.bar.tobytes(), f"{one.symbol}: {one.bar} is not {two.bar}"
    # In turns, so that both meet the same machine.
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        for name, call in (("ours", _ours), ("plain", _plain)):
            began = time.process_time()
            call(raws)
            seconds[name].append(time.process_time() - began)
    taken = {name: 1e6 * min(each) / len(raws) for name, each in seconds.items()}
    median = len(raws) / float(np.median(seconds["ours"]))
    note = f"{1e6 / taken['ours']:,.0f} messages a second of CPU (median round {median:,.0f})"
    what, most_us = "kline message parsed and dispatched, one core", 1e6 / WANTED_A_SECOND
    return [Row(what, taken["ours"], "µs", taken["plain"], "json", note, at_most=most_us)]
