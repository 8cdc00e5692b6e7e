"""Bits and prefetches, against plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.kernels_cache import njit
from features.processor import lowest_bit, prefetch, zeros_above
from tests.features.steady import steady


@njit
def both(word: np.uint64) -> tuple[int, int]:
    return lowest_bit(word), zeros_above(word)


@njit
def total_after_asking(values: NDArray[np.float64], reach: int) -> float:
    for at in range(-reach, values.size + reach, 8):
        prefetch(values, at)
    total: float = values.sum()
    return total


@steady
@given(st.integers(0, 2**64 - 1))
@example(0)
@example(1)
@example(2**63)
def test_places_of_bits(word: int) -> None:
    lowest = (word & -word).bit_length() - 1 if word else 64
    assert both(np.uint64(word)) == (lowest, 64 - word.bit_length())


def test_asking_for_memory_changes_nothing_not_even_beyond_an_array() -> None:
    values = np.arange(100.0)
    assert total_after_asking(values, 10_000_000) == 4950.0
    assert (values == np.arange(100.0)).all()
