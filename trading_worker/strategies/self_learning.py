"""The model decides: of all candidates of a symbol, in both directions, the most probable winner."""

from __future__ import annotations

import numpy as np

from trading_worker.strategies.base import Choice, Proposals, best_per_row, take


def self_learning(proposals: Proposals) -> Choice:
    """The candidate with the highest win probability of each symbol, whatever made it a candidate."""
    return take(proposals, best_per_row(proposals, np.arange(proposals.row.size)))
