"""Labels of history and live ones, and the training set they are joined into."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from features.labels import LabelTable
from market.bars import DAY_MS
from market.lake import Lake
from models_registry.training_set import LIVE, TrainingSet
from orchestration import training_data
from orchestration.ingest import ingest_funding, universes
from orchestration.label_store import (
    History,
    count_live,
    ingest_journals,
    live_span,
    read_history,
    store_history_labels,
)
from orchestration.resources import TrainingSettings
from tests.orchestration.journals import label, publish_positions
from tests.orchestration.markets import days, ingest, synthetic

DAYS = days(4)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with four days of klines and fundings."""
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(str(folder))
    ingest(lake, synthetic(), DAYS)
    ingest_funding(lake, synthetic(), DAYS, universes(lake, DAYS))
    return folder


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Lake:
    shutil.copytree(made, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(scope="module")
def history(made: Path) -> History:
    return read_history(Lake(str(made)), 90)


@pytest.fixture(scope="module")
def table(history: History) -> LabelTable:
    return label(history)


def join(lake: Lake, history: History) -> training_data.Joined:
    return training_data.join(lake, history.rows, 100)


def test_windows_without_labels_are_of_all_symbols_alike_at_every_time(lake: Lake, history: History) -> None:
    rows, symbols = history.rows, len(history.rows.symbols)
    ready = np.flatnonzero(rows.ready)
    of = {window.tobytes(): int(symbol) for window, symbol in zip(rows.windows(ready), rows.symbol[ready], strict=True)}
    assert symbols > 1
    assert len(of) == len(ready)
    # As many as there are times: rows at a fixed distance would be of the same symbol for a while.
    found = training_data.join(lake, rows, len(ready) // symbols // 2).rows.unlabelled_windows
    symbol = np.array([of[window.tobytes()] for window in found])
    for part in np.array_split(symbol, 4):
        assert np.bincount(part, minlength=symbols) / len(part) * symbols == pytest.approx(np.ones(symbols), abs=0.15)


def test_an_empty_lake_has_no_history(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    history = read_history(lake, 90)
    assert (history.days, len(history.rows)) == (0, 0)
    assert ingest_journals(lake).labels == 0
    assert live_span(lake) is None
    assert len(training_data.join(lake, history.rows, 100).rows) == 0


def test_history_is_cut_to_its_newest_days(made: Path, history: History) -> None:
    short = read_history(Lake(str(made)), 2)
    assert short.days == 2
    assert short.rows.time[-1] == history.rows.time[-1]


def test_labels_of_history_replace_those_before(lake: Lake, history: History) -> None:
    for _ in range(2):
        table = store_history_labels(lake, history, TrainingSettings())
    assert lake.read("labels", where="source = 'history'").num_rows == len(table) > 100


def test_ingesting_journals_again_changes_nothing(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    publish_positions(lake, tmp_path / "journal", table, np.arange(20))
    found = ingest_journals(lake)
    assert (found.labels, found.added) == (20, 20)
    assert found.segments > 1
    before = {path: lake.get_bytes(path) for path in lake.list("labels")}
    assert ingest_journals(lake).added == 0
    assert {path: lake.get_bytes(path) for path in lake.list("labels")} == before


def test_a_segment_that_is_published_twice_counts_once(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    publish_positions(lake, tmp_path / "journal", table, np.arange(10))
    path = lake.files("journal")[0]
    lake.put_bytes(path.replace("segment-", "again-"), lake.get_bytes(path))
    assert ingest_journals(lake).labels == 10
    assert lake.read("labels", where="source = 'live'").num_rows == 10


def test_later_segments_of_an_epoch_and_a_new_epoch_add(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    publish_positions(lake, tmp_path / "journal", table, np.arange(10))
    ingest_journals(lake)
    publish_positions(lake, tmp_path / "journal", table, np.arange(10, 25))
    assert ingest_journals(lake).added == 15
    assert len(lake.files("labels", {"source": "live"})) == 2


def test_a_position_that_two_workers_followed_counts_once(
    lake: Lake, history: History, table: LabelTable, tmp_path: Path
) -> None:
    publish_positions(lake, tmp_path / "one", table, np.arange(10), worker="one")
    publish_positions(lake, tmp_path / "two", table, np.arange(5, 15), worker="two")
    assert ingest_journals(lake).labels == count_live(lake) == 15
    assert join(lake, history).live == 15


def test_a_live_label_says_what_its_event_said(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    publish_positions(lake, tmp_path / "journal", table, np.arange(8))
    ingest_journals(lake)
    rows = lake.read("labels", where="source = 'live'", order_by="decided_at, symbol, direction DESC").to_pylist()
    for row, wanted in zip(rows, table.labels[:8], strict=True):
        for name in (
            "decided_at",
            "opened_at",
            "known_at",
            "direction",
            "kind",
            "outcome",
            "entry",
            "stop",
            "target",
            "r",
        ):
            assert row[name] == wanted[name]
        assert row["symbol"] == table.symbols[wanted["symbol"]]
        assert 0 < row["weight"] <= row["quality"]
        assert (row["bundle"], row["worker"]) == ("1", "w")
    assert live_span(lake) == (int(table.labels["decided_at"][:8].min()), int(table.labels["known_at"][:8].max()))


def test_the_training_set_joins_labels_with_their_rows(lake: Lake, history: History) -> None:
    table = store_history_labels(lake, history, TrainingSettings())
    rows = join(lake, history).rows
    assert len(rows) == len(table)
    order = np.lexsort((table.labels["direction"], table.labels["symbol"], table.labels["decided_at"]))
    at = table.labels["row"][order]
    assert np.array_equal(rows.decision, history.rows.decision[at], equal_nan=True)
    assert np.array_equal(rows.windows, history.rows.windows(at), equal_nan=True)
    assert np.array_equal(rows.known_at, table.labels["known_at"][order])
    again = training_data.join(lake, history.rows, 100, TrainingSettings().half_life()).rows
    assert np.allclose(again.weight, table.labels["weight"][order], rtol=1e-6)
    assert len(rows.unlabelled_at) == 200
    assert (np.diff(rows.unlabelled_at) >= 0).all()


def test_history_and_live_labels_are_weighed_by_one_rule(
    lake: Lake, history: History, table: LabelTable, tmp_path: Path
) -> None:
    """A candidate that was followed live weighs in the training set what it would have weighed from history."""
    store_history_labels(lake, history, TrainingSettings())
    alone = training_data.join(lake, history.rows, 100, half_life_days=2.0).rows
    publish_positions(lake, tmp_path / "journal", table, np.arange(0, 30, 2))
    ingest_journals(lake)
    joined = training_data.join(lake, history.rows, 100, half_life_days=2.0).rows
    assert (joined.source == LIVE).sum() == 15
    np.testing.assert_allclose(joined.weight, alone.weight, rtol=1e-6)
    assert np.isfinite(joined.weight).all()
    assert ((joined.weight > 0) & (joined.weight <= 1)).all()
    without = join(lake, history).rows
    age = (without.known_at.max() - without.known_at) / DAY_MS
    np.testing.assert_allclose(joined.weight, without.weight * np.exp2(-age / 2.0), rtol=1e-5)


def test_the_half_life_can_be_switched_off() -> None:
    assert TrainingSettings().half_life() == TrainingSettings().history_days / 2
    assert TrainingSettings(half_life_days=0).half_life() is None


def test_a_live_label_stands_for_the_same_candidate_of_history(
    lake: Lake, history: History, table: LabelTable, tmp_path: Path
) -> None:
    store_history_labels(lake, history, TrainingSettings())
    alone = join(lake, history).rows
    publish_positions(lake, tmp_path / "journal", table, np.arange(0, 30, 2))
    ingest_journals(lake)
    joined = join(lake, history)
    assert len(joined.rows) == len(alone)
    assert joined.live == int((joined.rows.source == LIVE).sum()) == 15
    assert np.array_equal(joined.rows.outcome, alone.outcome)


def test_a_label_of_a_day_without_klines_is_counted_and_left_out(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    publish_positions(lake, tmp_path / "journal", table, np.arange(len(table) - 10, len(table)))
    ingest_journals(lake)
    for path in lake.files("klines", {"date": DAYS[-1]}):
        (tmp_path / "lake" / path).unlink()
    joined = join(lake, read_history(lake, 90))
    assert (len(joined.rows), joined.unmatched) == (0, 10)


def test_a_stored_set_is_found_by_its_hash_and_as_the_current_one(lake: Lake, history: History) -> None:
    store_history_labels(lake, history, TrainingSettings())
    rows = join(lake, history).rows
    training_data.store(lake, rows)
    fewer: TrainingSet = rows.select(np.arange(50))
    training_data.store(lake, fewer)
    assert training_data.load(lake).data_hash == fewer.data_hash
    assert training_data.load(lake, rows.data_hash).data_hash == rows.data_hash


def test_the_training_set_has_the_paths_of_its_rows(lake: Lake, history: History, table: LabelTable) -> None:
    """A row that expired knows its return from its label; every path is that of the row's own symbol."""
    store_history_labels(lake, history, TrainingSettings())
    plan = TrainingSettings().plan()
    rows = training_data.join(lake, history.rows, 100, bars=history.bars, plan=plan).rows
    assert np.isnan(join(lake, history).rows.return_ahead).all(), "without bars none is known"
    known = rows.path_known_at > 0
    assert known.mean() > 0.8
    assert np.array_equal(known, np.isfinite(rows.return_ahead))
    assert (rows.path_known_at[known] == rows.decided_at[known] + plan.horizon_minutes * 60_000).all()
    assert (rows.known_at[known] <= rows.path_known_at[known]).all()
    for at in np.flatnonzero(known)[::97]:
        name, time = rows.symbols[rows.symbol[at]], rows.decided_at[at]
        here = (history.rows.time == time) & (history.rows.symbol == history.rows.symbols.index(name))
        bars = history.bars[name]
        after = bars[(bars["open_time"] > time) & (bars["close_time"] <= rows.path_known_at[at])]
        reach = (after["high"].max() - after["open"][0]) / history.rows.atr[here][0]
        assert rows.reach_above[at] == pytest.approx(reach, rel=1e-5, abs=1e-6)
    assert np.isfinite(rows.unlabelled_above).mean() > 0.8
    assert (rows.unlabelled_known_at[np.isfinite(rows.unlabelled_above)] > 0).all()
