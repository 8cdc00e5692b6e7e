"""No split trains on what was not known before its test began."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from features.errors import SplitImpossible
from features.splits import holdout, purged_walk_forward
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
@given(label_times(), st.integers(1, 4), st.integers(0, 40))
def test_no_training_label_reaches_into_its_test(times: tuple[Times, Times], folds: int, embargo: int) -> None:
    decided_at, known_at = times
    try:
        splits = purged_walk_forward(decided_at, known_at, folds, embargo)
    except SplitImpossible:
        assume(False)
    assert len(splits) == folds
    tested = np.concatenate([split.test for split in splits])
    assert np.unique(tested).size == tested.size
    for train, test in splits:
        start, end = decided_at[test].min(), known_at[test].max()
        assert test.size
        assert np.intersect1d(train, test).size == 0
        # Neither while the test is decided nor while it becomes known.
        overlaps = (decided_at[train] <= end) & (known_at[train] >= start)
        assert not overlaps.any()
        assert (known_at[train] + embargo < start).all()
    # What was decided before the first test is never tested, all the rest once.
    first = decided_at[splits[0].test].min()
    assert np.array_equal(np.sort(tested), np.flatnonzero(decided_at >= first))


@steady
@given(label_times(), st.integers(0, 300), st.integers(0, 40))
def test_a_holdout_is_never_trained_on(times: tuple[Times, Times], start: int, embargo: int) -> None:
    decided_at, known_at = times
    train, test = holdout(decided_at, known_at, start, embargo)
    assert (known_at[train] + embargo < start).all()
    assert (decided_at[test] >= start).all()
    neither = np.setdiff1d(np.arange(decided_at.size), np.concatenate((train, test)))
    assert ((decided_at[neither] < start) & (known_at[neither] + embargo >= start)).all()


def test_blocks_are_of_about_equal_size() -> None:
    decided_at = np.repeat(np.arange(100), 3)
    splits = purged_walk_forward(decided_at, decided_at + 1, 4)
    assert [split.test.size for split in splits] == [60, 60, 60, 60]
    assert [split.train.size for split in splits] == [57, 117, 177, 237]


def test_equal_times_are_not_torn_apart() -> None:
    decided_at = np.array([0, 0, 1, 1, 1, 1, 1, 2])
    for train, test in purged_walk_forward(decided_at, decided_at, 1):
        assert (train.tolist(), test.tolist()) == ([0, 1], [2, 3, 4, 5, 6, 7])


@pytest.mark.parametrize(
    ("decided_at", "known_at", "folds", "embargo", "message"),
    [
        ([], [], 2, 0, "0 labels"),
        ([5, 5, 5], [6, 6, 6], 1, 0, "at 1 times"),
        ([1, 2, 3], [4, 5, 6], 5, 0, "6 blocks"),
        ([1, 2], [0, 3], 1, 0, "before its decision"),
        ([1, 2], [3], 1, 0, "decisions and"),
        ([1, 2], [3, 4], 0, 0, "0 folds"),
        ([1, 2], [3, 4], 1, -1, "embargo"),
    ],
)
def test_what_cannot_be_split(
    decided_at: list[int], known_at: list[int], folds: int, embargo: int, message: str
) -> None:
    with pytest.raises(SplitImpossible, match=message):
        purged_walk_forward(np.array(decided_at, np.int64), np.array(known_at, np.int64), folds, embargo)
