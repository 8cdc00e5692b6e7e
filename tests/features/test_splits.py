"""No split trains on what was not known before its test began."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from features.errors import SplitImpossible
from features.splits import holdout
from tests.features.steady import steady

Times = NDArray[np.int64]


@st.composite
def label_times(draw: st.DrawFn) -> tuple[Times, Times]:
    """decided_at and known_at of some labels in any order, some decided at the same time."""
    size = draw(st.integers(24, 120))
    decided_at = np.cumsum(draw(arrays(np.int64, size, elements=st.integers(0, 4))))
    lasts = draw(arrays(np.int64, size, elements=st.integers(0, 80)))
    order = np.random.default_rng(draw(st.integers(0, 100))).permutation(size)
    return decided_at[order], (decided_at + lasts)[order]


@steady
@given(label_times(), st.integers(0, 300), st.integers(0, 40))
def test_a_holdout_is_never_trained_on(times: tuple[Times, Times], start: int, embargo: int) -> None:
    decided_at, known_at = times
    train, test = holdout(decided_at, known_at, start, embargo)
    assert (known_at[train] + embargo < start).all()
    assert (decided_at[test] >= start).all()
    neither = np.setdiff1d(np.arange(decided_at.size), np.concatenate((train, test)))
    assert ((decided_at[neither] < start) & (known_at[neither] + embargo >= start)).all()


@pytest.mark.parametrize(
    ("decided_at", "known_at", "embargo", "message"),
    [
        ([1, 2], [0, 3], 0, "before its decision"),
        ([1, 2], [3], 0, "decisions and"),
        ([1, 2], [3, 4], -1, "embargo"),
    ],
)
def test_what_cannot_be_split(decided_at: list[int], known_at: list[int], embargo: int, message: str) -> None:
    with pytest.raises(SplitImpossible, match=message):
        holdout(np.array(decided_at, np.int64), np.array(known_at, np.int64), 2, embargo)
