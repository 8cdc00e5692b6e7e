"""`perpforge features`: what it proves, what it refuses, and that it can fail."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import csv, parquet
from typer.testing import CliRunner, Result

import features
from features import DECISION_SPEC, SPEC, checking
from features.families import candle, volume
from features.families.shared import SHARED
from features.kernels_cache import njit
from features.spec import Family, Feature, FeatureSpec
from market.bars import OPTIONAL, PRICES, Bars
from perpforge import feature_check
from perpforge.cli import app
from perpforge.feature_oracles import ORACLES
from perpforge.feature_page import REGENERATE, page
from tests.features import test_smart_money_concepts, test_talib
from tests.features.series import START_MS, make_bars
from tests.features.series_kernels import KERNELS

MINUTES = 2_000
SMALL = FeatureSpec((candle.CANDLE, *(f for f in vars(volume).values() if isinstance(f, Family))), SHARED)
"""Few features with short warm-ups, so that small files will do."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SPEC", SMALL)


def columns(bars: Bars, names: tuple[str, ...] = ("open_time", *PRICES, "volume", *OPTIONAL)) -> dict[str, Any]:
    return {name: bars[name].copy() for name in names}


def write(path: Path, values: dict[str, Any]) -> Path:
    table = pa.table(values)
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        parquet.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def minutes() -> Bars:
    return make_bars(MINUTES, seed=4, interval="1m")


@pytest.fixture
def recording(minutes: Bars, tmp_path: Path) -> Path:
    return write(tmp_path / "BTCUSDT-1m-x.parquet", columns(minutes))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["features", *map(str, arguments)], env={"COLUMNS": "200"})


def check(path: Path, *arguments: object, timeframe: str = "5m") -> Result:
    return run("check", "--klines", path, "--timeframe", timeframe, "--cuts", 40, *arguments)


class TestProven:
    def test_every_feature_has_a_line_of_ticks(self, recording: Path) -> None:
        result = check(recording)
        assert result.exit_code == feature_check.PROVEN, result.output
        for name in SMALL.names:
            line = next(line for line in result.output.splitlines() if f" {name} " in line)
            assert line.count("✓") == len(checking.PROOFS)
        assert "PROVEN" in result.output
        assert "reads one bar ahead was caught" in result.output
        assert "400" in result.output

    def test_a_csv_and_a_folder_say_the_same(self, minutes: Bars, recording: Path, tmp_path: Path) -> None:
        expected = json.loads(check(recording, "--json").output)["series"][0]
        folder = tmp_path / "folder"
        folder.mkdir()
        text = write(folder / "BTCUSDT-1m-x.csv", columns(minutes))
        assert json.loads(check(text, "--json").output)["series"][0] == expected
        write(folder / "ETHUSDT-1m-x.parquet", columns(minutes))
        (folder / "README.md").touch()
        found = json.loads(check(folder, "--json").output)
        assert [each["symbol"] for each in found["series"]] == ["BTCUSDT", "ETHUSDT"]
        assert [each["failures"] for each in found["series"]] == [[], []]

    def test_json_says_what_was_checked(self, recording: Path) -> None:
        result = check(recording, "--json", "--seed", 3)
        found = json.loads(result.output)
        assert (found["verdict"], found["exit_code"], result.exit_code) == ("proven", 0, 0)
        assert (found["spec"], found["seed"], found["features"]) == (SMALL.id, 3, len(SMALL.names))
        (series,) = found["series"]
        assert (series["symbol"], series["timeframe"], series["bars"], series["cuts"]) == ("BTCUSDT", "5m", 400, 40)
        assert (series["first_ms"], series["longest_stretch"]) == (START_MS, 400)
        assert series["control_caught_by"] == ["prefix", "poison"]

    def test_longer_bars_are_taken_as_they_are(self, tmp_path: Path) -> None:
        path = write(tmp_path / "BTCUSDT-1h-x.parquet", columns(make_bars(400, interval="1h")))
        found = json.loads(run("check", "--klines", path, "--cuts", 10, "--json").output)
        assert [(each["timeframe"], each["bars"]) for each in found["series"]] == [("1h", 400)]


class TestIncomplete:
    def test_too_few_bars_are_never_a_pass(self, recording: Path) -> None:
        result = run("check", "--klines", recording, "--cuts", 10)
        assert result.exit_code == feature_check.INCOMPLETE
        assert "BTCUSDT 15m: too few bars for" in result.output
        needed = SMALL.warmup + checking.WARM_BARS
        assert f"{needed:,} without a long gap are needed" in result.output
        assert "INCOMPLETE" in result.output
        line = next(line for line in result.output.splitlines() if f" {SMALL.names[-1]} " in line)
        assert "✓ – –" in line

    def test_json_lists_each_with_the_bars_it_takes(self, recording: Path) -> None:
        found = json.loads(check(recording, "--json", timeframe="1h").output)
        assert (found["verdict"], found["exit_code"]) == ("incomplete", 3)
        needed = {each["feature"]: each["bars_needed"] for each in found["series"][0]["too_short"]}
        assert needed == {f.name: f.warmup + checking.WARM_BARS for f in SMALL.features}

    @pytest.mark.parametrize("rows", [1, 3, 7])
    def test_almost_no_bars(self, minutes: Bars, tmp_path: Path, rows: int) -> None:
        path = write(tmp_path / "BTCUSDT-1m-x.parquet", columns(minutes[:rows]))
        assert check(path).exit_code == feature_check.INCOMPLETE
        assert check(path, timeframe="1m").exit_code == feature_check.INCOMPLETE

    def test_what_is_never_measured_is_told(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        family = Family("silent", (Feature("silent", 1, "x", "x", 0.0, 1.0, nan=True),), 0, _silent)
        monkeypatch.setattr(features, "SPEC", FeatureSpec((family,), SHARED))
        result = check(recording)
        assert result.exit_code == feature_check.INCOMPLETE
        assert "never anything to measure for silent" in result.output


class TestNotes:
    def test_columns_that_the_klines_lack(self, minutes: Bars, tmp_path: Path) -> None:
        path = write(tmp_path / "BTCUSDT-1m-x.parquet", columns(minutes, ("open_time", *PRICES, "volume")))
        result = check(path)
        assert result.exit_code == feature_check.PROVEN, result.output
        assert "the klines have no trades, taker_buy_base, taker_buy_quote" in result.output
        line = next(line for line in result.output.splitlines() if " taker_imbalance " in line)
        assert "∅" in line

    def test_a_gap_that_is_not_bridged(self, minutes: Bars, tmp_path: Path) -> None:
        path = write(tmp_path / "BTCUSDT-1m-x.parquet", columns(np.delete(minutes, slice(500, 570))))
        result = check(path)
        assert result.exit_code == feature_check.PROVEN, result.output
        assert "BTCUSDT 5m: 14 bars are missing from 2026-01-05T08:20:00Z to 2026-01-05T09:30:00Z" in result.output
        gap = json.loads(check(path, "--json").output)["series"][0]["gaps"]
        assert gap == [{"missing": 14, "from_ms": START_MS + 30_000_000, "to_ms": START_MS + 34_200_000}]

    def test_a_gap_that_is_bridged_is_none(self, minutes: Bars, tmp_path: Path) -> None:
        path = write(tmp_path / "BTCUSDT-1m-x.parquet", columns(np.delete(minutes, slice(500, 560))))
        found = json.loads(check(path, "--json").output)
        assert (found["exit_code"], found["series"][0]["gaps"], found["series"][0]["bars"]) == (0, [], 388)


class TestFailed:
    def test_a_feature_that_peeks(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(feature_check, "compute", peeking("body_fraction"))
        result = check(recording)
        assert result.exit_code == feature_check.FAILED
        assert "FAILED: 1 of" in result.output
        line = next(line for line in result.output.splitlines() if " body_fraction " in line)
        assert line.count("✗") == 4
        assert "2026-01-0" in result.output
        found = json.loads(check(recording, "--json").output)
        failures = found["series"][0]["failures"]
        assert {(each["feature"], each["proof"]) for each in failures} == {
            ("body_fraction", proof) for proof in ("prefix", "poison", "live", "range")
        }
        # The row before a cut has nothing to peek at, as the last one has not.
        assert all(each["found"] is None for each in failures if each["proof"] == "prefix")
        assert all(each["time"] == _utc(each["open_time"]) for each in failures)

    def test_a_warm_up_that_is_too_short(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        hasty = replace(candle.CANDLE, features=tuple(replace(f, warmup=2) for f in candle.CANDLE.features))
        monkeypatch.setattr(features, "SPEC", FeatureSpec((hasty,), SHARED))
        result = check(recording, "--json")
        assert result.exit_code == feature_check.FAILED
        failed = {(each["feature"], each["proof"]) for each in json.loads(result.output)["series"][0]["failures"]}
        assert ("bar_close_move", "forgetting") in failed
        assert {proof for _, proof in failed} == {"forgetting"}

    def test_a_range_that_is_left(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        narrow = replace(
            candle.CANDLE,
            features=tuple(replace(f, high=0.01) if f.name == "body_fraction" else f for f in candle.CANDLE.features),
        )
        monkeypatch.setattr(features, "SPEC", FeatureSpec((narrow,), SHARED))
        (failure,) = json.loads(check(recording, "--json").output)["series"][0]["failures"]
        assert (failure["feature"], failure["proof"]) == ("body_fraction", "range")
        assert failure["found"] > failure["expected"] == pytest.approx(0.01)

    def test_proofs_that_let_the_control_pass(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checking, "control", lambda bars: ("prefix",))
        result = check(recording)
        assert result.exit_code == feature_check.FAILED
        assert "these proofs prove nothing" in result.output


def set_column(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {**values, name: value(values[name]) if callable(value) else value}


def changed(row: int, to: Callable[[NDArray[Any]], Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(column: NDArray[Any]) -> NDArray[Any]:
        column = column.copy()
        column[row - 1] = to(column)
        return column

    return change


BAD_ROWS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "an unknown column": (
        lambda values: {**values, "vwap": values["close"]},
        "column vwap: its column vwap is unknown",
    ),
    "text": (set_column("high", lambda c: [*map(str, c[:-1]), "dear"]), "row 20, column high: .*not a number"),
    "fractional times": (set_column("open_time", lambda c: c + 0.5), "column open_time: .*whole milliseconds"),
    "a repeated time": (set_column("open_time", changed(5, lambda c: c[3])), "row 5, column open_time: .*repeats"),
    "descending times": (set_column("open_time", lambda c: c[::-1].copy()), "row 2, column open_time: .*older"),
    "a price that is none": (set_column("low", changed(7, lambda _: np.nan)), "row 7, column low: .*finite"),
    "a price of zero": (set_column("close", changed(7, lambda _: 0.0)), "row 7, column close: .*positive"),
    "a high under the low": (set_column("high", changed(7, lambda _: 0.01)), "row 7, column high: .*high"),
    "a negative volume": (set_column("volume", changed(7, lambda _: -1.0)), "row 7, column volume: .*negative"),
    "no close": (lambda values: {k: v for k, v in values.items() if k != "close"}, "column close: it has no column"),
    "no rows": (lambda values: {k: v[:0] for k, v in values.items()}, "it has no row"),
}


class TestUnusable:
    @pytest.mark.parametrize("suffix", ["parquet", "csv"])
    @pytest.mark.parametrize("case", BAD_ROWS)
    def test_the_file_row_and_column_are_named(self, case: str, suffix: str, minutes: Bars, tmp_path: Path) -> None:
        spoil, said = BAD_ROWS[case]
        path = write(tmp_path / f"BTCUSDT-1m-x.{suffix}", spoil(columns(minutes[:20])))
        result = check(path)
        assert result.exit_code == feature_check.UNUSABLE
        assert str(path) in result.stderr
        if suffix == "parquet" or "row" in said:
            assert re.search(said if suffix == "parquet" else said.split(":")[0], result.stderr), result.stderr

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("absent.parquet", None, "no such file"),
            ("BTCUSDT-1m.json", b"{}", "parquet, .csv or .zip"),
            ("BTCUSDT-1m.csv", b"", "empty"),
            ("BTCUSDT-1m.parquet", b"PAR1", "cannot|not|Parquet"),
        ],
    )
    def test_what_is_no_recording(self, name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        result = check(path)
        assert result.exit_code == feature_check.UNUSABLE
        assert str(path) in result.stderr
        assert re.search(said, result.stderr), result.stderr

    def test_a_folder_without_minutes(self, tmp_path: Path) -> None:
        result = check(tmp_path)
        assert result.exit_code == feature_check.UNUSABLE
        assert "holds no file named SYMBOL-1m" in result.stderr

    def test_a_folder_whose_files_contradict_each_other(self, minutes: Bars, tmp_path: Path) -> None:
        write(tmp_path / "BTCUSDT-1m-a.parquet", columns(minutes))
        values = columns(minutes)
        values["volume"][7] += 1
        write(tmp_path / "BTCUSDT-1m-b.parquet", values)
        result = check(tmp_path)
        assert result.exit_code == feature_check.UNUSABLE
        assert "two recordings of this minute differ" in result.stderr

    def test_timeframes_that_cannot_be(self, recording: Path, tmp_path: Path) -> None:
        assert check(recording, timeframe="7m").exit_code == feature_check.UNUSABLE
        hours = write(tmp_path / "BTCUSDT-1h-x.parquet", columns(make_bars(50, interval="1h")))
        result = check(hours, timeframe="5m")
        assert result.exit_code == feature_check.UNUSABLE
        assert "bars of 5m cannot be made of bars of 1h" in result.stderr


class TestList:
    def test_every_feature_is_listed(self) -> None:
        result = run("list")
        assert result.exit_code == 0
        for name in SMALL.names:
            assert f" {name} " in result.output

    def test_json(self) -> None:
        found = json.loads(run("list", "--json").output)
        assert found["spec"] == SMALL.id
        assert [each["name"] for each in found["features"]] == list(SMALL.names)
        first = found["features"][0]
        assert set(first) >= {"name", "family", "version", "warmup", "unit", "low", "high", "formula"}

    def test_the_page_is_what_the_specifications_say(self) -> None:
        """A change of the features: .venv/bin/perpforge features list --markdown > docs/features.md."""
        path = Path(__file__).resolve().parents[2] / "docs" / "features.md"
        assert path.read_text() == page(DECISION_SPEC), f"write it anew: {REGENERATE}"

    def test_the_page_tells_every_difference_to_ta_lib(self) -> None:
        warmups = {feature.name: feature.warmup for feature in SPEC.features}
        later = {name: bar for name, (bar, _) in test_talib.TABLE.items() if bar > warmups[name]}
        assert later.pop("chaikin_money_flow_20") == 21
        told = {
            name: (int(warm_up), int(bar))
            for names, warm_up, bar in re.findall(r"^  \| (`.*`) \| (\d+) \| (\d+) \|$", ORACLES, re.MULTILINE)
            for name in re.findall("`([a-z0-9_]+)`", names)
        }
        assert told == {name: (warmups[name], bar) for name, bar in later.items()}
        lacking = set(KERNELS.names) - set(test_talib.TABLE)
        assert lacking == set(re.findall("`([a-z0-9_]+)`", ORACLES.partition("TA-Lib lacks")[2].partition("\n\n")[0]))

    def test_the_page_tells_every_difference_to_smart_money_concepts(self) -> None:
        told = [line.strip("| ").split(" | ")[-3:] for line in ORACLES.splitlines() if line.startswith("|")][2:]
        smc = test_smart_money_concepts
        counted = [
            [reason, str(count), str(table["LTCUSDT"].get(reason, 0))]
            for table in (smc.SWINGS, smc.GAPS, smc.FILLINGS, smc.BREAKS, smc.KINDS)
            for reason, count in table["BTCUSDT"].items()
        ]
        assert told == counted
        assert all(set(t["LTCUSDT"]) <= set(t["BTCUSDT"]) for t in (smc.SWINGS, smc.GAPS, smc.FILLINGS, smc.BREAKS))

    def test_the_page_has_every_feature_and_block(self) -> None:
        text = page(DECISION_SPEC)
        for name in SPEC.names:
            assert f"| `{name}` |" in text
        for part in ("## Decision rows", "calendar.", "funding.", "## How they are proven", "## Adding a feature"):
            assert part in text


@njit
def _silent(state: NDArray[np.float64], out: NDArray[np.float64], close: float) -> None:
    """Nothing, ever."""
    out[0] = np.nan


def peeking(name: str) -> Callable[..., NDArray[np.float32]]:
    """The true rows, but `name` is the next bar's."""
    true = features.compute

    def rows(bars: Bars, spec: FeatureSpec) -> NDArray[np.float32]:
        found = true(bars, spec)
        column = spec.index(name)
        found[:-1, column] = found[1:, column]
        found[-1:, column] = np.nan
        return found

    return rows


def _utc(time_ms: int) -> str:
    from market.errors import utc

    return utc(time_ms)
