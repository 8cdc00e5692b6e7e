"""Where a worker keeps its state between two runs: what every such place can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from trading_worker.engine import Engine
from trading_worker.snapshots import EngineState


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A state that was found, until when each symbol's fundings were charged to it, and where it lay."""

    state: EngineState
    charged_until: tuple[int, ...]
    place: str


class StateKeeper(Protocol):
    """Keeps the newest states of an engine."""

    def save(self, engine: Engine, charged_until: Sequence[int], *, lasting: bool) -> None:
        """Keep the engine's state, between two waves, after its journal was committed.

        A `lasting` one survives a loss of power when this returns; others may be left out, or only survive a kill.
        """

    def newest_first(self, refuse: Callable[[str], None]) -> Iterator[Kept]:
        """Every whole state, the newest first; `refuse` is told of what was found and cannot be used."""
