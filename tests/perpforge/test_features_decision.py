"""`perpforge features check --decision`, and lakes as a source: what is proven, refused, and that it can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

import features
from features import decision_checking
from features import decision_proofs as proofs
from features.decision_controls import CONTROLS, cheating
from features.decision_spec import DecisionSpec
from features.decision_table import history_table, names_of
from market import funding
from market.bars import DAY_MS, OPTIONAL, PRICES, Bars
from market.klines_store import date_of, write_day, write_funding
from market.lake import Lake
from perpforge import decision_check, feature_check
from perpforge.cli import app
from tests.features.series import START_MS, make_bars

DAYS = 14
QUICK = DecisionSpec(timeframes=("5m", "15m"))
"""Without the hours, two weeks are enough for every column."""
SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "DECISION_SPEC", QUICK)


def minutes(symbol: str) -> Bars:
    bars = make_bars(DAYS * 1440, seed=SYMBOLS.index(symbol) + 4, interval="1m", step=0.0007)
    return bars if symbol == "BTCUSDT" else np.delete(bars, slice(700, 716))


def write(path: Path, bars: Bars) -> Path:
    columns: dict[str, Any] = {name: bars[name].copy() for name in ("open_time", *PRICES, "volume", *OPTIONAL)}
    parquet.write_table(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("klines")
    for symbol in SYMBOLS:
        write(path / f"{symbol}-1m-x.parquet", minutes(symbol))
    return path


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a demo leaves it."""
    path = tmp_path_factory.mktemp("lake")
    stored = Lake(str(path))
    market = {symbol: minutes(symbol) for symbol in SYMBOLS}
    for day in range(DAYS):
        start = START_MS + day * DAY_MS
        of_day = {s: b[(b["open_time"] >= start) & (b["open_time"] < start + DAY_MS)] for s, b in market.items()}
        write_day(stored, date_of(start), of_day)
    times = START_MS + np.arange(DAYS * 3) * 28_800_000 + 4
    write_funding(stored, "2026-01", {s: funding.from_columns(times, np.sin(times)) for s in SYMBOLS})
    return path


def check(path: Path, *arguments: object, cuts: int = 8) -> Result:
    words = ["features", "check", "--klines", str(path), "--cuts", str(cuts), *map(str, arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "200"})


def line_of(result: Result, first: str) -> str:
    return next(line for line in result.output.splitlines() if line.startswith(f"│ {first}"))


class TestDecision:
    def test_a_lake_is_proven(self, lake: Path) -> None:
        result = check(lake, "--decision")
        assert result.exit_code == feature_check.PROVEN, result.output
        assert f"PROVEN: {len(names_of(QUICK))} columns on" in result.output
        assert f"all of {len(CONTROLS)} ways to read ahead were caught" in result.output
        for group, number in (("5m.", 86), ("15m.", 87), ("cross.", 6), ("calendar.", 7), ("funding.", 2)):
            assert line_of(result, group).count(f"✓ {number}") == len(decision_checking.PROOFS)
        assert "4,032 waves, 4 with absentees" in result.output

    def test_a_folder_has_no_fundings_and_says_so(self, folder: Path) -> None:
        found = json.loads(check(folder, "--decision", "--json").output)
        assert (found["verdict"], found["exit_code"], found["failures"]) == ("proven", 0, [])
        assert (found["spec"], found["symbols"], found["columns"]) == (QUICK.id, list(SYMBOLS), len(names_of(QUICK)))
        assert {each["column"] for each in found["nan_by_rule"]} == {"funding.minutes_to_next", "funding.last_rate"}
        assert any("no funding is known" in note for note in found["notes"])

    def test_too_short_a_market_is_no_pass(self, lake: Path) -> None:
        result = check(lake, "--decision", "--days", 3)
        assert result.exit_code == feature_check.INCOMPLETE
        assert "too few rows for 5m.ema_200_distance" in result.output
        assert "INCOMPLETE" in result.output

    def test_almost_nothing(self, lake: Path) -> None:
        assert check(lake, "--decision", "--days", 0.01).exit_code == feature_check.INCOMPLETE

    def test_one_symbol_without_the_benchmark(self, lake: Path) -> None:
        result = check(lake, "--decision", "--symbol", "ETHUSDT", "--days", 3)
        assert "there is no BTCUSDT to measure against" in result.output
        assert "one symbol is no cross-section" in result.output

    @pytest.mark.parametrize("cheat", CONTROLS)
    def test_rows_that_read_ahead(self, lake: Path, cheat: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decision_check, "table_of", partial(cheating, cheat))
        found = json.loads(check(lake, "--decision", "--days", 1, "--json").output)
        assert (found["verdict"], found["exit_code"]) == ("failed", feature_check.FAILED)
        caught = {proof: [e["column"] for e in found["failures"] if e["proof"] == proof] for proof in found["proofs"]}
        assert caught["prefix"]
        assert caught["poison"]
        assert all(CONTROLS[cheat].cheats(QUICK, each["column"]) for each in found["failures"])

    def test_what_failed_is_told(self, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decision_check, "table_of", partial(cheating, "a column one wave ahead"))
        result = check(lake, "--decision", "--days", 1)
        assert result.exit_code == feature_check.FAILED
        assert "FAILED: 1 of" in result.output
        assert "✗ 1" in line_of(result, "5m.")
        assert "│ 5m.return_1 │ prefix │ BTCUSDT │ 2026-01-1" in result.output

    def test_proofs_that_let_a_cheat_pass(self, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(proofs, "poison", lambda *_: [])
        result = check(lake, "--decision", "--days", 3)
        assert result.exit_code == feature_check.FAILED
        assert "not caught: a column one wave ahead" in result.output
        assert "these proofs prove nothing" in result.output


class TestLake:
    def test_it_gives_what_its_klines_would_as_files(self, lake: Path, folder: Path) -> None:
        where = ("--timeframe", "5m", "--json")
        found = [json.loads(check(path, *where).output)["series"] for path in (lake, folder)]
        assert found[0] == found[1]
        assert [each["symbol"] for each in found[0]] == list(SYMBOLS)

    def test_symbols_and_days(self, lake: Path, folder: Path) -> None:
        for path in (lake, folder):
            result = check(path, "--timeframe", "5m", "--symbol", "ETHUSDT", "--days", 5, "--json")
            (series,) = json.loads(result.output)["series"]
            assert (series["symbol"], series["bars"]) == ("ETHUSDT", 5 * 288)


def a_bar_that_cannot_be(values: dict[str, Any]) -> None:
    values["high"][77] = values["low"][77] / 2


def a_minute_twice(values: dict[str, Any]) -> None:
    values["open_time"][77] = values["open_time"][76]


class TestUnusable:
    def test_symbols_that_are_not_there(self, lake: Path, folder: Path) -> None:
        for path in (lake, folder):
            result = check(path, "--decision", "--symbol", "BTCUSDT", "--symbol", "SOLUSDT")
            assert result.exit_code == feature_check.UNUSABLE
            assert "it has no klines of SOLUSDT: there is BTCUSDT" in result.stderr

    def test_a_timeframe_for_decision_rows(self, lake: Path) -> None:
        result = check(lake, "--decision", "--timeframe", "5m")
        assert result.exit_code == feature_check.UNUSABLE
        assert "timeframes of their own" in result.stderr

    def test_hours(self, tmp_path: Path) -> None:
        path = write(tmp_path / "BTCUSDT-1h-x.parquet", make_bars(500, interval="1h"))
        result = check(path, "--decision")
        assert result.exit_code == feature_check.UNUSABLE
        assert "decision rows are made of 1m klines, those of BTCUSDT are of 1h" in result.stderr

    def test_a_folder_that_is_neither(self, tmp_path: Path) -> None:
        (tmp_path / "klines").mkdir()
        result = check(tmp_path, "--decision")
        assert result.exit_code == feature_check.UNUSABLE
        assert "is no lake" in result.stderr

    @pytest.mark.parametrize(("spoil", "said"), [(a_bar_that_cannot_be, "high 50"), (a_minute_twice, "it repeats")])
    @pytest.mark.parametrize("arguments", [("--decision",), ("--timeframe", "5m")])
    def test_a_lake_with_a_bar_that_no_source_gave(
        self, spoil: Callable[[dict[str, Any]], None], said: str, arguments: tuple[Any, ...], tmp_path: Path
    ) -> None:
        write_day(Lake(str(tmp_path)), date_of(START_MS), {"BTCUSDT": make_bars(1440, interval="1m")})
        (file,) = tmp_path.rglob("*.parquet")
        table = parquet.ParquetFile(file).read()
        values: dict[str, Any] = {name: table[name].to_numpy().copy() for name in table.column_names}
        spoil(values)
        parquet.write_table(pa.table(values).cast(table.schema), file)
        result = check(tmp_path, *arguments)
        assert result.exit_code == feature_check.UNUSABLE
        assert f"{tmp_path}/klines: bar of BTCUSDT at 2026-01-05T01:1" in result.stderr
        assert said in result.stderr

    def test_a_lake_with_a_broken_file(self, tmp_path: Path) -> None:
        write_day(Lake(str(tmp_path)), date_of(START_MS), {"BTCUSDT": make_bars(1440, interval="1m")})
        next(tmp_path.rglob("*.parquet")).write_bytes(b"PAR1")
        result = check(tmp_path, "--decision")
        assert result.exit_code == feature_check.UNUSABLE
        assert "corrupt" in result.stderr


def test_the_quick_specification_has_all_kinds_of_columns() -> None:
    assert {decision_check.group_of(name) for name in names_of(QUICK)} == {
        *("5m", "15m", "cross", "calendar", "funding", "window", "row")
    }
    assert decision_check.table_of is history_table
