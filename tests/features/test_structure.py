"""Structure as a trader would draw it: candles, and what is expected at the bar that confirms it.

Each table begins after a long quiet market (open 100, high 101, low 99, close 100, so the usual range is
2 and nothing is a swing) and gives one candle a line: open high low close, then what is known at its
close. Prices are half units, and every table is also read upside down (200 - price), with highs for lows
and bullish for bearish.

- `bos=1`, `choch=-1`, `sweep=1`: these events; a line that expects anything expects no event but those it names.
- `trend=`, `since_break=`, `since_sweep=`: those columns.
- `high=`, `low=`: the level of the last swing; `dealing=`: the position between them.
- `ob+=middle,age,mitigated` and `ob-=`: the nearest order block; `ob+=none` when there is none.
- `gap+=middle,size,filled` and `gap-=`: the nearest fair-value gap.
- `eqh=level,touches` and `eql=`: the nearest pool.
- `x60` at the end repeats the candle; expectations are then those after the last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from features import compute
from market.bars import BAR, Bars
from tests.features.series import START_MS
from tests.features.structure_reference import STRUCTURE, average_true_range

QUIET = (100.0, 101.0, 99.0, 100.0)
EVENTS = {"bos": "break_of_structure", "choch": "change_of_character", "sweep": "sweep"}
PLAIN = {**EVENTS, "trend": "trend_state", "since_break": "bars_since_break", "since_sweep": "bars_since_sweep"}
ZONES = {
    "ob+": ("bullish_order_block_", ("distance", "age", "mitigated"), -1.0),
    "ob-": ("bearish_order_block_", ("distance", "age", "mitigated"), 1.0),
    "gap+": ("bullish_gap_", ("distance", "size", "filled"), -1.0),
    "gap-": ("bearish_gap_", ("distance", "size", "filled"), 1.0),
    "eqh": ("equal_highs_", ("distance", "touches"), 1.0),
    "eql": ("equal_lows_", ("distance", "touches"), -1.0),
    "high": ("swing_high_", ("distance",), 1.0),
    "low": ("swing_low_", ("distance",), -1.0),
}
OTHER_SIDE = {"high": "low", "low": "high", "eqh": "eql", "eql": "eqh"} | {
    f"{zone}{sign}": f"{zone}{'-' if sign == '+' else '+'}" for zone in ("ob", "gap") for sign in "+-"
}


@dataclass(frozen=True)
class Line:
    """One candle, and what is expected at its close."""

    candle: tuple[float, ...]
    expected: dict[str, str]

    def mirrored(self) -> Line:
        """The same upside down."""
        open_, high, low, close = self.candle
        expected = {}
        for key, text in self.expected.items():
            if key in (*EVENTS, "trend"):
                text = str(-int(text))
            elif key == "dealing":
                text = str(1.0 - float(text))
            elif key in OTHER_SIDE and text != "none":
                level, *rest = text.split(",")
                text = ",".join([str(200.0 - float(level)), *rest])
            expected[OTHER_SIDE.get(key, key)] = text
        return Line((200.0 - open_, 200.0 - low, 200.0 - high, 200.0 - close), expected)


def lines_of(table: str) -> list[Line]:
    lines = []
    for text in filter(None, map(str.strip, table.splitlines())):
        candle, _, rest = text.partition("|")
        words = rest.split()
        times = int(words.pop()[1:]) if words and words[-1].startswith("x") else 1
        prices = tuple(map(float, candle.split()))
        lines += [Line(prices, {})] * (times - 1)
        lines.append(Line(prices, dict(word.split("=") for word in words)))
    return lines


def bars_of(lines: list[Line]) -> Bars:
    candles = np.array([QUIET] * STRUCTURE.warmup + [line.candle for line in lines])
    bars = np.zeros(len(candles), dtype=BAR)
    bars["open_time"] = START_MS + 300_000 * np.arange(len(candles))
    bars["close_time"] = bars["open_time"] + 299_999
    for name, column in zip(("open", "high", "low", "close"), candles.T, strict=True):
        bars[name] = column
    return bars


def follows(table: str, mirrored: bool) -> None:
    """Compare every expectation of a table."""
    lines = lines_of(table)
    if mirrored:
        lines = [line.mirrored() for line in lines]
    bars = bars_of(lines)
    rows = compute(bars, STRUCTURE).astype(np.float64)
    for row, bar, atr, line in zip(
        rows[STRUCTURE.warmup :],
        bars[STRUCTURE.warmup :],
        average_true_range(bars)[STRUCTURE.warmup :],
        lines,
        strict=True,
    ):
        values = dict(zip(STRUCTURE.names, row.tolist(), strict=True))
        found: dict[str, object] = {}
        wanted: dict[str, str | float | list[float]] = dict.fromkeys(EVENTS, 0.0) if line.expected else {}
        for key, text in line.expected.items():
            wanted[key] = text if text == "none" else [float(part) for part in text.split(",")]
            if key in PLAIN or key == "dealing":
                wanted[key] = float(text)
        for key in wanted:
            if key in ZONES:
                prefix, names, sign = ZONES[key]
                parts = [values[prefix + name] for name in names]
                parts[0] = float(bar["close"]) + sign * parts[0] * atr
                if names[1:2] == ("size",):
                    parts[1] *= atr
                found[key] = "none" if np.isnan(parts[0]) else pytest.approx(parts, abs=1e-4)
            else:
                found[key] = pytest.approx(values[PLAIN.get(key, "dealing_range_position")], abs=1e-6)
        assert wanted == found, f"{line.candle}"


CASES = {
    "a swing is known three bars later and not before": """
        100 102 100 101 | high=102
        101 105 101 104 | high=105
        104 104 102 103 | high=105
        103 104 102 102 | high=105
        102 103 101 102 | high=105
        102 103 101 102 | high=105
    """,
    "of a swing and a higher bar after it, the swing is reported": """
        101 104 101 103 |
        103 106 102 102 |
        102 103 101 102 |
        102 103 101 102 |
        102 103 101 102 | high=106
        102 105 101 102 | high=106
        102 104 101 102 | high=106
        102 104 101 102 | high=106
        102 104 101 102 | high=105
    """,
    "of equal highs side by side the first is the swing": """
        101 104 101 103 |
        103 106 102 104 |
        104 106 102 104 |
        104 105 102 104 |
        104 105 102 104 | high=106
        104 105 102 104 | high=106
    """,
    "a swing stands for 60 bars, then the highest of them stands in": """
        101 104 101 103 |
        103 108 102 104 |
        104 105 102 104 |
        104 105 102 104 |
        104 105 102 104 | high=108
        104 105 102 104 | high=108 x59
        104 105 102 104 | high=105
    """,
    "premium, discount, and the edges": """
        101 104 101 103 |
        103 106 102 104 |
        104 105 100 101 |
        101 102  98  99 |
        99  102  98 100 | high=106
        100 103  99 101 |
        101 104 100 102 | high=106 low=98 dealing=0.5
        102 103  99 100 | dealing=0.25
        100 105 100 104 | dealing=0.75
        104 108 104 107 | bos=1 dealing=1
    """,
    "a close above a swing breaks it, once; a wick sweeps it": """
        101 104 101 103 | trend=0 since_break=160
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | high=106 trend=0 sweep=0
        103 107 102 105 | sweep=-1 since_sweep=0 trend=0
        105 108 104 107 | bos=1 trend=1 since_break=0 since_sweep=1
        107 108 104 105 | trend=1 since_break=1
        105 109 104 108 | trend=1 since_break=2
    """,
    "a close at the level is inside": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | high=106
        103 106 102 106 | trend=0 sweep=0
        106 107 105 106 | trend=0 sweep=-1
    """,
    "against the trend a break is a change of character, with it a break of structure": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 100 101 |
        101 102  99 100 |
        100 104  99 103 | high=106
        103 107 102 107 | bos=1 trend=1
        107 108 104 107 | low=99
        107 108 103 104 |
        104 105 101 102 |
        102 103  97  98 | choch=-1 trend=-1 high=108
        98  100  96  99 | trend=-1
        99  102  97 101 |
        101 103  99 102 |
        102 103  98  99 | low=96
        99  100  94  95 | bos=-1 trend=-1
    """,
    "the trend is over 160 bars after its last break": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 108 102 107 | bos=1 trend=1
        105 108 102 105 | trend=1 since_break=159 x159
        105 108 102 105 | trend=0 since_break=160
        105 108 102 105 | trend=0 since_break=160
    """,
    "a swing that the breaking bar itself confirms takes the place of the one before": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | high=106
        103 107 102 105 | sweep=-1
        105 106 103 105 |
        105 106 103 105 |
        105 107 104 106.5 | high=107 trend=0
    """,
    "the block is the last falling candle before the low of the leg; it ages, is touched, dies": """
        101 104 101 103 |
        103 106 103 104 |
        104 105 101 102 |
        103 104  99 100 |
        100 103  99.5 102 |
        102 103 101 101.5 |
        102 108 101 107 | bos=1 ob+=101.5,0,0 ob-=none
        107 108 105 106 | ob+=101.5,1,0
        106 107 104.5 106 | ob+=101.5,2,0
        106 107 104 106 | ob+=101.5,3,1
        106 107 105 106 | ob+=101.5,4,1
        106 107  98  99 | sweep=1 ob+=101.5,5,1
        99  100  97  98.5 | choch=-1 ob+=none
    """,
    "of equal lows the last begins the impulse": """
        101 104 101 103 |
        103 106 103 104 |
        104 105  99 102 |
        102 104 101 103 |
        103 104  99 102 |
        102 103 101 102.5 |
        102 108 101 107 | bos=1 ob+=101.5,0,0
    """,
    "no block without a falling candle": """
        101 104 101 103 |
        103 106 103 104 |
        102 105 102 103 |
        101 104 101 102 |
        101 104 101 102 |
        102 108 101 107 | bos=1 ob+=none
    """,
    "a block dies after 160 bars": """
        101 104 101 103 |
        103 106 103 104 |
        104 105 101 102 |
        102 103 101 102 |
        102 104 101 103 |
        103 108 102 107 | bos=1 ob+=103,0,0
        107 108 106 107 | ob+=103,159,0 x159
        107 108 106 107 | ob+=none
    """,
    "a candle makes one block, though two swings break above it": """
        101 104 101 103 |
        103 106 103 104 |
        104 105 101 103 |
        103 104 102 103 |
        103 105 102 105 | high=106
        105 108 104 105 | sweep=-1
        105 107 100 101 |
        101 107 101 107 | bos=1 ob+=103.5,0,0
        107 107.5 106 107 | ob+=103.5,1,1 high=108
        107 110 106 109 | bos=1 ob+=103.5,2,1
    """,
    "three bars make a gap, it is filled from its near edge, and ends when filled": """
        100 101 99 101 |
        101 106 101 106 | gap+=none
        106 108 104 107 | gap+=102.5,3,0 gap-=none
        107 108 105 106 | gap+=102.5,3,0
        106 107 103 104 | gap+=102.5,3,0.3333333
        104 107 103.5 106 | gap+=102.5,3,0.3333333
        106 107 101.5 103 | gap+=102.5,3,0.8333333
        103 105 101 104 | gap+=none
    """,
    "a gap of a tenth of the usual range counts, a smaller one does not": """
        100 101 99 101 |
        101 104 101 103 |
        103 104 101.125 103 | gap+=none
        100 101 99 101 |
        101 104 101 103 |
        103 104 101.25 103 | gap+=101.125,0.25,0
    """,
    "a gap ends after 160 bars": """
        100 101 99 101 |
        101 106 101 106 |
        106 108 104 107 | gap+=102.5,3,0
        107 108 106 107 | gap+=102.5,3,0 x159
        107 108 106 107 | gap+=none
    """,
    "four gaps are kept, the oldest goes first": """
        100 101  99 101 |
        101 106 101 106 |
        106 108 104 107 | gap+=102.5,3,0
        107 112 106 112 |
        112 114 110 113 | gap+=109,2,0
        113 118 112 118 |
        118 120 116 119 | gap+=115,2,0
        119 124 118 124 |
        124 126 122 125 | gap+=121,2,0
        125 130 124 130 |
        130 132 128 131 | gap+=127,2,0
        131 131 108.5 109 | gap+=109,2,0.75
        109 109 107 108 | gap+=none
    """,
    "equal highs are a pool, with its touches, until traded beyond": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=none high=106
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=106,2
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=106,3
        103 107 102 105 | sweep=-1 eqh=none
    """,
    "a second high a touch above the first makes equal highs with it, though it took it": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | high=106
        103 106.125 102 103 | sweep=-1
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=106.125,2
    """,
    "a second high well above or below the first does not": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 105.5 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=none high=105.5
        103 106.5 102 103 | sweep=-1
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=none high=106.5
    """,
    "a pool ends 160 bars after its first swing": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 106 102 103 |
        103 104 102 103 |
        103 104 102 103 |
        103 104 102 103 | eqh=106,2
        103 104 102 103 | eqh=106,2 x155
        103 104 102 103 | eqh=none
    """,
    "a bar that sweeps both sides is neither": """
        101 104 101 103 |
        103 106 102 103 |
        103 104 100 101 |
        101 102  96 101 |
        101 102  98 101 |
        101 102  98 101 |
        101 102  98 101 | high=106 low=96
        101 107  95 101 | sweep=0 since_sweep=0
        101 102  98 101 | since_sweep=1
        101 102  98 101 | since_sweep=96 x95
        101 102  98 101 | since_sweep=96
    """,
}


@pytest.mark.parametrize("mirrored", [False, True], ids=["", "upside down"])
@pytest.mark.parametrize("table", CASES.values(), ids=CASES.keys())
def test_candles(table: str, mirrored: bool) -> None:
    follows(table, mirrored)


@pytest.mark.parametrize(
    ("candles", "expected"),
    [
        pytest.param([(100, 102, 100, 102), (102, 104, 102, 104), (104, 106, 104, 106)], 6.0, id="three full candles"),
        pytest.param([(100, 103, 99, 102), (102, 105, 101, 104), (104, 107, 103, 106)], 3.0, id="half of it wicks"),
        pytest.param([(100, 102, 100, 102), (102, 102, 100, 100), (100, 102, 100, 102)], 2 / 3, id="to and fro"),
        pytest.param([(100, 100, 98, 98), (98, 98, 96, 96), (96, 96, 94, 94)], -6.0, id="downwards"),
        pytest.param([(100, 100, 100, 100)] * 3, 0.0, id="no range"),
    ],
)
def test_displacement(candles: list[tuple[float, ...]], expected: float) -> None:
    bars = bars_of([Line(candle, {}) for candle in candles])
    found = compute(bars, STRUCTURE)[-1, STRUCTURE.index("displacement")] * average_true_range(bars)[-1]
    assert found == pytest.approx(expected, rel=1e-5)
