"""The engine: specifications, states, origins, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features import SPEC, FeatureEngine, compute
from features.engine import new_state
from features.errors import BarOutOfOrder, BarsUnusable, SpecInvalid, StateMismatch
from features.families import candle, trend
from features.families.shared import SHARED
from features.kernels_cache import njit
from features.spec import Family, Feature, FeatureSpec, Shared
from tests.features.series import make_bars
from tests.features.series_kernels import KERNELS


def test_columns_that_others_read_by_name_are_there() -> None:
    used = {
        "atr_14_fraction",
        "ema_21_distance",
        "rsi_14",
        "adx_14",
        "volume_zscore",
        "taker_imbalance",
        "bar_open_move",
        "bar_high_move",
        "bar_low_move",
        "bar_close_move",
        "cusum_event",
        "swing_high_distance",
        "swing_low_distance",
    }
    assert used <= set(SPEC.names)
    assert SPEC.ready_warmup <= 320
    assert len(SPEC.names) >= 60


def test_every_feature_says_what_it_is() -> None:
    for feature in SPEC.features:
        assert feature.formula
        assert feature.warmup >= 1
        assert feature.low < feature.high
        assert feature.scale > 0
        assert feature.version >= 1


def test_memory_per_series_is_bounded() -> None:
    assert SPEC.state_size * 8 < 32 * 1024


def test_many_series_in_any_order_equal_each_alone() -> None:
    series = [make_bars(300, seed) for seed in range(4)]
    alone = [compute(bars) for bars in series]
    engine = FeatureEngine(("a", "b", "c", "d"))
    for at in range(300):
        # Now and then one is missing, and the order changes.
        rows = np.roll(np.arange(4), at)[: 4 if at % 3 else 3]
        taken = [row for row in rows if engine.counts[row] == at]
        if len(taken) < 4 and at % 3 == 0:
            taken = [0, 1, 2, 3]
        found = engine.update(np.array(taken), np.array([series[row][at] for row in taken]))
        for row, values in zip(taken, found, strict=True):
            assert values.tobytes() == alone[row][at].tobytes()
    assert engine.counts.max() == 300


def test_compute_goes_on_from_a_state() -> None:
    bars = make_bars(500, seed=6)
    state = new_state()
    parts = [compute(part, SPEC, state) for part in np.split(bars, [1, 100, 100, 333])]
    assert np.concatenate(parts).tobytes() == compute(bars).tobytes()
    again = new_state()
    compute(bars, SPEC, again)
    assert state.tobytes() == again.tobytes()


class TestOrigins:
    def test_a_short_gap_is_bridged(self) -> None:
        bars = make_bars(800, seed=2, missing=range(400, 412))
        rows = compute(bars)
        ready = [i for i, feature in enumerate(SPEC.features) if feature.required and not feature.nan]
        assert np.isfinite(rows[400:, ready]).all()

    def test_a_long_gap_is_a_new_origin(self) -> None:
        bars = make_bars(600, seed=2, missing=range(300, 313))
        rows = compute(bars)
        assert rows[300:].tobytes() == compute(bars[300:]).tobytes()
        assert np.isnan(rows[300, SPEC.index("rsi_14")])

    def test_an_impossible_bar_is_passed_over(self) -> None:
        bars = make_bars(600, seed=2)
        whole = compute(np.delete(bars, 400))
        for name, value in (("close", np.nan), ("low", 0.0), ("volume", -1.0), ("high", np.inf), ("high", 1e-9)):
            broken = bars.copy()
            broken[name][400] = value
            rows = compute(broken)
            assert np.isnan(rows[400]).all()
            assert np.delete(rows, 400, axis=0).tobytes() == whole.tobytes()


class TestWarmth:
    """Which series are not warm, and why, by the same rule as the rows."""

    def test_a_series_says_how_far_it_is(self) -> None:
        bars = make_bars(KERNELS.ready_warmup)
        engine = FeatureEngine(("A", "B"), KERNELS)
        assert [str(cold) for cold in engine.not_warm()] == ["A has had no bar", "B has had no bar"]
        engine.extend(0, bars[:-1], 1)
        assert engine.warm.tolist() == [False, False]
        assert str(engine.not_warm()[0]) == "A has 319 of 320 bars since 2026-01-05T00:00:00Z"
        engine.extend(0, bars[-1:], 1)
        assert engine.warm.tolist() == [True, False]
        assert [cold.series for cold in engine.not_warm()] == ["B"]
        assert engine.origins.tolist() == [bars["open_time"][0], 0]

    def test_a_long_gap_is_told_of_until_the_series_is_warm_again(self) -> None:
        bars = make_bars(800, missing=range(400, 413))
        engine = FeatureEngine(("A",), KERNELS)
        told = []
        rows = []
        for at in range(len(bars)):
            rows.append(engine.update(np.zeros(1, dtype=np.int64), bars[at : at + 1])[0])
            told.append(engine.not_warm())
        ready = [i for i, feature in enumerate(KERNELS.features) if feature.required and not feature.nan]
        assert [not cold for cold in told] == np.isfinite(np.array(rows)[:, ready]).all(axis=1).tolist()
        assert not told[399]
        (cold,) = told[400]
        assert (cold.bars, cold.missing, cold.origin_ms) == (1, 13, bars["open_time"][400])
        assert str(cold) == "A has 1 of 320 bars since 2026-01-06T10:25:00Z, before which 13 bars were missing"
        assert not told[-1]

    def test_it_is_part_of_the_state(self) -> None:
        bars = make_bars(100, missing=range(50, 70))
        engine, other = FeatureEngine(1, KERNELS), FeatureEngine(1, KERNELS)
        engine.extend(0, bars, 1)
        other.restore(engine.state)
        assert other.not_warm() == engine.not_warm()


class TestRefusals:
    def test_what_are_no_bars(self) -> None:
        bars = make_bars(4)
        renamed = bars.astype([(name.replace("taker", "maker"), bars.dtype[name]) for name in bars.dtype.names or ()])
        narrow = bars.astype([(name, "<f4" if name == "low" else bars.dtype[name]) for name in bars.dtype.names or ()])
        turned = bars[list(bars.dtype.names or ())[::-1]]
        for wrong, why in (
            (np.zeros(3), r"float64\[3\]"),
            (bars.reshape(2, 2), r"\[2, 2\]"),
            ([1, 2], "a list"),
            (bars[["open_time", "close"]], "high is missing; low is missing"),
            (renamed, "taker_buy_quote is missing; maker_buy_base is unknown"),
            (narrow, "low is float32, not float64$"),
            (turned, "another order"),
        ):
            with pytest.raises(BarsUnusable, match=rf"market\.bars\.BAR, but .*{why}"):
                compute(wrong, KERNELS)  # type: ignore[arg-type]

    def test_a_bar_without_length_is_named(self) -> None:
        bars = make_bars(9)
        bars["close_time"][7] = bars["open_time"][7]
        with pytest.raises(BarsUnusable, match="bar 7: it does not close after it opens"):
            compute(bars, KERNELS)
        with pytest.raises(BarsUnusable, match="bar 0"):
            FeatureEngine(1, KERNELS).update(np.zeros(1, dtype=np.int64), bars[7:8])

    def test_bars_that_do_not_ascend_name_the_first(self) -> None:
        bars = make_bars(10)
        bars["open_time"][6] = bars["open_time"][5]
        with pytest.raises(BarOutOfOrder, match=r"bar 6: .* 2026-01-05T00:25:00Z"):
            compute(bars)

    def test_bars_before_the_state(self) -> None:
        bars = make_bars(10)
        state = new_state()
        compute(bars[:5], SPEC, state)
        with pytest.raises(BarOutOfOrder, match="bar 0"):
            compute(bars[4:], SPEC, state)

    def test_a_state_of_another_size(self) -> None:
        with pytest.raises(StateMismatch, match="float64"):
            compute(make_bars(3), SPEC, np.zeros(3))
        with pytest.raises(StateMismatch):
            FeatureEngine(2).restore(np.zeros((3, SPEC.state_size)))

    def test_a_wave_is_taken_whole_or_not_at_all(self) -> None:
        bars = make_bars(10)
        engine = FeatureEngine(("A", "B", "C"))
        engine.update(np.array([0, 1]), bars[[3, 3]])
        before = engine.state.copy()
        refused = [
            ([0, 2, 1], [4, 4, 3], BarOutOfOrder, "bar 2: B at"),
            ([2, 2], [4, 5], BarsUnusable, "two bars"),
            ([2, 3], [4, 4], BarsUnusable, "row 3"),
            ([2, -1], [4, 4], BarsUnusable, "row -1"),
            ([2], [4, 4], BarsUnusable, "1 rows for 2 bars"),
        ]
        for rows, at, error, message in refused:
            with pytest.raises(error, match=message):
                engine.update(np.array(rows), bars[at])
        assert engine.state.tobytes() == before.tobytes()

    def test_read_only_bars_are_fine(self) -> None:
        bars = make_bars(300)
        expected = compute(bars)
        bars.flags.writeable = False
        assert compute(bars).tobytes() == expected.tobytes()
        assert compute(np.repeat(bars, 2)[::2]).tobytes() == expected.tobytes()


@njit
def asks_for_too_much(state: object, out: object, moon: float) -> None:
    """Nothing provides a moon."""


@njit
def round_and_round(state: object, ring: float) -> float:
    """Asks for itself."""
    return ring


@njit
def uses_ring(state: object, out: object, ring: float) -> None:
    """Asks for what asks for itself."""


class TestSpec:
    def test_the_id_changes_with_versions_and_parameters_only(self) -> None:
        family = candle.CANDLE
        newer = replace(family, features=(replace(family.features[0], version=99), *family.features[1:]))
        tuned = replace(family, parameters=(("threshold", 2.0),))
        specs = [FeatureSpec((f,), SHARED) for f in (family, newer, tuned)]
        specs += [replace(specs[0], max_gap=3), replace(specs[0], version=2)]
        shared = tuple(replace(s, version=99) if s.name == "atr" else s for s in SHARED)
        specs.append(FeatureSpec((family,), shared))
        assert len({spec.id for spec in specs}) == len(specs)
        same = FeatureSpec((replace(family),), SHARED)
        assert same.id == specs[0].id
        # An intermediate that nobody asks for is no part of it.
        assert FeatureSpec((family,), tuple(s for s in SHARED if s.name != "highs")).id == same.id

    def test_the_id_says_how_many(self) -> None:
        assert FeatureSpec((candle.CANDLE,), SHARED).id.startswith("series-10-")

    def test_a_part_gives_the_same_numbers(self) -> None:
        bars = make_bars(400, seed=8)
        part = FeatureSpec((trend.DIRECTIONAL, candle.CANDLE), SHARED)
        whole = compute(bars)[:, [SPEC.index(name) for name in part.names]]
        assert compute(bars, part).tobytes() == np.ascontiguousarray(whole).tobytes()

    def test_what_cannot_be_composed(self) -> None:
        feature = Feature("x", 1, "x", "", 0.0, 1.0)
        with pytest.raises(SpecInvalid, match="moon"):
            FeatureSpec((Family("f", (feature,), 0, asks_for_too_much),), SHARED)
        with pytest.raises(SpecInvalid, match="repeat"):
            FeatureSpec((candle.CANDLE, candle.CANDLE), SHARED)
        with pytest.raises(SpecInvalid, match="ring"):
            FeatureSpec((Family("f", (feature,), 0, uses_ring),), (Shared("ring", 0, round_and_round),))
        with pytest.raises(SpecInvalid, match="no feature 'y'"):
            SPEC.index("y")
