"""The venue's time from samples."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance.clock import DRIFT, FRESH_MS, SAMPLES, Sample, ServerClock, estimate
from market.binance.errors import Unreachable


class Wire:
    """A venue whose clock is `offset_ms` ahead, asked over a wire with given delays there and back."""

    def __init__(self, offset_ms: float, delays: list[tuple[float, float]]) -> None:
        self.local = 1_000.0
        self.offset = offset_ms
        self.delays = delays
        self.asked = 0

    async def ask(self) -> int:
        there, back = self.delays[self.asked % len(self.delays)]
        self.asked += 1
        self.local += there
        told = math.floor(self.local + self.offset)
        await asyncio.sleep(0)
        self.local += back
        return told

    def clock(self) -> ServerClock:
        return ServerClock(self.ask, lambda: self.local)


delays = st.lists(st.tuples(st.floats(0, 3000), st.floats(0, 3000)), min_size=1, max_size=7)


@settings(deadline=None)
@given(st.floats(-1e9, 1e12), delays)
async def test_the_truth_lies_within_the_error_that_is_told(offset: float, wire: list[tuple[float, float]]) -> None:
    venue = Wire(offset, wire)
    clock = venue.clock()
    now = await clock.now_ms()
    found = clock.offset
    assert found is not None
    assert abs(found.offset_ms - offset) <= found.error_ms + 0.01
    assert abs(now - (venue.local + offset)) <= found.error_ms + 1.01
    quickest = min(there + back for there, back in (wire * SAMPLES)[:SAMPLES])
    assert found.error_ms <= quickest / 2 + 0.51 + DRIFT * 6_000 * SAMPLES


async def test_samples_are_asked_for_once_while_they_are_fresh() -> None:
    venue = Wire(5_000.0, [(10.0, 10.0)])
    clock = venue.clock()
    assert clock.offset is None
    await asyncio.gather(*(clock.now_ms() for _ in range(8)))
    assert venue.asked == SAMPLES
    venue.local += FRESH_MS - 1_000
    await clock.now_ms()
    assert venue.asked == SAMPLES
    venue.local += 1_001
    venue.offset += 15.0
    await clock.now_ms()
    assert venue.asked == 2 * SAMPLES
    found = clock.offset
    assert found is not None
    assert abs(found.offset_ms - venue.offset) <= found.error_ms


async def test_a_clock_that_stood_is_found_out_and_started_anew() -> None:
    venue = Wire(0.0, [(1.0, 1.0)])
    clock = venue.clock()
    before = await clock.now_ms()
    venue.offset += 3_600_000.0
    seen = clock.generation
    await asyncio.gather(*(clock.sync(seen, discard=True) for _ in range(4)))
    assert venue.asked == 2 * SAMPLES, "one synchronisation is enough for all who wait"
    assert await clock.now_ms() - before == pytest.approx(3_600_000, abs=50)


async def test_a_venue_that_cannot_be_asked_leaves_the_samples_as_they_are() -> None:
    venue = Wire(7.0, [(1.0, 1.0)])
    clock = venue.clock()
    await clock.now_ms()
    before = clock.offset

    async def fail() -> int:
        raise Unreachable("http://x", "down")

    clock._ask = fail
    with pytest.raises(Unreachable):
        await clock.sync(clock.generation)
    assert clock.offset == before
    venue.local += 2 * FRESH_MS
    assert await clock.now_ms() == pytest.approx(venue.local + 7.0, abs=2.0)
    nobody = ServerClock(fail, lambda: 0.0)
    with pytest.raises(Unreachable):
        await nobody.now_ms()


def test_a_sample_that_contradicts_the_newest_is_left_out() -> None:
    found = estimate([Sample(0, 10, 50_000), Sample(20, 30, 1_025), Sample(40, 60, 1_050)])
    assert abs(found.offset_ms - 1_000) < 6
