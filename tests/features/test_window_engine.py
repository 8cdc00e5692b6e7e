"""Rows computed anew from their window: what the stepped state gives, within the tolerance to which it forgets."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from features.default import SPEC
from features.engine import FeatureEngine, compute
from features.errors import BarOutOfOrder, BarsUnusable
from features.families import candle, oscillators, trend
from features.families.shared import SHARED
from features.proofs import TOLERANCE
from features.spec import FeatureSpec
from features.window_engine import WindowEngine, window_length
from market.bars import Bars
from tests.features.series import make_bars

SMALL = FeatureSpec((trend.MACD, oscillators.RSI, candle.CANDLE), SHARED)
LENGTH = window_length(SMALL)
ROW = np.zeros(1, dtype=np.int64)


def stepped(engine: FeatureEngine | WindowEngine, bars: Bars, start: int = 0) -> NDArray[np.float32]:
    rows = [engine.update(ROW, bars[at : at + 1])[0] for at in range(start, bars.size)]
    return np.array(rows)


def assert_close(found: NDArray[np.float32], expected: NDArray[np.float32], spec: FeatureSpec) -> None:
    scales = np.array([feature.scale for feature in spec.features])
    allowed = TOLERANCE * np.maximum(np.maximum(np.abs(found), np.abs(expected)), scales)
    alike = (np.abs(found - expected) <= allowed) | (np.isnan(found) & np.isnan(expected))
    wrong = np.flatnonzero(~alike.all(axis=0))
    assert not wrong.size, [spec.names[column] for column in wrong]


def test_every_feature_is_the_stepped_one_within_its_tolerance() -> None:
    """Of the whole specification, those with the longest memory too, long after the window is full."""
    count = window_length(SPEC) + 400
    bars = make_bars(count + 20, missing=[*range(500, 507), *range(count - 100, count - 95)])
    engine = WindowEngine(1, SPEC)
    tail = 120
    engine.extend(0, bars[: bars.size - tail], 1)
    assert_close(stepped(engine, bars, bars.size - tail), compute(bars, SPEC)[-tail:], SPEC)


def test_until_the_window_is_full_it_is_the_same_to_the_bit() -> None:
    bars = make_bars(LENGTH, missing=[30, 31, 32])
    assert stepped(WindowEngine(1, SMALL), bars).tobytes() == stepped(FeatureEngine(1, SMALL), bars).tobytes()


def test_a_long_gap_begins_anew_in_both() -> None:
    bars = make_bars(3 * LENGTH, missing=list(range(2 * LENGTH, 2 * LENGTH + 20)))
    found, expected = stepped(WindowEngine(1, SMALL), bars), compute(bars, SMALL)
    after = slice(2 * LENGTH, None)
    assert found[after].tobytes() == expected[after].tobytes()
    assert np.isnan(expected[2 * LENGTH]).any()


@pytest.mark.parametrize("last", [1, 7, 10_000])
def test_a_stretch_at_once_is_the_same_as_bar_by_bar(last: int) -> None:
    bars = make_bars(LENGTH + 90)
    slow, quick = WindowEngine(1, SMALL), WindowEngine(1, SMALL)
    one = stepped(slow, bars)
    parts = [quick.extend(0, bars[a:b], last) for a, b in ((0, 0), (0, 40), (40, 41), (41, LENGTH + 90))]
    assert [len(part) for part in parts] == [0, min(40, last), 1, min(LENGTH + 49, last)]
    assert parts[3].tobytes() == one[41:][-last:].tobytes()
    assert quick.state.tobytes() == slow.state.tobytes()


def test_only_the_window_counts() -> None:
    one, other = make_bars(2 * LENGTH, seed=1), make_bars(2 * LENGTH, seed=1)
    other["close"][: LENGTH - 1] *= 1.01
    other["high"][: LENGTH - 1] *= 1.02
    found = [WindowEngine(1, SMALL).extend(0, bars, 1) for bars in (one, other)]
    assert found[0].tobytes() == found[1].tobytes()


def test_it_refuses_what_the_stepped_one_refuses_and_changes_nothing() -> None:
    bars = make_bars(30)
    engine = WindowEngine(["A", "B"], SMALL)
    engine.extend(0, bars[:20], 1)
    before = engine.state.tobytes()
    with pytest.raises(BarOutOfOrder, match="A at"):
        engine.update(np.array([0]), bars[19:20])
    with pytest.raises(BarOutOfOrder, match="A at"):
        engine.extend(0, bars[10:], 1)
    with pytest.raises(BarsUnusable, match="two bars in one wave"):
        engine.update(np.array([1, 1]), bars[:2])
    with pytest.raises(BarsUnusable, match="row 2 is none of the 2 series"):
        engine.update(np.array([2]), bars[:1])
    with pytest.raises(BarsUnusable, match="1 rows for 2 bars"):
        engine.update(np.array([0]), bars[:2])
    assert engine.state.tobytes() == before


def test_it_says_which_series_are_not_warm_as_the_stepped_engine_does() -> None:
    bars = make_bars(900, missing=[*range(400, 413), *range(600, 605)])
    bars["high"][420] = np.nan
    window, stepping = WindowEngine(("A", "B"), SMALL), FeatureEngine(("A", "B"), SMALL)
    for start, stop in ((0, 1), (1, 200), (200, 399), (399, 400), (400, 401), (401, 421), (421, 700), (700, 882)):
        for engine in (window, stepping):
            engine.extend(0, bars[start:stop], 1)
        assert window.not_warm() == stepping.not_warm()
    assert [cold.series for cold in window.not_warm()] == ["B"]
