"""Trades as decision processes: worked by hand on candle tables, and what holds on any path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.barriers import EXPIRY, STOP, TARGET, VOID, CostModel, TradePlan
from features.candidates import candidates
from features.episodes import (
    CLOSE,
    END,
    HOLD,
    LONG,
    SHORT,
    Episodes,
    action_mask,
    episodes,
    liquidation_r,
    position_state,
)
from features.errors import SettingsUnusable
from features.history import DecisionHistory, decision_history
from features.labels import label_history
from market import funding
from market.bars import DAY_MS, Bars, from_columns
from tests.features.candle_tables import COSTLY, DECIDED, FREE, MINUTE, candles, charged
from tests.features.made_rows import made_rows, made_spec
from tests.features.series import START_MS, make_bars, make_market, uniforms
from tests.features.steady import steady

PLAN = TradePlan(stop_atr=1.5, target_atr=2.0, horizon_minutes=20)
"""Decided at 100 with an ATR of 2: a long has its stop at 97 and its target at 104, a short 103 and 96."""
SPEC = made_spec(())


def made_history(bars: Bars, rows: int = 5) -> DecisionHistory:
    """Decision rows every five minutes, the first an event at 100 with an ATR of 2; no other is a candidate."""
    time = DECIDED + np.arange(rows) * 5 * MINUTE
    at = np.minimum(np.searchsorted(bars["close_time"], time), bars.size - 1)
    close = np.where(time == DECIDED, 100.0, bars["close"][at])
    return DecisionHistory(
        symbols=("AUSDT",),
        spec=SPEC,
        time=time,
        symbol=np.zeros(rows, dtype=np.int32),
        decision=made_rows(SPEC, {"cusum_event": 1.0}, *[{}] * (rows - 1)),
        close=close,
        atr=np.full(rows, 2.0),
        ready=np.ones(rows, dtype=np.bool_),
        _bars=np.zeros((rows, 5), dtype=np.float32),
        _bar=np.arange(rows),
        _first=np.zeros(1, dtype=np.int64),
    )


def made(text: str, costs: CostModel = FREE, rates: funding.Fundings | None = None) -> Episodes:
    bars = candles(text)
    known = {} if rates is None else {"AUSDT": rates}
    return episodes(made_history(bars), {"AUSDT": bars}, known, PLAN, costs, every_bars=1)


CALM = "\n".join(f"{minute} 100 100.5 99.5 100" for minute in range(20))
"""Twenty minutes in which nothing happens."""
ROSE = """
    0  100   101   99.5  100.5
    1  100.5 101.5 100   101
    2  101   102   100.5 101
    3  101   102   100.5 101.5
    4  101.5 102   101   101.5
    5  101.6 102   101   101.8
    6  101.8 104.5 101.5 104
"""
"""Up to the long's target in the seventh minute: one close of 5m lies on the way, at 101.5."""


def test_a_long_and_a_short_through_one_rise() -> None:
    found = made(ROSE)
    assert len(found) == 1
    assert found.outcome.tolist() == [[TARGET, STOP]]
    assert found.r == pytest.approx(np.array([[4 / 3, -1.0]]))
    assert found.first.tolist() == [0, 1, 2]
    assert found.step_row.tolist() == [1, 1]
    assert found.step_bars.tolist() == [1.0, 1.0]
    assert found.step_mark == pytest.approx([1.5 / 3, -1.5 / 3])
    assert found.step_closed == pytest.approx([1.6 / 3, -1.6 / 3])
    # Long: 4.5 above its stop and 2.5 below its target, in ATR of 2; short: 1.5 below its stop, 5.5 above its target.
    expected = [[1, 0.5, 1, 2.25, 1.25], [-1, -0.5, 1, 0.75, 2.75]]
    assert found.step_position == pytest.approx(np.array(expected))
    assert found.known_at.tolist() == [DECIDED + 7 * MINUTE]


def test_its_transitions() -> None:
    steps = made(ROSE).transitions()
    assert steps.state.tolist() == [0, 0, 1, 2, 1, 2]
    assert steps.action.tolist() == [LONG, SHORT, HOLD, HOLD, CLOSE, CLOSE]
    assert steps.reward == pytest.approx([0.5, -0.5, 4 / 3 - 0.5, -0.5, 0.1 / 3, -0.1 / 3])
    assert steps.next.tolist() == [1, 2, END, END, END, END]
    assert steps.bars.tolist() == [1, 1, 0, 0, 0, 0]
    chosen = steps.select(np.array([2]))
    assert (len(chosen), chosen.next.tolist()) == (1, [END])


def test_costs_and_funding_by_hand() -> None:
    """A long of COSTLY: entered at 100.2, risk 3.2; two fundings of 1 % fall into the minutes 3 and 5."""
    found = made(CALM, COSTLY, charged((0, 0.05), (3, 0.01), (5, 0.01)))
    long = slice(found.first[0], found.first[1])
    # Closed at 100: 0.2 % against it is 99.8, the fee 0.1 % of 100.2 and of 99.8, one funding of 1 paid by minute 4.
    assert found.step_mark[long][0] == pytest.approx((-0.4 - 0.2 - 1.0) / 3.2)
    # At the open of minute 5 the second one is charged: the long was open before that minute began.
    assert found.step_closed[long][0] == pytest.approx((-0.4 - 0.2 - 2.0) / 3.2)
    # Expiry marks to market at 100, without spread or slippage; the funding of the minute of entry is never paid.
    assert found.outcome.tolist() == [[EXPIRY, EXPIRY]]
    assert found.r[0, 0] == pytest.approx((-0.2 - 0.2002 - 2.0) / 3.2)
    short = slice(found.first[1], found.first[2])
    # Entered at 99.8; closed at 100.2, and a short receives what a long pays.
    assert found.step_mark[short][0] == pytest.approx((-0.4 - 0.2 + 1.0) / 3.2)
    assert found.step_bars.tolist() == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("fifth", "long", "short"),
    [
        ("105 106 104.5 105", 4 / 3, -5 / 3),
        ("96 96.5 95 96", -4 / 3, 4 / 3),
        ("106 107 96 97", -1.0, -6 / 3),
    ],
)
def test_an_order_that_rests_comes_before_ours(fifth: str, long: float, short: float) -> None:
    """Held or closed, the trade ends the same when the next minute opens beyond a barrier."""
    found = made("\n".join([*CALM.splitlines()[:5], f"5 {fifth}"]))
    assert found.r == pytest.approx(np.array([[long, short]]))
    assert found.step_closed == pytest.approx([long, short])


def test_a_trade_that_ends_on_a_close_is_not_decided_there() -> None:
    found = made("\n".join([*CALM.splitlines()[:4], "4 100 104 96 100"]))
    assert found.outcome.tolist() == [[STOP, STOP]]
    assert found.step_row.size == 0
    steps = found.transitions()
    assert steps.reward.tolist() == [-1.0, -1.0]
    assert steps.next.tolist() == [END, END]


def test_what_was_never_taken_is_worth_nothing() -> None:
    found = made("0 96 97 90 92\n" + "\n".join(f"{minute} 92 93 90.5 92" for minute in range(1, 20)))
    assert found.outcome[0, 0] == VOID
    assert found.r[0, 0] == 0
    steps = found.transitions()
    assert steps.reward[0] == 0
    assert steps.next[0] == END


@pytest.mark.parametrize("missing", [2, 15])
def test_paths_that_were_not_seen_are_left_out(missing: int) -> None:
    lines = CALM.splitlines()
    assert len(made("\n".join(lines[:missing] + lines[missing + 1 :]))) == 0
    assert len(made("\n".join(lines[:missing]))) == 0
    assert len(made(CALM)) == 1


def test_decisions_are_as_far_apart_as_asked() -> None:
    bars = candles(CALM)
    found = episodes(made_history(bars), {"AUSDT": bars}, {}, PLAN, FREE, every_bars=2)
    assert found.step_bars.tolist() == [2, 2]
    with pytest.raises(SettingsUnusable, match="every_bars is 0"):
        episodes(made_history(bars), {"AUSDT": bars}, {}, PLAN, FREE, every_bars=0)


def test_a_decision_without_a_row_is_left_out_and_nothing_else() -> None:
    bars = candles(CALM)
    history = made_history(bars)
    kept = np.array([0, 1, 3, 4])
    holed = replace(
        history,
        **{name: getattr(history, name)[kept] for name in ("time", "symbol", "decision", "close", "atr", "ready")},
    )
    found = episodes(holed, {"AUSDT": bars}, {}, PLAN, COSTLY, every_bars=1)
    assert found.step_bars.tolist() == [1, 3, 1, 3]
    steps = found.transitions()
    assert steps.bars[:4].tolist() == [1, 1, 2, 0]
    assert steps.reward[[0, 2, 3]].sum() == pytest.approx(found.r[0, 0], abs=1e-12)


def test_masks_part_flat_from_open() -> None:
    mask = action_mask(np.array([0, 1, -1]))
    assert mask.sum(axis=1).tolist() == [3, 2, 2]
    assert (mask[0] ^ mask[1]).all()


def test_managing_closes_at_the_first_yes() -> None:
    found = made(CALM, COSTLY)
    assert np.array_equal(found.managed(np.zeros(6, dtype=bool)), found.r)
    second = np.array([False, True, True, False, False, False])
    assert found.managed(second)[0].tolist() == [found.step_closed[1], found.r[0, 1]]


paths = st.builds(
    make_bars,
    st.integers(40, 120),
    st.integers(0, 10_000),
    interval=st.just("1m"),
    step=st.sampled_from([0.0005, 0.002, 0.01]),
    start_ms=st.just(DECIDED + 1),
    price=st.sampled_from([100.0, 100.001]),
)
cost_models = st.builds(CostModel, st.floats(0, 10), st.floats(0, 4), st.floats(0, 4))


@steady
@given(paths, cost_models, st.floats(-0.003, 0.003), st.integers(1, 3), st.integers(10, 60))
def test_rewards_of_a_held_trade_add_up_to_what_it_gave(
    bars: Bars, costs: CostModel, rate: float, every: int, horizon: int
) -> None:
    times = bars["open_time"][::7] + 3
    rates = {"AUSDT": funding.from_columns(times, np.full(times.size, rate))}
    plan = TradePlan(1.5, 2.0, horizon)
    found = episodes(made_history(bars, 24), {"AUSDT": bars}, rates, plan, costs, every_bars=every)
    steps = found.transitions()
    for trade in range(2 * len(found)):
        mine = np.arange(found.first[trade], found.first[trade + 1])
        entry = np.flatnonzero(steps.action <= SHORT)[trade]
        held = 2 * len(found) + mine
        assert steps.reward[entry] + steps.reward[held].sum() == pytest.approx(found.r.reshape(-1)[trade], abs=1e-12)
        if mine.size:
            path = [steps.next[entry], *steps.next[held]]
            assert path == [*(len(found) + mine), END]
            # Closed at the first decision: the entry's reward and that of closing.
            closed = steps.reward[entry] + steps.reward[2 * len(found) + found.step_row.size + mine[0]]
            assert closed == pytest.approx(found.step_closed[mine[0]], abs=1e-12)


@steady
@given(paths, cost_models)
def test_an_open_trade_lies_between_its_barriers(bars: Bars, costs: CostModel) -> None:
    found = episodes(made_history(bars, 24), {"AUSDT": bars}, {}, TradePlan(1.5, 2.0, 60), costs, every_bars=1)
    if not found.step_row.size:
        return
    position = found.step_position
    assert (position[:, 3] > 0).all()
    assert (position[:, 4] > 0).all()
    assert (found.step_mark < 2.0 / 1.5 + 1e-9).all()
    assert (np.diff(found.step_bars)[np.diff(found.step_trade) == 0] == 1).all()


def test_the_whole_way_on_a_market_with_holes() -> None:
    """The trades are those of the labels, in R and outcome; what a decision knows is its own row's."""
    market = make_market(4, 60 * 24 * 6, seed=31)
    times = START_MS + np.arange(40) * 14_400_000 + 5
    rates = {symbol: funding.from_columns(times, uniforms(i, 40) * 0.002) for i, symbol in enumerate(market)}
    history = decision_history(market, rates)
    plan, costs = TradePlan(horizon_minutes=90), CostModel()
    found = episodes(history, market, rates, plan, costs, every_bars=3)
    labels = label_history(history, market, rates, plan, costs).labels
    place = {int(row): index for index, row in enumerate(found.row)}
    of_both = [label for label in labels if int(label["row"]) in place]
    assert len(of_both) > 0.9 * len(labels) > 100
    for label in of_both:
        index, side = place[int(label["row"])], 0 if label["direction"] > 0 else 1
        assert found.r[index, side] == label["r"]
        assert found.outcome[index, side] == label["outcome"]
    assert set(found.row) <= set(candidates(history.decision, history.spec, history.ready).index)
    assert (history.time[found.step_row] - found.decided_at[found.step_trade // 2] == found.step_bars * 300_000).all()
    assert (history.symbol[found.step_row] == found.symbol[found.step_trade // 2]).all()
    assert (found.step_bars * 300_000 < 90 * MINUTE).all()
    assert np.isfinite(found.step_mark).all()
    steps = found.transitions()
    assert (steps.state[:2] == 0).all()
    assert steps.next.max() < found.states
    # Every open state is reached once, by an entry or by holding.
    reached = steps.next[steps.next != END]
    assert np.array_equal(np.sort(reached), np.arange(len(found), found.states))


def test_cut_at_any_time_what_was_known_by_then_is_the_same() -> None:
    market = make_market(2, 60 * 24 * 5, seed=31)
    plan, costs = TradePlan(horizon_minutes=90), CostModel()
    whole = episodes(decision_history(market, {}), market, {}, plan, costs)
    until = START_MS + 4 * DAY_MS
    cut = {symbol: bars[bars["close_time"] < until] for symbol, bars in market.items()}
    early = episodes(decision_history(cut, {}), cut, {}, plan, costs)
    known = whole.select(np.flatnonzero(whole.known_at < until))
    assert len(early) > 50
    for name in vars(early):
        assert getattr(early, name).tobytes() == getattr(known, name).tobytes(), name


def test_selecting_keeps_trades_and_decisions_together() -> None:
    market = make_market(2, 60 * 24 * 5, seed=31)
    whole = episodes(decision_history(market, {}), market, {}, TradePlan(horizon_minutes=90), CostModel())
    chosen = np.array([7, 2, 11])
    part = whole.select(chosen)
    assert np.array_equal(part.r, whole.r[chosen])
    for index, source in enumerate(chosen):
        mine = slice(part.first[2 * index], part.first[2 * index + 2])
        other = slice(whole.first[2 * source], whole.first[2 * source + 2])
        assert np.array_equal(part.step_mark[mine], whole.step_mark[other])
    assert len(whole.select(np.array([], dtype=np.int64))) == 0


def test_live_positions_have_the_columns_of_history() -> None:
    """The same function, given what a worker knows of its position."""
    bars = candles(ROSE)
    found = made(ROSE, COSTLY)
    positions = PLAN.positions(0, [1], DECIDED, 100.0, 2.0)
    positions["opened_at"], positions["entry"], positions["risk"] = bars["open_time"][0], 100.2, 3.2
    mark = liquidation_r(positions, np.array([101.5]), np.zeros(1), COSTLY)
    columns = position_state(positions, mark, np.ones(1), np.array([101.5]), np.array([2.0]))
    assert columns == pytest.approx(found.step_position[:1])


def test_no_candidates_no_opportunities() -> None:
    bars = from_columns({name: [] for name in ("open_time", "open", "high", "low", "close", "volume")})
    empty = episodes(decision_history({"AUSDT": bars}, {}), {"AUSDT": bars}, {}, PLAN, FREE)
    assert len(empty) == empty.states == len(empty.transitions()) == 0
