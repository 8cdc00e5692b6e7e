"""What holds of every trade, whatever the path."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.barriers import EXPIRY, OPEN, STOP, TARGET, UNKNOWN, VOID, CostModel, Positions, TradePlan, advance, run
from market import funding
from market.bars import Bars
from tests.features.series import make_bars
from tests.features.steady import steady

MINUTE = 60_000

paths = st.builds(
    make_bars,
    st.integers(20, 90),
    st.integers(0, 10_000),
    interval=st.just("1m"),
    step=st.sampled_from([0.0005, 0.002, 0.01]),
    missing=st.lists(st.integers(3, 19), max_size=1),
)
plans = st.builds(TradePlan, st.floats(0.5, 4), st.floats(0.5, 4), st.integers(1, 60))
cost_models = st.builds(CostModel, st.floats(0, 10), st.floats(0, 4), st.floats(0, 4))
free = CostModel(0, 0, 0)


def decide(bars: Bars, plan: TradePlan, at: int = 1) -> Positions:
    """A long and a short decided at bar `at`, with an ATR of 0.3 %."""
    close = float(bars["close"][at])
    return plan.positions(0, [1, -1], int(bars["close_time"][at]), close, 0.003 * close)


def fundings(bars: Bars, rate: float, every: int = 7) -> funding.Fundings:
    times = bars["open_time"][::every] + 3
    return funding.from_columns(times, np.full(times.size, rate))


def follow(bars: Bars, plan: TradePlan, costs: CostModel, rates: funding.Fundings | None = None) -> Positions:
    positions = decide(bars, plan)
    run(positions, bars, funding.empty() if rates is None else rates, costs)
    return positions


@steady
@given(paths, plans, cost_models, st.floats(-0.003, 0.003))
def test_every_ending_is_consistent(bars: Bars, plan: TradePlan, costs: CostModel, rate: float) -> None:
    for position in follow(bars, plan, costs, fundings(bars, rate)):
        outcome, side = int(position["outcome"]), int(position["direction"])
        assert outcome in (OPEN, TARGET, STOP, EXPIRY, VOID, UNKNOWN)
        ended = outcome in (TARGET, STOP, EXPIRY)
        assert ended == np.isfinite(position["r"])
        assert position["worst"] <= 0 <= position["best"] or not ended
        if ended:
            gross = side * (position["exit_price"] - position["entry"]) / position["risk"]
            assert position["worst"] - 1e-12 <= gross <= position["best"] + 1e-12
            fee = costs.fee_bps * 1e-4 * (position["entry"] + position["exit_price"])
            assert np.isclose(position["r"], gross - (fee + position["funding"]) / position["risk"])
            assert position["risk"] > 0
            assert position["decided_at"] < position["opened_at"] < position["exit_time"]
            assert position["exit_time"] <= position["expiry_ms"] + MINUTE
        if outcome == TARGET:
            assert position["exit_price"] == position["target"]
        if outcome == STOP:
            assert side * (position["exit_price"] - position["stop"]) <= 1e-9


@steady
@given(paths, plans)
def test_a_stop_without_a_gap_loses_one_r(bars: Bars, plan: TradePlan) -> None:
    for position in follow(bars, plan, free):
        if position["outcome"] == STOP and position["exit_price"] == position["stop"]:
            assert np.isclose(position["r"], -1)


@steady
@given(paths, plans, cost_models, st.lists(st.integers(1, 89), max_size=4), st.floats(-0.003, 0.003))
def test_any_split_in_time_gives_the_same(
    bars: Bars, plan: TradePlan, costs: CostModel, cuts: list[int], rate: float
) -> None:
    rates = fundings(bars, rate)
    whole = follow(bars, plan, costs, rates)
    stretches = decide(bars, plan)
    for part in np.split(bars, sorted(min(cut, len(bars)) for cut in cuts)):
        run(stretches, part, rates, costs)
    assert stretches.tobytes() == whole.tobytes()
    by_minute = decide(bars, plan)
    charged = dict(zip((rates["funding_time"] // MINUTE).tolist(), rates["funding_rate"].tolist(), strict=True))
    for at in range(len(bars)):
        now = charged.get(int(bars["open_time"][at]) // MINUTE, np.nan)
        advance(by_minute, np.zeros(1, np.int64), bars[at : at + 1], np.array([now]), costs)
    assert by_minute.tobytes() == whole.tobytes()


@steady
@given(paths, plans, cost_models)
def test_what_comes_after_the_end_changes_nothing(bars: Bars, plan: TradePlan, costs: CostModel) -> None:
    whole = follow(bars, plan, costs)
    for at, position in enumerate(whole):
        if position["exit_time"]:
            poisoned = bars.copy()
            for name in ("open", "high", "low", "close"):
                poisoned[name][poisoned["close_time"] > position["exit_time"]] *= 1000
            assert follow(poisoned, plan, costs)[at].tobytes() == position.tobytes()


@steady
@given(paths, plans, st.floats(0.0001, 0.003))
def test_funding_is_symmetrical(bars: Bars, plan: TradePlan, rate: float) -> None:
    paid, received = (follow(bars, plan, free, fundings(bars, r)) for r in (rate, -rate))
    assert np.array_equal(paid["outcome"], received["outcome"])
    assert np.array_equal(paid["funding"], -received["funding"])
    assert (paid["funding"] * paid["direction"] >= 0).all()


@steady
@given(paths, plans, cost_models)
def test_costs_never_help(bars: Bars, plan: TradePlan, costs: CostModel) -> None:
    charged, without = follow(bars, plan, costs), follow(bars, plan, free)
    both = (charged["outcome"] == without["outcome"]) & np.isfinite(charged["r"])
    profit = charged["r"] * charged["risk"], without["r"] * without["risk"]
    assert (profit[0][both] <= profit[1][both] + 1e-9).all()


def by_hand(
    side: int, plan: TradePlan, decided: tuple[int, float, float], bars: Bars, rates: dict[int, float], costs: CostModel
) -> tuple[int, float, float]:
    """Outcome, R and time of the end as the design's text has them, a minute at a time and in plain Python."""
    time, close, atr = decided
    stop, target = close - side * plan.stop_atr * atr, close + side * plan.target_atr * atr
    due = time + plan.horizon_minutes * MINUTE
    fee, slip = costs.fee_bps / 1e4, costs.slippage_bps / 1e4
    entry, funded = 0.0, 0.0

    def ended(outcome: int, price: float, at: int) -> tuple[int, float, float]:
        profit = side * (price - entry) - fee * entry - fee * price - funded
        return outcome, profit / abs(entry - stop), at

    for bar in bars[bars["open_time"] > time]:
        first, at = entry == 0.0, int(bar["close_time"])
        if bar["open_time"] != time + 1:
            return UNKNOWN, np.nan, at
        time = at
        if first:
            entry = float(bar["open"]) * (1 + side * (costs.spread_bps / 2e4 + slip))
            if side * bar["open"] <= side * stop or side * entry >= side * target:
                return VOID, np.nan, at
        elif int(bar["open_time"]) // MINUTE in rates:
            funded += side * rates[int(bar["open_time"]) // MINUTE] * float(bar["open"])
        worst, best = (bar["low"], bar["high"]) if side > 0 else (bar["high"], bar["low"])
        if side * worst <= side * stop:
            beyond = side * bar["open"] <= side * stop
            return ended(STOP, (float(bar["open"]) if beyond else stop) * (1 - side * slip), at)
        if side * best >= side * target:
            return ended(TARGET, target, at)
        if at >= due:
            return ended(EXPIRY, float(bar["close"]), at)
    return OPEN, np.nan, 0


@steady
@given(paths, plans, cost_models, st.floats(-0.003, 0.003))
def test_it_is_what_the_text_says(bars: Bars, plan: TradePlan, costs: CostModel, rate: float) -> None:
    rates = fundings(bars, rate)
    known = dict(zip((rates["funding_time"] // MINUTE).tolist(), rates["funding_rate"].tolist(), strict=True))
    close = float(bars["close"][1])
    decided = int(bars["close_time"][1]), close, 0.003 * close
    for position in follow(bars, plan, costs, rates):
        outcome, r, at = by_hand(int(position["direction"]), plan, decided, bars, known, costs)
        assert position["outcome"] == outcome
        assert position["exit_time"] == at
        assert np.isclose(position["r"], r, rtol=1e-9, atol=1e-9, equal_nan=True)


@steady
@given(paths, plans, st.floats(0.001, 0.02))
def test_a_short_is_a_long_upside_down(bars: Bars, plan: TradePlan, atr: float) -> None:
    """On prices in whole 1/1024 turned over at 1024: exact, without costs, which are shares of the price."""
    rounded = bars.copy()
    for name in ("open", "high", "low", "close"):
        rounded[name] = np.round(bars[name] * 1024) / 1024
    turned = rounded.copy()
    for name, other in (("open", "open"), ("high", "low"), ("low", "high"), ("close", "close")):
        turned[name] = 1024.0 - rounded[other]
    step = max(round(atr * 100 * 1024), 1) / 1024
    exact = TradePlan(max(round(plan.stop_atr), 1), max(round(plan.target_atr), 1), plan.horizon_minutes)
    one, other = (
        exact.positions(0, sides, int(each["close_time"][1]), float(each["close"][1]), step)
        for each, sides in ((rounded, [1, -1]), (turned, [-1, 1]))
    )
    for positions, each in ((one, rounded), (other, turned)):
        run(positions, each, funding.empty(), free)
    for name in ("outcome", "r", "best", "worst", "risk", "opened_at", "exit_time", "last_time"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@steady
@given(paths, plans, cost_models, st.floats(-0.003, 0.003), st.sampled_from([10, -30]))
def test_the_unit_of_the_price_does_not_matter(
    bars: Bars, plan: TradePlan, costs: CostModel, rate: float, power: int
) -> None:
    scaled = bars.copy()
    for name in ("open", "high", "low", "close"):
        scaled[name] = bars[name] * 2.0**power
    one, other = (follow(each, plan, costs, fundings(each, rate)) for each in (bars, scaled))
    for name in ("outcome", "r", "best", "worst", "opened_at", "exit_time"):
        assert one[name].tobytes() == other[name].tobytes(), name
