"""Strategies choose from scored candidates, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_worker.errors import UnknownStrategy
from trading_worker.strategies import EVENT, RULE, STRATEGIES, Proposals, strategy

LONG, SHORT = 1, -1


def proposals(
    *candidates: tuple[int, int, int, float], quality: list[float] | None = None, action: list[int] | None = None
) -> Proposals:
    """From (line, direction, kind, win probability), and what the bundle's strategy would do at each line."""
    lines, directions, kinds, probabilities = zip(*candidates, strict=True) if candidates else ((), (), (), ())
    return Proposals(
        names=("a",),
        decision=np.zeros((max(lines, default=-1) + 1, 1), np.float32),
        row=np.array(lines, np.int64),
        direction=np.array(directions, np.int8),
        kind=np.array(kinds, np.uint8),
        win_probability=np.array(probabilities, np.float32),
        action=np.array(action if action is not None else [-1] * (max(lines, default=-1) + 1), np.int64),
        quality=np.array(quality if quality is not None else [0.5] * len(candidates), np.float32),
    )


def chosen(name: str, given_: Proposals) -> list[int]:
    return strategy(name)(given_).chosen.tolist()


def test_self_learning_takes_the_likelier_direction_of_each_symbol() -> None:
    offered = proposals((0, LONG, EVENT, 0.4), (0, SHORT, EVENT, 0.6), (1, LONG, RULE, 0.3), (1, SHORT, EVENT, 0.2))
    choice = strategy("self_learning")(offered)
    assert choice.chosen.tolist() == [1, 2]
    assert choice.confidence.tolist() == pytest.approx([0.6, 0.3])


def test_self_learning_does_what_the_strategy_would_do() -> None:
    both = [(line, side, EVENT, 0.5 + 0.1 * side) for line in range(4) for side in (LONG, SHORT)]
    choice = strategy("self_learning")(proposals(*both, action=[2, 0, 1, -1]))
    assert choice.chosen.tolist() == [1, 4, 6], "short, nothing, long, and the likelier where it has no network"
    assert choice.confidence.tolist() == pytest.approx([0.4, 0.6, 0.6])
    only_short = proposals((0, SHORT, EVENT, 0.9), action=[1])
    assert chosen("self_learning", only_short) == [], "what it would take is no candidate"
    assert chosen("hybrid", only_short) == [0]


def test_ict_takes_rule_signals_whatever_the_model_says() -> None:
    offered = proposals((0, LONG, RULE, 0.1), (0, SHORT, EVENT, 0.9), (1, LONG, EVENT, 0.9))
    choice = strategy("ict")(offered)
    assert choice.chosen.tolist() == [0]
    assert choice.confidence.tolist() == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        pytest.param(proposals((0, LONG, RULE, 0.5)), [0], id="the rules alone"),
        pytest.param(proposals((0, LONG, EVENT, 0.4), (0, SHORT, EVENT, 0.5)), [1], id="the model alone"),
        pytest.param(proposals((0, LONG, RULE, 0.5), (0, SHORT, EVENT, 0.4)), [0], id="both agree"),
        pytest.param(proposals((0, LONG, RULE, 0.4), (0, SHORT, EVENT, 0.5)), [], id="they contradict"),
        pytest.param(
            proposals((0, LONG, RULE, 0.4), (0, SHORT, EVENT, 0.5), (2, SHORT, RULE, 0.3)), [2], id="symbol by symbol"
        ),
    ],
)
def test_hybrid_lets_either_propose_and_neither_contradict(offered: Proposals, taken: list[int]) -> None:
    assert chosen("hybrid", offered) == taken


def test_ties_go_to_the_higher_quality_then_to_the_first() -> None:
    even = ((0, LONG, EVENT, 0.5), (0, SHORT, EVENT, 0.5))
    assert chosen("self_learning", proposals(*even, quality=[0.2, 0.3])) == [1]
    assert chosen("self_learning", proposals(*even, quality=[0.3, 0.3])) == [0]


def test_an_unknown_probability_is_never_chosen() -> None:
    offered = proposals((0, LONG, RULE, np.nan), (0, SHORT, EVENT, 0.1), (1, LONG, RULE, np.nan))
    assert chosen("self_learning", offered) == [1]
    assert chosen("ict", offered) == []


def test_no_candidates_no_choice() -> None:
    assert all(chosen(name, proposals()) == [] for name in STRATEGIES)


def test_an_unknown_strategy_is_refused_with_the_known_names() -> None:
    with pytest.raises(UnknownStrategy, match=r"momentum.*ict, self_learning, hybrid"):
        strategy("momentum")


candidate = st.tuples(
    st.integers(0, 5), st.sampled_from([LONG, SHORT]), st.sampled_from([RULE, EVENT]), st.floats(0, 1, width=32)
)


@given(st.lists(candidate, max_size=12, unique_by=lambda each: each[:2]), st.sampled_from(sorted(STRATEGIES)))
def test_at_most_one_choice_a_symbol_and_the_inputs_stay_as_they_were(
    candidates: list[tuple[int, int, int, float]], name: str
) -> None:
    offered = proposals(*sorted(candidates))
    before = [array.copy() for array in (offered.row, offered.direction, offered.win_probability, offered.quality)]
    choice = strategy(name)(offered)
    lines = offered.row[choice.chosen]
    assert len(set(lines.tolist())) == lines.size
    assert (np.diff(choice.chosen) > 0).all()
    assert np.array_equal(choice.confidence, offered.win_probability[choice.chosen])
    after = (offered.row, offered.direction, offered.win_probability, offered.quality)
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
