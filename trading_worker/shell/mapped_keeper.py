"""The state of every minute in memory-mapped files, with snapshots beside them.

After each wave the engine's state goes into `state.map` (`state_store`), and what the models saw of each open
position into `positions.map` (`feature_slots`): no flush, about a millisecond for 200 symbols. A restart then runs
again only the minutes that it missed.

Snapshots are still written, as seldom as without this file: they are flushed to the disk, so they are what a loss of
power leaves, and they serve when the mapped file is damaged, of another layout or gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from trading_worker import sight, state_store
from trading_worker.engine import Engine
from trading_worker.errors import StateDamaged, StateRefused, StateUnwritable
from trading_worker.feature_slots import FeatureSlots
from trading_worker.shell.keeping import Kept
from trading_worker.shell.metrics import Board
from trading_worker.shell.snapshot_store import SnapshotStore
from trading_worker.snapshots import About, EngineState
from trading_worker.state_store import Generation, StateStore, series_digest

ABOUT, CHARGED = "about", "charged_until"


class MappedKeeper:
    """`state.map` and `positions.map` in `folder`, and `snapshots` beside them.

    A disk that refuses the mapped files is noted on the board; the worker goes on with snapshots alone.
    """

    def __init__(self, folder: Path, snapshots: SnapshotStore, board: Board) -> None:
        self._path = folder / "state.map"
        self._slots_path = folder / "positions.map"
        self._snapshots = snapshots
        self._board = board
        self._store: StateStore | None = None
        self._slots: FeatureSlots | None = None
        self._over = False

    def save(self, engine: Engine, charged_until: Sequence[int], *, lasting: bool) -> None:
        """Store the state in the mapped file; write a snapshot too when it is to last."""
        if not self._over:
            began = perf_counter()
            try:
                self._follow(engine)
                self._commit(engine, charged_until)
            except StateUnwritable as error:
                self._over = True
                self._board.notes["mapped state"] = f"{error}: snapshots alone are kept"
            self._board.state_commits.add(perf_counter() - began)
        self._snapshots.save(engine, charged_until, lasting=lasting)

    def newest_first(self, refuse: Callable[[str], None]) -> Iterator[Kept]:
        """The generations of the mapped file and the snapshots, by their time."""
        found = state_store.read(self._path)
        for refusal in found.refusals:
            refuse(str(refusal))
        # Nearly always the newest generation is the newest of all, and no snapshot has to be read.
        pending = [kept for generation in found.generations if (kept := _kept(generation, refuse)) is not None]
        if pending and self._snapshots.newest_ms() <= pending[0].state.about.time_ms:
            yield pending.pop(0)
        for kept in self._snapshots.newest_first(refuse):
            while pending and kept.state.about.time_ms <= pending[0].state.about.time_ms:
                yield pending.pop(0)
            yield kept
        yield from pending

    def seen(self, position_id: str) -> NDArray[np.float32] | None:
        """What the models saw of an open position when it was decided; see `sight`. None if it is not known."""
        return None if self._slots is None else self._slots.get(position_id)

    def close(self) -> None:
        """Let go of the files; what is in them stays."""
        self._over = True
        for each in (self._store, self._slots):
            if each is not None:
                each.close()

    def _commit(self, engine: Engine, charged_until: Sequence[int]) -> None:
        if self._store is None:
            self._store = StateStore(self._path)
        state = engine.capture()
        arrays = {
            **state.arrays,
            CHARGED: np.array(charged_until, dtype=np.int64),
            ABOUT: np.frombuffer(msgspec.msgpack.encode(state.about), dtype=np.uint8),
        }
        about = state.about
        self._store.commit(about.time_ms, about.decision_spec, series_digest(about.symbols), arrays)

    def _follow(self, engine: Engine) -> None:
        """Let the slots be those of the open positions, as far as it is known what was seen of them."""
        if self._slots is None:
            self._slots = FeatureSlots(self._slots_path, sight.width(engine.state.spec))
            if self._slots.refused is not None:
                self._board.notes["positions' vectors"] = f"begun anew, {self._slots.refused}"
        slots, open_ids = self._slots, set(engine.positions.ids())
        for position_id in [each for each in slots if each not in open_ids]:
            slots.free(position_id)
        for position_id, vector in engine.seen.items():
            if position_id in open_ids:
                slots.put(position_id, vector, engine.decision_spec)
        self._board.vectors = len(slots)


def _kept(generation: Generation, refuse: Callable[[str], None]) -> Kept | None:
    """A generation as the engine takes it."""
    arrays = dict(generation.arrays)
    try:
        about = msgspec.msgpack.decode(arrays.pop(ABOUT).tobytes(), type=About)
        charged = tuple(arrays.pop(CHARGED).tolist())
        generation.expect(about.decision_spec, series_digest(about.symbols))
    except StateRefused as error:
        refuse(str(error))
        return None
    except (KeyError, msgspec.MsgspecError) as error:
        refuse(str(StateDamaged(generation.path, f"generation {generation.sequence} says nothing of itself: {error}")))
        return None
    return Kept(EngineState(about, arrays), charged, "mapped state")
