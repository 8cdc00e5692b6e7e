"""Causality, live = history, forgetting, the golden digest: for every feature, and a cheat that is caught."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from features import SPEC, compute, proofs
from features.spec import FeatureSpec
from market.bars import Bars, from_columns, resample
from tests.features.series import make_bars, uniforms

BARS = 3000


@pytest.fixture(scope="module")
def synthetic() -> Bars:
    bars = make_bars(BARS, seed=42)
    # Holes that are bridged, one that is not, and a stretch without taker flow.
    keep = np.ones(BARS, dtype=bool)
    keep[[500, 501, 900, *range(1200, 1212), *range(2000, 2030)]] = False
    bars["taker_buy_base"][1500:1520] = np.nan
    return bars[keep]


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Bars:
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "klines/vision2026-02/LTCUSDT-1m-vision2026-02.parquet").slice(0, 25_000)
    minutes = from_columns({name: table[name].to_numpy() for name in table.column_names})
    return resample(minutes, "5m")


def cuts(bars: Bars, count: int, seed: int = 3) -> list[int]:
    return sorted({1 + int(draw * (len(bars) - 1)) for draw in uniforms(seed, count + count // 4)})


def peeking(bars: Bars) -> np.ndarray:
    """SPEC, but `return_1` is the next bar's."""
    rows = compute(bars)
    column = SPEC.index("return_1")
    rows[:-1, column] = rows[1:, column]
    rows[-1:, column] = np.nan
    return rows


@pytest.mark.parametrize("market", ["synthetic", "recorded"])
class TestEveryFeature:
    @pytest.fixture
    def bars(self, market: str, request: pytest.FixtureRequest) -> Bars:
        bars: Bars = request.getfixturevalue(market)
        return bars

    def test_a_prefix_gives_the_same_rows(self, bars: Bars) -> None:
        at = cuts(bars, 200)
        assert len(at) >= 200
        assert proofs.prefix(compute, SPEC.names, bars, at) == []

    def test_later_bars_change_nothing(self, bars: Bars) -> None:
        assert proofs.poison(compute, SPEC.names, bars, cuts(bars, 50)) == []

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_live_equals_history_through_restarts(self, bars: Bars, seed: int) -> None:
        assert proofs.live(bars, cuts(bars, 12, seed)) == []

    def test_origins_are_forgotten(self, bars: Bars) -> None:
        assert proofs.forgetting(bars, range(1, len(bars) - SPEC.warmup, 37)) == []

    def test_values_stay_in_their_declared_range(self, bars: Bars) -> None:
        rows = compute(bars)
        for feature, column in zip(SPEC.features, rows.T, strict=True):
            warm = column[~np.isnan(column)]
            assert warm.size
            assert np.isfinite(warm).all(), feature.name
            assert warm.min() >= feature.low, feature.name
            assert warm.max() <= feature.high, feature.name

    def test_price_times_1024_changes_nothing(self, bars: Bars) -> None:
        dear = bars.copy()
        for name in ("open", "high", "low", "close", "quote_volume", "taker_buy_quote"):
            dear[name] *= 1024
        assert compute(dear).tobytes() == compute(bars).tobytes()

    def test_volume_times_1024_changes_nothing(self, bars: Bars) -> None:
        busy = bars.copy()
        for name in ("volume", "quote_volume", "trades", "taker_buy_base", "taker_buy_quote"):
            busy[name] *= 1024
        assert compute(busy).tobytes() == compute(bars).tobytes()


def test_a_feature_that_peeks_is_caught_by_prefix(synthetic: Bars) -> None:
    caught = proofs.prefix(peeking, SPEC.names, synthetic, cuts(synthetic, 200))
    assert [failure.feature for failure in caught] == ["return_1"]
    assert "return_1" in str(caught[0])


def test_a_feature_that_peeks_is_caught_by_poison(synthetic: Bars) -> None:
    caught = proofs.poison(peeking, SPEC.names, synthetic, cuts(synthetic, 50))
    assert [failure.feature for failure in caught] == ["return_1"]


def test_a_warm_up_that_is_too_short_is_caught(synthetic: Bars) -> None:
    from dataclasses import replace

    averages = SPEC.families[0]
    hasty = replace(averages, features=tuple(replace(feature, warmup=20) for feature in averages.features))
    caught = proofs.forgetting(synthetic, range(1, 400, 37), FeatureSpec((hasty,), SPEC.shared))
    assert {failure.feature for failure in caught} == set(FeatureSpec((averages,), SPEC.shared).names)


def test_the_numbers_are_those_of_their_versions() -> None:
    """A change here is a change of numbers: raise the version of each feature that changed, then the digest."""
    bars = make_bars(1500, seed=42, missing=[400, 401, *range(700, 740)])
    rows = compute(bars)
    rows[np.isnan(rows)] = np.nan
    assert SPEC.id == "series-31-5e5baf4cdaf6"
    assert hashlib.sha256(rows.tobytes()).hexdigest()[:16] == "72d9a254a2736b9e"
