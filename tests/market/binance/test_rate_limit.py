"""The budget that processes share: never over the limit, urgent requests first, silence when the venue wants it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance.error_codes import venue_error
from market.binance.errors import BudgetExhausted, IpBanned, OrdersLimited, RateLimited
from market.binance.rate_limit import BAN_S, FUNDING_5M, Cost, Priority, RateBudget, budget_for
from market.binance.rest import MarketDataClient
from market.binance.shared_window import Reservation, SharedWindow, WindowUnusable
from tests.market.binance.venue import served

HOST = "https://fapi.binance.com"
ROOT = Path(__file__).parents[3]


class Time:
    """A clock that stands until it is slept by."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def budget_of(folder: Path, clock: Time, weight: int = 100) -> RateBudget:
    return RateBudget(folder, HOST, "account", weight=weight, now_s=clock, sleep=clock.sleep)


def most_in_any_span(arrivals: list[tuple[float, int]], span_s: float) -> int:
    """The largest sum over all half-open spans of that length."""
    ordered, most, first, total = sorted(arrivals), 0, 0, 0
    for at, amount in ordered:
        total += amount
        while ordered[first][0] <= at - span_s:
            total -= ordered[first][1]
            first += 1
        most = max(most, total)
    return most


steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # which process
        st.integers(1, 40),  # what it costs
        st.floats(0, 20),  # how long it is under way until the answer
        st.floats(0, 1),  # when within that it arrives
        st.floats(0, 15),  # how long until the next
        st.booleans(),  # whether an answer comes
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_never_over_the_limit_whenever_requests_arrive(plan: list[tuple[int, int, float, float, float, bool]]) -> None:
    clock, limit = Time(), 100
    with TemporaryDirectory() as name:
        windows = [SharedWindow(Path(name) / "w", limit, 60.0, clock) for _ in range(3)]
        open_: list[tuple[float, SharedWindow, Reservation]] = []
        arrivals: list[tuple[float, int]] = []
        for which, cost, under_way, share, pause, answered in plan:
            taken = windows[which].take(cost, limit, 20.0)
            if isinstance(taken, Reservation):
                arrivals.append((clock.now_s + share * under_way, cost))
                if answered:
                    open_.append((clock.now_s + under_way, windows[which], taken))
            else:
                assert taken > 0
            target = clock.now_s + pause
            for due in sorted((each for each in open_ if each[0] <= target), key=lambda each: each[0]):
                clock.now_s = max(clock.now_s, due[0])
                due[1].settle(due[2])
                open_.remove(due)
            clock.now_s = target
        assert most_in_any_span(arrivals, 60.0) <= limit


@pytest.mark.parametrize("seed", [1, 2])
def test_never_over_the_limit_with_several_processes(tmp_path: Path, seed: int) -> None:
    weight, processes = 300, 3
    command = [sys.executable, "-m", "tests.market.binance.spender", str(tmp_path)]
    running = [
        subprocess.Popen(
            [*command, str(seed * 10 + i), "150", str(weight), str(processes)], stdout=subprocess.PIPE, cwd=ROOT
        )
        for i in range(processes)
    ]
    arrived = [tuple(row) for process in running for row in json.loads(process.communicate(timeout=60)[0])]
    assert all(process.returncode == 0 for process in running)
    assert len(arrived) > 100
    by_time = [(at, cost) for at, cost, _ in arrived]
    most = most_in_any_span(by_time, 60.0)
    assert most <= weight
    assert most > weight // 2, "the limit was approached, or nothing was shown"
    assert most_in_any_span([(at, 1) for at, _ in by_time], 10.0) <= 300
    backfill = [(at, cost) for at, cost, priority in arrived if priority == Priority.BACKFILL.name]
    assert most_in_any_span(backfill, 60.0) <= weight * Priority.BACKFILL.value


async def test_the_less_urgent_leave_room_for_the_more_urgent(tmp_path: Path) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    allowed = {}
    for priority in reversed(Priority):
        count = 0
        while True:
            try:
                await budget.admit(Cost(), priority, within_s=5.0, patience_s=0.0)
            except BudgetExhausted:
                break
            count += 1
        allowed[priority] = count
    assert list(allowed.values()) == [50, 30, 10, 5, 5]
    with pytest.raises(BudgetExhausted):
        await budget.admit(Cost(), Priority.ORDERS, within_s=5.0, patience_s=0.0)


async def test_who_waits_gets_room_when_the_span_has_passed(tmp_path: Path) -> None:
    clock = Time()
    budget, other = budget_of(tmp_path, clock), budget_of(tmp_path, clock)
    admission = await budget.admit(Cost(weight=100), Priority.ORDERS, within_s=5.0, patience_s=0.0)
    budget.answered(admission, {})
    begun = clock.now_s
    await other.admit(Cost(weight=50), Priority.BACKFILL, within_s=5.0, patience_s=90.0)
    assert 60.0 <= clock.now_s - begun <= 62.0
    assert other.waited_s == pytest.approx(clock.now_s - begun)
    with pytest.raises(BudgetExhausted, match="weight has no room"):
        await other.admit(Cost(weight=60), Priority.LIVE_DATA, within_s=5.0, patience_s=10.0)
    assert clock.now_s - begun <= 73.0


async def test_orders_and_fundings_are_counted_too_and_nothing_is_kept_of_what_was_not_admitted(tmp_path: Path) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    for _ in range(285):
        budget.answered(await budget.admit(Cost(0, 1, 1), Priority.ENTRIES, within_s=1.0, patience_s=0.0), {})
    with pytest.raises(BudgetExhausted, match="ten seconds"):
        await budget.admit(Cost(1, 1, 1), Priority.ENTRIES, within_s=1.0, patience_s=0.0)
    assert (budget.weight.count(), budget.orders_10s.count()) == (0, 285)
    await budget.admit(Cost(0, 1, 1), Priority.ORDERS, within_s=1.0, patience_s=0.0)
    for _ in range(FUNDING_5M // 2):
        budget.funding.take(1, FUNDING_5M, 1.0)
    with pytest.raises(BudgetExhausted, match="fundings"):
        await budget.admit(Cost(1, funding=1), Priority.BACKFILL, within_s=1.0, patience_s=0.0)


async def test_the_venues_own_count_is_believed_when_it_is_higher(tmp_path: Path) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    admission = await budget.admit(Cost(), Priority.LIVE_DATA, within_s=5.0, patience_s=0.0)
    budget.answered(admission, {"X-MBX-USED-WEIGHT-1M": "70", "X-MBX-ORDER-COUNT-10S": "9"})
    assert (budget.weight.count(), budget.orders_10s.count()) == (70, 9)
    with pytest.raises(BudgetExhausted):
        await budget.admit(Cost(), Priority.BACKFILL, within_s=5.0, patience_s=0.0)
    for headers in ({"X-MBX-USED-WEIGHT-1M": "2"}, {"X-MBX-USED-WEIGHT-1M": "much"}, {}):
        budget.answered(admission, headers)
        assert budget.weight.count() == 70
    ticker = await budget.admit(Cost(1, told=False), Priority.LIVE_DATA, within_s=5.0, patience_s=0.0)
    budget.answered(ticker, {"X-MBX-USED-WEIGHT-1M": "99"})
    assert budget.weight.count() == 71


async def test_after_429_every_process_is_silent_until_it_is_over(tmp_path: Path) -> None:
    clock = Time()
    budget, other = budget_of(tmp_path, clock), budget_of(tmp_path, clock)
    error = venue_error(429, -1003, "Too many requests", 7.0)
    assert isinstance(error, RateLimited)
    budget.refused(error, None)
    for priority in Priority:
        with pytest.raises(RateLimited) as caught:
            await other.admit(Cost(0), priority, within_s=1.0, patience_s=0.0)
        assert caught.value.retry_after_s == pytest.approx(7.0)
    begun = clock.now_s
    await other.admit(Cost(), Priority.BACKFILL, within_s=1.0, patience_s=30.0)
    assert clock.now_s - begun == pytest.approx(7.0, abs=0.01)


@pytest.mark.parametrize(
    ("told", "span_s"),
    [
        ("Too many new orders; current limit is 300 orders per 10 SECOND.", 10.0),
        ("Too many new orders; current limit is 300 orders per 10S.", 10.0),
        ("Too many new orders; current limit is 1200 orders per MINUTE.", 60.0),
        ("Too many new orders; current limit is 1200 orders per 1M.", 60.0),
    ],
)
@pytest.mark.parametrize("retry_after_s", [None, 4.0])
async def test_too_many_orders_hold_up_that_accounts_orders_and_nothing_else(
    tmp_path: Path, told: str, span_s: float, retry_after_s: float | None
) -> None:
    clock = Time()
    ours, sibling = budget_of(tmp_path, clock), budget_of(tmp_path, clock)
    others = RateBudget(tmp_path, HOST, "another", now_s=clock, sleep=clock.sleep)
    reader = RateBudget(tmp_path, HOST, now_s=clock, sleep=clock.sleep)
    error = venue_error(429, -1015, told, retry_after_s)
    assert isinstance(error, OrdersLimited)
    ours.refused(error, None)
    order = Cost(0, 1, 1)
    for budget in (ours, sibling):
        for priority in (Priority.ORDERS, Priority.ENTRIES):
            with pytest.raises(OrdersLimited) as caught:
                await budget.admit(order, priority, within_s=10.0, patience_s=2.0)
            assert caught.value.retry_after_s == pytest.approx(retry_after_s or span_s)
        await budget.admit(Cost(), Priority.ORDERS, within_s=10.0, patience_s=0.0)
    await others.admit(order, Priority.ENTRIES, within_s=10.0, patience_s=0.0)
    await reader.admit(Cost(), Priority.BACKFILL, within_s=10.0, patience_s=0.0)
    clock.now_s += retry_after_s or span_s
    await sibling.admit(order, Priority.ENTRIES, within_s=10.0, patience_s=0.0)


async def test_a_ban_lasts_until_the_venue_says_and_grows_when_it_does_not(tmp_path: Path) -> None:
    clock = Time()
    budget, other = budget_of(tmp_path, clock), budget_of(tmp_path, clock)
    venue_ms = 1_767_657_600_000.0
    told = venue_error(418, -1003, "Way too many requests; IP banned until 1767657700000.")
    assert isinstance(told, IpBanned)
    budget.refused(told, venue_ms)
    with pytest.raises(IpBanned) as caught:
        await other.admit(Cost(), Priority.ORDERS, within_s=1.0, patience_s=30.0)
    assert caught.value.retry_after_s == pytest.approx(100.0)
    clock.now_s += 100.0
    await other.admit(Cost(), Priority.ORDERS, within_s=1.0, patience_s=0.0)
    silent = venue_error(418, -1003, "no time")
    assert isinstance(silent, IpBanned)
    for doubled in (2, 4):
        budget.refused(silent, None)
        block = other.weight.blocked()
        assert block is not None
        assert block.until_s - clock.now_s == pytest.approx(BAN_S * doubled)
        clock.now_s = block.until_s


def test_wall_time_that_is_set_back_blocks_for_one_span_at_most(tmp_path: Path) -> None:
    clock = Time()
    window = SharedWindow(tmp_path / "w", 10, 60.0, clock)
    window.take(10, 10, 1.0)
    clock.now_s -= 86_400.0
    assert isinstance(window.take(1, 10, 1.0), float)
    clock.now_s += 62.0
    assert isinstance(window.take(1, 10, 1.0), Reservation)


def test_what_can_never_be_is_said_at_once(tmp_path: Path) -> None:
    window = SharedWindow(tmp_path / "w", 10, 60.0, Time())
    with pytest.raises(WindowUnusable, match="11"):
        window.take(11, 10, 1.0)
    with pytest.raises(ValueError, match="120"):
        window.take(1, 10, 121.0)


async def test_the_venues_own_limits_are_taken(tmp_path: Path) -> None:
    limits = [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 0},
        {"rateLimitType": "SOMETHING_NEW", "interval": "DAY", "intervalNum": 1, "limit": 5},
    ]
    async with served() as (venue, _, _pauses), aiohttp.ClientSession() as session:
        venue.answers["GET /fapi/v1/exchangeInfo"] = {"symbols": [], "rateLimits": limits}
        budget = RateBudget(tmp_path, venue.url)
        await MarketDataClient(venue.url, session, budget=budget).exchange_info()
        assert (budget.weight.limit, budget.orders_10s.limit, budget.orders_1m.limit) == (6000, 300, 1200)
        assert budget.weight.count() == 1


def test_a_simulator_on_this_machine_has_no_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERPFORGE_LIMITS_DIR", str(tmp_path / "limits"))
    assert budget_for("http://127.0.0.1:8080") is None
    assert budget_for("http://localhost:8080") is None
    found = budget_for(HOST, "account")
    assert found is not None
    assert found.weight.path == tmp_path / "limits" / "weight-fapi.binance.com.json"
