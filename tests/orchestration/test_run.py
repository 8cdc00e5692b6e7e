"""Materialising from a program: what it gives, what it keeps, and how it fails."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from market import kline_days
from market.bars import DAY_MS
from market.klines_store import read_all, write_day
from market.lake import Lake
from orchestration import ingest as ingest_module
from orchestration.ingest import MarketView
from orchestration.resources import MarketResource
from orchestration.run import MaterialisationFailed, Progress, instance, materialise, resources
from tests.orchestration.markets import FIRST, SOURCE, START, Holes

DAYS = ("2026-01-05", "2026-01-06")


def lake_of(home: Path) -> Lake:
    return Lake(str(home / "lake"))


def run(home: Path, *selection: str, said: list[Progress] | None = None) -> None:
    materialise(
        selection,
        home=home,
        resources=resources(home, source=SOURCE),
        days=DAYS,
        progress=said.append if said is not None else None,
    )


def test_data_assets_say_what_they_did(tmp_path: Path) -> None:
    said: list[Progress] = []
    made = materialise(
        ["universe", "klines", "funding", "features"],
        home=tmp_path,
        resources=resources(tmp_path, source=SOURCE),
        days=DAYS,
        progress=said.append,
    )
    assert made.checks == {"klines_are_sound": True}
    assert made.metadata["klines"]["bars_of_run"] == 2 * 3 * 1440
    assert made.metadata["klines"]["bars"] == 3 * 1440  # of the last day
    assert made.metadata["klines"]["closes"].startswith("![closes](data:image/png;base64,")
    assert made.metadata["features"]["rows_of_run"] == 2 * 3 * (288 + 96 + 24)
    steps = [(each.step, each.kind) for each in said if each.kind != "log"]
    assert steps.index(("klines_klines_are_sound", "success")) < steps.index(("features", "start"))
    assert any(each.kind == "log" and "day 2 of 2" in each.message for each in said)
    with instance(tmp_path) as kept:
        (record,) = kept.get_run_records()
        assert record.dagster_run.run_id == made.run_id
        assert record.dagster_run.status == dg.DagsterRunStatus.SUCCESS
        days = kept.get_materialized_partitions(dg.AssetKey("features"))
    assert days == set(DAYS)
    assert (tmp_path / "dagster" / "dagster.yaml").exists()


def test_klines_with_a_gap_block_what_is_built_on_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that loses minutes and does not say so."""

    def losing(lake: Lake, date: str, bars: dict[str, np.ndarray]) -> str:
        return write_day(lake, date, bars | {"BTCUSDT": np.delete(bars["BTCUSDT"], slice(600, 610))})

    monkeypatch.setattr(kline_days, "write_day", losing)
    said: list[Progress] = []
    with pytest.raises(MaterialisationFailed) as failed:
        run(tmp_path, "universe", "klines", "funding", "features", "labels", said=said)
    assert failed.value.step == "klines_are_sound"
    assert "BTCUSDT: 10 minutes from 2026-01-05T10:00:00Z" in failed.value.reason
    assert {each.step for each in said if each.kind == "start"} == {
        "universe", "klines", "funding", "klines_klines_are_sound",
    }  # fmt: skip
    assert lake_of(tmp_path).list("features") == []


def test_features_on_their_own_refuse_such_klines_too(tmp_path: Path) -> None:
    run(tmp_path, "universe", "klines")
    lake = lake_of(tmp_path)
    bars = read_all(lake, START, START + DAY_MS)
    write_day(lake, FIRST, bars | {"ETHUSDT": bars["ETHUSDT"][1:]})
    with pytest.raises(MaterialisationFailed, match="ETHUSDT: 1 minutes from 2026-01-05T00:00:00Z") as failed:
        run(tmp_path, "features")
    assert failed.value.step == "features"


def test_a_failure_names_the_asset_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(MaterialisationFailed, match=r"training/current\.json") as failed:
        run(tmp_path, "win_classifier")
    assert failed.value.step == "win_classifier"


def test_a_source_that_gives_nothing_blocks_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Holes(START, START + DAY_MS, heals=False)
    monkeypatch.setattr(MarketResource, "view", lambda self: MarketView(source))
    with pytest.raises(MaterialisationFailed, match="BTCUSDT: 1440 of the 1440 minutes") as failed:
        run(tmp_path, "universe", "klines", "features")
    assert failed.value.step == "klines_are_sound"
    assert lake_of(tmp_path).list("features") == []


def test_days_that_were_dropped_are_named_where_the_run_is_looked_at(tmp_path: Path) -> None:
    run(tmp_path, "universe", "klines", "features")
    lake = lake_of(tmp_path)
    bars = read_all(lake, START, START + DAY_MS)
    bars["ETHUSDT"]["close"][:] = bars["ETHUSDT"]["open"]
    write_day(lake, FIRST, bars)
    said: list[Progress] = []
    made = materialise(
        ["features"],
        home=tmp_path,
        resources=resources(tmp_path, source=SOURCE),
        days=(FIRST, FIRST),
        progress=said.append,
    )
    assert made.metadata["features"]["dropped_days"] == 1
    assert made.metadata["features"]["materialise_again"] == "2026-01-06 to 2026-01-06"
    assert any("materialise features of 2026-01-06 to 2026-01-06 again" in each.message for each in said)
    made = materialise(["features"], home=tmp_path, resources=resources(tmp_path, source=SOURCE), days=DAYS)
    assert made.metadata["features"]["dropped_days"] == 0


@pytest.mark.parametrize("when", ["during an asset", "between two"])
def test_an_interruption_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Ctrl-C while an asset is at work, and while Dagster itself is."""
    said: list[Progress] = []

    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def listen(progress: Progress) -> None:
        said.append(progress)
        if when == "between two" and (progress.step, progress.kind) == ("universe", "success"):
            interrupt()

    if when == "during an asset":
        monkeypatch.setattr(ingest_module, "store_universe", interrupt)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            materialise(
                ["universe", "klines"],
                home=tmp_path,
                resources=resources(tmp_path, source=SOURCE),
                days=DAYS,
                progress=listen,
            )
    finally:
        signal.signal(signal.SIGTERM, before)  # Dagster leaves it with the handler of SIGINT
    assert ("klines", "success") not in {(each.step, each.kind) for each in said}
    assert lake_of(tmp_path).list("klines") == []


def test_an_asset_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dg.DagsterInvalidSubsetError, match="klins"):
        run(tmp_path, "klins")
