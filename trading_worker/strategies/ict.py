"""The rules decide: their signals are taken as they come, with the win probability beside."""

from __future__ import annotations

import numpy as np

from trading_worker.strategies.base import RULE, Choice, Proposals, best_per_row, take


def ict(proposals: Proposals) -> Choice:
    """The rule signals only. Their confidence is the win probability; the rules do not look at it."""
    return take(proposals, best_per_row(proposals, np.flatnonzero(proposals.kind == RULE)))
