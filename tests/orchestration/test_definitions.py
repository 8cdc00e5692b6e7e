"""The definitions: complete, quick to load, and pointed by the environment."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest

from orchestration import environment
from orchestration.definitions import definitions, defs
from orchestration.jobs import INGEST, LEARN
from orchestration.partitions import DAYS, daily
from orchestration.resources import LakeResource, from_environment, parse_time

ASSETS = {*INGEST, "live_labels", *LEARN}


def specs() -> list[dg.AssetSpec]:
    return list(defs.resolve_all_asset_specs())


def test_every_asset_is_described_owned_and_placed() -> None:
    assert {spec.key.to_user_string() for spec in specs()} == ASSETS
    for spec in specs():
        assert spec.description, spec.key
        assert spec.owners, spec.key
        assert spec.kinds, spec.key
        assert spec.group_name in {"market", "features", "training", "models", "bundle"}, spec.key


def test_data_is_cut_by_day_and_a_range_is_one_run() -> None:
    graph = defs.resolve_asset_graph()
    for name in INGEST:
        node = graph.get(dg.AssetKey(name))
        assert node.partitions_def == DAYS
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_checks_block() -> None:
    checks = {spec.name: spec for check in defs.asset_checks or [] for spec in check.check_specs}
    assert {name: spec.blocking for name, spec in checks.items()} == {"klines_are_sound": True, "bundle_is_whole": True}


def test_the_sensors_run_by_default() -> None:
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or []}
    assert sensors == dict.fromkeys(("new_journal_segments", "retrain_on_live_labels"), dg.DefaultSensorStatus.RUNNING)


def test_loading_imports_nothing_heavy() -> None:
    program = (
        "import sys, orchestration.definitions\n"
        "heavy = ('tensorflow', 'keras', 'mlflow', 'xgboost', 'sklearn', 'matplotlib', 'pandas', 'numba', 'onnx')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "BetaWarning" not in done.stderr


def test_a_variable_that_is_set_is_shown_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAKE_URI", raising=False)
    assert environment.text("LAKE_URI", "here") == "here"
    monkeypatch.setenv("LAKE_URI", "s3://bucket/lake")
    assert environment.text("LAKE_URI", "here") == dg.EnvVar("LAKE_URI")
    lake = definitions(from_environment()).resources["lake"]  # type: ignore[index]
    assert isinstance(lake, LakeResource)
    assert lake.process_config_and_initialize().uri == "s3://bucket/lake"


def test_days_end_where_they_are_told_to() -> None:
    assert daily("2026-01-05", "2026-01-08").get_partition_keys() == ["2026-01-05", "2026-01-06", "2026-01-07"]
    assert daily("2020-01-05", None).get_partition_keys()[-1] >= "2026-01-01"


def test_a_time_that_is_none_is_refused() -> None:
    assert parse_time("2026-01-05T00:00:00+02:00") == parse_time("2026-01-04T22:00:00")
    with pytest.raises(ValueError, match="tomorrow"):
        parse_time("tomorrow")
