"""A series' history through all of SPEC on one core, and the indicators that TA-Lib has too against TA-Lib."""

from __future__ import annotations

import numpy as np

from benchmarks.feature_markets import markets
from benchmarks.report import Row, seconds
from benchmarks.shared_indicators import SHARED_SPEC, as_features, assert_parity, clock_of, columns_of, ta_lib
from features import SPEC, FeatureEngine, compute
from market.bars import Bars

LIVE = 2_000
FORGOTTEN = 2_000
"""Bars after which how TA-Lib begins its averages is forgotten to a millionth."""
REPEATS = 25


def run() -> list[Row]:
    """Both kinds of market."""
    return [row for kind, series in markets().items() for row in _of_one(kind, max(series, key=len))]


def _of_one(kind: str, bars: Bars) -> list[Row]:
    """Parity with the engine and with TA-Lib, then nanoseconds a bar: the least of many runs on a shared machine."""
    engine, row = FeatureEngine(1), np.zeros(1, dtype=np.int64)

    def live() -> list[np.ndarray]:
        engine.state[:] = 0.0
        return [engine.update(row, bars[at : at + 1]) for at in range(LIVE)]

    assert np.array_equal(np.concatenate(live()), compute(bars[:LIVE]), equal_nan=True), "live differs from history"
    of, clock = columns_of(bars), clock_of(bars)
    expected = {name: values[FORGOTTEN:] for name, values in as_features(ta_lib(of, clock), of["close"]).items()}
    assert_parity(compute(bars, SHARED_SPEC)[FORGOTTEN:], expected, set(expected), 1e-6)

    ours, one_by_one = seconds(lambda: compute(bars), REPEATS).min() / len(bars), seconds(live, 3).min() / LIVE
    shared = seconds(lambda: compute(bars, SHARED_SPEC), REPEATS).min() / len(bars)
    theirs = seconds(lambda: ta_lib(of, clock), REPEATS).min() / len(bars)
    return [
        Row(
            f"history, {len(SPEC.names)} features, {len(bars):,} {kind} bars",
            ours * 1e9,
            "ns a bar",
            one_by_one * 1e9,
            "the same, one call of the engine a bar",
            f"{1 / ours:,.0f} bars a second on one core",
        ),
        Row(
            f"history, {len(expected)} features that TA-Lib has, {kind}",
            shared * 1e9,
            "ns a bar",
            theirs * 1e9,
            "TA-Lib's calls alone",
            f"{1 / shared:,.0f} bars a second; parity to 1e-6",
        ),
    ]
