"""The lake: atomic files, views, empty and corrupt datasets, what must not be stored."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs, parquet

from market.atomic_files import put_atomic
from market.datasets import DATASETS, Dataset
from market.errors import BadPath, LakeCorrupt, LakeMissing, QueryFailed, SchemaMismatch, UnknownDataset
from market.lake import Lake

UNIVERSE: dict[str, Any] = {"symbol": ["BTCUSDT", "ETHUSDT"], "rank": [1, 2], "quote_volume": [5.0, 3.0]}


@pytest.fixture(params=["plain", "uri", "arrow"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A lake by path, by address, and through pyarrow's reader as on S3."""
    if request.param == "plain":
        return Lake(str(tmp_path / "lake"))
    if request.param == "uri":
        return Lake((tmp_path / "lake").as_uri())
    return Lake("lake", filesystem=fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()))


@pytest.fixture(autouse=True)
def folders_as_on_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store needs no folders; the local files that stand in for one do."""

    def put_with_folder(filesystem: fs.FileSystem, path: str, data: bytes) -> None:
        if isinstance(filesystem, fs.SubTreeFileSystem):
            filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        put_atomic(filesystem, path, data)

    monkeypatch.setattr("market.lake.put_atomic", put_with_folder)


def test_every_dataset_is_empty_at_first(lake: Lake) -> None:
    for name, dataset in DATASETS.items():
        table = lake.read(name)
        assert table.num_rows == 0
        assert table.schema.names == dataset.full_schema.names
        assert table.schema.types == dataset.full_schema.types
        assert lake.query(f"SELECT count(*) AS n FROM {name}").to_pylist() == [{"n": 0}]
        assert lake.partitions(name) == []
        assert lake.verify(name) == 0
    assert lake.list() == []


def test_what_is_put_is_read(lake: Lake) -> None:
    path = lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    assert path == "universe/date=2026-01-05/part-0.parquet"
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-06"})
    table = lake.read("universe", where="date >= ? AND rank = ?", parameters=("2026-01-06", 2))
    assert table.to_pylist() == [{"symbol": "ETHUSDT", "rank": 2, "quote_volume": 3.0, "date": "2026-01-06"}]
    assert table.schema.types == DATASETS["universe"].full_schema.types
    ordered = lake.read("universe", ("rank", "date"), order_by="date DESC, rank DESC")
    assert ordered.column("rank").to_pylist() == [2, 1, 2, 1]
    assert lake.partitions("universe") == [{"date": "2026-01-05"}, {"date": "2026-01-06"}]
    assert lake.files("universe", {"date": "2026-01-06"}) == ["universe/date=2026-01-06/part-0.parquet"]
    assert lake.exists(path)
    assert lake.verify("universe") == 2


def test_what_lies_outside_is_not_even_opened(lake: Lake) -> None:
    for timeframe in ("5m", "1h"):
        for date in ("2026-01-05", "2026-01-06", "2026-01-07"):
            row = pa.table({"symbol": [timeframe], "close_time": [int(date[-1])]})
            path = lake.put("features", row, {"timeframe": timeframe, "date": date})
            if date == "2026-01-07":
                lake.put_bytes(path, b"not parquet")
    found = lake.read("features", ("symbol", "close_time"), within={"date": ["2026-01-06", "2026-01-09"]})
    assert sorted(found.to_pylist(), key=str) == [{"symbol": each, "close_time": 6} for each in ("1h", "5m")]
    inside = {"timeframe": ("5m",), "date": ("2026-01-05", "2026-01-06")}
    found = lake.read("features", where="close_time < 6", within=inside)
    assert [(row["symbol"], row["date"]) for row in found.to_pylist()] == [("5m", "2026-01-05")]
    assert lake.read("features", within={"date": []}).num_rows == 0
    assert lake.files("features", {"date": "2026-01-05"}) == [
        f"features/timeframe={each}/date=2026-01-05/part-0.parquet" for each in ("1h", "5m")
    ]
    with pytest.raises(LakeCorrupt, match="date=2026-01-07"):
        lake.read("features")


def test_a_file_is_replaced_and_others_stay(lake: Lake) -> None:
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    lake.put("universe", pa.table(UNIVERSE).slice(0, 1), {"date": "2026-01-05"})
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"}, name="part-1.parquet")
    assert lake.read("universe").num_rows == 3


def test_partition_values_stay_strings(lake: Lake) -> None:
    table = pa.table({"sequence": [1], "time_ms": [0], "kind": ["signal"], "event": ["{}"]})
    lake.put("journal", table, {"worker": "01", "epoch": "000007"})
    assert lake.read("journal").to_pylist()[0]["epoch"] == "000007"
    assert lake.query("SELECT sequence FROM journal WHERE worker = '01'").num_rows == 1


def test_datasets_join_in_one_query(lake: Lake) -> None:
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    gaps: dict[str, Any] = {"symbol": ["ETHUSDT"], "from": [0], "to": [60_000], "cause": ["not_fetched"]}
    lake.put("gaps", pa.table(gaps))
    sql = "SELECT u.rank, g.cause FROM universe u JOIN gaps g USING (symbol) LEFT JOIN klines k USING (symbol)"
    assert lake.query(sql).to_pylist() == [{"rank": 2, "cause": "not_fetched"}]


def test_feature_columns_come_and_go(lake: Lake) -> None:
    first = pa.table({"symbol": ["A"], "close_time": [1], "rsi_14": pa.array([50.0], pa.float32())})
    second = pa.table({"symbol": ["A"], "close_time": [2], "ema_21": pa.array([1.5], pa.float32())})
    lake.put("features", first, {"timeframe": "5m", "date": "2026-01-05"})
    lake.put("features", second, {"timeframe": "5m", "date": "2026-01-06"})
    rows = lake.read("features", ("close_time", "rsi_14", "ema_21"), order_by="close_time").to_pylist()
    assert rows == [{"close_time": 1, "rsi_14": 50.0, "ema_21": None}, {"close_time": 2, "rsi_14": None, "ema_21": 1.5}]


def test_columns_that_may_be_null_may_be_absent(lake: Lake) -> None:
    label: dict[str, Any] = {
        "position_id": ["x"],
        "symbol": ["A"],
        "direction": [1],
        "decided_at": [0],
        "known_at": [1],
    }
    lake.put("labels", pa.table(label), {"source": "history"})
    row = lake.read("labels").to_pylist()[0]
    assert (row["outcome"], row["r"], row["direction"], row["source"]) == (None, None, 1, "history")


def test_an_older_file_lacks_a_newer_column(tmp_path: Path) -> None:
    old = Dataset("d", "", pa.schema([("x", pa.int64())]))
    new = Dataset("d", "", pa.schema([("y", pa.float64()), ("x", pa.int64())]))
    Lake(str(tmp_path), {"d": old}).put("d", pa.table({"x": [1]}))
    assert Lake(str(tmp_path), {"d": new}).read("d").to_pylist() == [{"y": None, "x": 1}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rank": ["one", "two"]}, "rank is not int32"),
        ({"rank": [1.5, 2.0]}, "rank is not int32"),
        ({"rank": [1, None]}, "null in 1 rows"),
        ({"surprise": [1, 2]}, "no place for surprise"),
        ({"date": ["2026-01-05", "2026-01-06"]}, "throughout"),
    ],
)
def test_a_table_that_does_not_fit_is_not_stored(lake: Lake, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SchemaMismatch, match=reason):
        lake.put("universe", pa.table({**UNIVERSE, **change}), {"date": "2026-01-05"})
    with pytest.raises(SchemaMismatch, match="no column quote_volume"):
        lake.put("universe", pa.table(UNIVERSE).drop_columns("quote_volume"), {"date": "2026-01-05"})
    assert lake.list() == []


def test_a_repeated_partition_column_is_dropped(lake: Lake) -> None:
    table = pa.table({**UNIVERSE, "date": ["2026-01-05"] * 2})
    lake.put("universe", table, {"date": "2026-01-05"})
    assert lake.read("universe").schema.names == ["symbol", "rank", "quote_volume", "date"]


@pytest.mark.parametrize("value", ["../x", "..", "", "a/b", "/etc", ".hidden", "a\\b", "a\0", "x" * 300, "*", "_y"])
def test_partitions_and_names_cannot_leave_the_dataset(lake: Lake, value: str) -> None:
    with pytest.raises(BadPath):
        lake.put("universe", pa.table(UNIVERSE), {"date": value})
    with pytest.raises(BadPath):
        lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"}, name=f"{value}.parquet")
    assert lake.list() == []


@pytest.mark.parametrize("partition", [{}, {"month": "2026-01"}, {"date": "2026-01-05", "month": "2026-01"}])
def test_a_partition_names_all_and_only_its_columns(lake: Lake, partition: dict[str, str]) -> None:
    with pytest.raises(BadPath, match="by date"):
        lake.put("universe", pa.table(UNIVERSE), partition)


def test_a_file_s_name_ends_in_parquet(lake: Lake) -> None:
    with pytest.raises(BadPath, match=r"\.parquet"):
        lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"}, name="part.csv")


@pytest.mark.parametrize("path", ["../x", "a/../x", "/x", "", "a//b", ".x", "a/.x", "a\\x", "a\0x", "x/"])
def test_paths_cannot_leave_the_lake(lake: Lake, path: str) -> None:
    for operation in (lake.get_bytes, lake.exists, lambda p: lake.put_bytes(p, b"")):
        with pytest.raises(BadPath):
            operation(path)


def test_unknown_datasets_and_bad_queries_are_told_apart(lake: Lake) -> None:
    with pytest.raises(UnknownDataset, match="klinse"):
        lake.read("klinse")
    with pytest.raises(UnknownDataset):
        lake.put("klinse", pa.table(UNIVERSE))
    for sql in ("SELECT nothing FROM klines", "SELEC", "SELECT * FROM klinse", "CREATE TABLE t (x INT)"):
        with pytest.raises(QueryFailed):
            lake.query(sql)


def test_a_python_variable_is_no_dataset(lake: Lake) -> None:
    secret = pa.table({"x": [1]})
    with pytest.raises(QueryFailed):
        lake.query("SELECT * FROM secret")
    assert secret.num_rows == 1


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped"])
def test_a_corrupt_file_is_named(tmp_path: Path, damage: str) -> None:
    lake = Lake(str(tmp_path))
    table = pa.table({"symbol": [f"S{i}" for i in range(5000)], "rank": range(5000), "quote_volume": [1.0] * 5000})
    for day in ("05", "06", "07"):
        lake.put("universe", table, {"date": f"2026-01-{day}"})
    victim = tmp_path / "universe" / "date=2026-01-06" / "part-0.parquet"
    content = bytearray(victim.read_bytes())
    if damage == "flipped":
        content[200] ^= 255
    victim.write_bytes(
        {"truncated": bytes(content[:-50]), "text": b"hello", "empty": b"", "flipped": bytes(content)}[damage]
    )
    with pytest.raises(LakeCorrupt, match="date=2026-01-06/part-0") as caught:
        lake.verify("universe")
    assert caught.value.path == "universe/date=2026-01-06/part-0.parquet"
    with pytest.raises(LakeCorrupt, match="date=2026-01-06/part-0"):
        lake.read("universe")
    assert lake.read("klines").num_rows == 0


def test_bytes_are_kept(lake: Lake) -> None:
    assert lake.put_bytes("bundles/7/manifest.json", b"{}") == "bundles/7/manifest.json"
    lake.put_bytes("bundles/7/model.onnx", b"\0\1")
    assert lake.get_bytes("bundles/7/model.onnx") == b"\0\1"
    assert lake.list("bundles") == ["bundles/7/manifest.json", "bundles/7/model.onnx"]
    assert lake.list("bundles/8") == []
    assert not lake.exists("bundles/7")
    with pytest.raises(LakeMissing, match="bundles/8"):
        lake.get_bytes("bundles/8")


def test_odd_folders_hold_a_lake(tmp_path: Path) -> None:
    for name in ("it's", "a [b] {c}*?", "ünïcode"):
        lake = Lake(str(tmp_path / name))
        lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
        assert lake.read("universe", where="date = '2026-01-05'").num_rows == 2


def test_foreign_and_unfinished_files_are_no_rows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    path = tmp_path / lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    (path.parent / ".part-1.parquet.0123.tmp").write_bytes(b"half")
    (path.parent / ".part-2.parquet").write_bytes(b"half")
    (path.parent / "notes.txt").write_text("hello")
    (tmp_path / "universe" / "stray.parquet").write_bytes(b"half")
    assert lake.read("universe").num_rows == 2
    assert [name for name in lake.list("universe") if "part-" in name] == ["universe/date=2026-01-05/part-0.parquet"]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x" / "file"
    put_atomic(fs.LocalFileSystem(), str(target), b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("market.atomic_files.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        put_atomic(fs.LocalFileSystem(), str(target), b"new")
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert target.read_bytes() == b"old"


def test_parallel_readers_and_writers(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    failures: list[Exception] = []

    def work(index: int) -> None:
        try:
            for turn in range(8):
                lake.put("universe", pa.table(UNIVERSE), {"date": f"2026-02-{1 + turn:02d}"})
                assert lake.read("universe").num_rows % 2 == 0
        except Exception as error:  # noqa: BLE001 - handed to the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert lake.read("universe").num_rows == 18


def test_an_answer_read_across_a_replacement_does_not_count(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    newer = pa.table({**UNIVERSE, "rank": [7, 8]})
    answer, asked = Lake._answer, list[pa.Table]()

    def replaced_meanwhile(self: Lake, *arguments: Any) -> pa.Table:
        table = answer(self, *arguments)
        if not asked:
            lake.put("universe", newer, {"date": "2026-01-05"})
        asked.append(table)
        return table

    monkeypatch.setattr(Lake, "_answer", replaced_meanwhile)
    assert lake.read("universe", order_by="rank").column("rank").to_pylist() == [7, 8]
    assert len(asked) == 2


def test_when_files_never_rest_they_are_held_open(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    lake.put("universe", pa.table(UNIVERSE), {"date": "2026-01-06"})
    label: dict[str, Any] = {
        "position_id": ["x"],
        "symbol": ["A"],
        "direction": [1],
        "decided_at": [0],
        "known_at": [1],
    }
    lake.put("labels", pa.table({**label, "note": ["n"]}), {"source": "live"})
    lake.put("labels", pa.table(label), {"source": "history"})
    rest = [lake.read(name, order_by=order) for name, order in (("universe", "date, rank"), ("labels", "source"))]
    monkeypatch.setattr(Lake, "_signature", lambda *_: object())
    held = [lake.read(name, order_by=order) for name, order in (("universe", "date, rank"), ("labels", "source"))]
    assert held == rest
    with pytest.raises(QueryFailed):
        lake.query("SELECT rank / 'x' FROM universe")


WRITER = """
import sys
import pyarrow as pa
from market.lake import Lake
lake, version, rows = Lake(sys.argv[1]), int(sys.argv[2]), 30_000
symbol = pa.array([f"S{(i * 7919) % 99991}" for i in range(rows)])
while True:
    version += 1
    rank, volume = pa.repeat(version, rows), pa.array([i * version * 0.37 for i in range(rows)])
    table = pa.table({"symbol": symbol, "rank": rank, "quote_volume": volume})
    for day in ("2026-01-05", "2026-01-06"):
        lake.put("universe", table, {"date": day})
        print(version, flush=True)
"""


def test_a_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    """`kill -9` at random points: every read before and after sees whole files of one version each."""
    lake, chance, version = Lake(str(tmp_path)), random.Random(5), 0
    sql = "SELECT date, count(*) AS n, min(rank) AS low, max(rank) AS high FROM universe GROUP BY date"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(version)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            try:
                writer.stdout.readline()
                for _ in range(chance.randint(1, 8)):
                    for row in lake.query(sql).to_pylist():
                        assert row["n"] == 30_000
                        assert row["low"] == row["high"] >= version
            finally:
                writer.send_signal(signal.SIGKILL)
        rows = lake.query(sql).to_pylist()
        assert {row["n"] for row in rows} == {30_000}
        version = max(row["high"] for row in rows)
        assert lake.verify("universe") == len(rows)


def test_s3_is_only_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    lake = Lake("s3://bucket/prefix?region=eu-central-1")
    assert isinstance(lake.filesystem, fs.S3FileSystem)


def test_files_are_plain_parquet(tmp_path: Path) -> None:
    path = Lake(str(tmp_path)).put("universe", pa.table(UNIVERSE), {"date": "2026-01-05"})
    table = parquet.ParquetFile(tmp_path / path).read()
    assert table.to_pydict() == UNIVERSE
