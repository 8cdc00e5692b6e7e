"""Six days of three symbols for the tests of the archive's ingest, and a source that cannot be asked."""

from __future__ import annotations

import functools
from pathlib import Path

from market.bars import DAY_MS, Bars
from market.errors import SourceUnreadable
from market.klines_store import date_of, day_start
from market.sources.synthetic import SyntheticMarket
from tests.market.archive_mirror import store_klines
from tests.market.exchange_helpers import MemorySource

START = day_start("2026-01-29")
"""Three days of January, then three of February."""
END = START + 6 * DAY_MS
LONG_AFTER = END + 90 * DAY_MS
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")


@functools.cache
def drawn() -> dict[str, Bars]:
    """Every symbol's bars of all days."""
    market = SyntheticMarket(seed=4, symbols=SYMBOLS, start_ms=START)
    return {symbol: market.klines(symbol, START, END) for symbol in SYMBOLS}


def part(bars: Bars, first_day: float, last_day: float) -> Bars:
    """Bars of some days, counted from the first."""
    start, end = (START + int(day * DAY_MS) for day in (first_day, last_day))
    return bars[(bars["open_time"] >= start) & (bars["open_time"] < end)]


def mirrored(root: Path) -> Path:
    """BTC whole by months; ETH by month and by days without a header; DOGE listed on the second day."""
    btc, eth, doge = (drawn()[symbol] for symbol in SYMBOLS)
    store_klines(root, "BTCUSDT", "2026-01", part(btc, 0, 3))
    store_klines(root, "BTCUSDT", "2026-02", part(btc, 3, 6))
    store_klines(root, "ETHUSDT", "2026-01", part(eth, 0, 3), header=False)
    for day in (3, 4, 5):
        store_klines(root, "ETHUSDT", date_of(START + day * DAY_MS), part(eth, day, day + 1), header=day == 4)
    store_klines(root, "DOGEUSDT", "2026-01", part(doge, 1.5, 3))
    store_klines(root, "DOGEUSDT", "2026-02", part(doge, 3, 6))
    return root


class Failing(MemorySource):
    """A source that cannot be asked."""

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        raise SourceUnreadable("rest", "down")
