"""Structure once more, slowly and plainly: lists of objects, every question asked of all bars again.

Written from the definitions in `features.families`, one function a sentence, so that the kernels, which
answer from a few numbers of state, can be held against it on any bars. Bars are counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.families import breaks, displacement, gaps, liquidity, order_blocks, swings
from features.families.shared import SHARED
from features.spec import FeatureSpec
from market.bars import Bars

STRUCTURE = FeatureSpec(
    (
        swings.SWINGS,
        breaks.BREAKS,
        order_blocks.ORDER_BLOCKS,
        gaps.GAPS,
        liquidity.LIQUIDITY,
        displacement.DISPLACEMENT,
    ),
    (*SHARED, *swings.SHARED, *breaks.SHARED),
)
"""The families of structure alone."""

Column = NDArray[np.float64]
STANDS, LIVES, TREND, SINCE = 60, 160, 160, 96
"""How long a swing stands, a zone lives, a break makes the trend, and a sweep is counted."""


@dataclass(eq=False)
class Swing:
    """A swing high of the prices it was found in (a swing low is one of the mirrored prices)."""

    bar: int
    confirmed: int
    level: float
    tolerance: float
    broken: bool = False
    taken: bool = False


@dataclass(eq=False)
class Zone:
    """A bullish order block or gap of the prices it was found in."""

    low: float
    high: float
    born: int
    candle: int = -1
    lows: list[float] = field(default_factory=list)
    """Every low since it was born."""

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2

    @property
    def mitigated(self) -> bool:
        return any(low <= self.high for low in self.lows)

    @property
    def filled(self) -> float:
        reached = min([self.high, *self.lows])
        return (self.high - reached) / (self.high - self.low)


@dataclass
class Side:
    """All that is found in one reading of the prices: upwards as they are, or mirrored."""

    open: Column
    high: Column
    low: Column
    close: Column
    swings: list[Swing] = field(default_factory=list)
    breaks: list[tuple[int, Swing]] = field(default_factory=list)
    blocks: list[Zone] = field(default_factory=list)
    gaps: list[Zone] = field(default_factory=list)
    all_gaps: list[Zone] = field(default_factory=list)
    pools: list[Swing] = field(default_factory=list)
    swept: bool = False

    def standing(self, now: int) -> Swing | None:
        last = self.swings[-1] if self.swings else None
        return last if last is not None and now - last.confirmed < STANDS else None

    def swing_level(self, now: int) -> float:
        last = self.standing(now)
        return last.level if last else float(self.high[max(0, now - STANDS + 1) : now + 1].max())

    def confirm_swing(self, now: int) -> Swing | None:
        """Step 1: the bar three bars ago, if it is a swing."""
        bar = now - 3
        if bar < 3:
            return None
        older, newer = self.high[bar - 3 : bar], self.high[bar + 1 : bar + 4]
        if not (self.high[bar] > older.max() and self.high[bar] >= newer.max()):
            return None
        span = (self.high - self.low)[max(0, now - 47) : now + 1]
        swing = Swing(bar, now, float(self.high[bar]), 0.1 * float(span.sum()) / 48)
        self.swings.append(swing)
        return swing

    def break_swing(self, now: int) -> Swing | None:
        """Step 2: the standing swing, if this bar is the first that closes above it."""
        swing = self.standing(now)
        if swing is None or swing.broken or not self.close[now] > swing.level:
            return None
        swing.broken = True
        self.breaks.append((now, swing))
        return swing

    def update_blocks(self, now: int, broken: Swing | None) -> None:
        """Step 3: blocks age and die; a break brings one."""
        for zone in self.blocks:
            zone.lows.append(float(self.low[now]))
        self.blocks = [z for z in self.blocks if not self.close[now] < z.low and now - z.born < LIVES]
        if broken is None:
            return
        leg = range(broken.bar + 1, now)
        start = min(leg, key=lambda bar: (self.low[bar], -bar))
        falling = [bar for bar in range(broken.bar, start + 1) if self.close[bar] < self.open[bar]]
        if falling and not (self.blocks and self.blocks[-1].candle == falling[-1]):
            candle = falling[-1]
            self.blocks.append(Zone(float(self.low[candle]), float(self.high[candle]), now, candle))
            self.blocks = self.blocks[-4:]

    def update_gaps(self, now: int, usual: float) -> None:
        """Step 4: gaps fill and close; three bars make one."""
        for zone in self.gaps:
            zone.lows.append(float(self.low[now]))
        self.gaps = [z for z in self.gaps if min(z.lows) > z.low and now - z.born < LIVES]
        if now >= 2 and self.low[now] > self.high[now - 2] and self.low[now] - self.high[now - 2] >= 0.1 * usual:
            zone = Zone(float(self.high[now - 2]), float(self.low[now]), now)
            self.all_gaps.append(zone)
            self.gaps = [*self.gaps, zone][-4:]

    def update_pools(self, now: int, new: Swing | None) -> None:
        """Step 5: swings are taken and forgotten; the new one is remembered."""
        self.swept = False
        for swing in self.pools:
            if self.high[now] > swing.level and not swing.taken:
                swing.taken = True
                self.swept |= bool(self.close[now] <= swing.level)
        self.pools = [
            swing
            for swing in self.pools
            if not self.high[now] > swing.level + swing.tolerance and now - swing.confirmed < LIVES
        ]
        if new is not None:
            self.pools = [*self.pools, new][-8:]

    def pool(self) -> tuple[float, int]:
        """The level and touches of the nearest pool; no touches when there is none."""
        found = []
        for swing in self.pools:
            touches = sum(abs(other.level - swing.level) <= swing.tolerance for other in self.pools)
            if not swing.taken and touches > 1:
                found.append((swing.level, touches))
        return min(found, default=(np.nan, 0))


def nearest(zones: list[Zone], close: float) -> Zone | None:
    """The zone whose middle is nearest; of equally near ones the lower, then the younger."""
    return min(zones, key=lambda z: (abs(close - z.middle), z.middle, -z.born), default=None)


def average_true_range(bars: Bars) -> Column:
    """Wilder's, seeded with the mean of the first fourteen."""
    high, low, close = (bars[name].tolist() for name in ("high", "low", "close"))
    out = [high[0] - low[0]]
    average = 0.0
    for i in range(1, len(high)):
        true_range = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        average += (true_range - average) / min(i, 14)
        out.append(average)
    return np.array(out)


@dataclass
class Reading:
    """What the reference makes of some bars: one column a feature, and all that it found on the way."""

    columns: dict[str, Column]
    up: Side
    down: Side


def read(bars: Bars) -> Reading:
    """Every feature of STRUCTURE, from the first bar on, warm or not."""
    o, h, low, c = (bars[name].astype(np.float64) for name in ("open", "high", "low", "close"))
    up, down = Side(o, h, low, c), Side(-o, -low, -h, -c)
    atr = average_true_range(bars)
    columns = {name: np.full(len(bars), np.nan) for name in STRUCTURE.names}
    last_break, trend, last_sweep, usual = -1, 0, -1, 0.0
    for now in range(len(bars)):

        def put(name: str, value: float, now: int = now) -> None:
            columns[name][now] = value

        def put_atr(name: str, value: float, now: int = now) -> None:
            columns[name][now] = min(max(value / atr[now], -100.0), 100.0) if atr[now] > 0 else 0.0

        new = up.confirm_swing(now), down.confirm_swing(now)
        if any(new) or not (up.standing(now) or down.standing(now)):
            usual = float((h - low)[max(0, now - 47) : now + 1].sum()) / 48
        top, bottom = up.swing_level(now), -down.swing_level(now)
        put_atr("swing_high_distance", top - c[now])
        put_atr("swing_low_distance", c[now] - bottom)
        put("dealing_range_position", np.clip((c[now] - bottom) / (top - bottom), 0, 1) if top > bottom else 0.5)
        highest, lowest = h[max(0, now - 47) : now + 1].max(), low[max(0, now - 47) : now + 1].min()
        put("range_position_48", (c[now] - lowest) / (highest - lowest) if highest > lowest else 0.5)

        before = trend if last_break >= 0 and now - 1 - last_break < TREND else 0
        broken = up.break_swing(now), down.break_swing(now)
        assert not all(broken)
        direction = int(broken[0] is not None) - int(broken[1] is not None)
        if direction:
            trend, last_break = direction, now
        put("trend_state", trend if last_break >= 0 and now - last_break < TREND else 0)
        put("break_of_structure", direction if direction != -before else 0)
        put("change_of_character", direction if direction == -before else 0)
        put("bars_since_break", min(now - last_break, TREND) if last_break >= 0 else TREND)

        for side, name, swing in ((up, "bullish", broken[0]), (down, "bearish", broken[1])):
            side.update_blocks(now, swing)
            side.update_gaps(now, usual)
            close = float(side.close[now])
            if block := nearest(side.blocks, close):
                put_atr(f"{name}_order_block_distance", close - block.middle)
                put(f"{name}_order_block_age", now - block.born)
                put(f"{name}_order_block_mitigated", block.mitigated)
            if gap := nearest(side.gaps, close):
                put_atr(f"{name}_gap_distance", close - gap.middle)
                put_atr(f"{name}_gap_size", gap.high - gap.low)
                put(f"{name}_gap_filled", gap.filled)
        for side, name, swing in ((up, "highs", new[0]), (down, "lows", new[1])):
            side.update_pools(now, swing)
            level, touches = side.pool()
            if touches:
                put_atr(f"equal_{name}_distance", level - side.close[now])
            put(f"equal_{name}_touches", touches)
        if up.swept or down.swept:
            last_sweep = now
        put("sweep", int(down.swept) - int(up.swept))
        put("bars_since_sweep", min(now - last_sweep, SINCE) if last_sweep >= 0 else SINCE)

        three = slice(max(0, now - 2), now + 1)
        net, ground = float((c - o)[three].sum()), float((h - low)[three].sum())
        put_atr("displacement", net * abs(net) / ground if ground > 0 else 0.0)
    return Reading(columns, up, down)
