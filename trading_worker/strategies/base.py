"""What a strategy is: a pure function from a wave's scored candidates to those it would take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.candidates import EVENT, HUNT, RULE

__all__ = ["EVENT", "HUNT", "RULE", "Choice", "Proposals", "Strategy", "best_per_row", "take"]


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """The candidates of one wave with all that is known of them. Arrays of length m run in the same order.

    Parameters
    ----------
    names
        Columns of `decision`.
    decision
        float32[k, D], the decision rows.
    row
        int64[m], the candidate's line in `decision`; ascending, so a symbol's candidates stand together.
    direction
        int8[m], 1 long, -1 short.
    kind
        uint8[m], `RULE`, `EVENT` or `HUNT`.
    win_probability
        float32[m], calibrated probability of the target before the stop.
    quality
        float32[m], 0 to 1.
    action
        int64[k], what the bundle's strategy would do at each row, of `features.episodes`: skip, long or short; -1 where
        its plain version stands in.
    """

    names: tuple[str, ...]
    decision: NDArray[np.float32]
    row: NDArray[np.int64]
    direction: NDArray[np.int8]
    kind: NDArray[np.uint8]
    win_probability: NDArray[np.float32]
    quality: NDArray[np.float32]
    action: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a strategy takes.

    Parameters
    ----------
    chosen
        int64[n], indices into the proposals, ascending; at most one per line of `decision`.
    confidence
        float32[n], what the minimum confidence is held against.
    """

    chosen: NDArray[np.int64]
    confidence: NDArray[np.float32]


Strategy = Callable[[Proposals], Choice]
"""Pure: the same proposals give the same choice, and nothing else is read."""


def take(proposals: Proposals, chosen: NDArray[np.int64]) -> Choice:
    """These candidates, each with its win probability as confidence."""
    return Choice(chosen, proposals.win_probability[chosen])


def best_per_row(proposals: Proposals, among: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the candidates `among`, the most probable winner of each decision row, ascending in index.

    Ties go to the higher quality, then to the earlier candidate, so the choice never hangs on the order of a sort.
    A probability of NaN is never best.
    """
    among = among[~np.isnan(proposals.win_probability[among])]
    order = np.lexsort((among, -proposals.quality[among], -proposals.win_probability[among], proposals.row[among]))
    ranked = among[order]
    rows = proposals.row[ranked]
    first = np.ones(ranked.size, dtype=bool)
    first[1:] = rows[1:] != rows[:-1]
    return np.sort(ranked[first])
