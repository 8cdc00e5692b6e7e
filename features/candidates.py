"""Which trades are considered at all, by one rule for history and live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.decision_spec import DECISION_SPEC, DecisionSpec
from features.liquidity import HuntSettings, Reach, hunts
from features.rules import rule_signal

VERSION = 1
"""Raised whenever the same signals and events would give other candidates; part of the `DecisionSpec`'s `id`."""

RULE, EVENT, HUNT = 1, 2, 3
"""`kind`: a signal of the rule strategy; a CUSUM event, which is considered in both directions; a pool of liquidity
that is hunted (`features.liquidity`), only with `HuntSettings`."""

KIND = {RULE: "rule", EVENT: "event", HUNT: "hunt"}
"""The kinds' names."""


@dataclass(frozen=True)
class Candidates:
    """Trades to consider, by row and within a row long first; a direction appears once a row."""

    index: NDArray[np.int64]
    """[m] which decision row."""
    direction: NDArray[np.int8]
    """[m] 1 long, -1 short."""
    kind: NDArray[np.uint8]
    """[m] `RULE`, `EVENT` or `HUNT`. What is several of them is a rule signal before a hunt before an event: `hunting`
    adds candidates and names some events hunts, and leaves the rule signals as they are."""


def candidates(
    decision: NDArray[np.float32],
    spec: DecisionSpec = DECISION_SPEC,
    ready: NDArray[np.bool_] | None = None,
    hunting: HuntSettings | None = None,
    reach: Reach | None = None,
) -> Candidates:
    """The candidates among decision rows [k, D]: rule signals, CUSUM events in both directions, and hunts.

    `ready` [k] leaves out rows that are not; without it every row is considered. Without `hunting` no pool is hunted;
    `reach` is what a liquidity model says of the rows, None without one.
    """
    signal = rule_signal(decision, spec)
    event = np.abs(decision[:, spec.index(f"{spec.timeframes[0]}.cusum_event")]) == 1.0
    if ready is not None:
        signal = np.where(ready, signal, np.int8(0))
        event = event & ready
    kinds = np.zeros((len(decision), 2), dtype=np.uint8)
    kinds[event] = EVENT
    if hunting is not None:
        hunted = hunts(decision, spec, hunting, reach)
        kinds[hunted if ready is None else hunted & ready[:, None]] = HUNT
    kinds[signal == 1, 0] = RULE
    kinds[signal == -1, 1] = RULE
    index, side = np.nonzero(kinds)
    direction = np.where(side == 0, 1, -1).astype(np.int8)
    return Candidates(index.astype(np.int64), direction, kinds[index, side])
