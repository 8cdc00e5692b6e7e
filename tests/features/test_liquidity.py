"""Pools, their scores, and when they are hunted: on rows that a reader can check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.candidates import EVENT, HUNT, RULE, candidates
from features.decision_spec import DecisionSpec
from features.errors import SettingsUnusable
from features.liquidity import NONE, RANGE, STRUCTURE, HuntSettings, Pools, Reach, hunts, levels
from tests.features.made_rows import RULE_LONG, RULE_SHORT, made_rows, made_spec
from tests.features.steady import steady

BELOW = {
    "equal_lows_distance": 1.0,
    "equal_lows_touches": 3.0,
    "swing_low_distance": 1.2,
    "bullish_order_block_distance": 1.5,
    "bullish_order_block_mitigated": 0.0,
    "profile_node_below_distance": -0.5,
    "profile_value_low_distance": -2.0,
}
"""Lows one ATR below price; as `ABOVE` mirrors it."""
MIRROR = {
    "equal_lows": "equal_highs",
    "swing_low": "swing_high",
    "bullish": "bearish",
    "node_below": "node_above",
    "value_low": "value_high",
}
REST = {
    "profile_poc_distance": 0.1,
    "range_position_48": 0.25,
    "atr_14_fraction": 0.002,
    "bar_close_move": -1.0,
    "sweep": 0.0,
    "cusum_event": 0.0,
}
SIGNED = ("bar_close_move", "sweep", "profile_poc_distance")


def mirrored(values: dict[str, float]) -> dict[str, float]:
    """The same market upside down."""
    found = {}
    for name, value in values.items():
        other = name
        for old, new in MIRROR.items():
            other = other.replace(old, new) if old in other else other.replace(new, old) if new in other else other
        sign = -1.0 if name.startswith(SIGNED) or name.startswith(("profile_node", "profile_value")) else 1.0
        found[other] = 1.0 - value if name == "range_position_48" else sign * value
    return found


SPEC = made_spec({*BELOW, *mirrored(BELOW), *REST})
BARE = made_spec(())
HUNTING = HuntSettings()


def rows(*changes: dict[str, float], spec: DecisionSpec = SPEC) -> NDArray[np.float32]:
    return made_rows(spec, *changes)


def below(**changes: float) -> dict[str, float]:
    return BELOW | REST | changes


def part(pools: Pools) -> dict[str, float]:
    return {name: float(values[0]) for name, values in pools.parts.items()}


class TestPools:
    def test_each_part_is_a_number_with_a_meaning(self) -> None:
        found = levels(rows(below()), SPEC, HUNTING).below
        assert found.distance.tolist() == [1.0]
        assert found.source.tolist() == [STRUCTURE]
        # Three of four touches; a fresh block half an ATR off; a node half way; half the way inside the value area.
        assert part(found) == pytest.approx({"touches": 0.75, "block": 0.75, "path": 0.5, "edge": 0.5})
        assert found.score.tolist() == pytest.approx([0.625])

    @pytest.mark.parametrize(
        ("change", "name", "value"),
        [
            ({"equal_lows_touches": 7.0}, "touches", 1.0),
            ({"bullish_order_block_mitigated": 1.0}, "block", 0.375),
            ({"bullish_order_block_distance": np.nan, "bullish_order_block_mitigated": np.nan}, "block", 0.0),
            ({"bullish_order_block_distance": 3.5}, "block", 0.0),
            ({"profile_node_below_distance": np.nan}, "path", 1.0),
            ({"profile_node_below_distance": -4.0}, "path", 1.0),
            ({"profile_node_below_distance": 0.0}, "path", 0.0),
            ({"profile_value_low_distance": -0.5}, "edge", 1.0),
            ({"profile_value_low_distance": 0.5}, "edge", 1.0),
            ({"profile_value_low_distance": -9.0}, "edge", 0.0),
        ],
    )
    def test_what_each_part_hangs_on(self, change: dict[str, float], name: str, value: float) -> None:
        assert part(levels(rows(below(**change)), SPEC, HUNTING).below)[name] == pytest.approx(value)

    def test_without_volume_the_rest_scores(self) -> None:
        unknown = {name: np.nan for name in (*BELOW, *REST) if name.startswith("profile")}
        found = levels(rows(below(**unknown)), SPEC, HUNTING).below
        assert np.isnan([part(found)["path"], part(found)["edge"]]).all()
        assert found.score.tolist() == pytest.approx([0.75])

    def test_a_swing_that_is_clearly_nearer_is_the_pool(self) -> None:
        found = levels(rows(below(swing_low_distance=0.4), below(swing_low_distance=0.6)), SPEC, HUNTING).below
        assert found.distance.tolist() == pytest.approx([0.4, 1.0])
        assert found.parts["touches"].tolist() == [0.25, 0.75]

    def test_without_equal_lows_the_swing_is_the_pool_unless_price_has_passed_it(self) -> None:
        alone = {"equal_lows_distance": np.nan, "equal_lows_touches": 0.0}
        found = levels(rows(below(**alone), below(**alone, swing_low_distance=-0.1)), SPEC, HUNTING).below
        assert found.source.tolist() == [STRUCTURE, NONE]
        assert found.distance[0] == pytest.approx(1.2)
        assert np.isnan([found.distance[1], found.score[1], *(values[1] for values in found.parts.values())]).all()

    def test_what_the_liquidity_model_says_is_a_part_of_its_own(self) -> None:
        reach = Reach((0.25, 0.5, 0.75), np.array([[0.5, 1.5, 2.0]], np.float32), np.array([[0, 0, 0]], np.float32))
        found = levels(rows(below()), SPEC, HUNTING, reach)
        # Half way from the first quartile to the median, by the logarithm of the chance.
        assert part(found.below)["reach"] == pytest.approx((0.75 * 0.5) ** 0.5)
        assert found.below.score.tolist() == pytest.approx([(2.5 + (0.75 * 0.5) ** 0.5) / 5])
        for distance, chance in ((0.0, 1.0), (0.25, 0.75**0.5), (2.0, 0.25), (3.0, 0.0625)):
            far = levels(rows(below(equal_lows_distance=distance, swing_low_distance=99.0)), SPEC, HUNTING, reach)
            assert part(far.below)["reach"] == pytest.approx(chance)

    def test_a_model_that_says_nothing_of_a_row_is_left_out(self) -> None:
        nothing = np.full((1, 2), np.nan, np.float32)
        found = levels(rows(below()), SPEC, HUNTING, Reach((0.1, 0.9), nothing, nothing)).below
        assert found.score.tolist() == pytest.approx([0.625])

    def test_above_mirrors_below(self) -> None:
        down, up = levels(rows(below()), SPEC, HUNTING), levels(rows(mirrored(below())), SPEC, HUNTING)
        assert part(up.above) == pytest.approx(part(down.below))
        assert (up.above.distance.tolist(), up.above.score.tolist()) == (
            down.below.distance.tolist(),
            down.below.score.tolist(),
        )


class TestPlainLevels:
    @pytest.mark.parametrize(("spec", "hunting"), [(SPEC, None), (BARE, None), (BARE, HUNTING)])
    def test_they_stand_in_without_the_switch_or_the_columns(
        self, spec: DecisionSpec, hunting: HuntSettings | None
    ) -> None:
        given = {"swing_low_distance": 2.0, "swing_high_distance": 3.0, "range_position_48": 0.25}
        found = levels(rows(given, spec=spec), spec, hunting)
        assert [pools.source.tolist() for pools in found] == [[RANGE], [RANGE]]
        assert [pools.distance.tolist() for pools in found] == [[2.0], [3.0]]
        assert [pools.score.tolist() for pools in found] == [[0.75], [0.25]]

    def test_a_passed_or_unknown_swing_is_no_level(self) -> None:
        given = {"range_position_48": 0.5}
        found = levels(rows(given | {"swing_low_distance": -1.0}, given), SPEC).below
        assert found.source.tolist() == [NONE, NONE]
        assert np.isnan(found.distance).all()


class TestHunts:
    """The pool of `below()` is 0.002 of the price away; its score is 0.625."""

    def test_a_bar_that_comes_for_a_good_pool_goes_on_into_it(self) -> None:
        assert hunts(rows(below(), mirrored(below())), SPEC, HUNTING).tolist() == [[False, True], [True, False]]

    def test_once_it_is_swept_the_trade_turns_round(self) -> None:
        swept = below(sweep=1.0)
        assert hunts(rows(swept, mirrored(swept)), SPEC, HUNTING).tolist() == [[True, False], [False, True]]

    @pytest.mark.parametrize(
        "change",
        [
            {"atr_14_fraction": 0.0031},  # too far
            {"bar_close_move": -0.4},  # it was near before
            {"bar_close_move": 1.0},  # price leaves
            {"equal_lows_touches": 2.0},  # a score of 0.5625
            {"swing_low_distance": -1.0, "equal_lows_distance": np.nan},  # no pool
            {"atr_14_fraction": np.nan},
            {"bar_close_move": np.nan},
        ],
    )
    def test_each_condition_is_needed(self, change: dict[str, float]) -> None:
        assert not hunts(rows(below(**change)), SPEC, HUNTING).any()

    def test_a_sweep_of_the_right_side_needs_no_arrival(self) -> None:
        found = hunts(rows(*(below(bar_close_move=0.2, sweep=side) for side in (1.0, 0.0, -1.0))), SPEC, HUNTING)
        assert found.tolist() == [[True, False], [False, False], [False, False]]

    def test_the_settings_decide(self) -> None:
        row = rows(below())
        assert not hunts(row, SPEC, HuntSettings(threshold=0.63)).any()
        assert not hunts(row, SPEC, HuntSettings(tolerance=0.0019)).any()
        assert not hunts(row, SPEC, HuntSettings(tolerance=0.005)).any(), "it was within that before"

    def test_rows_without_structure_have_none(self) -> None:
        assert not hunts(rows({"swing_low_distance": 0.1}, spec=BARE), BARE, HUNTING).any()

    @pytest.mark.parametrize(
        "values", [{"threshold": 1.1}, {"threshold": float("nan")}, {"tolerance": 0.0}, {"tolerance": 1.0}]
    )
    def test_settings_refuse_nonsense(self, values: dict[str, float]) -> None:
        with pytest.raises(SettingsUnusable):
            HuntSettings(**values)


class TestCandidates:
    def test_a_rule_signal_comes_before_a_hunt_and_a_hunt_before_an_event(self) -> None:
        event, swept = {"cusum_event": 1.0}, {"sweep": 1.0}
        given = rows(below(), below(**event), below(**swept) | RULE_LONG | event, below(**swept) | RULE_SHORT, REST)
        found = candidates(given, SPEC, hunting=HUNTING)
        assert found.index.tolist() == [0, 1, 1, 2, 2, 3, 3]
        assert found.direction.tolist() == [-1, 1, -1, 1, -1, 1, -1]
        assert found.kind.tolist() == [HUNT, EVENT, HUNT, RULE, EVENT, HUNT, RULE]

    def test_rows_that_are_not_ready_are_left_out(self) -> None:
        found = candidates(rows(below(), below()), SPEC, np.array([True, False]), HUNTING)
        assert found.index.tolist() == [0]

    @steady
    @given(st.integers(0, 2**32), st.integers(0, 60))
    def test_hunting_only_adds_and_a_batch_can_be_split_anyhow(self, seed: int, cut: int) -> None:
        given = made(60, seed)
        ready = np.random.default_rng(seed).random(60) < 0.8
        without, whole = candidates(given, SPEC, ready), candidates(given, SPEC, ready, HUNTING)
        before = {(i, d): k for i, d, k in zip(without.index, without.direction, without.kind, strict=True)}
        after = {(i, d): k for i, d, k in zip(whole.index, whole.direction, whole.kind, strict=True)}
        assert before.keys() <= after.keys()
        assert all(after[key] in ({RULE} if kind == RULE else {EVENT, HUNT}) for key, kind in before.items())
        assert all(kind == HUNT for key, kind in after.items() if key not in before)
        parts = [slice(0, cut), slice(cut, 60)]
        split = [candidates(given[one], SPEC, ready[one], HUNTING) for one in parts]
        assert np.concatenate([split[0].index, split[1].index + cut]).tolist() == whole.index.tolist()
        assert np.concatenate([one.kind for one in split]).tolist() == whole.kind.tolist()


def made(count: int, seed: int) -> NDArray[np.float32]:
    """Rows of which everything may be anything, or unknown."""
    random = np.random.default_rng(seed)
    given = rows(*([below()] * count))
    given += random.normal(0, 0.7, given.shape).astype(np.float32)
    for name in ("sweep", "cusum_event"):
        given[:, SPEC.index(f"5m.{name}")] = random.integers(-1, 2, count)
    given[:, SPEC.index("5m.atr_14_fraction")] = random.uniform(0.0005, 0.004, count)
    given[random.random(given.shape) < 0.05] = np.nan
    return given


@steady
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_scores_lie_between_0_and_1_and_a_batch_can_be_split_anyhow(seed: int, cut: int) -> None:
    given = made(40, seed)
    whole = levels(given, SPEC, HUNTING)
    parts = [levels(given[one], SPEC, HUNTING) for one in (slice(0, cut), slice(cut, 40))]
    for side, pools in enumerate(whole):
        there = pools.source == STRUCTURE
        assert (pools.distance[there] >= 0).all()
        assert ((pools.score[there] >= 0) & (pools.score[there] <= 1)).all()
        assert np.isnan(pools.score[~there]).all()
        for name in ("distance", "score", "source"):
            joined = np.concatenate([getattr(one[side], name) for one in parts])
            assert joined.tobytes() == getattr(pools, name).tobytes()
