"""The proofs of `features.proofs` for whole decision rows: several symbols, all timeframes, windows, funding.

A decision row is put together from many series, so there is more to get wrong than in one series: a longer bar read
before it closed, a cross-section of the next wave, a beta that includes what comes, a funding not yet charged. Each
proof takes a `Market` and returns what it caught, at most one `RowFailure` per column; an empty list is a proof on
that market. All take any function from markets to tables, so that rows that cheat can be put to the same test; those
of `features.decision_controls` do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from features import proofs
from features.decision import DecisionState, DecisionWave
from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.decision_table import Market, Minutes, Table, history_table, waves_table
from features.decision_warmth import scales, warm
from features.proofs import Failure
from market.bars import Bars
from market.errors import utc
from market.funding import Fundings

TableOf = Callable[[Market], Table]
Snapshot = Mapping[str, NDArray[np.generic]]

ROW = "the row"
"""The column of a failure where a row is missing, or one too many is there."""


@dataclass(frozen=True)
class RowFailure(Failure):
    """One column of the decision row that did not hold; `bar` is the row's place in its table."""

    symbol: str
    time_ms: int
    """close_time of the deciding bar."""

    def __str__(self) -> str:
        place = f"{self.feature} of {self.symbol} at {utc(self.time_ms + 1)}"
        return f"{self.proof}: {place} is {self.found!r}, not {self.expected!r}"


def cut_times(market: Market, count: int, seed: int = 1) -> list[int]:
    """Up to `count` times between two minutes of a market, ascending: within longer bars as well as at their close."""
    return [int(market.times[cut]) - 60_000 + 1 for cut in proofs.cut_points(market.times.size, count, seed)]


def _rows_differ(proof: str, expected: Table, found: Table) -> list[RowFailure]:
    """The first row that is there in one table only."""
    size = min(expected.time.size, found.time.size)
    unlike = (expected.time[:size] != found.time[:size]) | (expected.symbol[:size] != found.symbol[:size])
    if expected.time.size == found.time.size and not unlike.any():
        return []
    at = int(np.argmax(unlike)) if unlike.any() else size
    longer = expected if expected.time.size > at else found
    symbol, time = longer.symbols[longer.symbol[at]], int(longer.time[at])
    return [RowFailure(proof, ROW, at, float(longer is expected), float(longer is found), symbol, time)]


def _placed(failures: Iterable[Failure], table: Table) -> list[RowFailure]:
    """The failures with symbol and time of their rows in `table`."""
    return [
        RowFailure(
            *(each.proof, each.feature, each.bar, each.expected, each.found),
            table.symbols[table.symbol[each.bar]],
            int(table.time[each.bar]),
        )
        for each in failures
    ]


def _compare(proof: str, expected: Table, found: Table, caught: Sequence[RowFailure] = ()) -> list[RowFailure]:
    """The first row of each column, among those not yet `caught`, at which two tables differ in a bit."""
    if unlike := _rows_differ(proof, expected, found):
        return unlike if ROW not in {failure.feature for failure in caught} else []
    return _placed(proofs.differences(proof, expected.names, expected.values, found.values, 0, caught), expected)


def differ(expected: Table, found: Table) -> bool:
    """Whether two tables differ at all."""
    return bool(_compare("", expected, found))


def prefix(table_of: TableOf, market: Market, cuts: Iterable[int]) -> list[RowFailure]:
    """From what was known before a cut alone come the same rows up to it, to the bit, for every cut (a time)."""
    whole = table_of(market)
    failures: list[RowFailure] = []
    for cut in cuts:
        failures += _compare("prefix", whole.before(cut), table_of(market.before(cut)), failures)
    return failures


Spoil = Callable[[Market, int], Market]


def _bars_become(garbage: Callable[[Bars], None], market: Market, cut: int) -> Market:
    """Every symbol's minutes from the cut on are turned into `garbage`."""
    spoilt = {symbol: bars.copy() for symbol, bars in market.bars.items()}
    for bars in spoilt.values():
        garbage(bars[np.searchsorted(bars["open_time"], cut) :])
    return Market(spoilt, market.fundings)


def _every_other_vanishes(market: Market, cut: int) -> Market:
    """Half of the symbols are absent from the cut on, the benchmark among them where it is the first."""
    gone = market.symbols[::2]
    return Market({s: b[b["open_time"] < cut] if s in gone else b for s, b in market.bars.items()}, market.fundings)


def _swapped(market: Market, cut: int) -> Market:
    """From the cut on every symbol has the bars of the next one: nothing implausible but the jump."""
    tails = [bars[bars["open_time"] >= cut] for bars in market.bars.values()]
    heads = {symbol: bars[bars["open_time"] < cut] for symbol, bars in market.bars.items()}
    turned = [*tails[1:], *tails[:1]]
    return Market(
        {s: np.concatenate((head, tail)) for (s, head), tail in zip(heads.items(), turned, strict=True)},
        market.fundings,
    )


GARBAGE: tuple[Spoil, ...] = (
    *(partial(_bars_become, garbage) for garbage in proofs.GARBAGE),
    _every_other_vanishes,
    _swapped,
)
"""What `poison` makes of the bars after a cut, by turns."""


def _rates(rates: Fundings) -> None:
    rates["funding_rate"] = 1e6


def _unknown(rates: Fundings) -> None:
    rates["funding_rate"] = np.nan


def _delayed(rates: Fundings) -> None:
    rates["funding_time"] += 90 * 60_000


FUNDING_GARBAGE: tuple[Callable[[Fundings], None], ...] = (_rates, _unknown, _delayed)
"""What `poison` makes of the fundings after a cut, by turns."""


def _fundings_become(garbage: Callable[[Fundings], None], market: Market, cut: int) -> Market:
    spoilt = {symbol: fundings.copy() for symbol, fundings in market.fundings.items()}
    for fundings in spoilt.values():
        garbage(fundings[np.searchsorted(fundings["funding_time"], cut) :])
    return Market(market.bars, spoilt)


def poison(table_of: TableOf, market: Market, cuts: Iterable[int]) -> list[RowFailure]:
    """Garbage from a cut on, in bars and fundings, changes no row before it, for every cut; both kinds by turns."""
    whole = table_of(market)
    failures: list[RowFailure] = []
    for turn, cut in enumerate(cuts):
        poisoned = GARBAGE[turn % len(GARBAGE)](market, cut)
        poisoned = _fundings_become(FUNDING_GARBAGE[turn % len(FUNDING_GARBAGE)], poisoned, cut)
        failures += _compare("poison", whole.before(cut), table_of(poisoned).before(cut), failures)
    return failures


def through_file(snapshot: Snapshot) -> Snapshot:
    """A snapshot as it comes back from a file."""
    file = io.BytesIO()
    np.savez(file, **snapshot)  # type: ignore[arg-type]
    file.seek(0)
    stored: Snapshot = np.load(file)
    return stored


def live(
    market: Market,
    cuts: Iterable[int],
    spec: DecisionSpec = DECISION_SPEC,
    table_of: TableOf | None = None,
    stored: Callable[[Snapshot], Snapshot] = through_file,
) -> list[RowFailure]:
    """One minute at a time, with a restart from a stored snapshot at every cut, gives the rows of history.

    Every third stretch between cuts is caught up with at once: it has no waves, and the next ones must not notice.
    """
    whole = (table_of or partial(history_table, spec=spec))(market)
    minutes = Minutes(market)
    edges = [0, *np.searchsorted(minutes.times, sorted(cuts)).tolist(), minutes.times.size]
    fed = np.zeros(whole.time.size, dtype=np.bool_)
    waves: list[DecisionWave] = []
    snapshot: Snapshot = DecisionState(market.symbols, spec).snapshot()
    for turn, (start, stop) in enumerate(pairwise(edges)):
        if start == stop:
            continue
        state = DecisionState(market.symbols, spec)
        state.restore(stored(snapshot))
        first, last = int(minutes.times[start]), int(minutes.times[stop - 1])
        if turn % 3 == 2:
            state.catch_up(market.between(first - 60_000 + 1, last + 1).bars)
        else:
            waves += minutes.feed(state, start, stop)
            fed |= (whole.time >= first) & (whole.time <= last)
        snapshot = state.snapshot()
    return _compare("live", whole.take(fed), waves_table(waves, market.symbols, spec))


def forgetting(
    market: Market, origins: Iterable[int], spec: DecisionSpec = DECISION_SPEC, table_of: TableOf | None = None
) -> list[RowFailure]:
    """To somebody who came at an origin (a time), every column is the same from its warm-up on, to `TOLERANCE`.

    When a column counts is in `decision_warmth`, with its scale.
    """
    table_of = table_of or partial(history_table, spec=spec)
    whole, usual = table_of(market), scales(spec)
    failures: dict[str, RowFailure] = {}
    for origin in origins:
        since = market.since(origin)
        later = table_of(since)
        # A bar that had begun at the origin is whole only to those who were there.
        expected = whole.take(whole.time + 1 - spec.steps[0] >= origin)
        if unlike := _rows_differ("forgetting", expected, later):
            failures.setdefault(ROW, unlike[0])
            continue
        wrong = proofs.beyond_tolerance(expected.values, later.values, usual)
        if wrong.any():
            wrong &= warm(since, expected, later, spec)
        for column in np.flatnonzero(wrong.any(axis=0)).tolist():
            row = int(np.argmax(wrong[:, column]))
            values = float(expected.values[row, column]), float(later.values[row, column])
            found = Failure("forgetting", whole.names[column], row, *values)
            failures.setdefault(found.feature, *_placed([found], expected))
    return list(failures.values())
