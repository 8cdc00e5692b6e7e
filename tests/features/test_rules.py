"""The rule strategy: every condition by itself, both ways round."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import DECISION_SPEC
from features import rules as rules_module
from features.decision_spec import DecisionSpec
from features.rules import rule_signal
from tests.features.made_rows import RULE_COLUMNS, RULE_LONG, RULE_SHORT, drawn_rows, made_rows, made_spec
from tests.features.steady import steady

SPEC = made_spec(())
SIGNED = ("trend_state", "displacement", "bar_close_move", "body_fraction", "sweep", "change_of_character")


def upside_down(changes: dict[str, float]) -> dict[str, float]:
    """The same reading of the market turned over."""
    turned = {}
    for name, value in changes.items():
        other = name.replace("bullish", "*").replace("bearish", "bullish").replace("*", "bearish")
        signed = name.rpartition(".")[2] in SIGNED
        turned[other] = -value if signed else 1 - value if "position" in name else value
    return turned


def signals(*changes: dict[str, float], spec: DecisionSpec = SPEC) -> list[int]:
    """What is signalled with these readings in place of those of `RULE_LONG`, and with their mirror images."""
    long = rule_signal(made_rows(spec, *(RULE_LONG | each for each in changes)), spec)
    short = rule_signal(made_rows(spec, *(RULE_SHORT | upside_down(each) for each in changes)), spec)
    assert (long == -short).all(), "a short is not the mirror image of a long"
    sides: list[int] = long.tolist()
    return sides


PREMIUM = {"15m.dealing_range_position": 0.6}
"""Not in the discount any more."""
GENTLE = {"5m.displacement": 0.9}
"""Without force."""


def test_a_turn_in_the_discount_of_an_uptrend_is_a_signal() -> None:
    assert signals({}) == [1]
    assert signals({}, spec=DECISION_SPEC) == [1]
    assert rule_signal(made_rows(SPEC, {}), SPEC).tolist() == [0]


def test_the_rows_that_others_test_with_are_each_others_mirror_image() -> None:
    assert upside_down(RULE_LONG) == pytest.approx(RULE_SHORT)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"15m.trend_state": 0.0}, id="no trend"),
        pytest.param({"15m.trend_state": -1.0}, id="the trend goes down"),
        pytest.param({"1h.trend_state": -1.0}, id="the hours are against it"),
        pytest.param(PREMIUM, id="price has not come back"),
        pytest.param({"15m.dealing_range_position": 0.5}, id="it stands in the middle"),
        pytest.param(GENTLE, id="no force"),
        pytest.param({"5m.bar_close_move": 0.5}, id="the bar hardly moves"),
        pytest.param({"5m.body_fraction": 0.5}, id="the bar is half wick"),
        pytest.param({"5m.atr_14_fraction": 0.0016}, id="costs would eat it"),
        pytest.param(GENTLE | {"5m.sweep": -1.0}, id="the highs were swept"),
        pytest.param(GENTLE | {"5m.change_of_character": -1.0}, id="character changed downwards"),
        pytest.param(PREMIUM | {"5m.bearish_gap_distance": 0.1}, id="at a zone of the other side"),
        pytest.param(PREMIUM | {"5m.bullish_gap_distance": 0.6}, id="not quite at the gap"),
    ],
)
def test_it_is_no_signal_when(changes: dict[str, float]) -> None:
    assert signals(changes) == [0]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"1h.trend_state": 1.0}, id="the hours go with it"),
        pytest.param({"1h.trend_state": np.nan}, id="the hours are not known"),
        pytest.param(PREMIUM | {"5m.bullish_order_block_distance": 0.5}, id="at an order block, not in the discount"),
        pytest.param(PREMIUM | {"5m.bullish_order_block_distance": -0.3}, id="inside an order block"),
        pytest.param(PREMIUM | {"5m.bullish_gap_distance": 0.5}, id="at a gap"),
        pytest.param(GENTLE | {"5m.sweep": 1.0}, id="lows were swept, without force"),
        pytest.param(GENTLE | {"5m.change_of_character": 1.0}, id="character changed, without force"),
        pytest.param({"15m.dealing_range_position": 0.0}, id="at the bottom of the range"),
    ],
)
def test_it_is_a_signal_too_when(changes: dict[str, float]) -> None:
    assert signals(changes) == [1]


@pytest.mark.parametrize("name", [name for name in RULE_LONG if name != "1h.trend_state"])
def test_what_is_not_known_does_not_hold(name: str) -> None:
    assert signals({name: np.nan}) == [0]


@steady
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_batch_can_be_split_anyhow(one: int, other: int) -> None:
    cuts = sorted((one, other))
    parts = [rule_signal(part, SPEC) for part in np.split(DRAWN, cuts)]
    assert np.concatenate(parts).tobytes() == WHOLE.tobytes()


DRAWN = drawn_rows(SPEC, 3000, RULE_COLUMNS)
WHOLE = rule_signal(DRAWN, SPEC)


def test_the_signals_are_those_of_their_version() -> None:
    """Other numbers: raise `rules.VERSION`, then change the digest.

    The win model is trained on these; with the version, the id that bundles pin changes too.
    """
    assert WHOLE.dtype == np.int8
    assert all(np.count_nonzero(side == WHOLE) > 100 for side in (1, -1))
    assert (rules_module.VERSION, hashlib.sha256(WHOLE.tobytes()).hexdigest()[:16]) == (2, "77b22c8103852deb")
