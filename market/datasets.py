"""The datasets of the lake: what is stored under which name, with which columns, partitioned how."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from market.errors import UnknownDataset


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
