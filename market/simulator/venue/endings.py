"""The end of a conditional order, however it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from market.simulator.venue.accounts import Account
from market.simulator.venue.events import algo_update
from market.simulator.venue.orders import AlgoOrder, AlgoStatus

if TYPE_CHECKING:
    from market.simulator.venue.engine import Venue


def end_algo(venue: Venue, account: Account, algo: AlgoOrder, status: AlgoStatus, reason: str = "") -> None:
    """A conditional order has come to its end."""
    algo.status, algo.updated_ms, algo.reason = status, venue.now_ms, reason
    account.open_algos.pop(algo.id, None)
    account.past_algos[algo.id] = algo
    child = account.past_orders.get(algo.order_id)
    venue.emit(algo_update(account, algo, child, venue.now_ms))
