"""Small markets for the tests, and one that leaves minutes out."""

from __future__ import annotations

import functools

import numpy as np

from market.bars import Bars
from market.funding import Fundings
from market.klines_store import day_start
from market.lake import Lake
from market.sources.synthetic import SyntheticMarket
from orchestration.ingest import MarketView, ingest_klines, store_universe, universes

SOURCE = "synthetic:seed=7,symbols=3,edge=planted,start=2026-01-05"
FIRST = "2026-01-05"
START = day_start(FIRST)


def days(count: int, first: int = 5) -> list[str]:
    return [f"2026-01-{day:02d}" for day in range(first, first + count)]


@functools.cache
def _source(symbols: int) -> SyntheticMarket:
    """One market for all tests: it keeps the days that it has drawn."""
    return SyntheticMarket(seed=7, symbols=symbols, edge="planted", start_ms=START)


def synthetic(symbols: int = 3, until_ms: int | None = None) -> MarketView:
    return MarketView(_source(symbols), until_ms)


def ingest(lake: Lake, market: MarketView, dates: list[str]) -> None:
    for date in dates:
        store_universe(lake, market, date, 200)
        ingest_klines(lake, market, date, universes(lake, [date])[date])


class Holes:
    """A source that gives no bars of BTCUSDT in [start, end), or only when it is asked for little at once."""

    name = "holes"

    def __init__(self, start_ms: int, end_ms: int, *, heals: bool) -> None:
        self._market = _source(2)
        self._hole = (start_ms, end_ms)
        self._heals = heals
        self.asked: list[tuple[str, int, int]] = []

    def symbols(self) -> tuple[str, ...]:
        return self._market.symbols()

    def coverage(self, symbol: str) -> tuple[int, int] | None:
        return self._market.coverage(symbol)

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, start_ms, end_ms))
        bars = self._market.klines(symbol, start_ms, end_ms)
        if symbol != "BTCUSDT" or (self._heals and end_ms - start_ms < 3_600_000):
            return bars
        times = bars["open_time"]
        return bars[~((times >= self._hole[0]) & (times < self._hole[1]))]

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Fundings:
        return self._market.funding(symbol, start_ms, end_ms)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal to the bit, NaN included."""
    return one.shape == other.shape and one.tobytes() == other.tobytes()
