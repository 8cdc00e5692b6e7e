"""The quality of a candidate: each dimension from a row of readings, by hand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import quality as quality_module
from features.barriers import TradePlan
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.quality import dimensions, quality
from tests.features.made_rows import drawn_rows, made_rows, made_spec
from tests.features.steady import steady

READ = (
    *("trend_state", "ema_21_slope", "volume_zscore", "chaikin_money_flow_20", "atr_14_fraction", "volatility_ratio"),
    *(f"{side}_order_block_{what}" for side in ("bullish", "bearish") for what in ("distance", "mitigated")),
    *(f"{side}_gap_{what}" for side in ("bullish", "bearish") for what in ("distance", "filled")),
    *("equal_highs_distance", "equal_lows_distance", "swing_high_distance", "swing_low_distance", "range_position_48"),
)
"""What quality reads of a timeframe."""


FULL = DECISION_SPEC
LONG, SHORT = np.array([1], dtype=np.int8), np.array([-1], dtype=np.int8)


def row(readings: dict[str, float], spec: DecisionSpec = FULL) -> NDArray[np.float32]:
    """One decision row in which everything else is unknown; a name without a timeframe is of 5m."""
    return made_rows(spec, readings)


_OPPOSITE = {"high": "low", "low": "high", "highs": "lows", "lows": "highs", "bullish": "bearish", "bearish": "bullish"}
_SIGNED = ("trend_state", "ema_21_slope", "chaikin_money_flow_20")


def mirrored(readings: dict[str, float]) -> dict[str, float]:
    """The same market upside down."""
    turned = {}
    for name, value in readings.items():
        timeframe, dot, feature = name.rpartition(".")
        other = "_".join(_OPPOSITE.get(word, word) for word in feature.split("_"))
        up = -value if feature in _SIGNED else 1 - value if feature == "range_position_48" else value
        turned[f"{timeframe}{dot}{other}"] = up
    return turned


@dataclass(frozen=True)
class Reading:
    """Readings of a row, and what a dimension of a long makes of them."""

    what: str
    dimension: str
    readings: dict[str, float]
    value: float


def agreeing(trend: float, slope: float) -> dict[str, float]:
    return {
        f"{each}.{name}": value
        for each in ("5m", "15m", "1h")
        for name, value in (("trend_state", trend), ("ema_21_slope", slope))
    }


READINGS = [
    # structure: six votes, each of a sixth.
    Reading("every timeframe goes its way", "structure", agreeing(1, 0.2), 1),
    Reading("every one goes against it", "structure", agreeing(-1, -0.1), 0),
    Reading("no break, no slope", "structure", agreeing(0, 0), 0.5),
    Reading("the hours go against two that agree", "structure",
            agreeing(1, 0.1) | {"1h.trend_state": -1, "1h.ema_21_slope": -0.1}, 4 / 6),
    Reading("structure up, averages down", "structure", agreeing(1, -0.1), 0.5),
    Reading("the hours are not known: neutral", "structure",
            agreeing(1, 0.1) | {"1h.trend_state": np.nan, "1h.ema_21_slope": np.nan}, (4 + 0.5 + 0.5) / 6),
    # (3 × 1 + 3 × 0.75) / 6: a slope of 0.05 is three quarters of the way from -0.1 to 0.1.
    Reading("half a slope counts three quarters", "structure", agreeing(1, 0.05), 0.875),
    # volume: (amount + flow) / 2.
    Reading("much of it, flowing its way", "volume", {"volume_zscore": 2.5, "chaikin_money_flow_20": 0.3}, 1),
    Reading("much of it, flowing against", "volume", {"volume_zscore": 2.5, "chaikin_money_flow_20": -0.3}, 0.5),
    Reading("little, and against", "volume", {"volume_zscore": -1.2, "chaikin_money_flow_20": -0.2}, 0),
    Reading("as usual", "volume", {"volume_zscore": 0.0, "chaikin_money_flow_20": 0.0}, (1 / 3 + 1 / 2) / 2),
    Reading("only the amount is known", "volume", {"volume_zscore": 2.0}, 0.75),
    # volatility: the least of the three; a round trip costs 0.12 %.
    Reading("an ATR of four round trips", "volatility", {"atr_14_fraction": 0.0048, "volatility_ratio": 1}, 1),
    Reading("of half a round trip: dead", "volatility", {"atr_14_fraction": 0.0006, "volatility_ratio": 1}, 0),
    Reading("of one round trip", "volatility", {"atr_14_fraction": 0.0012, "volatility_ratio": 1}, 0.5 / 3.5),
    Reading("a burst", "volatility", {"atr_14_fraction": 0.006, "volatility_ratio": 2.3}, 0),
    Reading("half a burst", "volatility", {"atr_14_fraction": 0.006, "volatility_ratio": 1.875}, 0.5),
    Reading("2 % a bar: half as wild as can be", "volatility", {"atr_14_fraction": 0.02, "volatility_ratio": 1}, 0.5),
    Reading("3 % a bar: wild", "volatility", {"atr_14_fraction": 0.03, "volatility_ratio": 1}, 0),
    # liquidity: (behind + ahead) / 2.
    Reading("a fresh block behind, a pool ahead", "liquidity",
            {"bullish_order_block_distance": 0.4, "bullish_order_block_mitigated": 0, "equal_highs_distance": 1.5}, 1),
    Reading("price is in the lower half of that block", "liquidity",
            {"bullish_order_block_distance": -0.4, "bullish_order_block_mitigated": 0, "equal_highs_distance": 1.5}, 1),
    Reading("the block was mitigated", "liquidity",
            {"bullish_order_block_distance": 0.4, "bullish_order_block_mitigated": 1, "equal_highs_distance": 1.5},
            0.75),
    # Block (3 - 2.5) / 2.5 = 0.2, gap (3 - 1) / 2.5 = 0.8, the better of the two; a pool at 4 of 6..2: 0.5.
    Reading("a gap is nearer than the block", "liquidity",
            {"bullish_order_block_distance": 2.5, "bullish_order_block_mitigated": 0, "bullish_gap_distance": 1.0,
             "bullish_gap_filled": 0.2, "equal_highs_distance": 4.0}, (0.8 + 0.5) / 2),
    # The gap, mostly filled, is worth 0.4, and the block 0.2.
    Reading("the gap is mostly filled", "liquidity",
            {"bullish_order_block_distance": 2.5, "bullish_order_block_mitigated": 0, "bullish_gap_distance": 1.0,
             "bullish_gap_filled": 0.6, "equal_highs_distance": 4.0}, (0.4 + 0.5) / 2),
    Reading("a block far behind is there, and no help", "liquidity",
            {"bullish_order_block_distance": 3.5, "range_position_48": 0.0, "equal_highs_distance": 6.5}, 0),
    # No zone behind: near the low of the range instead. No equal highs: the swing high at 3: 0.75.
    Reading("no zone and no pool: the plain range", "liquidity",
            {"range_position_48": 0.2, "swing_high_distance": 3.0}, (0.8 + 0.75) / 2),
    Reading("beyond the last swing there is nothing to draw it", "liquidity",
            {"range_position_48": 1.0, "swing_high_distance": -0.5}, 0),
    # reward: the plan's stop is 1.5 ATR away; half of that is 0, twice is 1.
    Reading("free for twice the stop", "reward", {"swing_high_distance": 3.0}, 1),
    Reading("free for as much as the stop", "reward", {"swing_high_distance": 1.5}, 1 / 3),
    Reading("blocked within half of it", "reward", {"swing_high_distance": 0.75}, 0),
    Reading("the nearest level counts: equal highs", "reward",
            {"swing_high_distance": 4.0, "equal_highs_distance": 2.25}, 2 / 3),
    Reading("the nearest level counts: a bearish block", "reward",
            {"swing_high_distance": 4.0, "equal_highs_distance": 3.5, "bearish_order_block_distance": 1.5}, 1 / 3),
    Reading("the nearest level counts: a bearish gap", "reward",
            {"swing_high_distance": 4.0, "bearish_gap_distance": 1.5, "bearish_order_block_distance": 2}, 1 / 3),
    Reading("in the upper half of a bearish block there is no room", "reward",
            {"swing_high_distance": 4.0, "bearish_order_block_distance": -0.2}, 0),
    Reading("the swing was passed and nothing else is there", "reward", {"swing_high_distance": -0.1}, 1),
    Reading("what lies behind is not in the way", "reward",
            {"swing_high_distance": 3.0, "swing_low_distance": 0.1, "bullish_gap_distance": 0.1}, 1),
]  # fmt: skip


@pytest.mark.parametrize("reading", READINGS, ids=lambda each: f"{each.dimension}: {each.what}")
def test_a_dimension_of_a_long_and_of_its_mirror_image(reading: Reading) -> None:
    for direction, readings in ((LONG, reading.readings), (SHORT, mirrored(reading.readings))):
        found = dimensions(row(readings), direction, FULL)[reading.dimension]
        assert found.dtype == np.float32
        assert found[0] == pytest.approx(reading.value, abs=1e-6)


def test_the_table_knows_every_reading() -> None:
    used = {name.rpartition(".")[2]: 0.0 for each in READINGS for name in each.readings}
    assert {*used, *mirrored(used)} == set(READ)


def test_the_best_and_the_worst() -> None:
    best = agreeing(1, 0.2) | {"volume_zscore": 3, "chaikin_money_flow_20": 0.5, "atr_14_fraction": 0.006}
    best |= {"volatility_ratio": 1, "bullish_order_block_distance": 0.2, "bullish_order_block_mitigated": 0}
    worst = agreeing(-1, -0.2) | {"volume_zscore": -2, "chaikin_money_flow_20": -0.5, "atr_14_fraction": 0.0005}
    worst |= {"volatility_ratio": 1, "range_position_48": 1, "swing_high_distance": -1, "bearish_gap_distance": 0.1}
    assert quality(row(best | {"equal_highs_distance": 2, "swing_high_distance": 4}), LONG, FULL) == pytest.approx(
        [(1 + 1 + 1 + 1 + (2 / 1.5 - 0.5) / 1.5) / 5]
    )
    assert quality(row(worst), LONG, FULL).tolist() == [0.0]


def test_the_nearer_the_stop_of_the_plan_the_more_the_same_room_is_worth() -> None:
    room = row({"swing_high_distance": 1.5})
    found = [dimensions(room, LONG, FULL, TradePlan(stop_atr=stop))["reward"][0] for stop in (0.5, 1.0, 1.5, 3.0)]
    assert found == pytest.approx([1.0, 2 / 3, 1 / 3, 0.0])


def test_what_is_unknown_is_neutral() -> None:
    for direction in (LONG, SHORT):
        assert {name: float(each[0]) for name, each in dimensions(row({}), direction, FULL).items()} == dict.fromkeys(
            ("structure", "volume", "volatility", "liquidity", "reward"), 0.5
        )
        assert quality(row({}), direction, FULL).tolist() == [0.5]


def test_a_specification_without_structure_does_not_know_it() -> None:
    """The swing and the range are left, and what structure would have said is neutral."""
    plain = made_spec(("ema_21_slope",))
    assert "equal_highs_distance" not in plain.base.names
    readings = {f"{each}.ema_21_slope": 0.1 for each in plain.timeframes}
    readings |= {"swing_high_distance": 3.0, "range_position_48": 0.25}
    found = dimensions(row(readings, plain), LONG, plain)
    assert found["structure"][0] == pytest.approx(0.75)
    assert found["liquidity"][0] == pytest.approx(0.75)
    assert found["reward"][0] == pytest.approx(1.0)


@steady
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_it_lies_between_0_and_1_however_the_batch_is_split(seed: int, cut: int) -> None:
    random = np.random.default_rng(seed)
    decision = random.normal(0, 2, (40, len(FULL.names))).astype(np.float32)
    decision[random.random(decision.shape) < 0.3] = np.nan
    direction = random.choice([-1, 1], 40).astype(np.int8)

    def every(rows: slice) -> dict[str, NDArray[np.float32]]:
        given_rows = decision[rows], direction[rows], FULL
        return dimensions(*given_rows) | {"quality": quality(*given_rows)}

    before, after = every(slice(0, cut)), every(slice(cut, 40))
    for name, whole in every(slice(None)).items():
        assert whole.dtype == np.float32
        assert ((whole >= 0) & (whole <= 1)).all(), name
        assert np.concatenate([before[name], after[name]]).tobytes() == whole.tobytes(), name


def test_the_qualities_are_those_of_their_version() -> None:
    """Of any rows, known or not. Other numbers: raise `quality.VERSION`, then change the digest.

    The win model is trained on these numbers; with the version, the id that bundles pin changes too.
    """
    spec, rows = made_spec(READ), 4000
    decision = drawn_rows(spec, rows, READ)
    both = [quality(decision, np.full(rows, side, dtype=np.int8), spec) for side in (1, -1)]
    assert all(np.unique(each).size > 2000 for each in both)
    found = hashlib.sha256(b"".join(each.tobytes() for each in both)).hexdigest()[:16]
    assert (quality_module.VERSION, found) == (2, "42896ac399505d08")
