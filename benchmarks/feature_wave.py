"""One wave of 600 series (200 symbols on three timeframes) through all of SPEC, against recomputing the window."""

from __future__ import annotations

import numpy as np

from benchmarks.report import Row, seconds
from features import SPEC, FeatureEngine, compute
from market.bars import Bars, resample
from market.sources import open_source

SERIES = 600
HISTORY = SPEC.warmup + 60
WAVES = 50


def _series() -> list[Bars]:
    """One synthetic series' bars for each row; few symbols repeated, since the cost does not depend on the prices."""
    source = open_source("synthetic:seed=3,symbols=6")
    coverage = source.coverage(source.symbols()[0])
    assert coverage is not None
    start = coverage[0]
    end = start + (HISTORY + WAVES) * 300_000
    bars = [resample(source.klines(symbol, start, end), "5m") for symbol in source.symbols()]
    return [bars[i % len(bars)] for i in range(SERIES)]


def run() -> list[Row]:
    """Parity of the last wave with history, then the time of one wave."""
    series = _series()
    rows = np.arange(SERIES, dtype=np.int64)
    waves = [np.array([bars[i] for bars in series]) for i in range(HISTORY + WAVES)]
    engine = FeatureEngine(SERIES)
    for wave in waves[: HISTORY + WAVES - 1]:
        out = engine.update(rows, wave)
    before = engine.state.copy()
    out = engine.update(rows, waves[-1])
    for row in range(6):
        assert np.array_equal(out[row], compute(series[row])[-1], equal_nan=True), "live differs from history"

    def one_wave() -> None:
        engine.restore(before)
        engine.update(rows, waves[-1])

    def restore_only() -> None:
        engine.restore(before)

    def recompute() -> None:
        for bars in series:
            compute(bars[-SPEC.warmup :])

    wave_s = np.median(seconds(one_wave, 200)) - np.median(seconds(restore_only, 200))
    return [
        Row(
            f"feature wave, {SERIES} series × {len(SPEC.names)} features",
            float(wave_s) * 1e6,
            "µs",
            float(np.median(seconds(recompute, 3))) * 1e6,
            f"the same kernel over the last {SPEC.warmup} bars of each series",
        )
    ]
