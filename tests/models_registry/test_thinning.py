"""What is left of many rows: one of each stretch, and of whatever repeats in their order its share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.thinning import evenly, one_in


@given(count=st.integers(0, 5_000), most=st.integers(1, 5_000))
def test_one_row_is_taken_of_each_stretch(count: int, most: int) -> None:
    rows = evenly(count, most)
    assert len(rows) == min(count, most)
    assert (np.diff(rows) > 0).all()
    if count > most:
        edges = np.arange(most + 1) * count // most
        assert ((rows >= edges[:-1]) & (rows < edges[1:])).all()


@given(count=st.integers(0, 5_000), every=st.integers(1, 12), more=st.integers(0, 100))
def test_one_row_is_kept_of_so_many_neighbours_whatever_follows(count: int, every: int, more: int) -> None:
    kept = one_in(every, count)
    assert kept.shape == (count,)
    whole = count // every * every
    assert (kept[:whole].reshape(-1, every).sum(axis=1) == 1).all()
    assert kept[whole:].sum() <= 1
    assert np.array_equal(one_in(every, count + more)[:count], kept)


@pytest.mark.parametrize("symbols", [2, 3, 6, 12, 40])
@pytest.mark.parametrize("every", [2, 3, 4, 6, 12])
def test_of_symbols_in_step_each_is_kept_alike_at_every_time(symbols: int, every: int) -> None:
    count = symbols * 12 * 600
    for kept in (np.flatnonzero(one_in(every, count)), evenly(count, count // every), evenly(count, count // symbols)):
        of_each = np.bincount(kept % symbols, minlength=symbols) / len(kept) * symbols
        assert of_each == pytest.approx(np.ones(symbols), abs=0.1)
        # And of each symbol every hour of the day, which is what steps of twelve would lose.
        first = kept[kept % symbols == 0] // symbols
        of_hour = np.bincount(first % 12, minlength=12) / len(first) * 12
        assert of_hour == pytest.approx(np.ones(12), abs=0.25)
        # And as much of it early as late, which is what steps of not quite a whole number would lose.
        early = np.searchsorted(first, count // symbols // 4)
        assert early / len(first) == pytest.approx(0.25, abs=0.03)
