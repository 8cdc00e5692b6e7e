"""What can be wrong with market data, and what the caller does about it."""

from __future__ import annotations

from datetime import UTC, datetime


def utc(time_ms: int) -> str:
    """`time_ms` as ISO 8601 in UTC, for messages a person reads.

    >>> utc(1_746_403_200_000)
    '2025-05-05T00:00:00Z'
    """
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat().replace("+00:00", "Z")


class MarketError(Exception):
    """Base of every error of `market`."""


class UnknownInterval(MarketError):
    """The name of an interval that the venue does not have: fix the configuration."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown interval {name!r}: use one of {', '.join(known)}")
        self.name = name


class BarRejected(MarketError):
    """One bar that must not reach the features: keep it for inspection, count it, go on with the next."""

    def __init__(self, symbol: str, open_time: int, reason: str) -> None:
        super().__init__(f"bar of {symbol} at {utc(open_time)} rejected: {reason}")
        self.symbol = symbol
        self.open_time = open_time
        self.reason = reason


class RowRejected(BarRejected):
    """A bar that cannot be, in a recorded file: correct or remove that row."""

    def __init__(self, rejected: BarRejected, what: str, row: int, column: str) -> None:
        super().__init__(rejected.symbol, rejected.open_time, rejected.reason)
        self.what = what
        self.row = row
        """Counted from 1, a header left out."""
        self.column = column


class SourceUnreadable(MarketError):
    """A recorded file or an answer that is not what its source promises: replace the file, nothing was ingested."""

    def __init__(self, what: str, reason: str, *, row: int | None = None, column: str | None = None) -> None:
        super().__init__(f"cannot read {what}: {reason}")
        self.what = what
        self.reason = reason
        self.row = row
        """Counted from 1, a header left out; None when it is not one row that is wrong."""
        self.column = column


class UnknownSymbol(MarketError):
    """A symbol that the source does not have: correct the universe."""

    def __init__(self, symbol: str, source: str) -> None:
        super().__init__(f"{source} has no symbol {symbol!r}")
        self.symbol = symbol


class UnknownSource(MarketError):
    """A description of a source that says nothing we can open: correct `MARKET_SOURCE`."""

    def __init__(self, spec: str, reason: str) -> None:
        super().__init__(f"cannot open the source {spec!r}: {reason}")
        self.spec = spec


class LakeError(MarketError):
    """Base of the lake's errors."""


class UnknownDataset(LakeError):
    """A dataset that the lake does not define: a misspelling."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(f"the lake has no dataset {name!r}: use one of {', '.join(known)}")
        self.name = name


class BadPath(LakeError):
    """A partition, file name or path that must not become part of a path in the lake: correct the caller."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what!r} cannot be stored in the lake: {reason}")
        self.what = what


class SchemaMismatch(LakeError):
    """A table that does not fit its dataset: nothing was written; correct the caller."""

    def __init__(self, dataset: str, reason: str) -> None:
        super().__init__(f"the table does not fit the dataset {dataset}: {reason}")
        self.dataset = dataset


class LakeMissing(LakeError):
    """A file that is not in the lake."""

    def __init__(self, path: str) -> None:
        super().__init__(f"the lake has no file {path}")
        self.path = path


class LakeCorrupt(LakeError):
    """A file in the lake that cannot be read as what it is: restore or remove it, and materialise it again."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"the lake's file {path} is corrupt: {reason}")
        self.path = path
        self.reason = reason


class QueryFailed(LakeError):
    """A query that the lake's engine refused, although every file is whole: correct the query."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the lake cannot answer this query: {reason}")
        self.reason = reason
