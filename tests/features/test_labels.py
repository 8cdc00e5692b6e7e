"""Labels of a history: each is its candidate followed to the end, known no earlier than that, weighed by overlap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.barriers import EXPIRY, OPEN, STOP, TARGET, CostModel, TradePlan, advance, funding_at
from features.candidates import EVENT, RULE, candidates
from features.history import DecisionHistory, decision_history
from features.labels import LabelTable, label_history, position_id, recency, sample_weight, uniqueness
from market import funding
from market.bars import BAR, DAY_MS, Bars, from_columns
from market.datasets import dataset
from tests.features.series import START_MS, make_market, uniforms
from tests.features.steady import steady

MINUTE = 60_000
PLAN, COSTS = TradePlan(horizon_minutes=90), CostModel()


@pytest.fixture(scope="module")
def market() -> dict[str, Bars]:
    return make_market(4, 60 * 24 * 6, seed=31)


@pytest.fixture(scope="module")
def fundings(market: dict[str, Bars]) -> dict[str, funding.Fundings]:
    times = START_MS + np.arange(40) * 14_400_000 + 5
    return {symbol: funding.from_columns(times, uniforms(i, 40) * 0.002) for i, symbol in enumerate(market)}


@pytest.fixture(scope="module")
def history(market: dict[str, Bars], fundings: dict[str, funding.Fundings]) -> DecisionHistory:
    return decision_history(market, fundings)


@pytest.fixture(scope="module")
def table(history: DecisionHistory, market: dict[str, Bars], fundings: dict[str, funding.Fundings]) -> LabelTable:
    return label_history(history, market, fundings, PLAN, COSTS)


def test_every_candidate_is_labelled_or_dropped(table: LabelTable, history: DecisionHistory) -> None:
    chosen = candidates(history.decision, history.spec, history.ready)
    assert len(table) + sum(table.dropped.values()) == chosen.index.size
    assert set(np.unique(table.labels["outcome"])) == {TARGET, STOP, EXPIRY}
    assert set(np.unique(table.labels["kind"])) <= {RULE, EVENT}
    assert table.dropped["open"] > 0
    assert table.dropped["unknown"] > 0
    assert history.ready[table.labels["row"]].all()


def test_labels_name_their_decision(table: LabelTable, history: DecisionHistory) -> None:
    labels = table.labels
    assert np.array_equal(labels["decided_at"], history.time[labels["row"]])
    assert np.array_equal(labels["symbol"], history.symbol[labels["row"]])
    stop, target = PLAN.levels(history.close[labels["row"]], history.atr[labels["row"]], labels["direction"])
    assert np.array_equal(labels["stop"], stop)
    assert np.array_equal(labels["target"], target)
    order = np.lexsort((-labels["direction"].astype(int), labels["symbol"], labels["decided_at"]))
    assert np.array_equal(order, np.arange(len(table)))


def test_live_positions_end_as_the_labels_say(
    table: LabelTable, market: Mapping[str, Bars], fundings: Mapping[str, funding.Fundings]
) -> None:
    """The same candidates, minute by minute and all symbols at once."""
    labels = table.labels
    history_rows = (labels["symbol"], labels["direction"], labels["decided_at"])
    positions = PLAN.positions(*history_rows, 1.0, 1.0)
    positions["stop"], positions["target"] = labels["stop"], labels["target"]
    rates = [funding_at(fundings[symbol], bars) for symbol, bars in market.items()]
    for time in range(START_MS, START_MS + 6 * DAY_MS, MINUTE):
        at = [int(np.searchsorted(bars["open_time"], time)) for bars in market.values()]
        present = [i < bars.size and bars["open_time"][i] == time for i, bars in zip(at, market.values(), strict=True)]
        bars = np.array([bars[i] for i, bars, p in zip(at, market.values(), present, strict=True) if p], BAR)
        bar_of_symbol = np.where(present, np.cumsum(present) - 1, -1)
        rate = np.array([r[i] if p else np.nan for r, i, p in zip(rates, at, present, strict=True)])
        advance(positions, bar_of_symbol, bars, rate, COSTS)
    assert not (positions["outcome"] == OPEN).any()
    for name in ("outcome", "r", "entry", "best", "worst", "exit_price", "opened_at"):
        assert positions[name].tobytes() == labels[name].tobytes(), name
    assert np.array_equal(positions["exit_time"], labels["known_at"])


def test_a_label_is_known_from_its_own_minutes_alone(
    table: LabelTable, market: dict[str, Bars], fundings: dict[str, funding.Fundings]
) -> None:
    """Cut at any time, exactly the labels known by then are there, and they are the same."""
    for draw in uniforms(4, 6):
        until = START_MS + int((0.4 + 0.6 * draw) * 6 * 1440) * MINUTE
        bars = {symbol: minutes[minutes["close_time"] < until] for symbol, minutes in market.items()}
        early = label_history(decision_history(bars, fundings), bars, fundings, PLAN, COSTS).labels
        known = table.labels[table.labels["known_at"] < until]
        for name in early.dtype.names or ():
            if name not in ("uniqueness", "weight"):  # those depend on which other labels there are
                assert early[name].tobytes() == known[name].tobytes(), name


def test_weights(table: LabelTable) -> None:
    labels = table.labels
    assert ((labels["uniqueness"] > 0) & (labels["uniqueness"] <= 1)).all()
    assert np.allclose(labels["weight"], labels["quality"] * labels["uniqueness"])


@dataclass(frozen=True)
class Overlap:
    """Labels by the minutes [first, last] that they are open in, and what share of its time is each one's own."""

    what: str
    open: list[tuple[int, int]]
    share: list[float]
    symbol: list[int] | None = None


OVERLAPS = [
    Overlap("one alone", [(3, 7)], [1]),
    Overlap("one after the other", [(0, 4), (5, 9)], [1, 1]),
    # The minute that both are open in counts half to each: (4 + 1/2) / 5.
    Overlap("they touch in one minute", [(0, 4), (4, 8)], [0.9, 0.9]),
    Overlap("long and short of one bar, ending together", [(0, 9), (0, 9)], [0.5, 0.5]),
    # The short one shares both its minutes; the long one has 2 of 4 to itself: (2 + 2/2) / 4.
    Overlap("one inside the other", [(0, 3), (1, 2)], [0.75, 0.5]),
    # Minute by minute 1, 2, 3, 2, 1 are open: A 1 + 1/2 + 1/3, B 1/2 + 1/3 + 1/2, C as A; each of three minutes.
    Overlap("a staircase of three", [(0, 2), (1, 3), (2, 4)], [11 / 18, 8 / 18, 11 / 18]),
    # A: minutes 0-3; B: minutes 2-5; C alone at 9; D is another symbol's.
    Overlap("other symbols do not count", [(0, 3), (2, 5), (9, 9), (0, 5)], [0.75, 0.75, 1, 1], [0, 0, 0, 1]),
    Overlap("none", [], []),
]


@pytest.mark.parametrize("overlap", OVERLAPS, ids=lambda overlap: overlap.what)
def test_uniqueness_by_hand(overlap: Overlap) -> None:
    first, last = np.array(overlap.open, dtype=np.int64).reshape(-1, 2).T
    symbol = np.array(overlap.symbol or [0] * len(overlap.open), dtype=np.int32)
    # Opened at a minute's open, known at a minute's close; the epoch is far away.
    opened, known = START_MS + first * MINUTE, START_MS + (last + 1) * MINUTE - 1
    assert uniqueness(symbol, opened, known).tolist() == pytest.approx(overlap.share)


@pytest.mark.parametrize(
    ("quality", "share", "days_old", "half_life", "weight"),
    [
        (0.8, 1.0, 0, None, 0.8),
        (0.8, 0.5, 0, 45.0, 0.4),  # the newest is not discounted
        (0.8, 0.5, 45, 45.0, 0.2),
        (0.8, 0.5, 90, 45.0, 0.1),
        (0.8, 0.5, 90, None, 0.4),
        (0.0, 1.0, 0, None, 0.05),  # of no quality: the least that counts
        (np.nan, 1.0, 0, None, 0.5),  # of a quality that nobody knows
    ],
)
def test_the_weight_is_quality_times_uniqueness_times_recency(
    quality: float, share: float, days_old: int, half_life: float | None, weight: float
) -> None:
    known = START_MS + np.array([-days_old, 0]) * DAY_MS
    found = sample_weight(np.array([quality, 1.0]), np.array([share, 1.0]), known, half_life)
    assert found.tolist() == pytest.approx([weight, 1.0])


spans = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 300), st.integers(0, 2)), min_size=1, max_size=60)


@steady
@given(spans, st.none() | st.floats(1e-3, 1e4), st.randoms(use_true_random=False))
def test_every_weight_is_above_zero_and_finite(
    labels: list[tuple[int, int, int]], half_life: float | None, random: Random
) -> None:
    first, length, symbol = np.array(labels, dtype=np.int64).T
    opened, known = START_MS + first * MINUTE, START_MS + (first + length + 1) * MINUTE - 1
    share = uniqueness(symbol.astype(np.int32), opened, known)
    # Over all labels of a symbol, minutes that belong to them add up to the minutes in which any is open.
    for each in np.unique(symbol):
        mine = symbol == each
        covered = {
            minute for at, size in zip(first[mine], length[mine], strict=True) for minute in range(at, at + size + 1)
        }
        assert (share[mine] * (length[mine] + 1)).sum() == pytest.approx(len(covered))
    quality = np.array([random.choice([0.0, 0.3, 1.0, np.nan]) for _ in labels])
    weight = sample_weight(quality, share, known, half_life)
    assert (weight > 0).all()
    assert (weight <= 1).all()
    order = np.array(random.sample(range(len(labels)), len(labels)))
    again = sample_weight(
        quality[order], uniqueness(symbol[order].astype(np.int32), opened[order], known[order]), known[order], half_life
    )
    np.testing.assert_allclose(again, weight[order], rtol=1e-9)


def test_recency() -> None:
    known = np.array([0, 10, 20]) * DAY_MS
    assert recency(known, 10.0).tolist() == [0.25, 0.5, 1.0]
    assert recency(known, None).tolist() == [1.0, 1.0, 1.0]
    assert recency(known[:0], 10.0).size == 0


def test_a_half_life_weighs_the_recent_more(
    history: DecisionHistory, market: dict[str, Bars], fundings: dict[str, funding.Fundings], table: LabelTable
) -> None:
    halved = label_history(history, market, fundings, PLAN, COSTS, half_life_days=1.0).labels["weight"]
    assert halved[-1] == pytest.approx(table.labels["weight"][-1], rel=0.2)
    assert halved[0] < table.labels["weight"][0] / 4


def test_columns_are_those_of_the_dataset(table: LabelTable) -> None:
    columns = table.columns(bundle="7")
    wanted = set(dataset("labels").schema.names)
    assert wanted <= set(columns) | {"source"}
    assert columns["position_id"][0] == position_id(
        columns["symbol"][0], columns["decided_at"][0], columns["direction"][0]
    )
    assert len(set(columns["position_id"])) == len(table)
    assert {len(values) for values in columns.values()} == {len(table)}


def test_no_candidates_no_labels(market: dict[str, Bars]) -> None:
    short = {symbol: bars[:100] for symbol, bars in market.items()}
    table = label_history(decision_history(short, {}), short, {}, PLAN, COSTS)
    assert len(table) == 0
    assert table.columns()["position_id"] == []


def test_recorded_bars_give_a_plausible_number(shared_data: Path) -> None:
    import pyarrow.parquet as pq

    path = shared_data / "klines/um2025/ETHUSDT-1m-um2025.parquet"
    recording = pq.read_table(path).slice(0, 25_000)
    bars = {"ETHUSDT": from_columns({name: recording[name].to_numpy() for name in recording.column_names})}
    history = decision_history(bars, {})
    event = history.decision[history.ready, history.spec.index("5m.cusum_event")]
    assert 0.03 < np.abs(event).mean() < 0.06
    table = label_history(history, bars, {}, TradePlan(), COSTS)
    assert table.dropped["unknown"] == table.dropped["void"] == 0
    assert 0.3 < table.won.mean() < 0.6
    assert 0.02 < (table.labels["kind"] == RULE).mean() < 0.4
