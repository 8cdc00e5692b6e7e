"""The rules decide: their signals and hunts are taken as they come, with the win probability beside."""

from __future__ import annotations

import numpy as np

from trading_worker.strategies.base import HUNT, RULE, Choice, Proposals, best_per_row, take


def ict(proposals: Proposals) -> Choice:
    """The rule signals and, where liquidity is hunted, the hunts, which are as much of this school; no events.

    Their confidence is the win probability; the rules do not look at it, but of two for one symbol the likelier is
    taken.
    """
    return take(proposals, best_per_row(proposals, np.flatnonzero(np.isin(proposals.kind, (RULE, HUNT)))))
