"""How a trade ends: one compiled step per position and 1m bar, for history, replay and live.

The rules, for a position decided at the close of a bar:

1. **Entry** at the open of the next minute, half the spread and the slippage against it. If that open is
   already at or beyond the stop, or the entry at or beyond the target, it was never taken: `VOID`.
2. Then each minute in turn, the entry's own included. **Stop before target** when one bar touches both
   (touching is enough). A stop fills at the stop, or at the open when the bar opens beyond it, less the
   slippage. A target fills at the target, also when the bar opens beyond it.
3. **Expiry** at the close of the first bar that closes at or after it, marked to market.
4. **Funding** charged in a minute is paid (or received) by a position that was open before that minute
   began, on the price at which the minute opens.
5. The fee is paid on both sides. `r` is what is left after fee and funding, divided by the initial risk
   |entry - stop|.
6. A minute that is missing while a position waits or is open leaves it `UNKNOWN`: its path was not seen.

A long and a short are mirror images in every rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.engine import as_bars
from features.errors import PositionsUnusable
from features.kernels_cache import njit
from features.positions import EXPIRY as EXPIRY
from features.positions import OPEN as OPEN
from features.positions import OUTCOME as OUTCOME
from features.positions import POSITION as POSITION
from features.positions import STOP as STOP
from features.positions import TARGET as TARGET
from features.positions import UNKNOWN as UNKNOWN
from features.positions import VOID as VOID
from features.positions import CostModel as CostModel
from features.positions import Positions as Positions
from features.positions import TradePlan as TradePlan
from market.bars import Bars
from market.funding import Fundings


@njit
def _end(position: Any, outcome: int, price: float, time: int, fee: float) -> None:
    """Close `position` at `price`."""
    position.outcome = outcome
    position.exit_price = price
    position.exit_time = time
    gained = position.direction * (price - position.entry)
    position.r = (gained - fee * (position.entry + price) - position.funding) / position.risk


@njit
def _enter(position: Any, bar: Any, entry_cost: float) -> bool:
    """Take `position` at the open of `bar`, or void it; returns whether it was taken."""
    side = float(position.direction)
    entry = bar.open * (1.0 + side * entry_cost)
    if not (side * (bar.open - position.stop) > 0.0 and side * (position.target - entry) > 0.0):
        position.outcome = VOID
        position.exit_time = bar.close_time
        return False
    position.opened_at = bar.open_time
    position.entry = entry
    position.risk = side * (entry - position.stop)
    return True


@njit
def _step(position: Any, bar: Any, funding_rate: float, fee: float, entry_cost: float, slippage: float) -> None:
    """One minute of one position. A bar that it has seen already, or that precedes it, changes nothing."""
    if position.outcome != OPEN or bar.open_time <= position.last_time:
        return
    if bar.open_time != position.last_time + 1:
        position.outcome = UNKNOWN
        position.exit_time = bar.close_time
        return
    position.last_time = bar.close_time
    if position.opened_at == 0:
        if not _enter(position, bar, entry_cost):
            return
    elif not np.isnan(funding_rate):
        position.funding += position.direction * funding_rate * bar.open
    side = float(position.direction)
    against, in_favour = (bar.low, bar.high) if side > 0.0 else (bar.high, bar.low)
    if side * (against - position.stop) <= 0.0:
        level = position.stop if side * (bar.open - position.stop) > 0.0 else bar.open
        _end(position, STOP, level * (1.0 - side * slippage), bar.close_time, fee)
        # The stop came first, so nothing better in this bar was ours.
        against = position.exit_price
        in_favour = position.entry
    elif side * (in_favour - position.target) >= 0.0:
        _end(position, TARGET, position.target, bar.close_time, fee)
        in_favour = position.target
    elif bar.close_time >= position.expiry_ms:
        _end(position, EXPIRY, bar.close, bar.close_time, fee)
    position.best = max(position.best, side * (in_favour - position.entry) / position.risk)
    position.worst = min(position.worst, side * (against - position.entry) / position.risk)


@njit
def _advance(
    positions: Positions,
    bar_of_symbol: NDArray[np.int64],
    bars: Bars,
    funding_rate: NDArray[np.float64],
    fee: float,
    entry_cost: float,
    slippage: float,
) -> None:
    for i in range(positions.size):
        if positions[i].outcome == OPEN:
            symbol = positions[i].symbol
            at = bar_of_symbol[symbol]
            if at >= 0:
                _step(positions[i], bars[at], funding_rate[symbol], fee, entry_cost, slippage)


@njit
def _run(
    positions: Positions,
    bars: Bars,
    first: NDArray[np.int64],
    funding_rate: NDArray[np.float64],
    fee: float,
    entry_cost: float,
    slippage: float,
) -> None:
    for i in range(positions.size):
        for at in range(first[i], bars.size):
            if positions[i].outcome != OPEN:
                break
            _step(positions[i], bars[at], funding_rate[at], fee, entry_cost, slippage)


def _usable(positions: Positions) -> Positions:
    if positions.dtype != POSITION or not (positions.flags.c_contiguous and positions.flags.writeable):
        raise PositionsUnusable("positions are changed in place: give a contiguous, writeable array of POSITION")
    return positions


def advance(
    positions: Positions,
    bar_of_symbol: NDArray[np.int64],
    bars: Bars,
    funding_rate: NDArray[np.float64],
    costs: CostModel,
) -> None:
    """One minute for all positions of all symbols, in place.

    `bar_of_symbol` int64 [S] is the index of each symbol's bar in `bars`, or -1 when it has none this
    minute; `funding_rate` float64 [S] the rate charged in this minute, NaN for none.
    """
    _advance(
        _usable(positions),
        np.require(bar_of_symbol, np.int64, ["C", "W"]),
        as_bars(bars),
        np.require(funding_rate, np.float64, ["C", "W"]),
        *costs.kernel_arguments,
    )


def run(positions: Positions, bars: Bars, funding: Fundings, costs: CostModel) -> None:
    """Positions of one symbol through its 1m bars, in place, by the same step as `advance`.

    A position whose end the bars do not reach stays `OPEN`, and can be run on when there are more.
    """
    bars, positions = as_bars(bars), _usable(positions)
    first = np.searchsorted(bars["open_time"], positions["last_time"], side="right").astype(np.int64)
    _run(positions, bars, first, funding_at(funding, bars), *costs.kernel_arguments)


def funding_at(funding: Fundings, bars: Bars) -> NDArray[np.float64]:
    """The rate charged in each bar, float64 [n]; NaN in bars without funding."""
    rates = np.full(bars.size, np.nan)
    at = np.searchsorted(bars["open_time"], funding["funding_time"], side="right") - 1
    inside = at >= 0
    inside[inside] = funding["funding_time"][inside] <= bars["close_time"][at[inside]]
    rates[at[inside]] = funding["funding_rate"][inside]
    return rates


def lose_silent(positions: Positions, time_ms: int, grace_ms: int) -> NDArray[np.int64]:
    """Mark open positions whose expiry passed more than `grace_ms` before `time_ms` as `UNKNOWN`; returns which.

    A gap shows with the next bar of the symbol; a symbol that never comes back needs this.
    """
    silent = (positions["outcome"] == OPEN) & (positions["expiry_ms"] + grace_ms < time_ms)
    positions["outcome"][silent] = UNKNOWN
    positions["exit_time"][silent] = time_ms
    return np.flatnonzero(silent)
