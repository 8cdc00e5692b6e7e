"""The bars that features are timed on: a synthetic market, and recorded ones where there are any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from market.bars import DAY_MS, Bars, read, resample
from market.sources import open_source

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "klines" / "um2025"
SYMBOLS = 12
DAYS = 50


def markets() -> dict[str, list[Bars]]:
    """5m bars of several symbols by the kind of market, the same for every run; says so where nothing is recorded."""
    found = {"synthetic": _synthetic()}
    files = sorted(RECORDED.glob("*-1m-*.parquet"))
    if files:
        found["recorded"] = [resample(read(file), "5m") for file in files]
    else:
        print("no recorded klines in ../shared/data: measured on the synthetic market alone")
    return found


def _synthetic() -> list[Bars]:
    source = open_source(f"synthetic:seed=3,symbols={SYMBOLS}")
    coverage = source.coverage(source.symbols()[0])
    assert coverage is not None
    end = coverage[0] + DAYS * DAY_MS
    return [resample(source.klines(symbol, coverage[0], end), "5m") for symbol in source.symbols()]


def stretches(markets: list[Bars], count: int, bars: int) -> list[Bars]:
    """`count` stretches of so many bars, no two alike: the processor must not learn one's turns from another.

    They begin evenly through all that there is, and so at all times of the day.
    """
    places = np.array([max(len(market) - bars, 0) for market in markets])
    until = np.cumsum(places)
    assert until[-1] >= count, "there are not so many different stretches"
    found = []
    for at in (np.arange(count) * until[-1] // count).tolist():
        market = int(np.searchsorted(until, at, side="right"))
        start = at - int(until[market] - places[market])
        found.append(markets[market][start : start + bars])
    return found
