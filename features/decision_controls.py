"""The positive controls of `decision_proofs`: decision rows that cheat, one way each, and must be caught.

Each takes the true table of a market and lets some columns of a row be those of a later row of the same symbol, from
which they are what was not yet known. Where the market ends there is no such row and the true value stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import BETA, CROSS, DECISION_SPEC, FUNDING, DecisionSpec
from features.decision_table import Market, Table, history_table

Times = NDArray[np.int64]


@dataclass(frozen=True)
class Control:
    """One way to cheat: which columns are read, and at which close in place of the row's own."""

    columns: Callable[[DecisionSpec], tuple[str, ...]]
    """The columns' names, or how they begin where that ends with a dot."""
    close: Callable[[Table, Market, DecisionSpec], Times]
    """close_time of the row that is looked at, int64 [N]."""

    def cheats(self, spec: DecisionSpec, column: str) -> bool:
        """Whether it reads this column."""
        return any(column == name or (name.endswith(".") and column.startswith(name)) for name in self.columns(spec))


def _next_wave(table: Table, market: Market, spec: DecisionSpec) -> Times:
    return table.time + spec.steps[0]


def _close_of_the_longest(table: Table, market: Market, spec: DecisionSpec) -> Times:
    """The close of the longest timeframe's bar that is open after the row's close."""
    return (table.time + spec.steps[-1]) // spec.steps[-1] * spec.steps[-1] - 1


def _after_the_next_charge(table: Table, market: Market, spec: DecisionSpec) -> Times:
    """The first close at which the next funding has been charged; the row's own without one."""
    closes = table.time.copy()
    for index, symbol in enumerate(table.symbols):
        charged = market.fundings[symbol]["funding_time"] if symbol in market.fundings else closes[:0]
        rows = np.flatnonzero(table.symbol == index)
        at = np.searchsorted(charged, closes[rows], side="right")
        rows, at = rows[at < charged.size], at[at < charged.size]
        closes[rows] = charged[at] // spec.steps[0] * spec.steps[0] + spec.steps[0] - 1
    return closes


CONTROLS: dict[str, Control] = {
    "a column one wave ahead": Control(lambda spec: (f"{spec.timeframes[0]}.return_1",), _next_wave),
    "the next wave's cross-section": Control(lambda spec: CROSS, _next_wave),
    "the next wave's beta": Control(lambda spec: BETA, _next_wave),
    "a window that ends one bar late": Control(lambda spec: ("window.",), _next_wave),
    "a longer bar before it closed": Control(lambda spec: (f"{spec.timeframes[-1]}.",), _close_of_the_longest),
    "a funding before it was charged": Control(lambda spec: FUNDING[1:], _after_the_next_charge),
}
"""Every way to cheat, by what is read."""


def cheating(name: str, market: Market, spec: DecisionSpec = DECISION_SPEC) -> Table:
    """The table of a market, but for one of `CONTROLS`."""
    control = CONTROLS[name]
    table = history_table(market, spec)
    columns = np.array([column for column, each in enumerate(table.names) if control.cheats(spec, each)])
    # Rows ascend by (time, symbol), so one number tells their order.
    place = table.time * len(table.symbols) + table.symbol
    wanted = control.close(table, market, spec) * len(table.symbols) + table.symbol
    at = np.minimum(np.searchsorted(place, wanted), max(place.size - 1, 0))
    rows = np.flatnonzero(place[at] == wanted) if place.size else at
    values = table.values.copy()
    values[np.ix_(rows, columns)] = table.values[np.ix_(at[rows], columns)]
    return Table(table.names, table.symbols, table.time, table.symbol, values)
