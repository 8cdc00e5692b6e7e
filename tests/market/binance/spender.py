"""One of several processes that spend from one budget, by a clock that they share. Run by test_rate_limit.py.

The clock is a number in a file, which only goes forward. Whoever pauses moves it on; for the others it then jumps, as
if they had been slow. A request arrives at the venue at any time from its reservation on, and is given up in time.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import sys
from pathlib import Path
from random import Random

from market.binance import shared_window
from market.binance.errors import BudgetExhausted
from market.binance.rate_limit import CLOSED_IN_FLIGHT_S, Cost, Priority, RateBudget

WITHIN_S = 10.0


class SharedClock:
    """Seconds in a file."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT)

    def now_s(self) -> float:
        raw = os.pread(self._handle, 8, 0)
        return float(struct.unpack("d", raw)[0]) if raw else 0.0

    def advance(self, seconds: float) -> None:
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        os.pwrite(self._handle, struct.pack("d", self.now_s() + seconds), 0)
        fcntl.flock(self._handle, fcntl.LOCK_UN)


async def spend(folder: Path, seed: int, requests: int, weight: int, processes: int) -> list[tuple[float, int, str]]:
    random, clock = Random(seed), SharedClock(folder / "clock")
    # What is shown is the count: a machine that is busy must not let urgent requests pass without it.
    shared_window.LOCK_TRIES = 10_000

    async def sleep(seconds: float) -> None:
        # All processes wait at the same time, and each moves the clock.
        clock.advance(seconds / processes)

    budget = RateBudget(folder, "https://x", "a", weight=weight, now_s=clock.now_s, sleep=sleep)
    arrived: list[tuple[float, int, str]] = []
    for _ in range(requests):
        priority = random.choice(list(Priority))
        cost = Cost(weight=random.choice((1, 2, 5, 10, 20, 40)), orders_10s=1, orders_1m=1)
        begun = clock.now_s()
        try:
            admission = await budget.admit(cost, priority, within_s=WITHIN_S, patience_s=random.choice((0.0, 30.0)))
        except BudgetExhausted:
            continue
        reserved = clock.now_s()
        clock.advance(random.expovariate(4.0))
        at = random.uniform(reserved, clock.now_s())
        if at > begun + WITHIN_S + CLOSED_IN_FLIGHT_S:
            # Given up before it was sent.
            budget.not_sent(admission)
            continue
        arrived.append((at, cost.weight, priority.name))
        if random.random() < 0.9:
            budget.answered(admission, {})
    assert not budget.failures
    return arrived


if __name__ == "__main__":
    where, seed, requests, weight, processes = sys.argv[1:]
    print(json.dumps(asyncio.run(spend(Path(where), int(seed), int(requests), int(weight), int(processes)))))
