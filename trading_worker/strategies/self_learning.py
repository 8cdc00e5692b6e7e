"""What was learnt decides: the strategy's network takes or skips, the win model says how likely."""

from __future__ import annotations

import numpy as np

from features.episodes import LONG, SHORT
from trading_worker.strategies.base import Choice, Proposals, best_per_row, take


def self_learning(proposals: Proposals) -> Choice:
    """The candidate that the bundle's strategy would take at its symbol, whatever made it a candidate.

    Where it skips, nothing is taken. Where it is replaced by its plain version the win model decides alone: the
    candidate with the highest win probability, in either direction.
    """
    would = proposals.action[proposals.row]
    same = would == np.where(proposals.direction > 0, LONG, SHORT)
    return take(proposals, best_per_row(proposals, np.flatnonzero(same | (would < 0))))
