"""Recorded files: what is read, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from market.bars import DAY_MS, MINUTE_MS, OPTIONAL, PRICES, Bars, gaps, read
from market.errors import BarRejected, MarketError, RowRejected, SourceUnreadable, UnknownSymbol
from market.sources import BarSource, open_source
from market.sources.recorded import ARCHIVE_COLUMNS, RecordedMarket, read_file
from market.sources.synthetic import DEFAULT_START_MS, SyntheticMarket

START = DEFAULT_START_MS


@pytest.fixture(scope="module")
def bars() -> Bars:
    return SyntheticMarket(seed=2, symbols=1).klines("BTCUSDT", START, START + 50 * MINUTE_MS)


def columns(bars: Bars, names: tuple[str, ...] = ("open_time", *PRICES, "volume", *OPTIONAL)) -> dict[str, Any]:
    return {name: bars[name].copy() for name in names}


def write_parquet(path: Path, values: dict[str, Any]) -> Path:
    parquet.write_table(pa.table(values), path)
    return path


def archive_text(bars: Bars, header: bool) -> str:
    lines = [",".join(ARCHIVE_COLUMNS)] if header else []
    for bar in bars:
        row = [bar[name] for name in ("open_time", *PRICES, "volume", "close_time", "quote_volume")]
        row += [int(bar["trades"]), bar["taker_buy_base"], bar["taker_buy_quote"], 0]
        lines.append(",".join(str(value) for value in row))
    return "\n".join(lines) + "\n"


def test_parquet_with_all_columns(bars: Bars, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", columns(bars))
    assert read(path).tobytes() == bars.tobytes()
    assert read(str(path)).tobytes() == bars.tobytes()


def test_parquet_without_the_optional_columns(bars: Bars, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", columns(bars, ("open_time", *PRICES, "volume")))
    got = read(path)
    assert np.array_equal(got["quote_volume"], bars["close"] * bars["volume"])
    for name in ("trades", "taker_buy_base", "taker_buy_quote"):
        assert np.isnan(got[name]).all()


def test_parquet_with_nulls_and_whole_numbers(bars: Bars, tmp_path: Path) -> None:
    values = columns(bars)
    values["trades"] = pa.array([None, *(int(each) for each in bars["trades"][1:])], pa.int64())
    values["quote_volume"] = pa.array([None, *bars["quote_volume"][1:]])
    got = read(write_parquet(tmp_path / "BTCUSDT-1m.parquet", values))
    assert np.isnan(got["trades"][0])
    assert got["quote_volume"][0] == bars["close"][0] * bars["volume"][0]
    assert got[1:].tobytes() == bars[1:].tobytes()


@pytest.mark.parametrize("header", [True, False])
def test_the_archive_s_csv_and_zip(bars: Bars, tmp_path: Path, header: bool) -> None:
    plain = tmp_path / "BTCUSDT-1m-2026-01.csv"
    plain.write_text(archive_text(bars, header))
    packed = tmp_path / "BTCUSDT-1m-2026-01.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(plain, plain.name)
    assert read(plain).tobytes() == bars.tobytes()
    assert read(packed).tobytes() == bars.tobytes()


def test_the_interval_is_in_the_name_or_in_the_rows(bars: Bars, tmp_path: Path) -> None:
    values = columns(bars)
    values["open_time"] = START + 3_600_000 * np.arange(50)
    named = write_parquet(tmp_path / "BTCUSDT-1h-x.parquet", values)
    nameless = write_parquet(tmp_path / "something.parquet", values)
    for path in (named, nameless):
        got = read(path)
        assert (got["close_time"] - got["open_time"] == 3_600_000 - 1).all()
    values["open_time"] = START + 7_000 * np.arange(50)
    with pytest.raises(SourceUnreadable, match="interval"):
        read(write_parquet(tmp_path / "odd.parquet", values))


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_microseconds_are_refused(bars: Bars, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"BTCUSDT-1m-x.{suffix}"
    late = bars.copy()
    late["open_time"] *= 1000
    if suffix == "csv":
        path.write_text(archive_text(late, header=False))
    else:
        write_parquet(path, columns(late))
    with pytest.raises(SourceUnreadable, match="microseconds"):
        read(path)


def test_what_is_no_recording_is_refused_by_name(bars: Bars, tmp_path: Path) -> None:
    torn = write_parquet(tmp_path / "BTCUSDT-1m-torn.parquet", columns(bars))
    torn.write_bytes(torn.read_bytes()[:-20])
    empty = tmp_path / "BTCUSDT-1m-empty.csv"
    empty.touch()
    text = tmp_path / "BTCUSDT-1m-text.csv"
    text.write_text("not,a,kline\n1,2,x\n")
    packed = tmp_path / "BTCUSDT-1m-bad.zip"
    packed.write_bytes(b"PK no zip")
    crowded = tmp_path / "BTCUSDT-1m-two.zip"
    with zipfile.ZipFile(crowded, "w") as archive:
        archive.writestr("a.csv", "")
        archive.writestr("b.csv", "")
    lacking = write_parquet(tmp_path / "BTCUSDT-1m-lacking.parquet", columns(bars, ("open_time", "open")))
    holed = columns(bars)
    holed["open_time"] = pa.array([None, *bars["open_time"][1:].tolist()])
    null = write_parquet(tmp_path / "BTCUSDT-1m-null.parquet", holed)
    other = tmp_path / "BTCUSDT-1m.json"
    other.write_text("{}")
    absent = tmp_path / "absent-1m.parquet"
    for path in (torn, empty, text, packed, crowded, lacking, null, other, absent):
        with pytest.raises(SourceUnreadable, match=path.name):
            read(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("high", 1.0, "high"),
        ("low", float("nan"), "not a finite"),
        ("volume", -1.0, "negative"),
        ("open_time", START + MINUTE_MS, "repeats"),
        ("open_time", START, "older"),
        ("open_time", START + 20 * MINUTE_MS + 5, "grid"),
    ],
)
def test_a_bad_row_is_named(bars: Bars, tmp_path: Path, name: str, value: float, reason: str) -> None:
    values = columns(bars)
    values[name][2] = value
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", values)
    with pytest.raises(BarRejected, match=reason) as caught:
        read(path)
    assert isinstance(caught.value, RowRejected)
    assert caught.value.symbol == "BTCUSDT"
    assert (caught.value.what, caught.value.row, caught.value.column) == (str(path), 3, name)
    assert caught.value.__notes__ == [f"in {path}, row 3, column {name}"]


@pytest.mark.parametrize(
    ("column", "values", "row"),
    [
        ("high", pa.array(["1", "2", "dear"]), 3),
        ("open_time", pa.array([START, None, START + 2 * MINUTE_MS]), 2),
        ("open_time", pa.array([0.5, 1.5, 2.5]), None),
    ],
)
def test_a_wrong_type_is_named(bars: Bars, tmp_path: Path, column: str, values: pa.Array, row: int | None) -> None:
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", {**columns(bars[:3]), column: values})
    with pytest.raises(SourceUnreadable, match=f"{path.name}.*{column}") as caught:
        read(path)
    assert (caught.value.row, caught.value.column) == (row, column)


@pytest.mark.parametrize("header", [True, False])
def test_a_csv_s_row_and_column_are_named(bars: Bars, tmp_path: Path, header: bool) -> None:
    path = tmp_path / "BTCUSDT-1m-x.csv"
    lines = archive_text(bars, header).splitlines()
    at = 4 + header
    lines[at] = ",".join(["low" if place == 3 else value for place, value in enumerate(lines[at].split(","))])
    path.write_text("\n".join(lines))
    with pytest.raises(SourceUnreadable, match="low") as caught:
        read(path)
    assert (caught.value.row, caught.value.column) == (5, "low")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_header_may_be_quoted(bars: Bars, tmp_path: Path, mark: str) -> None:
    header, _, rows = archive_text(bars, header=True).partition("\n")
    path = tmp_path / "BTCUSDT-1m-x.csv"
    path.write_text(mark + ", ".join(f'"{name}"' for name in header.split(",")) + "\r\n" + rows, newline="")
    assert read_file(path, strict=True).tobytes() == bars.tobytes()


def test_columns_of_no_kline_are_refused_when_asked(bars: Bars, tmp_path: Path) -> None:
    values = columns(bars)
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", {**values, "taker_buy": values["taker_buy_base"]})
    assert read_file(path).tobytes() == bars.tobytes()
    with pytest.raises(SourceUnreadable, match="column taker_buy is unknown: the known ones are open_time") as caught:
        read_file(path, strict=True)
    assert caught.value.column == "taker_buy"
    archived = tmp_path / "BTCUSDT-1m-2026-01.csv"
    archived.write_text(archive_text(bars, header=True))
    assert read_file(archived, strict=True).tobytes() == bars.tobytes()


def test_a_column_that_is_there_twice_is_refused(bars: Bars, tmp_path: Path) -> None:
    values = columns(bars)
    path = write_parquet(tmp_path / "BTCUSDT-1m-x.parquet", {**values, "count": values["trades"]})
    with pytest.raises(SourceUnreadable, match="column trades twice"):
        read(path)


def test_a_folder_is_a_market(bars: Bars, tmp_path: Path) -> None:
    folder = tmp_path / "klines" / "set"
    folder.mkdir(parents=True)
    write_parquet(folder / "ETHUSDT-1m-x.parquet", columns(bars))
    (folder / "BTCUSDT-1m-a.csv").write_text(archive_text(bars[:30], header=True))
    write_parquet(folder / "BTCUSDT-1m-b.parquet", columns(bars[25:]))
    write_parquet(folder / "XRPUSDT-1h-x.parquet", columns(bars))
    (folder / "README.md").touch()
    (tmp_path / "funding").mkdir()
    write_parquet(
        tmp_path / "funding" / "ETHUSDT-funding.parquet",
        {"funding_time": [START + 3, START + 28_800_001], "funding_rate": [1e-4, 2e-4]},
    )
    market = open_source(f"recorded:{folder}")
    assert isinstance(market, BarSource)
    assert market.symbols() == ("BTCUSDT", "ETHUSDT")
    assert market.coverage("BTCUSDT") == (START, START + 50 * MINUTE_MS)
    assert market.klines("BTCUSDT", START, START + DAY_MS).tobytes() == bars.tobytes()
    part = market.klines("ETHUSDT", START + 5 * MINUTE_MS, START + 9 * MINUTE_MS)
    assert part.tobytes() == bars[5:9].tobytes()
    assert market.klines("ETHUSDT", START + DAY_MS, START).size == 0
    assert market.funding("ETHUSDT", START, START + 28_800_000)["funding_rate"].tolist() == [1e-4]
    assert market.funding("BTCUSDT", START, START + DAY_MS).size == 0
    elsewhere = RecordedMarket(folder, funding_folder=tmp_path)
    assert elsewhere.funding("ETHUSDT", START, START + DAY_MS).size == 0
    with pytest.raises(UnknownSymbol):
        market.klines("XRPUSDT", START, START + DAY_MS)
    with pytest.raises(UnknownSymbol):
        market.funding("XRPUSDT", START, START + DAY_MS)


def test_recordings_that_contradict_each_other_are_refused(bars: Bars, tmp_path: Path) -> None:
    write_parquet(tmp_path / "BTCUSDT-1m-a.parquet", columns(bars))
    changed = bars.copy()
    changed["volume"][7] += 1
    write_parquet(tmp_path / "BTCUSDT-1m-b.parquet", columns(changed))
    with pytest.raises(BarRejected, match="differ"):
        RecordedMarket(tmp_path).coverage("BTCUSDT")


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MarketError, match=str(folder)):
            RecordedMarket(folder)


def test_the_shared_recordings(shared_data: Path) -> None:
    for folder, count in (("um2025", 9), ("vision2026-02", 6)):
        market = RecordedMarket(shared_data / "klines" / folder)
        assert len(market.symbols()) == count
        for symbol in market.symbols()[:3]:
            covered = market.coverage(symbol)
            assert covered is not None
            bars = market.klines(symbol, *covered)
            assert gaps(bars) == []
            assert np.isnan(bars["taker_buy_base"]).all() == (folder == "um2025")
    fundings = RecordedMarket(shared_data / "klines" / "um2025").funding("BTCUSDT", 0, 2**60)
    assert fundings.size > 1000
    hourly = read(shared_data / "klines" / "um-1h" / "BTCUSDT-1h-um.parquet")
    assert (hourly["close_time"] - hourly["open_time"] == 3_600_000 - 1).all()


def test_a_folder_of_recordings_names_the_folders_to_choose_from(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "BTCUSDT-1m-2026-02.parquet").touch()
    with pytest.raises(SourceUnreadable, match=r"no file named .*; name one of the folders in it that do: b$"):
        RecordedMarket(tmp_path)
    with pytest.raises(SourceUnreadable, match=r"or \.zip$"):
        RecordedMarket(tmp_path / "a")
