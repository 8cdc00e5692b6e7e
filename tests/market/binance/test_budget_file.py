"""The file of the budget that is torn, locked or cannot be written: only what reduces risk goes on."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market.binance import shared_window
from market.binance.errors import BudgetExhausted, RateLimited
from market.binance.rate_limit import Cost, Priority, RateBudget
from market.binance.shared_window import Reservation, SharedWindow
from tests.market.binance.test_rate_limit import Time, budget_of


async def test_when_what_was_spent_is_not_known_only_what_reduces_risk_has_room(tmp_path: Path) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    for content in (b"\x00\xff", b"{", b'{"slots":{"x":1}}', b"[]", b'{"slots":{}}}'):
        budget.weight.path.write_bytes(content)
        for priority in set(Priority) - {Priority.ORDERS}:
            with pytest.raises(BudgetExhausted):
                await budget.admit(Cost(), priority, within_s=1.0, patience_s=0.0)
        await budget.admit(Cost(), Priority.ORDERS, within_s=1.0, patience_s=0.0)
        clock.now_s += 62.0
        await budget.admit(Cost(), Priority.BACKFILL, within_s=1.0, patience_s=0.0)
        clock.now_s += 80.0
    assert budget.failures == {}


def fail_writing(budget: RateBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full."""
    budget.weight.observe(7)

    def full(handle: int, content: bytes, place: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)


def put_a_folder_there(budget: RateBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    budget.weight.path.mkdir(parents=True)
    for window in (budget.orders_10s, budget.orders_1m):
        window.path.mkdir(parents=True)


def hold_the_lock(budget: RateBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped while it held it."""
    monkeypatch.setattr(shared_window, "LOCK_PAUSE_S", 0.0)
    for window in (budget.weight, budget.orders_10s, budget.orders_1m):
        held = window.path.open("ab")
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(budget, f"_held_{window.path.name}", held, raising=False)


@pytest.mark.parametrize("trouble", [fail_writing, put_a_folder_there, hold_the_lock])
async def test_a_file_that_cannot_be_used_holds_up_all_but_what_reduces_risk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[RateBudget, pytest.MonkeyPatch], None]
) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    trouble(budget, monkeypatch)
    for priority in set(Priority) - {Priority.ORDERS}:
        with pytest.raises(BudgetExhausted, match="cannot be kept"):
            await budget.admit(Cost(1, 1, 1), priority, within_s=1.0, patience_s=2.0)
    assert budget.failures.get("sent uncounted", 0) == 0
    admission = await budget.admit(Cost(1, 1, 1), Priority.ORDERS, within_s=1.0, patience_s=2.0)
    assert budget.failures["sent uncounted"] == 3
    assert "cannot be kept" in str(budget.failure)
    budget.answered(admission, {"X-MBX-USED-WEIGHT-1M": "44"})
    # What the venue has said holds for this process even so.
    budget.refused(RateLimited(429, -1003, "Too many requests", 7.0), None)
    with pytest.raises(RateLimited, match="7 s more"):
        await budget.admit(Cost(), Priority.ORDERS, within_s=1.0, patience_s=2.0)


async def test_a_file_that_can_be_used_again_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Time()
    budget = budget_of(tmp_path, clock)
    with monkeypatch.context() as patch:
        fail_writing(budget, patch)
        await budget.admit(Cost(), Priority.ORDERS, within_s=1.0, patience_s=0.0)
    assert budget.failure is not None
    await budget.admit(Cost(), Priority.LIVE_DATA, within_s=1.0, patience_s=0.0)
    assert budget.failure is None
    assert budget.weight.count() == 8, "what was counted before the disk was full is not lost"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.one_of(st.none(), st.integers(0, 200))), max_size=12))
def test_whoever_dies_while_writing_leaves_the_count_before(plan: list[tuple[int, int | None]]) -> None:
    """The writer is killed after so many bytes, or not at all."""
    counted, write = 0, os.pwrite
    with TemporaryDirectory() as name:
        window = SharedWindow(Path(name) / "w", 1000, 60.0, Time())
        for amount, most in plan:

            def cut(handle: int, content: bytes, place: int, most: int | None = most) -> int:
                write(handle, content[:most], place)
                if most is not None and most < len(content):
                    raise KeyboardInterrupt
                return len(content)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "pwrite", cut)
                with suppress(KeyboardInterrupt):
                    window.take(amount, 1000, 1.0)
            # The very first writing may leave nothing whole: then little is left to be spent.
            assert window.count() in ({counted, counted + amount} if counted else {0, amount, 950})
            counted = window.count()


async def test_a_request_that_no_limit_has_room_for_is_told_so(tmp_path: Path) -> None:
    budget = budget_of(tmp_path, Time())
    budget.set_limits(20, 300, 1200)
    with pytest.raises(BudgetExhausted, match="a limit of 20, and one request counts as 30"):
        await budget.admit(Cost(30), Priority.RECONCILE, within_s=10.0, patience_s=2.0)


def test_an_answer_that_comes_later_than_was_reserved_is_counted_when_it_comes(tmp_path: Path) -> None:
    """A process that stood still between reserving and sending."""
    clock = Time()
    window = SharedWindow(tmp_path / "w", 10, 60.0, clock)
    for stood in (20.0, 90.0):
        taken = window.take(10, 10, 5.0)
        assert isinstance(taken, Reservation)
        clock.now_s += stood
        window.settle(taken)
        clock.now_s += 59.0
        assert window.count() == 10
        clock.now_s += 3.0
        assert window.count() == 0
