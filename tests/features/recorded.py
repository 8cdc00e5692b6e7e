"""Recorded bars, as the tests of structure take them."""

from __future__ import annotations

from pathlib import Path

from market.bars import Bars, read, resample


def recorded_bars(shared_data: Path, symbol: str, interval: str = "5m") -> Bars:
    """Bars of a symbol resampled from the recorded minutes of 2025."""
    return resample(read(shared_data / f"klines/um2025/{symbol}-1m-um2025.parquet"), interval)
