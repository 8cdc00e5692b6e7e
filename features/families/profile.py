"""Volume profile: at which prices the volume of the last 96 bars changed hands, and where price stands to that.

| feature | formula | unit | range | warm-up | source |
|---|---|---|---|---|---|
| `profile_poc_distance` | (point of control - close) / ATR14 | ATR | ±100 | 192 | Steidlmayer |
| `profile_value_high_distance` | (upper edge of the value area - close) / ATR14 | ATR | ±100 | 192 | Steidlmayer |
| `profile_value_low_distance` | (lower edge of the value area - close) / ATR14 | ATR | ±100 | 192 | Steidlmayer |
| `profile_node_above_distance` | (nearest node above - close) / ATR14 | ATR | 0..100 | 192 | – |
| `profile_node_below_distance` | (nearest node below - close) / ATR14 | ATR | -100..0 | 192 | – |

A distance is positive where the level is above the close. Steidlmayer's market profile (1986) counts the time spent at
a price; this one counts volume, as is usual since.

*What a profile is made of.* A bar's volume is spread over its range low..high in proportion to the overlap with each
bin; that of a bar without a range lies in the bin of its price. Bins lie on a grid from price 0, and are as wide as the
power of two that puts 16 to 32 of them between the lowest low and the highest high of the window. So the profile is a
function of the window's bars alone, nothing in it moves when prices are multiplied by 1024, and two origins agree.

*Point of control*: the middle of the bin with the most volume, the lowest of equals. *Value area*: grows from the point
of control, each time by the larger of the bins next to it, the upper one of equals, until it holds 70 % of the window's
volume. Both are found again at the first bar of every four of the clock, and stay for the others. *High-volume node*:
the middle of a bin with at least the volume of either neighbour and of the average bin; looked for at every bar, from
the close outwards.

All five are NaN while the window has no volume at all; a node is NaN when there is none on that side of the close.

*How it stays cheap.* A bar is added and the one that leaves is taken away. Volumes are whole multiples of a unit about
2**-40 of the largest one, so that these sums are exact and what leaves leaves nothing behind. The profile is made
afresh from the ring when the width changes, when a volume is too large for the unit, and with every 96 bars of the
clock that bring another unit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from features.families.numeric import in_unit, wilder_warmup
from features.kernels_cache import njit, njit_inlined
from features.processor import lowest_bit, zeros_above
from features.spec import Family, Feature

Slice = NDArray[np.float64]
Word = np.uint64

BARS = 96
"""Bars of the window."""
BLOCK_BARS = 96
"""The unit is chosen anew at least this often, by the clock."""
LEVEL_BARS = 4
"""The point of control and the value area are found again at the first bar of every so many of the clock."""
LEAST_RANGE = 2.0**-30
"""A window's range counts as at least this fraction of its price, so that bins have a width in a dead market."""
SLOTS = 64
"""Places for bins, by their number modulo this: more than a window ever spans, so the others are 0."""
LAST_SLOT = SLOTS - 1
UNIT_BITS = 40
"""The window's largest volume is about two to this power of the unit."""
LARGEST = 2.0 ** (UNIT_BITS + 4)
"""A volume of more units than this needs another unit; 96 of them still add up exactly."""
USUAL_BINS = 4
"""A bar seldom overlaps more bins."""
VALUE_AREA = 0.7

# State of `profile`: one over the bins' width and over the unit of volume, the extremes of the window, its volume in
# units, the blocks of the clock in which the unit was chosen and the levels were found, those three levels as prices;
# then the bins, and the rings of high, low and volume.
PER_WIDTH, PER_UNIT, TOP, BOTTOM, TOTAL, BLOCK, LEVEL_BLOCK, POC, VALUE_HIGH, VALUE_LOW = range(10)
BINS = 10
HIGHS = BINS + SLOTS
LOWS = HIGHS + BARS
VOLUMES = LOWS + BARS
STATE_SIZE = VOLUMES + BARS


@njit_inlined
def bin_of(price: float, per_width: float) -> int:
    """The number of the bin that a price lies in."""
    return int(price * per_width)


@njit_inlined
def spread(
    bins: Slice, per_width: float, per_unit: float, high: float, low: float, volume: float, sign: float
) -> float:
    """Add a bar's volume to the bins that its range overlaps (sign 1), or take it away again (sign -1); their sum."""
    units = volume * per_unit
    start = low * per_width
    stop = high * per_width
    first = int(start)
    if stop <= start:
        part: float = sign * np.floor(units)
        bins[first & LAST_SLOT] += part
        return part
    density = units / (stop - start)
    sum_of_parts = 0.0
    edge = start
    # A loop of known length first: most bars end within it, and the bins beyond their end get nothing.
    for number in range(first, first + USUAL_BINS):
        next_edge = min(number + 1.0, stop)
        part = sign * np.floor(density * (next_edge - edge))
        bins[number & LAST_SLOT] += part
        sum_of_parts += part
        edge = next_edge
    for number in range(first + USUAL_BINS, int(stop) + 1):
        next_edge = min(number + 1.0, stop)
        part = sign * np.floor(density * (next_edge - edge))
        bins[number & LAST_SLOT] += part
        sum_of_parts += part
        edge = next_edge
    return sum_of_parts


@njit
def per_power_of_two(value: float, bits: int) -> float:
    """2**bits over the power of two next above `value`, exactly."""
    power: float = math.ldexp(1.0, bits - math.frexp(value)[1])
    return power


@njit
def highest(ring: Slice) -> float:
    """The largest value, by four comparisons side by side."""
    a = b = c = d = ring[0]
    for i in range(0, ring.size - 3, 4):
        a = max(a, ring[i])
        b = max(b, ring[i + 1])
        c = max(c, ring[i + 2])
        d = max(d, ring[i + 3])
    for i in range(ring.size - ring.size % 4, ring.size):
        a = max(a, ring[i])
    found: float = max(max(a, b), max(c, d))
    return found


@njit
def per_unit_of(volumes: Slice) -> float:
    """One over the unit in which a profile of these volumes is made."""
    largest = highest(volumes)
    # Without any volume the next one, whatever its size, is too large for the unit.
    return per_power_of_two(largest, UNIT_BITS) if largest > 0.0 else 1e300


@njit
def rebuild(state: Slice, size: int, span: float) -> None:
    """The profile of the `size` bars in the ring, whose prices span `span`."""
    per_width = per_power_of_two(span, 5)
    per_unit = per_unit_of(state[VOLUMES : VOLUMES + size])
    bins = state[BINS : BINS + SLOTS]
    bins[:] = 0.0
    total = 0.0
    for i in range(size):
        total += spread(bins, per_width, per_unit, state[HIGHS + i], state[LOWS + i], state[VOLUMES + i], 1.0)
    state[PER_WIDTH] = per_width
    state[PER_UNIT] = per_unit
    state[TOTAL] = total


@njit
def lowest(ring: Slice) -> float:
    """The smallest value, by four comparisons side by side."""
    a = b = c = d = ring[0]
    for i in range(0, ring.size - 3, 4):
        a = min(a, ring[i])
        b = min(b, ring[i + 1])
        c = min(c, ring[i + 2])
        d = min(d, ring[i + 3])
    for i in range(ring.size - ring.size % 4, ring.size):
        a = min(a, ring[i])
    found: float = min(min(a, b), min(c, d))
    return found


@njit_inlined
def take_in(state: Slice, block: int, high: float, low: float, volume: float, count: int) -> None:
    """Move the window, its extremes and its profile on by one bar."""
    at = (count - 1) % BARS
    size = min(count, BARS)
    gone_high = state[HIGHS + at]
    gone_low = state[LOWS + at]
    gone_volume = state[VOLUMES + at]
    state[HIGHS + at] = high
    state[LOWS + at] = low
    state[VOLUMES + at] = volume
    if count == 1 or high >= state[TOP]:
        state[TOP] = high
    elif gone_high == state[TOP]:
        state[TOP] = highest(state[HIGHS : HIGHS + size])
    if count == 1 or low <= state[BOTTOM]:
        state[BOTTOM] = low
    elif gone_low == state[BOTTOM]:
        state[BOTTOM] = lowest(state[LOWS : LOWS + size])
    span = max(state[TOP] - state[BOTTOM], LEAST_RANGE * state[TOP])
    per_width = state[PER_WIDTH]
    per_unit = state[PER_UNIT]
    spanned = span * per_width
    stays = (spanned >= 16.0) & (spanned < 32.0) & (volume * per_unit <= LARGEST)
    if block != state[BLOCK]:
        # Made afresh in the same unit it would be the same to the bit, as every sum in it is exact.
        stays = stays and per_unit_of(state[VOLUMES : VOLUMES + size]) == per_unit
        state[BLOCK] = block
    if stays:
        bins = state[BINS : BINS + SLOTS]
        gone = spread(bins, per_width, per_unit, gone_high, gone_low, gone_volume, -1.0)
        state[TOTAL] += gone + spread(bins, per_width, per_unit, high, low, volume, 1.0)
    else:
        rebuild(state, size, span)


@njit
def control(bins: Slice, first: int, last: int) -> int:
    """The number of the bin with the most volume."""
    best = first
    most = bins[first & LAST_SLOT]
    for number in range(first + 1, last + 1):
        here = bins[number & LAST_SLOT]
        best = number if here > most else best
        most = max(here, most)
    return best


@njit
def grow(bins: Slice, poc: int, wanted: float) -> tuple[int, int]:
    """The lowest and highest bin of the value area, which grows from `poc` until it holds the `wanted` volume."""
    upper = poc
    lower = poc
    inside = bins[poc & LAST_SLOT]
    while inside < wanted:
        above = bins[(upper + 1) & LAST_SLOT]
        below = bins[(lower - 1) & LAST_SLOT]
        up = above >= below
        upper += up
        lower -= not up
        inside += above if up else below
    return lower, upper


@njit_inlined
def is_node(here: float, before: float, after: float, count: int, total: float) -> bool:
    """Whether a bin has at least the volume of its neighbours and of the average of `count` bins."""
    high: bool = (here * count >= total) & (here >= before) & (here >= after)
    return high


@njit_inlined
def nodes(around: Slice, count: int, total: float) -> Word:
    """Which slots are high-volume nodes, a bit each; `around` are the bins with one number more on either side.

    A bin beyond the window is none, as it is empty, and beside one at the window's edge it never has more.
    """
    # All slots at once and no search, as nobody guesses where that would end.
    found = np.uint64(0)
    for slot in range(SLOTS):
        high = is_node(around[slot + 1], around[slot], around[slot + 2], count, total)
        found |= np.uint64(high) << np.uint64(slot)
    # The first slot and the last are neighbours, which that has not seen.
    first, last = around[1], around[SLOTS]
    found &= ~(np.uint64(1) | np.uint64(1) << np.uint64(LAST_SLOT))
    found |= np.uint64(is_node(first, last, around[2], count, total))
    found |= np.uint64(is_node(last, around[SLOTS - 1], first, count, total)) << np.uint64(LAST_SLOT)
    return found


@njit_inlined
def turned(word: Word, start: int) -> Word:
    """The bits of `word` from place `start` (modulo 64) on first, then those before it."""
    places = np.uint64(start & LAST_SLOT)
    return (word >> places) | (word << (np.uint64(SLOTS - start) & np.uint64(LAST_SLOT)))


@njit_inlined
def node_from(found: Word, start: int) -> int:
    """The number of the first node from bin `start` upwards; one far beyond the window when there is none."""
    number: int = start + lowest_bit(turned(found, start))
    return number


@njit_inlined
def node_down_from(found: Word, start: int) -> int:
    """The same downwards."""
    number: int = start - zeros_above(turned(found, start + 1))
    return number


@njit_inlined
def profile(
    state: Slice,
    out: Slice,
    clock: int,
    high: float,
    low: float,
    close: float,
    volume: float,
    per_atr: float,
    count: int,
) -> None:
    """All five."""
    take_in(state, clock // BLOCK_BARS, high, low, volume, count)
    total = state[TOTAL]
    if total <= 0.0:
        out[:] = np.nan
        return
    bins = state[BINS : BINS + SLOTS]
    width = 1.0 / state[PER_WIDTH]
    first = bin_of(state[BOTTOM], state[PER_WIDTH])
    last = bin_of(state[TOP], state[PER_WIDTH])
    here = bin_of(close, state[PER_WIDTH])
    offset = (here + 0.5) * width - close
    if clock // LEVEL_BARS != state[LEVEL_BLOCK]:
        state[LEVEL_BLOCK] = clock // LEVEL_BARS
        # Guards on either side, so that growing needs not look where the window ends: less than any volume.
        bins[(first - 1) & LAST_SLOT] = -1.0
        bins[(last + 1) & LAST_SLOT] = -1.0
        poc = control(bins, first, last)
        lower, upper = grow(bins, poc, VALUE_AREA * total)
        bins[(first - 1) & LAST_SLOT] = 0.0
        bins[(last + 1) & LAST_SLOT] = 0.0
        state[POC] = (poc + 0.5) * width
        state[VALUE_HIGH] = (upper + 1.0) * width
        state[VALUE_LOW] = lower * width
    found = nodes(state[BINS - 1 : BINS + SLOTS + 1], last - first + 1, total)
    above = node_from(found, here + (offset <= 0.0))
    below = node_down_from(found, here - (offset >= 0.0))
    out[0] = in_unit(state[POC] - close, per_atr)
    out[1] = in_unit(state[VALUE_HIGH] - close, per_atr)
    out[2] = in_unit(state[VALUE_LOW] - close, per_atr)
    out[3] = in_unit((above + 0.5) * width - close, per_atr) if above <= last else np.nan
    out[4] = in_unit((below + 0.5) * width - close, per_atr) if below >= first else np.nan


def _distance(name: str, level: str, low: float = -100.0, high: float = 100.0, source: str = "") -> Feature:
    warmup = max(wilder_warmup(14), BARS + BLOCK_BARS)
    formula = f"({level} - close) / ATR14"
    return Feature(f"profile_{name}_distance", warmup, formula, "ATR", low, high, nan=True, source=source)


STEIDLMAYER = "Steidlmayer"

PROFILE = Family(
    "profile",
    (
        _distance("poc", "point of control", source=STEIDLMAYER),
        _distance("value_high", "upper edge of the value area", source=STEIDLMAYER),
        _distance("value_low", "lower edge of the value area", source=STEIDLMAYER),
        _distance("node_above", "nearest high-volume node above", low=0.0),
        _distance("node_below", "nearest high-volume node below", high=0.0),
    ),
    STATE_SIZE,
    profile,
)
