"""More zones than a side has slots for: the oldest goes, and the others stay (`features.families.slots`).

Candle tables as in `test_structure`, drawn by the step because there must be many steps. Each is read twice: with as
many zones as there are slots, where the oldest is still there, and with one more, where it is not, though nothing
that trades has touched it.
"""

from __future__ import annotations

import pytest

from features.families.gaps import GAPS_A_SIDE
from features.families.liquidity import SLOTS_A_SIDE
from features.families.order_blocks import BLOCKS_A_SIDE
from tests.features.test_structure import follows

Candle = tuple[float, float, float, float]


def table(lines: list[Candle], expected: str) -> str:
    """Candles as text; what is expected is expected of the last."""
    return " |\n".join(" ".join(map(str, candle)) for candle in lines) + f" | {expected}"


def gaps(count: int) -> list[Candle]:
    """Impulses upwards, each leaving a gap of 1 that nothing fills: 101 to 102, 108 to 109, 114 to 115, and so on."""
    lines = [(101.0, 106.0, 101.0, 106.0), (106.0, 108.0, 102.0, 107.0)]
    for up in range(6, 6 * count, 6):
        lines += [(101.0 + up, 106.0 + up, 99.0 + up, 106.0 + up), (106.0 + up, 108.0 + up, 103.0 + up, 107.0 + up)]
    return lines


STEP = (
    (100.0, 105.0, 100.0, 104.0),  # the swing high
    (104.0, 104.5, 102.0, 103.0),
    (103.0, 103.5, 101.0, 101.5),  # the block
    (101.5, 103.5, 101.2, 103.0),
    (103.0, 109.0, 102.5, 108.5),  # the break
)


def blocks(count: int) -> list[Candle]:
    """Breaks upwards, each confirming a block that nothing comes back into: 101 to 103.5, 109 to 111.5, and so on."""
    return [(o + up, h + up, low + up, c + up) for up in range(0, 8 * count, 8) for o, h, low, c in STEP]


def lower_highs(count: int) -> list[Candle]:
    """Two equal swing highs at 106, then each 1 lower than the one before it; the last just confirmed."""
    highs = [106.0 - max(swing - 1, 0) - abs(3 - bar) for swing in range(count) for bar in range(8)]
    return [(high - 1.0, high, high - 2.0, high - 1.0) for high in highs[:-1]]


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "upside down"])
class TestTheOldestGoes:
    def test_open_gaps(self, mirrored: bool) -> None:
        # The last candle trades through every gap but the first.
        follows(table([*gaps(GAPS_A_SIDE), (124.0, 124.0, 104.0, 105.0)], "gap+=101.5,1,0"), mirrored)
        follows(table([*gaps(GAPS_A_SIDE + 1), (130.0, 130.0, 104.0, 105.0)], "gap+=none"), mirrored)

    def test_active_order_blocks(self, mirrored: bool) -> None:
        # The last candle closes through every block but the first.
        fall = (108.0, 108.0, 104.0, 104.5)
        age = len(STEP) * (BLOCKS_A_SIDE - 1) + 1
        follows(table([*blocks(BLOCKS_A_SIDE), fall], f"ob+=102.25,{age},0"), mirrored)
        follows(table([*blocks(BLOCKS_A_SIDE + 1), fall], "ob+=none"), mirrored)

    def test_swings_that_make_a_pool(self, mirrored: bool) -> None:
        follows(table(lower_highs(SLOTS_A_SIDE), "eqh=106,2"), mirrored)
        follows(table(lower_highs(SLOTS_A_SIDE + 1), "eqh=none"), mirrored)


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "upside down"])
class TestTheOthersStay:
    def test_open_gaps(self, mirrored: bool) -> None:
        second = 6.0 * GAPS_A_SIDE + 106.0
        lines = [*gaps(GAPS_A_SIDE + 1), (second, second, 108.5, 109.0)]
        # The second, 108 to 109, is now the oldest: half filled.
        follows(table(lines, "gap+=108.5,1,0.5"), mirrored)

    def test_active_order_blocks(self, mirrored: bool) -> None:
        age = len(STEP) * (BLOCKS_A_SIDE - 1) + 1
        lines = [*blocks(BLOCKS_A_SIDE + 1), (116.0, 116.0, 111.0, 112.0)]
        follows(table(lines, f"ob+=110.25,{age},1"), mirrored)
