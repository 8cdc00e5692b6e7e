"""What is known of funding comes from the past alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.funding_clock import UNKNOWN_MS, funding_known
from market import funding
from tests.features.steady import steady

HOUR = 3_600_000
fundings = st.lists(st.integers(0, 90 * HOUR), unique=True, max_size=12).map(
    lambda times: funding.from_columns(times, np.arange(len(times)) * 1e-5)
)


def hours(*times: float) -> funding.Fundings:
    return funding.from_columns([int(time * HOUR) + 4 for time in times], [0.0001 * (i + 1) for i in range(len(times))])


def test_a_funding_is_known_from_its_very_millisecond() -> None:
    rates = hours(0, 8)
    before, at = funding_known(rates, [8 * HOUR + 3, 8 * HOUR + 4]).rate.tolist()
    assert (before, at) == (0.0001, 0.0002)


def test_nothing_is_known_before_the_first() -> None:
    known = funding_known(hours(8), [0])
    assert np.isnan(known.rate[0])
    assert known.next_ms[0] == UNKNOWN_MS
    assert funding_known(funding.empty(), [0]).next_ms.tolist() == [UNKNOWN_MS]


def test_the_next_is_one_observed_interval_later() -> None:
    rates = hours(0, 8, 12, 16)
    assert (funding_known(rates, [HOUR, 9 * HOUR, 13 * HOUR]).next_ms / HOUR).tolist() == [8, 16, 16]


def test_missed_fundings_are_passed_over() -> None:
    rates = hours(0, 4, 24)
    # After the last at 24 the interval seen was 20 hours: one was missed, the venue's longest is assumed.
    assert (funding_known(rates, [5 * HOUR, 9 * HOUR, 25 * HOUR]).next_ms / HOUR).tolist() == [8, 12, 32]


@steady
@given(fundings, st.lists(st.integers(0, 100 * HOUR), min_size=1, max_size=20))
def test_the_future_changes_nothing_and_the_next_is_ahead(rates: funding.Fundings, times: list[int]) -> None:
    known = funding_known(rates, times)
    for time, rate, due in zip(times, known.rate, known.next_ms, strict=True):
        past = rates[rates["funding_time"] <= time]
        alone = funding_known(past, time)
        assert np.array_equal(alone.rate, [rate], equal_nan=True)
        assert alone.next_ms.tolist() == [due]
        assert due > time if past.size else due == UNKNOWN_MS
        assert due % 60_000 == 0 or due == UNKNOWN_MS
