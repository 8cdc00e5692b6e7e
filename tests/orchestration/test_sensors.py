"""What starts runs by itself, and does so once."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from features.labels import LabelTable
from market.lake import Lake
from orchestration.label_store import ingest_journals, read_history
from orchestration.resources import LakeResource
from orchestration.sensors import RANGE_END, RANGE_START, new_journal_segments, retrain_on_live_labels
from tests.orchestration.journals import label, publish_positions
from tests.orchestration.markets import days, ingest, synthetic


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LabelTable:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    ingest(lake, synthetic(), days(4))
    return label(read_history(lake, 90))


class Looking:
    """Looks with one sensor again and again, as the daemon does, keeping its cursor."""

    def __init__(self, sensor: dg.SensorDefinition, lake: Path) -> None:
        self.sensor = sensor
        self.lake = str(lake)
        self.cursor: str | None = None

    def __call__(self) -> dg.RunRequest | str:
        context = dg.build_sensor_context(cursor=self.cursor, resources={"lake": LakeResource(uri=self.lake)})
        found = self.sensor(context)
        self.cursor = context.cursor
        if isinstance(found, dg.SkipReason):
            return str(found.skip_message)
        assert isinstance(found, dg.RunRequest)
        return found


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def bring(lake: Lake, folder: Path, table: LabelTable, first: int, last: int) -> None:
    publish_positions(lake, folder / "journal", table, np.arange(first, last))
    ingest_journals(lake)


def test_retraining_starts_once_for_every_so_many_labels(
    lake: Lake, table: LabelTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_AFTER_LABELS", "20")
    look = Looking(retrain_on_live_labels, tmp_path / "lake")
    assert look() == "0 of 20 new live labels"
    bring(lake, tmp_path, table, 0, 19)
    assert look() == "19 of 20 new live labels"
    bring(lake, tmp_path, table, 19, 25)
    first = look()
    assert isinstance(first, dg.RunRequest)
    assert look() == "0 of 20 new live labels"
    bring(lake, tmp_path, table, 25, 45)
    second = look()
    assert isinstance(second, dg.RunRequest)
    assert first.run_key != second.run_key


def test_a_lost_cursor_asks_for_the_same_run(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    bring(lake, tmp_path, table, 0, 100)
    keys = set()
    for _ in range(2):
        found = Looking(retrain_on_live_labels, tmp_path / "lake")()
        assert isinstance(found, dg.RunRequest)
        keys.add(found.run_key)
    assert len(keys) == 1


def test_retraining_brings_the_klines_to_the_labels_days(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    ingest(lake, synthetic(), days(1))
    bring(lake, tmp_path, table, 0, 120)
    found = Looking(retrain_on_live_labels, tmp_path / "lake")()
    assert isinstance(found, dg.RunRequest)
    last = np.datetime64(int(table.labels["known_at"][:120].max()), "ms").astype("datetime64[D]")
    assert (found.tags[RANGE_START], found.tags[RANGE_END]) == ("2026-01-05", str(last))


def test_an_emptied_lake_starts_the_count_anew(lake: Lake, table: LabelTable, tmp_path: Path) -> None:
    look = Looking(retrain_on_live_labels, tmp_path / "lake")
    bring(lake, tmp_path, table, 0, 100)
    assert isinstance(look(), dg.RunRequest)
    look.lake = str(tmp_path / "other")
    assert look() == "0 of 100 new live labels"
    other = Lake(look.lake)
    publish_positions(other, tmp_path / "other-journal", table, np.arange(50))
    ingest_journals(other)
    assert look() == "50 of 100 new live labels"


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
