"""One wave of 600 series (200 symbols on three timeframes): all of SPEC, and the indicators that others have too."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from talipp.ohlcv import OHLCV

from benchmarks.feature_markets import markets, stretches
from benchmarks.report import Row, seconds
from benchmarks.shared_indicators import (
    SHARED_SPEC,
    Talipp,
    as_features,
    assert_parity,
    clock_of,
    columns_of,
    ta_lib,
)
from features import SPEC, FeatureEngine, compute
from features.contract import MOST_STATE_BYTES
from features.spec import FeatureSpec
from market.bars import Bars

SERIES = 600
WARM = SPEC.warmup + 40
WAVES = 240
"""More than the longest window, so that every bar at which a window's block ends is among them."""
PASSES = 7
"""How often the same waves are timed. The machine is shared, so each wave counts with its best time."""
WINDOW = 500
"""Bars that TA-Lib recomputes: after these it has forgotten how it began, but for the average over 200."""
TALIPP_SERIES = 30
"""talipp takes its time: this many are measured, and the rest is reckoned from them."""
SLOW = {"ema_200_distance", "ema_200_slope"}


@dataclass(frozen=True)
class Timed:
    """Microseconds of each wave, its best time and any, and the last wave's rows."""

    best: NDArray[np.float64]
    any: NDArray[np.float64]
    rows: NDArray[np.float32]


def timed(series: list[Bars], spec: FeatureSpec) -> Timed:
    """The waves after the first `WARM` bars of every series, several times from the same state."""
    engine = FeatureEngine(len(series), spec)
    for state, bars in zip(engine.state, series, strict=True):
        compute(bars[:WARM], spec, state)
    warm = engine.state.copy()
    waves = [np.array([bars[at] for bars in series]) for at in range(WARM, WARM + WAVES)]
    rows = np.arange(len(series), dtype=np.int64)
    out = engine.update(rows, waves[0])
    taken = np.empty((PASSES, WAVES))
    for again in range(PASSES):
        engine.state[:] = warm
        for index, wave in enumerate(waves):
            started = perf_counter()
            out = engine.update(rows, wave)
            taken[again, index] = perf_counter() - started
    return Timed(taken.min(axis=0) * 1e6, taken.ravel() * 1e6, out)


def talipp_wave(series: list[Bars], last: NDArray[np.float32]) -> float:
    """Microseconds that talipp takes for a wave of `SERIES`, after its numbers were found to be ours."""
    bars = [
        [OHLCV(*(float(bar[n]) for n in ("open", "high", "low", "close", "volume"))) for bar in each[-WINDOW - 20 :]]
        for each in series[:: SERIES // TALIPP_SERIES]
    ]
    indicators = [Talipp() for _ in bars]
    for each, of in zip(indicators, bars, strict=True):
        for bar in of[:-20]:
            each.add(bar)
    taken = []
    for at in range(-20, 0):
        started = perf_counter()
        for each, of in zip(indicators, bars, strict=True):
            each.add(of[at])
        taken.append(perf_counter() - started)
    for row, (each, of) in enumerate(zip(indicators, bars, strict=True)):
        theirs = each.features(of[-1].close)
        at = row * (SERIES // TALIPP_SERIES)
        assert_parity(last[at : at + 1], theirs, set(theirs) - SLOW, 1e-5)
    return min(taken) * 1e6 * SERIES / len(bars)


def ta_lib_wave(series: list[Bars], last: NDArray[np.float32]) -> float:
    """Microseconds that TA-Lib takes to recompute the last `WINDOW` bars of `SERIES`, likewise."""
    windows = [columns_of(bars[-WINDOW:]) for bars in series]
    clock = clock_of(series[0][-WINDOW:])
    for row, of in enumerate(windows):
        theirs = {name: values[-1:] for name, values in as_features(ta_lib(of, clock), of["close"]).items()}
        assert_parity(last[row : row + 1], theirs, set(theirs) - SLOW, 1e-5)

    def wave() -> None:
        for of in windows:
            ta_lib(of, clock)

    return float(seconds(wave, 5).min()) * 1e6


def run() -> list[Row]:
    """Both kinds of market, and the memory of a series."""
    rows = [row for kind, bars in markets().items() for row in _of_one(kind, bars)]
    kib = SPEC.state_size * 8 / 1024
    return [*rows, Row("state of a series", kib, "KiB", MOST_STATE_BYTES / 1024, "the most that it may be")]


def _of_one(kind: str, bars: list[Bars]) -> list[Row]:
    """Parity of the last wave with history, TA-Lib and talipp, then the median time of a wave."""
    series = stretches(bars, SERIES, WARM + WAVES)
    whole = timed(series, SPEC)
    for row, each in enumerate(series):
        assert np.array_equal(whole.rows[row], compute(each)[-1], equal_nan=True), "live differs from history"
    shared = timed(series, SHARED_SPEC)

    def recompute() -> None:
        for each in series:
            compute(each[-SPEC.warmup :])

    def row_of(spec: FeatureSpec, measured: Timed, baseline: float, name: str) -> Row:
        note = f"worst wave {measured.best.max():,.0f} µs; of all passes p99 {np.quantile(measured.any, 0.99):,.0f} µs"
        title = f"wave, {SERIES} {kind} series × {len(spec.names)} features"
        return Row(title, float(np.median(measured.best)), "µs", baseline, name, note)

    anew = float(seconds(recompute, 3).min()) * 1e6
    ta, talipp = ta_lib_wave(series, shared.rows), talipp_wave(series, shared.rows)
    return [
        row_of(SPEC, whole, anew, f"the same kernel over the last {SPEC.warmup:,} bars of each"),
        row_of(SHARED_SPEC, shared, ta, f"TA-Lib over the last {WINDOW} bars of each"),
        row_of(SHARED_SPEC, shared, talipp, f"talipp, from {TALIPP_SERIES} series"),
    ]
