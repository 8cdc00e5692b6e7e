"""A position that is followed as if it had been taken, its plan and its costs: what `barriers` runs, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

OPEN, TARGET, STOP, EXPIRY, VOID, UNKNOWN = range(6)
"""`outcome`: not yet known (waiting for its entry while `opened_at` is 0), won, stopped, expired, never taken, lost
sight of."""

OUTCOME = {OPEN: "open", TARGET: "target", STOP: "stop", EXPIRY: "expiry", VOID: "void", UNKNOWN: "unknown"}
"""The codes' names."""

POSITION = np.dtype(
    [
        ("symbol", "<i4"),  # row of the symbol in the universe
        ("direction", "i1"),  # 1 long, -1 short
        ("outcome", "i1"),  # OPEN ... UNKNOWN
        ("decided_at", "<i8"),  # close_time of the bar that decided
        ("opened_at", "<i8"),  # open_time of the minute of entry; 0 while it waits
        ("expiry_ms", "<i8"),
        ("last_time", "<i8"),  # close_time of the last minute that it has seen
        ("entry", "<f8"),  # fill, spread and slippage included
        ("stop", "<f8"),
        ("target", "<f8"),
        ("risk", "<f8"),  # |entry - stop|
        ("best", "<f8"),  # best and worst excursion so far, in R, before costs
        ("worst", "<f8"),
        ("funding", "<f8"),  # paid so far, price units per unit held
        ("exit_price", "<f8"),
        ("exit_time", "<i8"),  # close_time of the minute that ended it: from then on the outcome is known
        ("r", "<f8"),  # net of fee and funding; NaN until it ended, and when VOID or UNKNOWN
    ]
)
"""One position, followed as if it had been taken."""

Positions = NDArray[np.void]
"""An array of `POSITION`."""


@dataclass(frozen=True)
class CostModel:
    """What trading costs, in basis points (1e-4) of the price."""

    fee_bps: float = 5.0
    """Taker fee, on each side."""
    spread_bps: float = 1.0
    """The whole spread; half of it is paid at entry."""
    slippage_bps: float = 1.0
    """Paid at entry and at a stop."""

    @property
    def kernel_arguments(self) -> tuple[float, float, float]:
        """Fee, entry cost and slippage as fractions of the price."""
        return self.fee_bps * 1e-4, (self.spread_bps / 2 + self.slippage_bps) * 1e-4, self.slippage_bps * 1e-4


@dataclass(frozen=True)
class TradePlan:
    """Where stop, target and expiry lie.

    >>> TradePlan().levels(100.0, 2.0, 1)
    (97.0, 104.0)
    >>> TradePlan().levels(100.0, 2.0, -1)
    (103.0, 96.0)
    """

    stop_atr: float = 1.5
    """Distance of the stop from the deciding close, in ATR of the deciding timeframe."""
    target_atr: float = 2.0
    """Distance of the target, in the same unit."""
    horizon_minutes: int = 240
    """Minutes from the decision to the expiry."""

    def levels(self, close: Any, atr: Any, direction: Any) -> tuple[Any, Any]:
        """Stop and target for a decision at `close`; numbers or arrays alike."""
        return close - direction * self.stop_atr * atr, close + direction * self.target_atr * atr

    def positions(
        self, symbol: ArrayLike, direction: ArrayLike, decided_at: ArrayLike, close: ArrayLike, atr: ArrayLike
    ) -> Positions:
        """Positions waiting for their entry. All arguments broadcast to one dimension; ATR in price."""
        given = np.broadcast_arrays(*np.atleast_1d(symbol, direction, decided_at, close, atr))
        positions = np.zeros(given[0].shape, dtype=POSITION)
        positions["symbol"], positions["direction"], positions["decided_at"] = given[:3]
        positions["last_time"] = positions["decided_at"]
        positions["expiry_ms"] = positions["decided_at"] + self.horizon_minutes * 60_000
        positions["stop"], positions["target"] = self.levels(given[3], given[4], positions["direction"])
        positions["r"] = np.nan
        return positions
