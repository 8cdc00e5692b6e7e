"""States to store that are told apart by every part, and a process that stores them until it is killed.

Light to import: the processes of a kill campaign spend their time in commits.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trading_worker.state_store import StateStore, series_digest

SPEC, SERIES = "decision-1-abc", series_digest(["A", "B"])

POSITION = np.dtype([("symbol", "<i8"), ("outcome", "i1"), ("entry", "<f8"), ("path", "<f4", (3,))])


def arrays(number: int, positions: int = 3) -> dict[str, NDArray[Any]]:
    """A state that is told from any other by every one of its parts."""
    position = np.zeros(positions, dtype=POSITION)
    for name in POSITION.names or ():
        position[name] = number % 100
    return {
        "state": np.full((5, 40), float(number)),
        "seldom": np.full(7, number // 10, dtype=np.int64),
        "position": position,
        "symbols": np.array(["AUSDT", "B"]),
        "spec": np.array(SPEC),
        "about": np.frombuffer(f"number {number}".encode(), dtype=np.uint8),
    }


def commit(store: StateStore, number: int, positions: int = 3) -> int:
    """Store state `number`, stamped with that minute."""
    return store.commit(60_000 * number, SPEC, SERIES, arrays(number, positions))


def write_until_killed(path: Path, growing: bool) -> None:
    """Commit as fast as possible, and say each number when it is stored."""
    store = StateStore(path)
    number = store.sequence
    while True:
        number += 1
        commit(store, number, positions=3 * number if growing else 3)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    write_until_killed(Path(sys.argv[1]), sys.argv[2] == "growing")
