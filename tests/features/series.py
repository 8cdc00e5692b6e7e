"""A small market of the tests' own: the same numbers on every machine and with every numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market.bars import BAR, INTERVAL_MS, Bars

START_MS = 1_767_571_200_000  # 2026-01-05T00:00:00Z, a Monday


def uniforms(seed: int, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1): splitmix64, in integer arithmetic."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed * 1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def make_bars(
    count: int,
    seed: int = 1,
    *,
    interval: str = "5m",
    start_ms: int = START_MS,
    price: float = 100.0,
    step: float = 0.002,
    missing: tuple[int, ...] | list[int] = (),
) -> Bars:
    """`count` bars of a random walk with regimes, opening gaps, dead bars and zero volume now and then."""
    length = INTERVAL_MS[interval]
    draws = uniforms(seed, count * 8).reshape(8, count)
    # Volatility changes every 150 bars, and a fortieth of the bars does not move at all.
    size = step * (0.3 + 1.7 * uniforms(seed + 77, count // 150 + 1)[np.arange(count) // 150])
    alive = draws[7] > 1 / 40
    close = price * np.cumprod(1.0 + np.where(alive, size * (draws[0] + draws[1] + draws[2] - 1.5), 0.0))
    open_ = np.concatenate(([price], close[:-1])) * (1.0 + np.where(alive, size * 0.05 * (draws[3] - 0.5), 0.0))
    open_ = np.where(alive, open_, close)
    bars = np.zeros(count, dtype=BAR)
    bars["open_time"] = start_ms + length * np.arange(count)
    bars["close_time"] = bars["open_time"] + length - 1
    bars["open"], bars["close"] = open_, close
    bars["high"] = np.maximum(open_, close) * (1.0 + np.where(alive, size * 0.5 * draws[4], 0.0))
    bars["low"] = np.minimum(open_, close) * (1.0 - np.where(alive, size * 0.5 * draws[5], 0.0))
    bars["volume"] = np.where(draws[7] > 1 / 80, 1000.0 * draws[6] * draws[6] * draws[3] * size / step, 0.0)
    bars["quote_volume"] = bars["volume"] * close
    bars["trades"] = np.floor(bars["volume"])
    bars["taker_buy_base"] = bars["volume"] * draws[2]
    bars["taker_buy_quote"] = bars["quote_volume"] * draws[2]
    keep = np.ones(count, dtype=bool)
    keep[list(missing)] = False
    return bars[keep]


def make_market(symbols: int, minutes: int, seed: int = 5) -> dict[str, Bars]:
    """1m bars of several symbols, with holes of one to 300 minutes, late listings and a dead symbol's end."""
    market: dict[str, Bars] = {}
    for index in range(symbols):
        bars = make_bars(minutes, seed + 10 * index, interval="1m", step=0.0007, price=10.0 ** (index % 4))
        draws = uniforms(seed + 900 + index, 12)
        keep = np.ones(minutes, dtype=bool)
        if index:
            for at, length in zip(draws[:6], draws[6:], strict=True):
                start = int(at * minutes)
                keep[start : start + 1 + int(length**4 * 300)] = False
        if index == 2:
            keep[: minutes // 3] = False
        if index == 3:
            keep[-minutes // 4 :] = False
        market[f"S{index}USDT"] = bars[keep]
    return market
