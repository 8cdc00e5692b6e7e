"""Structure looks at nothing but the past, forgets exactly, and its zones live in slots that stay in order."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import compute, proofs
from features.engine import FeatureEngine
from features.families import gaps, liquidity, order_blocks, slots
from features.families.shared import HISTORY
from market.bars import Bars
from tests.features.recorded import recorded_bars
from tests.features.series import make_bars
from tests.features.structure_reference import STRUCTURE

ROWS = partial(compute, spec=STRUCTURE)


@pytest.fixture(scope="module")
def recorded(shared_data: Path) -> Bars:
    return recorded_bars(shared_data, "SOLUSDT")[:4000]


@pytest.fixture(scope="module")
def synthetic() -> Bars:
    return make_bars(3000, seed=42, missing=[500, 501, 900, *range(1200, 1212), *range(2000, 2030)])


@pytest.mark.parametrize("market", ["recorded", "synthetic"])
class TestProofs:
    @pytest.fixture
    def bars(self, market: str, request: pytest.FixtureRequest) -> Bars:
        bars: Bars = request.getfixturevalue(market)
        return bars

    def test_a_prefix_gives_the_same_rows(self, bars: Bars) -> None:
        assert proofs.prefix(ROWS, STRUCTURE.names, bars, proofs.cut_points(len(bars), 200)) == []

    def test_later_bars_change_nothing(self, bars: Bars) -> None:
        assert proofs.poison(ROWS, STRUCTURE.names, bars, proofs.cut_points(len(bars), 40)) == []

    def test_live_equals_history(self, bars: Bars) -> None:
        assert proofs.live(bars, proofs.cut_points(len(bars), 12), STRUCTURE) == []

    def test_origins_are_forgotten(self, bars: Bars) -> None:
        assert proofs.forgetting(bars, range(1, len(bars) - STRUCTURE.warmup, 23), STRUCTURE) == []


def test_what_is_not_measured_in_atr_is_forgotten_to_the_bit(recorded: Bars) -> None:
    exact = [feature.unit != "ATR" for feature in STRUCTURE.features]
    assert sum(exact) == 16
    whole = ROWS(recorded)
    late = np.arange(len(recorded))[:, None] >= np.array(STRUCTURE.warmups) - 1
    for origin in range(7, len(recorded) - STRUCTURE.warmup, 23):
        found, counts = ROWS(recorded[origin:]), late[: len(recorded) - origin] & exact
        assert np.array_equal(found[counts], whole[origin:][counts], equal_nan=True), origin


def test_warm_ups_are_within_what_a_ready_row_waits_for() -> None:
    assert STRUCTURE.warmup == 305


def test_bars_without_range_have_declared_values() -> None:
    bars = make_bars(700, seed=3)
    for name in ("open", "high", "low", "close"):
        bars[name] = 0.1
    last = dict(zip(STRUCTURE.names, ROWS(bars)[-1].tolist(), strict=True))
    none = {f.name for f in STRUCTURE.features if f.nan}
    assert none == {name for name, value in last.items() if np.isnan(value)}
    expected = dict.fromkeys(STRUCTURE.names, 0.0) | {
        "dealing_range_position": 0.5,
        "range_position_48": 0.5,
        "bars_since_break": 160.0,
        "bars_since_sweep": 96.0,
    }
    assert {name: value for name, value in last.items() if name not in none} == {
        name: value for name, value in expected.items() if name not in none
    }


Slots = NDArray[np.float64]


def lists(state: NDArray[np.float64]) -> dict[str, Slots]:
    """The slots taken of every side, one a row, from the state of one series."""
    found = {}
    for family, begin, sides, at, size in (
        ("order_blocks", HISTORY, order_blocks.SIDE_SIZE, order_blocks.SLOTS, order_blocks.SIZE),
        ("gaps", 0, gaps.SIDE_SIZE, gaps.SLOTS, gaps.SIZE),
        ("liquidity", liquidity.SIDES, liquidity.SIDE_SIZE, liquidity.SLOTS, liquidity.SIZE),
    ):
        start = next(start for user, start, _ in STRUCTURE.layout() if user.name == family) + begin
        for index, side in enumerate(("first", "second")):
            side_state = state[start + index * sides : start + (index + 1) * sides]
            rows = side_state[at:].reshape(-1, size)
            found[f"{family} {side}"] = rows[: int(side_state[slots.USED])]
    return found


BORN = {"order_blocks": slots.BORN, "gaps": slots.BORN, "liquidity": liquidity.BORN}
NEVER_LESS = {"order_blocks": order_blocks.MITIGATED, "gaps": gaps.FILLED, "liquidity": liquidity.TAKEN}


def test_slots_stay_bounded_and_in_order_and_what_happened_to_a_zone_stays(recorded: Bars) -> None:
    engine, row = FeatureEngine(1, STRUCTURE), np.zeros(1, dtype=np.int64)
    fullest = dict.fromkeys(lists(engine.state[0]), 0)
    before: dict[tuple[str, float], float] = {}
    for bar in range(3000):
        engine.update(row, recorded[bar : bar + 1])
        now: dict[tuple[str, float], float] = {}
        for name, zones in lists(engine.state[0]).items():
            born = zones[:, BORN[name.split()[0]]]
            assert (np.diff(born) > 0).all(), name
            assert (bar + 1 - born < slots.ZONE_BARS).all(), name
            fullest[name] = max(fullest[name], len(zones))
            now |= {(name, at): value for at, value in zip(born, zones[:, NEVER_LESS[name.split()[0]]], strict=True)}
        assert all(value >= before.get(zone, 0.0) for zone, value in now.items())
        before = now
    # All slots are used at some time, so the rule for a full list was at work.
    assert set(fullest.values()) == {4, 8}
    assert STRUCTURE.state_size * 8 < 6 * 1024
