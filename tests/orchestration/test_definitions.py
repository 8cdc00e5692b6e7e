"""The definitions: complete, quick to load, and pointed by the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from market.lake import Lake
from models_registry.demotion import DemotionRules
from models_registry.gate import GateRules
from orchestration import environment
from orchestration.assets.training import Beginning
from orchestration.definitions import definitions, defs
from orchestration.gate_settings import GateSettings
from orchestration.jobs import CONTINUE, EVALUATE, INGEST, LEARN, retrain, retrain_from_scratch
from orchestration.partitions import DAYS, daily
from orchestration.resources import LakeResource, TrainingSettings, from_environment, parse_time
from orchestration.sensors import every_week_from_scratch
from orchestration.training_data import LEARNT
from trading_worker.settings import load

ASSETS = {*INGEST, "live_labels", *LEARN, *EVALUATE, "live_record"}


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
    assert {name: spec.blocking for name, spec in checks.items()} == {
        "klines_are_sound": True,
        "bundle_is_whole": True,
        "networks_are_quantised": False,
    }


def test_the_sensors_run_by_default() -> None:
    sensors = {sensor.name: sensor.default_status for sensor in defs.sensors or []}
    names = ("new_journal_segments", "retrain_on_live_labels", "champion_to_watch")
    assert sensors == dict.fromkeys(names, dg.DefaultSensorStatus.RUNNING)


def test_the_retraining_of_live_labels_goes_on_from_the_champion_and_the_weekly_one_begins_anew() -> None:
    assert retrain.config == CONTINUE
    assert retrain_from_scratch.config is None
    jobs = {job.name: defs.resolve_job_def(job.name) for job in (retrain, retrain_from_scratch)}
    for job in jobs.values():
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} >= set(LEARN)
    assert Beginning().champion is False
    schedules = {schedule.name: schedule.default_status for schedule in defs.schedules or []}
    assert schedules["every_week_from_scratch"] == dg.DefaultScheduleStatus.RUNNING
    assert schedules["every_day"] == dg.DefaultScheduleStatus.STOPPED


def test_nothing_begins_anew_before_there_is_a_bundle(tmp_path: Path) -> None:
    store = Lake(str(tmp_path / "lake"))
    context = dg.build_schedule_context(resources={"lake": LakeResource(uri=store.uri)})
    found = every_week_from_scratch(context)
    assert isinstance(found, dg.SkipReason)
    store.put_bytes(LEARNT, b"{}")
    assert isinstance(every_week_from_scratch(context), dg.RunRequest)


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


def test_whole_numbers_are_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNIVERSE_SIZE", "TRAINING_HISTORY_DAYS", "TRAINING_EPOCHS", "TRAINING_SEED"):
        monkeypatch.setenv(name, "3")
    found = from_environment()
    assert found["market"].universe_size == 3  # type: ignore[attr-defined]
    assert found["training"].history_days == found["training"].epochs == found["training"].seed == 3  # type: ignore[attr-defined]
    monkeypatch.setenv("UNIVERSE_SIZE", "all")
    with pytest.raises(ValueError, match="all"):
        from_environment()


def test_the_gate_is_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (name for name in os.environ if name.startswith("GATE_") or name == "STRATEGY_MODE"):
        monkeypatch.delenv(name)
    assert from_environment()["gate"] == GateSettings(), "the defaults are one"
    for name, value in {
        "GATE_EVIDENCE": "not_worse",
        "GATE_FEWEST_POSITIONS": "30",
        "GATE_FEWEST_DAYS": "1.5",
        "GATE_FEWEST_ROWS": "20",
        "GATE_LOG_LOSS_TOLERANCE": "0.01",
        "GATE_CALIBRATION_TOLERANCE": "0.03",
        "GATE_DRAWDOWN_RATIO": "3",
        "GATE_DRAWDOWN_FLOOR_R": "4",
        "GATE_TURNOVER_RATIO": "5",
        "GATE_LATENCY_BUDGET_MS": "6.5",
        "GATE_DEMOTION_POSITIONS": "70",
        "STRATEGY_MODE": "ict",
    }.items():
        monkeypatch.setenv(name, value)
    gate = from_environment()["gate"].process_config_and_initialize()  # type: ignore[attr-defined]
    assert gate.rules(3) == GateRules(
        evidence="not_worse",
        fewest_rows=20,
        fewest_positions=30,
        fewest_days=1.5,
        tolerance=0.01,
        calibration_tolerance=0.03,
        drawdown_ratio=3.0,
        drawdown_floor_r=4.0,
        turnover_ratio=5.0,
        latency_budget_ms=6.5,
        seed=3,
    )
    assert gate.demotion(3) == DemotionRules(fewest_positions=70, seed=3)
    assert gate.engine(TrainingSettings()).strategy_mode == "ict"


def test_the_gates_defaults_are_those_of_its_rules() -> None:
    assert GateSettings().rules(0) == GateRules()
    assert GateSettings().demotion(0) == DemotionRules()


def test_the_replay_trades_as_a_worker_of_the_same_environment_does() -> None:
    trained = TrainingSettings(min_confidence=0.4, market_regime_prediction=True, liquidity_hunting=True)
    variables = {
        "MIN_CONFIDENCE": "0.4",
        "ENABLE_MARKET_REGIME_PREDICTION": "true",
        "ENABLE_LIQUIDITY_HUNTING": "true",
    }
    replayed = GateSettings().engine(trained)
    assert replayed.costs == trained.costs(), "one for every bundle, whatever its own"
    assert replace(replayed, costs=None) == load(variables).engine()


def test_days_end_where_they_are_told_to() -> None:
    assert daily("2026-01-05", "2026-01-08").get_partition_keys() == ["2026-01-05", "2026-01-06", "2026-01-07"]
    assert daily("2020-01-05", None).get_partition_keys()[-1] >= "2026-01-01"


def test_a_time_that_is_none_is_refused() -> None:
    assert parse_time("2026-01-05T00:00:00+02:00") == parse_time("2026-01-04T22:00:00")
    with pytest.raises(ValueError, match="tomorrow"):
        parse_time("tomorrow")
