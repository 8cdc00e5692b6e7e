"""The datasets of the lake: what is stored under which name, with which columns, partitioned how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from market.errors import SchemaMismatch, UnknownDataset


@dataclass(frozen=True)
class Dataset:
    """One dataset of the lake.

    `schema` lists the columns inside the files: one that may be null may also be absent from a table that is
    stored, it is then null. The `partition` columns are strings, exist only in the path, and come last when the
    dataset is read. With `extra_columns` a file may hold more columns than the schema names; a reader sees the
    union of all files' columns, null where a file lacks one.
    """

    name: str
    description: str
    schema: pa.Schema
    partition: tuple[str, ...] = ()
    extra_columns: bool = False

    @property
    def full_schema(self) -> pa.Schema:
        """The schema of what is read: the files' columns, then the partition's."""
        keys = [pa.field(key, pa.string()) for key in self.partition]
        return pa.schema([*(pa.field(field.name, field.type) for field in self.schema), *keys])


def _schema(required: dict[str, pa.DataType], optional: dict[str, pa.DataType] | None = None) -> pa.Schema:
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    return pa.schema(fields + [pa.field(name, kind) for name, kind in (optional or {}).items()])


_TEXT, _TIME, _NUMBER, _CODE = pa.string(), pa.int64(), pa.float64(), pa.int8()

_ALL = (
    Dataset(
        "klines",
        "Closed 1m bars, one file a day with all symbols, ordered by (symbol, open_time).",
        _schema(
            {
                "symbol": _TEXT,
                "open_time": _TIME,
                **dict.fromkeys(("open", "high", "low", "close", "volume"), _NUMBER),
                "quote_volume": _NUMBER,
                "quote_volume_estimated": pa.bool_(),
            },
            dict.fromkeys(("trades", "taker_buy_base", "taker_buy_quote"), _NUMBER),
        ),
        ("date",),
    ),
    Dataset(
        "funding",
        "Fundings as the venue charged them; intervals differ by symbol and change.",
        _schema({"symbol": _TEXT, "funding_time": _TIME, "funding_rate": _NUMBER}),
        ("month",),
    ),
    Dataset(
        "gaps",
        "Minutes [from, to) that should have a bar and have none, with the cause; never filled.",
        _schema({"symbol": _TEXT, "from": _TIME, "to": _TIME, "cause": _TEXT}),
    ),
    Dataset(
        "kline_days",
        "How far each symbol of a day has been ingested (done, archive_only or open), and its first and last bar.",
        _schema({"symbol": _TEXT, "state": _TEXT}, {"first": _TIME, "last": _TIME}),
        ("date",),
    ),
    Dataset(
        "universe",
        "The symbols as they were known that day, by traded value.",
        _schema({"symbol": _TEXT, "rank": pa.int32(), "quote_volume": _NUMBER}),
        ("date",),
    ),
    Dataset(
        "features",
        "Feature rows, one column a feature, stamped with the close of their bar.",
        _schema({"symbol": _TEXT, "close_time": _TIME}),
        ("timeframe", "date"),
        extra_columns=True,
    ),
    Dataset(
        "feature_state",
        "The state of the feature recurrences at a day's end, to continue from: float64 numbers, little-endian.",
        _schema({"symbol": _TEXT, "close_time": _TIME, "spec": _TEXT, "state_bytes": pa.binary()}),
        ("timeframe", "date"),
        extra_columns=True,
    ),
    Dataset(
        "feature_days",
        "What each day of `features` was made from and came to, as digests: what has not changed is not done again.",
        _schema(
            {
                "spec": _TEXT,
                "klines": _TEXT,
                "before": _TEXT,
                "after": _TEXT,
                "rows": _TIME,
                "restarts": pa.list_(
                    pa.struct([("symbol", pa.string()), ("timeframe", pa.string()), ("close_time", pa.int64())])
                ),
            }
        ),
        ("date",),
    ),
    Dataset(
        "labels",
        "How trades ended, in history and live; times in ms, r and excursions in units of the initial risk.",
        _schema(
            {"position_id": _TEXT, "symbol": _TEXT, "direction": _CODE, "decided_at": _TIME, "known_at": _TIME},
            {
                "opened_at": _TIME,
                "kind": pa.uint8(),
                **dict.fromkeys(("entry", "stop", "target"), _NUMBER),
                "outcome": _CODE,
                **dict.fromkeys(("r", "best", "worst", "quality", "weight"), _NUMBER),
                "bundle": _TEXT,
            },
        ),
        ("source",),
        extra_columns=True,
    ),
    Dataset(
        "journal",
        "Closed segments of the workers' journals, immutable; `event` is the event as JSON.",
        _schema({"sequence": _TIME, "time_ms": _TIME, "kind": _TEXT, "event": _TEXT}),
        ("worker", "epoch"),
        extra_columns=True,
    ),
    Dataset(
        "training_set",
        "What the models of a bundle were trained on, one row a candidate.",
        _schema({"symbol": _TEXT, "decided_at": _TIME, "known_at": _TIME, "direction": _CODE}),
        extra_columns=True,
    ),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _ALL}
"""Every dataset by name. A lake may be given others."""


def dataset(name: str, known: dict[str, Dataset] = DATASETS) -> Dataset:
    """The dataset of that name; `UnknownDataset` if there is none.

    >>> dataset("klines").partition
    ('date',)
    """
    try:
        return known[name]
    except KeyError:
        raise UnknownDataset(name, tuple(known)) from None


def conform(target: Dataset, table: pa.Table, partition: Mapping[str, str]) -> pa.Table:
    """The table as the dataset's files hold it: the schema's columns in order and type, then the extra ones.

    Every value of `partition` may be repeated as a column, which is left out. `SchemaMismatch` says what does not fit.
    """
    names = table.column_names
    if len(set(names)) != len(names):
        raise SchemaMismatch(target.name, "a column occurs twice")
    for key, value in partition.items():
        if key in names and set(table.column(key).cast(pa.string()).unique().to_pylist()) - {value}:
            raise SchemaMismatch(target.name, f"its column {key} is not {value!r} throughout")
    columns: dict[pa.Field[Any], Any] = {}
    for field in target.schema:
        if field.name not in names and not field.nullable:
            raise SchemaMismatch(target.name, f"it has no column {field.name}")
        if field.name not in names:
            columns[field] = pa.nulls(table.num_rows, field.type)
            continue
        try:
            columns[field] = table.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            raise SchemaMismatch(target.name, f"{field.name} is not {field.type}: {error}") from error
        if not field.nullable and columns[field].null_count:
            raise SchemaMismatch(target.name, f"{field.name} is null in {columns[field].null_count} rows")
    extra = [name for name in names if name not in target.schema.names and name not in partition]
    if extra and not target.extra_columns:
        raise SchemaMismatch(target.name, f"it has no place for {', '.join(extra)}")
    for name in extra:
        columns[table.schema.field(name)] = table.column(name)
    return pa.table(list(columns.values()), schema=pa.schema(list(columns)))
