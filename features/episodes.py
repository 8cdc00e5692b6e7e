"""Trades as a semi-Markov decision process: what a strategy could have done at each candidate, and what it got.

An *opportunity* is a candidate's decision row; the strategy is flat there and skips, goes long or goes short. What
would have become of both directions is known from the bars, whichever of them was the candidate. While a trade is open
the strategy decides again at every third close of the deciding timeframe: hold or close.

- **Ending.** A trade that is held ends as `barriers` ends it, by the same function with the same costs and funding.
  One that is closed ends at the open of the next minute, at the cost of an entry (half the spread and the slippage)
  and the fee; funding charged in that minute is paid. Where that open lies at or beyond the stop or the target, the
  order that rests there is first, and the trade ends as `barriers` ends it.
- **Reward.** What the trade's *mark* changed by since the last decision, in R: the mark is what it would be worth if
  it were closed at this price, all costs and fundings so far included; 0 before the entry. The rewards of a trade add
  up to its R. Rewards at the end alone would, discounted, make a loss the smaller the longer it is put off.
- **Skip** ends the opportunity at 0 and leads to no other. Positions do not shut each other out: every candidate is
  followed, whatever else is open, so nothing is forgone by taking one, and skipping leaves all later ones as they are.
  A chain through skips would only add what later candidates are worth to each action alike, with the errors of all.
- **Time.** Discounting goes by the bars between two decisions.

Only what was known at a decision is in its state; what came after is in rewards alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import barriers
from features.actions import ACTIONS as ACTIONS
from features.actions import CLOSE as CLOSE
from features.actions import HOLD as HOLD
from features.actions import LONG as LONG
from features.actions import POSITION_NAMES as POSITION_NAMES
from features.actions import SHORT as SHORT
from features.actions import SIDES as SIDES
from features.actions import SKIP as SKIP
from features.actions import action_mask as action_mask
from features.barriers import EXPIRY, STOP, TARGET, VOID, CostModel, Positions, TradePlan, funding_at
from features.candidates import candidates
from features.errors import SettingsUnusable
from features.history import DecisionHistory
from features.liquidity import HuntSettings
from features.rules import rule_signal
from market import funding as no_funding
from market.bars import Bars
from market.funding import Fundings

END = -1
"""`Transitions.next` where nothing follows."""

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def liquidation_r(positions: Positions, price: Float64, funding: Float64, costs: CostModel) -> Float64:
    """R of positions that were closed by a market order at `price` [k], `funding` [k] paid until then per unit."""
    fee, market_cost, _ = costs.kernel_arguments
    side = positions["direction"].astype(np.float64)
    got = price * (1.0 - side * market_cost)
    gained = side * (got - positions["entry"])
    return np.asarray((gained - fee * (positions["entry"] + got) - funding) / positions["risk"])


def position_state(
    positions: Positions, mark: Float64, bars_held: NDArray[Any], close: Float64, atr: Float64
) -> NDArray[np.float32]:
    """The columns `POSITION_NAMES` of open positions at a close of the deciding timeframe, float32 [k, 5].

    One function for history and live. `mark` [k] is `liquidation_r` at `close`; `atr` [k] in price, where it is not
    known the distances are NaN.
    """
    side = positions["direction"].astype(np.float64)
    columns = (
        side,
        mark,
        bars_held,
        side * (close - positions["stop"]) / atr,
        side * (positions["target"] - close) / atr,
    )
    return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)


@dataclass(frozen=True)
class Transitions:
    """`t` steps from state to state. States are numbered: the `n` opportunities, then the open ones."""

    state: Int64
    action: NDArray[np.int8]
    reward: Float64
    """In R."""
    next: Int64
    """The state that follows, `END` for none."""
    bars: Float64
    """Bars of the deciding timeframe until then: the discount's exponent."""

    def __len__(self) -> int:
        """How many there are."""
        return int(self.state.size)

    def select(self, rows: NDArray[Any]) -> Transitions:
        """Those of an index or mask; states keep their numbers."""
        return Transitions(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})


@dataclass(frozen=True)
class Episodes:
    """`n` opportunities in order of (time, symbol), the `2 n` trades they could become, and `m` decisions in those.

    Trade `2 i` is opportunity `i` taken long, `2 i + 1` taken short.
    """

    row: Int64
    """[n] decision row of the history."""
    symbol: NDArray[np.int32]
    """[n]"""
    decided_at: Int64
    """[n] close time of the deciding bar, ms."""
    known_at: Int64
    """[n] when the ends of both trades were known, ms."""
    signal: NDArray[np.int8]
    """[n] what the rule strategy proposes: 1 long, -1 short, 0 nothing."""
    outcome: NDArray[np.int8]
    """[n, 2] how each trade ended when it was held; `VOID` when it was never taken."""
    r: Float64
    """[n, 2] what it gave, in R net of fee and funding; 0 when it was never taken."""
    first: Int64
    """[2 n + 1] where each trade's decisions begin in the arrays below."""
    step_row: Int64
    """[m] decision row of the history at which hold or close is decided."""
    step_bars: Float64
    """[m] bars since the trade's decision."""
    step_mark: Float64
    """[m] what the trade is worth by the close of that bar, in R."""
    step_closed: Float64
    """[m] what it gives when it is closed there, in R."""
    step_position: NDArray[np.float32]
    """[m, 5] `POSITION_NAMES`."""

    def __len__(self) -> int:
        """How many opportunities there are."""
        return int(self.row.size)

    @property
    def states(self) -> int:
        """How many states there are: one flat state an opportunity, one open state a decision."""
        return len(self) + int(self.step_row.size)

    @property
    def state_row(self) -> Int64:
        """The decision row of each state."""
        return np.concatenate((self.row, self.step_row))

    @property
    def state_position(self) -> NDArray[np.float32]:
        """The position of each state, float32 [states, 5]."""
        return np.concatenate((np.zeros((len(self), len(POSITION_NAMES)), np.float32), self.step_position))

    @property
    def state_opportunity(self) -> Int64:
        """The opportunity that each state belongs to."""
        return np.concatenate((np.arange(len(self)), self.step_trade // 2))

    @property
    def step_trade(self) -> Int64:
        """[m] the trade of each decision."""
        return np.repeat(np.arange(2 * len(self)), np.diff(self.first))

    def select(self, opportunities: NDArray[Any]) -> Episodes:
        """Some of the opportunities by index, with their trades and decisions."""
        chosen = np.asarray(opportunities, dtype=np.int64)
        trades = (2 * chosen[:, None] + np.arange(2)).reshape(-1)
        counts = np.diff(self.first)[trades]
        first = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        steps = np.repeat(self.first[trades] - first[:-1], counts) + np.arange(first[-1])
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "first"}
        picked = {name: part[steps if name.startswith("step_") else chosen] for name, part in values.items()}
        return Episodes(first=first, **picked)

    def managed(self, close: NDArray[np.bool_]) -> Float64:
        """R of each trade [n, 2] when it is closed at the first of its decisions for which `close` [m] says so."""
        result = self.r.reshape(-1).copy()
        at = np.flatnonzero(close)
        # From the last to the first, so that the first is what stays.
        result[self.step_trade[at[::-1]]] = self.step_closed[at[::-1]]
        return result.reshape(-1, 2)

    def transitions(self) -> Transitions:
        """Everything that can be done from every state, and what came of it.

        Two entries an opportunity, a holding and a closing a decision. There is none for skip: it is worth 0 by
        definition. An entry that was void gives 0 and ends.
        """
        n, m = len(self), int(self.step_row.size)
        trade, last = self.step_trade, np.zeros(m, dtype=np.bool_)
        has_steps = np.diff(self.first) > 0
        last[self.first[1:][has_steps] - 1] = True
        following = np.arange(1, m + 1)
        # Marks and times after each decision, with an entry nobody reads so that the last can look one ahead.
        mark, bars = np.append(self.step_mark, 0.0), np.append(self.step_bars, 0.0)
        ends = self.r.reshape(-1)
        begin = np.minimum(self.first[:-1], m)
        entered = np.where(has_steps, mark[begin], ends)
        held = np.where(last, ends[trade], mark[following]) - self.step_mark
        return Transitions(
            state=np.concatenate((np.repeat(np.arange(n), 2), n + np.tile(np.arange(m), 2))),
            action=np.concatenate((np.tile([LONG, SHORT], n), np.repeat([HOLD, CLOSE], m))).astype(np.int8),
            reward=np.concatenate((entered, held, self.step_closed - self.step_mark)),
            next=np.concatenate(
                (np.where(has_steps, n + begin, END), np.where(last, END, n + following), np.full(m, END))
            ).astype(np.int64),
            bars=np.concatenate(
                (
                    np.where(has_steps, bars[begin], 0.0),
                    np.where(last, 0.0, bars[following] - self.step_bars),
                    np.zeros(m),
                )
            ),
        )


def episodes(
    history: DecisionHistory,
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    plan: TradePlan,
    costs: CostModel,
    *,
    every_bars: int = 3,
    hunting: HuntSettings | None = None,
) -> Episodes:
    """Every opportunity of `history` with both its trades, followed through the 1m `bars`.

    An open trade is decided on `every_bars` bars after its decision and as often again, as long as it is open. An
    opportunity of which either trade has a hole in its minutes, or an end that the bars do not reach, is left out.
    """
    if every_bars < 1:
        raise SettingsUnusable("every_bars", every_bars, "a whole number from 1 on")
    rows = np.unique(candidates(history.decision, history.spec, history.ready, hunting).index)
    both = np.repeat(rows, 2)
    sides = np.tile(np.array(SIDES, dtype=np.int8), len(rows))
    positions = plan.positions(history.symbol[both], sides, history.time[both], history.close[both], history.atr[both])
    for index, symbol in enumerate(history.symbols):
        mine = np.flatnonzero(positions["symbol"] == index)
        followed = positions[mine]
        barriers.run(followed, bars[symbol], funding.get(symbol, no_funding.empty()), costs)
        positions[mine] = followed
    known = np.isin(positions["outcome"], (TARGET, STOP, EXPIRY, VOID)).reshape(-1, 2).all(axis=1)
    rows, positions = rows[known], positions[np.repeat(known, 2)]
    taken = positions["outcome"] != VOID
    found = Episodes(
        row=rows,
        symbol=history.symbol[rows],
        decided_at=history.time[rows],
        known_at=positions["exit_time"].reshape(-1, 2).max(axis=1),
        signal=rule_signal(history.decision[rows], history.spec),
        outcome=positions["outcome"].reshape(-1, 2).copy(),
        r=np.where(taken, positions["r"], 0.0).reshape(-1, 2),
        first=np.zeros(len(positions) + 1, dtype=np.int64),
        step_row=np.empty(0, dtype=np.int64),
        step_bars=np.empty(0),
        step_mark=np.empty(0),
        step_closed=np.empty(0),
        step_position=np.empty((0, len(POSITION_NAMES)), dtype=np.float32),
    )
    every_ms = every_bars * history.spec.steps[0]
    # Closes that the trade is still open at: its end, when it falls on one, is no decision.
    counts = np.where(taken, (positions["exit_time"] - positions["decided_at"] - 1) // every_ms, 0)
    return _with_steps(found, positions, counts, every_bars, history, bars, funding, costs)


def _with_steps(
    found: Episodes,
    positions: Positions,
    counts: Int64,
    every_bars: int,
    history: DecisionHistory,
    bars: Mapping[str, Bars],
    funding: Mapping[str, Fundings],
    costs: CostModel,
) -> Episodes:
    """`found` with the decisions in its trades, `counts` of each; those without a decision row are left out."""
    trade = np.repeat(np.arange(positions.size), counts)
    number = np.arange(trade.size) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    held = number * every_bars
    at = positions["decided_at"][trade] + held * history.spec.steps[0]
    row = _rows_at(history, positions["symbol"][trade], at)
    kept = row >= 0
    trade, held, at, row = trade[kept], held[kept], at[kept], row[kept]
    mark, closed = np.empty(trade.size), np.empty(trade.size)
    for index, symbol in enumerate(history.symbols):
        mine = positions["symbol"][trade] == index
        rates = funding.get(symbol, no_funding.empty())
        mark[mine], closed[mine] = _values(positions[trade[mine]], at[mine], bars[symbol], rates, costs)
    return replace(
        found,
        first=np.concatenate(([0], np.cumsum(np.bincount(trade, minlength=positions.size)))).astype(np.int64),
        step_row=row,
        step_bars=held.astype(np.float64),
        step_mark=mark,
        step_closed=closed,
        step_position=position_state(positions[trade], mark, held, history.close[row], history.atr[row]),
    )


def _values(
    positions: Positions, at: Int64, bars: Bars, funding: Fundings, costs: CostModel
) -> tuple[Float64, Float64]:
    """What open positions of one symbol are worth at the closes `at` [k], and what they give when closed there."""
    charge = np.nan_to_num(funding_at(funding, bars)) * bars["open"]
    charged = np.concatenate(([0.0], np.cumsum(charge)))
    now = np.searchsorted(bars["close_time"], at)
    # The minute of entry pays none.
    before = charged[np.searchsorted(bars["open_time"], positions["opened_at"]) + 1]
    side = positions["direction"].astype(np.float64)
    mark = liquidation_r(positions, bars["close"][now], side * (charged[now + 1] - before), costs)
    opened = bars["open"][now + 1]
    closed = liquidation_r(positions, opened, side * (charged[now + 2] - before), costs)
    rests = (side * (opened - positions["stop"]) <= 0.0) | (side * (positions["target"] - opened) <= 0.0)
    return mark, np.where(rests, positions["r"], closed)


def _rows_at(history: DecisionHistory, symbol: NDArray[np.int32], time: Int64) -> Int64:
    """The decision row of each (symbol, time), -1 where there is none."""
    result = np.full(len(time), -1, dtype=np.int64)
    for index in range(len(history.symbols)):
        mine = np.flatnonzero(symbol == index)
        rows = np.flatnonzero(history.symbol == index)
        if not (mine.size and rows.size):
            continue
        place = np.minimum(np.searchsorted(history.time[rows], time[mine]), rows.size - 1)
        result[mine] = np.where(history.time[rows[place]] == time[mine], rows[place], -1)
    return result
