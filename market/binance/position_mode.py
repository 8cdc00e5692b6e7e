"""Whether the account holds one position a symbol or a long and a short, and what orders say about it.

The mode is the account's and others can change it. It is read at the start, never taken from a failed read, and while
it is not known no position is opened. An exit does not depend on it: the position that it leaves was read with the
`positionSide` that it is held under, and that is what the exit says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from market.binance.errors import BinanceError, EntriesForbidden, Unchanged


class Mode(StrEnum):
    """How the account holds positions."""

    ONE_WAY = "one_way"
    HEDGE = "hedge"


class PositionSide(StrEnum):
    """Under which side a position is held: BOTH in one-way mode, else LONG or SHORT."""

    BOTH = "BOTH"
    LONG = "LONG"
    SHORT = "SHORT"


class PositionMode:
    """What is known of the account's mode.

    Parameters
    ----------
    read: asks the venue; True for hedge.
    write: sets it at the venue.
    """

    def __init__(self, read: Callable[[], Awaitable[bool]], write: Callable[[bool], Awaitable[None]]) -> None:
        self._read = read
        self._write = write
        self.known: Mode | None = None
        """None while it is not known."""
        self.failure: str | None = None
        """Why it is not known."""

    async def refresh(self) -> Mode | None:
        """Read it anew. When that fails nothing is known, whatever was known before, and `failure` says why."""
        self.known = None
        try:
            hedge = await self._read()
        except BinanceError as error:
            self.failure = str(error)
            return None
        self.remember(Mode.HEDGE if hedge else Mode.ONE_WAY)
        return self.known

    async def set(self, mode: Mode) -> None:
        """Have the account hold positions so; that it does already is success. Raises what the venue refuses with."""
        self.known = None
        try:
            await self._write(mode is Mode.HEDGE)
        except Unchanged:
            pass
        except BinanceError as error:
            self.failure = str(error)
            raise
        self.remember(mode)

    def remember(self, mode: Mode) -> None:
        """The venue has shown that this is the mode."""
        self.known, self.failure = mode, None

    def forget(self, reason: str) -> None:
        """What was known has been shown to be wrong."""
        self.known, self.failure = None, reason

    async def for_entry(self) -> Mode:
        """The mode, read if it is not known; `EntriesForbidden` while it cannot be."""
        mode = self.known or await self.refresh()
        if mode is None:
            raise EntriesForbidden(f"the account's position mode is not known ({self.failure})")
        return mode


def other(mode: Mode) -> Mode:
    """The one that it is not."""
    return Mode.ONE_WAY if mode is Mode.HEDGE else Mode.HEDGE


def mode_of(held_as: PositionSide) -> Mode:
    """The mode that a position tells by the side that it is held under."""
    return Mode.ONE_WAY if held_as is PositionSide.BOTH else Mode.HEDGE
