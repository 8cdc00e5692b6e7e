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
from models_registry.demotion import LiveVerdict, Tenure
from models_registry.ledger import CHAMPION, Ledger, Move
from orchestration import live_records, sensors, training_data
from orchestration.label_store import count_learnable, ingest_journals, read_history
from orchestration.live_records import Look
from orchestration.partitions import daily
from orchestration.resources import GateSettings, LakeResource, RegistryResource, TrainingSettings
from orchestration.sensors import (
    RANGE_END,
    RANGE_START,
    champion_to_watch,
    new_journal_segments,
    retrain_on_live_labels,
)
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

    def __init__(
        self,
        sensor: dg.SensorDefinition,
        lake: Path,
        instance: dg.DagsterInstance | None = None,
        **resources: dg.ConfigurableResource,  # type: ignore[type-arg]
    ) -> None:
        self.sensor = sensor
        self.lake = str(lake)
        self.cursor: str | None = None
        self.instance = instance or dg.DagsterInstance.ephemeral()
        self.resources = resources
        self.keys: set[str] = set()

    def __call__(self) -> dg.RunRequest | str:
        given = {"lake": LakeResource(uri=self.lake), **self.resources}
        with dg.build_sensor_context(self.instance, cursor=self.cursor, resources=given) as context:
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
        run = dg.DagsterRun(job_name=str(self.sensor.job_name), status=status, tags=dict(found.tags))
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
    look.run(dg.DagsterRunStatus.SUCCESS)
    assert str(look()).endswith("are ingested")
    publish_positions(lake, tmp_path / "journal", table, np.arange(5, 10))
    look.run(dg.DagsterRunStatus.STARTED)
    assert str(look()).endswith("is at it")


class Later:
    """A clock that the sensors look at, ahead of the one that Dagster notes runs by."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        now = sensors._now
        monkeypatch.setattr(sensors, "_now", lambda: now() + self.seconds)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    return Later(monkeypatch)


ENDED_BADLY = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


@pytest.mark.parametrize("status", ENDED_BADLY)
def test_segments_whose_ingestion_failed_are_ingested_again(
    lake: Lake, table: LabelTable, tmp_path: Path, later: Later, status: dg.DagsterRunStatus
) -> None:
    look = Looking(new_journal_segments, tmp_path / "lake")
    publish_positions(lake, tmp_path / "journal", table, np.arange(5))
    look.run(status)
    assert f"ended as {status.value}: the next one after 300 s" in str(look())
    later.seconds = sensors.AGAIN_S
    look.run(status)
    publish_positions(lake, tmp_path / "journal", table, np.arange(5, 10))
    look.run(dg.DagsterRunStatus.SUCCESS)
    assert str(look()).endswith("are ingested")


@pytest.mark.parametrize("due", ["moved", "demote"])
@pytest.mark.parametrize("status", ENDED_BADLY)
def test_a_watch_that_failed_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: Later, status: dg.DagsterRunStatus, due: str
) -> None:
    """Until its move is in the ledger, or its demotion done."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for version in ("1", "2"):
        move = Move(action="promote", alias=CHAMPION, version=version, previous=None, reason="", by="test")
        ledger.append(move, time_ms=0)
    found = Look(
        tenure=Tenure(version="2", since_ms=0, promised=None, counted_from_ms=None),
        live=None,
        verdict=LiveVerdict(demote=True, reason="it lost", numbers={}),
        live_until_ms=5,
        before="1",
    )
    monkeypatch.setattr(live_records, "look", lambda *_: found)
    monkeypatch.setattr(sensors, "_moved_by_hand", lambda *_: "champion=1" if due == "moved" else "")
    registry = RegistryResource(tracking_uri="http://127.0.0.1:9", ledger=str(ledger.path))
    look = Looking(
        champion_to_watch, tmp_path / "lake", registry=registry, training=TrainingSettings(), gate=GateSettings()
    )
    for _ in range(3):
        asked = look.run(status)
        assert asked.tags[f"perpforge/{due}"] == ("champion=1" if due == "moved" else "2")
        later.seconds = 0.0
        assert f"ended as {status.value}" in str(look())
        later.seconds = sensors.AGAIN_S
    look.run(dg.DagsterRunStatus.STARTED)
    assert str(look()).endswith("is at it")
