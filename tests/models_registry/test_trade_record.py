"""The record of closed positions: every number by hand, and what a window's edge does to it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_registry.statistics import BLOCK_MS
from models_registry.trade_record import DAY_MS, TradeRecord, Trades, trade_record

HOUR = 3_600_000
START = 10 * BLOCK_MS


def trades(*positions: tuple[float, float, float]) -> Trades:
    """Positions of (hour of decision after the start, hours open, R)."""
    decided, lasted, r = np.array(positions, dtype=np.float64).reshape(-1, 3).T
    at = (START + decided * HOUR).astype(np.int64)
    opened = at + HOUR // 2
    return Trades(at, opened, opened + (lasted * HOUR).astype(np.int64), r, r > 0)


def over(found: Trades, hours: float = 48.0, **more: int) -> TradeRecord:
    return trade_record(found, start_ms=START, decided_until_ms=START + int(hours * HOUR), symbols=2, **more)


def test_every_number_by_hand() -> None:
    found = over(trades((0, 2, 1.0), (1, 5, -1.0), (2, 1, -0.5), (30, 4, 2.0)), lost=3)
    assert (found.positions, found.lost, found.symbols, found.days) == (4, 3, 2, 2.0)
    assert found.expectancy == pytest.approx(1.5 / 4)
    assert found.total_r == 1.5
    assert found.hit_rate == 0.5
    assert found.turnover == 2.0
    assert found.exposure == pytest.approx(12 / 48)
    assert found.blocks.start_ms == [START + block * BLOCK_MS for block in range(12)]
    assert (found.blocks.positions[0], found.blocks.positions[7], sum(found.blocks.positions)) == (3, 1, 4)
    assert found.blocks.r[0] == pytest.approx(-0.5)


def test_the_drawdown_is_that_of_the_order_of_exit() -> None:
    """Decided first, the loser of ten hours ends after the winner: it falls from the peak, not to below the start."""
    assert over(trades((0, 10, -1.0), (1, 1, 3.0), (20, 1, -1.5))).drawdown == 2.5
    assert over(trades((0, 0.5, -1.0), (1, 1, 3.0), (20, 1, -1.5))).drawdown == 1.5


def test_only_what_was_decided_in_the_window_counts() -> None:
    found = over(trades((-0.1, 1, 5.0), (0, 1, 1.0), (47.9, 1, 1.0), (48, 1, 5.0)))
    assert (found.positions, found.total_r) == (2, 2.0)


def test_a_window_without_positions_has_no_expectancy() -> None:
    found = over(trades())
    assert (found.positions, found.expectancy, found.hit_rate, found.expectancy_interval) == (0, None, None, None)
    assert (found.drawdown, found.turnover, found.exposure) == (0.0, 0.0, 0.0)
    assert not found.interval.known
    with pytest.raises(ValueError, match="no time in it"):
        over(trades(), hours=0)


def test_the_interval_is_of_blocks_and_covers_the_mean() -> None:
    rng = np.random.default_rng(0)
    decided = np.sort(rng.uniform(0, 10 * 24, 600))
    found = over(trades(*((hour, 1.0, r) for hour, r in zip(decided, rng.normal(0.1, 1, 600), strict=True))), 240)
    assert found.expectancy_interval is not None
    low, high = found.expectancy_interval
    assert low < found.expectancy < high
    assert 0.5 < (high - low) / (2 * 1.96 / 600**0.5) < 2, "independent positions: about that of their count"


@given(st.lists(st.tuples(st.floats(0, 47), st.floats(0, 4), st.floats(-2, 2)), max_size=60), st.integers(0, 9))
def test_the_blocks_hold_all_of_it_in_any_order(positions: list[tuple[float, float, float]], seed: int) -> None:
    found = over(trades(*positions))
    assert sum(found.blocks.positions) == found.positions == len(positions)
    assert sum(found.blocks.r) == pytest.approx(found.total_r)
    assert 0 <= found.drawdown <= sum(abs(r) for *_, r in positions) + 1e-9
    assert found.turnover == pytest.approx(found.positions * DAY_MS / (found.decided_until_ms - found.start_ms))
    shuffled = np.random.default_rng(seed).permutation(len(positions))
    again = over(trades(*(positions[index] for index in shuffled)))
    assert again.positions == found.positions
    assert again.exposure == pytest.approx(found.exposure)
    assert msgspec.json.decode(msgspec.json.encode(found), type=TradeRecord) == found
