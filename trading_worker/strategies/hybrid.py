"""Rules and model together: either may propose, neither may contradict."""

from __future__ import annotations

import numpy as np

from trading_worker.strategies.base import RULE, Choice, Proposals, best_per_row, take


def hybrid(proposals: Proposals) -> Choice:
    """The most probable candidate of each symbol, unless the rules signal the other direction.

    - The rules propose: taken when the model finds no better candidate in the other direction.
    - A CUSUM event or a hunt of liquidity proposes: the direction that the model prefers is taken, unless the rules
      say the opposite. A hunt forbids nothing.
    - They disagree: nothing is taken for that symbol in this wave.

    The win probability confirms through the minimum confidence, which holds for every choice.
    """
    best = best_per_row(proposals, np.arange(proposals.row.size))
    rules = proposals.kind == RULE
    said = np.zeros(proposals.decision.shape[0], dtype=np.int8)
    said[proposals.row[rules]] = proposals.direction[rules]
    rule_says = said[proposals.row[best]]
    agreed = (rule_says == 0) | (rule_says == proposals.direction[best])
    return take(proposals, best[agreed])
