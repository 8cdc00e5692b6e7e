"""Warm states: from the lake's state, from its klines, from the venue; the same origin gives the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features import DECISION_SPEC
from features.decision import DecisionState
from market.bars import DAY_MS, MINUTE_MS, Bars
from market.klines_store import date_of, write_day
from market.lake import Lake
from market.sources import open_source
from orchestration.feature_days import compute_days
from trading_worker.shell.warmup import LAKE_DAYS, warm

BEGIN_MS = 1_767_571_200_000
"""2026-01-05, where the market begins."""
UNTIL_MS = BEGIN_MS + 4 * DAY_MS + 7 * 60 * MINUTE_MS + 3 * MINUTE_MS
MARKET = open_source("synthetic:seed=5,symbols=2,start=2026-01-05")
SYMBOLS = MARKET.symbols()


class Rest:
    """The venue, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def fetch(self, symbol: str, start_ms: int, end_ms: int) -> Bars:
        self.asked.append((symbol, start_ms))
        return MARKET.klines(symbol, start_ms, end_ms)


@pytest.fixture(scope="module")
def history() -> DecisionState:
    """The state of somebody who has seen every minute from the first on."""
    state = DecisionState(SYMBOLS)
    state.catch_up({symbol: MARKET.klines(symbol, BEGIN_MS, UNTIL_MS) for symbol in SYMBOLS})
    return state


def days_in(lake: Lake, count: int, symbols: tuple[str, ...] = SYMBOLS) -> list[str]:
    """Store the first `count` days."""
    dates = [date_of(BEGIN_MS + day * DAY_MS) for day in range(count)]
    for day, date in enumerate(dates):
        start = BEGIN_MS + day * DAY_MS
        write_day(lake, date, {symbol: MARKET.klines(symbol, start, start + DAY_MS) for symbol in symbols})
    return dates


def assert_same(one: DecisionState, other: DecisionState) -> None:
    """Bit for bit."""
    left, right = one.snapshot(), other.snapshot()
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


async def test_from_the_lakes_klines_it_is_history_to_the_bit(tmp_path: Path, history: DecisionState) -> None:
    lake, rest = Lake(str(tmp_path)), Rest()
    days_in(lake, 3)
    warmed = await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS, lake, rest.fetch)
    assert warmed.origin == "the lake's klines from 2026-01-05 on"
    assert {start for _, start in rest.asked} == {BEGIN_MS + 3 * DAY_MS}
    assert_same(warmed.state, history)


async def test_from_the_lakes_feature_state_it_is_history_to_the_bit(tmp_path: Path, history: DecisionState) -> None:
    lake, rest = Lake(str(tmp_path)), Rest()
    list(compute_days(lake, days_in(lake, 4)))
    warmed = await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS, lake, rest.fetch)
    assert warmed.origin == "the lake's feature state at the end of 2026-01-07, and klines since"
    arrays, wanted = warmed.state.snapshot(), history.snapshot()
    # The ring may stand at another place in a circle that holds the same: what comes out of it is what counts.
    order, reference = (
        (state["ring_at"][:, None] + np.arange(DECISION_SPEC.window)) % DECISION_SPEC.window
        for state in (arrays, wanted)
    )
    rows = np.arange(len(SYMBOLS))[:, None]
    np.testing.assert_array_equal(arrays["ring"][rows, order], wanted["ring"][rows, reference])
    for name in arrays.keys() - {"ring", "ring_at"}:
        np.testing.assert_array_equal(arrays[name], wanted[name], err_msg=name)


async def test_cold_it_begins_at_a_midnight_and_all_starts_of_a_day_agree(tmp_path: Path) -> None:
    assert DECISION_SPEC.cold_start(UNTIL_MS) % DAY_MS == 0
    back = UNTIL_MS - DECISION_SPEC.cold_start(UNTIL_MS)
    assert DECISION_SPEC.ready_warmup * DECISION_SPEC.steps[-1] <= back < LAKE_DAYS * DAY_MS
    rest = Rest()
    early = await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS, None, rest.fetch)
    late = await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS + 90 * MINUTE_MS, Lake(str(tmp_path)), rest.fetch)
    assert (early.origin, late.origin) == ("a cold backfill over REST",) * 2
    early.state.catch_up({s: MARKET.klines(s, UNTIL_MS, UNTIL_MS + 90 * MINUTE_MS) for s in SYMBOLS})
    assert_same(early.state, late.state)


async def test_a_symbol_that_the_lake_lacks_is_backfilled_and_a_lake_that_cannot_be_read_is_passed_over(
    tmp_path: Path,
) -> None:
    lake, rest = Lake(str(tmp_path)), Rest()
    dates = days_in(lake, 3, SYMBOLS[:1])
    await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS, lake, rest.fetch)
    assert dict(rest.asked) == {
        SYMBOLS[0]: BEGIN_MS + 3 * DAY_MS,
        SYMBOLS[1]: DECISION_SPEC.cold_start(UNTIL_MS),
    }
    (tmp_path / "klines" / f"date={dates[0]}" / "part-0.parquet").write_bytes(b"not parquet")
    warmed = await warm(DECISION_SPEC, SYMBOLS, UNTIL_MS, lake, rest.fetch)
    assert warmed.origin.startswith("a cold backfill over REST, as the lake cannot be read")
    assert warmed.state.time_ms == UNTIL_MS - 1
