"""Labels of a history: each is its candidate followed to the end, known no earlier than that, weighed by overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from features.barriers import EXPIRY, OPEN, STOP, TARGET, CostModel, TradePlan, advance, funding_at
from features.candidates import EVENT, RULE, candidates
from features.history import DecisionHistory, decision_history
from features.labels import LabelTable, label_history, position_id, recency, uniqueness
from market import funding
from market.bars import BAR, DAY_MS, Bars, from_columns
from market.datasets import dataset
from tests.features.series import START_MS, make_market, uniforms

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


def test_uniqueness_by_hand() -> None:
    # A: minutes 0-3; B: minutes 2-5; C alone at 9; D is another symbol's.
    symbol = np.array([0, 0, 0, 1], dtype=np.int32)
    opened = np.array([0, 2, 9, 0]) * MINUTE
    known = np.array([4, 6, 10, 6]) * MINUTE - 1
    assert uniqueness(symbol, opened, known).tolist() == pytest.approx([0.75, 0.75, 1.0, 1.0])
    none = np.empty(0, np.int64)
    assert uniqueness(none.astype(np.int32), none, none).size == 0


def test_recency() -> None:
    known = np.array([0, 10, 20]) * DAY_MS
    assert recency(known, 10.0).tolist() == [0.25, 0.5, 1.0]
    assert recency(known, None).tolist() == [1.0, 1.0, 1.0]


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
