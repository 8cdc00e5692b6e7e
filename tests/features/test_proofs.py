"""Causality, live = history, forgetting: for every feature, and cheats that must be caught."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from features import SPEC, compute, proofs
from features.origins import with_holes
from features.proofs import Rows, cut_points
from features.spec import FeatureSpec
from market.bars import Bars, read, resample
from tests.features.series import make_bars

CUTS = 200


def synthetic(_: Path) -> Bars:
    """Holes that are bridged, one that is not, an impossible bar, a stretch in which takers and trades are unknown."""
    bars = make_bars(4000, seed=42, missing=[500, 501, 900])
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        bars[name][1500:1520] = np.nan
    return with_holes(bars, SPEC.max_gap)


def recording(file: str, interval: str, bars: int, start: int = 0) -> Callable[[Path], Bars]:
    """`bars` of a recorded file at a longer interval."""

    def load(data: Path) -> Bars:
        recorded = read(data / "klines" / file)
        if interval == "1h" and "-1h-" in file:
            return recorded[start : start + bars].copy()
        return resample(recorded, interval)[start : start + bars]

    return load


MARKETS = {
    "synthetic 5m": synthetic,
    "LTCUSDT 5m": recording("vision2026-02/LTCUSDT-1m-vision2026-02.parquet", "5m", 6000),
    "ALGOUSDT 5m": recording("vision2026-02/ALGOUSDT-1m-vision2026-02.parquet", "5m", 6000, 2000),
    "BTCUSDT 5m, no flows": recording("um2025/BTCUSDT-1m-um2025.parquet", "5m", 6000),
    "LINKUSDT 15m": recording("vision2026-02/LINKUSDT-1m-vision2026-02.parquet", "15m", 6000),
    "BTCUSDT 1h": recording("um-1h/BTCUSDT-1h-um.parquet", "1h", 6000),
}


@pytest.fixture(scope="module", params=MARKETS)
def bars(request: pytest.FixtureRequest) -> Bars:
    # The synthetic market needs no recordings, so it is drawn where there are none.
    data = Path() if request.param.startswith("synthetic") else request.getfixturevalue("shared_data")
    bars: Bars = MARKETS[request.param](data)
    assert bars.size > 2 * SPEC.warmup
    return bars


def through_parquet(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """A state as the lake keeps it."""
    file = io.BytesIO()
    parquet.write_table(pa.table({"state": pa.array(state.ravel())}), file)
    read_back: NDArray[np.float64] = parquet.read_table(file)["state"].to_numpy().reshape(state.shape)
    return read_back


class TestEveryFeature:
    def test_a_prefix_gives_the_same_rows(self, bars: Bars) -> None:
        cuts = cut_points(bars.size, CUTS)
        assert len(cuts) >= 200
        assert proofs.prefix(compute, SPEC.names, bars, cuts) == []

    def test_later_bars_change_nothing(self, bars: Bars) -> None:
        assert proofs.poison(compute, SPEC.names, bars, cut_points(bars.size, CUTS // 2, seed=2)) == []

    @pytest.mark.parametrize("stored", [proofs.through_bytes, through_parquet])
    def test_live_equals_history_through_restarts(
        self, bars: Bars, stored: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    ) -> None:
        assert proofs.live(bars, cut_points(bars.size, 24, seed=3), stored=stored) == []

    def test_live_equals_history_through_gaps(self, bars: Bars) -> None:
        holed = with_holes(bars, SPEC.max_gap)
        assert holed.size < bars.size
        assert proofs.live(holed, cut_points(holed.size, 24, seed=4)) == []

    def test_origins_are_forgotten(self, bars: Bars) -> None:
        origins = [1, 2, 7, *range(37, bars.size - SPEC.warmup, 199)]
        assert proofs.forgetting(bars, origins) == []


@pytest.fixture(scope="module")
def walk() -> Bars:
    return make_bars(3000, seed=42)


def peeking(bars: Bars) -> Rows:
    """SPEC, but `return_1` is the next bar's."""
    rows = compute(bars)
    column = SPEC.index("return_1")
    rows[:-1, column] = rows[1:, column]
    rows[-1:, column] = np.nan
    return rows


class TestCheats:
    """The proofs can fail: what breaks a rule is caught, and named."""

    def test_a_feature_that_peeks_is_caught_by_prefix(self, walk: Bars) -> None:
        caught = proofs.prefix(peeking, SPEC.names, walk, cut_points(walk.size, CUTS))
        assert [failure.feature for failure in caught] == ["return_1"]
        assert "return_1" in str(caught[0])

    @pytest.mark.parametrize("garbage", proofs.GARBAGE)
    def test_a_feature_that_peeks_is_caught_by_poison(
        self, walk: Bars, garbage: Callable[[Bars], None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Each kind of garbage must do by itself.
        monkeypatch.setattr(proofs, "GARBAGE", (garbage,))
        caught = proofs.poison(peeking, SPEC.names, walk, cut_points(walk.size, 50))
        assert [failure.feature for failure in caught] == ["return_1"]

    def test_the_control_is_caught_by_both(self, walk: Bars) -> None:
        for proof in (proofs.prefix, proofs.poison):
            caught = proof(proofs.reads_ahead, ("ahead",), walk, cut_points(walk.size, 10))
            assert [failure.feature for failure in caught] == ["ahead"]

    def test_a_look_at_the_whole_series_is_caught(self, walk: Bars) -> None:
        def centred(bars: Bars) -> Rows:
            return (bars["close"] / bars["close"].mean()).astype(np.float32)[:, None]

        for proof in (proofs.prefix, proofs.poison):
            assert [failure.feature for failure in proof(centred, ("centred",), walk, [1000])] == ["centred"]

    def test_a_history_that_differs_from_live_is_caught(self, walk: Bars) -> None:
        caught = proofs.live(walk, cut_points(walk.size, 5), rows_of=peeking)
        assert [failure.feature for failure in caught] == ["return_1"]

    def test_a_checkpoint_that_loses_precision_is_caught(self, walk: Bars) -> None:
        def as_float32(state: NDArray[np.float64]) -> NDArray[np.float64]:
            return state.astype(np.float32).astype(np.float64)

        assert len(proofs.live(walk, cut_points(walk.size, 5), stored=as_float32)) > 10

    def test_a_warm_up_that_is_too_short_is_caught(self, walk: Bars) -> None:
        averages = next(family for family in SPEC.families if "ema_50_distance" in [f.name for f in family.features])
        hasty = replace(averages, features=tuple(replace(feature, warmup=20) for feature in averages.features))
        spec = FeatureSpec((hasty,), SPEC.shared)
        caught = proofs.forgetting(walk, range(1, 400, 37), spec)
        assert {failure.feature for failure in caught} == set(spec.names)

    def test_a_sum_over_everything_is_caught(self, walk: Bars) -> None:
        spec = replace(SPEC, families=SPEC.families[:1])

        def total(bars: Bars) -> Rows:
            rows = np.repeat(np.cumsum(bars["close"])[:, None], len(spec.names), axis=1)
            return rows.astype(np.float32)

        assert {failure.feature for failure in proofs.forgetting(walk, [50], spec, total)} == set(spec.names)


class TestCutPoints:
    def test_they_are_different_places_all_over_the_series(self) -> None:
        for seed in (1, 2, 3):
            cuts = cut_points(6000, 200, seed)
            assert len(set(cuts)) == 200
            assert cuts == sorted(cuts)
            assert cuts[0] <= 30
            assert cuts[-1] >= 5970
        assert cut_points(6000, 200, 1) != cut_points(6000, 200, 2)

    def test_a_short_series_is_cut_everywhere(self) -> None:
        assert cut_points(5, 200) == [1, 2, 3, 4]
        assert cut_points(1, 200) == []
        assert cut_points(0, 200) == []


def test_a_failure_says_where(walk: Bars) -> None:
    caught = proofs.prefix(proofs.reads_ahead, ("ahead",), walk, [10])
    assert caught[0].bar == 9
    assert str(caught[0]).startswith("prefix: ahead at bar 9 is nan, not ")


def test_partial_history_of_another_specification() -> None:
    bars = make_bars(600, seed=4)
    small = FeatureSpec(SPEC.families[-1:], SPEC.shared)
    rows_of = partial(compute, spec=small)
    assert proofs.prefix(rows_of, small.names, bars, cut_points(600, 20)) == []
    assert proofs.live(bars, cut_points(600, 5), small) == []
