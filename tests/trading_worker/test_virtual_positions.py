"""Virtual positions: what bars decide, what ticks say beside it, and the arrays that hold both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.barriers import EXPIRY, OPEN, STOP, TARGET, CostModel, TradePlan, run
from market import funding as fundings
from market.bars import BAR, MINUTE_MS, Bars
from tests.trading_worker.markets import bar
from trading_worker.events import (
    AnyEvent,
    PositionClosed,
    PositionLost,
    PositionOpened,
    PositionVoided,
    Signal,
    canonical,
)
from trading_worker.virtual_positions import Key, VirtualPositions

FREE = CostModel(fee_bps=0, spread_bps=0, slippage_bps=0)
DECIDED = 5 * MINUTE_MS - 1
SYMBOLS = ("AAA", "BBB", "CCC")


def signal(symbol: str = "AAA", direction: int = 1, decided_at: int = DECIDED, **changes: Any) -> Signal:
    """A signal at 100 with its stop 3 away and its target 4 away, for 4 hours."""
    values: dict[str, Any] = {
        "time_ms": decided_at, "position_id": f"{symbol}-{decided_at}-{direction}", "symbol": symbol, "strategy": "ict",
        "direction": direction, "kind": 1, "reference": 100.0, "atr": 2.0, "stop": 100.0 - 3 * direction,
        "target": 100.0 + 4 * direction, "expiry_ms": decided_at + 240 * MINUTE_MS, "confidence": 0.5, "quality": 0.75,
        "reconstruction_error": None, "bundle": "7", "decision_spec": "d", "fallbacks": (),
    }  # fmt: skip
    return Signal(**{**values, **changes})


def follow(*signals: Signal, costs: CostModel = FREE, **options: Any) -> VirtualPositions:
    positions = VirtualPositions(SYMBOLS, costs, **options)
    for each in signals:
        positions.add(each)
    return positions


def minute(
    positions: VirtualPositions, number: int, bars: dict[str, tuple[float, float, float, float]], rate: float = np.nan
) -> list[AnyEvent]:
    """Minute `number` after the decision with (open, high, low, close) of some symbols; funding at `rate` for all."""
    open_time = DECIDED + 1 + number * MINUTE_MS
    rows = sorted(SYMBOLS.index(symbol) for symbol in bars)
    made = np.array([bar(open_time, *bars[SYMBOLS[row]]) for row in rows], dtype=BAR)
    return positions.advance(
        open_time + MINUTE_MS - 1, np.array(rows, dtype=np.int64), made, np.full(len(SYMBOLS), rate)
    )


QUIET = (100.0, 101.0, 99.0, 100.0)


def test_a_signal_enters_at_the_next_open_and_wins_at_its_target() -> None:
    positions = follow(signal())
    (opened,) = minute(positions, 0, {"AAA": QUIET})
    assert isinstance(opened, PositionOpened)
    assert (opened.entry, opened.risk, opened.opened_at) == (100.0, 3.0, DECIDED + 1)
    (closed,) = minute(positions, 1, {"AAA": (100.0, 104.5, 98.0, 104.0)})
    assert isinstance(closed, PositionClosed)
    assert (closed.outcome, closed.exit_price, closed.known_at) == (TARGET, 104.0, DECIDED + 2 * MINUTE_MS)
    assert (closed.r, closed.best, closed.worst) == pytest.approx((4 / 3, 4 / 3, -2 / 3))
    assert (closed.quality, closed.confidence, closed.bundle, closed.kind) == (0.75, 0.5, "7", 1)
    assert len(positions) == 0


@pytest.mark.parametrize("direction", [1, -1])
def test_one_bar_that_touches_both_is_a_stop(direction: int) -> None:
    positions = follow(signal(direction=direction))
    opened, closed = minute(positions, 0, {"AAA": (100.0, 110.0, 90.0, 100.0)})
    assert isinstance(opened, PositionOpened)
    assert isinstance(closed, PositionClosed)
    assert (closed.outcome, closed.r) == (STOP, pytest.approx(-1.0))


def test_expiry_marks_to_market() -> None:
    positions = follow(signal(expiry_ms=DECIDED + 2 * MINUTE_MS))
    minute(positions, 0, {"AAA": QUIET})
    (closed,) = minute(positions, 1, {"AAA": (100.0, 102.0, 100.0, 101.5)})
    assert isinstance(closed, PositionClosed)
    assert (closed.outcome, closed.exit_price, closed.r) == (EXPIRY, 101.5, pytest.approx(0.5))


@pytest.mark.parametrize("open_", [96.0, 105.0])
def test_an_open_beyond_stop_or_target_was_never_taken(open_: float) -> None:
    positions = follow(signal())
    (voided,) = minute(positions, 0, {"AAA": (open_, open_ + 1, open_ - 1, open_)})
    assert isinstance(voided, PositionVoided)
    assert voided.open == open_
    assert len(positions) == 0


def test_a_missing_minute_loses_sight_of_the_position() -> None:
    positions = follow(signal())
    minute(positions, 0, {"AAA": QUIET})
    assert minute(positions, 1, {"BBB": QUIET}) == []
    (lost,) = minute(positions, 2, {"AAA": QUIET})
    assert isinstance(lost, PositionLost)
    assert lost.last_seen == DECIDED + MINUTE_MS


def test_a_symbol_that_stays_silent_is_given_up_after_its_grace() -> None:
    positions = follow(signal(), grace_ms=10 * MINUTE_MS)
    end = DECIDED + 250 * MINUTE_MS
    assert positions.lose_silent(end) == []
    (lost,) = positions.lose_silent(end + MINUTE_MS)
    assert isinstance(lost, PositionLost)
    assert lost.opened_at == 0
    assert len(positions) == 0


def test_funding_is_paid_by_what_was_open_before() -> None:
    positions = follow(signal(), signal("BBB", direction=-1))
    minute(positions, 0, {"AAA": QUIET, "BBB": QUIET}, rate=0.01)
    minute(positions, 1, {"AAA": QUIET, "BBB": QUIET}, rate=0.01)
    up = (100.0, 105.0, 99.0, 100.0)
    down = (100.0, 101.0, 95.0, 100.0)
    long_, short = minute(positions, 2, {"AAA": up, "BBB": down})
    assert isinstance(long_, PositionClosed)
    assert isinstance(short, PositionClosed)
    assert (long_.funding, short.funding) == (1.0, -1.0)
    assert (long_.r, short.r) == pytest.approx((1.0, 5 / 3))


def test_costs_make_the_entry_worse_and_the_result_smaller() -> None:
    positions = follow(signal(), costs=CostModel())
    (opened,) = minute(positions, 0, {"AAA": QUIET})
    assert isinstance(opened, PositionOpened)
    assert opened.entry == pytest.approx(100.0 * 1.00015)
    (closed,) = minute(positions, 1, {"AAA": (100.0, 105.0, 99.0, 104.0)})
    assert isinstance(closed, PositionClosed)
    assert closed.r < (closed.exit_price - closed.entry) / opened.risk < 4 / 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_position_keeps_the_costs_that_it_was_added_with(restarted: bool) -> None:
    up = (100.0, 105.0, 99.0, 104.0)
    alone = {}
    for costs in (FREE, CostModel()):
        positions = follow(signal("AAA"), signal("BBB"), costs=costs)
        opened = minute(positions, 0, {"AAA": QUIET, "BBB": QUIET})
        alone[costs] = [*opened, *minute(positions, 1, {"AAA": up, "BBB": up})]
    mixed = follow(signal("BBB"), costs=CostModel())
    mixed.costs = FREE
    mixed.add(signal("AAA"))
    opened = minute(mixed, 0, {"AAA": QUIET, "BBB": QUIET})
    if restarted:
        table, mixed = mixed.table(), VirtualPositions(SYMBOLS, CostModel(50.0, 50.0, 50.0))
        mixed.load(table)
    events = [*opened, *minute(mixed, 1, {"AAA": up, "BBB": up})]
    free, dear = alone[FREE], alone[CostModel()]
    wanted = [free[0], dear[1], free[2], dear[3]]
    assert [canonical(event) for event in events] == [canonical(event) for event in wanted]
    assert canonical(free[3]) != canonical(dear[3])


def test_events_come_in_order_of_symbol_time_and_direction() -> None:
    later = DECIDED + 5 * MINUTE_MS
    wanted = [Key(0, later, -1), Key(0, later, 1), Key(1, later, 1), Key(2, later, -1)]
    positions = VirtualPositions(SYMBOLS, FREE)
    for key in (wanted[2], wanted[1], wanted[3], wanted[0]):
        positions.add(signal(SYMBOLS[key.row], key.direction, later))
    opened = minute(positions, 5, dict.fromkeys(SYMBOLS, QUIET))
    assert [(event.symbol, event.direction) for event in opened if isinstance(event, PositionOpened)] == [
        (SYMBOLS[key.row], key.direction) for key in wanted
    ]


def test_slots_are_used_again_and_the_arrays_grow_when_they_must() -> None:
    positions = VirtualPositions(SYMBOLS, FREE)
    for turn in range(50):
        for number in range(20):
            positions.add(signal(decided_at=turn * 1000 + number))
        assert positions.open_count.tolist() == [[20, 0], [0, 0], [0, 0]]
        for number in range(20):
            positions.remove(Key(0, turn * 1000 + number, 1))
    assert (len(positions), positions._position.size) == (0, 256)
    for number in range(300):
        positions.add(signal(decided_at=number))
    assert (len(positions), positions._position.size) == (300, 512)
    assert positions.open_count[0, 0] == 300


def test_a_position_is_followed_once() -> None:
    positions = follow(signal())
    with pytest.raises(ValueError, match="AAA-299999-1 is followed already"):
        positions.add(signal())
    positions.remove(Key(2, 1, 1))


def tick(positions: VirtualPositions, at_ms: int, price: float, symbol: str = "AAA") -> None:
    positions.on_prices(at_ms, np.array([SYMBOLS.index(symbol)]), np.array([price]))


def close_at_target(positions: VirtualPositions) -> PositionClosed:
    (closed,) = minute(positions, 1, {"AAA": (100.0, 104.5, 98.0, 104.0)})
    assert isinstance(closed, PositionClosed)
    return closed


def test_ticks_that_agree_are_kept_beside_the_outcome() -> None:
    positions = follow(signal())
    tick(positions, DECIDED, 50.0)  # at the decision: no price of the position's time
    tick(positions, DECIDED + 30_000, 98.5)
    minute(positions, 0, {"AAA": QUIET})
    tick(positions, DECIDED + 80_000, 104.2)
    tick(positions, DECIDED + 90_000, 50.0)  # after the touch: it would have been closed
    closed = close_at_target(positions)
    assert (closed.ticks_outcome, closed.ticks_touched_at, closed.ticks_disagree) == (TARGET, DECIDED + 80_000, False)
    assert (closed.ticks_best, closed.ticks_worst) == pytest.approx((1.4, -0.5))


def test_ticks_that_saw_the_other_order_disagree_and_decide_nothing() -> None:
    positions = follow(signal())
    minute(positions, 0, {"AAA": QUIET})
    tick(positions, DECIDED + 70_000, 104.0)
    tick(positions, DECIDED + 80_000, 97.0)
    (closed,) = minute(positions, 1, {"AAA": (100.0, 104.0, 97.0, 100.0)})
    assert isinstance(closed, PositionClosed)
    assert (closed.outcome, closed.ticks_outcome, closed.ticks_disagree) == (STOP, TARGET, True)


def test_a_touch_after_the_deciding_bar_is_no_touch() -> None:
    positions = follow(signal(expiry_ms=DECIDED + 2 * MINUTE_MS))
    minute(positions, 0, {"AAA": QUIET})
    tick(positions, DECIDED + 70_000, 100.0)
    tick(positions, DECIDED + 2 * MINUTE_MS + 500, 104.0)
    (closed,) = minute(positions, 1, {"AAA": QUIET})
    assert isinstance(closed, PositionClosed)
    assert (closed.outcome, closed.ticks_outcome, closed.ticks_touched_at, closed.ticks_disagree) == (
        EXPIRY,
        OPEN,
        None,
        False,
    )


def test_without_ticks_or_after_a_restart_they_say_nothing() -> None:
    silent = follow(signal())
    minute(silent, 0, {"AAA": QUIET})
    assert close_at_target(silent).ticks_disagree is None
    before = follow(signal())
    minute(before, 0, {"AAA": QUIET})
    tick(before, DECIDED + 70_000, 99.0)
    after = VirtualPositions(SYMBOLS, FREE)
    after.load(before.table())
    tick(after, DECIDED + 80_000, 104.0)
    closed = close_at_target(after)
    assert (closed.ticks_outcome, closed.ticks_best, closed.ticks_disagree) == (None, None, None)
    assert canonical(closed) == canonical(close_at_target(before)), "ticks are no part of what happened"


def test_a_price_reaches_the_positions_of_its_symbol_only() -> None:
    positions = follow(signal(), signal("BBB"), signal("BBB", -1))
    minute(positions, 0, dict.fromkeys(SYMBOLS, QUIET))
    positions.on_prices(DECIDED + 70_000, np.array([1, 2, 1]), np.array([101.0, 90.0, 104.0]))
    table = positions.table()
    assert table.detail["ticks"].tolist() == [0, 2, 2]
    assert table.detail["tick_outcome"].tolist() == [OPEN, STOP, TARGET]


def random_walk(seed: int, minutes: int) -> Bars:
    dice = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(dice.normal(0, 0.006, minutes)))
    opens = np.concatenate(([100.0], closes[:-1])) * np.exp(dice.normal(0, 0.001, minutes))
    spread = np.abs(dice.normal(0, 0.004, minutes))
    bars = np.zeros(minutes, dtype=BAR)
    bars["open_time"] = DECIDED + 1 + np.arange(minutes) * MINUTE_MS
    bars["close_time"] = bars["open_time"] + MINUTE_MS - 1
    bars["open"], bars["close"] = opens, closes
    bars["high"], bars["low"] = np.maximum(opens, closes) * (1 + spread), np.minimum(opens, closes) * (1 - spread)
    return bars[dice.random(minutes) > 0.002]


def signals_on(bars: Bars, seed: int) -> list[Signal]:
    """A signal in a random direction at every seventh bar."""
    dice = np.random.default_rng(seed)
    made = []
    for each in bars[6::7]:
        close, direction = float(each["close"]), int(dice.choice([-1, 1]))
        stop, target = TradePlan().levels(close, close * 0.01, direction)
        made.append(
            signal(
                "BBB",
                direction,
                int(each["close_time"]),
                stop=stop,
                target=target,
                expiry_ms=int(each["close_time"]) + 90 * MINUTE_MS,
            )
        )
    return made


def live(bars: Bars, signals: list[Signal], restarts: set[int]) -> list[AnyEvent]:
    """Minute by minute, and written down and taken up again after the bars in `restarts`."""
    due = {each.time_ms: each for each in signals}
    positions = VirtualPositions(SYMBOLS, CostModel())
    events: list[AnyEvent] = []
    for index in range(bars.size):
        close_time = int(bars["close_time"][index])
        rate = np.full(3, 0.0001 if index % 60 == 0 else np.nan)
        events += positions.advance(close_time, np.array([1]), bars[index : index + 1], rate)
        if close_time in due:
            positions.add(due[close_time])
        if index in restarts:
            after = VirtualPositions(SYMBOLS, CostModel())
            after.load(positions.table())
            positions = after
    return events


@given(seed=st.integers(0, 10_000), restarts=st.sets(st.integers(0, 400), max_size=6))
@settings(max_examples=25, deadline=None)
def test_live_ends_every_position_as_history_does_however_often_it_restarts(seed: int, restarts: set[int]) -> None:
    bars = random_walk(seed, 400)
    signals = signals_on(bars, seed)
    events = live(bars, signals, restarts)
    assert events == live(bars, signals, set())

    rows = TradePlan().positions(1, [s.direction for s in signals], [s.time_ms for s in signals], 100.0, 1.0)
    for name in ("stop", "target", "expiry_ms"):
        rows[name] = [getattr(each, name) for each in signals]
    charged = fundings.from_columns(bars["open_time"][::60], np.full(bars["open_time"][::60].size, 0.0001))
    run(rows, bars, charged, CostModel())
    ended = {event.decided_at: event for event in events if isinstance(event, PositionClosed)}
    assert len(ended) == int(np.isin(rows["outcome"], (TARGET, STOP, EXPIRY)).sum())
    for row in rows[np.isin(rows["outcome"], (TARGET, STOP, EXPIRY))]:
        event = ended[int(row["decided_at"])]
        for name in ("outcome", "entry", "exit_price", "r", "best", "worst", "funding", "opened_at"):
            assert getattr(event, name) == row[name], name
        assert event.known_at == row["exit_time"]
