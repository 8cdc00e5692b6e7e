"""One wave of 600 series (200 symbols on three timeframes): all of SPEC, and the indicators that others have too."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from talipp.ohlcv import OHLCV

from benchmarks.report import Row, seconds
from benchmarks.shared_indicators import (
    SHARED_SPEC,
    Talipp,
    as_features,
    assert_parity,
    columns_of,
    markets,
    ta_lib,
)
from features import SPEC, FeatureEngine, compute
from features.spec import FeatureSpec
from market.bars import Bars

SERIES = 600
WARM = SPEC.warmup + 40
WAVES = 240
"""More than the longest window, so that every bar at which a window's block ends is among them."""
WINDOW = 500
"""Bars that TA-Lib recomputes: after these it has forgotten how it began, but for the average over 200."""
TALIPP_SERIES = 30
"""talipp takes its time: this many are measured, and the rest is reckoned from them."""
SLOW = {"ema_200_distance", "ema_200_slope"}


def waves_of(series: list[Bars]) -> Callable[[int], Bars]:
    """The bars of all series at one time."""
    return lambda at: np.array([bars[at] for bars in series])


def warmed(series: list[Bars], spec: FeatureSpec) -> FeatureEngine:
    """An engine that has seen the first `WARM` bars of every series; few are distinct."""
    engine = FeatureEngine(len(series), spec)
    states: dict[int, NDArray[np.float64]] = {}
    for row, bars in enumerate(series):
        if id(bars) not in states:
            states[id(bars)] = np.zeros(spec.state_size)
            compute(bars[:WARM], spec, states[id(bars)])
        engine.state[row] = states[id(bars)]
    return engine


def timed(engine: FeatureEngine, waves: list[Bars]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The time of each wave in microseconds, and the last one's rows."""
    rows = np.arange(len(engine.names), dtype=np.int64)
    taken = np.empty(len(waves))
    out = np.empty((0, 0), dtype=np.float32)
    for index, wave in enumerate(waves):
        started = perf_counter()
        out = engine.update(rows, wave)
        taken[index] = perf_counter() - started
    return taken[1:] * 1e6, out


def talipp_wave(distinct: list[Bars], last: NDArray[np.float32]) -> float:
    """Microseconds that talipp takes for a wave of `SERIES`, after its numbers were found to be ours."""
    bars = [
        [OHLCV(*(float(bar[n]) for n in ("open", "high", "low", "close", "volume"))) for bar in s] for s in distinct
    ]
    series = [(Talipp(), bars[row % len(bars)]) for row in range(TALIPP_SERIES)]
    for indicators, of in series:
        for bar in of[-WINDOW - 20 : -20]:
            indicators.add(bar)
    taken = []
    for at in range(-20, 0):
        started = perf_counter()
        for indicators, of in series:
            indicators.add(of[at])
        taken.append(perf_counter() - started)
    for row, (indicators, of) in enumerate(series[: len(distinct)]):
        theirs = indicators.features(of[-1].close)
        assert_parity(last[row : row + 1], theirs, set(theirs) - SLOW, 1e-5)
    return float(np.median(taken)) * 1e6 * SERIES / TALIPP_SERIES


def ta_lib_wave(distinct: list[Bars], last: NDArray[np.float32]) -> float:
    """Microseconds that TA-Lib takes to recompute the last `WINDOW` bars of `SERIES`, likewise."""
    windows = [columns_of(bars[-WINDOW:]) for bars in distinct]
    clock = np.arange(WINDOW, dtype=np.float64)
    for row, of in enumerate(windows):
        theirs = {name: values[-1:] for name, values in as_features(ta_lib(of, clock), of["close"]).items()}
        assert_parity(last[row : row + 1], theirs, set(theirs) - SLOW, 1e-5)

    def wave() -> None:
        for row in range(SERIES):
            ta_lib(windows[row % len(windows)], clock)

    return float(np.median(seconds(wave, 5))) * 1e6


def run() -> list[Row]:
    """Parity of the last wave with history, TA-Lib and talipp, then the median time of a wave."""
    distinct = markets(WARM + WAVES)
    series = [distinct[row % len(distinct)] for row in range(SERIES)]
    at = waves_of(series)
    waves = [at(index) for index in range(WARM, WARM + WAVES)]
    taken, out = timed(warmed(series, SPEC), waves)
    for row, bars in enumerate(distinct):
        assert np.array_equal(out[row], compute(bars)[-1], equal_nan=True), "live differs from history"
    shared_taken, shared_out = timed(warmed(series, SHARED_SPEC), waves)

    def recompute() -> None:
        for bars in series:
            compute(bars[-SPEC.warmup :])

    def row_of(spec: FeatureSpec, measured: NDArray[np.float64], baseline: float, name: str) -> Row:
        note = f"fastest {measured.min():,.0f} µs; {spec.state_size * 8:,} bytes a series"
        title = f"wave, {SERIES} series × {len(spec.names)} features"
        return Row(title, float(np.median(measured)), "µs", baseline, name, note)

    anew = float(np.median(seconds(recompute, 3))) * 1e6
    return [
        row_of(SPEC, taken, anew, f"the same kernel over the last {SPEC.warmup:,} bars of each"),
        row_of(
            SHARED_SPEC, shared_taken, ta_lib_wave(distinct, shared_out), f"TA-Lib over the last {WINDOW} bars of each"
        ),
        row_of(SHARED_SPEC, shared_taken, talipp_wave(distinct, shared_out), f"talipp, from {TALIPP_SERIES} series"),
    ]
