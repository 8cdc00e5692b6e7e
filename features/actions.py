"""What a strategy can do and what it knows of its position: the words of `features.episodes`, without its kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ACTIONS = ("skip", "long", "short", "hold", "close")
SKIP, LONG, SHORT, HOLD, CLOSE = range(5)
"""The five actions; the first three when flat, the others when a position is open."""

SIDES = (1, -1)
"""The directions of an opportunity's two trades, in order."""

POSITION_NAMES = (
    "position.direction",
    "position.unrealised_r",
    "position.bars_held",
    "position.stop_atr",
    "position.target_atr",
)
"""What the strategy knows of its position: 1 long, -1 short; its mark; bars of the deciding timeframe since the
decision; the distances left to stop and target in ATR of the deciding timeframe. All 0 when it is flat."""


def action_mask(direction: NDArray[Any]) -> NDArray[np.bool_]:
    """Which actions there are in positions of `direction` [k] (0 flat): bool [k, 5].

    >>> action_mask(np.array([0, -1])).astype(int).tolist()
    [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    """
    is_open = np.asarray(direction) != 0
    return np.where(is_open[:, None], np.arange(5) >= HOLD, np.arange(5) < HOLD)
