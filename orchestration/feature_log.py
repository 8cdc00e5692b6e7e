"""What each stored day of features was made from, so that nothing is made twice from the same.

A day's rows and end states are a function of three things: the specification, the day's klines, and the states that
the day before left. The dataset `feature_days` keeps a digest of each beside a digest of the states that came out,
which is what the next day begins from. So a chain of days is checked by comparing digests: no bar and no state is read
for a day that is as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pyarrow as pa

from features.decision_spec import DecisionSpec
from market.datasets import dataset
from market.klines_store import date_of, day_start
from market.lake import Lake
from market.state_store import Checkpoint, state_bytes

NOTHING = ""
"""In place of a digest: there is no day before, or the day is being written and counts as unfinished."""

States = Mapping[str, Mapping[str, Checkpoint]]
"""By timeframe and symbol."""


class Restart(NamedTuple):
    """A gap longer than the specification bridges: this series begins anew, and is NaN until it is warm again."""

    symbol: str
    timeframe: str
    close_time: int
    """Of the first bar after the gap, ms."""


@dataclass(frozen=True)
class Entry:
    """One day as it was made."""

    klines: str
    """Digest of the klines, `NOTHING` while the day is being written or dropped."""
    before: str
    """Digest of the states that it continued from, `NOTHING` where history begins."""
    after: str
    """Digest of the states at its end."""
    rows: int
    restarts: tuple[Restart, ...] = ()


class FeatureLog:
    """The days that hold features of one specification, read when they are asked for.

    Those of `dates`, and the days before them, are read in one go.
    """

    def __init__(self, lake: Lake, spec: DecisionSpec, dates: Iterable[str] = ()) -> None:
        self._lake = lake
        self._spec = f"{spec.base.id} {','.join(spec.timeframes)}"
        self._klines: dict[str, str | None] = {}
        self._entries: dict[str, Entry | None] = {}
        self._read({each for date in dates for each in (date, date_of(day_start(date) - 1))})

    def entry(self, date: str) -> Entry | None:
        """How a day was made; None when it was not."""
        if date not in self._entries:
            self._read({date})
        return self._entries[date]

    def later(self, date: str) -> list[str]:
        """The days after `date` that have been computed, ascending."""
        dates = {each["date"] for each in self._lake.partitions("feature_days") if each["date"] > date}
        self._read(dates - self._entries.keys())
        return sorted(each for each in dates if self._entries[each] is not None)

    def klines(self, date: str) -> str | None:
        """Digest of the klines that are stored for a day, None without any; looked at once, so take a new log a run."""
        if date not in self._klines:
            files = self._lake.files("klines", {"date": date})
            joined = hashlib.sha256()
            for path in files:
                joined.update(path.encode() + b"\0" + self._lake.get_bytes(path))
            self._klines[date] = joined.hexdigest() if files else None
        return self._klines[date]

    def sound(self, date: str) -> bool:
        """Whether a day was computed, to its end, from the klines that are stored for it now."""
        entry = self.entry(date)
        # Klines that were cleared away do not make what came of them wrong.
        return entry is not None and entry.klines != NOTHING and self.klines(date) in (entry.klines, None)

    def unchanged(self, date: str, before: str) -> Entry | None:
        """The entry of a day that would come out as it is stored, continued from states of the digest `before`."""
        entry = self.entry(date)
        return entry if entry is not None and entry.before == before and self.sound(date) else None

    def open(self, date: str) -> None:
        """Enter that a day's files are about to change: until `close` or `forget` nobody may build on them."""
        entry = self.entry(date) or Entry(NOTHING, NOTHING, NOTHING, 0)
        self._put(date, replace(entry, klines=NOTHING))

    def close(self, date: str, entry: Entry) -> None:
        """Enter what a day was made from, after its files."""
        self._put(date, entry)

    def forget(self, date: str) -> None:
        """Enter that a day has neither rows nor states any more."""
        self._lake.put("feature_days", dataset("feature_days").schema.empty_table(), {"date": date})
        self._entries[date] = None

    def _read(self, dates: set[str]) -> None:
        if not dates:
            return
        found = self._lake.read("feature_days", where="spec = ?", parameters=(self._spec,), within={"date": dates})
        self._entries |= dict.fromkeys(dates)
        for row in found.to_pylist():
            restarts = tuple(Restart(**each) for each in row["restarts"])
            self._entries[row["date"]] = Entry(row["klines"], row["before"], row["after"], row["rows"], restarts)

    def _put(self, date: str, entry: Entry) -> None:
        row = {
            "spec": self._spec,
            "klines": entry.klines,
            "before": entry.before,
            "after": entry.after,
            "rows": entry.rows,
            "restarts": [each._asdict() for each in entry.restarts],
        }
        self._lake.put(
            "feature_days", pa.Table.from_pylist([row], schema=dataset("feature_days").schema), {"date": date}
        )
        self._entries[date] = entry


def states_digest(states: States) -> str:
    """One digest of all series' states and of how far each has come, whatever order they are in."""
    joined = hashlib.sha256()
    for timeframe, symbol, each in _ordered(states):
        joined.update(f"{timeframe} {symbol} {each.close_time} {each.state.size}\n".encode())
        joined.update(state_bytes(each.state))
    return joined.hexdigest()


def _ordered(states: States) -> Iterable[tuple[str, str, Checkpoint]]:
    for timeframe in sorted(states):
        for symbol in sorted(states[timeframe]):
            yield timeframe, symbol, states[timeframe][symbol]
