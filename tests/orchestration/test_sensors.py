"""What starts runs by itself, and does so once."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from features.labels import LabelTable
from market.bars import DAY_MS
from market.klines_store import day_start
from market.lake import Lake
from orchestration import sensors, training_data
from orchestration.label_store import count_learnable, ingest_journals, read_history
from orchestration.partitions import daily
from orchestration.resources import LakeResource
from orchestration.sensors import RANGE_END, RANGE_START, new_journal_segments, retrain_on_live_labels
from tests.orchestration.journals import label, publish_positions
from tests.orchestration.markets import days, ingest, synthetic

DAYS = days(4)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LabelTable:
    """Labels of four days, in the order in which they became known."""
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    ingest(lake, synthetic(), DAYS)
    found = label(read_history(lake, 90))
    order = np.argsort(found.labels["known_at"], kind="stable")
    return LabelTable(labels=found.labels[order], symbols=found.symbols, dropped=found.dropped)


class Looking:
    """Looks with one sensor again and again, as the daemon does, keeping its cursor and the runs it asked for."""

    def __init__(self, sensor: dg.SensorDefinition, lake: Path, instance: dg.DagsterInstance | None = None) -> None:
        self.sensor = sensor
        self.lake = str(lake)
        self.cursor: str | None = None
        self.instance = instance or dg.DagsterInstance.ephemeral()
        self.keys: set[str] = set()

    def __call__(self) -> dg.RunRequest | str:
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, resources={"lake": LakeResource(uri=self.lake)}
        )
        found = self.sensor(context)
        self.cursor = context.cursor
        if isinstance(found, dg.SkipReason):
            return str(found.skip_message)
        assert isinstance(found, dg.RunRequest)
        return found

    def run(self, status: dg.DagsterRunStatus) -> dg.RunRequest:
        """Look, and launch what is asked for; Dagster would drop a run whose key it knows."""
        found = self()
        assert isinstance(found, dg.RunRequest), found
        assert found.run_key is not None
        assert found.run_key not in self.keys, "dropped"
        self.keys.add(found.run_key)
        run = dg.DagsterRun(job_name="retrain", status=status, tags=dict(found.tags))
        self.instance.run_storage.add_run(run)
        return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looking:
    monkeypatch.setenv("RETRAIN_AFTER_LABELS", "20")
    monkeypatch.setenv("RETRAIN_MIN_INTERVAL_MINUTES", "0")
    return Looking(retrain_on_live_labels, tmp_path / "lake")


def bring(lake: Lake, folder: Path, table: LabelTable, first: int, last: int) -> None:
    publish_positions(lake, folder / "journal", table, np.arange(first, last))
    ingest_journals(lake)


def learn(lake: Lake, dates: list[str]) -> None:
    """What a retraining of these days leaves in the lake when it comes to a bundle."""
    ingest(lake, synthetic(), dates)
    rows = training_data.join(lake, read_history(lake, 90).rows, 10).rows
    training_data.store(lake, rows, count_learnable(lake))
    training_data.keep_learnt(lake, rows.data_hash)


def last_day(table: LabelTable, count: int) -> str:
    return str(np.datetime64(int(table.labels["known_at"][count - 1]), "ms").astype("datetime64[D]"))


def test_retraining_starts_once_for_every_so_many_labels(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking
) -> None:
    assert look() == "0 of 20 new live labels"
    bring(lake, tmp_path, table, 0, 19)
    assert str(look()).startswith("19 of 20 new live labels")
    bring(lake, tmp_path, table, 19, 25)
    look.run(dg.DagsterRunStatus.SUCCESS)
    learn(lake, DAYS)
    assert training_data.learnt(lake) == 25
    assert str(look()).startswith("0 of 20 new live labels")
    bring(lake, tmp_path, table, 25, 44)
    assert str(look()).startswith("19 of 20 new live labels")
    bring(lake, tmp_path, table, 44, 45)
    look.run(dg.DagsterRunStatus.SUCCESS)


def test_the_same_question_has_the_same_answer(lake: Lake, table: LabelTable, tmp_path: Path, look: Looking) -> None:
    bring(lake, tmp_path, table, 0, 100)
    first, second = look(), look()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key == second.run_key


def test_a_run_that_was_created_and_never_begun_is_asked_for_again(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking
) -> None:
    """The daemon finds the run by its key and launches it."""
    bring(lake, tmp_path, table, 0, 100)
    first = look.run(dg.DagsterRunStatus.NOT_STARTED)
    again = look()
    assert isinstance(again, dg.RunRequest)
    assert again.run_key == first.run_key


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_nothing_starts_while_a_retraining_is_under_way(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking, status: dg.DagsterRunStatus
) -> None:
    bring(lake, tmp_path, table, 0, 100)
    look.run(status)
    assert str(look()).endswith("is under way")


def test_a_retraining_that_failed_has_not_used_its_labels_up(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking
) -> None:
    bring(lake, tmp_path, table, 0, 30)
    for _ in range(3):
        look.run(dg.DagsterRunStatus.FAILURE)
    # One that got as far as a training set, too: there is no bundle of it.
    ingest(lake, synthetic(), DAYS[:1])
    rows = training_data.join(lake, read_history(lake, 90).rows, 10).rows
    training_data.store(lake, rows, count_learnable(lake))
    look.run(dg.DagsterRunStatus.FAILURE)
    learn(lake, DAYS)
    assert str(look()).startswith("0 of 20 new live labels")


def test_retrainings_keep_their_distance(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETRAIN_MIN_INTERVAL_MINUTES")
    bring(lake, tmp_path, table, 0, 30)
    look.run(dg.DagsterRunStatus.FAILURE)
    now = sensors._now()
    monkeypatch.setattr(sensors, "_now", lambda: now + 59 * 60)
    assert str(look()).endswith("began 59 of 60 minutes ago")
    monkeypatch.setattr(sensors, "_now", lambda: now + 61 * 60)
    look.run(dg.DagsterRunStatus.SUCCESS)


def test_labels_of_days_that_cannot_be_ingested_yet_are_left_for_later(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "DAYS", daily(DAYS[0], DAYS[2]))
    inside = int((table.labels["known_at"] < day_start(DAYS[0]) + 2 * DAY_MS).sum())
    assert 0 < inside < len(table)
    bring(lake, tmp_path, table, 0, len(table))
    found = look.run(dg.DagsterRunStatus.SUCCESS)
    assert (found.tags[RANGE_START], found.tags[RANGE_END]) == (DAYS[0], DAYS[1])
    learn(lake, DAYS[:2])
    assert training_data.learnt(lake) == inside
    assert str(look()) == f"0 of 20 new live labels, in days up to {DAYS[1]}"
    monkeypatch.setattr(sensors, "DAYS", daily(DAYS[0], "2026-01-12"))
    found = look.run(dg.DagsterRunStatus.SUCCESS)
    assert (found.tags[RANGE_START], found.tags[RANGE_END]) == (DAYS[1], last_day(table, len(table)))


def test_labels_outside_all_partitions_are_told_of(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors, "DAYS", daily("2026-03-01", "2026-03-09"))
    bring(lake, tmp_path, table, 0, 100)
    assert str(look()).endswith("set KLINES_START_DATE")


def test_retraining_brings_the_klines_to_the_labels_days(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking
) -> None:
    ingest(lake, synthetic(), days(1))
    bring(lake, tmp_path, table, 0, 120)
    found = look()
    assert isinstance(found, dg.RunRequest)
    assert (found.tags[RANGE_START], found.tags[RANGE_END]) == (DAYS[0], last_day(table, 120))


@pytest.mark.parametrize("first", [0, 40])
def test_an_emptied_lake_starts_the_count_anew(
    lake: Lake, table: LabelTable, tmp_path: Path, look: Looking, first: int
) -> None:
    """Also when the new lake's labels are those of the old one, as after a demo that was started again."""
    bring(lake, tmp_path, table, 0, 100)
    look.run(dg.DagsterRunStatus.SUCCESS)
    learn(lake, DAYS)
    look.lake = str(tmp_path / "other")
    assert look() == "0 of 20 new live labels"
    other = Lake(look.lake)
    publish_positions(other, tmp_path / "other-journal", table, np.arange(first, first + 19))
    ingest_journals(other)
    assert str(look()).startswith("19 of 20 new live labels")
    publish_positions(other, tmp_path / "other-journal", table, np.arange(first + 19, first + 20))
    ingest_journals(other)
    look.run(dg.DagsterRunStatus.SUCCESS)


def test_new_segments_are_ingested_once(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    look = Looking(new_journal_segments, tmp_path / "lake")
    assert look() == "no worker has published a journal segment"
    publish_positions(lake, tmp_path / "journal", table, np.arange(5))
    first = look()
    assert isinstance(first, dg.RunRequest)
    assert str(look()).endswith("are ingested")
    publish_positions(lake, tmp_path / "journal", table, np.arange(5, 10))
    second = look()
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key
